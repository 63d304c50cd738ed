//! From files to clips: what a user of the crate does, and how much of a long file is held.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use auscult_audio::wav::{Encoding, WavWriter};
use auscult_audio::{AudioError, Blame, ClipSource, LastClip, Stream, Strictness, Windows, load, open};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/audio").join(name)
}

#[test]
fn clips_are_slices_of_the_whole() {
    // 2 s at 44.1 kHz, resampled to 32 kHz: 64000 samples.
    let file = fixture("stereo_vbr_44k.mp3");
    let whole = load(&file, 32_000).unwrap();
    assert_eq!(whole.len(), 64_000);
    let windows = Windows { window: Some(0.75), stride: Some(0.5), start: 0.1, ..Windows::default() };
    let clips: Vec<_> = open(&file, 32_000, &windows).unwrap().map(Result::unwrap).collect();
    let starts: Vec<_> = clips.iter().map(|c| (c.start_sample, c.samples.len(), c.partial)).collect();
    assert_eq!(
        starts,
        [(3200, 24_000, false), (19_200, 24_000, false), (35_200, 24_000, false), (51_200, 12_800, true)]
    );
    for clip in &clips {
        let start = clip.start_sample as usize;
        assert_eq!(clip.samples, whole[start..start + clip.samples.len()]);
        assert_eq!(clip.start_seconds, start as f64 / 32_000.0);
        assert_eq!(clip.end_seconds, (start + clip.samples.len()) as f64 / 32_000.0);
    }
}

#[test]
fn without_a_window_the_file_is_one_clip() {
    let mut source = open(fixture("mono_32k.mp3"), 32_000, &Windows::default()).unwrap();
    let clip = source.next().unwrap().unwrap();
    assert!(source.next().is_none());
    assert_eq!((clip.start_sample, clip.samples.len(), clip.partial), (0, 64_000, false));
    assert_eq!(clip.samples, load(fixture("mono_32k.mp3"), 32_000).unwrap());
    assert_eq!((source.report().frames, source.report().corrupt_packets), (64_000, 0));
    assert_eq!(source.describe_resampling(), "none (32000 Hz already)");
}

#[test]
fn a_start_beyond_the_end_is_refused() {
    let file = fixture("mono_32k.mp3");
    for start in [2.0, 30.0] {
        let windows = Windows { start, window: Some(1.0), ..Windows::default() };
        let mut source = open(&file, 32_000, &windows).unwrap();
        let error = source.next().unwrap().unwrap_err();
        let want = format!(
            "audio file `{}`: `start` is {start} s, expected less than the file's 2 s",
            file.display()
        );
        assert_eq!((error.to_string(), error.blame()), (want, Blame::Input));
        assert!(source.next().is_none(), "an error ends the clips");
    }
}

#[test]
fn a_file_shorter_than_its_window_can_be_dropped() {
    let windows = Windows { window: Some(3.0), last: LastClip::Drop, ..Windows::default() };
    assert_eq!(open(fixture("mono_32k.mp3"), 32_000, &windows).unwrap().count(), 0);
}

#[test]
fn a_duration_ends_reading_early() {
    let windows = Windows { duration: Some(0.25), ..Windows::default() };
    let mut source = open(fixture("mono_32k.mp3"), 32_000, &windows).unwrap();
    assert_eq!(source.next().unwrap().unwrap().samples.len(), 8000);
    assert!(source.next().is_none());
    assert!(source.report().frames < 12_000, "{:?}", source.report());
}

#[test]
fn bad_windows_are_the_callers_fault() {
    let windows = Windows { window: Some(-1.0), ..Windows::default() };
    let error = open(fixture("mono_32k.mp3"), 32_000, &windows).err().unwrap();
    assert_eq!(error.blame(), Blame::Usage);
}

/// Ten minutes of 8-bit audio at 8 kHz, written as a stream.
fn long_file(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("long.wav");
    let mut wav =
        WavWriter::new(BufWriter::new(File::create(&path).unwrap()), 8000, 1, Encoding::Int16).unwrap();
    let second: Vec<f32> = (0..8000u16).map(|i| (f32::from(i) * 0.05).sin() * 0.5).collect();
    for _ in 0..600 {
        wav.write(&second).unwrap();
    }
    assert_eq!(wav.finish().unwrap().frames, 4_800_000);
    path
}

#[test]
fn a_long_file_is_held_one_window_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = long_file(&folder);
    let windows = Windows { window: Some(10.0), ..Windows::default() };
    let mut source = open(&file, 32_000, &windows).unwrap();
    let mut clips = 0;
    for clip in source.by_ref() {
        assert_eq!(clip.unwrap().samples.len(), 320_000);
        clips += 1;
    }
    assert_eq!(clips, 60);
    // The window, and twice (in the cutter, in the block) what one packet of 1152 becomes: at most two blocks of 4096.
    assert!(source.most_buffered() <= 320_000 + 2 * 8192, "{}", source.most_buffered());
}

#[test]
fn a_file_too_long_for_one_clip_is_refused_before_it_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let file = long_file(&folder);
    let stream = Stream::open(&file, 32_000, Strictness::Strict).unwrap();
    let mut source = ClipSource::new(stream, &Windows::default()).unwrap().longest_clip(30 * 32_000);
    let error = source.next().unwrap().unwrap_err();
    assert!(matches!(error, AudioError::ClipTooLong { longest: 30.0, .. }), "{error}");
    assert!(source.most_buffered() <= 30 * 32_000 + 3 * 8192, "{}", source.most_buffered());

    let stream = Stream::open(&file, 32_000, Strictness::Strict).unwrap();
    let windows = Windows { window: Some(30.0), ..Windows::default() };
    let source = ClipSource::new(stream, &windows).unwrap().longest_clip(30 * 32_000);
    assert_eq!(source.map(Result::unwrap).count(), 20, "clips of exactly the limit pass");
}
