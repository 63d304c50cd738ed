//! Runs that are killed, or stopped with Ctrl-C: what is left can be gone on with, to the same bytes.

use crate::capture_sae::{three, write_sae};
use crate::support::{check_sums, ended, folder, interrupted, json_file, music, names, run, start, tree};
use auscult_model::sae::Activation;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

crate::trials!(
    a_killed_run_ends_up_the_same,
    a_stopped_run_keeps_what_it_has,
    only_the_same_run_goes_on,
    a_killed_capture_of_features_ends_up_the_same
);

/// Two recordings of 30 s in clips of a quarter of a second: 240 clips of 14 positions, 5 clips a shard.
const LINE: &str = "capture a.wav b.wav --model MODEL --window 0.25 --hooks hook_layers.1,embed --shard-rows 60 --resume --json --out";

/// A folder with the recordings and the store `whole`, made in one go.
fn prepared() -> tempfile::TempDir {
    let dir = folder();
    music(&dir.path().join("a.wav"), 30.0, 16_000, 1);
    music(&dir.path().join("b.wav"), 30.0, 8_000, 2);
    let ran = run(dir.path(), &format!("{LINE} whole")).ok();
    assert_eq!(ran.json()["clips"], 240);
    dir
}

/// Files of a finished store that do not tell the time.
fn content(store: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = tree(store);
    files.remove("run.json").expect("a finished store has one");
    let sums = files.remove("SHA256SUMS").expect("a finished store has one");
    let sums: String = String::from_utf8(sums)
        .expect("ASCII")
        .lines()
        .filter(|line| !line.ends_with("  run.json"))
        .map(|line| format!("{line}\n"))
        .collect();
    files.insert("SHA256SUMS".to_string(), sums.into_bytes());
    files
}

/// Waits until `shards` shards are in the journal, or the run has ended.
fn wait_for_shards(child: &mut Child, store: &Path, shards: usize) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let text = fs::read(store.join("journal.jsonl")).unwrap_or_default();
        let ended = child.try_wait().expect("a child can be asked").is_some();
        if text.iter().filter(|&&byte| byte == b'\n').count() >= shards || ended {
            return;
        }
        assert!(Instant::now() < deadline, "no {shards} shards within two minutes");
        sleep(Duration::from_millis(1));
    }
}

/// Goes on with `out`, and holds it against the store made in one go.
fn goes_on(dir: &Path, out: &str, why: &str) {
    run(dir, &format!("{LINE} {out}")).ok();
    check_sums(&dir.join(out));
    run(dir, &format!("store verify {out}")).ok();
    let (found, expected) = (content(&dir.join(out)), content(&dir.join("whole")));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{why}");
    for (name, bytes) in &expected {
        assert!(found[name] == *bytes, "{name} differs, {why}");
    }
    let again = run(dir, &format!("{LINE} {out}")).ok();
    assert_eq!(again.json()["outcome"], "already_finished", "{why}");
    assert!(content(&dir.join(out)) == expected, "{why}");
}

fn a_killed_run_ends_up_the_same() {
    let dir = prepared();
    let mut moments: Vec<(String, usize, u64)> =
        [1, 2, 9, 30, 47].map(|shards| (format!("killed behind shard {shards}"), shards, 0)).into();
    // anywhere: while starting, hashing, between two steps of a shard
    for milliseconds in [1, 5, 13, 31, 71, 153, 307, 511] {
        moments.push((format!("killed after {milliseconds} ms"), 0, milliseconds));
    }
    let mut unfinished = 0;
    for (why, shards, milliseconds) in moments {
        let out = why.replace(' ', "-");
        let store = dir.path().join(&out);
        let mut child = start(dir.path(), &format!("{LINE} {out}"));
        sleep(Duration::from_millis(milliseconds));
        wait_for_shards(&mut child, &store, shards);
        child.kill().expect("it can be killed");
        let killed = ended(&why, child);
        if killed.code.is_none() && store.join("store.json").exists() {
            let info = run(dir.path(), &format!("store info {out} --json")).ok().json();
            assert_eq!(info["state"], "unfinished", "{why}");
            assert!(info["clips"].as_u64().is_some_and(|clips| clips >= 5 * shards as u64), "{why}: {info}");
            run(dir.path(), &format!("store verify {out}")).exits(4, &["unfinished"]);
            unfinished += 1;
        }
        goes_on(dir.path(), &out, &why);
        fs::remove_dir_all(&store).expect("done with");
    }
    assert!(unfinished >= 3, "most runs are killed before their end, not {unfinished}");

    // killed again and again
    let mut last = None;
    for shards in [3, 11, 12, 26, 40] {
        let mut child = start(dir.path(), &format!("{LINE} often"));
        wait_for_shards(&mut child, &dir.path().join("often"), shards);
        child.kill().expect("it can be killed");
        last = ended("often", child).code;
    }
    assert_eq!(last, None, "the last one was killed too");
    goes_on(dir.path(), "often", "killed five times");
}

fn a_stopped_run_keeps_what_it_has() {
    let dir = prepared();
    let store = dir.path().join("s");
    for (stops, shards) in [1, 20].into_iter().enumerate() {
        let mut child = start(dir.path(), &format!("{LINE} s"));
        wait_for_shards(&mut child, &store, shards);
        // while it runs, nobody else may write
        run(dir.path(), &format!("{LINE} s")).exits(1, &["being written by another process"]);
        let stopped = interrupted("stopped", child).exits(1, &["stopped; `--resume` continues"]);
        let summary = stopped.json();
        assert_eq!(summary["outcome"], "stopped");
        let info = run(dir.path(), "store info s --json").ok().json();
        assert_eq!((&info["state"], &info["clips"]), (&"unfinished".into(), &summary["clips"]));
        // all of it, not only whole shards; an earlier stop may have left a line for a shard that was not whole yet
        let least = 5 * (shards - stops) as u64;
        assert!(summary["clips"].as_u64().is_some_and(|clips| clips >= least), "{summary}");
        let hidden =
            tree(&store).into_keys().find(|name| name.rsplit('/').next().is_some_and(|n| n.starts_with('.')));
        assert_eq!(hidden, None, "no temporary is left behind");
        let before = tree(&store);
        let afresh = LINE.replace(" --resume", "");
        run(dir.path(), &format!("{afresh} s")).exits(2, &["not empty", "--resume"]);
        assert!(tree(&store) == before, "a run without --resume touches nothing");
    }
    goes_on(dir.path(), "s", "stopped twice");
}

fn only_the_same_run_goes_on() {
    let dir = folder();
    music(&dir.path().join("a.wav"), 30.0, 16_000, 1);
    let line = "capture a.wav --model MODEL --window 0.25 --shard-rows 60 --resume --out s --hooks";
    let mut child = start(dir.path(), &format!("{line} embed"));
    wait_for_shards(&mut child, &dir.path().join("s"), 1);
    child.kill().expect("it can be killed");
    assert_eq!(ended("killed", child).code, None);
    let before = tree(&dir.path().join("s"));
    music(&dir.path().join("c.wav"), 1.0, 16_000, 1);
    for (line, field) in [
        (format!("{line} embed,logits"), "`sites"),
        (format!("{line} embed --dtype f16"), "`dtype`"),
        (format!("{line} embed --batch 1"), "`engine.batch`"),
        (format!("{line} embed --posemb audiocraft-f16"), "`posemb`"),
        (format!("{line} embed").replace("--window 0.25", "--window 0.5"), "`windows.window`"),
        (format!("{line} embed").replace("a.wav", "a.wav c.wav"), "`inputs.count`"),
    ] {
        run(dir.path(), &line).exits(2, &["store `s`", field, "store.json"]);
    }
    assert!(tree(&dir.path().join("s")) == before);
    run(dir.path(), &format!("{line} embed")).ok();
    assert_eq!(names(dir.path()), ["a.wav", "c.wav", "s"]);
}

fn a_killed_capture_of_features_ends_up_the_same() {
    let dir = folder();
    let at = dir.path();
    music(&at.join("a.wav"), 30.0, 16_000, 1);
    three(at);
    // 120 clips of 14 positions, 5 clips a shard
    let line = "capture a.wav --model MODEL --window 0.25 --sae early --sae late --sae jump \
                --allow-misaligned --sae-only --shard-rows 60 --resume --json --out";
    run(at, &format!("{line} whole")).ok();
    let expected = content(&at.join("whole"));
    let mut last = None;
    for shards in [1, 4, 11, 17] {
        let mut child = start(at, &format!("{line} often"));
        wait_for_shards(&mut child, &at.join("often"), shards);
        child.kill().expect("it can be killed");
        last = ended("killed", child).code;
    }
    assert_eq!(last, None, "the last one was killed too");
    write_sae(&at.join("another"), Some("hook_layers.1"), Activation::TopK(8));
    run(at, &format!("{} often", line.replace("--sae late", "--sae another")))
        .exits(2, &["`saes`", "store.json"]);
    let summary = run(at, &format!("{line} often")).ok().json();
    assert!(summary["resumed_clips"].as_u64().is_some_and(|clips| clips >= 85), "{summary}");
    let found = content(&at.join("often"));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &expected {
        assert!(found[name] == *bytes, "{name} differs");
    }
    let saes = |store: &str| json_file(&at.join(store).join("run.json"))["details"]["saes"].clone();
    assert_eq!(saes("often"), saes("whole"), "sums too are the same to the last bit");
    run(at, "store verify often").ok();
}
