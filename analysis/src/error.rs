//! The one error type of this crate, and who has to act on it.

use std::path::{Path, PathBuf};

use auscult_audio::{AudioError, Blame};
use auscult_model::ModelError;
use auscult_runtime::files::FileError;
use auscult_runtime::weights::WeightsError;

/// Why a question could not be asked, or its answer not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// An option has a value that cannot be served.
    #[error("`{option}` is {found}, expected {expected}")]
    Usage {
        /// The option or argument.
        option: String,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A run is resumed with settings other than those it was started with.
    #[error(
        "store `{}`: `{field}` is {found}, expected {stored} (`store.json`, written when the run was started)",
        dir.display()
    )]
    Settings {
        /// The store.
        dir: PathBuf,
        /// Dotted path of the field in `store.json`.
        field: String,
        /// The setting of this run.
        found: String,
        /// The setting in the store.
        stored: String,
    },
    /// An output directory that holds something already.
    #[error(
        "output directory `{}` is not empty (it holds `{holds}`), expected an empty or absent one, or `--resume`",
        dir.display()
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// One of its entries.
        holds: String,
    },
    /// Another process writes there.
    #[error("`{}` is being written by another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// A file given to read breaks its format.
    #[error("{}: `{field}` is {found}, expected {expected}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// The field, option or property.
        field: String,
        /// What the file holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// A row of a manifest cannot be used.
    #[error("manifest {}, line {line}: `{field}` is {found}, expected {expected}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// The field.
        field: String,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// A file is not the one that its hash promises.
    #[error("{}: SHA-256 is {found}, expected {expected} ({origin})", path.display())]
    Hash {
        /// The file.
        path: PathBuf,
        /// The hash of the file as it is.
        found: String,
        /// The hash that was promised.
        expected: String,
        /// Who promised it.
        origin: String,
    },
    /// A directory is no activation store, or a damaged one.
    #[error("store `{}`: {problem}", dir.display())]
    Store {
        /// The store.
        dir: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// Every input failed, so that there is nothing to store.
    #[error("none of {inputs} inputs gave a clip; the first failed with: {first}")]
    NothingCaptured {
        /// Number of inputs.
        inputs: usize,
        /// The first failure.
        first: String,
        /// All failures, in the order of the inputs.
        failed: Vec<crate::capture::Failure>,
    },
    /// A model answered with something other than what its configuration promises.
    #[error("model: {what} is {found}, expected {expected}")]
    Answer {
        /// Which result.
        what: String,
        /// What it is.
        found: String,
        /// What follows from the configuration.
        expected: String,
    },
    /// What a model shows is no number, or one that the store's type does not hold.
    #[error(
        "clip `{clip}`: the row of position {position} at `{hook}` is NaN or infinite in column {column}, expected finite \
         values; `--check-finite` looks for weights that are not, and `--dtype` bf16 or f32 hold what is beyond f16"
    )]
    NotFinite {
        /// Of which clip.
        clip: String,
        /// Where in the model.
        hook: String,
        /// Position in the clip.
        position: usize,
        /// Column of the row.
        column: usize,
    },
    /// A thread of the run panicked: a bug of ours.
    #[error("the {stage} stage panicked: {message}")]
    Panicked {
        /// Which stage.
        stage: &'static str,
        /// The panic's message.
        message: String,
    },
    /// A file could not be written, or one of ours not read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A safetensors file is broken.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Audio could not be read or cut.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// A batch that the device has no memory for.
    #[error("a batch of {clips} clips of {frames} frames does not fit; {}", remedy(*fits))]
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
    /// The model failed while running, or could not be opened.
    #[error(transparent)]
    Model(#[from] ModelError),
}

fn remedy(fits: usize) -> String {
    match fits {
        0 => "not even one clip does: use a shorter `--window`, or another device".to_string(),
        fits => format!("a batch of {fits} would (`--batch {fits}`)"),
    }
}

/// Results of this crate.
pub type Result<T, E = AnalysisError> = std::result::Result<T, E>;

/// Who has to act on an error; a command line maps it to its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// The run failed: device, disk, network.
    Failed,
    /// The caller's options.
    Usage,
    /// A file that was given to read.
    BadInput,
    /// A check refused: a hash differs.
    Refused,
}

impl Category {
    /// The exit code of the program: 1, 2, 3 or 4.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::BadInput => 3,
            Self::Refused => 4,
        }
    }
}

impl AnalysisError {
    /// Who has to act.
    pub fn category(&self) -> Category {
        match self {
            Self::Usage { .. } | Self::Settings { .. } | Self::NotEmpty { .. } => Category::Usage,
            Self::Input { .. }
            | Self::Manifest { .. }
            | Self::Store { .. }
            | Self::NothingCaptured { .. }
            | Self::NotFinite { .. }
            | Self::Weights(_) => Category::BadInput,
            Self::Hash { .. } => Category::Refused,
            Self::Locked { .. }
            | Self::Answer { .. }
            | Self::Panicked { .. }
            | Self::Batch { .. }
            | Self::File(_) => Category::Failed,
            Self::Audio(error) => match error.blame() {
                Blame::Input => Category::BadInput,
                Blame::Usage => Category::Usage,
                Blame::Output => Category::Failed,
            },
            Self::Model(error) => match error {
                ModelError::Site { .. } | ModelError::Argument { .. } => Category::Usage,
                ModelError::Config { .. }
                | ModelError::Unsupported { .. }
                | ModelError::File { .. }
                | ModelError::Refused { .. }
                | ModelError::Weights(_)
                | ModelError::Codes(_)
                | ModelError::Audio(_) => Category::BadInput,
                ModelError::Misfit { .. } => Category::Refused,
                // a checkpoint is what this crate has models read
                ModelError::Io { action, .. } if *action == "read" || *action == "open" => Category::BadInput,
                _ => Category::Failed,
            },
        }
    }

    /// An option that cannot be served.
    pub fn usage(option: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::Usage { option: option.into(), found: found.to_string(), expected: expected.into() }
    }

    /// A field of a file given to read.
    pub fn input(
        path: &Path,
        field: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Input {
            path: path.to_path_buf(),
            field: field.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    /// A store that breaks its format.
    pub fn store(dir: &Path, problem: impl Into<String>) -> Self {
        Self::Store { dir: dir.to_path_buf(), problem: problem.into() }
    }

    /// A file given to read that the system would not let us read.
    pub(crate) fn unreadable(error: &FileError) -> Self {
        let found = match error {
            FileError::Io { error, .. } => error.to_string(),
            FileError::NotRegular { found, .. } => (*found).to_string(),
            other => other.to_string(),
        };
        Self::input(error.path(), "file", found, "a readable regular file")
    }
}
