//! Streaming decoder: any file symphonia reads, one block of samples after another, trimmed of encoder delay and
//! padding, with damage counted, concealed in time, or refused.
//!
//! It does not resample or cut ([`crate::resample`], [`crate::Windows`]), and it does not seek: a position is reached
//! by decoding up to it, which is exact in every format.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, Track, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::packet::Packet;

use crate::guard::{guarded, open_file};
use crate::source::{DecodeReport, SourceInfo, Strictness};
use crate::trim::{self, Trim};
use crate::{AudioError, MAX_CHANNELS, RATE_RANGE, SAMPLE_RATES};

/// Frames of one block of concealing silence.
const SILENCE_BLOCK: u64 = 4096;
/// Longest gap in a file's own frame numbers that is concealed, in frames.
const LONGEST_GAP: u64 = 1 << 20;
/// Longest packet that is concealed; no codec here makes packets of more than 8192 frames but FLAC (65535).
const LONGEST_PACKET: u64 = 65_536;

/// An open audio file being decoded.
pub struct Decoder {
    info: SourceInfo,
    report: DecodeReport,
    strictness: Strictness,
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    trim: Trim,
    /// Frames of concealing silence due before the next decoded block.
    silence: u64,
    /// Number of the frame that the next packet should begin with, where packets carry frame numbers (FLAC).
    due: Option<u64>,
    /// The block decoded last, one plane a channel, and whether it still has to be given out.
    decoded: Vec<Vec<f32>>,
    decoded_waits: bool,
    /// The block given out last.
    block: Vec<Vec<f32>>,
    /// What the container says against its own end, once that is known.
    cut: Option<String>,
    ended: bool,
}

/// What one packet came to.
enum Fetched {
    /// `decoded` holds its samples.
    Block,
    /// It could not be decoded; it would have held so many frames.
    Corrupt(u64),
    /// There are no more.
    End,
}

impl Decoder {
    /// Opens a file: recognises the container by content, takes its first audio track with a known codec, and decodes
    /// the first packet, so that what [`Decoder::info`] says of rate and channels is what comes out.
    ///
    /// # Errors
    /// Everything that is wrong with the file, by name: see [`AudioError`].
    pub fn open(path: impl AsRef<Path>, strictness: Strictness) -> Result<Self, AudioError> {
        let path = path.as_ref();
        let file = open_file(path)?;
        let mut hint = Hint::new();
        if let Some(extension) = path.extension().and_then(|e| e.to_str()) {
            hint.with_extension(extension);
        }
        let stream = MediaSourceStream::new(Box::new(file), Default::default());
        let probe = symphonia::default::get_probe();
        let format = guarded(path, "reading its header", || {
            probe.probe(&hint, stream, Default::default(), Default::default())
        })?
        .map_err(|e| match e {
            Symphonia::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => AudioError::Truncated {
                path: path.to_owned(),
                found: "it ends inside its header or index".to_owned(),
                expected: "a whole header".to_owned(),
            },
            Symphonia::IoError(source) => AudioError::Read { path: path.to_owned(), source },
            e => AudioError::Unrecognised { path: path.to_owned(), reason: e.to_string() },
        })?;
        Self::from_format(path, format, strictness)
    }

    /// The same from a container that is already open; `path` is read again where the demuxer keeps back something
    /// that trimming needs.
    pub(crate) fn from_format(
        path: &Path,
        mut format: Box<dyn FormatReader>,
        strictness: Strictness,
    ) -> Result<Self, AudioError> {
        let unsupported = |found: String| AudioError::Unsupported { path: path.to_owned(), found };
        let container = format.format_info().short_name;
        let Some(track) = format.first_track_known_codec(TrackType::Audio).cloned() else {
            return Err(unsupported(format!("no audio track with a known codec in this {container} file")));
        };
        let cut = if container == "ogg" { trim::ogg_tail(path)? } else { None };
        let trim = trim::plan(path, &mut *format, &track)?;
        let decoder = make_decoder(path, &track, trim.by_decoder)?;
        let params = decoder.codec_params();
        let codec = decoder.codec_info().short_name;
        let bits = match codec {
            _ if codec.contains("f32") => Some(32),
            _ if codec.contains("f64") => Some(64),
            _ if codec.starts_with("pcm_") || matches!(codec, "flac" | "alac") => params.bits_per_sample,
            _ => None,
        };
        // CAF says 0 where the codec's own header has the depth.
        let bits = bits.filter(|&bits| bits > 0);
        let info = SourceInfo {
            path: path.to_owned(),
            codec,
            container,
            sample_rate: params.sample_rate.unwrap_or(0),
            channels: params.channels.as_ref().map_or(0, |c| c.count()),
            bits,
            gapless: trim.gapless,
            frames_declared: trim.declared,
            frames_estimated: trim.declared.or(trim.estimated),
        };
        let mut this = Decoder {
            info,
            report: DecodeReport::default(),
            strictness,
            format,
            decoder,
            track: track.id,
            trim,
            silence: 0,
            due: None,
            decoded: Vec::new(),
            decoded_waits: false,
            block: Vec::new(),
            cut,
            ended: false,
        };
        this.start()?;
        Ok(this)
    }

    /// What the header says, with rate and channels as the first block has them.
    pub fn info(&self) -> &SourceInfo {
        &self.info
    }

    /// What decoding has found so far.
    pub fn report(&self) -> &DecodeReport {
        &self.report
    }

    /// The next block, one plane of equal length a channel, each sample a finite number (full scale is 1); none at
    /// the end.
    ///
    /// # Errors
    /// The first thing that is wrong with the file; after an error the stream has ended.
    pub fn next_channels(&mut self) -> Result<Option<&[Vec<f32>]>, AudioError> {
        let more = self.advance().inspect_err(|_| self.ended = true);
        Ok(if more? { Some(&self.block) } else { None })
    }

    /// Appends the next block's channel mean to `out`; false at the end. The mean is taken in f64 and rounded once.
    ///
    /// # Errors
    /// As [`Decoder::next_channels`].
    pub fn next_mono(&mut self, out: &mut Vec<f32>) -> Result<bool, AudioError> {
        match self.next_channels()? {
            None => Ok(false),
            Some([only]) => {
                out.extend_from_slice(only);
                Ok(true)
            }
            Some(planes) => {
                let channels = planes.len() as f64;
                let frames = planes.first().map_or(0, Vec::len);
                out.extend((0..frames).map(|i| {
                    let sum: f64 = planes.iter().map(|plane| f64::from(plane[i])).sum();
                    (sum / channels) as f32
                }));
                Ok(true)
            }
        }
    }

    /// Decodes up to the first block, and takes rate and channels from it.
    fn start(&mut self) -> Result<(), AudioError> {
        loop {
            match self.fetch()? {
                Fetched::Corrupt(frames) => self.silence += frames,
                Fetched::End if self.report.corrupt_packets > 0 => return Err(self.nothing_decoded()),
                Fetched::End => return Err(AudioError::NoSamples { path: self.path() }),
                Fetched::Block => break,
            }
        }
        self.decoded_waits = true;
        Ok(())
    }

    /// Puts the next block of at least one frame into `block`; false at the end.
    fn advance(&mut self) -> Result<bool, AudioError> {
        while !self.ended {
            if self.silence > 0 {
                let frames = self.silence.min(SILENCE_BLOCK);
                self.silence -= frames;
                self.report.concealed_frames += frames;
                self.block.resize_with(self.info.channels, Vec::new);
                for plane in &mut self.block {
                    plane.clear();
                    plane.resize(frames as usize, 0.0);
                }
            } else if std::mem::take(&mut self.decoded_waits) {
                std::mem::swap(&mut self.block, &mut self.decoded);
            } else {
                match self.fetch()? {
                    Fetched::Block => self.decoded_waits = true,
                    Fetched::Corrupt(frames) => self.silence += frames,
                    Fetched::End => self.end()?,
                }
                continue;
            }
            self.trim.apply(&mut self.block);
            if self.trim.complete() {
                self.end()?;
            }
            let frames = self.block.first().map_or(0, Vec::len);
            if frames > 0 {
                self.check_finite()?;
                self.report.frames += frames as u64;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads and decodes the track's next packet.
    fn fetch(&mut self) -> Result<Fetched, AudioError> {
        let packet = loop {
            let format = &mut self.format;
            match guarded(&self.info.path, "reading a packet", || format.next_packet())? {
                Ok(Some(packet)) if packet.track_id == self.track => break packet,
                Ok(Some(_)) => {}
                Ok(None) => return Ok(Fetched::End),
                Err(Symphonia::ResetRequired) => self.next_stream()?,
                Err(Symphonia::IoError(e)) if e.kind() == ErrorKind::UnexpectedEof => {
                    // These two containers index their packets: one that is not there has been cut off.
                    if matches!(self.info.container, "isomp4" | "matroska") {
                        self.cut = Some("a packet reaches past the end of the file".to_owned());
                    }
                    return Ok(Fetched::End);
                }
                Err(Symphonia::IoError(source)) => {
                    return Err(AudioError::Read { path: self.path(), source });
                }
                Err(e) if self.strictness == Strictness::Lenient => {
                    self.corrupt(e.to_string());
                    return Ok(Fetched::End);
                }
                Err(e) => return Err(self.damaged(format!("{e}, after {} frames", self.report.frames))),
            }
        };
        self.trim.first_packet(&packet, self.info.sample_rate);
        self.info.gapless = self.trim.gapless;
        self.conceal_gap(&packet)?;
        let (decoder, decoded) = (&mut self.decoder, &mut self.decoded);
        let spec = guarded(&self.info.path, "decoding a packet", || {
            decoder.decode(&packet).map(|audio| {
                audio.copy_to_vecs_planar::<f32>(decoded);
                (audio.spec().rate(), audio.spec().channels().count())
            })
        })?;
        match spec {
            Ok((rate, channels)) => {
                self.check_spec(rate, channels)?;
                Ok(Fetched::Block)
            }
            Err(Symphonia::Unsupported(what)) => Err(AudioError::Unsupported {
                path: self.path(),
                found: format!("codec {} with {what}", self.info.codec),
            }),
            Err(Symphonia::LimitError(what)) => Err(self.damaged(format!("a limit was reached: {what}"))),
            Err(e) => {
                if matches!(e, Symphonia::ResetRequired) {
                    self.decoder.reset();
                }
                self.corrupt(e.to_string());
                let frames = self.packet_frames(&packet);
                if frames > LONGEST_PACKET {
                    return Err(
                        self.damaged(format!("a packet that cannot be decoded claims {frames} frames"))
                    );
                }
                Ok(Fetched::Corrupt(frames))
            }
        }
    }

    /// FLAC's demuxer drops frames whose checksum fails; the next one's own number tells how much is missing.
    fn conceal_gap(&mut self, packet: &Packet) -> Result<(), AudioError> {
        if self.info.container != "flac" {
            return Ok(());
        }
        let Ok(begins) = u64::try_from(packet.pts.get()) else { return Ok(()) };
        let gap = begins.saturating_sub(self.due.unwrap_or(begins));
        self.due = Some(begins.saturating_add(packet.dur.get()));
        if gap > LONGEST_GAP {
            return Err(self.damaged(format!("{gap} frames are missing before frame {begins}")));
        }
        if gap > 0 {
            self.corrupt(format!("{gap} frames are missing before frame {begins}"));
            self.silence += gap;
        }
        Ok(())
    }

    /// Goes on with the next stream of a chained file; its blocks must be like those before.
    fn next_stream(&mut self) -> Result<(), AudioError> {
        let Some(track) = self.format.first_track_known_codec(TrackType::Audio).cloned() else {
            return Err(self.damaged("a later stream in it has no audio".to_owned()));
        };
        self.decoder = make_decoder(&self.info.path, &track, self.trim.by_decoder)?;
        self.track = track.id;
        // What the first stream declared is not the length of the chain.
        self.trim.declared = None;
        self.info.frames_declared = None;
        Ok(())
    }

    /// Frames that a packet holds, by its own timing.
    fn packet_frames(&self, packet: &Packet) -> u64 {
        let track = self.format.tracks().iter().find(|t| t.id == self.track);
        let Some(base) = track.and_then(|t| t.time_base) else { return 0 };
        trim::scale(packet.dur.get(), base.numer.get(), self.info.sample_rate, base.denom.get())
    }

    /// The first block decides rate and channels; a later one may not differ.
    fn check_spec(&mut self, rate: u32, channels: usize) -> Result<(), AudioError> {
        let first = self.report.frames == 0 && !self.decoded_waits && self.block.is_empty();
        if first {
            self.info.sample_rate = rate;
            self.info.channels = channels;
            let (field, found, expected) = if !SAMPLE_RATES.contains(&rate) {
                ("sample rate", format!("{rate} Hz"), RATE_RANGE.to_owned())
            } else if channels == 0 || channels > MAX_CHANNELS {
                ("channels", channels.to_string(), format!("1..={MAX_CHANNELS}"))
            } else {
                return Ok(());
            };
            return Err(AudioError::Field { path: self.path(), field, found, expected });
        }
        if (rate, channels) != (self.info.sample_rate, self.info.channels) {
            return Err(self.damaged(format!(
                "it changes from {} Hz and {} channels to {rate} Hz and {channels} channels after {} frames",
                self.info.sample_rate, self.info.channels, self.report.frames
            )));
        }
        Ok(())
    }

    fn check_finite(&self) -> Result<(), AudioError> {
        for (channel, plane) in self.block.iter().enumerate() {
            if let Some(i) = plane.iter().position(|x| !x.is_finite()) {
                let index = self.report.frames + i as u64;
                return Err(AudioError::NonFinite { path: self.path(), index, channel, value: plane[i] });
            }
        }
        Ok(())
    }

    /// The stream is over: holds what came against what was declared.
    fn end(&mut self) -> Result<(), AudioError> {
        self.ended = true;
        let decoder = &mut self.decoder;
        let last = guarded(&self.info.path, "finishing", || decoder.finalize())?;
        self.report.checksum_matches = last.verify_ok;
        // The block that completed the length is still to be counted.
        let waiting = self.block.first().map_or(0, Vec::len) as u64;
        let frames = if self.trim.complete() { self.report.frames + waiting } else { self.report.frames };
        if frames == 0 {
            return Err(if self.report.corrupt_packets > 0 {
                self.nothing_decoded()
            } else {
                AudioError::NoSamples { path: self.path() }
            });
        }
        if self.strictness == Strictness::Lenient {
            return Ok(());
        }
        let truncated = |found: String, expected: String| {
            Err(AudioError::Truncated { path: self.info.path.clone(), found, expected })
        };
        if let Some(cut) = &self.cut {
            return truncated(format!("{cut} (after {frames} frames)"), "a whole file".to_owned());
        }
        if let Some(declared) = self.trim.declared
            && frames + self.trim.tolerance < declared
        {
            let expected = format!("the {declared} frames that its header declares");
            return truncated(format!("{frames} frames"), expected);
        }
        if last.verify_ok == Some(false) {
            return Err(self.damaged("the decoded samples do not match the file's own checksum".to_owned()));
        }
        Ok(())
    }

    fn corrupt(&mut self, what: String) {
        self.report.corrupt_packets += 1;
        self.report.first_corruption.get_or_insert(what);
    }

    fn nothing_decoded(&self) -> AudioError {
        self.damaged(format!(
            "none of its {} packets could be decoded (first: {})",
            self.report.corrupt_packets,
            self.report.first_corruption.as_deref().unwrap_or("unknown")
        ))
    }

    fn damaged(&self, reason: String) -> AudioError {
        AudioError::Damaged { path: self.path(), reason }
    }

    fn path(&self) -> PathBuf {
        self.info.path.clone()
    }
}

fn make_decoder(path: &Path, track: &Track, gapless: bool) -> Result<Box<dyn AudioDecoder>, AudioError> {
    let unsupported = |found: String| AudioError::Unsupported { path: path.to_owned(), found };
    let Some(CodecParameters::Audio(params)) = &track.codec_params else {
        return Err(unsupported("a track without codec parameters".to_owned()));
    };
    let options = AudioDecoderOptions::default().gapless(gapless).verify(true);
    let codecs = symphonia::default::get_codecs();
    guarded(path, "setting up its codec", || codecs.make_audio_decoder(params, &options))?
        .map_err(|e| unsupported(format!("codec {} cannot be decoded ({e})", params.codec)))
}

#[cfg(test)]
mod faults;
