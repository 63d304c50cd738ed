//! `sae`: what it says of an autoencoder, what it encodes, where it refuses.

use crate::support::{check_sums, floats, folder, index, json_file, names, resid, run, tensor, tree};
use auscult_analysis::store::npy_header;
use auscult_model::sae::{Sae, SaeParts};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

crate::trials!(
    info_says_what_an_autoencoder_is,
    damaged_autoencoders_are_bad_input,
    files_of_rows_are_encoded,
    rows_of_another_place_are_refused,
    wrong_options_and_rows_are_named,
    rows_that_are_not_finite_are_marked_on_demand,
    more_features_than_two_bytes_count,
    stores_are_encoded_at_the_hook_that_was_meant,
    stores_of_features_are_written,
    stores_of_features_are_taken_up_again,
    other_programs_files_are_read,
    pickles_are_converted,
);

pub fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sae").join(case)
}

fn metadata(path: &Path) -> Value {
    let bytes = fs::read(path).expect("it was written");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors file");
    json!(header.metadata())
}

pub fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))).collect()
}

/// Rows of features, those of each in order: by products in bf16 near values may change places.
fn sets(indices: &[u32], k: usize) -> Vec<Vec<u32>> {
    let sorted = |row: &[u32]| {
        let mut row = row.to_vec();
        row.sort_unstable();
        row
    };
    indices.chunks(k).map(sorted).collect()
}

fn info_says_what_an_autoencoder_is() {
    let dir = folder();
    let published = golden("published").display().to_string();
    let info = run(dir.path(), &format!("sae info {published} --json")).ok().json();
    let expected = json!({
        "architecture": "topk", "d_in": 24, "d_sae": 53, "k": 5, "hook": "hook_layers.3", "site": "layers.3.resid_post",
        "layer": 3, "model": "facebook/musicgen-small", "apply_b_dec_to_input": true, "normalize_activations": "none",
        "generates": true,
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&info[key], value, "{key}");
    }
    assert_eq!(info["metadata"]["context_size"], 501);
    let number = |part: &Value| part.as_f64().expect("a number");
    let norms = &info["decoder_norms"];
    let [min, mean, max] = ["min", "mean", "max"].map(|name| number(&norms[name]));
    assert!(0.5 <= min && min < mean && mean < max && max <= 1.5, "{norms}");
    // shares of 53 features, even up to a tenth
    let active = number(&info["sparsity"]["active"]);
    assert!((1.5..4.0).contains(&active), "{active}");
    assert_eq!(info["sparsity"]["silent"], 0);

    let text = run(dir.path(), &format!("sae info {published}")).ok().stdout;
    for part in
        ["24 x 53 features", "at most 5 a row (topk)", "hook_layers.3 = layers.3.resid_post", "can be edited"]
    {
        assert!(text.contains(part), "expected `{part}` in\n{text}");
    }
    let gated = run(dir.path(), &format!("sae info {}", golden("gated-5").display())).ok().stdout;
    assert!(gated.contains("any number a row (gated)") && gated.contains("can be edited"), "{gated}");
    let scaled = run(dir.path(), &format!("sae info {}", golden("constant-norm").display())).ok().stdout;
    assert!(scaled.contains("`normalize_activations` is constant_norm_rescale"), "{scaled}");
}

fn damaged_autoencoders_are_bad_input() {
    let dir = folder();
    let at = dir.path();
    run(at, "sae info none").exits(3, &["none", "does not exist; expected a directory with cfg.json"]);
    let sae = at.join("sae");
    fs::create_dir(&sae).expect("it can be made");
    run(at, "sae info sae").exits(3, &["has no cfg.json"]);
    for name in ["cfg.json", "sae_weights.safetensors"] {
        fs::copy(golden("published").join(name), sae.join(name)).expect("it can be copied");
    }
    let cfg = sae.join("cfg.json");
    let text = fs::read_to_string(&cfg).expect("it is text");
    fs::write(&cfg, text.replace("{\"k\": 5}", "{\"k\": 99}")).expect("it can be written");
    run(at, "sae info sae").exits(3, &["sae/cfg.json", "`activation_fn_kwargs.k` is 99", "expected 1 to 53"]);
    fs::write(&cfg, text.replace("\"d_in\": 24", "\"d_in\": 32")).expect("it can be written");
    run(at, "sae info sae").exits(3, &["sae_weights.safetensors", "W_enc [24, 53] (expected [32, 53])"]);
    fs::write(&cfg, &text).expect("it can be written");
    let weights = sae.join("sae_weights.safetensors");
    let bytes = fs::read(&weights).expect("it is there");
    fs::write(&weights, &bytes[..bytes.len() - 1]).expect("it can be written");
    run(at, "sae info sae").exits(3, &["sae_weights.safetensors"]);
}

fn files_of_rows_are_encoded() {
    let dir = folder();
    let at = dir.path();
    for (case, k) in [("published", 5), ("jumprelu-6", 30)] {
        let expected = golden(case).join("expected.safetensors");
        let (_, shape, rows) = tensor(&expected, "rows");
        let counts: Vec<u32> =
            tensor(&expected, "counts").2.chunks_exact(4).map(|b| u32::from(b[0])).collect();
        let wanted: Vec<u32> =
            tensor(&expected, "indices").2.chunks_exact(4).map(|b| u32::from(b[0])).collect();
        fs::write(at.join("x.npy"), [npy_header("<f4", &shape), rows].concat()).expect("it can be written");
        let sae = golden(case).display().to_string();
        let from_npy = format!("sae encode --sae {sae} --input x.npy --out n.safetensors --json");
        let json = run(at, &from_npy).ok().json();
        let active: u32 = counts.iter().sum();
        assert_eq!(
            [&json["rows"], &json["k"], &json["features"], &json["active"], &json["misaligned"]],
            [&json!(11), &json!(k), &json!(53), &json!(active), &json!(false)]
        );
        let from_tensor =
            format!("sae encode --sae {sae} --input {} --tensor rows --hook paper:4", expected.display());
        run(at, &format!("{from_tensor} --out s.safetensors")).ok();
        let (dtype, shape, indices) = tensor(&at.join("n.safetensors"), "indices");
        assert_eq!((dtype.as_str(), shape.as_slice()), ("U16", &[11, k][..]));
        for name in ["indices", "values"] {
            let [one, other] = ["n.safetensors", "s.safetensors"].map(|file| tensor(&at.join(file), name));
            assert_eq!(one, other, "{name} of both forms");
        }
        let mut wanted = wanted.into_iter();
        for (row, &count) in words(&indices).chunks_exact(k).zip(&counts) {
            let want: Vec<u32> = wanted.by_ref().take(count as usize).collect();
            let (found, rest) = row.split_at(want.len());
            assert_eq!(found, want, "{case}");
            assert!(rest.iter().all(|&index| index == 0), "{case}: {rest:?}");
        }
        assert_eq!(metadata(&at.join("s.safetensors"))["hook"], "paper:4");
        // by products in bf16 the features are the same; what is no top-k knows none
        let in_bf16 = run(at, &format!("{from_tensor} --precision bf16 --out b.safetensors"));
        match case {
            "published" => {
                in_bf16.ok();
                let found = |file| sets(&words(&tensor(&at.join(file), "indices").2), k);
                assert_eq!(found("b.safetensors"), found("n.safetensors"), "features of both precisions");
                let said = |file: &str| metadata(&at.join(file))["precision"].clone();
                assert_eq!([said("s.safetensors"), said("b.safetensors")], ["f32", "bf16"]);
            }
            _ => drop(in_bf16.exits(2, &["`precision` is bf16 with a jumprelu autoencoder, expected f32"])),
        }
        // fewer and more than there are
        for kept in [2, 33] {
            run(at, &format!("{from_tensor} --k {kept} --out k.safetensors")).ok();
            let (_, shape, values) = tensor(&at.join("k.safetensors"), "values");
            assert_eq!(shape, [11, kept]);
            let all = floats(&tensor(&at.join("n.safetensors"), "values").2);
            for (row, all) in floats(&values).chunks_exact(kept).zip(all.chunks_exact(k)) {
                let both = kept.min(k);
                assert_eq!(row[..both], all[..both]);
                assert!(row[both..].iter().all(|&v| v == 0.0));
            }
        }
    }
}

fn rows_of_another_place_are_refused() {
    let dir = folder();
    let at = dir.path();
    let sae = golden("published");
    let line = format!(
        "sae encode --sae {} --input {} --tensor rows --out y.safetensors",
        sae.display(),
        sae.join("expected.safetensors").display()
    );
    let parts = ["cfg.json", "`hook_name` is hook_layers.3", "expected layers.4.resid_post"];
    run(at, &format!("{line} --hook hook_layers.4")).exits(4, &parts);
    assert!(!at.join("y.safetensors").exists());
    let allowed = run(at, &format!("{line} --hook hook_layers.4 --allow-misaligned --json")).ok().json();
    assert!(allowed["misaligned"].as_str().expect("the reason").contains("hook_layers.3"), "{allowed}");
    let written = metadata(&at.join("y.safetensors"));
    assert!(written["misaligned"].as_str().expect("the reason").contains("hook_layers.3"), "{written}");
    // no option makes rows of another width fit
    fs::write(at.join("w.npy"), [npy_header("<f4", &[1, 4]), vec![0; 16]].concat())
        .expect("it can be written");
    let wide =
        format!("sae encode --sae {} --input w.npy --out y.safetensors --allow-misaligned", sae.display());
    run(at, &wide).exits(4, &["`d_in` is 24, expected 4, the width at w.npy"]);
}

fn wrong_options_and_rows_are_named() {
    let dir = folder();
    let at = dir.path();
    let sae = golden("published").display().to_string();
    let encode = |rest: &str| run(at, &format!("sae encode --sae {sae} {rest}"));
    encode("--out y.safetensors").exits(2, &["--input", "--store"]);
    encode("--input a.npy --store s --out y.safetensors").exits(2, &["cannot be used with"]);
    encode("--input a.npy --out y").exits(2, &["--out is y, expected a .safetensors file"]);
    encode("--input a.npy --k 54 --out y.safetensors").exits(2, &["--k is 54, expected 1 to 53"]);
    encode("--input a.npy --hook layer.3 --out y.safetensors").exits(2, &["site `layer.3` does not exist"]);
    encode("--input a.npy --out y.safetensors").exits(3, &["a.npy"]);
    encode("--input a.npy --out y.safetensors --precision f16")
        .exits(2, &["--precision is f16, expected f32 or bf16"]);
    encode("--input a.csv --out y.safetensors").exits(3, &["a.csv", ".npy or .safetensors"]);
    let expected = golden("published").join("expected.safetensors");
    let expected = expected.display();
    encode(&format!("--input {expected} --out y.safetensors")).exits(3, &["values", "named by --tensor"]);
    encode(&format!("--input {expected} --tensor x --out y.safetensors")).exits(3, &["expected `x`"]);
    let mut rows = vec![0u8; 2 * 24 * 4];
    rows[4 * 30..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(at.join("nan.npy"), [npy_header("<f4", &[2, 24]), rows].concat()).expect("it can be written");
    encode("--input nan.npy --out y.safetensors").exits(3, &["nan.npy", "NaN in row 1, column 6"]);
    assert!(!at.join("y.safetensors").exists());
}

fn rows_that_are_not_finite_are_marked_on_demand() {
    not_finite_rows_are_marked_on("cpu");
}

/// Rows with NaN, with infinities and of values whose sums are infinite: marked, all others as they are without them.
pub fn not_finite_rows_are_marked_on(device: &str) {
    let dir = folder();
    let at = dir.path();
    for (case, precisions) in [("published", &["f32", "bf16"][..]), ("jumprelu-6", &["f32"])] {
        let sae = golden(case).display().to_string();
        let (_, shape, rows) = tensor(&golden(case).join("expected.safetensors"), "rows");
        for precision in precisions {
            let mut spoilt = floats(&rows);
            for (row, column, value) in [(1, 6, f32::NAN), (4, 0, f32::INFINITY), (9, 23, f32::NEG_INFINITY)]
            {
                spoilt[24 * row + column] = value;
            }
            // too large for sums in f32
            spoilt[24 * 6..24 * 7].fill(f32::MAX);
            let bad = [1, 4, 6, 9];
            let spoilt: Vec<u8> = spoilt.iter().flat_map(|v| v.to_le_bytes()).collect();
            for (name, rows) in [("x.npy", &rows), ("spoilt.npy", &spoilt)] {
                let file = [npy_header("<f4", &shape), rows.clone()].concat();
                fs::write(at.join(name), file).expect("it can be written");
            }
            let encode = |input: &str, rest: &str| {
                let line = format!("--device {device} --precision {precision} sae encode --sae {sae}");
                run(at, &format!("{line} --input {input} {rest}"))
            };
            encode("x.npy", "--k 20 --out x.safetensors").ok();
            for refused in ["", "--not-finite refuse"] {
                encode("spoilt.npy", &format!("{refused} --out n.safetensors"))
                    .exits(3, &["spoilt.npy", "NaN in row 1, column 6", "expected finite values"]);
            }
            let marked = encode("spoilt.npy", "--k 20 --not-finite mark --out n.safetensors --json").ok();
            assert_eq!(marked.json()["not_finite"], bad.len());
            assert_eq!(metadata(&at.join("n.safetensors"))["not_finite_rows"], bad.len().to_string());
            let read = |file: &str| {
                let [indices, values] = ["indices", "values"].map(|name| tensor(&at.join(file), name).2);
                (words(&indices), floats(&values))
            };
            let ((indices, values), (known, of_known)) = (read("n.safetensors"), read("x.safetensors"));
            for row in 0..11 {
                let places = 20 * row..20 * (row + 1);
                let (indices, values) = (&indices[places.clone()], &values[places.clone()]);
                if bad.contains(&row) {
                    let is_mark = indices.iter().all(|&f| f == 0) && values.iter().all(|v| v.is_nan());
                    assert!(is_mark, "{case} {precision} row {row}: {indices:?} {values:?}");
                } else {
                    assert_eq!(indices, &known[places.clone()], "{case} {precision} row {row}");
                    assert_eq!(values, &of_known[places], "{case} {precision} row {row}");
                }
            }
        }
    }
    let sae = golden("published").display().to_string();
    run(at, &format!("sae encode --sae {sae} --store s --out t --not-finite mark"))
        .exits(2, &["--not-finite is mark with --out t, expected a .safetensors file"]);
    run(at, &format!("sae encode --sae {sae} --input x.npy --out n.safetensors --not-finite skip"))
        .exits(2, &["skip", "refuse", "mark"]);
}

/// Indices of four bytes, to a file and to a store, against sums in f64.
fn more_features_than_two_bytes_count() {
    let dir = folder();
    let at = dir.path();
    let (width, features, k) = (128, 70_000, 3);
    run(at, "capture FIX/flac_s16.flac --model MODEL --window 0.2 --limit 1 --hooks hook_layers.0 --out s")
        .ok();
    let (_, _, bytes) = resid(&at.join("s"), "hook_layers.0");
    let rows = floats(&bytes);
    let count = rows.len() / width;
    fs::write(at.join("x.npy"), [npy_header("<f4", &[count, width]), bytes].concat())
        .expect("it can be written");
    let mut state = 9u32;
    let mut noise = |n: usize| -> Vec<f32> {
        let mut value = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..n).map(|_| value()).collect()
    };
    let parts = SaeParts {
        w_enc: noise(width * features),
        b_enc: noise(features),
        w_dec: noise(width * features),
        b_dec: noise(width),
    };
    let sae = Sae::new(parts.clone(), Some(k), Some("hook_layers.0".into())).expect("they fit together");
    sae.save(&at.join("sae")).expect("it can be written");
    let largest = |row: &[f32]| -> Vec<(u32, f64)> {
        let mut pre: Vec<f64> = parts.b_enc.iter().map(|b| f64::from(*b)).collect();
        for ((x, b), weights) in row.iter().zip(&parts.b_dec).zip(parts.w_enc.chunks_exact(features)) {
            let x = f64::from(x - b);
            pre.iter_mut().zip(weights).for_each(|(sum, w)| *sum += x * f64::from(*w));
        }
        let mut all: Vec<(u32, f64)> = (0..).zip(pre).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.truncate(k);
        all
    };
    let want: Vec<Vec<(u32, f64)>> = rows.chunks_exact(width).map(largest).collect();
    assert!(want.iter().flatten().any(|(feature, _)| *feature > 0xffff), "no feature beyond two bytes");

    run(at, "sae encode --sae sae --input x.npy --out x.safetensors").ok();
    run(at, "sae encode --sae sae --store s --out y.safetensors").ok();
    run(at, "sae encode --sae sae --store s --out features").ok();
    run(at, "store verify features").ok();
    for file in ["x.safetensors", "y.safetensors", "features/hook_layers.0/00000.sae.safetensors"] {
        let (dtype, shape, indices) = tensor(&at.join(file), "indices");
        assert_eq!((dtype.as_str(), shape.as_slice()), ("U32", &[count, k][..]), "{file}");
        let indices: Vec<u32> = bytemuck::pod_collect_to_vec(&indices);
        let values = floats(&tensor(&at.join(file), "values").2);
        for ((index, value), (feature, want)) in indices.iter().zip(&values).zip(want.iter().flatten()) {
            assert_eq!(index, feature, "{file}");
            // 128 products in f32 in another order
            assert!((f64::from(*value) / want - 1.0).abs() < 1e-5, "{file}: {value}, expected {want}");
        }
    }
}

fn other_programs_files_are_read() {
    let dir = folder();
    let at = dir.path();
    let info = |case: &str| run(at, &format!("sae info {} --json", golden(case).display())).ok().json();
    let gemma = info("gemma-scope-res/layer_3/width_53");
    for (key, value) in [
        ("architecture", json!("jumprelu")),
        ("d_in", json!(24)),
        ("d_sae", json!(53)),
        ("hook", json!("hook_layers.3")),
        ("site", json!("layers.3.resid_post")),
        ("apply_b_dec_to_input", json!(false)),
        ("unit_directions", json!(false)),
    ] {
        assert_eq!(gemma[key], value, "{key}");
    }
    assert!(gemma["file"].as_str().expect("a path").ends_with("params.npz"));
    // the file itself will do
    assert_eq!(info("gemma-scope-res/layer_3/width_53/params.npz")["hook"], "hook_layers.3");
    let llama = info("llama-scope");
    assert_eq!(
        [&llama["model"], &llama["unit_directions"]],
        [&json!("meta-llama/Llama-3.1-8B"), &json!(true)]
    );
    let text = run(at, &format!("sae info {}", golden("published").display())).ok().stdout;
    assert!(text.contains("not of length 1"), "{text}");
}

fn pickles_are_converted() {
    let dir = folder();
    let at = dir.path();
    let pickled = golden("pickled/openai-topk/6.pt");
    let pickled = pickled.display();
    let parts = ["6.pt: is a pickle", "`auscult model convert`"];
    run(at, &format!("sae info {pickled}")).exits(3, &parts);
    let rows = golden("pickled/openai-topk/expected.safetensors");
    let encode = format!("--input {} --tensor rows --out y.safetensors", rows.display());
    run(at, &format!("sae encode --sae {pickled} {encode}")).exits(3, &parts);
    run(at, &format!("model convert {pickled} --hook layer.3 --out o")).exits(2, &["site `layer.3`"]);
    let report = run(at, &format!("model convert {pickled} --hook hook_layers.3 --out o --json")).ok().json();
    assert_eq!([&report["kind"], &report["tensors"]], [&json!("autoencoder"), &json!(4)]);
    assert_eq!(names(&at.join("o")), ["cfg.json", "run.json", "sae_weights.safetensors"]);
    let info = run(at, "sae info o --json").ok().json();
    assert_eq!([&info["k"], &info["normalize_activations"]], [&json!(5), &json!("layer_norm")]);
    run(at, &format!("sae encode --sae o {encode} --hook hook_layers.3")).ok();
    run(at, &format!("sae encode --sae o {encode} --hook hook_layers.4")).exits(
        4,
        &["`hook_name` is hook_layers.3", "hook_layers.3 is layer 4 where layers are counted from 1"],
    );
}

/// Writes an autoencoder of the tiny model's width.
pub fn write_sae(dir: &Path, hook: &str) -> Sae {
    let (width, features) = (128, 70);
    let mut state = 5u32;
    let mut noise = |n: usize, scale: f32| -> Vec<f32> {
        let mut value = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / 8_388_608.0 - 1.0) * scale
        };
        (0..n).map(|_| value()).collect()
    };
    let parts = SaeParts {
        w_enc: noise(width * features, 0.1),
        b_enc: noise(features, 0.1),
        w_dec: noise(width * features, 0.1),
        b_dec: noise(width, 0.1),
    };
    let sae = Sae::new(parts, Some(6), Some(hook.into())).expect("they fit together");
    sae.save(dir).expect("it can be written");
    sae
}

fn stores_are_encoded_at_the_hook_that_was_meant() {
    let dir = folder();
    let at = dir.path();
    let capture = "capture FIX/flac_s16.flac FIX/mono_32k.mp3 --model MODEL --window 1 --out s";
    run(at, &format!("{capture} --hooks hook_layers.{{0,1}}")).ok();
    let sae = write_sae(&at.join("sae"), "hook_layers.1");
    let want = |hook: &str| {
        let rows = floats(&resid(&at.join("s"), hook).2);
        let want = sae.encode(&rows).expect("rows of the store");
        (want.indices, want.values)
    };
    let got = |name: &str| {
        let file = at.join(name);
        (words(&tensor(&file, "indices").2), floats(&tensor(&file, "values").2))
    };
    let json = run(at, "sae encode --sae sae --store s --out y.safetensors --json").ok().json();
    assert_eq!(
        [&json["rows"], &json["k"], &json["hook"]],
        [&json!(3 * 51 + 14), &json!(6), &json!("hook_layers.1")]
    );
    assert_eq!(got("y.safetensors"), want("hook_layers.1"));

    let other = "sae encode --sae sae --store s --hook hook_layers.0 --out z.safetensors";
    run(at, other).exits(4, &["`hook_name` is hook_layers.1, expected layers.0.resid_post"]);
    run(at, &format!("{other} --allow-misaligned")).ok();
    assert_eq!(got("z.safetensors"), want("hook_layers.0"));
    run(at, "sae encode --sae sae --store s --hook embed --out z.safetensors")
        .exits(3, &["has no hook `embed`"]);
    write_sae(&at.join("far"), "hook_layers.7");
    run(at, "sae encode --sae far --store s --out z.safetensors")
        .exits(4, &["has no hook `hook_layers.7`", "hook_layers.0, hook_layers.1"]);
    let narrow = golden("published").display().to_string();
    run(at, &format!("sae encode --sae {narrow} --store s --hook hook_layers.1 --out z.safetensors"))
        .exits(4, &["`d_in` is 24, expected 128"]);
}

fn stores_of_features_are_written() {
    let dir = folder();
    let at = dir.path();
    let capture = "capture FIX/flac_s16.flac FIX/mono_32k.mp3 --model MODEL --window 1 --out s";
    run(at, &format!("{capture} --hooks hook_layers.{{0,1}}")).ok();
    let sae = write_sae(&at.join("sae"), "hook_layers.1");
    let json = run(at, "sae encode --sae sae --store s --out f --json").ok().json();
    assert_eq!(
        [&json["clips"], &json["rows"], &json["k"], &json["sae"], &json["misaligned"]],
        [&json!(4), &json!(3 * 51 + 14), &json!(6), &json!("sae"), &json!(false)]
    );
    let store = at.join("f");
    check_sums(&store);
    run(at, "store verify f").ok();
    assert_eq!(index(&store), index(&at.join("s")));
    let shard = store.join("hook_layers.1/00000.sae.safetensors");
    let want = sae.encode(&floats(&resid(&at.join("s"), "hook_layers.1").2)).expect("rows of the store");
    assert_eq!(words(&tensor(&shard, "indices").2), want.indices);
    assert_eq!(floats(&tensor(&shard, "values").2), want.values);
    let meta = json_file(&store.join("store.json"));
    assert_eq!(meta["sae_only"], true);
    assert_eq!([&meta["saes"][0]["features"], &meta["saes"][0]["k"]], [&json!(70), &json!(6)]);
    let record = json_file(&store.join("run.json"));
    assert_eq!(record["details"]["misaligned"], false);
    assert_eq!(record["details"]["saes"][0]["l0"], json["saes"][0]["l0"]);
    assert_eq!(record["models"].as_array().map(Vec::len), Some(2), "configuration and weights");

    assert_eq!([&meta["saes"][0]["precision"], &record["precision"]], ["f32"; 2]);

    // by products in bf16 the features are the same, and the records say so
    run(at, "sae encode --sae sae --store s --out b --precision bf16").ok();
    let narrow = tensor(&at.join("b/hook_layers.1/00000.sae.safetensors"), "indices");
    assert_eq!(sets(&words(&narrow.2), want.k), sets(&want.indices, want.k));
    let meta = json_file(&at.join("b/store.json"));
    let record = json_file(&at.join("b/run.json"));
    assert_eq!([&meta["saes"][0]["precision"], &record["precision"]], ["bf16"; 2]);
    run(at, "sae encode --sae sae --store s --out b --resume").exits(2, &["`saes`"]);

    run(at, "sae encode --sae sae --store s --out f").exits(2, &["f"]);
    let again = run(at, "sae encode --sae sae --store s --out f --resume --json").ok().json();
    assert_eq!(again["outcome"], "already_finished");
    // another hook only where it is said so, and then the record says it
    let other = "sae encode --sae sae --store s --hook hook_layers.0 --out g";
    run(at, other).exits(4, &["`hook_name` is hook_layers.1, expected layers.0.resid_post"]);
    assert!(!at.join("g").exists());
    run(at, &format!("{other} --allow-misaligned")).ok();
    let said = json_file(&at.join("g/run.json"))["details"]["misaligned"].clone();
    assert!(said.as_str().expect("the reason").contains("hook_layers.1"), "{said}");
    // features hold no rows that could be encoded
    run(at, "sae encode --sae sae --store f --out h").exits(3, &["holds features alone"]);
    run(at, "sae encode --sae sae --store s --out h.safetensors --resume")
        .exits(2, &["expected a directory"]);
}

/// A store whose run was killed behind some shards is finished to the same bytes.
fn stores_of_features_are_taken_up_again() {
    let dir = folder();
    let at = dir.path();
    let capture = "capture FIX/flac_s16.flac FIX/mono_32k.mp3 --model MODEL --window 1 --out s";
    run(at, &format!("{capture} --hooks hook_layers.1")).ok();
    write_sae(&at.join("sae"), "hook_layers.1");
    let encode = "sae encode --sae sae --store s";
    run(at, &format!("{encode} --out f")).ok();
    // as a killed run leaves it before its first shard is closed
    fs::create_dir(at.join("g")).expect("it can be made");
    fs::copy(at.join("f/store.json"), at.join("g/store.json")).expect("it can be copied");
    fs::write(at.join("g/journal.jsonl"), "").expect("it can be written");
    run(at, &format!("{encode} --out g")).exits(2, &["g"]);
    run(at, &format!("{encode} --k 5 --out g --resume")).exits(2, &["`saes` is"]);
    run(at, &format!("{encode} --out g --resume")).ok();
    let without_record = |store: &str| {
        let mut files = tree(&at.join(store));
        files.retain(|name, _| name != "run.json" && name != "SHA256SUMS");
        files
    };
    assert_eq!(without_record("f"), without_record("g"));
}
