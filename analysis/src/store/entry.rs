//! Lines of an unfinished store's journal: one for each shard that is whole on disk.

use serde::{Deserialize, Serialize};

use super::format::ClipRow;
use crate::capture::Failure;
use crate::record::InputRecord;
use crate::sae_stats::Fit;

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Whether the shard is closed.
    pub state: ShardState,
    /// Its number.
    pub shard: usize,
    /// Its files.
    pub files: Vec<ShardFile>,
    /// Its clips.
    pub clips: Vec<JournalClip>,
    /// How well each autoencoder stands for its rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fits: Vec<Fit>,
    /// Files read to their end since the entry before, by number of the input.
    pub inputs: Vec<(usize, InputRecord)>,
    /// Inputs that failed since the entry before.
    pub failed: Vec<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ShardState {
    /// Final.
    Closed,
    /// The start of a shard that a suspended run will go on with; only the last entry counts.
    Open,
}

/// A file of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ShardFile {
    /// Within the store, with `/`.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// Hash of the content.
    pub sha256: String,
}

/// A clip and where it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JournalClip {
    /// Number of the input.
    pub input: usize,
    /// Number of the clip within the input.
    pub ordinal: usize,
    /// Its row of the index.
    pub row: ClipRow,
}
