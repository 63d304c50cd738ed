//! What a run stores is what the model says of the audio.

use super::*;

#[test]
fn rows_codes_and_index_are_those_of_the_audio() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inputs = from_paths(&music(dir.path())).unwrap();
    let store = out.path().join("store");
    let mut model = Fake::new();
    let summary = capture(job(&store, inputs), &mut model, &(), &AtomicBool::new(false)).unwrap();
    assert_eq!((summary.outcome, summary.clips, summary.resumed_clips), (Outcome::Finished, 11, 0));
    assert!(summary.failed.is_empty());
    assert!((summary.audio_seconds - 15_200.0 / 8000.0).abs() < 1e-9);
    assert!(verify(&store).unwrap().is_sound());

    let reader = StoreReader::open(&store).unwrap();
    assert_eq!(reader.clips().len(), 11);
    assert_eq!(reader.clips().iter().map(|clip| clip.positions).sum::<usize>(), summary.positions);
    let mut checked = 0;
    for (name, count) in [("a", 4000), ("b", 1600), ("c", 3200), ("d", 1), ("e", 6399usize)] {
        let audio = samples(&format!("{name}.wav"), count);
        for (k, clip) in audio.chunks(1600).enumerate() {
            let id = format!("{name}@{}-{}", k * 1600, k * 1600 + clip.len());
            let row = reader.clip(&id).unwrap();
            assert_eq!(
                (row.start_seconds, row.partial),
                ((k * 1600) as f64 / 8000.0, clip.len() < 1600),
                "{id}"
            );
            assert_eq!(
                (row.frames, row.positions),
                (clip.len().div_ceil(HOP), clip.len().div_ceil(HOP) + 1),
                "{id}"
            );
            assert_eq!((row.track_id.as_str(), row.source_sample_rate), (name, RATE));
            let hash = FileRecord::of(dir.path().join(format!("{name}.wav"))).unwrap().sha256;
            assert_eq!(row.audio_sha256, hash);
            let codes = model.codes(clip);
            assert_eq!(reader.codes(&id).unwrap(), codes, "{id}");
            for (hook, site) in model.hooks.iter().enumerate() {
                assert_eq!(
                    reader.rows(&site.hook, &id).unwrap(),
                    model.rows(&codes, hook),
                    "{id} {}",
                    site.hook
                );
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 11);

    let record = run_json(&store);
    assert_eq!(record.inputs.len(), 5);
    let audio = record.inputs[0].audio.as_ref().unwrap();
    assert_eq!((audio.codec.as_str(), audio.sample_rate, audio.frames), ("pcm_f32le", RATE, 4000));
    assert!(audio.resampler.starts_with("none"), "{}", audio.resampler);
    assert_eq!(record.models[0].sha256, "5".repeat(64));
    assert_eq!(record.details["clips"], 11);
    assert!(record.finished.is_some() && record.started.ends_with('Z'), "{}", record.started);
}

#[test]
fn batches_hold_one_length_and_never_span_shards() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inputs = from_paths(&music(dir.path())).unwrap();
    for (batch, expected) in [
        // a0 a1 | a2, b c0 | c1, d, e0 | e1 e2 | e3: full clips have 11 rows, shards (|) end with 20 or more
        (
            Batch::Auto,
            vec![
                vec![1600, 1600],
                vec![800],
                vec![1600, 1600],
                vec![1600],
                vec![1],
                vec![1600],
                vec![1600, 1600],
                vec![1599],
            ],
        ),
        (
            Batch::Clips(1),
            vec![
                vec![1600],
                vec![1600],
                vec![800],
                vec![1600],
                vec![1600],
                vec![1600],
                vec![1],
                vec![1600],
                vec![1600],
                vec![1600],
                vec![1599],
            ],
        ),
    ] {
        let mut model = Fake::new();
        let job =
            CaptureJob { batch, shard_rows: 20, ..job(&out.path().join(batch.to_string()), inputs.clone()) };
        capture(job, &mut model, &(), &AtomicBool::new(false)).unwrap();
        assert_eq!(model.batches.into_inner().unwrap(), expected, "{batch}");
    }
    let (auto, one) = (tree(&out.path().join("auto")), tree(&out.path().join("1")));
    assert_eq!(
        auto["logits/00001.safetensors"], one["logits/00001.safetensors"],
        "shards do not follow batches"
    );
}

#[test]
fn whole_files_cuts_and_limits() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inputs = from_paths(&music(dir.path())).unwrap();
    let cut = |name: &str, windows: Windows, limit: Option<usize>| -> Vec<String> {
        let store = out.path().join(name);
        run(CaptureJob { windows, limit, ..job(&store, inputs.clone()) }).unwrap();
        assert!(verify(&store).unwrap().is_sound(), "{name}");
        StoreReader::open(&store).unwrap().clips().iter().map(|clip| clip.clip_id.clone()).collect()
    };
    let windows = Windows { window: Some(0.2), ..Windows::default() };
    // 30 frames of 160 samples are the longest clip: e.wav, of 6399 samples, fails
    let whole = cut("whole", Windows::default(), None);
    assert_eq!(whole, ["a@0-4000", "b@0-1600", "c@0-3200", "d@0-1"]);
    let message = &run_json(&out.path().join("whole")).details["failed"][0]["message"];
    assert!(message.as_str().unwrap().contains("give a window"), "{message}");
    let full = cut("full", Windows { last: LastClip::Drop, ..windows }, None);
    assert_eq!(
        full,
        [
            "a@0-1600",
            "a@1600-3200",
            "b@0-1600",
            "c@0-1600",
            "c@1600-3200",
            "e@0-1600",
            "e@1600-3200",
            "e@3200-4800"
        ]
    );
    assert_eq!(cut("limit", windows, Some(4)), ["a@0-1600", "a@1600-3200", "a@3200-4000", "b@0-1600"]);
    let strided = Windows { stride: Some(0.1), start: 0.3, duration: Some(0.25), ..windows };
    // files that end before the start fail, the others go on
    assert_eq!(
        cut("stride", strided, None)[..3],
        ["a@2400-4000", "c@2400-3200", "e@2400-4000"].map(String::from)
    );
}

#[test]
fn resampled_audio_keeps_its_length() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = wav(dir.path(), "x.wav", 11_025, 5000);
    let store = out.path().join("store");
    run(job(&store, from_paths(&[path]).unwrap())).unwrap();
    let reader = StoreReader::open(&store).unwrap();
    let last = reader.clips().last().unwrap();
    // ceil(5000 * 8000 / 11025)
    assert_eq!(last.clip_id, "x@3200-3629");
    assert_eq!(last.source_sample_rate, 11_025);
    let record = run_json(&store);
    let resampler = &record.inputs[0].audio.as_ref().unwrap().resampler;
    assert!(resampler.contains("11025 Hz to 8000 Hz"), "{resampler}");
}

/// One batch in flight, or none, or none where there is no room for it: the same store.
#[test]
fn a_batch_in_flight_changes_nothing() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inputs = from_paths(&music(dir.path())).unwrap();
    let store = |name: &str, mut model: Fake| {
        let store = out.path().join(name);
        let order = Mutex::new(Vec::new());
        let watch = |event: &Event<'_>| {
            if let Event::Computed { clips, input, .. } = event {
                order.lock().unwrap().push((*clips, *input));
            }
        };
        capture(job(&store, inputs.clone()), &mut model, &watch, &AtomicBool::new(false)).unwrap();
        assert_eq!(Arc::strong_count(&model.running), 1, "{name}: all batches were finished");
        (tree(&store), order.into_inner().unwrap(), model.calls)
    };
    let (whole, order, calls) = store("one after another", Fake { puts_off: false, ..Fake::new() });
    for (name, again, model) in [
        ("in flight", 0, Fake::new()),
        ("no room for two", 0, Fake { room: 1, ..Fake::new() }),
        ("no room to finish one beside another", 1, Fake { room_to_finish: 1, ..Fake::new() }),
    ] {
        let (found, told, asked) = store(name, model);
        assert!(found == whole, "{name}: another store");
        assert_eq!(told, order, "{name}");
        assert_eq!(asked > calls, again == 1, "{name}: {asked} calls, {calls} without");
    }
}
