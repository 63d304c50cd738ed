//! Rows put in the place of the stream's: the model's own change nothing, others do what an edit does, and reconstructions cost
//! the model what they cost the reference. All of it on every executor; what is missing of them shows as ignored: see
//! `common/executors.rs`.

mod common;

use auscult_analysis::alignment::code_cost;
use auscult_analysis::sae_stats::Fit;
use auscult_kernels::DType;
use auscult_kernels::ops::scale::Scale;
use auscult_model::Codes;
use auscult_model::musicgen::{CrossEntropy, Decoder, DecoderOptions, Site};
use auscult_model::sae::{Encoder, Sae, SaeParts, SaePrecision};
use auscult_runtime::{Edits, Insert};
use common::checkpoint::{Layout, write_checkpoint};
use common::executors::{Check, Executor, on_every_executor};
use common::generation::Generation;
use common::golden::{Case, golden_dir};
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;
use std::process::ExitCode;

const BATCH: usize = 2;
const FRAMES: usize = 9;

/// What every executor is held to.
const CHECKS: &[Check] = &[
    (
        "the models own rows change nothing and zeros do what zeroing does",
        the_models_own_rows_change_nothing_and_zeros_do_what_zeroing_does,
    ),
    ("every clip gets its own rows", every_clip_gets_its_own_rows),
    ("reconstructions cost what they cost the reference", reconstructions_cost_what_they_cost_the_reference),
    ("refusals name the argument", refusals_name_the_argument),
];

fn main() -> ExitCode {
    on_every_executor(CHECKS)
}

struct Setup {
    decoder: Decoder,
    codes: Vec<Codes>,
    _dir: tempfile::TempDir,
}

/// A decoder with cross-attention, one behind a prefix, and one of two channels.
fn every(executor: &Executor) -> [Setup; 3] {
    [
        setup(&Case::committed("tiny"), executor),
        setup(&Generation::committed("melody").model(), executor),
        setup(&Generation::committed("stereo").model(), executor),
    ]
}

fn setup(case: &Case, executor: &Executor) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint(case, dir.path(), &Layout::default());
    let decoder = Decoder::open(dir.path(), executor.backend.clone(), &DecoderOptions::default()).unwrap();
    let (codebooks, vocab) = (decoder.config().num_codebooks, decoder.config().vocab_size);
    let clip = |seed: usize| {
        let code = |i: usize| u32::try_from((i * 31 + seed * 17 + i * i) % vocab).unwrap();
        Codes::new(codebooks, FRAMES, (0..codebooks * FRAMES).map(code).collect()).unwrap()
    };
    Setup { decoder, codes: (0..BATCH).map(clip).collect(), _dir: dir }
}

impl Setup {
    /// The sites whose rows are of the stream's width.
    fn sites(&self) -> Vec<Site> {
        let all = Site::all(self.decoder.config().num_hidden_layers);
        all.filter(|site| *site != Site::Logits && self.decoder.site(*site).is_ok()).collect()
    }

    /// The cross-entropy of each clip under edits, and the rows at a site before them.
    fn plain(&self, site: Site, ops: Vec<Insert>) -> (Vec<CrossEntropy>, Vec<f32>) {
        let mut edits = Edits::new();
        edits.capture(site, DType::F32).capture(Site::Logits, DType::F32).insert(site, ops);
        let pass = self.decoder.teacher_forced(BATCH, FRAMES, edits).unwrap();
        pass.run(&self.codes).unwrap();
        (pass.cross_entropy(&self.codes).unwrap(), pass.output_f32(&site.to_string()).unwrap())
    }
}

fn the_models_own_rows_change_nothing_and_zeros_do_what_zeroing_does(executor: &Executor) {
    for s in every(executor) {
        for site in s.sites() {
            let (clean, rows) = s.plain(site, Vec::new());
            let spliced = s.decoder.spliced(BATCH, FRAMES, site).unwrap();
            assert_eq!(spliced.run(&s.codes, &rows).unwrap(), clean, "{site}");
            let zeros = spliced.run(&s.codes, &vec![0.0; rows.len()]).unwrap();
            // what stands in front of the columns is spared, so only without it is zeroing the same
            if s.decoder.prefix_positions(0) == 0 {
                let (zeroed, _) = s.plain(site, vec![Insert::unary(Scale { factor: 0.0 })]);
                assert_eq!(zeros, zeroed, "{site}");
            }
            let exact = site.to_string().ends_with("cross_attn_out");
            assert_eq!(zeros == clean, exact, "{site}: cross-attention adds zero without text");
            // what was put there once is gone
            assert_eq!(spliced.run(&s.codes, &rows).unwrap(), clean, "{site}");
        }
    }
}

fn every_clip_gets_its_own_rows(executor: &Executor) {
    let [s, melody, _] = every(executor);
    for s in [s, melody] {
        let site: Site = "layers.1.resid_post".parse().unwrap();
        let (clean, rows) = s.plain(site, Vec::new());
        let mut changed = rows.clone();
        let half = rows.len() / BATCH;
        changed[half..].iter_mut().for_each(|v| *v = -*v);
        let found = s.decoder.spliced(BATCH, FRAMES, site).unwrap().run(&s.codes, &changed).unwrap();
        assert_eq!(found[0], clean[0]);
        assert_ne!(found[1], clean[1]);
        // a single late row: nothing before it hears of it
        let mut late = rows.clone();
        let width = s.decoder.config().hidden_size;
        late[(FRAMES - 1) * width..FRAMES * width].fill(3.0);
        let found = s.decoder.spliced(BATCH, FRAMES, site).unwrap().run(&s.codes, &late).unwrap();
        assert_ne!(found[0], clean[0]);
        assert_eq!(found[1], clean[1]);
        let mut last = rows;
        last[FRAMES * width..(FRAMES + 1) * width].fill(3.0);
        let found = s.decoder.spliced(BATCH, FRAMES, site).unwrap().run(&s.codes, &last).unwrap();
        assert_eq!(found, clean, "nothing is predicted from the last position");
    }
}

/// Sums that Hugging Face's decoder gave in float64, with a hook that replaces a layer's output (`make_splice_fixtures.py`).
fn reconstructions_cost_what_they_cost_the_reference(executor: &Executor) {
    for name in ["tiny", "stereo"] {
        let file = |end: &str| golden_dir().join("splice").join(format!("{name}.{end}"));
        let expected: Value = serde_json::from_slice(&fs::read(file("json")).unwrap()).unwrap();
        let bytes = fs::read(file("safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let floats =
            |name: &str| -> Vec<f32> { bytemuck::pod_collect_to_vec(tensors.tensor(name).unwrap().data()) };
        let s = setup(&Case::committed(name), executor);
        let view = tensors.tensor("codes").unwrap();
        let codes: Vec<u32> = bytemuck::pod_collect_to_vec(view.data());
        let [rows, codebooks, frames] = *view.shape() else { panic!("codes of {:?}", view.shape()) };
        let clips = codes.chunks_exact(codebooks * frames);
        let codes: Vec<Codes> = clips.map(|c| Codes::new(codebooks, frames, c.to_vec()).unwrap()).collect();
        let [w_enc, b_enc, w_dec, b_dec] = ["W_enc", "b_enc", "W_dec", "b_dec"].map(floats);
        let k = usize::try_from(expected["k"].as_u64().unwrap()).unwrap();
        let sae = Sae::new(SaeParts { w_enc, b_enc, w_dec, b_dec }, Some(k), None).unwrap();

        let site: Site = expected["site"].as_str().unwrap().parse().unwrap();
        let mut edits = Edits::new();
        edits.capture(site, DType::F32).capture(Site::Logits, DType::F32);
        let plain = s.decoder.teacher_forced(rows, frames, edits).unwrap();
        plain.run(&codes).unwrap();
        let x = plain.output_f32(&site.to_string()).unwrap();
        let xhat = sae.reconstruct(&x, &sae.encode(&x).unwrap()).unwrap();
        let spliced = s.decoder.spliced(rows, frames, site).unwrap();
        let found = [
            ("clean", plain.cross_entropy(&codes).unwrap()),
            ("spliced", spliced.run(&codes, &xhat).unwrap()),
            ("zeroed", spliced.run(&codes, &vec![0.0; x.len()]).unwrap()),
        ];
        for (what, found) in found {
            for (row, found) in found.iter().enumerate() {
                let wanted = expected[what][row].as_f64().unwrap();
                // f32 moves a logit by about 3e-6
                assert!((found.sum / wanted - 1.0).abs() < 1e-5, "{name} {what}: {} for {wanted}", found.sum);
                assert_eq!(Some(found.codes as u64), expected["predicted"].as_u64(), "{name} {what}");
            }
        }
        // the share that is won back, as `sae eval` tells it
        let total = |what: &str| -> f64 {
            expected[what].as_array().unwrap().iter().map(|sum| sum.as_f64().unwrap()).sum()
        };
        let [clean, spliced, zeroed] = ["clean", "spliced", "zeroed"].map(total);
        let wanted = (zeroed - spliced) / (zeroed - clean);
        assert!(zeroed > clean && 0.0 < wanted && wanted < 1.0, "{name}: {wanted}");
        let mut encoder = Encoder::new(&sae, SaePrecision::F32, &executor.backend).unwrap();
        let cost = code_cost(&s.decoder, &mut encoder, site, &vec![codes.clone()]).unwrap();
        let recovered = cost.recovered.expect("zeros cost more than nothing");
        // each sum is off by up to 1e-5 of itself, and their differences by the same
        let off = 1e-5 * (2.0 * zeroed + spliced + clean) / (zeroed - clean);
        assert!((recovered - wanted).abs() <= off, "{name}: {recovered} recovered, expected {wanted}");
        assert_eq!(
            Some(cost.codes as u64),
            expected["predicted"].as_u64().map(|n| n * rows as u64),
            "{name}"
        );
        for (what, found, total) in [
            ("clean", cost.clean, clean),
            ("spliced", cost.spliced, spliced),
            ("zeroed", cost.zeroed, zeroed),
        ] {
            let wanted = total / cost.codes as f64;
            assert!((found / wanted - 1.0).abs() < 1e-5, "{name} {what}: {found} a code for {wanted}");
        }
        let fvu = Fit::of(&x, &xhat, sae.width()).fvu().unwrap();
        assert!((fvu / expected["fvu"].as_f64().unwrap() - 1.0).abs() < 1e-5, "{name}: {fvu}");
    }
}

fn refusals_name_the_argument(executor: &Executor) {
    let [s, ..] = every(executor);
    let error = s.decoder.spliced(BATCH, FRAMES, Site::Logits).err().expect("too wide").to_string();
    assert!(error.contains("`site` is logits") && error.contains("the width of the stream"), "{error}");
    let spliced = s.decoder.spliced(BATCH, FRAMES, Site::Embed).unwrap();
    let error = spliced.run(&s.codes, &[0.0; 7]).expect_err("too few").to_string();
    assert!(error.contains("`rows` is 7 values, expected F32 [20, "), "{error}");
    assert!(spliced.run(&s.codes[..1], &vec![0.0; 20 * s.decoder.config().hidden_size]).is_err());
}
