//! The WAV writer byte for byte, and the synthesiser's promises.

use std::io::Cursor;

use auscult_audio::synth::{self, Occurrence};
use auscult_audio::wav::{Encoding, WavWriter, Written, write};
use auscult_audio::{Blame, load};

#[test]
fn int16_is_rounded_limited_and_counted() {
    let lsb = 1.0 / 32768.0;
    let samples = [0.0, 0.5, -0.5, 0.49 * lsb, 0.5 * lsb, -0.5 * lsb, 1.0, -1.0, 1.0001, -7.0];
    let mut bytes = Cursor::new(Vec::new());
    let written = write(&mut bytes, 32_000, &samples, Encoding::Int16).unwrap();
    assert_eq!(written, Written { frames: 10, clipped: 2 });
    let stored: Vec<i16> =
        bytes.into_inner()[44..].chunks(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
    assert_eq!(stored, [0, 16384, -16384, 0, 1, -1, 32767, -32768, 32767, -32768]);
}

#[test]
fn headers_are_plain_and_their_sizes_right() {
    let mut int16 = Cursor::new(Vec::new());
    write(&mut int16, 24_000, &[0.25; 7], Encoding::Int16).unwrap();
    let want = [
        &b"RIFF\x32\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\xc0\x5d\0\0\x80\xbb\0\0\x02\0\x10\0data\x0e\0\0\0"[..],
        &[0x00, 0x20].repeat(7),
    ]
    .concat();
    assert_eq!(int16.into_inner(), want);

    let mut float = Cursor::new(b"before".to_vec());
    float.set_position(6);
    write(&mut float, 8000, &[1.5], Encoding::Float32).unwrap();
    let want = [
        &b"beforeRIFF\x36\0\0\0WAVEfmt \x12\0\0\0\x03\0\x01\0\x40\x1f\0\0\0\x7d\0\0\x04\0\x20\0\0\0"[..],
        b"fact\x04\0\0\0\x01\0\0\0data\x04\0\0\0",
        &1.5f32.to_le_bytes(),
    ]
    .concat();
    assert_eq!(float.into_inner(), want);
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("float.wav");
    let piece = synth::render(0.7, 22_050, 3);
    write(std::fs::File::create(&path).unwrap(), 22_050, &piece.samples, Encoding::Float32).unwrap();
    assert_eq!(load(&path, 22_050).unwrap(), piece.samples);

    // 16-bit audio survives being read and written again.
    let (first, second) = (folder.path().join("a.wav"), folder.path().join("b.wav"));
    write(std::fs::File::create(&first).unwrap(), 22_050, &piece.samples, Encoding::Int16).unwrap();
    let read = load(&first, 22_050).unwrap();
    write(std::fs::File::create(&second).unwrap(), 22_050, &read, Encoding::Int16).unwrap();
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    let mut wav = WavWriter::new(Cursor::new(Vec::new()), 8000, 2, Encoding::Int16).unwrap();
    wav.write(&[0.0; 3]).unwrap();
    let error = wav.write(&[0.0, f32::NAN]).unwrap_err();
    assert_eq!(error.to_string(), "wav output: sample 4 is NaN, expected a finite number");
    assert_eq!(error.blame(), Blame::Output);
    let error = wav.finish().unwrap_err();
    assert_eq!(error.to_string(), "`samples written` is 3, expected a multiple of the 2 channels");
    for (rate, channels, want) in [
        (0, 1, "`rate` is 0 Hz, expected 1000..=768000 Hz"),
        (8000, 0, "`channels` is 0, expected 1..=64"),
        (8000, 65, "`channels` is 65, expected 1..=64"),
    ] {
        let error = WavWriter::new(Cursor::new(Vec::new()), rate, channels, Encoding::Int16).err().unwrap();
        assert_eq!(error.to_string(), want);
    }
}

#[test]
fn a_full_disk_is_an_error_with_its_cause() {
    struct Full(Cursor<Vec<u8>>);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0.get_ref().len() + bytes.len() > 100 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.0.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    impl std::io::Seek for Full {
        fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
    let error = write(Full(Cursor::new(Vec::new())), 8000, &[0.0; 50], Encoding::Int16).unwrap_err();
    assert_eq!(error.to_string(), "wav output cannot be written");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_piece_is_deterministic_within_full_scale_and_its_motif_returns() {
    let piece = synth::render(14.5, 16_000, 7);
    assert_eq!(piece.samples.len(), 232_000);
    assert_eq!(piece.samples, synth::render(14.5, 16_000, 7).samples);
    assert_ne!(piece.samples, synth::render(14.5, 16_000, 8).samples);
    let peak = piece.samples.iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!((0.3..0.999).contains(&peak), "peak {peak}: audible, and nothing was limited");

    let at = |start_seconds, end_seconds, transposed| Occurrence { start_seconds, end_seconds, transposed };
    assert_eq!(piece.motif, [at(0.0, 2.0, 0), at(6.0, 8.0, 0), at(12.0, 14.0, 5)]);
}

/// Strength of `hz` in `samples`, by correlation.
fn strength(samples: &[f32], rate: f64, hz: f64) -> f64 {
    let (mut re, mut im) = (0.0, 0.0);
    for (i, &x) in samples.iter().enumerate() {
        let phase = std::f64::consts::TAU * hz * i as f64 / rate;
        re += f64::from(x) * phase.cos();
        im += f64::from(x) * phase.sin();
    }
    re.hypot(im) / samples.len() as f64
}

#[test]
fn the_motif_is_heard_where_it_is_said_to_be() {
    let rate = 16_000;
    let piece = synth::render(16.0, rate, 21);
    // The third to eighth of its notes in semitones above A4; the first two and the last share pitches with the chord.
    let notes = [7, 5, 3, 7, 10, 7];
    for occurrence in &piece.motif {
        for (i, note) in notes.iter().enumerate() {
            let start = ((occurrence.start_seconds + (i as f64 + 2.0) * 0.25) * f64::from(rate)) as usize;
            let played = &piece.samples[start..start + 3600];
            let hz = |semitones: i32| 440.0 * 2f64.powf(f64::from(semitones) / 12.0);
            let here = strength(played, rate.into(), hz(note + occurrence.transposed));
            // A tritone off: in none of the chords of the home bar.
            let elsewhere = strength(played, rate.into(), hz(note + occurrence.transposed + 6));
            assert!(here > 5.0 * elsewhere, "{occurrence:?} note {i}: {here} {elsewhere}");
        }
    }
}
