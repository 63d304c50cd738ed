//! Every fixture against the synthesiser's own samples: lossless formats to half a quantisation step, lossy ones by
//! alignment and signal-to-noise ratio; and what is recorded of each.

use std::path::PathBuf;

use auscult_audio::{DecodeReport, Decoder, Gapless, SourceInfo, Strictness, load, probe, synth};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/audio").join(name)
}

/// The piece as rendered for the fixtures (`make.sh`): one channel a seed.
fn rendered(seconds: f64, rate: u32, seeds: &[u64]) -> Vec<Vec<f32>> {
    seeds.iter().map(|&seed| synth::render(seconds, rate, seed).samples).collect()
}

fn mean(channels: &[Vec<f32>]) -> Vec<f32> {
    (0..channels[0].len())
        .map(|i| (channels.iter().map(|c| f64::from(c[i])).sum::<f64>() / channels.len() as f64) as f32)
        .collect()
}

fn decode(name: &str) -> (SourceInfo, Vec<Vec<f32>>, DecodeReport) {
    let mut decoder = Decoder::open(fixture(name), Strictness::Strict).unwrap_or_else(|e| panic!("{e}"));
    let mut planes = vec![Vec::new(); decoder.info().channels];
    while let Some(block) = decoder.next_channels().unwrap_or_else(|e| panic!("{e}")) {
        assert_eq!(block.len(), planes.len(), "{name}");
        for (plane, new) in planes.iter_mut().zip(block) {
            plane.extend_from_slice(new);
        }
    }
    (decoder.info().clone(), planes, decoder.report().clone())
}

/// A file, how it was rendered, what is recorded of it, and the largest error its samples may have.
struct Lossless {
    file: &'static str,
    seconds: f64,
    rate: u32,
    seeds: &'static [u64],
    codec: &'static str,
    container: &'static str,
    bits: Option<u32>,
    step: f64,
}

#[test]
fn lossless_formats_are_exact_to_their_quantisation() {
    let case = |file, codec, container, bits, step| Lossless {
        file,
        seconds: 1.5,
        rate: 8000,
        seeds: &[11],
        codec,
        container,
        bits,
        step,
    };
    // An integer format stores round(x * 2^(bits - 1)): at most half a step off.
    let half = |bits: i32| 0.5 * 2f64.powi(1 - bits);
    let cases = [
        case("pcm_u8.wav", "pcm_u8", "wave", Some(8), half(8)),
        case("pcm_s16le.wav", "pcm_s16le", "wave", Some(16), half(16)),
        // ffmpeg cuts to 24 bits without rounding.
        case("pcm_s24le.wav", "pcm_s24le", "wave", Some(24), 2.0 * half(24)),
        // f32 carries 24 bits; the 32-bit integers of f32 samples are exact.
        case("pcm_s32le.wav", "pcm_s32le", "wave", Some(32), half(32)),
        case("pcm_f32le.wav", "pcm_f32le", "wave", Some(32), 0.0),
        Lossless { seconds: 0.75, ..case("pcm_f64le.wav", "pcm_f64le", "wave", Some(64), 0.0) },
        case("pcm_s16be.aiff", "pcm_s16be", "aiff", Some(16), half(16)),
        // mu-law's steps grow with the sample: the coarsest is 2^-5 of full scale (G.711), half of it the error.
        case("pcm_mulaw.wav", "pcm_mulaw", "wave", None, 0.5 / 32.0),
        Lossless {
            seconds: 0.4,
            seeds: &[1, 2, 3, 4, 5, 6, 7, 8],
            ..case("eight_channels.wav", "pcm_s16le", "wave", Some(16), half(16))
        },
    ];
    let compressed = [
        ("flac_s16.flac", "flac", "flac", Some(16)),
        // The demuxers leave ALAC's depth inside the codec's own header.
        ("alac.m4a", "alac", "isomp4", None),
        ("alac.caf", "alac", "caf", None),
    ];
    let compressed = compressed.map(|(file, codec, container, bits)| Lossless {
        seconds: 1.25,
        rate: 22_050,
        seeds: &[12],
        ..case(file, codec, container, bits, half(16))
    });
    for case in cases.iter().chain(&compressed) {
        let want = rendered(case.seconds, case.rate, case.seeds);
        let (info, got, report) = decode(case.file);
        let frames = want[0].len() as u64;
        assert_eq!(
            (info.codec, info.container, info.sample_rate, info.channels, info.bits),
            (case.codec, case.container, case.rate, case.seeds.len(), case.bits),
            "{}",
            case.file
        );
        assert_eq!(info.gapless, Gapless::NoneDeclared, "{}", case.file);
        // ffmpeg's CAF packet table counts whole packets, here 7 of 4096.
        let declared = if case.container == "caf" { 28_672 } else { frames };
        assert_eq!(info.frames_declared, Some(declared), "{}", case.file);
        assert_eq!(info.seconds(), Some(declared as f64 / f64::from(case.rate)), "{}", case.file);
        assert_eq!((report.frames, report.corrupt_packets), (frames, 0), "{}", case.file);
        for (channel, (got, want)) in got.iter().zip(&want).enumerate() {
            assert_eq!(got.len(), want.len(), "{}", case.file);
            for (i, (got, want)) in got.iter().zip(want).enumerate() {
                let error = f64::from((got - want).abs());
                // 2^-25: the stored value itself rounded to f32.
                assert!(error <= case.step + 2f64.powi(-25), "{} {channel} {i}: {got} {want}", case.file);
            }
        }
        // At its own rate nothing but the channel mean happens to the samples.
        assert_eq!(load(fixture(case.file), case.rate).unwrap(), mean(&got), "{}", case.file);
    }
}

#[test]
fn flac_is_held_to_its_checksum() {
    assert_eq!(decode("flac_s16.flac").2.checksum_matches, Some(true));
    assert_eq!(decode("pcm_s16le.wav").2.checksum_matches, None);
}

/// Sum of squares of `got`, `lag` samples later, minus `want`, over `range` of `want`.
fn noise(got: &[f32], want: &[f32], lag: i64, range: std::ops::Range<i64>) -> f64 {
    let at =
        |x: &[f32], i: i64| usize::try_from(i).ok().and_then(|i| x.get(i)).map_or(0.0, |&x| f64::from(x));
    range.map(|i| (at(got, i + lag) - at(want, i)).powi(2)).sum()
}

/// Lag in samples at which `got` matches `want` best (positive: `got` is late), and the signal-to-noise ratio there
/// in dB.
fn align(got: &[f32], want: &[f32]) -> (i64, f64) {
    // A quarter of a second with melody and drums decides the lag; all of it the ratio.
    let lag = (-1500..=1500)
        .min_by(|&a, &b| noise(got, want, a, 20_000..31_000).total_cmp(&noise(got, want, b, 20_000..31_000)));
    let lag = lag.unwrap();
    let signal: f64 = want.iter().map(|&x| f64::from(x).powi(2)).sum();
    (lag, 10.0 * (signal / noise(got, want, lag, 0..want.len() as i64)).log10())
}

/// A file, how it was rendered, and what must come of it.
struct Lossy {
    file: &'static str,
    rate: u32,
    seeds: &'static [u64],
    codec: &'static str,
    /// Samples by which the decoded audio is late.
    lag: i64,
    /// In dB.
    least_snr: f64,
    frames: u64,
    declared: Option<u64>,
    gapless: Gapless,
}

#[test]
fn lossy_formats_are_aligned_and_close() {
    let trimmed = |start, end, declared_by| Gapless::Trimmed { start, end: Some(end), declared_by };
    let stereo = Lossy {
        file: "stereo_vbr_44k.mp3",
        rate: 44_100,
        seeds: &[14, 15],
        codec: "mp3",
        lag: 0,
        least_snr: 30.0, // 32.2 measured
        frames: 88_200,
        declared: Some(88_200),
        gapless: trimmed(1105, 551, "LAME tag"),
    };
    let cases = [
        Lossy {
            file: "mono_32k.mp3",
            rate: 32_000,
            seeds: &[13],
            least_snr: 23.0, // 25.3 measured
            frames: 64_000,
            declared: Some(64_000),
            gapless: trimmed(1105, 559, "LAME tag"),
            ..stereo
        },
        // No tag: the encoder's 576 samples and the decoder's 529 stay, and so does the padding.
        Lossy {
            file: "untagged_44k.mp3",
            lag: 1105,
            frames: 89_856,
            declared: None,
            gapless: Gapless::NoneDeclared,
            ..stereo
        },
        Lossy {
            file: "vorbis_44k.ogg",
            codec: "vorbis",
            least_snr: 26.0, // 28.3 measured
            gapless: trimmed(128, 568, "Ogg granule position"),
            ..stereo
        },
        // Matroska marks the padding on the last block (DiscardPadding), which the demuxer does not pass on.
        Lossy {
            file: "vorbis_44k.mka",
            codec: "vorbis",
            least_snr: 26.0,
            frames: 88_768,
            declared: None,
            gapless: Gapless::NoneDeclared,
            ..stereo
        },
        Lossy { file: "aac_44k.m4a", codec: "aac", gapless: trimmed(1024, 0, "edit list"), ..stereo },
        // ADTS has no place for delay and padding.
        Lossy {
            file: "aac_44k.aac",
            codec: "aac",
            lag: 1024,
            frames: 90_112,
            declared: None,
            gapless: Gapless::NoneDeclared,
            ..stereo
        },
    ];
    for case in &cases {
        let want = mean(&rendered(2.0, case.rate, case.seeds));
        let (info, got, report) = decode(case.file);
        let (lag, snr) = align(&mean(&got), &want);
        println!("{}: {snr:.1} dB", case.file);
        assert_eq!(
            (info.codec, info.sample_rate, info.channels, info.bits),
            (case.codec, case.rate, case.seeds.len(), None),
            "{}",
            case.file
        );
        assert_eq!(lag, case.lag, "{}: lag", case.file);
        assert!(snr >= case.least_snr, "{}: {snr:.1} dB, expected {} dB", case.file, case.least_snr);
        assert_eq!((report.frames, report.corrupt_packets), (case.frames, 0), "{}", case.file);
        assert_eq!(info.frames_declared, case.declared, "{}", case.file);
        assert_eq!(info.gapless, case.gapless, "{}", case.file);
        // Estimates without a declaration: within a tenth of the truth.
        let estimated = probe(fixture(case.file)).unwrap().seconds().unwrap();
        let truth = case.frames as f64 / f64::from(case.rate);
        assert!((estimated / truth - 1.0).abs() < 0.1, "{}: {estimated} s of {truth} s", case.file);
    }
}
