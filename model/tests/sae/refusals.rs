//! Autoencoders' files that cannot be read exactly.

use super::{SPARSIFY, changed, convert_to, golden};
use auscult_model::ModelError;
use auscult_model::convert::ConvertKind;
use auscult_model::sae::Sae;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;

#[test]
fn configurations_that_cannot_be_read_exactly_are_refused() {
    let refuse = |case: &str, field: &str, value: &Value, parts: &[&str]| {
        let dir = changed(case, |cfg| cfg[field] = value.clone());
        let error = Sae::open(dir.path()).unwrap_err();
        // a fault of the file, none of the command line
        let of_file = matches!(error, ModelError::Config { .. } | ModelError::Unsupported { .. });
        let error = error.to_string();
        let named = error.contains("cfg.json") || error.contains("hyperparams.json");
        assert!(of_file && named, "{error}");
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    };
    let cases: &[(&str, &str, Value, &[&str])] = &[
        (
            "published",
            "activation_fn_kwargs",
            json!({ "k": 54 }),
            &["activation_fn_kwargs.k` is 54, expected 1 to 53"],
        ),
        ("published", "activation_fn_kwargs", json!({ "k": 0 }), &["is 0, expected 1 to 53"]),
        (
            "published",
            "activation_fn_kwargs",
            json!({ "k": "5" }),
            &["`k` is \"5\", expected a whole number"],
        ),
        ("published", "activation_fn_kwargs", json!({}), &["`k` is absent"]),
        (
            "published",
            "activation_fn_kwargs",
            json!({ "k": 5, "signed": true }),
            &["activation_fn_kwargs.signed"],
        ),
        ("published", "k", json!(6), &["`activation_fn_kwargs.k` is 5, expected 6, which `k` says"]),
        ("published", "activation_fn", json!("tanh-relu"), &["`activation_fn` is tanh-relu", "`standard`"]),
        ("published", "architecture", json!("transcoder"), &["`architecture` is transcoder", "gated"]),
        ("gated-5", "activation_fn_str", json!("topk"), &["`activation_fn` is topk", "`gated`"]),
        ("published", "d_in", json!(0), &["`d_in` is 0"]),
        ("published", "d_sae", Value::Null, &["`d_sae` is absent"]),
        (
            "published",
            "apply_b_dec_to_input",
            json!("yes"),
            &["`apply_b_dec_to_input` is \"yes\", expected true or false"],
        ),
        (
            "published",
            "normalize_activations",
            json!("rms"),
            &["`normalize_activations` is \"rms\"", "layer_norm"],
        ),
        (
            "published",
            "normalize_activations",
            json!("expected_average_only_in"),
            &["activation_scaler.json"],
        ),
        ("published", "normalize_activations", json!(true), &["activation_scaler.json"]),
        ("published", "reshape_activations", json!("hook_q"), &["`reshape_activations` is \"hook_q\""]),
        ("finetuned-5", "finetuning_scaling_factor", json!(false), &["`scaling_factor` is not all 1"]),
        (SPARSIFY, "activation", json!("groupmax"), &["`activation` is groupmax"]),
        (SPARSIFY, "transcode", json!(true), &["`transcode` is true"]),
        (SPARSIFY, "skip_connection", json!(true), &["`skip_connection` is true"]),
        (SPARSIFY, "signed", json!(true), &["`signed` is true"]),
        (SPARSIFY, "k", json!(54), &["`k` is 54, expected 1 to 53"]),
        ("llama-scope-topk", "top_k", json!(54), &["`top_k` is 54, expected 1 to 53"]),
        ("llama-scope-topk", "act_fn", json!("gelu"), &["`act_fn` is gelu"]),
        ("llama-scope-topk", "use_glu_encoder", json!(true), &["`use_glu_encoder` is true"]),
        ("llama-scope-topk", "norm_activation", json!("batch-wise"), &["`norm_activation` is batch-wise"]),
        (
            "llama-scope-topk",
            "norm_activation",
            json!("dataset-wise"),
            &["`dataset_average_activation_norm.in` is absent"],
        ),
        ("llama-scope-topk", "hook_point_out", json!("hook_layers.4"), &["hook_layers.4", "no transcoders"]),
        ("llama-scope-topk", "jump_relu_threshold", json!(-1), &["`jump_relu_threshold` is -1"]),
    ];
    for (case, field, value, parts) in cases {
        refuse(case, field, value, parts);
    }
}

#[test]
fn weights_that_do_not_fit_are_named() {
    // transposed, or of another width: every tensor that does not fit, with both shapes
    let dir = changed("published", |cfg| {
        cfg["d_in"] = json!(53);
        cfg["d_sae"] = json!(24);
    });
    let error = Sae::open(dir.path()).unwrap_err().to_string();
    for part in
        ["sae_weights.safetensors", "W_enc [24, 53] (expected [53, 24])", "b_dec [24] (expected [53])"]
    {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    // transposed weights alone, their biases as they should be: the header says another shape of as many bytes
    for (case, file, name, was, is, said) in [
        ("published", "sae_weights.safetensors", "W_enc", "[24,53]", "[53,24]", "[d_sae, d_in] = [53, 24]"),
        ("published", "sae_weights.safetensors", "W_dec", "[53,24]", "[24,53]", "[d_in, d_sae] = [24, 53]"),
        (
            SPARSIFY,
            "sae.safetensors",
            "encoder.weight",
            "[53,24]",
            "[24,53]",
            "[d_in, num_latents] = [24, 53]",
        ),
        (
            "llama-scope-topk",
            "sae_weights.safetensors",
            "decoder.weight",
            "[24,53]",
            "[53,24]",
            "[d_sae, d_model] = [53, 24]",
        ),
    ] {
        let dir = changed(case, |_| {});
        let path = dir.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        let find = |from: usize, text: &str| {
            from + bytes[from..].windows(text.len()).position(|found| found == text.as_bytes()).unwrap()
        };
        let at = find(find(0, &format!("\"{name}\"")), was);
        bytes[at..at + was.len()].copy_from_slice(is.as_bytes());
        fs::write(&path, bytes).unwrap();
        let error = Sae::open(dir.path()).unwrap_err().to_string();
        let want = format!("`{name}` is transposed: it is {said}, expected");
        assert!(error.contains(&want) && error.contains(file), "{error}");
    }
    let dir = changed("jumprelu-6", |cfg| cfg["architecture"] = json!("standard"));
    assert!(Sae::open(dir.path()).unwrap_err().to_string().contains("1 tensor unexpected: threshold [53]"));
    let dir = changed("published", |cfg| cfg["architecture"] = json!("standard"));
    let weights = dir.path().join("sae_weights.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    assert!(Sae::open(dir.path()).unwrap_err().to_string().contains("found inf at element"));
}

#[test]
fn directories_without_an_autoencoder_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = |dir: &Path| Sae::open(dir).unwrap_err().to_string();
    assert!(error(&dir.path().join("none")).contains("does not exist; expected a directory with cfg.json"));
    assert!(error(dir.path()).contains("has no cfg.json"));
    fs::write(dir.path().join("ae.pt"), "").unwrap();
    for pickled in [dir.path(), &dir.path().join("ae.pt")] {
        let error = error(pickled);
        assert!(error.contains("ae.pt: is a pickle") && error.contains("`auscult model convert`"), "{error}");
    }
    fs::write(dir.path().join("hyperparams.json"), "{}").unwrap();
    assert!(error(dir.path()).contains("has no weights"));
    fs::write(dir.path().join("cfg.json"), "[]").unwrap();
    assert!(error(&dir.path().join("cfg.json")).contains("is a file"));
    assert!(error(dir.path()).contains("expected an object"));
    fs::write(dir.path().join("cfg.json"), "{").unwrap();
    assert!(error(dir.path()).contains("is not JSON"));
    fs::write(dir.path().join("cfg.json"), "{}").unwrap();
    assert!(error(dir.path()).contains("has no weights"));
    fs::write(dir.path().join("sae.safetensors"), "").unwrap();
    fs::write(dir.path().join("sae_weights.safetensors"), "").unwrap();
    assert!(error(dir.path()).contains("expected one of them"));
}

/// An archive of NumPy's arrays.
fn npz(path: &Path, arrays: &[(&str, &[usize])]) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for (name, shape) in arrays {
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file(*name, options).unwrap();
        let shape: String = shape.iter().map(|e| format!("{e}, ")).collect();
        let dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
        let count: usize = shape.split(", ").filter_map(|e| e.parse::<usize>().ok()).product();
        zip.write_all(b"\x93NUMPY\x01\x00").unwrap();
        zip.write_all(&u16::try_from(dict.len()).unwrap().to_le_bytes()).unwrap();
        zip.write_all(dict.as_bytes()).unwrap();
        zip.write_all(&1.5f32.to_le_bytes().repeat(count)).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn archives_that_are_no_autoencoder_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("params.npz");
    let of = |arrays: &[(&str, &[usize])]| {
        npz(&file, arrays);
        Sae::open(dir.path()).map(|sae| (sae.width(), sae.features())).map_err(|e| e.to_string())
    };
    let vectors: [(&str, &[usize]); 3] = [("b_enc.npy", &[5]), ("b_dec.npy", &[3]), ("threshold.npy", &[5])];
    let with = |more: &[(&'static str, &'static [usize])]| [&vectors[..], more].concat();
    let refused = |arrays: &[(&str, &[usize])], part: &str| {
        let error = of(arrays).unwrap_err();
        assert!(error.contains("params.npz") && error.contains(part), "`{part}` is not in: {error}");
    };
    // both spellings of a weight's name
    assert_eq!(of(&with(&[("w_enc.npy", &[3, 5]), ("W_dec.npy", &[5, 3])])), Ok((3, 5)));
    refused(&with(&[("W_enc.npy", &[3, 5])]), "lacks W_dec; found W_enc, b_dec, b_enc, threshold");
    refused(
        &with(&[("W_enc.npy", &[5, 3]), ("W_dec.npy", &[5, 3])]),
        "`W_enc` is transposed: it is [d_sae, d_in] = [5, 3], expected [d_in, d_sae] = [3, 5]",
    );
    refused(
        &with(&[("W_enc.npy", &[3, 5]), ("W_dec.npy", &[5, 4])]),
        "`W_dec` has shape [5, 4], expected [5, 3]",
    );
    let more = with(&[("W_enc.npy", &[3, 5]), ("W_dec.npy", &[5, 3]), ("scaling_factor.npy", &[5])]);
    refused(&more, "holds `scaling_factor`, whose meaning is not known");
    refused(
        &with(&[("W_enc.npy", &[3, 5]), ("W_dec.npy", &[5, 3]), ("notes.txt", &[1])]),
        "holds `notes.txt`",
    );
    fs::write(&file, "PK").unwrap();
    assert!(Sae::open(&file).unwrap_err().to_string().contains("is a damaged archive"));
}

#[test]
fn pickled_autoencoders_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name);
    let report = convert_to(&golden("pickled/BatchTopKSAE"), None, &out("batch")).unwrap();
    assert_eq!((report.kind, report.tensors), (ConvertKind::Autoencoder, 5));
    assert!(report.notes.iter().any(|note| note.contains("threshold: 0.2841")), "{:?}", report.notes);
    assert!(report.files.iter().all(|file| file.is_file()));
    let report =
        convert_to(&golden("pickled/openai-relu/0.pt"), Some("hook_layers.7"), &out("openai")).unwrap();
    assert_eq!(report.dropped, ["latents_activation_frequency", "latents_mean_square", "stats_last_nonzero"]);
    assert_eq!(Sae::open(&out("openai")).unwrap().hook(), Some("hook_layers.7"));
    // a site for what has none
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch/ordered.pt");
    let error = convert_to(&plain, Some("embed"), &out("plain")).unwrap_err().to_string();
    assert!(error.contains("`hook` is embed, expected none"), "{error}");
    // without its configuration, one of two; with another's, none
    let alone = out("ae.pt");
    fs::copy(golden("pickled/BatchTopKSAE/ae.pt"), &alone).unwrap();
    let error = convert_to(&alone, None, &out("alone")).unwrap_err().to_string();
    assert!(error.contains("may be AutoEncoderTopK or BatchTopKSAE, expected config.json"), "{error}");
    let other = changed("pickled/BatchTopKSAE", |cfg| cfg["trainer"]["dict_class"] = json!("AutoEncoder"));
    let error = convert_to(other.path(), None, &out("other")).unwrap_err().to_string();
    assert!(
        error.contains("`trainer.dict_class` is AutoEncoder, expected AutoEncoderTopK or BatchTopKSAE"),
        "{error}"
    );
    assert!(!out("alone").exists() && !out("other").exists());
}
