//! Every site of the decoder can be captured and edited, and edits are applied in a fixed order.
//!
//! Four things are proven of every site: what is captured equals what the f64 reference executor captures; an identity edit
//! leaves the logits bit for bit; zeroing changes them; an edit at a site that does not exist is an error. All of it on every
//! executor; what is missing of them shows as ignored: see `common/executors.rs`.

mod common;

use auscult_kernels::DType;
use auscult_kernels::ops::{add::Add, scale::Scale};
use auscult_model::Codes;
use auscult_model::musicgen::{Activations, At, Decoder, DecoderOptions, Precision, Site};
use auscult_runtime::weights::HostBytes;
use auscult_runtime::{Contents, CpuBackend, Edit, Edits, Insert, Step, Tensor};
use common::checkpoint::{Layout, write_checkpoint};
use common::compare::compare;
use common::executors::{Check, Executor, on_every_executor};
use common::generation::Generation;
use common::golden::Case;
use std::process::ExitCode;
use std::sync::Arc;

const BATCH: usize = 2;
const FRAMES: usize = 9;

/// What every executor is held to.
const CHECKS: &[Check] = &[
    ("every capture equals the reference executors", every_capture_equals_the_reference_executors),
    (
        "a capture does not depend on what else is captured",
        a_capture_does_not_depend_on_what_else_is_captured,
    ),
    ("the identity edit leaves the logits bit for bit", the_identity_edit_leaves_the_logits_bit_for_bit),
    (
        "zeroing changes the logits at every site before them",
        zeroing_changes_the_logits_at_every_site_before_them,
    ),
    (
        "a narrow capture of the stream is stored by the product",
        a_narrow_capture_of_the_stream_is_stored_by_the_product,
    ),
    (
        "what is added at cross attention reaches the logits",
        what_is_added_at_cross_attention_reaches_the_logits,
    ),
    (
        "a capture sees the value before inserts and what follows the value behind them",
        a_capture_sees_the_value_before_inserts_and_what_follows_the_value_behind_them,
    ),
    ("nothing behind the deepest site is computed", nothing_behind_the_deepest_site_is_computed),
    ("aliases reach the same site", aliases_reach_the_same_site),
    (
        "an unknown site is an error that names the nearest",
        an_unknown_site_is_an_error_that_names_the_nearest,
    ),
    ("an insert of another shape is refused", an_insert_of_another_shape_is_refused),
];

fn main() -> ExitCode {
    on_every_executor(CHECKS)
}

struct Setup {
    decoder: Decoder,
    executor: Executor,
    codes: Vec<Codes>,
    _dir: tempfile::TempDir,
}

fn setup(executor: &Executor) -> Setup {
    setup_with(executor, &DecoderOptions::default())
}

/// Products of f32, and products of f16 as GPUs with matrix units run them: the graph differs between sites.
fn both(executor: &Executor) -> [Setup; 2] {
    let half = DecoderOptions {
        precision: Precision::F16,
        activations: Activations::AsWeights,
        ..DecoderOptions::default()
    };
    [DecoderOptions::default(), half].map(|options| setup_with(executor, &options))
}

fn setup_with(executor: &Executor, options: &DecoderOptions) -> Setup {
    setup_of(&Case::committed("tiny"), executor, options)
}

/// A decoder without cross-attention, whose columns stand behind what conditions them.
fn melody(executor: &Executor) -> Setup {
    setup_of(&Generation::committed("melody").model(), executor, &DecoderOptions::default())
}

fn every(executor: &Executor) -> impl Iterator<Item = Setup> {
    both(executor).into_iter().chain([melody(executor)])
}

fn setup_of(case: &Case, executor: &Executor, options: &DecoderOptions) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint(case, dir.path(), &Layout::default());
    let decoder = Decoder::open(dir.path(), executor.backend.clone(), options).unwrap();
    let (codebooks, vocab) = (decoder.config().num_codebooks, decoder.config().vocab_size);
    let clip = |seed: usize| {
        let code = |i: usize| u32::try_from((i * 31 + seed * 17 + i * i) % vocab).unwrap();
        Codes::new(codebooks, FRAMES, (0..codebooks * FRAMES).map(code).collect()).unwrap()
    };
    Setup { decoder, executor: executor.clone(), codes: (0..BATCH).map(clip).collect(), _dir: dir }
}

impl Setup {
    fn sites(&self) -> Vec<Site> {
        let all = Site::all(self.decoder.config().num_hidden_layers);
        all.filter(|site| self.decoder.site(*site).is_ok()).collect()
    }

    fn run(&self, edits: Edits, output: &str) -> Vec<f32> {
        let forward = self.decoder.teacher_forced(BATCH, FRAMES, edits).unwrap();
        forward.run(&self.codes).unwrap();
        forward.output_f32(output).unwrap()
    }

    /// Logits with these ops at a site.
    fn logits(&self, at: Option<(Site, Vec<Insert>)>) -> Vec<f32> {
        let mut edits = Edits::new();
        edits.capture(Site::Logits, DType::F32);
        if let Some((site, ops)) = at {
            edits.insert(site, ops);
        }
        self.run(edits, "logits")
    }

    fn vector(&self, values: Vec<f32>) -> Tensor {
        let desc = auscult_kernels::TensorDesc::f32([values.len()]);
        let buffer = self.executor.backend.alloc(Contents::Host(HostBytes::from_f32s(values))).unwrap();
        Tensor { desc, span: buffer.span() }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn every_capture_equals_the_reference_executors(executor: &Executor) {
    for setup in [setup, melody] {
        let fast = setup(executor);
        let reference = Executor { name: "reference", backend: Arc::new(CpuBackend::reference().unwrap()) };
        let reference = setup(&reference);
        for site in fast.sites() {
            let mut edits = Edits::new();
            edits.capture(site, DType::F32);
            let got = fast.run(edits.clone(), &site.to_string());
            let want = reference.run(edits, &site.to_string());
            compare(&site.to_string(), &got, &want, executor.tolerance());
        }
    }
}

fn a_capture_does_not_depend_on_what_else_is_captured(executor: &Executor) {
    for s in every(executor) {
        let mut all = Edits::new();
        for site in s.sites() {
            all.capture(site, DType::F32);
        }
        let together = s.decoder.teacher_forced(BATCH, FRAMES, all).unwrap();
        together.run(&s.codes).unwrap();
        for site in s.sites() {
            let mut edits = Edits::new();
            edits.capture(site, DType::F32);
            let alone = s.run(edits, &site.to_string());
            assert_eq!(bits(&alone), bits(&together.output_f32(&site.to_string()).unwrap()), "{site}");
        }
    }
}

fn the_identity_edit_leaves_the_logits_bit_for_bit(executor: &Executor) {
    for s in every(executor) {
        let plain = bits(&s.logits(None));
        for site in s.sites() {
            let edited = s.logits(Some((site, vec![Insert::unary(Scale { factor: 1.0 })])));
            assert_eq!(plain, bits(&edited), "{site}");
        }
    }
}

fn zeroing_changes_the_logits_at_every_site_before_them(executor: &Executor) {
    for s in every(executor) {
        let plain = bits(&s.logits(None));
        for site in s.sites() {
            let edited = bits(&s.logits(Some((site, vec![Insert::unary(Scale { factor: 0.0 })]))));
            let unchanged = match site {
                // zero already: without text, cross-attention adds nothing
                Site::Layer(_, At::CrossAttnOut) => true,
                // a capture sees the value before the edit at its own site
                Site::Logits => true,
                _ => false,
            };
            assert_eq!(plain == edited, unchanged, "{site}");
        }
    }
}

/// The stream behind a product, captured in the type of the factors, is stored by the product itself, to the bits that a launch of
/// its own stores: the site that follows shows the same values, and no product stands before its edits.
fn a_narrow_capture_of_the_stream_is_stored_by_the_product(executor: &Executor) {
    let [_, s] = both(executor);
    let kernels = |edits: Edits| {
        let forward = s.decoder.teacher_forced(BATCH, FRAMES, edits).unwrap();
        let named = |step: &Step| match step {
            Step::Dispatch { plan, .. } => Some(plan.kernel.name),
            Step::Site { .. } => None,
        };
        let names: Vec<_> = forward.graph().steps().iter().filter_map(named).collect();
        let count = |name: &str| names.iter().filter(|n| **n == name).count();
        forward.run(&s.codes).unwrap();
        (forward, [count("capture_f16"), count("linear_half_capture_f16")])
    };
    for layer in 0..s.decoder.config().num_hidden_layers - 1 {
        let [mid, post] = [At::ResidMid, At::ResidPost].map(|at| Site::Layer(layer, at));
        let next = Site::Layer(layer + 1, At::ResidPre);
        let mut edits = Edits::new();
        edits.capture(mid, DType::F16).capture(post, DType::F16).capture(Site::Logits, DType::F32);
        edits.push(post, Edit::Capture { into: "again".into(), dtype: DType::F16 });
        let (fused, counts) = kernels(edits);
        assert_eq!(counts, [0, 2], "{post}");

        let mut edits = Edits::new();
        // the summand's own site keeps the product from adding to the stream
        edits.capture(Site::Layer(layer, At::SelfAttnOut), DType::F32).capture(mid, DType::F16);
        edits.capture(next, DType::F16).capture(Site::Logits, DType::F32);
        let (plain, counts) = kernels(edits);
        assert_eq!(counts, [2, 0], "{post}");
        for (site, output) in [(mid, &mid), (next, &post)] {
            let want = plain.output(&site.to_string()).unwrap();
            assert_eq!(fused.output(&output.to_string()).unwrap(), want, "{output}");
        }
        assert_eq!(fused.output("again").unwrap(), fused.output(&post.to_string()).unwrap());
        assert_eq!(fused.output("logits").unwrap(), plain.output("logits").unwrap());

        // an insert acts behind what is stored
        let mut edits = Edits::new();
        edits.insert(post, vec![Insert::unary(Scale { factor: 0.5 })]);
        edits.capture(post, DType::F16).capture(next, DType::F32);
        let (edited, counts) = kernels(edits);
        assert_eq!(counts, [0, 1], "{post}");
        assert_eq!(edited.output(&post.to_string()).unwrap(), fused.output(&post.to_string()).unwrap());
        let mut edits = Edits::new();
        edits.capture(post, DType::F32).capture(mid, DType::BF16);
        let (wide, counts) = kernels(edits);
        assert_eq!(counts, [0, 0], "{post}");
        let halved: Vec<f32> = wide.output_f32(&post.to_string()).unwrap().iter().map(|v| 0.5 * v).collect();
        assert_eq!(bits(&edited.output_f32(&next.to_string()).unwrap()), bits(&halved));
    }
}

fn what_is_added_at_cross_attention_reaches_the_logits(executor: &Executor) {
    let s = setup(executor);
    let width = s.decoder.config().hidden_size;
    let plain = bits(&s.logits(None));
    for layer in 0..s.decoder.config().num_hidden_layers {
        let site = Site::Layer(layer, At::CrossAttnOut);
        let direction = s.vector((0..width).map(|i| (i as f32 * 0.7).sin()).collect());
        let edited = s.logits(Some((site, vec![Insert::binary(Add { alpha: 0.5 }, direction)])));
        assert_ne!(plain, bits(&edited), "{site}");
    }
}

fn a_capture_sees_the_value_before_inserts_and_what_follows_the_value_behind_them(executor: &Executor) {
    let s = setup(executor);
    let site = Site::Layer(1, At::ResidPost);
    let next = Site::Layer(2, At::ResidPre);
    let captured = |ops: Vec<Insert>, first: bool, output: Site| {
        let mut edits = Edits::new();
        if first {
            edits.insert(site, ops.clone());
        }
        edits.capture(site, DType::F32).capture(next, DType::F32);
        if !first {
            edits.insert(site, ops);
        }
        s.run(edits, &output.to_string())
    };
    let before = captured(vec![], false, site);
    let halved = vec![Insert::unary(Scale { factor: 0.5 })];
    for insert_first in [true, false] {
        let seen = captured(halved.clone(), insert_first, site);
        assert_eq!(bits(&before), bits(&seen), "a capture sees the value before the insert");
        let behind = captured(halved.clone(), insert_first, next);
        let want: Vec<f32> = before.iter().map(|v| v * 0.5).collect();
        assert_eq!(bits(&want), bits(&behind), "what follows sees the value behind it");
    }
    // inserts act in the order they were added: (x + 1) * 0.5, not x * 0.5 + 1
    let ones = s.vector(vec![1.0; s.decoder.config().hidden_size]);
    let ops = vec![Insert::binary(Add { alpha: 1.0 }, ones), Insert::unary(Scale { factor: 0.5 })];
    let behind = captured(ops, false, next);
    let want: Vec<f32> = before.iter().map(|v| (v + 1.0) * 0.5).collect();
    assert_eq!(bits(&want), bits(&behind));
}

fn nothing_behind_the_deepest_site_is_computed(executor: &Executor) {
    let s = setup(executor);
    for site in s.sites() {
        let mut edits = Edits::new();
        edits.capture(site, DType::F32);
        let forward = s.decoder.teacher_forced(BATCH, FRAMES, edits).unwrap();
        let passed: Vec<&str> = forward.graph().sites().collect();
        assert_eq!(passed.last(), Some(&site.to_string().as_str()));
        let attentions = forward.graph().steps().iter().filter(
            |step| matches!(step, Step::Dispatch { plan, .. } if plan.kernel.name == "attention_f32"),
        );
        let reached = match site {
            Site::Embed => 0,
            Site::Layer(layer, At::ResidPre) => layer,
            Site::Layer(layer, _) => layer + 1,
            Site::FinalNorm | Site::Logits => s.decoder.config().num_hidden_layers,
        };
        assert_eq!(attentions.count(), reached, "{site}");
    }
}

fn aliases_reach_the_same_site(executor: &Executor) {
    let s = setup(executor);
    let by_name = |name: &str| {
        let mut edits = Edits::new();
        edits.push(name, Edit::Capture { into: "x".into(), dtype: DType::F32 });
        bits(&s.run(edits, "x"))
    };
    assert_eq!(by_name("hook_layers.1"), by_name("layers.1.resid_post"));
    assert_eq!(by_name("paper:2"), by_name("layers.1.resid_post"));
    assert_ne!(by_name("hook_layers.0"), by_name("layers.1.resid_post"));
}

fn an_unknown_site_is_an_error_that_names_the_nearest(executor: &Executor) {
    let s = setup(executor);
    let message = |name: &str| {
        let mut edits = Edits::new();
        edits.capture(name, DType::F32);
        s.decoder.teacher_forced(BATCH, FRAMES, edits).err().expect("the site does not exist").to_string()
    };
    assert_eq!(
        message("layers.3.resid_post"),
        "site `layers.3.resid_post` does not exist, expected a layer in 0..=2"
    );
    assert!(message("layers.1.resid_poss").contains("nearest: `layers.1.resid_post`"));
    assert!(message("hook_layers.3").contains("0..=2"));
}

fn an_insert_of_another_shape_is_refused(executor: &Executor) {
    let s = setup(executor);
    let mut edits = Edits::new();
    let narrow = s.vector(vec![1.0; 3]);
    edits.insert("layers.0.resid_post", vec![Insert::binary(Add { alpha: 1.0 }, narrow)]);
    let error = s.decoder.teacher_forced(BATCH, FRAMES, edits).err().expect("the shapes differ").to_string();
    assert!(error.contains("add_f32"), "{error}");
}
