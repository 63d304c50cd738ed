//! `sae align`: autoencoders are named by where they were trained, and refused under any other name.

use crate::support::{folder, json_file, music, run};
use crate::trained::{renamed, train, trained};
use auscult_model::init::{InitOptions, Preset, init_checkpoint};
use auscult_model::sae::{Sae, SaeParts};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Mutex;

crate::trials!(
    ten_of_ten_are_named_among_all_layers,
    settings_are_compared,
    what_reconstructions_cost_is_told,
    misfits_have_clear_messages,
    captures_look_first,
    wrong_options_are_named,
);

const LAYERS: usize = 10;
const WIDTH: usize = 128;

/// A tiny checkpoint of ten layers.
fn deep_model(dir: &Path) {
    let mut config = Preset::Tiny.config();
    config.decoder.num_hidden_layers = LAYERS;
    init_checkpoint(&config, InitOptions { seed: 11, ..InitOptions::default() }, dir, &mut |_, _| {})
        .expect("it can be written");
}

fn fvu(result: &Value, site: &str) -> f64 {
    let sites = result["settings"][0]["sites"].as_array().expect("a list");
    let score = sites.iter().find(|score| score["site"] == site).expect("the site is scored");
    score["fvu"].as_f64().expect("a number")
}

fn ten_of_ten_are_named_among_all_layers() {
    let dir = folder();
    let at = dir.path();
    deep_model(&at.join("deep"));
    music(&at.join("train.wav"), 24.0, 32_000, 5);
    music(&at.join("held.wav"), 6.0, 32_000, 6);
    let hooks = (0..LAYERS).map(|layer| layer.to_string()).collect::<Vec<_>>().join(",");
    run(at, &format!("capture train.wav --model deep --window 2 --hooks hook_layers.{{{hooks}}} --out s"))
        .ok();
    // ten of them, from one pass over the store
    train(at, &format!("--hooks hook_layers.{{{hooks}}} --seed 7"), "trained");
    let named = Mutex::new(Vec::new());
    let one = |layer: usize| {
        let own = format!("hook_layers.{layer}");
        let sae = Sae::open(&at.join("trained").join(&own)).expect("it was written");
        assert_eq!(sae.hook(), Some(own.as_str()));
        let align = |sae: &str| {
            format!("sae align --model deep --sae {sae} held.wav --window 2 --ce none --threads 1")
        };
        let result = run(at, &format!("{} --json", align(&format!("trained/{own}")))).ok().json();
        let site = format!("layers.{layer}.resid_post");
        assert_eq!(result["verdict"], json!({ "verdict": "fits" }), "{result}");
        assert_eq!(result["settings"][0]["sites"].as_array().map(Vec::len), Some(LAYERS + 1));
        assert!(fvu(&result, &site) < 0.9, "{result}");
        // under the name of every other layer, one after another, and of one that the model has not
        for other in (0..=LAYERS).filter(|other| *other != layer) {
            let wrong = format!("wrong-{layer}-{other}");
            let hook = format!("hook_layers.{other}");
            renamed(&sae, Some(&hook)).save(&at.join(&wrong)).expect("it can be written");
            let best = format!("the best is {own} (FVU");
            let refused =
                run(at, &align(&wrong)).exits(4, &[&wrong, &format!("the file says {hook} ("), &best]);
            match other {
                LAYERS => assert!(refused.stderr.contains("which this model has not"), "{refused}"),
                _ => assert!(refused.stderr.contains(&format!("says {hook} (FVU")), "{refused}"),
            }
            if other == layer + 1 {
                let hint = format!(
                    "paper layers count from 1 and `hook_layers.N` from 0 (`paper:{other}` is {own})"
                );
                assert!(refused.stderr.contains(&hint), "{refused}");
            }
            assert!(refused.stdout.contains("best: "), "the table is there all the same: {refused}");
        }
        named.lock().expect("no test panicked").push((layer, result["best"].as_str().map(String::from)));
    };
    std::thread::scope(|scope| {
        for half in [0, 1] {
            scope.spawn(move || (half..LAYERS).step_by(2).for_each(one));
        }
    });
    let mut named = named.into_inner().expect("no test panicked");
    named.sort();
    let wanted: Vec<_> =
        (0..LAYERS).map(|layer| (layer, Some(format!("layers.{layer}.resid_post")))).collect();
    assert_eq!(named, wanted, "ten out of ten");
}

/// An autoencoder of the shared model's layer 1, trained on 2 s windows, and audio that it did not see.
fn prepared(at: &Path, hook: Option<&str>) -> Sae {
    music(&at.join("train.wav"), 20.0, 32_000, 5);
    music(&at.join("held.wav"), 4.5, 32_000, 6);
    run(at, "capture train.wav --model MODEL --window 2 --hooks hook_layers.1 --out s").ok();
    trained(at, "--seed 3", "sae", hook)
}

fn settings_are_compared() {
    let dir = folder();
    let at = dir.path();
    let sae = prepared(at, Some("layers.2.resid_pre"));
    let align = "sae align --model MODEL --sae sae held.wav --ce none --json";
    // what layer 2 receives is what layer 1 leaves
    let usual = run(at, &format!("{align} --window 2")).ok().json();
    assert_eq!(
        (&usual["best"], &usual["verdict"]["verdict"]),
        (&json!("layers.1.resid_post"), &json!("fits"))
    );
    let site = &usual["settings"][0]["sites"][2];
    assert_eq!(site["also"], json!(["layers.2.resid_pre"]));
    assert_eq!(site["rows"], 101 + 101 + 26);
    // 4 windows in all, of one setting alone where none is asked for
    assert_eq!(usual["settings"].as_array().map(Vec::len), Some(1));
    let every = format!("{align} --windows 2,1 --posemb ALL --offsets -1,0,7 --limit 2");
    let every = run(at, &every).ok().json();
    let settings = every["settings"].as_array().expect("a list");
    assert_eq!(settings.len(), 2 * 3 * 3);
    let of = |posemb: &str, offset: i64, window: f64| {
        let is = |s: &&Value| {
            s["posemb"] == posemb && s["offset"] == offset && s["window"].as_f64() == Some(window)
        };
        settings.iter().find(is).expect("it was asked for")["sites"][2]["fvu"].as_f64().expect("a number")
    };
    let mut all: Vec<f64> =
        settings.iter().map(|s| s["sites"][2]["fvu"].as_f64().expect("a number")).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    assert!(all.len() >= 12, "settings differ: {all:?}");
    assert!(of("f32", 0, 2.0) < of("f32", 7, 2.0), "trained with positions from 0");
    assert_ne!(of("f32", 0, 2.0), of("f32", -1, 2.0));
    assert_ne!(of("f32", 0, 2.0), of("audiocraft-f16", 0, 2.0));
    // the length that it was trained with, where the file says
    let mut settings = sae.settings().clone();
    settings.metadata.other.insert("context_size".into(), json!(51));
    Sae::with_settings(sae.parts(), settings)
        .expect("the same")
        .save(&at.join("sized"))
        .expect("it can be written");
    let sized =
        run(at, "sae align --model MODEL --sae sized held.wav --ce none --json --limit 1").ok().json();
    assert_eq!(sized["settings"][0]["window"], 1.0);
    assert_eq!(sized["settings"][0]["posemb"], "f32");
    // only some sites, and the one that is named
    let some = run(at, &format!("{align} --window 2 --sites embed,layers.0.mlp_out")).ok().json();
    let sites: Vec<&Value> =
        some["settings"][0]["sites"].as_array().expect("a list").iter().map(|s| &s["site"]).collect();
    assert_eq!(sites, ["embed", "layers.0.mlp_out", "layers.1.resid_post"]);
}

fn what_reconstructions_cost_is_told() {
    let dir = folder();
    let at = dir.path();
    prepared(at, Some("hook_layers.1"));
    let align = "sae align --model MODEL --sae sae held.wav --window 2";
    let result = run(at, &format!("{align} --ce all --json")).ok().json();
    let sites = result["settings"][0]["sites"].as_array().expect("a list");
    let number = |cost: &Value, name: &str| cost[name].as_f64().expect("a number");
    for score in sites {
        let cost = &score["cross_entropy"];
        let [clean, spliced, zeroed] = ["clean", "spliced", "zeroed"].map(|name| number(cost, name));
        assert_eq!(cost["clean"], sites[0]["cross_entropy"]["clean"], "the model as it is");
        assert!(clean > 0.0 && spliced != clean && zeroed != clean, "{cost}");
        // where zeros cost nothing, as they may at a random model, there is nothing to recover
        let recovered = (zeroed > clean).then(|| (zeroed - spliced) / (zeroed - clean));
        let told = cost["recovered"].as_f64();
        assert_eq!(told.is_some(), recovered.is_some(), "{cost}");
        assert!((told.unwrap_or(0.0) - recovered.unwrap_or(0.0)).abs() < 1e-12, "{cost}");
        // 4 codebooks of 100, 100 and 25 frames, each a step behind the one before
        assert_eq!(cost["codes"], 4 * 225 - 3 * 6, "{cost}");
    }
    // at its own site it costs less than elsewhere
    let change = |score: &Value| {
        let cost = &score["cross_entropy"];
        (number(cost, "spliced") - number(cost, "clean")).abs()
    };
    assert!(change(&sites[2]) < change(&sites[0]), "{result}");
    let few = run(at, &format!("{align} --ce 1 --json")).ok().json();
    let costed = |score: &Value| !score["cross_entropy"].is_null();
    let sites = few["settings"][0]["sites"].as_array().expect("a list");
    assert_eq!(sites.iter().map(costed).collect::<Vec<_>>(), [false, false, true, false]);
    let text = run(at, align).ok().stdout;
    for part in [
        "the file says hook_layers.1",
        "layers.1.resid_post = layers.2.resid_pre",
        "embed = layers.0.resid_pre",
        " best named",
        "cross-entropy of the model as it is",
        "best: hook_layers.1 (FVU",
    ] {
        assert!(text.contains(part), "expected `{part}` in\n{text}");
    }
}

fn misfits_have_clear_messages() {
    let dir = folder();
    let at = dir.path();
    let sae = prepared(at, None);
    let align =
        |sae: &str| run(at, &format!("sae align --model MODEL --sae {sae} held.wav --window 2 --ce none"));
    let unnamed = align("sae").ok();
    assert!(
        unnamed.stdout.contains("the file names no hook") && unnamed.stdout.contains("best: hook_layers.1")
    );
    renamed(&sae, Some("blocks.1.hook_resid")).save(&at.join("foreign")).expect("it can be written");
    align("foreign")
        .exits(4, &["blocks.1.hook_resid, which is no site of this model", "the best is hook_layers.1"]);
    renamed(&sae, Some("layers.1.resid_pre")).save(&at.join("before")).expect("it can be written");
    align("before").exits(4, &["the best is hook_layers.1", "what layer 1 leaves, not what it receives"]);
    // a name that is right beside a number that is not
    let mut settings = sae.settings().clone();
    settings.metadata.hook = Some("hook_layers.1".into());
    settings.metadata.layer = Some(2);
    Sae::with_settings(sae.parts(), settings)
        .expect("the same")
        .save(&at.join("torn"))
        .expect("it can be written");
    align("torn").exits(4, &["`hook_layer` is 2, expected 1", "`paper:M` from 1"]);
    // another width
    let narrow = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sae/published");
    align(&narrow.display().to_string())
        .exits(4, &["`d_in` is 24, expected 128, the width at the stream of"]);
    // weights the wrong way round: square ones are read, and fit nowhere
    let square = trained(at, "--features 128", "square", Some("hook_layers.1"));
    align("square").ok();
    let parts = square.parts();
    let w_enc = (0..WIDTH * WIDTH).map(|i| parts.w_enc[i % WIDTH * WIDTH + i / WIDTH]).collect();
    let parts = SaeParts { w_enc, ..parts };
    let turned = Sae::new(parts, square.k(), Some("hook_layers.1".into())).expect("they fit together");
    turned.save(&at.join("turned")).expect("it can be written");
    align("turned").exits(4, &["turned: fits none of 4 sites", "weights the right way round"]);
    // others are not
    let cfg = at.join("sae/cfg.json");
    let text = fs::read_to_string(&cfg).expect("it is text");
    let swapped = text.replace("\"d_in\": 128", "\"d_in\": 96").replace("\"d_sae\": 96", "\"d_sae\": 128");
    fs::write(&cfg, swapped).expect("it can be written");
    align("sae").exits(3, &["W_enc [128, 96] (expected [96, 128])"]);
}

fn captures_look_first() {
    let dir = folder();
    let at = dir.path();
    let sae = prepared(at, Some("hook_layers.1"));
    let capture = |sae: &str, rest: &str| {
        run(at, &format!("capture held.wav --model MODEL --window 2 --sae {sae} --sae-only {rest}"))
    };
    let noted = |store: &str| json_file(&at.join(store).join("run.json"))["details"]["alignment"].clone();
    capture("sae", "--out own").ok();
    let own = noted("own");
    assert_eq!((&own[0]["sae"], &own[0]["look"]["verdict"]), (&json!("sae"), &json!("fits")), "{own}");
    assert_eq!(own[0]["look"]["best"]["site"], "layers.1.resid_post");
    // trained behind layer 1, and given behind layer 2: its file is right about the shape and wrong about the place
    renamed(&sae, Some("hook_layers.2")).save(&at.join("late")).expect("it can be written");
    let parts =
        ["late at layers.2.resid_post: it is used at hook_layers.2 (FVU", "the best is hook_layers.1 (FVU"];
    capture("late", "--out wrong")
        .exits(4, &[&parts[..], &["paper layers count from 1", "--allow-misaligned"]].concat());
    // the model has no layer behind its last, whose name counts from 1
    renamed(&sae, Some("hook_layers.3")).save(&at.join("none")).expect("it can be written");
    capture("none", "--out wrong").exits(
        4,
        &[
            "none: was trained at a hook that this model has not",
            "`hook_layers.3`",
            "counts layers from 0",
            "HOOK=none",
        ],
    );
    // one that is wrong beside one that is right
    capture("sae --sae late", "--out wrong").exits(4, &parts);
    assert!(!at.join("wrong").exists(), "nothing is written before all is in order");
    let allowed = capture("sae --sae late", "--allow-misaligned --out wrong").ok();
    assert!(allowed.stderr.contains("misaligned: late at layers.2.resid_post"), "{allowed}");
    let wrong = noted("wrong");
    assert_eq!(
        (&wrong[0]["look"]["verdict"], &wrong[1]["look"]["verdict"]),
        (&json!("fits"), &json!("elsewhere"))
    );
    assert!(wrong[1]["look"]["message"].as_str().is_some_and(|why| why.contains(parts[1])), "{wrong}");
    // a site by the name of another
    let next = "hook_layers.2=sae --hooks hook_layers.{1,2}";
    capture(next, "--out x").exits(4, &["`hook_name` is hook_layers.1, expected layers.2.resid_post"]);
    // a text goes along: a random model under it shows rows that the autoencoder has never seen
    capture("sae", "--text strings --out x").exits(4, &["sae at layers.1.resid_post: fits none of 4 sites"]);
    // audio that cannot be read is the capture's to tell
    run(at, "capture none.wav --model MODEL --sae sae --out x").exits(3, &["none.wav"]);
    assert!(!at.join("x").exists());
}

fn wrong_options_are_named() {
    let dir = folder();
    let at = dir.path();
    let ones = |n: usize| vec![1.0; n];
    let parts = SaeParts { w_enc: ones(WIDTH), b_enc: ones(1), w_dec: ones(WIDTH), b_dec: ones(WIDTH) };
    let sae = Sae::new(parts, Some(1), None).expect("the parts fit together");
    sae.save(&at.join("sae")).expect("it can be written");
    let align = |rest: &str| run(at, &format!("sae align --model MODEL --sae sae {rest}"));
    align("").exits(2, &["AUDIO is empty", "--manifest with --audio-root"]);
    align("FIX/flac_s16.flac --manifest m --audio-root .").exits(2, &["cannot be used with"]);
    align("FIX/flac_s16.flac --window 0").exits(2, &["`--window` is 0 s"]);
    align("FIX/flac_s16.flac --window 1 --windows 1,2").exits(2, &["cannot be used with"]);
    align("FIX/flac_s16.flac --limit 0").exits(2, &["`--limit` is 0"]);
    align("FIX/flac_s16.flac --posemb f64").exits(2, &["--posemb: `f64` is no way", "or ALL"]);
    align("FIX/flac_s16.flac --ce some").exits(2, &["`some` is no number of sites"]);
    align("FIX/flac_s16.flac --sites layers.9.mlp_out").exits(2, &["expected a layer in 0..=2"]);
    align("FIX/flac_s16.flac --sites logits").exits(4, &["`d_in` is 128, expected 256, the width at logits"]);
    align("none.wav").exits(3, &["none.wav"]);
    run(at, "sae align --model none --sae sae FIX/flac_s16.flac").exits(3, &["none"]);
    run(at, "sae align --model MODEL --sae none FIX/flac_s16.flac").exits(3, &["none", "does not exist"]);
}
