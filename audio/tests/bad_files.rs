//! Files that must be refused, and what the refusal says: the file, the field, what was found, what was expected.

use std::fs;
use std::path::{Path, PathBuf};

use auscult_audio::wav::{Encoding, WavWriter};
use auscult_audio::{AudioError, Blame, DecodeReport, Decoder, Strictness, load, probe, synth};

fn fixture(name: &str) -> Vec<u8> {
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/audio").join(name)).unwrap()
}

/// A folder of its own for one test's files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// A plain WAV file of format `tag` (1 PCM, 3 float) around `data`.
fn wav(tag: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
    let frame = channels * bits / 8;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + data.len() as u32).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16u32.to_le_bytes());
    bytes.extend(tag.to_le_bytes());
    bytes.extend(channels.to_le_bytes());
    bytes.extend(rate.to_le_bytes());
    bytes.extend(rate.wrapping_mul(frame.into()).to_le_bytes());
    bytes.extend(frame.to_le_bytes());
    bytes.extend(bits.to_le_bytes());
    bytes.extend(b"data");
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

fn refusal(path: &Path) -> AudioError {
    load(path, 32_000).err().unwrap_or_else(|| panic!("{} was read", path.display()))
}

/// The message with the folder taken out.
fn said(path: &Path) -> String {
    let error = refusal(path);
    assert_eq!(error.blame(), Blame::Input, "{error}");
    error.to_string().replace(&format!("{}/", path.parent().unwrap().display()), "")
}

#[test]
fn things_that_are_not_audio_files() {
    let folder = Folder::new();
    let formats = "WAV, AIFF, CAF, FLAC, MP1, MP2, MP3, ADTS AAC, Ogg, MP4/M4A, Matroska/WebM";
    let missing = folder.0.path().join("missing.wav");
    assert_eq!(said(&missing), "audio file `missing.wav` cannot be opened for reading");
    let source = std::error::Error::source(&refusal(&missing)).unwrap().to_string();
    assert!(source.contains("No such file") || source.contains("cannot find"), "{source}");

    let directory = folder.0.path().join("directory.wav");
    fs::create_dir(&directory).unwrap();
    assert_eq!(said(&directory), "audio file `directory.wav` is a directory, expected a regular file");

    let empty = folder.file("empty.mp3", b"");
    assert_eq!(said(&empty), "audio file `empty.mp3` has 0 bytes, expected an audio file");

    let text = folder.file("text.wav", "not a sound, only a sentence\n".repeat(200).as_bytes());
    let message = said(&text);
    assert!(message.starts_with("audio file `text.wav` cannot be read as audio ("), "{message}");
    assert!(message.ends_with(&format!("expected one of {formats}")), "{message}");

    let header_only = folder.file("header.wav", &fixture("pcm_s16le.wav")[..30]);
    let want = "audio file `header.wav` is truncated or damaged: it ends inside its header or index, expected a \
                whole header";
    assert_eq!(said(&header_only), want);
}

#[test]
#[cfg(unix)]
fn an_unreadable_file_and_a_pipe() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let locked = folder.file("locked.wav", &fixture("pcm_u8.wav"));
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser may read anything; for everybody else the refusal names the file.
    match fs::File::open(&locked) {
        Ok(_) => assert!(load(&locked, 32_000).is_ok()),
        Err(_) => assert_eq!(said(&locked), "audio file `locked.wav` cannot be opened for reading"),
    }
    assert_eq!(
        refusal(Path::new("/dev/null")).to_string(),
        "audio file `/dev/null` is a pipe or device, expected a regular file"
    );
}

#[test]
fn headers_outside_the_accepted_values() {
    let folder = Folder::new();
    let data = [0x12; 64];
    for (name, bytes, want) in [
        ("1hz.wav", wav(1, 1, 1, 16, &data), "`sample rate` is 1 Hz, expected 1000..=768000 Hz"),
        ("999hz.wav", wav(1, 1, 999, 16, &data), "`sample rate` is 999 Hz, expected 1000..=768000 Hz"),
        ("fast.wav", wav(1, 1, 768_001, 16, &data), "`sample rate` is 768001 Hz, expected 1000..=768000 Hz"),
    ] {
        let path = folder.file(name, &bytes);
        let message = said(&path);
        assert_eq!(message, format!("audio file `{name}`: {want}"));
        assert!(probe(&path).is_err(), "{name}: the header alone is enough to refuse it");
    }
}

#[test]
fn zero_samples_and_zero_hertz() {
    let folder = Folder::new();
    let none = folder.file("none.wav", &wav(1, 2, 8000, 16, &[]));
    assert_eq!(said(&none), "audio file `none.wav` holds 0 samples, expected at least 1");
    let still = folder.file("still.wav", &wav(1, 1, 0, 16, &[1; 64]));
    assert!(said(&still).starts_with("audio file `still.wav`"), "{}", said(&still));
}

#[test]
fn one_sample_the_highest_rate_and_many_channels_are_read() {
    let folder = Folder::new();
    let one = folder.file("one.wav", &wav(1, 1, 32_000, 16, &0x4000i16.to_le_bytes()));
    assert_eq!(load(&one, 32_000).unwrap(), [0.5]);
    // ceil(1 * 24000 / 32000)
    assert_eq!(load(&one, 24_000).unwrap().len(), 1);

    let seconds = 0.25;
    let piece = synth::render(seconds, 768_000, 5);
    let fast = folder.0.path().join("fast.wav");
    let file = fs::File::create(&fast).unwrap();
    auscult_audio::wav::write(file, 768_000, &piece.samples, Encoding::Float32).unwrap();
    let info = probe(&fast).unwrap();
    assert_eq!((info.sample_rate, info.seconds()), (768_000, Some(seconds)));
    assert_eq!(load(&fast, 32_000).unwrap().len(), 8000);

    let many = folder.0.path().join("many.wav");
    let mut writer = WavWriter::new(fs::File::create(&many).unwrap(), 8000, 18, Encoding::Float32).unwrap();
    let frame: Vec<f32> = (0..18u8).map(|c| f32::from(c) / 64.0).collect();
    writer.write(&frame).unwrap();
    writer.finish().unwrap();
    assert_eq!(load(&many, 8000).unwrap(), [17.0 / 2.0 / 64.0]);
}

#[test]
fn float_files_with_nan_or_infinity_name_the_sample() {
    let folder = Folder::new();
    for (name, value, says) in [("nan.wav", f32::NAN, "NaN"), ("inf.wav", f32::NEG_INFINITY, "-inf")] {
        // 3000 stereo frames, beyond the first block, with the bad one in the right channel of frame 2345.
        let mut samples = vec![0.25f32; 6000];
        samples[2 * 2345 + 1] = value;
        let data: Vec<u8> = samples.iter().flat_map(|x| x.to_le_bytes()).collect();
        let path = folder.file(name, &wav(3, 2, 8000, 32, &data));
        let want =
            format!("audio file `{name}`: sample 2345 of channel 1 is {says}, expected a finite number");
        assert_eq!(said(&path), want);
    }
}

#[test]
fn float_files_above_full_scale_keep_their_values() {
    let folder = Folder::new();
    let data: Vec<u8> = [1.5f32, -2.25, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let path = folder.file("loud.wav", &wav(3, 1, 8000, 32, &data));
    assert_eq!(load(&path, 8000).unwrap(), [1.5, -2.25, 0.0]);
}

/// Decodes to the end without strictness.
fn salvage(path: &Path) -> DecodeReport {
    let mut decoder = Decoder::open(path, Strictness::Lenient).unwrap_or_else(|e| panic!("{e}"));
    while decoder.next_channels().unwrap_or_else(|e| panic!("{e}")).is_some() {}
    decoder.report().clone()
}

#[test]
fn truncated_files_say_how_much_is_missing_and_can_be_salvaged() {
    let folder = Folder::new();
    for (name, whole_frames) in [
        ("pcm_u8.wav", 12_000),
        ("pcm_s24le.wav", 12_000),
        ("pcm_f64le.wav", 6000),
        ("eight_channels.wav", 3200),
        ("flac_s16.flac", 27_563),
        ("mono_32k.mp3", 64_000),
        ("stereo_vbr_44k.mp3", 88_200),
        ("vorbis_44k.ogg", 88_200),
    ] {
        let whole = fixture(name);
        let path = folder.file(name, &whole[..whole.len() * 2 / 3]);
        let message = said(&path);
        assert!(message.starts_with(&format!("audio file `{name}` is truncated or damaged: ")), "{message}");
        let report = salvage(&path);
        assert!(report.frames > 0 && report.frames < whole_frames * 3 / 4, "{name}: {report:?}");
    }
    // Their index stands at the end, or the demuxer reads to the end for one: nothing is left to go by.
    for name in ["alac.m4a", "alac.caf", "aac_44k.m4a", "pcm_s16be.aiff", "vorbis_44k.mka"] {
        let whole = fixture(name);
        let path = folder.file(name, &whole[..whole.len() * 2 / 3]);
        assert!(said(&path).starts_with(&format!("audio file `{name}` ")), "{}", said(&path));
    }
}

#[test]
fn a_flipped_bit_in_flac_fails_its_checksum_and_keeps_its_time_when_salvaged() {
    let folder = Folder::new();
    let mut bytes = fixture("flac_s16.flac");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    let path = folder.file("flipped.flac", &bytes);
    let want =
        "audio file `flipped.flac` is damaged: the decoded samples do not match the file's own checksum";
    assert_eq!(said(&path), want);

    let report = salvage(&path);
    assert_eq!((report.frames, report.corrupt_packets, report.checksum_matches), (27_563, 1, Some(false)));
    let mut decoder = Decoder::open(&path, Strictness::Lenient).unwrap();
    let mut samples = Vec::new();
    while decoder.next_mono(&mut samples).unwrap() {}
    let want = synth::render(1.25, 22_050, 12).samples;
    let wrong: Vec<usize> =
        (0..want.len()).filter(|&i| (samples[i] - want[i]).abs() > 0.5 / 32768.0 + 1e-7).collect();
    let (first, last) = (wrong[0], wrong[wrong.len() - 1]);
    let concealed = report.concealed_frames as usize;
    assert!(last - first < concealed, "only the lost frame differs: {first}..={last}");
    assert!(samples[first..=last].iter().all(|&x| x == 0.0));
}

#[test]
fn frames_lost_in_the_middle_of_an_mp3_are_missed() {
    let folder = Folder::new();
    let mut bytes = fixture("mono_32k.mp3");
    let start = bytes.len() / 2;
    bytes[start..start + 2000].fill(0x55);
    let path = folder.file("noisy.mp3", &bytes);
    let message = said(&path);
    assert!(message.starts_with("audio file `noisy.mp3` is truncated or damaged: 5"), "{message}");
    assert!(message.ends_with("expected the 64000 frames that its header declares"), "{message}");
}

#[test]
fn an_ogg_file_without_its_last_page_is_truncated_whatever_its_length_says() {
    let folder = Folder::new();
    let whole = fixture("vorbis_44k.ogg");
    let last = whole.windows(4).rposition(|w| w == b"OggS").unwrap();
    let path = folder.file("headless.ogg", &whole[..last]);
    assert!(said(&path).contains("the last page is not flagged as the end of the stream"), "{}", said(&path));
}

#[test]
fn chained_ogg_streams_are_read_one_after_another() {
    let folder = Folder::new();
    let one = fixture("vorbis_44k.ogg");
    let path = folder.file("chain.ogg", &[one.clone(), one].concat());
    let samples = load(&path, 44_100).unwrap();
    assert_eq!(samples.len(), 2 * 88_200);
    assert_eq!(samples[..88_200], samples[88_200..]);
}

#[test]
fn mutated_files_never_bring_the_program_down() {
    let folder = Folder::new();
    let mut dice = 0x9e37_79b9u32;
    let mut next = move || {
        dice ^= dice << 13;
        dice ^= dice >> 17;
        dice ^= dice << 5;
        dice as usize
    };
    let mut read = 0;
    for name in [
        "pcm_s16le.wav",
        "pcm_s16be.aiff",
        "flac_s16.flac",
        "alac.m4a",
        "alac.caf",
        "mono_32k.mp3",
        "vorbis_44k.ogg",
        "vorbis_44k.mka",
        "aac_44k.m4a",
        "aac_44k.aac",
    ] {
        let whole = fixture(name);
        for round in 0..40 {
            let mut bytes = whole.clone();
            for _ in 0..1 + round % 7 {
                // Half of the hits in the header, where they do most.
                let reach = if next() % 2 == 0 { bytes.len().min(400) } else { bytes.len() };
                let at = next() % reach;
                bytes[at] = next() as u8;
            }
            let path = folder.file(name, &bytes);
            // Whether it is read or refused is the file's luck; the samples that come are finite.
            for strictness in [Strictness::Strict, Strictness::Lenient] {
                if let Ok(mut decoder) = Decoder::open(&path, strictness) {
                    read += 1;
                    while let Ok(Some(block)) = decoder.next_channels() {
                        assert!(block.iter().flatten().all(|x| x.is_finite()), "{name} round {round}");
                    }
                    assert!(matches!(decoder.next_channels(), Ok(None)), "{name}: ended streams stay ended");
                }
            }
        }
    }
    assert!(read > 100, "{read} of 800 got as far as samples");
}
