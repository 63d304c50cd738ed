//! `sae train`: what it writes, from every source; what it says when it is stopped or asked for the impossible.

use crate::support::{fixture, floats, folder, interrupted, json_file, names, resid, run, start};
use auscult_analysis::store::npy_header;
use auscult_model::sae::train::Checkpoint;
use auscult_model::sae::{Activation, Sae};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

crate::trials!(
    every_mode_writes_an_autoencoder,
    a_store_and_the_model_at_work_give_the_same,
    positions_of_the_rows_are_kept_and_told,
    a_manifest_gives_the_same_as_its_files,
    bad_audio_is_left_out_and_listed,
    a_stopped_run_goes_on_to_the_same,
    checkpoints_of_several_sites_are_a_set,
    a_run_is_not_taken_up_with_other_audio,
    impossible_runs_are_named,
    resuming_holds_at_both_ends,
    two_runs_do_not_write_one_directory,
);

/// Rows of text states' shape: 300 of 768 values, sums of two of 20 directions.
fn write_rows(file: &Path, seed: u32) {
    let (rows, width) = (300, 768);
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0
    };
    let directions: Vec<f32> = (0..20 * width).map(|_| 2.0 * next() - 1.0).collect();
    let mut values = vec![0.0_f32; rows * width];
    for row in values.chunks_exact_mut(width) {
        for _ in 0..2 {
            let (at, scale) = ((20.0 * next()) as usize, 0.1 + 0.1 * next());
            let direction = &directions[at * width..][..width];
            row.iter_mut().zip(direction).for_each(|(v, d)| *v += scale * d);
        }
    }
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    fs::write(file, [npy_header("<f4", &[rows, width]), bytes].concat()).expect("it can be written");
}

fn log(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("log.jsonl")).expect("a run has a log");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn every_mode_writes_an_autoencoder() {
    let dir = folder();
    let at = dir.path();
    write_rows(&at.join("t5.npy"), 7);
    for (mode, active) in [("saelens-5.3.2", 4), ("topk", 4), ("batchtopk", 0), ("jumprelu", 0), ("relu", 0)]
    {
        let line = format!(
            "sae train --input t5.npy --mode {mode} --features 64 --k 4 --batch 64 --steps 150 --lr 0.003 --l1 0.01 --log-every 10 \
             --out {mode} --json"
        );
        // what a mode has no use for is told of, and not recorded
        let done = run(at, &line).ok();
        let noted = |name: &str| done.stderr.contains(&format!("{name} has no effect with --mode {mode}"));
        let unused = ["--l1", "--k"].map(noted);
        assert_eq!(unused, [["topk", "batchtopk"], ["jumprelu", "relu"]].map(|modes| modes.contains(&mode)));
        let said = done.json();
        let found = &said["autoencoders"][0];
        assert_eq!((found["mode"].as_str(), found["steps"].as_u64()), (Some(mode), Some(150)));
        let out = at.join(mode);
        let files = [
            "cfg.json",
            "log.jsonl",
            "run.json",
            "sae_weights.safetensors",
            "sparsity.safetensors",
            "training.svg",
        ];
        assert_eq!(names(&out), files);
        let lines = log(&out);
        assert_eq!(lines.len(), 16, "every tenth step and the last");
        let of = |line: &Value, name: &str| line[name].as_f64().expect("a number");
        assert!(of(&lines[15], "loss") < 0.7 * of(&lines[0], "loss"), "{mode}: {:?}", lines[15]);
        assert!(of(&lines[15], "fvu") < 0.7 * of(&lines[0], "fvu"), "{mode}: {:?}", lines[15]);
        assert_eq!(&lines[15], &found["last"]);
        let sae = Sae::open(&out).expect("what was written can be read");
        assert_eq!((sae.width(), sae.features()), (768, 64));
        assert_eq!(sae.k(), (active > 0).then_some(active));
        assert_eq!(matches!(sae.settings().activation, Activation::Relu), mode == "relu");
        assert!(sae.decoder_norms().iter().all(|n| (n - 1.0).abs() < 1e-5));
        assert_eq!(sae.read_sparsity(&out).expect("it can be read").map(|s| s.len()), Some(64));
        let record = json_file(&out.join("run.json"));
        assert_eq!(record["seed"], 42);
        assert_eq!(record["details"]["training"]["mode"], mode);
        let has_k = !matches!(mode, "jumprelu" | "relu");
        assert_eq!(record["details"]["training"]["k"] == 4, has_k, "{mode}");
        assert_eq!(record["details"]["training"]["l1"], if unused[0] { 0.0 } else { 0.01 });
        assert_eq!(json_file(&out.join("cfg.json"))["metadata"]["training"]["lr"], 0.003);
        let info = run(at, &format!("sae info {mode} --json")).ok().json();
        assert_eq!(info["d_sae"], 64);
    }
}

/// Two places of the tiny model, from a store and from the model itself: the same rows, so the same autoencoders.
fn a_store_and_the_model_at_work_give_the_same() {
    let dir = folder();
    let at = dir.path();
    let audio = "FIX/flac_s16.flac FIX/mono_32k.mp3 --window 1 --hooks hook_layers.{0,1}";
    run(at, &format!("capture {audio} --model MODEL --out s")).ok();
    let rows = floats(&resid(&at.join("s"), "hook_layers.1").2);
    let train = "--features 256 --k 8 --batch 32 --steps 60 --lr 0.003 --log-every 20 --json";
    run(at, &format!("sae train --store s --hooks hook_layers.{{0,1}} {train} --out stored")).ok();
    run(at, &format!("sae train --model MODEL {audio} {train} --out heard")).ok();
    for hook in ["hook_layers.0", "hook_layers.1"] {
        let [stored, heard] = ["stored", "heard"].map(|out| {
            let dir = at.join(out).join(hook);
            (log(&dir), Sae::open(&dir).expect("it can be read"))
        });
        assert_eq!(stored.0, heard.0);
        assert!(stored.1.parts() == heard.1.parts(), "{hook}: the weights differ");
        assert_eq!(stored.1.hook(), Some(hook));
        for sae in [&stored.1, &heard.1] {
            assert_eq!(sae.settings().metadata.other["context_size"], 51, "{hook}: clips of a second");
            assert_eq!(sae.settings().metadata.other["posemb"], "f32", "{hook}");
        }
        assert!(stored.1.settings().metadata.model.is_some() && stored.1.settings().metadata.layer.is_some());
        let line = format!("sae encode --sae stored/{hook} --store s --out {hook}.safetensors");
        run(at, &line).ok();
    }
    let sae = Sae::open(&at.join("stored/hook_layers.1")).expect("it can be read");
    assert!(sae.encode(&rows).expect("rows of its width").active() > rows.len() / 128);
    // one site is named by the store itself, and lies in the directory
    run(at, &format!("capture {} --model MODEL --out one", audio.replace("{0,1}", "1"))).ok();
    run(at, &format!("sae train --store one {train} --out alone")).ok();
    let alone = Sae::open(&at.join("alone")).expect("it can be read");
    assert!(alone.parts() == sae.parts());
}

/// The autoencoder says how positions were computed; that is how it is scored, and rows with others are told of.
fn positions_of_the_rows_are_kept_and_told() {
    let dir = folder();
    let at = dir.path();
    let audio = "FIX/flac_s16.flac --model MODEL";
    let train = "--features 64 --k 4 --batch 32 --steps 20 --lr 0.003";
    let rows = "--hooks hook_layers.1 --posemb audiocraft-f16 --window 1";
    run(at, &format!("sae train {audio} {rows} {train} --out heard")).ok();
    run(at, &format!("capture {audio} {rows} --out s")).ok();
    run(at, &format!("sae train --store s {train} --out stored")).ok();
    for out in ["heard", "stored"] {
        assert_eq!(
            json_file(&at.join(out).join("cfg.json"))["metadata"]["posemb"],
            "audiocraft-f16",
            "{out}"
        );
    }
    let aligned = run(at, &format!("sae align {audio} --sae heard --ce none --json --limit 1"));
    assert_eq!(aligned.json()["settings"][0]["posemb"], "audiocraft-f16");
    let [live, stored] = [audio, "--store s"].map(|rows| {
        let done = run(at, &format!("sae eval {rows} --sae heard --json")).ok();
        assert!(!done.stderr.contains("positions"), "{}", done.stderr);
        done.json()
    });
    assert_eq!([&live["posemb"], &live["fvu"]], [&stored["posemb"], &stored["fvu"]]);
    // other positions
    let note = "heard: was trained with positions audiocraft-f16, those of these rows are f32";
    let capture = format!("capture {audio} --window 1 --sae heard --allow-misaligned --out other");
    assert!(run(at, &capture).ok().stderr.contains(note));
    for line in ["sae eval --store other --sae heard", "sae encode --store other --sae heard --out codes"] {
        assert!(run(at, line).ok().stderr.contains(note), "{line}");
    }
}

/// Two runs left the same log and the same weights.
fn same(at: &Path, one: &str, other: &str) {
    let [one, other] = [one, other].map(|out| {
        let dir = at.join(out);
        (log(&dir), Sae::open(&dir).expect("it can be read").parts())
    });
    assert_eq!(one.0, other.0);
    assert!(one.1 == other.1, "the weights differ");
}

/// Settings of short runs over audio of the tiny model.
const SHORT: &str = "--model MODEL --window 0.5 --hooks hook_layers.1 --features 256 --k 8 --batch 32 --steps 30 --log-every 10";

fn a_manifest_gives_the_same_as_its_files() {
    let dir = folder();
    let at = dir.path();
    fs::create_dir(at.join("audio")).expect("a new folder");
    for name in ["flac_s16.flac", "mono_32k.mp3"] {
        fs::copy(fixture(name), at.join("audio").join(name)).expect("the fixture");
    }
    let rows = [
        r#"{"track_id":"a","audio_path":"flac_s16.flac"}"#,
        r#"{"track_id":"b","audio_path":"mono_32k.mp3","duration_seconds":2}"#,
    ];
    let manifest = rows.join("\n");
    fs::write(at.join("m.jsonl"), &manifest).expect("a new file");
    let listed = "sae train --manifest m.jsonl --audio-root audio";
    run(at, &format!("{listed} {SHORT} --out listed")).ok();
    run(at, &format!("sae train audio/flac_s16.flac audio/mono_32k.mp3 {SHORT} --out named")).ok();
    same(at, "listed", "named");
    let files = |out: &str| -> Vec<Value> {
        let record = json_file(&at.join(out).join("run.json"));
        record["inputs"].as_array().expect("a list").iter().map(|file| file["path"].clone()).collect()
    };
    assert_eq!(files("listed"), ["m.jsonl", "flac_s16.flac", "mono_32k.mp3"]);
    assert_eq!(files("named"), ["audio/flac_s16.flac", "audio/mono_32k.mp3"]);

    // a part of a file, and a file that is not the promised one
    let part = r#"{"track_id":"a","audio_path":"flac_s16.flac","start":0,"duration":0.5}"#;
    fs::write(at.join("part.jsonl"), part).expect("a new file");
    run(at, &format!("sae train --manifest part.jsonl --audio-root audio {SHORT} --out part")).ok();
    assert_ne!(log(&at.join("part")), log(&at.join("listed")));
    let wrong = "0".repeat(64);
    let other = format!(r#"{{"track_id":"a","audio_path":"flac_s16.flac","sha256":"{wrong}"}}"#);
    fs::write(at.join("other.jsonl"), other).expect("a new file");
    run(at, &format!("sae train --manifest other.jsonl --audio-root audio {SHORT} --out other"))
        .exits(4, &["flac_s16.flac", &wrong, "the manifest"]);
    assert!(!at.join("other").exists());
    run(at, &format!("{listed} x.wav {SHORT} --out o")).exits(2, &["cannot be used with"]);
}

fn bad_audio_is_left_out_and_listed() {
    let dir = folder();
    let at = dir.path();
    fs::write(at.join("empty.mp3"), b"").expect("a new file");
    let line = format!("sae train empty.mp3 FIX/flac_s16.flac absent.ogg FIX/mono_32k.mp3 {SHORT}");
    let ran = run(at, &format!("{line} --json --out some")).exits(
        1,
        &[
            "left out: empty.mp3: ",
            "left out: absent.ogg: ",
            "2 of the inputs failed",
            "empty.mp3",
            "absent.ogg",
        ],
    );
    let said = ran.json();
    assert_eq!(said["autoencoders"][0]["steps"], 30);
    let failed: Vec<&Value> =
        said["failed"].as_array().expect("a list").iter().map(|failure| &failure["audio_path"]).collect();
    assert_eq!(failed, ["empty.mp3", "absent.ogg"]);
    assert_eq!(json_file(&at.join("some/run.json"))["details"]["failed"], said["failed"]);
    run(at, &format!("sae train FIX/flac_s16.flac FIX/mono_32k.mp3 {SHORT} --out good")).ok();
    same(at, "some", "good");
    let quiet = run(at, &format!("{line} --quiet --out quiet"));
    quiet.exits(1, &["2 of the inputs failed", "empty.mp3", "absent.ogg"]);
    run(at, &format!("sae train empty.mp3 absent.ogg {SHORT} --out none"))
        .exits(3, &["none of 2 inputs gave a clip", "empty.mp3", "absent.ogg"]);
    assert!(!at.join("none").exists());
}

fn a_stopped_run_goes_on_to_the_same() {
    let dir = folder();
    let at = dir.path();
    write_rows(&at.join("t5.npy"), 7);
    let train = "sae train --input t5.npy --features 64 --k 4 --batch 32 --log-every 5 --steps";
    run(at, &format!("{train} 3000 --out whole")).ok();
    let line = format!("{train} 3000 --checkpoint-every 50 --out parts");
    let checkpoint = at.join("parts/checkpoint.safetensors");
    stopped(at, &line, || checkpoint.exists());
    assert!(!at.join("parts/cfg.json").exists());
    run(at, &format!("{train} 3000 --out parts")).exits(2, &["holds a checkpoint.safetensors", "`--resume`"]);
    let resume = format!("{train} 3000 --out parts --resume");
    write_rows(&at.join("other.npy"), 8);
    run(at, &resume.replace("t5.npy", "other.npy"))
        .exits(4, &["parts/checkpoint.safetensors", "reads t5.npy", "for other.npy", "`sha256` is"]);
    // by its content it is the same file
    fs::rename(at.join("t5.npy"), at.join("moved.npy")).expect("it is there");
    run(at, &resume.replace("t5.npy", "moved.npy")).ok();
    assert_eq!(log(&at.join("parts")), log(&at.join("whole")));
    for name in ["sae_weights.safetensors", "sparsity.safetensors", "training.svg", "cfg.json"] {
        let [parts, whole] =
            ["parts", "whole"].map(|out| fs::read(at.join(out).join(name)).expect("it is there"));
        assert!(parts == whole, "{name} differs");
    }
    assert!(!at.join("parts/checkpoint.safetensors").exists());
}

/// Starts a run, and sends it Ctrl-C as soon as `ready`.
fn stopped(at: &Path, line: &str, mut ready: impl FnMut() -> bool) {
    let mut child = start(at, line);
    let deadline = Instant::now() + Duration::from_secs(120);
    while !ready() {
        assert!(Instant::now() < deadline, "`{line}` is not ready within two minutes");
        assert!(
            child.try_wait().expect("a child can be asked").is_none(),
            "`{line}` ended before it was ready"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    interrupted(line, child).exits(1, &["stopped behind step", "`--resume` continues"]);
}

fn checkpoints_of_several_sites_are_a_set() {
    let dir = folder();
    let at = dir.path();
    let (sites, at_rest, written) =
        (["hook_layers.0", "hook_layers.1"], "checkpoint.safetensors", "checkpoint.next.safetensors");
    for (store, audio) in [("s", "FIX/flac_s16.flac"), ("other", "FIX/mono_32k.mp3")] {
        run(
            at,
            &format!("capture {audio} --model MODEL --window 1 --hooks hook_layers.{{0,1}} --out {store}"),
        )
        .ok();
    }
    let train = "sae train --store s --hooks hook_layers.{0,1} --features 128 --k 8 --batch 16 --log-every 20 --steps 1500";
    run(at, &format!("{train} --out whole")).ok();
    // the checkpoints of two steps
    let line = format!("{train} --checkpoint-every 50 --out parts");
    let last = at.join("parts").join(sites[1]).join(at_rest);
    stopped(at, &line, || last.exists());
    let steps = || Checkpoint::open(&last).expect("it is whole").steps_made();
    let before = steps();
    let keep = |name: &str| {
        for site in sites {
            let of = at.join("parts").join(site);
            assert_eq!(names(&of), [at_rest, "log.jsonl"], "nothing under another name");
            fs::copy(of.join(at_rest), at.join(format!("{name}.{site}"))).expect("it is there");
        }
    };
    keep("old");
    stopped(at, &format!("{line} --resume"), || steps() > before);
    keep("new");
    run(at, &format!("{train} --out parts --resume").replace("--store s", "--store other"))
        .exits(4, &["hook_layers.0/checkpoint.safetensors", "reads s,", "for other:"]);

    // what a killed run leaves at either site: checkpoints in place, and under the other name
    for (name, left) in [
        ("before-the-last-is-written", [(Some("old"), Some("new")), (Some("old"), None)]),
        ("before-any-takes-its-place", [(Some("old"), Some("new")), (Some("old"), Some("new"))]),
        ("between-two-places", [(Some("new"), None), (Some("old"), Some("new"))]),
        ("amid-the-first", [(Some("new"), None), (None, Some("new"))]),
    ] {
        for (site, (placed, next)) in sites.into_iter().zip(left) {
            let (from, to) = (at.join("parts").join(site), at.join(name).join(site));
            fs::create_dir_all(&to).expect("a new folder");
            fs::copy(from.join("log.jsonl"), to.join("log.jsonl")).expect("it is there");
            for (file, which) in [(at_rest, placed), (written, next)] {
                if let Some(which) = which {
                    fs::copy(at.join(format!("{which}.{site}")), to.join(file)).expect("it was kept");
                }
            }
        }
        run(at, &format!("{train} --out {name}")).exits(2, &["holds a checkpoint", "`--resume`"]);
        run(at, &format!("{train} --out {name} --resume")).ok();
        for site in sites {
            same(at, &format!("whole/{site}"), &format!("{name}/{site}"));
            assert_eq!(names(&at.join(name).join(site)), names(&at.join("whole").join(site)));
        }
    }
    // as it ends: the first is written, both are, of both the first has no checkpoint any more
    for (name, finished, checkpoints) in [
        ("behind-the-first", [true, false], [true, true]),
        ("behind-the-last", [true, true], [true, true]),
        ("amid-the-end", [true, true], [false, true]),
    ] {
        for (i, site) in sites.into_iter().enumerate() {
            let (whole, to) = (at.join("whole").join(site), at.join(name).join(site));
            fs::create_dir_all(&to).expect("a new folder");
            for file in names(&whole).iter().filter(|file| finished[i] || *file == "log.jsonl") {
                fs::copy(whole.join(file), to.join(file)).expect("it is there");
            }
            if checkpoints[i] {
                fs::copy(at.join(format!("new.{site}")), to.join(at_rest)).expect("it was kept");
            }
        }
        run(at, &format!("{train} --out {name} --resume")).ok();
        for site in sites {
            same(at, &format!("whole/{site}"), &format!("{name}/{site}"));
            assert_eq!(names(&at.join(name).join(site)), names(&at.join("whole").join(site)));
        }
    }
    // without a step that both have
    for (site, which) in sites.into_iter().zip(["old", "new"]) {
        fs::copy(at.join(format!("{which}.{site}")), at.join("parts").join(site).join(at_rest))
            .expect("kept");
    }
    run(at, &format!("{train} --out parts --resume"))
        .exits(3, &["of different steps", &format!("parts/hook_layers.0 {before}, parts/hook_layers.1 ")]);
}

fn a_run_is_not_taken_up_with_other_audio() {
    let dir = folder();
    let at = dir.path();
    let train = SHORT.replace("--steps 30", "--steps 5000 --checkpoint-every 10 --out heard");
    let line = format!("sae train FIX/flac_s16.flac {train}");
    stopped(at, &line, || at.join("heard/checkpoint.safetensors").exists());
    run(at, &format!("{line} --resume").replace("flac_s16.flac", "mono_32k.mp3"))
        .exits(4, &["heard/checkpoint.safetensors", "flac_s16.flac, which", "mono_32k.mp3: `"]);
    run(at, &format!("{line} --resume").replace("--window 0.5", "--window 0.25")).exits(4, &["`clips` is"]);
    run(at, &format!("{line} --resume").replace("hook_layers.1", "hook_layers.0"))
        .exits(4, &[r#"`hook` is "hook_layers.0", expected "hook_layers.1""#]);
}

fn impossible_runs_are_named() {
    let dir = folder();
    let at = dir.path();
    let train = |rest: &str| run(at, &format!("sae train {rest}"));
    train("--out o").exits(2, &["--input", "--store", "--model"]);
    train("--input a.npy --store s --out o").exits(2, &["cannot be used with"]);
    train("--input a.npy --mode top-k --out o").exits(2, &["`top-k`", "saelens-5.3.2, topk"]);
    train("--model MODEL --hooks embed --out o")
        .exits(2, &["AUDIO is empty", "--manifest with --audio-root"]);
    train("--input a.npy x.wav --out o").exits(2, &["AUDIO is given without --model"]);
    train("--input a.npy --out o").exits(3, &["a.npy"]);
    write_rows(&at.join("t5.npy"), 7);
    train("--input t5.npy --features 16 --k 17 --out o").exits(2, &["`k` is 17, expected at most 16"]);
    train("--input t5.npy --features 16 --k 2 --lr 0 --out o").exits(2, &["`lr` is 0"]);
    train("--input t5.npy --features 16 --k 2 --aux-k-coef 0 --out o")
        .exits(2, &["`aux_weight` is 0, expected a finite number above 0"]);
    train("--input t5.npy --log-every 0 --out o").exits(2, &["--log-every is 0"]);
    // no more than the encoders keep
    for (numbers, said) in [
        ("--k 1025", "`k` is 1025, expected at most 1024"),
        ("--k 1025 --mode saelens-5.3.2", "`k` is 1025"),
        ("--k 2 --aux-k 1500", "`aux_k` is 1500, expected at most 1024"),
    ] {
        train(&format!("--input t5.npy --features 2000 {numbers} --out o")).exits(2, &[said]);
    }
    assert!(!at.join("o").exists());
    let mut rows = vec![0u8; 2 * 24 * 4];
    rows[4 * 30..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(at.join("nan.npy"), [npy_header("<f4", &[2, 24]), rows].concat()).expect("it can be written");
    train("--input nan.npy --features 48 --k 2 --batch 2 --out n")
        .exits(3, &["nan.npy", "NaN in row 1, column 6"]);
    let line = "--input t5.npy --features 32 --k 2 --batch 8 --steps 4 --aux-k-coef 0.0625 --out done";
    train(line).ok();
    assert_eq!(json_file(&at.join("done/run.json"))["details"]["training"]["aux_weight"], 0.0625);
    train(line).exits(2, &["holds a cfg.json", "expected a new or empty directory"]);
    // what is not a run's is left alone
    fs::create_dir(at.join("own")).expect("a new folder");
    fs::write(at.join("own/run.json"), "{}").expect("a new file");
    for resume in ["", "--resume"] {
        let line = line.replace("--out done", &format!("--out own {resume}"));
        train(&line).exits(2, &["--out own holds `run.json`, expected a new or empty directory"]);
    }
    assert_eq!(names(&at.join("own")), ["run.json"]);
}

/// Before the first checkpoint there is nothing to go on with, and behind the last step nothing to do.
fn resuming_holds_at_both_ends() {
    let dir = folder();
    let at = dir.path();
    write_rows(&at.join("t5.npy"), 7);
    let train = "sae train --input t5.npy --features 64 --k 4 --batch 32 --log-every 5 --steps 40";
    run(at, &format!("{train} --out whole")).ok();
    fs::create_dir(at.join("early")).expect("a new folder");
    for left in ["log.jsonl", "training.lock", ".auscult-x.tmp"] {
        fs::write(at.join("early").join(left), "{}\n").expect("a new file");
    }
    for out in ["early", "none"] {
        let ran = run(at, &format!("{train} --out {out} --resume")).ok();
        assert!(ran.stderr.contains("has no checkpoint, so the run starts over"), "{ran}");
        same(at, "whole", out);
        assert_eq!(names(&at.join(out)), names(&at.join("whole")));
    }
    let again = run(at, &format!("{train} --out whole --resume")).ok();
    assert!(again.stdout.contains("was finished already"), "{again}");
    same(at, "whole", "early");
}

fn two_runs_do_not_write_one_directory() {
    let dir = folder();
    let at = dir.path();
    write_rows(&at.join("t5.npy"), 7);
    let train = "sae train --input t5.npy --features 64 --k 4 --batch 32 --steps 1000000 --checkpoint-every 10 --out one";
    let checkpoint = at.join("one/checkpoint.safetensors");
    let is_refused = || {
        run(at, &format!("{train} --resume")).exits(2, &["--out one: another run writes it"]);
        true
    };
    stopped(at, train, || checkpoint.exists() && is_refused());
    assert!(!at.join("one/training.lock").exists());
}
