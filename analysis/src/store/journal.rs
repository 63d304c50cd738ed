//! The journal of an unfinished store: one line for each shard that is whole on disk, synced before the next is begun.
//!
//! A line is the SHA-256 of its JSON, a blank, the JSON and a newline, so that a line torn by a crash is told from a
//! whole one; what follows the first line that is not whole is cut off when the run is taken up again. The open file
//! is locked, so that no two processes write one store. It is deleted once `SHA256SUMS` lies in place.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use auscult_runtime::files::{FileError, sha256_bytes};
use serde::{Deserialize, Serialize};

use super::format::{ClipRow, JOURNAL};
use crate::capture::Failure;
use crate::error::{AnalysisError, Result};
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

/// An open, locked journal.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// A new journal in `dir`.
    pub fn create(dir: &Path) -> Result<Self> {
        let path = dir.join(JOURNAL);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| FileError::io(&path, "create", e))?;
        Self { path, file }.locked(dir)
    }

    /// The journal of an unfinished store, and its whole lines; the rest is cut off.
    pub fn open(dir: &Path) -> Result<(Self, Vec<Entry>)> {
        let path = dir.join(JOURNAL);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| FileError::io(&path, "open", e))?;
        let mut journal = Self { path, file }.locked(dir)?;
        let mut text = Vec::new();
        journal.file.read_to_end(&mut text).map_err(|e| journal.error("read", e))?;
        let (entries, whole) = parse(&text);
        journal.truncate(whole)?;
        Ok((journal, entries))
    }

    fn locked(self, dir: &Path) -> Result<Self> {
        match self.file.try_lock() {
            Ok(()) => Ok(self),
            Err(TryLockError::WouldBlock) => Err(AnalysisError::Locked { dir: dir.to_path_buf() }),
            // some network filesystems have no locks; two writers are then the user's to avoid
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => Ok(self),
            Err(TryLockError::Error(e)) => Err(self.error("lock", e).into()),
        }
    }

    fn error(&self, action: &'static str, error: io::Error) -> FileError {
        FileError::io(&self.path, action, error)
    }

    /// Cuts the journal to its first `bytes` bytes and goes on writing there.
    fn truncate(&mut self, bytes: u64) -> Result<(), FileError> {
        self.file.set_len(bytes).map_err(|e| self.error("truncate", e))?;
        self.file.seek(SeekFrom::Start(bytes)).map_err(|e| self.error("seek", e))?;
        self.file.sync_all().map_err(|e| self.error("sync", e))
    }

    /// Adds a line and syncs it.
    pub fn append(&mut self, entry: &Entry) -> Result<(), FileError> {
        let line = line(entry);
        self.file.write_all(&line).map_err(|e| self.error("write", e))?;
        self.file.sync_data().map_err(|e| self.error("sync", e))
    }

    /// Deletes the journal of a store that is finished.
    pub fn delete(self) -> Result<(), FileError> {
        let Self { path, file } = self;
        // deleted while locked: whoever waits for the lock finds `SHA256SUMS` in place
        std::fs::remove_file(&path).map_err(|e| FileError::io(&path, "delete", e))?;
        drop(file);
        Ok(())
    }
}

fn line(entry: &Entry) -> Vec<u8> {
    let json = serde_json::to_vec(entry).expect("journal entries have string keys and finite numbers");
    let mut line = sha256_bytes(&json).into_bytes();
    line.push(b' ');
    line.extend(json);
    line.push(b'\n');
    line
}

/// The whole lines, and how many bytes they take.
fn parse(text: &[u8]) -> (Vec<Entry>, u64) {
    let (mut entries, mut whole) = (Vec::new(), 0);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let Some(entry) = entry(line) else { break };
        entries.push(entry);
        whole += line.len();
    }
    (entries, u64::try_from(whole).expect("a file's length fits 64 bits"))
}

fn entry(line: &[u8]) -> Option<Entry> {
    let line = line.strip_suffix(b"\n")?;
    let (hash, json) = line.split_at_checked(64)?;
    let json = json.strip_prefix(b" ")?;
    if sha256_bytes(json).as_bytes() != hash {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// The entries of a store that some other process may be writing; for reports.
pub(super) fn peek(dir: &Path) -> Vec<Entry> {
    std::fs::read(dir.join(JOURNAL)).map(|text| parse(&text).0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(shard: usize) -> Entry {
        let file = ShardFile { name: format!("h/{shard}"), bytes: 7, sha256: "0".repeat(64) };
        Entry {
            state: ShardState::Closed,
            shard,
            files: vec![file],
            clips: Vec::new(),
            fits: Vec::new(),
            inputs: Vec::new(),
            failed: Vec::new(),
        }
    }

    #[test]
    fn any_cut_leaves_the_whole_lines() {
        let text: Vec<u8> = (0..3).flat_map(|shard| line(&sample(shard))).collect();
        let one = line(&sample(0)).len();
        for cut in 0..=text.len() {
            let (entries, whole) = parse(&text[..cut]);
            assert_eq!(entries.len(), cut / one, "cut at {cut}");
            assert_eq!(usize::try_from(whole).unwrap(), cut / one * one);
        }
    }

    #[test]
    fn any_flipped_byte_ends_the_journal_there() {
        let text: Vec<u8> = (0..3).flat_map(|shard| line(&sample(shard))).collect();
        let one = line(&sample(0)).len();
        for at in 0..text.len() {
            let mut text = text.clone();
            text[at] ^= 1;
            let (entries, _) = parse(&text);
            assert_eq!(entries.len(), at / one, "byte {at}");
        }
    }

    #[test]
    fn a_second_writer_is_locked_out_and_a_torn_line_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path()).unwrap();
        journal.append(&sample(0)).unwrap();
        let error = Journal::open(dir.path()).unwrap_err();
        assert!(matches!(error, AnalysisError::Locked { .. }), "{error}");
        journal.file.write_all(b"0123 torn").unwrap();
        drop(journal);
        let (mut journal, entries) = Journal::open(dir.path()).unwrap();
        assert_eq!(entries, [sample(0)]);
        journal.append(&sample(1)).unwrap();
        drop(journal);
        assert_eq!(Journal::open(dir.path()).unwrap().1, [sample(0), sample(1)]);
    }
}
