//! A run that is stopped or fails at any point ends up the same when it is gone on with.

use super::*;

/// The inputs: good files, and bad ones first, between and last.
fn inputs(dir: &Path) -> Vec<Input> {
    let mut paths = vec![dir.join("missing0.wav")];
    paths.extend(music(dir));
    paths.insert(3, dir.join("missing1.wav"));
    paths.push(dir.join("missing2.wav"));
    from_paths(&paths).unwrap()
}

fn assert_same(store: &Path, whole: &Path, what: &str) {
    let (found, expected) = (tree(store), tree(whole));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in &expected {
        assert!(found[name] == *bytes, "{what}: `{name}` differs");
    }
    assert!(verify(store).unwrap().is_sound(), "{what}");
    let (found, expected) = (run_json(store), run_json(whole));
    assert_eq!(found.inputs, expected.inputs, "{what}");
    assert_eq!(found.details["failed"], expected.details["failed"], "{what}");
}

#[test]
fn stopped_at_any_event_a_run_is_gone_on_with() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inputs = inputs(dir.path());
    let whole = out.path().join("whole");
    let events = Mutex::new(0);
    let summary = capture(
        job(&whole, inputs.clone()),
        &mut Fake::new(),
        &|_: &Event<'_>| *events.lock().unwrap() += 1,
        &AtomicBool::new(false),
    )
    .unwrap();
    assert_eq!(summary.failed.len(), 3);
    let events = events.into_inner().unwrap();
    assert!(events > 15, "{events}");
    let mut stopped = 0;
    for last in 0..events {
        let store = out.path().join(format!("stopped {last}"));
        let stop = AtomicBool::new(last == 0);
        let seen = Mutex::new(0);
        let watch = |_: &Event<'_>| {
            let mut seen = seen.lock().unwrap();
            *seen += 1;
            stop.fetch_or(*seen >= last, Ordering::Relaxed);
        };
        let summary = capture(job(&store, inputs.clone()), &mut Fake::new(), &watch, &stop).unwrap();
        if summary.outcome == Outcome::Stopped {
            stopped += 1;
            assert!(!store.join(SHA256SUMS).exists() && store.join(JOURNAL).exists());
            let again = CaptureJob { resume: true, ..job(&store, inputs.clone()) };
            let second = run(again).unwrap();
            assert_eq!((second.outcome, second.resumed_clips), (Outcome::Finished, summary.clips));
            assert_eq!((second.clips, second.failed.len()), (11, 3));
        }
        assert_same(&store, &whole, &format!("stopped at event {last}"));
    }
    assert!(stopped > events / 2, "{stopped} of {events} were stopped in time");
}

#[test]
fn a_device_that_fails_leaves_a_store_that_is_gone_on_with() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inputs = inputs(dir.path());
    let whole = out.path().join("whole");
    let mut model = Fake::new();
    capture(job(&whole, inputs.clone()), &mut model, &(), &AtomicBool::new(false)).unwrap();
    for call in 1..=model.calls {
        let store = out.path().join(format!("failed {call}"));
        let mut failing = Fake::failing_at(call);
        let error =
            capture(job(&store, inputs.clone()), &mut failing, &(), &AtomicBool::new(false)).unwrap_err();
        assert_eq!(error.category(), Category::Failed);
        assert!(error.to_string().contains("gone"), "{error}");
        assert_eq!(store.exists(), call > 2, "the first batch failed: nothing is left; call {call}");
        let mut again = Fake::new();
        let resumed = CaptureJob { resume: true, ..job(&store, inputs.clone()) };
        let summary = capture(resumed, &mut again, &(), &AtomicBool::new(false)).unwrap();
        // what was computed before the fault is not computed again
        assert_eq!(again.calls, model.calls - (call - 1) / 2 * 2, "call {call}");
        assert_eq!(summary.clips, 11);
        assert_same(&store, &whole, &format!("failed at call {call}"));
    }
}

#[test]
fn a_limit_holds_over_interruptions() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inputs = inputs(dir.path());
    let limited = |store: &Path, resume| CaptureJob { limit: Some(7), resume, ..job(store, inputs.clone()) };
    let whole = out.path().join("whole");
    assert_eq!(run(limited(&whole, false)).unwrap().clips, 7);
    let store = out.path().join("store");
    capture(limited(&store, false), &mut Fake::failing_at(6), &(), &AtomicBool::new(false)).unwrap_err();
    assert_eq!(run(limited(&store, true)).unwrap().clips, 7);
    assert_same(&store, &whole, "a limited run");
}

#[test]
fn a_finished_store_is_not_computed_again() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inputs = inputs(dir.path());
    let store = out.path().join("store");
    run(job(&store, inputs.clone())).unwrap();
    let mut model = Fake::new();
    let again = CaptureJob { resume: true, ..job(&store, inputs.clone()) };
    let summary = capture(again, &mut model, &(), &AtomicBool::new(false)).unwrap();
    assert_eq!((summary.outcome, model.calls), (Outcome::AlreadyFinished, 0));
    let error = run(job(&store, inputs.clone())).unwrap_err();
    assert!(matches!(error, AnalysisError::NotEmpty { .. }), "{error}");
    let fewer = CaptureJob { resume: true, ..job(&store, inputs[1..].to_vec()) };
    let error = run(fewer).unwrap_err();
    assert!(matches!(&error, AnalysisError::Settings { field, .. } if field == "inputs.count"), "{error}");
}

#[test]
fn a_disk_that_refuses_ends_the_run_and_can_be_gone_on_with() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inputs = inputs(dir.path());
    let whole = out.path().join("whole");
    run(job(&whole, inputs.clone())).unwrap();
    let store = out.path().join("store");
    let blocked = store.join("codes/00001.safetensors");
    // a directory in the place of a file of the second shard: it cannot be renamed there
    let block = |event: &Event<'_>| {
        if let Event::ShardClosed { .. } = event {
            fs::create_dir_all(&blocked).unwrap();
        }
    };
    let error =
        capture(job(&store, inputs.clone()), &mut Fake::new(), &block, &AtomicBool::new(false)).unwrap_err();
    assert_eq!(error.category(), Category::Failed);
    assert!(error.to_string().contains("codes/00001.safetensors"), "{error}");
    fs::remove_dir(&blocked).unwrap();
    let summary = run(CaptureJob { resume: true, ..job(&store, inputs) }).unwrap();
    assert!(summary.resumed_clips > 0);
    assert_same(&store, &whole, "a disk that refused");
}
