//! The one error type of this crate: every refusal names the file, the field, what was found and what was expected.

use std::path::PathBuf;

/// Why audio could not be read, cut, resampled or written.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// The file could not be opened (missing, no permission).
    #[error("audio file `{}` cannot be opened for reading", path.display())]
    Open {
        /// The file as the caller named it.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The path names a directory, a pipe, a device.
    #[error("audio file `{}` is a {found}, expected a regular file", path.display())]
    NotAFile {
        /// The path as the caller named it.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },
    /// The file has zero bytes.
    #[error("audio file `{}` has 0 bytes, expected an audio file", path.display())]
    ZeroBytes {
        /// The file.
        path: PathBuf,
    },
    /// No reader recognised the content, or its header is broken.
    #[error(
        "audio file `{}` cannot be read as audio ({reason}), expected one of {}",
        path.display(),
        crate::FORMATS
    )]
    Unrecognised {
        /// The file.
        path: PathBuf,
        /// What the readers said.
        reason: String,
    },
    /// The container is known, but what is in it cannot be decoded.
    #[error("audio file `{}`: {found}, expected one of {}", path.display(), crate::CODECS)]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What was found: no audio track, or a codec and the reason against it.
        found: String,
    },
    /// One field of the file has a value outside what is accepted.
    #[error("audio file `{}`: `{field}` is {found}, expected {expected}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Which field: `sample rate`, `channels`, ...
        field: &'static str,
        /// Its value.
        found: String,
        /// The accepted values.
        expected: String,
    },
    /// The file is well formed and holds no audio.
    #[error("audio file `{}` holds 0 samples, expected at least 1", path.display())]
    NoSamples {
        /// The file.
        path: PathBuf,
    },
    /// The file holds less than it declares.
    #[error("audio file `{}` is truncated or damaged: {found}, expected {expected}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// How much there is.
        found: String,
        /// How much was declared, and where.
        expected: String,
    },
    /// The content is damaged beyond what decoding can step over.
    #[error("audio file `{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A float file holds a NaN or an infinity.
    #[error(
        "audio file `{}`: sample {index} of channel {channel} is {value}, expected a finite number",
        path.display()
    )]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// Position in the channel, from 0, after gapless trimming.
        index: u64,
        /// Channel, from 0.
        channel: usize,
        /// The value.
        value: f32,
    },
    /// The decoder panicked; nothing else is affected.
    #[error("audio file `{}`: the decoder panicked while {doing}: {message}", path.display())]
    Panicked {
        /// The file.
        path: PathBuf,
        /// Which step.
        doing: &'static str,
        /// The panic's message.
        message: String,
    },
    /// The operating system failed in the middle of the file.
    #[error("audio file `{}` cannot be read further", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A window, stride, start or duration that cannot be cut.
    #[error("`{field}` is {found}, expected {expected}")]
    Window {
        /// Which of `window`, `stride`, `start`, `duration`, `rate`.
        field: &'static str,
        /// Its value.
        found: String,
        /// The accepted values.
        expected: String,
    },
    /// The range asked for lies outside the file.
    #[error("audio file `{}`: `start` is {start} s, expected less than the file's {length} s", path.display())]
    PastTheEnd {
        /// The file.
        path: PathBuf,
        /// Start asked for, in seconds.
        start: f64,
        /// Length of the file, in seconds.
        length: f64,
    },
    /// A whole file taken as one clip is longer than the caller allows.
    #[error(
        "audio file `{}` is longer than the longest clip: found more than {longest} s, expected at most that; give a window",
        path.display()
    )]
    ClipTooLong {
        /// The file.
        path: PathBuf,
        /// The longest clip allowed, in seconds.
        longest: f64,
    },
    /// The resampler refused a pair of rates or a block.
    #[error("resampling from {from} Hz to {to} Hz failed: {reason}")]
    Resample {
        /// Rate of the input, in Hz.
        from: u32,
        /// Rate of the output, in Hz.
        to: u32,
        /// What the resampler said.
        reason: String,
    },
    /// A sample whose chroma is asked for is not a number.
    #[error("chroma: sample {index} is {value}, expected a finite number")]
    ChromaNonFinite {
        /// Position in the signal, from 0.
        index: usize,
        /// The value.
        value: f32,
    },
    /// WAV output could not be written.
    #[error("wav output cannot be written")]
    Write(#[from] std::io::Error),
    /// A sample handed to the WAV writer is not a number.
    #[error("wav output: sample {index} is {value}, expected a finite number")]
    WriteNonFinite {
        /// Position in the interleaved stream, from 0.
        index: u64,
        /// The value.
        value: f32,
    },
    /// WAV's 32-bit sizes cannot hold the stream.
    #[error(
        "wav output: the data would be {found} bytes, expected at most {limit} (RIFF sizes have 32 bits)"
    )]
    WriteTooLong {
        /// Bytes asked for.
        found: u64,
        /// The most that fits.
        limit: u64,
    },
}

/// Who has to act on an [`AudioError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The audio file.
    Input,
    /// The caller's options.
    Usage,
    /// The place written to.
    Output,
}

impl AudioError {
    /// Whether the file, the options or the output is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            AudioError::Window { .. } | AudioError::Resample { .. } => Blame::Usage,
            AudioError::Write(_) | AudioError::WriteNonFinite { .. } | AudioError::WriteTooLong { .. } => {
                Blame::Output
            }
            _ => Blame::Input,
        }
    }
}
