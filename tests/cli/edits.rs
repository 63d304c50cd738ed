//! Edits of `generate`: that they do what they say where they say, controls beside them, captures while playing.

use crate::generate::{codes, takes};
use crate::support::{check_sums, floats, folder, index, json_file, names, resid, run, tree};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

crate::trials!(
    a_stream_is_steered_within_its_window,
    sites_are_zeroed_replaced_and_patched,
    edits_of_strength_zero_change_nothing,
    features_are_edited,
    controls_are_played_beside_the_target,
    autoencoders_must_fit,
    bad_edits_are_refused_before_anything_is_written,
);

/// Width of the tiny model, and what its autoencoders have.
const WIDTH: usize = 128;
const FEATURES: usize = 60;

/// Writes an autoencoder in the format of SAELens; its feature 59 never fires.
fn autoencoder(dir: &Path, hook: &str, width: usize) {
    fs::create_dir(dir).expect("a new folder");
    let config = json!({
        "architecture": "topk", "d_in": width, "d_sae": FEATURES, "k": 9, "dtype": "float32",
        "apply_b_dec_to_input": true, "normalize_activations": "none", "metadata": { "hook_name": hook },
    });
    fs::write(dir.join("cfg.json"), config.to_string()).expect("written");
    let noise = |name: &str, n: usize| auscult_kernels::noise(name, n).collect::<Vec<f32>>();
    let mut b_enc = noise("b_enc", FEATURES);
    b_enc[59] = -1e9;
    write(
        &dir.join("sae_weights.safetensors"),
        &[
            ("W_enc", vec![width, FEATURES], noise("w_enc", width * FEATURES)),
            ("b_enc", vec![FEATURES], b_enc),
            ("W_dec", vec![FEATURES, width], noise("w_dec", FEATURES * width)),
            ("b_dec", vec![width], noise("b_dec", width)),
        ],
    );
}

fn write(path: &Path, tensors: &[(&str, Vec<usize>, Vec<f32>)]) {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let held: Vec<Vec<u8>> = tensors.iter().map(|(.., values)| bytes(values)).collect();
    let views = tensors.iter().zip(&held).map(|((name, shape, _), bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (*name, view.expect("a tensor"))
    });
    safetensors::serialize_to_file(views, None, path).expect("written");
}

/// Rows of a hook of a captured store, of its first clip.
fn rows(store: &Path, hook: &str) -> Vec<Vec<f32>> {
    let (dtype, shape, bytes) = resid(store, hook);
    assert_eq!((dtype.as_str(), shape[1]), ("F32", WIDTH));
    let count = index(store)[0]["positions"].as_u64().expect("a count") as usize;
    floats(&bytes).chunks(WIDTH).take(count).map(<[f32]>::to_vec).collect()
}

/// The stream before a site, and behind it: what the next layer receives.
const SITES: [&str; 2] = ["hook_layers.0", "layers.1.resid_pre"];

/// Plays a take of 12 frames with `edits`, and returns the stream before [`SITES`] and behind.
fn around(dir: &Path, name: &str, edits: &str) -> [Vec<Vec<f32>>; 2] {
    let line = format!(
        "generate --model MODEL --seconds 0.24 --seed 4 --out {name} --hooks {} --capture {name}.store {edits}",
        SITES.join(",")
    );
    run(dir, &line).ok();
    let store = dir.join(format!("{name}.store"));
    check_sums(&store);
    SITES.map(|hook| rows(&store, hook))
}

fn near(got: &[f32], want: impl Iterator<Item = f32>, what: &str) {
    for (i, (&got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            (got - want).abs() <= 1e-5 * (1.0 + want.abs()),
            "{what}, column {i}: {got}, expected {want}"
        );
    }
}

fn a_stream_is_steered_within_its_window() {
    let dir = folder();
    autoencoder(&dir.path().join("sae"), "hook_layers.0", WIDTH);
    let direction: Vec<f32> =
        auscult_kernels::noise("w_dec", FEATURES * WIDTH).skip(7 * WIDTH).take(WIDTH).collect();
    // frames 2 to 5, which lie at positions 3 to 6
    let edits = "--sae sae --steer hook_layers.0:7=0.5@3 --edit-window 0.04..0.12";
    let [before, behind] = around(dir.path(), "out", edits);
    assert_eq!(before.len(), 13);
    for (s, (x, y)) in before.iter().zip(&behind).enumerate() {
        if (3..7).contains(&s) {
            near(y, x.iter().zip(&direction).map(|(x, d)| x + 1.5 * d), &format!("position {s}"));
        } else {
            assert_eq!(x, y, "position {s}");
        }
    }
    let edit = &takes(&dir.path().join("out"))[0]["edits"][0];
    assert_eq!(edit["positions_edited"], json!([3, 7]));
    assert_eq!(
        (&edit["action"], &edit["feature"], &edit["hook"]),
        (&"steer".into(), &7.into(), &"hook_layers.0".into())
    );
    assert_eq!((&edit["alpha"], &edit["beta"], &edit["rows"]), (&0.5.into(), &3.0.into(), &"both".into()));
    let inputs = &json_file(&dir.path().join("out/run.json"))["inputs"];
    let inputs: Vec<&str> =
        inputs.as_array().expect("files").iter().filter_map(|i| i["path"].as_str()).collect();
    assert_eq!(inputs, ["sae/cfg.json", "sae/sae_weights.safetensors"]);
}

fn sites_are_zeroed_replaced_and_patched() {
    let dir = folder();
    let vector: Vec<f32> = auscult_kernels::noise("vector", WIDTH).collect();
    let other: Vec<f32> = auscult_kernels::noise("other", 3 * WIDTH).collect();
    let tensors = [("v", vec![WIDTH], vector.clone()), ("rows", vec![3, WIDTH], other.clone())];
    write(&dir.path().join("two.safetensors"), &tensors);
    write(&dir.path().join("one.safetensors"), &tensors[..1]);

    let [_, behind] = around(dir.path(), "zero", "--zero hook_layers.0");
    assert!(behind.iter().flatten().all(|&y| y == 0.0));
    let [_, behind] = around(dir.path(), "replace", "--replace hook_layers.0=one.safetensors");
    assert!(behind.iter().all(|y| *y == vector));
    let [before, behind] = around(dir.path(), "patch", "--patch hook_layers.0=two.safetensors#rows");
    for (s, (x, y)) in before.iter().zip(&behind).enumerate() {
        assert_eq!(y, other.chunks(WIDTH).nth(s).unwrap_or(x), "position {s}");
    }
    let [before, behind] = around(dir.path(), "along", "--steer hook_layers.0:two.safetensors#v=-2");
    for (x, y) in before.iter().zip(&behind) {
        near(y, x.iter().zip(&vector).map(|(x, d)| x - 2.0 * d), "steered along a vector");
    }
    // a run that was captured is put in place of another's
    let [donor, _] = around(dir.path(), "donor", "--zero embed");
    let [_, behind] = around(dir.path(), "patched", "--patch hook_layers.0=donor.store");
    assert_eq!(behind, donor);
}

fn edits_of_strength_zero_change_nothing() {
    let dir = folder();
    autoencoder(&dir.path().join("sae"), "hook_layers.0", WIDTH);
    let line = "generate --model MODEL --seconds 0.4 --seed 4 --out";
    run(dir.path(), &format!("{line} plain")).ok();
    let plain = codes(&dir.path().join("plain"), 0);
    for (name, edit) in [
        ("scale", "--scale hook_layers.0:3=1"),
        ("steer", "--steer hook_layers.0:3=0"),
        ("silent", "--ablate hook_layers.0:59"),
    ] {
        run(dir.path(), &format!("{line} {name} --sae sae {edit}")).ok();
        assert_eq!(codes(&dir.path().join(name), 0), plain, "{edit}");
    }
    run(dir.path(), &format!("{line} set --sae sae --set hook_layers.0:3=300")).ok();
    assert_ne!(codes(&dir.path().join("set"), 0), plain);
    assert_eq!(takes(&dir.path().join("set"))[0]["label"], "edited");
}

/// The activation of a feature at a row, by the definition in f64.
fn activation(feature: usize, x: &[f32]) -> f64 {
    let noise = |name: &str, n: usize| auscult_kernels::noise(name, n).map(f64::from).collect::<Vec<f64>>();
    let (w, mut b, centre) =
        (noise("w_enc", WIDTH * FEATURES), noise("b_enc", FEATURES), noise("b_dec", WIDTH));
    b[59] = -1e9;
    let pre = |f: usize| {
        b[f] + (0..WIDTH).map(|c| (f64::from(x[c]) - centre[c]) * w[c * FEATURES + f]).sum::<f64>()
    };
    let larger = (0..FEATURES).filter(|&f| pre(f) > pre(feature)).count();
    if larger < 9 { pre(feature).max(0.0) } else { 0.0 }
}

fn features_are_edited() {
    let dir = folder();
    autoencoder(&dir.path().join("sae"), "hook_layers.0", WIDTH);
    let [plain, _] = around(dir.path(), "plain", "");
    let fires = |f: usize| plain.iter().filter(|x| activation(f, x) > 0.0).count();
    let feature = (0..FEATURES).max_by_key(|&f| fires(f)).expect("there are features");
    assert!(fires(feature) > 3, "feature {feature} fires {} times: too rarely to tell", fires(feature));
    let direction: Vec<f64> = auscult_kernels::noise("w_dec", FEATURES * WIDTH)
        .skip(feature * WIDTH)
        .take(WIDTH)
        .map(f64::from)
        .collect();
    /// What becomes of an activation.
    type Becomes = fn(f64) -> f64;
    let edits: [(&str, String, Becomes); 3] = [
        ("ablate", format!("--ablate hook_layers.0:{feature}"), |f| -f),
        ("scale", format!("--scale hook_layers.0:{feature}=2.5"), |f| 1.5 * f),
        ("set", format!("--set hook_layers.0:{feature}=4"), |f| 4.0 - f),
    ];
    for (name, edit, coefficient) in edits {
        let [before, behind] = around(dir.path(), name, &format!("--sae sae {edit}"));
        for (s, (x, y)) in before.iter().zip(&behind).enumerate() {
            let c = coefficient(activation(feature, x));
            let want = x.iter().zip(&direction).map(|(&x, &d)| (f64::from(x) + c * d) as f32);
            near(y, want, &format!("{name}, position {s}"));
        }
    }
}

fn controls_are_played_beside_the_target() {
    let dir = folder();
    autoencoder(&dir.path().join("sae"), "hook_layers.0", WIDTH);
    let line = "generate --model MODEL --seconds 0.4 --seed 4 --sae sae";
    let edit = "--set hook_layers.0:3=50 --steer hook_layers.0:8=9";
    run(dir.path(), &format!("{line} {edit} --controls 2 --out out")).ok();
    run(dir.path(), &format!("{line} {edit} --controls 2 --batch 1 --out again")).ok();
    run(dir.path(), &format!("{line} --out plain")).ok();
    run(dir.path(), &format!("{line} {edit} --out target")).ok();
    let out = dir.path().join("out");
    let records = takes(&out);
    let labels: Vec<&str> = records.iter().filter_map(|r| r["label"].as_str()).collect();
    let expected = [
        "baseline",
        "target",
        "feature-control-0",
        "feature-control-1",
        "direction-control-0",
        "direction-control-1",
    ];
    assert_eq!(labels, expected);
    assert!(records.iter().all(|r| r["row"] == 0 && r["seed"] == 4), "the same noise for all");
    assert_eq!(codes(&out, 0), codes(&dir.path().join("plain"), 0));
    assert_eq!(codes(&out, 1), codes(&dir.path().join("target"), 0));
    let all: Vec<_> = (0..6).map(|take| codes(&out, take)).collect();
    for a in 0..6 {
        for b in 0..a {
            assert_ne!(all[a], all[b], "takes {a} and {b}");
        }
    }
    let mut files = [tree(&out), tree(&dir.path().join("again"))];
    files.iter_mut().for_each(|files| drop(files.remove("run.json")));
    assert!(files[0] == files[1], "the same bytes in any batch");

    assert_eq!(records[0]["edits"], json!([]));
    let mut features: Vec<u64> = Vec::new();
    for record in &records[1..4] {
        features.extend((0..2).filter_map(|edit| record["edits"][edit]["feature"].as_u64()));
    }
    assert_eq!((features.len(), &features[..2]), (6, &[3, 8][..]));
    let mut distinct = features.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 6, "{features:?}");
    for record in &records[2..4] {
        assert_eq!(record["edits"][0]["in_place_of"], 3);
        assert_eq!(record["edits"][0]["matched_on"][0]["feature"], 3);
        assert!(record["edits"][0]["matched_on"][1]["rate"].is_number(), "{record}");
    }
    for record in &records[4..] {
        for edit in 0..2 {
            let norm = |r: &Value| r["edits"][edit]["norm"].as_f64().expect("a norm");
            assert_eq!(record["edits"][edit]["direction"], "random");
            assert!((norm(record) - norm(&records[1])).abs() < 1e-4);
        }
    }
}

fn autoencoders_must_fit() {
    let dir = folder();
    autoencoder(&dir.path().join("sae"), "hook_layers.1", WIDTH);
    autoencoder(&dir.path().join("narrow"), "hook_layers.0", 96);
    let before = names(dir.path());
    let line = "generate --model MODEL --seconds 0.2 --out out --ablate hook_layers.0:3";
    run(dir.path(), &format!("{line} --sae sae")).exits(
        4,
        &["sae/cfg.json", "`hook_name` is hook_layers.1", "layers.0.resid_post", "--allow-misaligned"],
    );
    run(dir.path(), &format!("{line} --sae narrow")).exits(4, &["narrow/cfg.json", "`d_in` is 96", "128"]);
    run(dir.path(), &format!("{line} --sae narrow --allow-misaligned")).exits(4, &["`d_in` is 96"]);
    run(dir.path(), &format!("{line} --sae absent")).exits(3, &["absent"]);
    run(dir.path(), line).exits(2, &["hook_layers.0", "--sae"]);
    assert_eq!(names(dir.path()), before);
    run(dir.path(), &format!("{line} --sae sae --allow-misaligned")).ok();
    let record = json_file(&dir.path().join("out/run.json"));
    let misaligned =
        json!([{ "sae": "sae", "hook_name": "hook_layers.1", "used_at": "layers.0.resid_post" }]);
    assert_eq!(record["details"]["misaligned"], misaligned);
}

fn bad_edits_are_refused_before_anything_is_written() {
    let dir = folder();
    autoencoder(&dir.path().join("sae"), "hook_layers.0", WIDTH);
    let vector: Vec<f32> = auscult_kernels::noise("vector", 96).collect();
    write(&dir.path().join("short.safetensors"), &[("v", vec![96], vector)]);
    let mut holes = vec![0.5; WIDTH];
    holes[5] = f32::NAN;
    write(&dir.path().join("nan.safetensors"), &[("v", vec![WIDTH], holes)]);
    let before = names(dir.path());
    for (line, code, parts) in [
        ("--sae sae --ablate hook_layers.0:60", 3, &["sae", "feature 60", "less than 60"][..]),
        ("--sae sae --ablate hook_layers.99:3", 2, &["layers.99", "0..=2"]),
        ("--sae sae --ablate layer.0:3", 2, &["layer.0", "nearest"]),
        ("--sae sae --ablate hook_layers.0:-3", 2, &["`-3`", "counted from 0"]),
        ("--sae sae --scale hook_layers.0:3=NaN", 2, &["`NaN`", "finite"]),
        ("--sae sae --set hook_layers.0:3=inf", 2, &["`inf`", "finite"]),
        ("--sae sae --steer hook_layers.0:3=1@NaN", 2, &["`NaN`", "finite"]),
        ("--sae sae --steer hook_layers.0:3", 2, &["HOOK:FEATURE=ALPHA"]),
        ("--zero logits", 2, &["`logits`", "residual"]),
        ("--replace hook_layers.0=short.safetensors", 3, &["short.safetensors", "[96]", "[128]"]),
        ("--replace hook_layers.0=nan.safetensors", 3, &["nan.safetensors", "NaN at 5"]),
        ("--replace hook_layers.0=absent.safetensors", 3, &["absent.safetensors"]),
        ("--steer hook_layers.0:short.safetensors#w=1", 3, &["no tensor `w`", "v"]),
        ("--patch hook_layers.0=sae", 3, &["sae", "store.json"]),
        ("--zero hook_layers.0 --edit-window 1..2", 2, &["`--edit-window` begins at 1 s", "0.2 s"]),
        ("--zero hook_layers.0 --edit-window 2..1", 2, &["A..B"]),
        ("--zero hook_layers.0 --edit-rows uncond", 2, &["`--edit-rows` is uncond", "guidance"]),
        ("--zero hook_layers.0 --edit-rows none", 2, &["both, cond or uncond"]),
        ("--zero hook_layers.0 --controls 1", 2, &["`--controls` with `--zero`"]),
        ("--controls 1", 2, &["`--controls` without an edit"]),
        ("--sae sae --ablate hook_layers.0:3 --controls 60", 2, &["`--controls` is 60", "at most 59"]),
        ("--hooks hook_layers.0", 2, &["--capture"]),
        ("--hooks hook_layers.9 --capture store", 2, &["hook_layers.9", "0..=2"]),
        ("--hooks hook_layers.0 --capture sae", 2, &["`--capture`", "sae", "not empty"]),
        ("--hooks hook_layers.0 --capture out", 2, &["`--capture` and `--out`"]),
    ] {
        run(dir.path(), &format!("generate --model MODEL --seconds 0.2 --out out {line}")).exits(code, parts);
    }
    assert_eq!(names(dir.path()), before);
}
