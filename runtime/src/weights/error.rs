//! What can be wrong with a checkpoint's weights.

use super::loader::Account;
use crate::files::FileError;
use std::path::{Path, PathBuf};

/// Why weights could not be opened, or do not fit the model. The text holds file, tensor, what was found and what was
/// expected; there is no `source`.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file could not be opened, read or mapped, or is no regular file.
    #[error("weights: {0}")]
    File(FileError),
    /// A directory without weights.
    #[error(
        "weights: {}: found neither `model.safetensors` nor `model.safetensors.index.json`, expected one of them",
        dir.display()
    )]
    NoWeights {
        /// The directory.
        dir: PathBuf,
    },
    /// A pickle file, which can run code when it is loaded, or a zip archive holding one.
    #[error(
        "weights: {}: found a pickle file, expected safetensors: convert it once with `auscult model convert`",
        file.display()
    )]
    Pickle {
        /// The file.
        file: PathBuf,
    },
    /// A file breaks the safetensors format, or an index and its shards disagree.
    #[error("weights: {}:{} found {found}, expected {expected}", file.display(), of_tensor(tensor.as_deref()))]
    Format {
        /// The file.
        file: PathBuf,
        /// The tensor concerned, if one is.
        tensor: Option<String>,
        /// What the file says or holds.
        found: String,
        /// What the format, the file's length or the index demands.
        expected: String,
    },
    /// A tensor is stored in a type that the operation does not read.
    #[error("weights: {}: tensor `{tensor}`: found {found}, expected F32, F16 or BF16", file.display())]
    NotFloat {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type.
        found: String,
    },
    /// A NaN or an infinity among the weights.
    #[error("weights: {}: tensor `{tensor}`: found {value} at element {index}, expected finite values", file.display())]
    NotFinite {
        /// The file.
        file: PathBuf,
        /// The first such tensor in the order of the files.
        tensor: String,
        /// Its first such element, counted row-major from 0.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The tensors are not those that the model expects.
    #[error("weights: {0}")]
    Account(Box<Account>),
}

// by hand rather than `#[from]`, which would make the file's error a `source` and have it printed twice
impl From<FileError> for WeightsError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

fn of_tensor(tensor: Option<&str>) -> String {
    tensor.map(|name| format!(" tensor `{name}`:")).unwrap_or_default()
}

/// A breach of format whose file is not known yet.
#[derive(Debug)]
pub(super) struct Problem {
    tensor: Option<String>,
    found: String,
    expected: String,
}

impl Problem {
    pub(super) fn file(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { tensor: None, found: found.into(), expected: expected.into() }
    }

    pub(super) fn tensor(name: &str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { tensor: Some(name.to_string()), found: found.into(), expected: expected.into() }
    }

    pub(super) fn at(self, file: &Path) -> WeightsError {
        WeightsError::Format {
            file: file.to_path_buf(),
            tensor: self.tensor,
            found: self.found,
            expected: self.expected,
        }
    }
}
