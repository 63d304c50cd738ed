//! A run that is killed, stopped or locked out, wherever that happens.

use super::*;
use crate::{AnalysisError, Category};
use std::sync::{Arc, Mutex};

/// An uninterrupted store, and copies of it taken at every step, each with what had just happened.
fn snapshots(
    copies: &Path,
    mut run: impl FnMut(&mut StoreWriter),
    end: impl FnOnce(StoreWriter),
) -> Vec<String> {
    let dir = copies.join("whole");
    let (mut writer, _) = open(&dir, false);
    let steps = Arc::new(Mutex::new(Vec::new()));
    let observer = {
        let (steps, copies, dir) = (steps.clone(), copies.to_path_buf(), dir.clone());
        move |step: &str| {
            let mut steps = steps.lock().unwrap();
            copy(&dir, &copies.join(steps.len().to_string()));
            steps.push(step.to_string());
        }
    };
    writer.observer.0 = Some(Box::new(observer));
    run(&mut writer);
    end(writer);
    Arc::try_unwrap(steps).unwrap().into_inner().unwrap()
}

fn resume_and_compare(dir: &Path, expected: &BTreeMap<String, Vec<u8>>, what: &str) {
    match StoreWriter::open(dir, meta(StoreDtype::F32), true).unwrap() {
        Opened::Finished => {}
        Opened::Writer(mut writer, resumed) => {
            read_again(&mut writer, &resumed);
            let at = resumed.clips.checked_sub(1).map(|last| (last / 3, last % 3 + 1));
            assert_eq!(resumed.at, at, "{what}");
            write_rest(*writer, resumed.clips);
        }
    }
    let found = tree(dir);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, content) in expected {
        assert!(found[name] == *content, "{what}: `{name}` differs");
    }
    let report = verify(dir).unwrap();
    assert!(report.is_sound(), "{what}: {report:?}");
}

#[test]
fn killed_at_any_step_a_store_ends_up_the_same() {
    let copies = tempfile::tempdir().unwrap();
    let mut between = 0;
    let steps = snapshots(
        copies.path(),
        |writer| {
            for clip in 0..FRAMES.len() {
                append(writer, clip);
                copy(&copies.path().join("whole"), &copies.path().join(format!("clip {clip}")));
                between += 1;
            }
        },
        |writer| writer.finish(&mut record()).unwrap(),
    );
    let expected = tree(&copies.path().join("whole"));
    assert!(!expected.contains_key(JOURNAL));
    // 4 shards of 2 hooks, 2 autoencoders, codes and journal, then what is known of features, index, run.json, sums
    assert_eq!(steps.len(), 4 * 6 + 4);
    assert_eq!(between, FRAMES.len());
    for (at, step) in steps.iter().enumerate() {
        resume_and_compare(
            &copies.path().join(at.to_string()),
            &expected,
            &format!("killed when {step} ({at})"),
        );
    }
    for clip in 0..FRAMES.len() {
        resume_and_compare(
            &copies.path().join(format!("clip {clip}")),
            &expected,
            &format!("killed behind clip {clip}"),
        );
    }
}

#[test]
fn stopped_behind_any_clip_nothing_is_lost() {
    let whole = tempfile::tempdir().unwrap();
    write_rest(open(whole.path(), false).0, 0);
    let expected = tree(whole.path());
    for stop in 0..=FRAMES.len() {
        let copies = tempfile::tempdir().unwrap();
        let steps = snapshots(
            copies.path(),
            |writer| append_range(writer, 0..stop),
            |writer| writer.suspend().unwrap(),
        );
        let dir = copies.path().join("whole");
        let (writer, resumed) = open(&dir, true);
        assert_eq!(resumed.clips, stop);
        // stopped again at once, then one clip later
        writer.suspend().unwrap();
        let (mut writer, resumed) = open(&dir, true);
        assert_eq!(resumed.clips, stop);
        if stop < FRAMES.len() {
            append(&mut writer, stop);
        }
        writer.suspend().unwrap();
        resume_and_compare(&dir, &expected, &format!("stopped behind {stop} clips"));
        for (at, step) in steps.iter().enumerate() {
            let what = format!("killed while stopping behind {stop} clips, when {step}");
            resume_and_compare(&copies.path().join(at.to_string()), &expected, &what);
        }
    }
}

#[test]
fn killed_before_anything_is_stored_a_run_starts_afresh() {
    let whole = tempfile::tempdir().unwrap();
    write_rest(open(whole.path(), false).0, 0);
    let expected = tree(whole.path());
    let parent = tempfile::tempdir().unwrap();
    for (name, files) in [
        ("absent", None),
        ("empty", Some(vec![])),
        ("journal alone", Some(vec![JOURNAL])),
        ("torn store.json", Some(vec![JOURNAL, ".auscult-abc123.tmp"])),
    ] {
        let dir = parent.path().join(name);
        for file in files.iter().flatten() {
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(file), "").unwrap();
        }
        resume_and_compare(&dir, &expected, name);
    }
    let dir = parent.path().join("no directories");
    drop(open(&dir, false));
    fs::remove_dir(dir.join("logits")).unwrap();
    resume_and_compare(&dir, &expected, "killed before the directories were made");
}

#[test]
fn a_journal_cut_anywhere_is_gone_on_with() {
    let copies = tempfile::tempdir().unwrap();
    let dir = copies.path().join("half");
    let (mut writer, _) = open(&dir, false);
    append_range(&mut writer, 0..5);
    writer.suspend().unwrap();
    let whole = copies.path().join("whole");
    write_rest(open(&whole, false).0, 0);
    let expected = tree(&whole);
    let journal = fs::read(dir.join(JOURNAL)).unwrap();
    let ends: Vec<usize> = (0..journal.len()).filter(|&at| journal[at] == b'\n').collect();
    assert_eq!(ends.len(), 3, "two closed shards and an open one");
    let near = ends.iter().flat_map(|&end| [end - 1, end, end + 1, end + 2]);
    let cuts: std::collections::BTreeSet<usize> = (0..journal.len()).step_by(97).chain(near).collect();
    for cut in cuts.into_iter().filter(|&cut| cut <= journal.len()) {
        let torn = copies.path().join(format!("cut {cut}"));
        copy(&dir, &torn);
        fs::write(torn.join(JOURNAL), &journal[..cut]).unwrap();
        resume_and_compare(&torn, &expected, &format!("journal cut at {cut}"));
    }
}

#[test]
fn a_kept_shard_that_is_damaged_is_computed_again() {
    let copies = tempfile::tempdir().unwrap();
    let dir = copies.path().join("half");
    let (mut writer, _) = open(&dir, false);
    append_range(&mut writer, 0..5);
    writer.suspend().unwrap();
    let whole = copies.path().join("whole");
    write_rest(open(&whole, false).0, 0);
    let kept = dir.join("codes/00002.open-3.safetensors");
    let mut bytes = fs::read(&kept).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&kept, bytes).unwrap();
    let (writer, resumed) = open(&dir, true);
    assert_eq!((resumed.clips, resumed.open_rows), (4, 0));
    drop(writer);
    resume_and_compare(&dir, &tree(&whole), "a damaged kept shard");
}

#[test]
fn a_closed_shard_that_is_damaged_is_refused() {
    for (damage, category, name) in [
        (Some(1u8), Category::Refused, "logits/00000.safetensors"),
        (None, Category::BadInput, "logits/00000.safetensors"),
        (Some(1), Category::Refused, "hook_layers.1/00000.few.safetensors"),
        (None, Category::BadInput, "logits/00000.many.safetensors"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = open(dir.path(), false);
        append_range(&mut writer, 0..5);
        drop(writer);
        let shard = dir.path().join(name);
        match damage {
            Some(flip) => {
                let mut bytes = fs::read(&shard).unwrap();
                *bytes.last_mut().unwrap() ^= flip;
                fs::write(&shard, bytes).unwrap();
            }
            None => fs::remove_file(&shard).unwrap(),
        }
        let error = StoreWriter::open(dir.path(), meta(StoreDtype::F32), true).unwrap_err();
        assert_eq!(error.category(), category, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn other_settings_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), false));
    let base = || meta(StoreDtype::F32);
    let mut other_site = StoreMeta { saes: Vec::new(), ..base() };
    other_site.sites[1].hook = "embed".into();
    let mut other_sae = base();
    other_sae.saes[1].sha256 = "9".repeat(64);
    let mut other_precision = base();
    other_precision.saes[0].precision = "bf16".into();
    let engine = |change: fn(&mut EngineMeta)| {
        let mut meta = base();
        change(&mut meta.engine);
        meta
    };
    for (meta, field) in [
        (StoreMeta { model_sha256: "9".repeat(64), ..base() }, "model_sha256"),
        (StoreMeta { config_sha256: "9".repeat(64), ..base() }, "config_sha256"),
        (meta(StoreDtype::F16), "dtype"),
        (StoreMeta { posemb: "audiocraft-f16".into(), ..base() }, "posemb"),
        (StoreMeta { text: Some("a".into()), ..base() }, "text"),
        (StoreMeta { limit: Some(3), ..base() }, "limit"),
        (StoreMeta { shard_rows: 11, ..base() }, "shard_rows"),
        (
            StoreMeta { windows: WindowsMeta { window: Some(0.2), ..base().windows }, ..base() },
            "windows.window",
        ),
        (StoreMeta { inputs: InputsMeta { count: 8, ..base().inputs }, ..base() }, "inputs.count"),
        (other_sae, "saes"),
        (other_precision, "saes"),
        (StoreMeta { sae_only: true, ..base() }, "sae_only"),
        (other_site, "sites"),
        (StoreMeta { saes: Vec::new(), ..base() }, "saes"),
        (engine(|e| e.device = "wgpu:0".into()), "engine.device"),
        (engine(|e| e.batch = "3".into()), "engine.batch"),
        (engine(|e| e.precision = "f16".into()), "engine.precision"),
        (engine(|e| e.version = "1".into()), "engine.version"),
    ] {
        let error = StoreWriter::open(dir.path(), meta, true).unwrap_err();
        assert!(
            matches!(&error, AnalysisError::Settings { field: found, .. } if found == field),
            "{field}: {error}"
        );
        assert_eq!(error.category(), Category::Usage);
    }
    // the name by which the model was called, and the build, are no settings
    let mut renamed = engine(|e| e.git_commit = "abc".into());
    renamed.model = "elsewhere".into();
    renamed.saes[0].path = "elsewhere".into();
    let Opened::Writer(writer, _) = StoreWriter::open(dir.path(), renamed, true).unwrap() else {
        panic!("finished")
    };
    assert_eq!(writer.meta(), &base(), "the store keeps what it was started with");
}

#[test]
fn directories_that_are_taken_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, _) = open(dir.path(), false);
    let again = |resume| StoreWriter::open(dir.path(), meta(StoreDtype::F32), resume).unwrap_err();
    assert!(matches!(again(true), AnalysisError::Locked { .. }));
    assert!(matches!(again(false), AnalysisError::NotEmpty { .. }));
    drop(writer);
    assert!(matches!(again(false), AnalysisError::NotEmpty { .. }), "an unfinished store is not overwritten");
    drop(open(dir.path(), true));

    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("thesis.tex"), "x").unwrap();
    for resume in [false, true] {
        let error = StoreWriter::open(foreign.path(), meta(StoreDtype::F32), resume).unwrap_err();
        assert!(error.to_string().contains("thesis.tex"), "{error}");
    }
    assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 1, "nothing was written");
}

#[test]
fn a_finished_store_is_recognised_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    write_rest(open(dir.path(), false).0, 0);
    let before = tree(dir.path());
    let opened = StoreWriter::open(dir.path(), meta(StoreDtype::F32), true).unwrap();
    assert!(matches!(opened, Opened::Finished));
    assert_eq!(tree(dir.path()), before);
    let other = StoreWriter::open(dir.path(), meta(StoreDtype::F16), true).unwrap_err();
    assert!(matches!(other, AnalysisError::Settings { .. }));
}

#[test]
fn an_abandoned_store_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    open(&dir, false).0.abandon().unwrap();
    assert!(!dir.exists());
    fs::create_dir(&dir).unwrap();
    open(&dir, false).0.abandon().unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "a directory that was there stays");
}
