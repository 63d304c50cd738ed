//! Takes of a run that was killed, or stopped with Ctrl-C: those that are whole are kept, the rest is played, to the same
//! bytes.

use crate::generate::takes;
use crate::support::{check_sums, folder, interrupted, names, run, start, tree};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

crate::trials!(killed_takes_are_gone_on_with, stopped_takes_are_gone_on_with, a_single_file_begins_again);

/// 30 takes, two at a time, with rows of both halves.
const LINE: &str = "generate --model MODEL --text folk --seconds 1 --count 30 --seed 2 --batch 2 --hooks embed,hook_layers.1";

fn line(out: &str) -> String {
    format!("{LINE} --out {out} --capture {out}.store")
}

/// What does not tell the time: of a run's directory or of a store.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = tree(dir);
    files.remove("run.json").expect("a finished run has one");
    files.remove("SHA256SUMS");
    files
}

/// A run of which so many takes are there.
fn start_until(dir: &Path, line: &str, out: &str, take: usize) -> Child {
    let mut child = start(dir, line);
    let deadline = Instant::now() + Duration::from_secs(120);
    while !dir.join(out).join(format!("take-{take:03}.wav")).exists() {
        assert!(Instant::now() < deadline, "no take {take} within two minutes");
        assert!(child.try_wait().expect("a child can be asked").is_none(), "it runs on");
        sleep(Duration::from_millis(1));
    }
    child
}

/// Goes on with `out`, and holds it against the run made in one go.
fn goes_on(dir: &Path, out: &str, kept: usize) {
    let ran = run(dir, &format!("{} --resume --json", line(out))).ok();
    let told = format!("resuming: {kept} of 30 takes are whole");
    assert_eq!(ran.stderr.contains(&told), kept > 0, "{}", ran.stderr);
    assert_eq!(ran.json()["takes"].as_array().map(Vec::len), Some(30));
    check_sums(&dir.join(format!("{out}.store")));
    for suffix in ["", ".store"] {
        let (found, whole) =
            (content(&dir.join(format!("{out}{suffix}"))), content(&dir.join(format!("whole{suffix}"))));
        assert_eq!(found.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>(), "{out}");
        for (name, bytes) in &whole {
            // where the audio lies is part of the index
            let renamed = || String::from_utf8_lossy(&found[name]).replace(&format!("{out}/"), "whole/");
            let same = found[name] == *bytes || name == "index.jsonl" && renamed().as_bytes() == bytes;
            assert!(same, "{name} differs in {out}{suffix}");
        }
    }
    let again = run(dir, &format!("{} --resume --json", line(out))).ok();
    assert_eq!(again.json()["outcome"], "already_finished");
}

fn killed_takes_are_gone_on_with() {
    let dir = folder();
    let at = dir.path();
    run(at, &line("whole")).ok();
    let journal = at.join("often/takes.journal.jsonl");
    for (nth, take) in [0, 5, 17].into_iter().enumerate() {
        let resume = if nth == 0 { "" } else { " --resume" };
        let mut child = start_until(at, &format!("{}{resume}", line("often")), "often", take);
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        assert!(journal.exists() && !at.join("often/run.json").exists());
    }
    run(at, &line("often")).exits(2, &["not empty", "`--resume`"]);
    // the store's open shard died with the run, so its takes are played again
    goes_on(at, "often", 0);

    // without a store, what is whole stays
    let plain = format!("{LINE} --out plain --resume").replace(" --hooks embed,hook_layers.1", "");
    let mut child = start_until(at, &plain, "plain", 9);
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    fs::write(at.join("plain/take-003.wav"), b"touched: never written again").expect("a file");
    fs::remove_file(at.join("plain/take-005.codes.safetensors")).expect("it was there");
    run(at, &plain).ok();
    assert_eq!(takes(&at.join("plain")), takes(&at.join("whole")));
    let (found, whole) = (content(&at.join("plain")), content(&at.join("whole")));
    for (name, bytes) in &whole {
        assert_eq!(found[name] == *bytes, name != "take-003.wav", "{name}");
    }
}

fn stopped_takes_are_gone_on_with() {
    let dir = folder();
    let at = dir.path();
    run(at, &line("whole")).ok();
    let child = start_until(at, &line("s"), "s", 7);
    run(at, &format!("{} --resume", line("s"))).exits(1, &["being written by another process"]);
    let stopped =
        interrupted("stopped", child).exits(1, &["stopped; ", " takes are whole; `--resume` continues"]);
    let records = takes(&at.join("s"));
    assert!((8..30).contains(&records.len()), "{}: {}", records.len(), stopped.stderr);
    assert_eq!(records, takes(&at.join("whole"))[..records.len()]);
    assert!(!names(&at.join("s.store")).contains(&"SHA256SUMS".to_owned()));

    let before = (tree(&at.join("s")), tree(&at.join("s.store")));
    for (from, to, field) in [
        ("--seed 2", "--seed 3", "`seed`"),
        ("folk", "jazz", "`takes_sha256`"),
        ("--count 30", "--count 31", "`takes`"),
        ("--hooks embed,", "--hooks ", "`hooks`"),
        ("--batch 2", "--float", "`float`"),
    ] {
        let other = line("s").replace(from, to);
        run(at, &format!("{other} --resume")).exits(2, &["`--resume` of s", field]);
    }
    assert!(before == (tree(&at.join("s")), tree(&at.join("s.store"))), "other settings touch nothing");
    goes_on(at, "s", records.len());
    run(at, &format!("{} --resume", line("s").replace("--seed 2", "--seed 3")))
        .exits(2, &["`seed`", "run.json"]);
}

fn a_single_file_begins_again() {
    let dir = folder();
    run(dir.path(), "generate --model MODEL --seconds 0.2 --out x.wav --resume")
        .exits(2, &["`--resume`", "x.wav"]);
    fs::create_dir(dir.path().join("d")).expect("a folder");
    fs::write(dir.path().join("d/notes.txt"), "mine").expect("a file");
    run(dir.path(), "generate --model MODEL --seconds 0.2 --out d --resume")
        .exits(2, &["notes.txt", "expected a run to go on with"]);
    assert_eq!(names(&dir.path().join("d")), ["notes.txt"]);
}
