//! Faults that no small file brings about, made by a demuxer that tampers with another one's packets.

use std::path::{Path, PathBuf};

use symphonia::core::errors::{Error, Result};
use symphonia::core::formats::{FormatInfo, FormatReader, MediaInfo, SeekMode, SeekTo, SeekedTo, Track};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::Metadata;
use symphonia::core::packet::Packet;

use super::Decoder;
use crate::guard::open_file;
use crate::{AudioError, Strictness};

/// What happens at packet 20.
#[derive(Clone, Copy)]
enum Fault {
    None,
    Panic,
    Io,
    Malformed,
    /// It and the two after it hold zeros in place of a frame.
    Blank,
    /// As `Blank`, and each claims an absurd length.
    BlankAndEndless,
}

struct Tampered {
    inner: Box<dyn FormatReader>,
    fault: Fault,
    packets: u32,
}

impl FormatReader for Tampered {
    fn format_info(&self) -> &FormatInfo {
        self.inner.format_info()
    }

    fn media_info(&self) -> &MediaInfo {
        self.inner.media_info()
    }

    fn metadata(&mut self) -> Metadata<'_> {
        self.inner.metadata()
    }

    fn seek(&mut self, mode: SeekMode, to: SeekTo) -> Result<SeekedTo> {
        self.inner.seek(mode, to)
    }

    fn tracks(&self) -> &[Track] {
        self.inner.tracks()
    }

    fn next_packet(&mut self) -> Result<Option<Packet>> {
        let mut packet = self.inner.next_packet()?;
        self.packets += 1;
        if let (20..=22, Some(packet)) = (self.packets, &mut packet) {
            match self.fault {
                Fault::None => {}
                Fault::Panic => panic!("index out of bounds, say"),
                Fault::Io => return Err(Error::IoError(std::io::Error::other("the disk is gone"))),
                Fault::Malformed => return Err(Error::DecodeError("a made-up fault")),
                Fault::Blank => packet.data.fill(0),
                Fault::BlankAndEndless => {
                    packet.data.fill(0);
                    packet.dur = symphonia::core::units::Duration::new(1 << 40);
                }
            }
        }
        Ok(packet)
    }

    fn into_inner<'s>(self: Box<Self>) -> MediaSourceStream<'s>
    where
        Self: 's,
    {
        unreachable!("nobody takes the stream back")
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/audio/mono_32k.mp3")
}

fn tampered(fault: Fault, strictness: Strictness) -> Decoder {
    let path = fixture();
    let stream = MediaSourceStream::new(Box::new(open_file(&path).unwrap()), Default::default());
    let probe = symphonia::default::get_probe();
    let inner = probe.probe(&Default::default(), stream, Default::default(), Default::default()).unwrap();
    Decoder::from_format(&path, Box::new(Tampered { inner, fault, packets: 0 }), strictness).unwrap()
}

/// Everything up to the end or an error.
fn drain(decoder: &mut Decoder) -> (Vec<f32>, Option<AudioError>) {
    let mut samples = Vec::new();
    loop {
        match decoder.next_mono(&mut samples) {
            Ok(true) => {}
            Ok(false) => return (samples, None),
            Err(e) => return (samples, Some(e)),
        }
    }
}

#[test]
fn a_panic_becomes_an_error_of_the_file_and_ends_the_stream() {
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        let mut decoder = tampered(Fault::Panic, strictness);
        let (samples, error) = drain(&mut decoder);
        // 19 packets of 1152, less the encoder's delay.
        assert_eq!(samples.len(), 19 * 1152 - 1105);
        let want = format!(
            "audio file `{}`: the decoder panicked while reading a packet: index out of bounds, say",
            fixture().display()
        );
        assert_eq!(error.unwrap().to_string(), want);
        assert!(matches!(decoder.next_channels(), Ok(None)));
    }
}

#[test]
fn corrupt_packets_are_counted_and_replaced_by_as_much_silence() {
    let (whole, none) = drain(&mut tampered(Fault::None, Strictness::Strict));
    assert!(none.is_none());
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        let mut decoder = tampered(Fault::Blank, strictness);
        let (samples, error) = drain(&mut decoder);
        assert!(error.is_none(), "{error:?}");
        let report = decoder.report();
        assert_eq!((report.corrupt_packets, report.concealed_frames), (3, 3 * 1152));
        assert!(report.first_corruption.is_some());
        assert_eq!(samples.len(), whole.len());
        let gap = 19 * 1152 - 1105..22 * 1152 - 1105;
        assert!(samples[gap.clone()].iter().all(|&x| x == 0.0));
        assert_eq!(samples[..gap.start], whole[..gap.start]);
        // The bit reservoir and the overlap carry the damage into the next two frames, not further.
        assert_eq!(samples[gap.end + 2 * 1152..], whole[gap.end + 2 * 1152..]);
    }
}

#[test]
fn a_corrupt_packet_of_absurd_length_is_refused() {
    let (_, error) = drain(&mut tampered(Fault::BlankAndEndless, Strictness::Lenient));
    let error = error.unwrap().to_string();
    assert!(error.ends_with("a packet that cannot be decoded claims 1099511627776 frames"), "{error}");
}

#[test]
fn a_malformed_container_is_an_error_or_the_end() {
    let (_, error) = drain(&mut tampered(Fault::Malformed, Strictness::Strict));
    let error = error.unwrap().to_string();
    assert!(error.ends_with("is damaged: malformed stream: a made-up fault, after 20783 frames"), "{error}");

    let mut decoder = tampered(Fault::Malformed, Strictness::Lenient);
    let (samples, error) = drain(&mut decoder);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(samples.len(), 20_783);
    assert_eq!(decoder.report().corrupt_packets, 1);
}

#[test]
fn a_failing_disk_is_an_error_even_when_lenient() {
    let (_, error) = drain(&mut tampered(Fault::Io, Strictness::Lenient));
    assert!(matches!(error, Some(AudioError::Read { .. })), "{error:?}");
}

#[test]
fn the_first_block_decides_and_limits_rate_and_channels() {
    let mut decoder = tampered(Fault::None, Strictness::Strict);
    for (rate, channels, want) in [
        (32_000, 65, "`channels` is 65, expected 1..=64"),
        (32_000, 0, "`channels` is 0, expected 1..=64"),
        (1, 1, "`sample rate` is 1 Hz, expected 1000..=768000 Hz"),
    ] {
        decoder.decoded_waits = false;
        let error = decoder.check_spec(rate, channels).unwrap_err().to_string();
        assert!(error.ends_with(want), "{error}");
    }
    assert!(decoder.check_spec(768_000, 64).is_ok());
    decoder.decoded_waits = true;
    let error = decoder.check_spec(768_000, 2).unwrap_err().to_string();
    assert!(
        error.contains("it changes from 768000 Hz and 64 channels to 768000 Hz and 2 channels"),
        "{error}"
    );
}
