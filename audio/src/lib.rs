//! Samples in and out of files: decoding to mono, resampling to a model's rate, cutting into clips, writing WAV and FLAC; the
//! chroma of a melody, and a small synthesiser for music of the project's own.
//!
//! ```no_run
//! use auscult_audio::{Windows, open};
//!
//! # fn main() -> Result<(), auscult_audio::AudioError> {
//! let windows = Windows { window: Some(10.0), ..Windows::default() };
//! for clip in open("track.flac", 32_000, &windows)? {
//!     let clip = clip?;
//!     let seconds = clip.end_seconds - clip.start_seconds; // clip.samples: mono f32 at 32 kHz
//! #   let _ = seconds;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Everything streams: a two-hour file is held one window at a time. The crate prints nothing, and knows no tensors,
//! models or directories.

pub mod chroma;
mod clip;
pub mod decode;
mod error;
pub mod flac;
mod guard;
mod loudness;
mod mp4;
mod ogg;
pub mod resample;
mod source;
pub mod synth;
mod trim;
pub mod wav;
mod window;

pub use clip::{ClipSource, Stream, load, open, probe};
pub use decode::Decoder;
pub use error::{AudioError, Blame};
pub use loudness::integrated_loudness;
pub use resample::Resampler;
pub use source::{DecodeReport, Gapless, SourceInfo, Strictness};
pub use window::{Clip, LastClip, Windows};

/// Sample rates that are read and resampled, in Hz.
pub const SAMPLE_RATES: std::ops::RangeInclusive<u32> = 1_000..=768_000;
/// [`SAMPLE_RATES`] as messages say it.
pub(crate) const RATE_RANGE: &str = "1000..=768000 Hz";
/// The most channels a file may have.
pub const MAX_CHANNELS: usize = 64;
/// Containers that are read, as messages list them.
pub(crate) const FORMATS: &str = "WAV, AIFF, CAF, FLAC, MP1, MP2, MP3, ADTS AAC, Ogg, MP4/M4A, Matroska/WebM";
/// Codecs that are decoded, as messages list them.
pub(crate) const CODECS: &str = "PCM, ADPCM, FLAC, ALAC, MP1, MP2, MP3, AAC-LC, Vorbis";
