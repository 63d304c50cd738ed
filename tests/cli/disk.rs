//! A full disk: exit code 1, a message that says so, and no half file under a final name.

use crate::capture_sae::write_sae;
use crate::support::{AUSCULT, Ran, check_sums, finished, folder, model, music, names, run, tree};
use auscult_model::sae::Activation;
use libtest_mimic::Trial;
use std::fs;
use std::path::Path;
use std::process::Command;

crate::trials!(
    capture_stops_and_goes_on_with_room,
    features_stop_and_go_on_with_room,
    single_files_and_checkpoints_leave_nothing,
);

/// The tests, ignored where a small disk cannot be had.
pub fn mounted_trials(listing: bool) -> Vec<Trial> {
    let dir = folder();
    let there = Command::new("unshare").arg("--version").output().is_ok();
    let mounts = listing || there && script(dir.path(), "64k", "true").code == Some(0);
    let reason = "needs user namespaces and the right to mount a tmpfs in them";
    trials()
        .into_iter()
        .map(|trial| if mounts { trial } else { trial.with_kind(reason).with_ignored_flag(true) })
        .collect()
}

/// Runs `then` in a shell, in `dir`, where the folder `disk` has room for `size` bytes, and copies to `after` what the
/// disk holds in the end. `$A` is the program on the processor, `$M` the checkpoint.
fn script(dir: &Path, size: &str, then: &str) -> Ran {
    for name in ["disk", "after"] {
        let _ = fs::remove_dir_all(dir.join(name));
        fs::create_dir(dir.join(name)).expect("a new folder");
    }
    let text = format!(
        "mount -t tmpfs -o size={size} tmpfs disk || exit 77\nA=\"$0 --device cpu\"; M=\"$1\"\n{then}\ncode=$?\n\
         cp -a disk/. after/\nexit $code"
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &text, AUSCULT]).arg(model());
    command.current_dir(dir);
    finished(then, &mut command)
}

/// Nothing under a final name that cannot be read whole.
fn whole(dir: &Path) {
    for (name, bytes) in tree(dir) {
        let last = name.rsplit('/').next().expect("a name");
        assert!(!last.starts_with('.'), "a temporary is left: {name}");
        if last.ends_with(".safetensors") {
            safetensors::SafeTensors::deserialize(&bytes)
                .unwrap_or_else(|e| panic!("{name} is not whole: {e}"));
        } else if last.ends_with(".json") {
            serde_json::from_slice::<serde_json::Value>(&bytes)
                .unwrap_or_else(|e| panic!("{name} is not whole: {e}"));
        }
    }
}

const CAPTURE: &str =
    "capture a.wav --model $M --window 0.5 --hooks embed,logits --shard-rows 100 --resume --out disk/s";

fn capture_stops_and_goes_on_with_room() {
    let dir = folder();
    music(&dir.path().join("a.wav"), 20.0, 16_000, 1);
    // room for nothing, for the first files, for some shards of 160 KB
    for (size, shards) in [("4k", 0), ("16k", 0), ("128k", 0), ("700k", 2), ("1500k", 5)] {
        let ran = script(dir.path(), size, &format!("$A {CAPTURE}"));
        ran.exits(1, &["No space left", "disk/s"]);
        let after = dir.path().join("after");
        whole(&after);
        let closed = tree(&after).keys().filter(|name| name.starts_with("s/embed/")).count();
        assert!(closed >= shards, "{closed} shards fit {size}, expected {shards}");
        let again = format!("$A {CAPTURE}\nmount -o remount,size=64m disk\n$A {CAPTURE} --json");
        let ran = script(dir.path(), size, &again).exits(0, &["No space left"]);
        let summary = ran.json();
        assert_eq!((&summary["outcome"], &summary["clips"]), (&"finished".into(), &40.into()), "{size}");
        assert!(
            summary["resumed_clips"].as_u64().is_some_and(|clips| clips >= 4 * shards as u64),
            "{size}: {summary}"
        );
        check_sums(&after.join("s"));
        run(dir.path(), "store verify after/s").ok();
    }
}

fn features_stop_and_go_on_with_room() {
    let dir = folder();
    music(&dir.path().join("a.wav"), 20.0, 16_000, 1);
    write_sae(&dir.path().join("sae"), Some("hook_layers.0"), Activation::TopK(100));
    let capture = "$A capture a.wav --model $M --window 0.5 --sae sae --allow-misaligned --sae-only --shard-rows 100 --resume --out disk/s";
    // shards of 63 KB
    for (size, shards) in [("32k", 0), ("300k", 2), ("500k", 4)] {
        script(dir.path(), size, capture).exits(1, &["No space left", "disk/s"]);
        let after = dir.path().join("after");
        whole(&after);
        let closed = tree(&after).keys().filter(|name| name.starts_with("s/hook_layers.0/")).count();
        assert!(closed >= shards, "{closed} shards fit {size}, expected {shards}");
        let again = format!("{capture}\nmount -o remount,size=64m disk\n{capture} --json");
        let summary = script(dir.path(), size, &again).exits(0, &["No space left"]).json();
        assert_eq!((&summary["outcome"], &summary["clips"]), (&"finished".into(), &40.into()), "{size}");
        check_sums(&after.join("s"));
        run(dir.path(), "store verify after/s").ok();
    }
}

fn single_files_and_checkpoints_leave_nothing() {
    let dir = folder();
    music(&dir.path().join("a.wav"), 20.0, 16_000, 1);
    run(dir.path(), "codec encode a.wav --model MODEL --out c.safetensors").ok();
    for (size, line, path) in [
        ("64k", "$A codec decode c.safetensors --model $M --out disk/d.wav", "disk/d.wav"),
        ("512k", "$A codec decode c.safetensors --model $M --out disk/d.wav --float", "disk/d.wav"),
        ("8k", "$A codec encode a.wav --model $M --out disk/c.safetensors", "disk/c.safetensors"),
        ("1m", "$A model init --preset tiny --out disk/m", "disk/m/model.safetensors"),
        ("1m", "$A demo --out disk/demo", "disk/demo"),
    ] {
        script(dir.path(), size, line).exits(1, &["No space left", path]);
        let after = dir.path().join("after");
        whole(&after);
        if !line.contains("demo") {
            assert!(names(&after).is_empty(), "{line} left {:?}", tree(&after).keys());
        }
    }
    run(dir.path(), "capture a.wav --model MODEL --window 1 --hooks embed --out s").ok();
    let exported = script(dir.path(), "64k", "$A store export s --npy --out disk/npy");
    exported.exits(1, &["No space left", ".npy"]);
    whole(&dir.path().join("after"));
    assert!(!dir.path().join("after/npy/activation_index.jsonl").exists(), "the index is written last");
}
