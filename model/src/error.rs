//! The one error of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// Why a checkpoint, a configuration or a conversion was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A configuration field holds a value that no model of this kind can have.
    #[error("{}: `{field}` is {found}, expected {expected}", file.display())]
    Config {
        /// The configuration file.
        file: PathBuf,
        /// Dotted path of the field.
        field: String,
        /// What the file holds.
        found: String,
        /// What is allowed, and where the expectation comes from.
        expected: String,
    },
    /// The configuration is a valid one of a model that this engine does not run.
    #[error("{}: `{field}` is {found}: {reason}", file.display())]
    Unsupported {
        /// The configuration file.
        file: PathBuf,
        /// Dotted path of the field.
        field: String,
        /// What the file holds.
        found: String,
        /// What is not supported, and what is.
        reason: String,
    },
    /// A file that is malformed, or disagrees with another one.
    #[error("{}: {message}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What was found and what was expected.
        message: String,
    },
    /// A pickle that asks for anything but tensor data.
    #[error("{}: refused: pickle asks for `{global}`; only tensor data is read", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// The dotted name of the function or class, or the operation.
        global: String,
    },
    /// A file that could not be opened or written.
    #[error(transparent)]
    Write(#[from] auscult_runtime::files::FileError),
    /// Weights that could not be opened.
    #[error(transparent)]
    Weights(#[from] auscult_runtime::weights::WeightsError),
    /// A graph that its op definitions or sites refuse.
    #[error(transparent)]
    Graph(#[from] auscult_runtime::GraphError),
    /// A run that failed.
    #[error(transparent)]
    Run(#[from] auscult_runtime::RunError),
    /// A device that failed.
    #[error(transparent)]
    Device(#[from] auscult_runtime::DeviceError),
    /// A batch that the device has no memory for.
    #[error("the codec has no memory for a batch of {clips} clips of {frames} frames; {}", told(*fits))]
    Batch {
        /// Clips of the batch.
        clips: usize,
        /// Frames of each.
        frames: usize,
        /// The largest batch that was found to fit; 0 if not even one clip does.
        fits: usize,
        /// What was asked for and what there is.
        source: auscult_runtime::DeviceError,
    },
    /// A name that is no site of the model.
    #[error("site `{name}` does not exist, expected {expected}")]
    Site {
        /// As it was written.
        name: String,
        /// What there is.
        expected: String,
    },
    /// An autoencoder used elsewhere than where it was trained.
    #[error("{autoencoder}: `{field}` is {found}, expected {expected}")]
    Misfit {
        /// Its configuration's file.
        autoencoder: String,
        /// What does not fit, as the configuration calls it.
        field: &'static str,
        /// What the configuration says.
        found: String,
        /// What the place asks for.
        expected: String,
    },
    /// Codes that a model cannot read.
    #[error("codes: {0}")]
    Codes(String),
    /// Audio that a codec cannot encode.
    #[error("audio: {0}")]
    Audio(String),
    /// Tokens or states that a text encoder cannot read.
    #[error("text: {0}")]
    Text(String),
    /// A setting that does not fit the model or the device.
    #[error("`{argument}` is {found}, expected {expected}")]
    Argument {
        /// Which.
        argument: &'static str,
        /// What was asked for.
        found: String,
        /// What is possible.
        expected: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// Verb, as in "read".
        action: &'static str,
        /// What was being read or written.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn told(fits: usize) -> String {
    match fits {
        0 => "not even one clip fits".into(),
        fits => format!("a batch of {fits} fits"),
    }
}

impl ModelError {
    /// A field of `file` that holds `found` where `expected` is required.
    pub fn config(
        file: &Path,
        field: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Config {
            file: file.to_path_buf(),
            field: field.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    /// A field of `file` whose value `found` describes a model that is not supported.
    pub fn unsupported(
        file: &Path,
        field: impl Into<String>,
        found: impl ToString,
        reason: impl Into<String>,
    ) -> Self {
        Self::Unsupported {
            file: file.to_path_buf(),
            field: field.into(),
            found: found.to_string(),
            reason: reason.into(),
        }
    }

    /// A malformed or disagreeing `file`.
    pub fn file(file: &Path, message: impl Into<String>) -> Self {
        Self::File { file: file.to_path_buf(), message: message.into() }
    }

    /// Wraps an I/O error on `path`: `map_err(ModelError::io("read", path))`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

/// Results of this crate.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;
