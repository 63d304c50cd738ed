//! What is known of a file before and after decoding: the records that end up beside results.

use std::fmt;
use std::path::PathBuf;

/// How damage inside a file is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// A file that ends before its declared length, or whose checksum differs, is an error.
    #[default]
    Strict,
    /// What can be decoded is used; the shortfall stands in the [`DecodeReport`].
    Lenient,
}

/// The silence that an encoder added at both ends, and what was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gapless {
    /// The file declares no encoder delay or padding; nothing was trimmed.
    NoneDeclared,
    /// Frames removed from the decoder's output.
    Trimmed {
        /// Frames removed at the start (encoder delay).
        start: u64,
        /// Frames removed at the end (padding), where the file says how many.
        end: Option<u64>,
        /// Where this is declared: `LAME tag`, `iTunSMPB`, `edit list`, `Ogg granule position`, ...
        declared_by: &'static str,
    },
}

impl fmt::Display for Gapless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gapless::NoneDeclared => write!(f, "none declared"),
            Gapless::Trimmed { start, end: Some(end), declared_by } => {
                write!(f, "trimmed {start} frames at the start and {end} at the end ({declared_by})")
            }
            Gapless::Trimmed { start, end: None, declared_by } => {
                write!(f, "trimmed {start} frames at the start and the excess at the end ({declared_by})")
            }
        }
    }
}

/// What a file's header says. A frame is one sample of every channel.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceInfo {
    /// The file as the caller named it.
    pub path: PathBuf,
    /// Short name of the codec: `pcm_s16le`, `mp3`, `vorbis`, ...
    pub codec: &'static str,
    /// Short name of the container: `wave`, `ogg`, `isomp4`, ...
    pub container: &'static str,
    /// Samples a second of each channel, in Hz.
    pub sample_rate: u32,
    /// Number of channels, 1..=64.
    pub channels: usize,
    /// Bits of a stored sample; none for lossy codecs.
    pub bits: Option<u32>,
    /// Encoder delay and padding.
    pub gapless: Gapless,
    /// Frames after trimming that the file declares it holds; none where it declares nothing binding.
    pub frames_declared: Option<u64>,
    /// Frames after trimming as far as can be told without decoding: the declaration, else an estimate from the bit
    /// rate, else none.
    pub frames_estimated: Option<u64>,
}

impl SourceInfo {
    /// Length in seconds without decoding: exact where frames are declared, else an estimate, else none.
    pub fn seconds(&self) -> Option<f64> {
        self.frames_estimated.map(|n| n as f64 / f64::from(self.sample_rate))
    }
}

/// What decoding found; complete once the decoder has reached the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DecodeReport {
    /// Frames given out, after trimming, concealed ones included.
    pub frames: u64,
    /// Packets that could not be decoded, and gaps where the demuxer dropped some.
    pub corrupt_packets: u64,
    /// Frames of silence put in the place of corrupt packets, so that what follows keeps its time.
    pub concealed_frames: u64,
    /// The first packet's error, as the decoder put it.
    pub first_corruption: Option<String>,
    /// Whether the decoded audio matches the file's own checksum; none where it has none or it was not reached.
    pub checksum_matches: Option<bool>,
}
