//! The judge is judged first: the generator of weights, the comparator, the stored expectations, the checkpoint writer.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use common::checkpoint::{DataStart, Extras, Layout, TextEmbedding, WeightNorm, write_checkpoint};
use common::compare::{CEILING, Codes, Tolerance, measure, measure_codes};
use common::golden::{Case, Kind, Values, read_safetensors};
use common::procedural::{Stored, fnv1a64, uniform};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Values printed by `procedural.py`.
#[test]
fn generator_gives_the_reference_vectors() {
    assert_eq!(fnv1a64("a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fnv1a64("decoder.lm_heads.0.weight"), 0x71a5_c516_3b64_5430);
    let first: Vec<f32> = uniform("a", 4).collect();
    assert_eq!(first, [0.371_730_92, 0.998_122_3, 0.992_106_5, 0.685_940_86]);
    let head: Vec<f32> = uniform("decoder.lm_heads.0.weight", 3).collect();
    assert_eq!(head, [0.190_863_61, 0.819_297_9, 0.702_275_3]);
}

#[test]
fn every_weight_is_rebuilt_bit_for_bit() {
    for case in Case::all_committed().iter().filter(|case| case.kind != Kind::Tables) {
        let mut digest = Sha256::new();
        for weight in &case.weights {
            for value in weight.values() {
                digest.update(value.to_le_bytes());
            }
        }
        assert_eq!(Some(hex(digest.finalize())), case.weights_sha256, "weights of `{}`", case.name);
    }
}

#[test]
fn committed_cases_are_what_the_reference_wrote() {
    let cases = Case::all_committed();
    let count = |kind| cases.iter().filter(|case| case.kind == kind).count();
    assert_eq!([count(Kind::Musicgen), count(Kind::Encodec), count(Kind::Tables)], [10, 10, 1]);
    for case in &cases {
        let bytes = fs::read(case.dir.join("expected.safetensors")).expect("every case has expectations");
        assert_eq!(
            hex(Sha256::digest(&bytes)),
            case.expected_sha256,
            "expected.safetensors of `{}`",
            case.name
        );
        for (name, tensor) in &case.stored {
            assert_eq!(tensor.shape.iter().product::<usize>(), tensor.count());
            if let Values::F32(values) = &tensor.values {
                assert!(values.iter().all(|v| v.is_finite()), "`{name}` of `{}` is not finite", case.name);
            }
        }
    }
}

/// Each run holds every site of every layer, in shapes that follow from its own figures and from config.json.
#[test]
fn decoder_runs_are_complete() {
    let mut runs = 0;
    for case in Case::all_of(Kind::Musicgen) {
        let config: serde_json::Value = serde_json::from_str(&case.config_json()).expect("JSON");
        let size =
            |name: &str| usize::try_from(config["decoder"][name].as_u64().expect(name)).expect("a size");
        let (layers, d_model, vocab) = (size("num_hidden_layers"), size("hidden_size"), size("vocab_size"));
        for run in case.decoder_runs() {
            runs += 1;
            let f = &run.facts;
            let sites = run.sites();
            let hidden = [f.batch, f.steps, d_model];
            for site in &sites {
                let want =
                    if site == "logits" { &[f.batch, f.steps, f.codebooks, vocab][..] } else { &hidden[..] };
                assert_eq!(run.site(site).shape, want, "`{site}` of {}/{}", case.name, run.name);
            }
            if f.weights == Stored::F32 {
                assert_eq!(sites.len(), 6 * layers + 3, "sites of {}/{}", case.name, run.name);
                let (first, last) = (&sites[0], &sites[sites.len() - 1]);
                assert_eq!([first.as_str(), last.as_str()], ["embed", "logits"]);
                assert_eq!(run.site("layers.0.resid_pre"), run.site("embed"));
                assert!(run.site("layers.0.cross_attn_out").f32().iter().all(|&v| v == 0.0));
            }
            assert_eq!(f.steps, f.frames + 1);
            let (codes, delayed) = (run.codes(), run.delayed());
            for (i, &id) in delayed.i32().iter().enumerate() {
                let (row, step) = (i / f.steps, i % f.steps);
                let delay = f.delays[row % f.codebooks];
                let want = match step.checked_sub(1 + delay) {
                    Some(frame) => codes.i32()[row * f.frames + frame],
                    None => i32::try_from(vocab).expect("a small vocabulary"),
                };
                assert_eq!(id, want, "delayed id {i} of {}/{}", case.name, run.name);
            }
        }
    }
    assert_eq!(runs, 19);
}

/// Residuals add up: a mistaken hook in the reference script would show here.
#[test]
fn residual_stream_is_the_sum_of_its_writers() {
    for case in Case::all_of(Kind::Musicgen) {
        for run in case.decoder_runs().iter().filter(|run| run.facts.weights == Stored::F32) {
            let layers = run.sites().iter().filter(|site| site.ends_with("resid_post")).count();
            for layer in 0..layers {
                let at = |site: &str| run.site(&format!("layers.{layer}.{site}"));
                for (base, written, result) in
                    [("resid_pre", "self_attn_out", "resid_mid"), ("resid_mid", "mlp_out", "resid_post")]
                {
                    let (base, written) = (at(base), at(written));
                    let sum: Vec<f32> = base.f32().iter().zip(written.f32()).map(|(a, b)| a + b).collect();
                    // Three f32 roundings of values of unit scale.
                    let tolerance = Tolerance { rel_l2: 2e-7, elem_over_rms: 1e-6 };
                    let name = format!("{}/{} layers.{layer}.{result}", case.name, run.name);
                    common::compare::compare(&name, &sum, at(result).f32(), tolerance);
                }
            }
        }
    }
}

#[test]
fn codec_runs_are_complete() {
    let mut runs = 0;
    for case in Case::all_committed() {
        for run in case.codec_runs() {
            runs += 1;
            let f = &run.facts;
            let (latents, audio) = (run.latents(), run.audio());
            assert_eq!(run.wav().shape, [f.samples]);
            assert_eq!(run.codes().shape, [f.all_codebooks, f.frames]);
            assert_eq!(run.margins().shape, [f.all_codebooks, f.frames]);
            assert_eq!(latents.shape[1], f.frames);
            assert_eq!(run.quantized().shape, latents.shape);
            let hop = audio.count() / f.frames;
            assert_eq!([audio.count(), f.frames], [f.frames * hop, f.samples.div_ceil(hop)]);
            let smallest = run.margins().f32().iter().copied().fold(f32::INFINITY, f32::min);
            assert!((smallest / f.min_margin - 1.0).abs() < 1e-2, "margins of {}/{}", case.name, run.name);
            if f.layers {
                assert_eq!(run.tensor("encoder.layers.0").shape[1], f.samples);
                assert_eq!(run.tensor("decoder.layers.0").shape[1], f.frames);
            }
        }
    }
    assert_eq!(runs, 43);
}

/// The figures published for half-precision positions, from the stored table of figures.
#[test]
fn position_tables_show_the_known_collapse() {
    let case = Case::committed("tables");
    let ranges = case.notes["position_ranges_1024"].as_array().expect("a list").clone();
    let distinct = |mode: &str, first: u64| {
        let row = ranges.iter().find(|row| row[0] == mode && row[1] == first).expect("a range");
        row[3].as_u64().expect("a count")
    };
    for mode in ["audiocraft-f16", "audiocraft-f16-autocast"] {
        assert_eq!([0, 2049, 8000, 30000].map(|first| distinct(mode, first)), [501, 1025, 150, 63]);
    }
    assert_eq!(distinct("f32", 30000), 1000);
}

const LOOSE: Tolerance = Tolerance { rel_l2: CEILING, elem_over_rms: CEILING };

#[test]
fn comparator_refuses_what_it_must() {
    let want = [1.0, -2.0, 3.0];
    let fails = |got: &[f32], want: &[f32], tolerance, part: &str| {
        let message = measure("x", got, want, tolerance).expect_err(part);
        assert!(message.contains(part), "`{message}` lacks `{part}`");
    };
    let lax = Tolerance { rel_l2: 2.0 * CEILING, ..LOOSE };
    fails(&want, &want, lax, "above the ceiling");
    fails(&want, &want, Tolerance { elem_over_rms: f64::NAN, ..LOOSE }, "above the ceiling");
    fails(&want[..2], &want, LOOSE, "got 2 values, want 3");
    fails(&[], &[], LOOSE, "nothing to compare");
    fails(&[1.0, f32::NAN, 3.0], &want, LOOSE, "got is not finite at [1]");
    fails(&[1.0, -2.0, f32::INFINITY], &want, LOOSE, "got is not finite at [2]");
    fails(&want, &[1.0, f32::NAN, 3.0], LOOSE, "want is not finite at [1]");
    fails(&[1.0, -2.0, 3.1], &want, LOOSE, "at [2] of 3: got 3.1e0, want 3e0");
    // One bad element in a long vector hides from the L2 norm, not from the element bound.
    let long = vec![1.0; 100_000];
    let mut bad = long.clone();
    bad[77] = 1.02;
    fails(&bad, &long, LOOSE, "at [77] of 100000");
    fails(&[0.0, 1e-30], &[0.0, 0.0], LOOSE, "relative L2 error inf");
    // Squares of these overflow f32, so the sums may not be f32.
    measure("x", &[3e30, 1e30], &[3e30, 1e30], LOOSE).expect("equal values compare equal");
    measure("x", &[0.0, -0.0], &[0.0, 0.0], LOOSE).expect("zeros match zeros");
    let found = measure("x", &[3.0, 4.001], &[3.0, 4.0], LOOSE).expect("within");
    assert!((found.rel_l2 - 0.001 / 5.0).abs() < 1e-7);
    assert!((found.elem_over_rms - 0.001 / 12.5f64.sqrt()).abs() < 1e-7);
}

#[test]
fn codes_may_differ_at_near_ties_only() {
    // [2 codebooks, 3 frames]; frame 1 is a near tie in codebook 0.
    let want = [1, 2, 3, 4, 5, 6];
    let margins = [0.5, 1e-6, 0.5, 0.5, 0.5, 0.5];
    let all_equal = measure_codes("c", &want, &want, &margins, 3);
    assert_eq!(all_equal, Ok(Codes { decisions: 6, near_ties: 1, flipped: 0 }));
    // The flip excuses the deeper code of its own frame.
    let flipped = measure_codes("c", &[1, 9, 3, 4, 9, 6], &want, &margins, 3);
    assert_eq!(flipped, Ok(Codes { decisions: 6, near_ties: 1, flipped: 1 }));
    let elsewhere =
        measure_codes("c", &[1, 9, 3, 4, 5, 9], &want, &margins, 3).expect_err("frame 2 has no tie");
    assert_eq!(elsewhere, "c: codebook 1 frame 2: got code 9, want 6, with a margin of 5e-1");
    measure_codes("c", &[1, 2, 3, 4, 9, 6], &want, &margins, 3)
        .expect_err("the tie is in the other codebook");
    let nan = [f32::NAN; 6];
    measure_codes("c", &[9, 2, 3, 4, 5, 6], &want, &nan, 3)
        .expect_err("a margin that is not a number excuses nothing");
    let many = measure_codes("c", &[0; 1999], &[1; 1999], &[0.0; 1999], 1999).expect_err("a tie everywhere");
    assert!(many.contains("1999 of 1999 codes flipped"), "{many}");
    measure_codes("c", &want[..5], &want, &margins, 3).expect_err("lengths differ");
    measure_codes("c", &want, &want, &margins, 4).expect_err("6 codes are no rows of 4");
}

/// Names and shapes of every tensor in a checkpoint directory, and the dtype that its headers give.
fn contents(dir: &Path) -> (BTreeMap<String, Vec<usize>>, BTreeSet<String>, usize) {
    let (mut tensors, mut dtypes, mut files) = (BTreeMap::new(), BTreeSet::new(), 0);
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            files += 1;
            let bytes = fs::read(&path).expect("a file");
            for (name, view) in SafeTensors::deserialize(&bytes).expect("a valid file").iter() {
                dtypes.insert(format!("{:?}", view.dtype()));
                assert!(tensors.insert(name.to_owned(), view.shape().to_vec()).is_none(), "`{name}` twice");
            }
        }
    }
    (tensors, dtypes, files)
}

#[test]
fn checkpoints_are_written_in_every_layout() {
    let case = Case::committed("stereo");
    let temp = tempfile::tempdir().expect("a temporary folder");

    let plain = temp.path().join("plain");
    write_checkpoint(&case, &plain, &Layout::default());
    let tensors = read_safetensors(&plain.join("model.safetensors"));
    assert_eq!(tensors.len(), case.weights.len());
    for weight in &case.weights {
        let held = &tensors[&weight.name];
        assert_eq!(held.shape, weight.shape);
        assert!(held.f32().iter().copied().eq(weight.values()), "`{}`", weight.name);
    }
    assert_eq!(fs::read_to_string(plain.join("config.json")).expect("config.json"), case.config_json());

    let current = temp.path().join("current");
    let layout = Layout {
        stored: Stored::Bf16,
        weight_norm: WeightNorm::Parametrized,
        text_embedding: TextEmbedding::Both,
        extras: Extras::CodebookBuffersAndPositions,
        shards: 5,
        data_start: DataStart::Odd,
        ..Layout::default()
    };
    write_checkpoint(&case, &current, &layout);
    let (names, dtypes, files) = contents(&current);
    assert_eq!(files, 5);
    assert_eq!(dtypes, BTreeSet::from(["BF16".to_owned()]));
    let codebooks = case.weights.iter().filter(|weight| weight.name.ends_with("codebook.embed")).count();
    assert_eq!(names.len(), case.weights.len() + 1 + 1 + 3 * codebooks);
    assert_eq!(names["decoder.model.decoder.embed_positions.weights"], [2048, 32]);
    let original = "audio_encoder.encoder.layers.0.conv.parametrizations.weight.original0";
    assert_eq!(names[original], [2, 1, 1]);
    assert!(!names.keys().any(|name| name.ends_with("weight_g") || name.ends_with("weight_v")));
    let index = fs::read(current.join("model.safetensors.index.json")).expect("an index");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    assert_eq!(index["weight_map"].as_object().expect("a map").len(), names.len());
    assert!(
        fs::read_to_string(current.join("config.json"))
            .expect("config.json")
            .contains("\"dtype\": \"bfloat16\"")
    );
    let header = fs::read(current.join("model-00003-of-00005.safetensors")).expect("a shard");
    assert_eq!(header[0] % 2, 1, "the data starts at an odd byte");
}

#[test]
fn halves_round_as_torch_does() {
    // Half a unit in the last place ties to even; f16 has subnormals down to 2^-24.
    let f16 = [
        (1.000_488_3, 1.0),
        (1.001_464_8, 1.001_953_1),
        (2.980_232_2e-8, 0.0),
        (8.940_697e-8, 1.192_092_9e-7),
    ];
    for (value, want) in f16 {
        assert_eq!(Stored::F16.round(value), want, "{value}");
    }
    let bf16 = [(1.003_906_3, 1.0), (1.011_718_8, 1.015_625)];
    for (value, want) in bf16 {
        assert_eq!(Stored::Bf16.round(value), want, "{value}");
    }
    assert_eq!(Stored::F32.round(0.1), 0.1);
}

/// The position table of the published layout against the reference's own rows.
#[test]
fn written_positions_are_those_of_the_reference() {
    let tables = Case::committed("tables");
    let rows = tables.tensor("positions.rows");
    // Width 128 is the `tiny` case's.
    let want = tables.tensor("positions.f32.128");
    let temp = tempfile::tempdir().expect("a temporary folder");
    let layout = Layout { extras: Extras::CodebookBuffersAndPositions, ..Layout::default() };
    write_checkpoint(&Case::committed("tiny"), temp.path(), &layout);
    let file = read_safetensors(&temp.path().join("model.safetensors"));
    let got = &file["decoder.model.decoder.embed_positions.weights"];
    let mut compared = 0;
    for (i, &row) in rows.i32().iter().enumerate() {
        let row = usize::try_from(row).expect("a position");
        if row >= got.shape[0] {
            continue;
        }
        compared += 1;
        for c in 0..128 {
            let (got, want) = (got.f32()[row * 128 + c], want.f32()[i * 128 + c]);
            // One unit in the last place of the frequency, times the position.
            let allowed = 2f32.powi(-22) + 3.0 * 2f32.powi(-24) * row as f32;
            assert!((got - want).abs() <= allowed, "position {row} column {c}: got {got}, want {want}");
        }
    }
    assert_eq!(compared, 8);
}
