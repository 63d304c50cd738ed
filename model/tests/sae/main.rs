//! Autoencoders' files: what SAELens, sparsify, Gemma Scope and Llama Scope write is read, what dictionary_learning and OpenAI
//! pickle is converted; it encodes what theirs encodes, and is written back bit for bit; what cannot be read exactly is refused by name.

mod refusals;

use auscult_model::ModelError;
use auscult_model::convert::{ConvertReport, ConvertRequest, convert};
use auscult_model::musicgen::{At, Site};
use auscult_model::sae::{Activation, Normalize, NotFinite, Sae, SaeParts, Settings, SparseRows};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

const SPARSIFY: &str = "sparsify/decoder.model.decoder.layers.3";
const GEMMA: &str = "gemma-scope-res/layer_3/width_53";
const CASES: [&str; 24] = [
    "published",
    "legacy",
    "topk-6",
    "topk-6-rescaled",
    "expected-average",
    "constant-norm",
    "layer-norm",
    "jumprelu-6",
    "batchtopk-6",
    "gated-5",
    "finetuned-5",
    SPARSIFY,
    GEMMA,
    "llama-scope",
    "llama-scope-topk",
    "pickled/AutoEncoder",
    "pickled/AutoEncoderNew",
    "pickled/GatedAutoEncoder",
    "pickled/AutoEncoderTopK",
    "pickled/BatchTopKSAE",
    "pickled/MatryoshkaBatchTopKSAE",
    "pickled/JumpReluAutoEncoder",
    "pickled/openai-topk",
    "pickled/openai-relu",
];

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/sae").join(case)
}

/// A case as it lies there, or, where it is pickled, as the converter writes it.
fn open(case: &str) -> Sae {
    let dir = tempfile::tempdir().unwrap();
    let at = match case.starts_with("pickled") {
        true => {
            let input = golden(case);
            let file = ["ae.pt", "6.pt", "0.pt"].map(|name| input.join(name));
            let file = file.iter().find(|file| file.exists()).unwrap();
            convert_to(file, None, &dir.path().join("sae")).unwrap_or_else(|e| panic!("{case}: {e}"));
            dir.path().join("sae")
        }
        false => golden(case),
    };
    Sae::open(&at).unwrap_or_else(|e| panic!("{case}: {e}"))
}

fn convert_to(input: &Path, hook: Option<&str>, out: &Path) -> Result<ConvertReport, ModelError> {
    convert(&ConvertRequest { input, codec: None, text_encoder: None, hook, out }, &mut |_, _| {})
}

/// What the reference encodes.
struct Expected {
    rows: Vec<f32>,
    /// The active features of every row, in order.
    features: Vec<Vec<(u32, f32)>>,
    directions: Vec<f32>,
}

impl Expected {
    fn of(case: &str) -> Self {
        let bytes = fs::read(golden(case).join("expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| -> Vec<[u8; 4]> {
            file.tensor(name).unwrap().data().chunks_exact(4).map(|b| b.try_into().unwrap()).collect()
        };
        let floats = |name: &str| -> Vec<f32> { words(name).into_iter().map(f32::from_le_bytes).collect() };
        let counts = |name: &str| -> Vec<u32> { words(name).into_iter().map(u32::from_le_bytes).collect() };
        let mut places = counts("indices").into_iter().zip(floats("values"));
        let features = counts("counts").iter().map(|&n| places.by_ref().take(n as usize).collect()).collect();
        assert!(places.next().is_none(), "{case}: more features than the counts say");
        Self { rows: floats("rows"), features, directions: floats("directions") }
    }
}

/// A copy of a case with another configuration.
fn changed(case: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(golden(case)).unwrap() {
        let file = file.unwrap();
        if file.path().is_file() {
            fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
    }
    let names = ["cfg.json", "hyperparams.json", "config.json"].map(|name| dir.path().join(name));
    let cfg = names.into_iter().find(|file| file.exists()).unwrap();
    let mut json: Value = serde_json::from_slice(&fs::read(&cfg).unwrap()).unwrap();
    change(&mut json);
    fs::write(&cfg, json.to_string()).unwrap();
    dir
}

fn row(rows: &SparseRows, at: usize) -> (&[u32], &[f32]) {
    let range = at * rows.k..(at + 1) * rows.k;
    (&rows.indices[range.clone()], &rows.values[range])
}

fn post(layer: usize) -> Site {
    Site::Layer(layer, At::ResidPost)
}

#[test]
fn goldens_are_what_the_script_wrote() {
    let root = golden("");
    let sums = fs::read_to_string(root.join("SHA256SUMS")).unwrap();
    let mut folders = vec![root.clone()];
    let mut there = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { there += 1 }
        }
    }
    assert_eq!(sums.lines().count(), there - 1, "every file but the sums");
    for line in sums.lines() {
        let (want, path) = line.split_once("  ").unwrap();
        let digest = Sha256::digest(fs::read(root.join(path)).unwrap());
        let got: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(got, want, "{path}");
    }
}

/// The script leaves no two values of a row, and no value and its threshold, closer than 5e-6 of the row's largest, but for
/// twins, which are equal: so order and choice are exact. Sums of 24 products differ by some 1e-6 of the largest.
#[test]
fn rows_are_encoded_as_the_reference_does() {
    for case in CASES {
        let (sae, expected) = (open(case), Expected::of(case));
        let got = sae.encode(&expected.rows).unwrap();
        assert_eq!(got.rows(), expected.features.len(), "{case}");
        assert_eq!(got.active(), expected.features.iter().map(Vec::len).sum::<usize>(), "{case}");
        let widest = expected.features.iter().map(Vec::len).max().unwrap();
        assert_eq!(got.k, sae.k().unwrap_or(widest), "{case}");
        for (at, want) in expected.features.iter().enumerate() {
            let (indices, values) = row(&got, at);
            let wanted: Vec<u32> =
                want.iter().map(|(f, _)| *f).chain(std::iter::repeat(0)).take(got.k).collect();
            assert_eq!(indices, wanted, "{case}, row {at}");
            let largest = want.first().map_or(0.0, |(_, v)| *v);
            for (&v, &(f, want)) in values.iter().zip(want) {
                let tolerance = 1e-5 * want + 2e-6 * largest.max(1.0);
                assert!((v - want).abs() <= tolerance, "{case}, row {at}, feature {f}: {v}, expected {want}");
            }
            assert!(
                values[want.len()..].iter().all(|&v| v.to_bits() == 0),
                "{case}, row {at}: not filled with 0"
            );
        }
    }
}

#[test]
fn directions_are_what_an_activation_of_one_writes() {
    for case in CASES {
        let (sae, expected) = (open(case), Expected::of(case));
        assert_eq!((sae.width(), sae.features()), (24, 53), "{case}");
        for f in 0..sae.features() {
            let want = &expected.directions[f * 24..][..24];
            let got = sae.direction(f).unwrap();
            let close = |(g, w): (&f32, &f32)| (g - w).abs() <= 1e-6 * w.abs();
            assert!(got.iter().zip(want).all(close), "{case}, feature {f}: {got:?}, expected {want:?}");
            let norm = want.iter().map(|v| v * v).sum::<f32>().sqrt();
            assert!((sae.decoder_norms()[f] - norm).abs() <= 1e-5 * norm, "{case}, feature {f}");
        }
        assert!(sae.direction(53).unwrap_err().to_string().contains("less than 53"));
    }
}

#[test]
fn origins_are_found_wherever_versions_put_them() {
    let said = |case: &str| {
        let sae = open(case);
        let metadata = sae.settings().metadata.clone();
        let context = metadata.other.get("context_size").and_then(Value::as_u64);
        (sae.hook().map(String::from), metadata.layer, metadata.model, context)
    };
    let musicgen = Some("facebook/musicgen-small".to_string());
    let hook = |layer: usize| Some(format!("hook_layers.{layer}"));
    assert_eq!(said("published"), (hook(3), Some(3), musicgen.clone(), Some(501)));
    assert_eq!(said("legacy"), (hook(1), Some(1), Some("m".into()), Some(128)));
    assert_eq!(said("topk-6"), (hook(11), None, musicgen, Some(501)));
    assert_eq!(said(SPARSIFY), (hook(3), Some(3), None, None));
    assert_eq!(said(GEMMA), (hook(3), Some(3), None, None));
    let llama = Some("meta-llama/Llama-3.1-8B".to_string());
    assert_eq!(said("llama-scope"), (Some("blocks.3.hook_resid_post".into()), None, llama, None));
    let musicgen = Some("facebook/musicgen-small".to_string());
    assert_eq!(said("pickled/AutoEncoderTopK"), (hook(3), Some(3), musicgen, Some(501)));
    assert_eq!(said("pickled/openai-relu"), (None, None, None, None));
}

#[test]
fn settings_are_what_the_files_say() {
    let settings = |case: &str| open(case).settings().clone();
    assert_eq!(settings("published").activation, Activation::TopK(5));
    assert_eq!(settings("legacy").activation, Activation::Relu);
    assert_eq!(settings("constant-norm").normalize, Normalize::ConstantNorm);
    assert_eq!(settings("layer-norm").normalize, Normalize::LayerNorm);
    assert_eq!(settings("expected-average").normalize, Normalize::None);
    assert_eq!(settings("llama-scope-topk").normalize, Normalize::ConstantNorm);
    assert_eq!(settings("pickled/openai-topk").normalize, Normalize::LayerNorm);
    assert_eq!(
        [settings("topk-6").apply_b_dec_to_input, settings("published").apply_b_dec_to_input],
        [false, true]
    );
    let Activation::JumpRelu { threshold } = settings("batchtopk-6").activation else {
        panic!("no thresholds")
    };
    assert_eq!(threshold, [0.3217f32; 53]);
    let rescaled = open("topk-6-rescaled").decoder_norms();
    assert!(rescaled.iter().all(|norm| (norm - 1.0).abs() < 1e-6), "{rescaled:?}");
    let unit = |case: &str| open(case).unit_directions();
    assert!(unit("topk-6-rescaled") && unit("llama-scope") && unit("pickled/AutoEncoder"));
    assert!(!unit("published") && !unit(GEMMA));
}

#[test]
fn sparsity_is_read_where_it_is() {
    let sparsity = open("published").read_sparsity(&golden("published")).unwrap().unwrap();
    assert!(sparsity.len() == 53 && sparsity.iter().all(|s| (-10.0..=-1.0).contains(s)));
    assert_eq!(open("topk-6").read_sparsity(&golden("topk-6")).unwrap(), None);
}

#[test]
fn what_is_written_comes_back_to_the_last_bit() {
    for case in CASES {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("deep/er");
        let sae = open(case);
        sae.save(&at).unwrap();
        let again = Sae::open(&at).unwrap_or_else(|e| panic!("{case}: {e}"));
        let bits = |parts: SaeParts| -> Vec<u32> {
            [parts.w_enc, parts.b_enc, parts.w_dec, parts.b_dec]
                .concat()
                .into_iter()
                .map(f32::to_bits)
                .collect()
        };
        assert_eq!(bits(sae.parts()), bits(again.parts()), "{case}");
        let (was, is) = (sae.settings(), again.settings());
        assert_eq!((&was.activation, was.normalize), (&is.activation, is.normalize), "{case}");
        assert_eq!(was.apply_b_dec_to_input, is.apply_b_dec_to_input, "{case}");
        let origin = |sae: &Sae| {
            let m = &sae.settings().metadata;
            (m.hook.clone(), m.layer, m.model.clone(), m.other.get("context_size").cloned())
        };
        assert_eq!(origin(&sae), origin(&again), "{case}");
        let rows = Expected::of(case).rows;
        assert_eq!(sae.encode(&rows).unwrap(), again.encode(&rows).unwrap(), "{case}");
        // and the writer's own files are stable
        again.save(&dir.path().join("twice")).unwrap();
        let file = |dir: &Path| fs::read(dir.join("sae_weights.safetensors")).unwrap();
        assert_eq!(file(&at), file(&dir.path().join("twice")), "{case}");
        let error = sae.save(&at).unwrap_err().to_string();
        assert!(error.contains("holds a cfg.json already"), "{error}");
    }
}

/// Every field that is written, in order: SAELens 5.3.2 wants all of the first level, 6 reads those and `metadata`
/// (`tests/golden/check_with_sae_lens.py` has both load such files).
#[test]
fn the_configuration_that_is_written_is_that_of_saelens() {
    let [jump, r_mag, b_mag] = [0.125_f32, -0.5, 0.25].map(|value| vec![value; 3]);
    let of_top_k = json!([["k", 2], ["rescale_acts_by_decoder_norm", false]]);
    let cases = [
        (Activation::Relu, "standard", "relu", json!({}), json!([])),
        (Activation::TopK(2), "topk", "topk", json!({ "k": 2 }), of_top_k),
        (Activation::JumpRelu { threshold: jump }, "jumprelu", "relu", json!({}), json!([])),
        (Activation::Gated { r_mag, b_mag }, "gated", "relu", json!({}), json!([])),
    ];
    for (activation, architecture, function, kwargs, own) in cases {
        let parts = SaeParts {
            w_enc: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            b_enc: vec![0.5, 1.5, 2.5],
            w_dec: vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
            b_dec: vec![0.25, 0.75],
        };
        let mut settings = Settings::new(activation);
        settings.normalize = Normalize::LayerNorm;
        settings.apply_b_dec_to_input = false;
        settings.metadata.hook = Some("hook_layers.11".into());
        settings.metadata.layer = Some(11);
        settings.metadata.other.insert("context_size".into(), json!(501));
        settings.metadata.other.insert("note".into(), json!("of no version"));
        let dir = tempfile::tempdir().unwrap();
        Sae::with_settings(parts, settings).unwrap().save(dir.path()).unwrap();

        let mut expected = vec![
            ("architecture", json!(architecture)),
            ("d_in", json!(2)),
            ("d_sae", json!(3)),
            ("dtype", json!("float32")),
            ("device", json!("cpu")),
            ("activation_fn_str", json!(function)),
            ("activation_fn_kwargs", kwargs),
        ];
        for pair in own.as_array().unwrap() {
            expected.push((pair[0].as_str().unwrap(), pair[1].clone()));
        }
        expected.extend([
            ("apply_b_dec_to_input", json!(false)),
            ("normalize_activations", json!("layer_norm")),
            ("reshape_activations", json!("none")),
            ("finetuning_scaling_factor", json!(false)),
            ("model_name", json!("")),
            ("hook_name", json!("hook_layers.11")),
            ("hook_layer", json!(11)),
            ("hook_head_index", Value::Null),
            ("prepend_bos", json!(true)),
            ("dataset_path", Value::Null),
            ("dataset_trust_remote_code", json!(true)),
            ("context_size", json!(501)),
            ("sae_lens_training_version", Value::Null),
            ("neuronpedia_id", Value::Null),
            ("model_from_pretrained_kwargs", json!({})),
            ("seqpos_slice", json!([null])),
            (
                "metadata",
                json!({ "context_size": 501, "note": "of no version", "model_name": null, "hook_name": "hook_layers.11" }),
            ),
        ]);
        let bytes = fs::read(dir.path().join("cfg.json")).unwrap();
        let found: Value = serde_json::from_slice(&bytes).unwrap();
        let found: Vec<(&str, Value)> =
            found.as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        assert_eq!(found, expected, "{architecture}");

        let bytes = fs::read(dir.path().join("sae_weights.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut found: Vec<(&str, Vec<usize>)> =
            tensors.iter().map(|(name, view)| (name, view.shape().to_vec())).collect();
        found.sort();
        let mut expected = vec![("W_dec", vec![3, 2]), ("W_enc", vec![2, 3]), ("b_dec", vec![2])];
        expected.extend(match architecture {
            "gated" => vec![("b_gate", vec![3]), ("b_mag", vec![3]), ("r_mag", vec![3])],
            "jumprelu" => vec![("b_enc", vec![3]), ("threshold", vec![3])],
            _ => vec![("b_enc", vec![3])],
        });
        assert_eq!(found, expected, "{architecture}");
    }
}

/// Blocks of few rows and of many are multiplied in different ways.
#[test]
fn a_row_is_encoded_alike_in_any_company() {
    let (sae, expected) = (open("published"), Expected::of("published"));
    let many = expected.rows.repeat(30);
    let all = sae.encode(&many).unwrap();
    for (at, one) in many.chunks_exact(24).enumerate() {
        let alone = sae.encode(one).unwrap();
        assert_eq!(row(&all, at), (alone.indices.as_slice(), alone.values.as_slice()), "row {at}");
    }
    assert_eq!(sae.encode(&[]).unwrap().rows(), 0);
}

#[test]
fn rows_are_padded_and_cut() {
    let rows = SparseRows { k: 2, indices: vec![4, 1, 9, 0], values: vec![3.0, 2.0, 1.0, 0.0] };
    assert_eq!(rows.active(), 3);
    let wide =
        SparseRows { k: 3, indices: vec![4, 1, 0, 9, 0, 0], values: vec![3.0, 2.0, 0.0, 1.0, 0.0, 0.0] };
    assert_eq!(rows.resized(3), wide);
    assert_eq!(rows.resized(1), SparseRows { k: 1, indices: vec![4, 9], values: vec![3.0, 1.0] });
}

#[test]
fn rows_that_cannot_be_encoded_are_named() {
    let sae = open("published");
    let error = |sae: &Sae, rows: &[f32]| sae.encode(rows).unwrap_err().to_string();
    let mut rows = vec![1.0; 48];
    rows[24 + 7] = f32::NAN;
    assert_eq!(error(&sae, &rows), "`rows` is NaN in row 1, column 7, expected finite values");
    assert!(error(&sae, &rows[..23]).contains("23 values, expected a multiple of 24"));
    assert!(error(&open("constant-norm"), &[0.0; 24]).contains("all zeros in row 0"));
    // finite, but its features are not
    for case in ["published", "legacy"] {
        let rows = [[1.0_f32; 24], [f32::MAX; 24]].concat();
        assert!(
            error(&open(case), &rows).contains("so large in row 1 that a feature is not finite"),
            "{case}"
        );
    }
}

#[test]
fn rows_that_are_not_numbers_are_marked_and_spoil_no_other() {
    for case in ["published", "legacy", "gated-5", "constant-norm"] {
        let (sae, expected) = (open(case), Expected::of(case));
        let whole = sae.encode(&expected.rows).unwrap();
        let mut rows = expected.rows.clone();
        rows[24 + 7] = f32::NAN;
        rows[3 * 24] = f32::INFINITY;
        let marked = sae.encode_with(&rows, NotFinite::Mark).unwrap();
        assert_eq!(marked.marked(), 2, "{case}");
        // however many places rows have
        let wider = marked.resized(marked.k + 2);
        assert!(row(&wider, 3).1.iter().all(|v| v.is_nan()) && wider.marked() == 2, "{case}");
        let none = sae.encode_with(&[f32::NAN; 24], NotFinite::Mark).unwrap();
        assert_eq!((none.rows(), none.marked(), none.k), (1, 1, sae.k().unwrap_or(1)), "{case}");
        for at in 0..whole.rows() {
            let (indices, values) = row(&marked, at);
            if at == 1 || at == 3 {
                assert!(
                    indices.iter().all(|&f| f == 0) && values.iter().all(|v| v.is_nan()),
                    "{case}, row {at}"
                );
            } else {
                let (indices, values) = row(&whole, at);
                let (same, too) = row(&marked, at);
                let fits = |n: usize| indices[..n] == same[..n] && values[..n] == too[..n];
                assert!(fits(whole.k.min(marked.k)), "{case}, row {at}");
            }
        }
    }
}

#[test]
fn another_site_or_width_is_refused() {
    let sae = open("published");
    sae.check(post(3), 24).unwrap();
    let refused = |sae: &Sae, site, width| match sae.check(site, width).unwrap_err() {
        error @ ModelError::Misfit { .. } => error.to_string(),
        other => panic!("not a misfit: {other}"),
    };
    let file = golden("published").join("cfg.json");
    let file = file.display();
    assert_eq!(
        refused(&sae, post(4), 24),
        format!(
            "{file}: `hook_name` is hook_layers.3, expected layers.4.resid_post; hook_layers.3 is layer 4 where layers are \
             counted from 1 (`hook_layers.N` counts layers from 0, `paper:M` from 1), so hook_layers.3 may be what is meant"
        )
    );
    assert!(
        refused(&sae, Site::Layer(3, At::ResidPre), 24)
            .contains("expected layers.3.resid_pre (`hook_layers.N`")
    );
    assert!(refused(&sae, post(2), 24).contains("expected layers.2.resid_post (`hook_layers.N`"));
    assert_eq!(
        refused(&sae, post(3), 1024),
        format!("{file}: `d_in` is 24, expected 1024, the width at layers.3.resid_post")
    );
    // names two layers
    let dir = changed("published", |cfg| cfg["hook_layer"] = json!(4));
    assert!(refused(&Sae::open(dir.path()).unwrap(), post(3), 24).contains("`hook_layer` is 4, expected 3"));
    // another program's name of a site
    let dir = changed("published", |cfg| cfg["hook_name"] = json!("blocks.3.hook_mlp_out"));
    assert!(
        refused(&Sae::open(dir.path()).unwrap(), post(3), 24)
            .contains("`hook_name` is blocks.3.hook_mlp_out")
    );
    // names nothing, contradicts nothing
    let dir = changed("published", |cfg| {
        cfg["hook_name"] = Value::Null;
        cfg["hook_layer"] = Value::Null;
    });
    Sae::open(dir.path()).unwrap().check(post(9), 24).unwrap();
}

#[test]
fn graphs_take_what_they_can_express() {
    for case in ["published", "topk-6-rescaled", "legacy", SPARSIFY, "jumprelu-6", "batchtopk-6", "gated-5"] {
        open(case).check_form().unwrap_or_else(|e| panic!("{case}: {e}"));
    }
    for (case, found) in [
        ("constant-norm", "`normalize_activations` is constant_norm_rescale"),
        ("layer-norm", "`normalize_activations` is layer_norm"),
    ] {
        let error = open(case).check_form().unwrap_err().to_string();
        assert!(error.contains(found) && error.contains("cfg.json"), "{case}: {error}");
    }
}
