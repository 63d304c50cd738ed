//! What a store holds, in numbers.

use std::collections::BTreeSet;
use std::path::Path;

use auscult_runtime::files::FileError;
use serde::Serialize;

use super::entry::{Entry, ShardState};
use super::format::{ClipRow, JOURNAL, StoreMeta, read_index};
use super::verify::{StoreState, files_of};
use crate::error::Result;
use crate::journal::peek;

/// A store in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreInfo {
    /// Whether it is finished.
    #[serde(flatten)]
    pub state: StoreState,
    /// What it holds and how it was made.
    pub meta: StoreMeta,
    /// Clips; of an unfinished store, those that are safe on disk.
    pub clips: usize,
    /// Clips shorter than the window.
    pub partial_clips: usize,
    /// Different recordings.
    pub tracks: usize,
    /// Length of all clips together, in seconds.
    pub audio_seconds: f64,
    /// Rows at each hook.
    pub positions: usize,
    /// Shards of each hook.
    pub shards: usize,
    /// Files.
    pub files: usize,
    /// Bytes of all files together.
    pub bytes: u64,
}

/// Looks at a store, finished or not.
///
/// # Errors
/// [`crate::AnalysisError::Store`] for a directory that is no store or has a broken index, [`crate::AnalysisError::File`]
/// if it cannot be listed.
pub fn info(dir: impl AsRef<Path>) -> Result<StoreInfo> {
    let dir = dir.as_ref();
    let meta = StoreMeta::read(dir)?;
    let state = StoreState::of(dir);
    let clips = match state {
        StoreState::Finished => read_index(dir)?,
        StoreState::Unfinished { .. } => unfinished(dir),
    };
    let names = files_of(dir)?;
    let mut bytes = 0;
    for name in &names {
        let path = dir.join(name);
        match path.symlink_metadata() {
            Ok(meta) => bytes += meta.len(),
            // a temporary of a running capture may be renamed at any time
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(FileError::io(&path, "read", error).into()),
        }
    }
    let tracks: BTreeSet<&str> = clips.iter().map(|clip| clip.track_id.as_str()).collect();
    Ok(StoreInfo {
        state,
        clips: clips.len(),
        partial_clips: clips.iter().filter(|clip| clip.partial).count(),
        tracks: tracks.len(),
        audio_seconds: clips.iter().map(|clip| clip.end_seconds - clip.start_seconds).sum(),
        positions: clips.iter().map(|clip| clip.positions).sum(),
        shards: clips.iter().map(|clip| clip.shard + 1).max().unwrap_or(0),
        files: names.len(),
        bytes,
        meta,
    })
}

/// The clips of an unfinished store that are safe on disk.
fn unfinished(dir: &Path) -> Vec<ClipRow> {
    let entries = peek::<Entry>(&dir.join(JOURNAL));
    let last = entries.len().saturating_sub(1);
    let counted =
        entries.into_iter().enumerate().filter(|(at, e)| *at == last || e.state == ShardState::Closed);
    counted.flat_map(|(_, entry)| entry.clips).map(|clip| clip.row).collect()
}
