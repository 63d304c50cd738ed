//! Files that cannot be used, hashes that differ, options that cannot be served.

use super::*;

#[test]
fn bad_files_are_listed_and_the_rest_is_captured() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let good = wav(dir.path(), "good.wav", RATE, 3000);
    let empty = wav(dir.path(), "empty.wav", RATE, 0);
    let bytes = fs::read(&good).unwrap();
    let short = dir.path().join("short.wav");
    fs::write(&short, &bytes[..bytes.len() - 4000]).unwrap();
    let nothing = dir.path().join("nothing.wav");
    fs::write(&nothing, "").unwrap();
    let text = dir.path().join("text.wav");
    fs::write(&text, "these are no samples").unwrap();
    let directory = dir.path().join("directory.wav");
    fs::create_dir(&directory).unwrap();
    let missing = dir.path().join("missing.wav");
    let last = wav(dir.path(), "last.wav", RATE, 1600);
    let bad = [empty, short, nothing, text, directory, missing];
    let mut paths = vec![good];
    paths.extend(bad.clone());
    paths.push(last);
    let store = out.path().join("store");
    let seen = Mutex::new(Vec::new());
    let watch = |event: &Event<'_>| {
        if let Event::InputFailed(failure) = event {
            seen.lock().unwrap().push(failure.input);
        }
    };
    let job = job(&store, from_paths(&paths).unwrap());
    let summary = capture(job, &mut Fake::new(), &watch, &AtomicBool::new(false)).unwrap();
    assert_eq!(summary.outcome, Outcome::Finished);
    assert_eq!(summary.failed.iter().map(|failure| failure.input).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(seen.into_inner().unwrap(), [1, 2, 3, 4, 5, 6]);
    for (failure, path) in summary.failed.iter().zip(&bad) {
        assert_eq!(failure.audio_path, path.to_str().unwrap());
        assert_eq!(failure.reason, Reason::BadInput);
        assert!(failure.message.contains(path.to_str().unwrap()), "{}", failure.message);
    }
    let reader = StoreReader::open(&store).unwrap();
    let ids: Vec<&str> = reader.clips().iter().map(|clip| clip.clip_id.as_str()).collect();
    // of a truncated file, what lies before the fault is kept, and the failure says how many clips that is
    let kept = summary.failed[1].clips;
    assert_eq!(ids.iter().filter(|id| id.starts_with("short@")).count(), kept);
    assert!(
        ids.starts_with(&["good@0-1600", "good@1600-3000"]) && ids.ends_with(&["last@0-1600"]),
        "{ids:?}"
    );
    let listed = run_json(&store).details["failed"].as_array().unwrap().len();
    assert_eq!(listed, 6);
    assert!(verify(&store).unwrap().is_sound());
}

#[test]
fn nothing_is_left_when_no_file_can_be_used() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let missing = dir.path().join("missing.wav");
    let store = out.path().join("store");
    let error = run(job(&store, from_paths(&[missing]).unwrap())).unwrap_err();
    assert_eq!(error.category(), Category::BadInput);
    assert!(error.to_string().contains("missing.wav"), "{error}");
    assert!(!store.exists());

    let short = wav(dir.path(), "short.wav", RATE, 800);
    let windows = Windows { window: Some(0.2), last: LastClip::Drop, ..Windows::default() };
    let error = run(CaptureJob { windows, ..job(&store, from_paths(&[short]).unwrap()) }).unwrap_err();
    assert!(error.to_string().contains("shorter than the window"), "{error}");
    assert!(!store.exists());
}

#[test]
fn options_that_cannot_be_served_start_nothing() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inputs = from_paths(&music(dir.path())).unwrap();
    let store = out.path().join("store");
    let windows =
        |window, stride, start, duration| Windows { window, stride, start, duration, last: LastClip::Keep };
    let base = || job(&store, inputs.clone());
    for (job, option, part) in [
        (
            CaptureJob { windows: windows(Some(0.6001), None, 0.0, None), ..base() },
            "--window",
            "at most 0.6 s",
        ),
        (CaptureJob { windows: windows(Some(0.0), None, 0.0, None), ..base() }, "--window", "one sample"),
        (
            CaptureJob { windows: windows(Some(f64::NAN), None, 0.0, None), ..base() },
            "--window",
            "one sample",
        ),
        (
            CaptureJob { windows: windows(Some(0.2), Some(-1.0), 0.0, None), ..base() },
            "--stride",
            "one sample",
        ),
        (CaptureJob { windows: windows(None, Some(0.2), 0.0, None), ..base() }, "--stride", "a window"),
        (CaptureJob { windows: windows(None, None, -0.1, None), ..base() }, "--start", "at least 0 s"),
        (CaptureJob { windows: windows(None, None, 0.0, Some(0.0)), ..base() }, "--duration", "one sample"),
        (
            CaptureJob { windows: Windows { last: LastClip::Drop, ..Windows::default() }, ..base() },
            "--drop-last",
            "a window",
        ),
        (CaptureJob { limit: Some(0), ..base() }, "--limit", "at least 1"),
        (CaptureJob { batch: Batch::Clips(0), ..base() }, "--batch", "at least 1"),
        (CaptureJob { shard_rows: 0, ..base() }, "shard rows", "at least 1"),
        (CaptureJob { inputs: Vec::new(), ..base() }, "AUDIO", "at least one"),
    ] {
        let error = run(job).unwrap_err();
        assert_eq!(error.category(), Category::Usage, "{error}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("`{option}`")) && text.contains(part), "{text}");
        assert!(!store.exists(), "{option}");
    }
    // the longest window there is
    run(CaptureJob { windows: windows(Some(0.6), None, 0.0, None), ..base() }).unwrap();
}

#[test]
fn manifests_choose_parts_and_promise_hashes() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    music(dir.path());
    let manifest = dir.path().join("m.jsonl");
    let hash = FileRecord::of(dir.path().join("a.wav")).unwrap().sha256;
    let first = format!(
        r#"{{"track_id":"A","audio_path":"a.wav","sha256":"{hash}","windows":[{{"start_seconds":0.1,"end_seconds":0.4}},{{"start_seconds":0.4,"end_seconds":0.6}}]}}"#
    );
    let capture_rows = |second: &str, store: &Path, window| {
        fs::write(&manifest, format!("{first}\n{second}\n")).unwrap();
        let windows = Windows { window, ..Windows::default() };
        run(CaptureJob { windows, ..job(store, from_manifest(&manifest, dir.path()).unwrap()) })
    };
    let ids = |store: &Path| -> Vec<(String, bool)> {
        let reader = StoreReader::open(store).unwrap();
        reader.clips().iter().map(|clip| (clip.clip_id.clone(), clip.partial)).collect()
    };
    let clip = |id: &str, partial| (id.to_string(), partial);
    let store = out.path().join("whole");
    capture_rows(r#"{"track_id":"B","audio_path":"b.wav","start":0.1}"#, &store, None).unwrap();
    // a.wav ends at sample 4000, inside its second window
    assert_eq!(
        ids(&store),
        [clip("A@800-3200", false), clip("A@3200-4000", true), clip("B@800-1600", false)]
    );
    assert_eq!(StoreReader::open(&store).unwrap().clips()[0].audio_path, "a.wav");
    let store = out.path().join("cut");
    capture_rows(r#"{"track_id":"B","audio_path":"b.wav","duration":0.1}"#, &store, Some(0.2)).unwrap();
    let expected = [
        clip("A@800-2400", false),
        clip("A@2400-3200", true),
        clip("A@3200-4000", true),
        clip("B@0-800", true),
    ];
    assert_eq!(ids(&store), expected);

    let wrong = format!(r#"{{"track_id":"B","audio_path":"b.wav","sha256":"{}"}}"#, "7".repeat(64));
    let store = out.path().join("wrong");
    let error = capture_rows(&wrong, &store, None).unwrap_err();
    assert_eq!(error.category(), Category::Refused);
    assert!(error.to_string().contains("b.wav") && error.to_string().contains("777"), "{error}");
    assert!(!store.join(SHA256SUMS).exists(), "a refused run finishes nothing");
}
