//! `capture --sae`: features of the rows that a store holds or would hold, what is known of them, and what is refused.

use crate::support::{check_sums, floats, folder, index, json_file, names, resid, run, tensor, tree};
use auscult_model::sae::{Activation, Sae, SaeParts, Settings, SparseRows};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

crate::trials!(
    features_are_those_of_the_rows_beside_them,
    features_alone_are_the_same,
    features_by_products_in_bf16_are_those_of_the_rows,
    hooks_come_from_the_files_or_the_options,
    misfits_are_refused_or_recorded,
    options_that_cannot_be_are_refused,
    rows_are_given_the_places_they_need,
);

const WIDTH: usize = 128;
const FEATURES: usize = 300;

/// Writes an autoencoder of the tiny model's width.
pub fn write_sae(dir: &Path, hook: Option<&str>, activation: Activation) -> Sae {
    write_biased(dir, hook, activation, 0.0)
}

/// The same with a number added to every feature's bias.
fn write_biased(dir: &Path, hook: Option<&str>, activation: Activation, bias: f32) -> Sae {
    let mut state = 7u32;
    let mut noise = |n: usize, scale: f32| -> Vec<f32> {
        let mut value = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / 8_388_608.0 - 1.0) * scale
        };
        (0..n).map(|_| value()).collect()
    };
    let parts = SaeParts {
        w_enc: noise(WIDTH * FEATURES, 0.1),
        b_enc: noise(FEATURES, 0.1).into_iter().map(|b| b + bias).collect(),
        w_dec: noise(WIDTH * FEATURES, 0.1),
        b_dec: noise(WIDTH, 0.1),
    };
    let mut settings = Settings::new(activation);
    settings.metadata.hook = hook.map(String::from);
    let sae = Sae::with_settings(parts, settings).expect("they fit together");
    sae.save(dir).expect("it can be written");
    sae
}

/// The features of a store's first shard.
fn stored(store: &Path, hook: &str, name: &str) -> SparseRows {
    let file = store.join(hook).join(format!("00000.{name}.safetensors"));
    let (dtype, shape, indices) = tensor(&file, "indices");
    assert_eq!(dtype, "U16");
    let values = floats(&tensor(&file, "values").2);
    let indices = indices.chunks_exact(2).map(|b| u32::from(b[0]) + 256 * u32::from(b[1])).collect();
    SparseRows { k: shape[1], indices, values }
}

/// Holds features against those that the host makes of rows. Features of a row that are as strong to rounding may have changed
/// places.
pub fn same_features(got: &SparseRows, want: &SparseRows) {
    same_features_within(1e-5, got, want);
}

/// The same with values that are off by such a share of themselves, or of 1.
fn same_features_within(share: f32, got: &SparseRows, want: &SparseRows) {
    assert_eq!((got.k, got.rows()), (want.k, want.rows()));
    for (row, (got, want)) in got.indices.chunks(got.k).zip(want.indices.chunks(want.k)).enumerate() {
        let [mut got, mut want] = [got, want].map(<[u32]>::to_vec);
        got.sort_unstable();
        want.sort_unstable();
        assert_eq!(got, want, "row {row}");
    }
    for (place, (got, want)) in got.values.iter().zip(&want.values).enumerate() {
        assert!((got - want).abs() <= share * want.abs().max(1.0), "place {place}: {got}, expected {want}");
    }
}

/// What the definitions say of features of rows, and how well they stand for them: `fvu`, `l0`, `dead`.
fn by_hand(sae: &Sae, rows: &[f32]) -> (f64, f64, usize) {
    let codes = sae.encode(rows).expect("finite rows");
    let decoded = sae.reconstruct(rows, &codes).expect("of these rows");
    let count = rows.len() / WIDTH;
    let mean =
        |c: usize| rows.iter().skip(c).step_by(WIDTH).map(|&v| f64::from(v)).sum::<f64>() / count as f64;
    let means: Vec<f64> = (0..WIDTH).map(mean).collect();
    let spread: f64 = rows.iter().enumerate().map(|(i, &v)| (f64::from(v) - means[i % WIDTH]).powi(2)).sum();
    let error: f64 = rows.iter().zip(&decoded).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum();
    let fired = |f: u32| codes.indices.iter().zip(&codes.values).any(|(&i, &v)| i == f && v > 0.0);
    let dead = (0..FEATURES as u32).filter(|&f| !fired(f)).count();
    (error / spread, codes.active() as f64 / count as f64, dead)
}

const AUDIO: &str = "capture FIX/flac_s16.flac FIX/mono_32k.mp3 --model MODEL --window 1";

/// Two that encode on the device and one that encodes on the host, at two hooks.
pub fn three(at: &Path) -> [(&'static str, &'static str, Sae); 3] {
    let threshold = (0..FEATURES).map(|f| 0.05 * (f % 7) as f32).collect();
    [
        ("early", "hook_layers.0", write_sae(&at.join("early"), Some("hook_layers.0"), Activation::TopK(9))),
        ("late", "hook_layers.1", write_sae(&at.join("late"), Some("hook_layers.1"), Activation::TopK(33))),
        (
            "jump",
            "hook_layers.1",
            write_sae(&at.join("jump"), Some("hook_layers.1"), Activation::JumpRelu { threshold }),
        ),
    ]
}

fn features_are_those_of_the_rows_beside_them() {
    let dir = folder();
    let at = dir.path();
    let saes = three(at);
    let line = format!(
        "{AUDIO} --hooks hook_layers.{{0,1}},embed --sae early --sae late --sae jump --allow-misaligned --out s --json"
    );
    let summary = run(at, &line).ok().json();
    let store = at.join("s");
    check_sums(&store);
    let report = run(at, "store verify s --json").ok().json();
    // 3 shards of rows, 3 of features, what is known of those, codes, store.json, index, run.json
    assert_eq!((&report["files"], &report["clips"]), (&json!(13), &json!(4)));
    let meta = json_file(&store.join("store.json"));
    let run_json = json_file(&store.join("run.json"));
    assert!(run_json["inputs"].as_array().is_some_and(|files| files.len() == 2 + 2 * 3), "{run_json}");
    assert_eq!(run_json["details"]["saes"], summary["saes"]);
    assert!(meta.get("sae_only").is_none());
    for (number, (name, hook, sae)) in saes.iter().enumerate() {
        let rows = floats(&resid(&store, hook).2);
        let got = stored(&store, hook, name);
        same_features(&got, &sae.encode(&rows).expect("finite rows"));

        let of_meta = &meta["saes"][number];
        assert_eq!((&of_meta["name"], &of_meta["hook"]), (&json!(name), &json!(hook)));
        assert_eq!(of_meta["k"], json!(sae.k()));
        assert_eq!((&of_meta["features"], &of_meta["width"]), (&json!(FEATURES), &json!(WIDTH)));
        let said = &summary["saes"][number];
        let (fvu, l0, dead) = by_hand(sae, &rows);
        let close = |value: &Value, want: f64| (value.as_f64().expect("a number") / want - 1.0).abs() < 1e-5;
        assert!(close(&said["fvu"], fvu) && close(&said["l0"], l0), "{said}, expected {fvu}, {l0}");
        assert!((said["explained_variance"].as_f64().expect("a number") - (1.0 - fvu)).abs() < 1e-5 * fvu);
        assert_eq!((&said["dead"], &said["rows"]), (&json!(dead), &json!(rows.len() / WIDTH)));
        known_of_features(&store, hook, name, &got);
    }
    let text = run(at, "store info s").ok().stdout;
    assert!(text.contains("features  late of hook_layers.1 (topk, 33 of 300 a row)"), "{text}");
    assert!(text.contains("features  jump of hook_layers.1 (jumprelu, any number of 300 a row)"), "{text}");
    let exported = run(at, "store export s --npy --out npy --json").ok().json();
    assert_eq!(exported["files"], json!(4 * (3 + 2 * 3)));
}

/// Counts, means, maxima and their places, against the features themselves.
fn known_of_features(store: &Path, hook: &str, name: &str, features: &SparseRows) {
    let file = store.join(hook).join(format!("{name}.stats.safetensors"));
    let words = |what: &str| -> Vec<u32> {
        let bytes = tensor(&file, what).2;
        bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
    };
    let floats = |what: &str| floats(&tensor(&file, what).2);
    let (count, clip, position) = (words("count"), words("max_clip"), words("max_position"));
    let (mean, max) = (floats("mean"), floats("max"));
    let starts: Vec<u64> =
        index(store).iter().map(|row| row["row_start"].as_u64().expect("a number")).collect();
    for feature in 0..FEATURES as u32 {
        let fired: Vec<(usize, f32)> = (0..features.values.len())
            .filter(|&place| features.indices[place] == feature && features.values[place] > 0.0)
            .map(|place| (place / features.k, features.values[place]))
            .collect();
        let f = feature as usize;
        assert_eq!(count[f] as usize, fired.len(), "{name} {feature}");
        let Some(&first) = fired.first() else {
            assert_eq!((mean[f], max[f], clip[f], position[f]), (0.0, 0.0, 0, 0));
            continue;
        };
        let most = fired.iter().fold(first, |most, &one| if one.1 > most.1 { one } else { most });
        let sum: f64 = fired.iter().map(|&(_, value)| f64::from(value)).sum();
        assert!((f64::from(mean[f]) - sum / fired.len() as f64).abs() < 1e-6 * f64::from(most.1));
        assert_eq!(max[f], most.1);
        assert_eq!(starts[clip[f] as usize] + u64::from(position[f]), most.0 as u64, "{name} {feature}");
    }
}

/// With `--precision bf16` what encodes on the device multiplies in bf16; with f16, or none, in f32; `--sae-precision` says it apart:
/// the records say which.
fn features_by_products_in_bf16_are_those_of_the_rows() {
    let dir = folder();
    let at = dir.path();
    let [_, late, jump] = three(at);
    for (out, precision, of_late) in [
        ("bf16", "--precision bf16", "bf16"),
        ("f16", "--precision f16", "f32"),
        ("apart", "--precision bf16 --sae-precision f32", "f32"),
        ("narrow", "--precision f32 --sae-precision bf16", "bf16"),
    ] {
        let rest = format!("--sae late --sae jump --allow-misaligned {precision} --out {out}");
        run(at, &format!("{AUDIO} --hooks hook_layers.1 {rest}")).ok();
        let store = at.join(out);
        let rows = floats(&resid(&store, "hook_layers.1").2);
        let (meta, record) = (json_file(&store.join("store.json")), json_file(&store.join("run.json")));
        for (number, (name, hook, sae)) in [&late, &jump].into_iter().enumerate() {
            let said = if *name == "late" { of_late } else { "f32" };
            assert_eq!(meta["saes"][number]["precision"], said, "{name}");
            assert_eq!(record["details"]["sae_precision"][number], json!({ "sae": name, "precision": said }));
            let share = if said == "bf16" { 2e-2 } else { 1e-5 };
            let want = sae.encode(&rows).expect("finite rows");
            same_features_within(share, &stored(&store, hook, name), &want);
        }
        let text = run(at, &format!("store info {out}")).ok().stdout;
        let of_row = if of_late == "bf16" { "a row, by products in bf16)" } else { "a row)" };
        assert!(text.contains(&format!("late of hook_layers.1 (topk, 33 of 300 {of_row}")), "{text}");
    }
}

fn features_alone_are_the_same() {
    let dir = folder();
    let at = dir.path();
    three(at);
    let saes = "--sae early --sae late --sae jump --allow-misaligned";
    run(at, &format!("{AUDIO} --hooks hook_layers.{{0,1}} {saes} --out both")).ok();
    let alone = run(at, &format!("{AUDIO} {saes} --sae-only --out alone --json")).ok().json();
    let (both, only) = (tree(&at.join("both")), tree(&at.join("alone")));
    let dense = |name: &&String| name.starts_with("hook_layers") && name.ends_with("/00000.safetensors");
    assert_eq!(both.keys().filter(dense).count(), 2);
    assert_eq!(only.keys().filter(dense).count(), 0);
    for (name, bytes) in &only {
        if !["store.json", "run.json", "SHA256SUMS"].contains(&name.as_str()) {
            assert!(both[name] == *bytes, "{name} differs");
        }
    }
    assert_eq!(json_file(&at.join("both/run.json"))["details"]["saes"], alone["saes"]);
    assert_eq!(json_file(&at.join("alone/store.json"))["sae_only"], true);
    check_sums(&at.join("alone"));
    run(at, "store verify alone").ok();
    let text = run(at, "store info alone").ok().stdout;
    assert!(text.contains("hook_layers.1 = layers.1.resid_post [167 x 128] not stored"), "{text}");
    run(at, "sae encode --sae late --store alone --out y.safetensors")
        .exits(3, &["holds features alone, rows of `hook_layers.1`"]);
    // narrow types are what is stored, not what is encoded
    run(at, &format!("{AUDIO} {saes} --dtype f16 --out half")).ok();
    let half = tree(&at.join("half"));
    for (name, bytes) in only.iter().filter(|(name, _)| name.contains(".late.") || name.contains(".jump.")) {
        assert!(half[name] == *bytes, "{name} differs");
    }
}

fn hooks_come_from_the_files_or_the_options() {
    let dir = folder();
    let at = dir.path();
    write_sae(&at.join("sae"), Some("layers.1.resid_post"), Activation::TopK(4));
    fs::create_dir(at.join("more")).expect("a new folder");
    write_sae(&at.join("more/sae"), None, Activation::TopK(4));
    let hooks = |store: &str| {
        let meta = json_file(&at.join(store).join("store.json"));
        let of = |key: &str, field: &str| -> Vec<String> {
            let all = meta[key].as_array().expect("a list");
            all.iter().map(|one| one[field].as_str().expect("a name").to_string()).collect()
        };
        (of("sites", "hook"), of("saes", "hook"), of("saes", "name"))
    };
    let audio = "capture FIX/flac_s16.flac --model MODEL";
    // the same site under the name that --hooks has for it
    run(at, &format!("{audio} --hooks embed,paper:2 --sae sae --allow-misaligned --out a")).ok();
    let strings = |names: &[&str]| names.iter().map(|name| (*name).to_string()).collect::<Vec<_>>();
    assert_eq!(
        hooks("a"),
        (strings(&["embed", "hook_layers.1"]), strings(&["hook_layers.1"]), strings(&["sae"]))
    );
    assert_eq!(
        names(&at.join("a/hook_layers.1")),
        ["00000.sae.safetensors", "00000.safetensors", "sae.stats.safetensors"]
    );
    // one that names none reads the only hook, or the one it is given
    run(at, &format!("{audio} --hooks embed --sae more/sae --allow-misaligned --out b")).ok();
    assert_eq!(hooks("b").1, ["embed"]);
    run(at, &format!("{audio} --sae sae --sae embed=more/sae --allow-misaligned --out c")).ok();
    let (sites, of_saes, called) = hooks("c");
    assert_eq!(sites, ["layers.1.resid_post", "embed"]);
    assert_eq!((of_saes, called), (sites.clone(), strings(&["sae", "sae-2"])));
    run(at, &format!("{audio} --sae more/sae --out d"))
        .exits(2, &["more/sae", "name no hook", "--hooks or `--sae HOOK="]);
    run(at, &format!("{audio} --hooks embed,logits --sae more/sae --out d"))
        .exits(2, &["more/sae", "expected `--sae HOOK=more/sae` with one of embed, logits"]);
    assert!(!at.join("d").exists());
}

fn misfits_are_refused_or_recorded() {
    let dir = folder();
    let at = dir.path();
    let sae = write_sae(&at.join("sae"), Some("hook_layers.1"), Activation::TopK(4));
    let audio = "capture FIX/flac_s16.flac --model MODEL --out s";
    // counted from 1 where names count from 0
    run(at, &format!("{audio} --hooks paper:1 --sae sae")).exits(
        4,
        &["sae: was trained at `hook_layers.1`", "expected one of hook_layers.0", "`paper:M` from 1"],
    );
    let misfit = ["`hook_name` is hook_layers.1, expected layers.2.resid_post", "--allow-misaligned"];
    run(at, &format!("{audio} --sae hook_layers.2=sae")).exits(4, &misfit);
    run(at, &format!("{audio} --hooks hook_layers.{{1,2}} --sae hook_layers.2=sae")).exits(4, &misfit);
    run(at, &format!("{audio} --hooks hook_layers.1 --sae hook_layers.2=sae --allow-misaligned"))
        .exits(2, &["`hook_layers.2` is not among --hooks, expected one of hook_layers.1"]);
    // no option makes rows of another width fit
    run(at, &format!("{audio} --sae logits=sae --allow-misaligned"))
        .exits(4, &["`d_in` is 128, expected 256, the width at logits"]);
    write_sae(&at.join("deep"), Some("hook_layers.7"), Activation::TopK(4));
    run(at, &format!("{audio} --sae deep"))
        .exits(4, &["deep: was trained at a hook that this model has not", "hook_layers.7"]);
    write_sae(&at.join("other"), Some("blocks.3.hook_mlp_out"), Activation::TopK(4));
    run(at, &format!("{audio} --hooks embed --sae other"))
        .exits(4, &["other: its hook is not one of MusicGen", "blocks.3.hook_mlp_out", "--sae HOOK=other"]);
    assert!(!at.join("s").exists(), "nothing is written before all is in order");

    run(at, &format!("{audio} --hooks hook_layers.2 --sae hook_layers.2=sae --allow-misaligned")).ok();
    let rows = floats(&resid(&at.join("s"), "hook_layers.2").2);
    same_features(&stored(&at.join("s"), "hook_layers.2", "sae"), &sae.encode(&rows).expect("finite rows"));
    let record = json_file(&at.join("s/run.json"));
    let misaligned =
        json!([{ "sae": "sae", "hook_name": "hook_layers.1", "used_at": "layers.2.resid_post" }]);
    assert_eq!(record["details"]["misaligned"], misaligned);
}

fn options_that_cannot_be_are_refused() {
    let dir = folder();
    let at = dir.path();
    let audio = "capture FIX/flac_s16.flac --model MODEL --out s";
    run(at, audio).exits(2, &["--hooks"]);
    run(at, &format!("{audio} --hooks embed --sae-only")).exits(2, &["--sae"]);
    run(at, &format!("{audio} --hooks embed --sae nowhere")).exits(3, &["nowhere", "does not exist"]);
    run(at, &format!("{audio} --hooks embed --sae layer.3=nowhere"))
        .exits(2, &["site `layer.3` does not exist"]);
    assert!(names(at).is_empty(), "{:?}", names(at));
}

/// All features but a few are active in a row, which are more than a row has places for at first.
fn rows_are_given_the_places_they_need() {
    let dir = folder();
    let at = dir.path();
    let wide = write_biased(&at.join("wide"), Some("blocks.1.hook_resid_post"), Activation::Relu, 40.0);
    let late = write_sae(&at.join("late"), Some("hook_layers.1"), Activation::TopK(33));
    let line =
        format!("{AUDIO} --hooks hook_layers.1 --sae wide --sae late --allow-misaligned --out s --json");
    let summary = run(at, &line).ok().json();
    run(at, "store verify s").ok();
    let rows = floats(&resid(&at.join("s"), "hook_layers.1").2);
    for (number, (name, sae)) in [("wide", &wide), ("late", &late)].into_iter().enumerate() {
        let want = sae.encode(&rows).expect("finite rows");
        assert!(name == "late" || want.k > 256, "{} places", want.k);
        same_features(&stored(&at.join("s"), "hook_layers.1", name), &want);
        let (fvu, ..) = by_hand(sae, &rows);
        let found = summary["saes"][number]["fvu"].as_f64().expect("a number");
        assert!((found / fvu - 1.0).abs() < 1e-5, "{name}: {found}, expected {fvu}");
    }
    let info = run(at, "sae info wide --json").ok().json();
    assert_eq!(info["site"], "layers.1.resid_post");
}

/// The same on an adapter; run where there is one.
pub fn features_of_an_adapter_are_those_of_its_rows() {
    let dir = folder();
    let at = dir.path();
    let saes = three(at);
    let line = "--device wgpu capture FIX/flac_s16.flac --model MODEL --window 0.5 --sae early --sae late --sae jump --allow-misaligned --out s";
    run(at, line).ok();
    run(at, "store verify s").ok();
    for (name, hook, sae) in &saes {
        let rows = floats(&resid(&at.join("s"), hook).2);
        same_features(&stored(&at.join("s"), hook, name), &sae.encode(&rows).expect("finite rows"));
        let run_json = json_file(&at.join("s/run.json"));
        let said =
            run_json["details"]["saes"].as_array().expect("a list").iter().find(|one| one["sae"] == *name);
        let (fvu, ..) = by_hand(sae, &rows);
        let found = said.and_then(|one| one["fvu"].as_f64()).expect("a number");
        assert!((found / fvu - 1.0).abs() < 1e-5, "{name}: {found}, expected {fvu}");
    }
}
