//! `sae eval`: the numbers of an autoencoder at its own site, from a store and from audio.

use crate::support::{floats, folder, json_file, music, resid, run};
use crate::trained::{renamed, trained};
use auscult_model::sae::{Sae, SaeParts};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

crate::trials!(
    a_store_and_its_audio_give_the_same_scores,
    duplicates_and_lengths_of_directions_are_told,
    rows_of_another_hook_are_refused,
    wrong_options_are_named,
);

const WIDTH: usize = 128;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// A store of held-out audio at two hooks, and an autoencoder trained at one of them.
fn prepared(at: &Path) -> Sae {
    music(&at.join("train.wav"), 20.0, 32_000, 5);
    music(&at.join("held.wav"), 5.0, 32_000, 6);
    run(at, "capture train.wav --model MODEL --window 2 --hooks hook_layers.1 --out s").ok();
    run(at, "capture held.wav --model MODEL --window 2 --hooks hook_layers.{0,1} --out held").ok();
    trained(at, "--seed 3", "sae", Some("hook_layers.1"))
}

fn a_store_and_its_audio_give_the_same_scores() {
    let dir = folder();
    let at = dir.path();
    let sae = prepared(at);
    let stored = run(at, "sae eval --sae sae --store held --json --out eval.json").ok().json();
    assert_eq!(json_file(&at.join("eval.json")), stored);
    assert_eq!((&stored["hook"], &stored["rows"]), (&json!("hook_layers.1"), &json!(101 + 101 + 51)));
    assert_eq!((&stored["d_in"], &stored["d_sae"], &stored["k"]), (&json!(WIDTH), &json!(96), &json!(12)));
    assert!(stored["cross_entropy"].is_null() && stored["misaligned"] == json!(false));

    // the definitions, written out
    let rows = floats(&resid(&at.join("held"), "hook_layers.1").2);
    let codes = sae.encode(&rows).expect("rows of the store");
    let decoded = sae.reconstruct(&rows, &codes).expect("they were encoded");
    let count = rows.len() / WIDTH;
    let (mut error, mut spread) = (0.0, 0.0);
    for column in 0..WIDTH {
        let of = |values: &[f32]| -> Vec<f64> {
            values.iter().skip(column).step_by(WIDTH).map(|&v| f64::from(v)).collect()
        };
        let (x, xhat) = (of(&rows), of(&decoded));
        let mean = x.iter().sum::<f64>() / count as f64;
        spread += x.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        error += x.iter().zip(&xhat).map(|(v, w)| (v - w).powi(2)).sum::<f64>();
    }
    let near = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-9, "{found} is not {wanted}");
    near(number(&stored["fvu"]), error / spread);
    near(number(&stored["explained_variance"]), 1.0 - error / spread);
    assert!(number(&stored["fvu"]) < 0.9, "it was trained: {stored}");
    near(number(&stored["l0"]), codes.active() as f64 / count as f64);
    let silent =
        (0..96u32).filter(|f| !codes.indices.iter().zip(&codes.values).any(|(i, v)| i == f && *v > 0.0));
    near(number(&stored["dead"]), silent.count() as f64 / 96.0);
    assert_eq!(stored["decoder_norms"]["unit"], true, "{stored}");

    let heard = run(at, "sae eval --sae sae --model MODEL held.wav --window 2 --json").ok().json();
    for name in ["fvu", "explained_variance", "l0", "dead"] {
        let (a, b) = (number(&stored[name]), number(&heard[name]));
        assert!((a - b).abs() < 1e-9, "{name}: {a} stored, {b} heard");
    }
    let cost = &heard["cross_entropy"];
    let [clean, spliced, zeroed] = ["clean", "spliced", "zeroed"].map(|name| number(&cost[name]));
    // at this random model zeros predict better than the rows do: there is nothing to recover
    assert!(zeroed <= clean && spliced > 0.0, "{cost}");
    assert!(cost["recovered"].is_null(), "{cost}");
    assert_eq!(cost["codes"], 4 * (100 + 100 + 50) - 3 * 6);
    // what cannot be read is left out, and said
    std::fs::write(at.join("empty.mp3"), b"").expect("a new file");
    for line in ["sae eval", "sae align --ce none"] {
        let some = format!("{line} --sae sae --model MODEL empty.mp3 held.wav --window 2 --json");
        let some = run(at, &some).exits(1, &["1 of the inputs failed", "empty.mp3"]).json();
        assert_eq!(some["failed"][0]["audio_path"], "empty.mp3");
        let score = if some["fvu"].is_null() { &some["settings"][0]["sites"][2] } else { &some };
        assert_eq!(score["fvu"], heard["fvu"], "{line}");
    }
    // one clip alone
    let first = run(at, "sae eval --sae sae --store held --limit 1 --json").ok().json();
    assert_eq!(first["rows"], 101);
    let text = run(at, "sae eval --sae sae --model MODEL held.wav --window 2").ok().stdout;
    for part in
        ["253 rows of hook_layers.1", "FVU          0.", "features active a row", "nats a code", "recovered"]
    {
        assert!(text.contains(part), "expected `{part}` in\n{text}");
    }
}

fn duplicates_and_lengths_of_directions_are_told() {
    let dir = folder();
    let at = dir.path();
    let sae = prepared(at);
    let mut parts = sae.parts();
    let copy: Vec<f32> = parts.w_dec[3 * WIDTH..][..WIDTH].iter().map(|v| -2.5 * v).collect();
    parts.w_dec[70 * WIDTH..][..WIDTH].copy_from_slice(&copy);
    let twice = Sae::new(parts, sae.k(), sae.hook().map(String::from)).expect("the parts fit together");
    twice.save(&at.join("twice")).expect("it can be written");
    let eval = |rest: &str| run(at, &format!("sae eval --sae twice --store held {rest}")).ok();
    let result = eval("--duplicates 0.999 --json").json();
    let found = &result["duplicates"];
    assert_eq!((&found["pairs"], &found["features"]), (&json!(1), &json!(2)), "{found}");
    assert_eq!((&found["top"][0][0], &found["top"][0][1]), (&json!(3), &json!(70)));
    assert!((number(&found["top"][0][2]) + 1.0).abs() < 1e-5, "opposite: {found}");
    assert_eq!(result["decoder_norms"]["unit"], false);
    assert!((number(&result["decoder_norms"]["max"]) - 2.5).abs() < 1e-4, "{result}");
    let text = eval("--duplicates 0.999").stdout;
    for part in
        ["1 pairs of 2 features with a cosine beyond 0.999", "3 and 70: -1.0000", "not of unit length"]
    {
        assert!(text.contains(part), "expected `{part}` in\n{text}");
    }
    // a feature that writes nothing has no length to be wrong
    let mut parts = sae.parts();
    parts.w_dec[70 * WIDTH..][..WIDTH].fill(0.0);
    let idle = Sae::new(parts, sae.k(), sae.hook().map(String::from)).expect("the parts fit together");
    idle.save(&at.join("idle")).expect("it can be written");
    let idle = run(at, "sae eval --sae idle --store held --json").ok().json();
    assert_eq!((&idle["decoder_norms"]["unit"], number(&idle["decoder_norms"]["min"])), (&json!(true), 0.0));
    let all = eval("--duplicates 0 --pairs 2 --json").json();
    assert_eq!(all["duplicates"]["pairs"], 96 * 95 / 2);
    assert_eq!(all["duplicates"]["top"].as_array().map(Vec::len), Some(2));
}

fn rows_of_another_hook_are_refused() {
    let dir = folder();
    let at = dir.path();
    let sae = prepared(at);
    let other = "sae eval --sae sae --store held --hook hook_layers.0";
    run(at, other).exits(4, &["`hook_name` is hook_layers.1, expected layers.0.resid_post"]);
    let allowed = run(at, &format!("{other} --allow-misaligned --json")).ok().json();
    assert!(allowed["misaligned"].as_str().expect("the reason").contains("hook_layers.1"), "{allowed}");
    let own = run(at, "sae eval --sae sae --store held --json").ok().json();
    assert!(number(&allowed["fvu"]) > number(&own["fvu"]), "{} there, {} here", allowed["fvu"], own["fvu"]);
    run(at, "sae eval --sae sae --model MODEL held.wav --hook embed").exits(4, &["expected embed"]);
    renamed(&sae, None).save(&at.join("unnamed")).expect("it can be written");
    run(at, "sae eval --sae unnamed --model MODEL held.wav").exits(2, &["--hook is not given"]);
    run(at, "sae eval --sae unnamed --store held")
        .exits(2, &["--hook is not given", "hook_layers.0, hook_layers.1"]);
    let narrow = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sae/published");
    let narrow = narrow.display();
    run(at, &format!("sae eval --sae {narrow} --store held --hook hook_layers.1"))
        .exits(4, &["`d_in` is 24, expected 128"]);
    let parts = SaeParts {
        w_enc: vec![0.1; WIDTH],
        b_enc: vec![0.0],
        w_dec: vec![0.1; WIDTH],
        b_dec: vec![0.0; WIDTH],
    };
    Sae::new(parts, Some(1), Some("hook_layers.9".into()))
        .expect("they fit")
        .save(&at.join("far"))
        .expect("it can be written");
    run(at, "sae eval --sae far --model MODEL held.wav")
        .exits(2, &["`hook_layers.9` does not exist", "0..=2"]);
}

fn wrong_options_are_named() {
    let dir = folder();
    let at = dir.path();
    prepared(at);
    let eval = |rest: &str| run(at, &format!("sae eval --sae sae {rest}"));
    eval("").exits(2, &["--store", "--model"]);
    eval("--store held --model MODEL").exits(2, &["cannot be used with"]);
    eval("--store held held.wav").exits(2, &["AUDIO is given beside --store"]);
    eval("--model MODEL").exits(2, &["AUDIO is empty"]);
    eval("--store held --limit 0").exits(2, &["--limit is 0"]);
    eval("--store held --duplicates 1.5").exits(2, &["`threshold` is 1.5, expected 0 to 1"]);
    eval("--store none").exits(3, &["none"]);
}
