//! The journal of unfinished work: one line for each part that is whole on disk, synced before the next is begun.
//!
//! A line is the SHA-256 of its JSON, a blank, the JSON and a newline, so that a line torn by a crash is told from a
//! whole one; what follows the first line that is not whole is cut off when the work is taken up again. The open file
//! is locked, so that no two processes write one directory. It is deleted once the work is whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use auscult_runtime::files::{FileError, lock, sha256_bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{AnalysisError, Result};

/// An open, locked journal of lines `E`.
#[derive(Debug)]
pub struct Journal<E> {
    path: PathBuf,
    file: File,
    lines: PhantomData<E>,
}

impl<E: Serialize + DeserializeOwned> Journal<E> {
    /// A new journal.
    ///
    /// # Errors
    /// A file that is there already, or cannot be made; [`AnalysisError::Locked`].
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| FileError::io(&path, "create", e))?;
        Self { path, file, lines: PhantomData }.locked()
    }

    /// A journal that is there, or a new one, and its whole lines; the rest is cut off.
    ///
    /// # Errors
    /// A file that cannot be read and written; [`AnalysisError::Locked`].
    pub fn open(path: impl Into<PathBuf>) -> Result<(Self, Vec<E>)> {
        let path = path.into();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| FileError::io(&path, "open", e))?;
        let mut journal = Self { path, file, lines: PhantomData }.locked()?;
        let mut text = Vec::new();
        journal.file.read_to_end(&mut text).map_err(|e| journal.error("read", e))?;
        let (entries, whole) = parse(&text);
        journal.truncate(whole)?;
        Ok((journal, entries))
    }

    fn locked(self) -> Result<Self> {
        if lock(&self.file).map_err(|e| self.error("lock", e))? {
            return Ok(self);
        }
        Err(AnalysisError::Locked { dir: self.path.parent().unwrap_or(Path::new("")).to_path_buf() })
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
    ///
    /// # Errors
    /// The disk.
    pub fn append(&mut self, entry: &E) -> Result<(), FileError> {
        let line = line(entry);
        self.file.write_all(&line).map_err(|e| self.error("write", e))?;
        self.file.sync_data().map_err(|e| self.error("sync", e))
    }

    /// Deletes the journal of work that is finished.
    ///
    /// # Errors
    /// The disk.
    pub fn delete(self) -> Result<(), FileError> {
        let Self { path, file, .. } = self;
        // deleted while locked: whoever waits for the lock finds the finished work in place
        std::fs::remove_file(&path).map_err(|e| FileError::io(&path, "delete", e))?;
        drop(file);
        Ok(())
    }
}

fn line(entry: &impl Serialize) -> Vec<u8> {
    let json = serde_json::to_vec(entry).expect("journal entries have string keys and finite numbers");
    let mut line = sha256_bytes(&json).into_bytes();
    line.push(b' ');
    line.extend(json);
    line.push(b'\n');
    line
}

/// The whole lines, and how many bytes they take.
fn parse<E: DeserializeOwned>(text: &[u8]) -> (Vec<E>, u64) {
    let (mut entries, mut whole) = (Vec::new(), 0);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let Some(entry) = entry(line) else { break };
        entries.push(entry);
        whole += line.len();
    }
    (entries, u64::try_from(whole).expect("a file's length fits 64 bits"))
}

fn entry<E: DeserializeOwned>(line: &[u8]) -> Option<E> {
    let line = line.strip_suffix(b"\n")?;
    let (hash, json) = line.split_at_checked(64)?;
    let json = json.strip_prefix(b" ")?;
    if sha256_bytes(json).as_bytes() != hash {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// The whole lines of a journal that some other process may be writing; for reports.
pub fn peek<E: DeserializeOwned>(path: &Path) -> Vec<E> {
    std::fs::read(path).map(|text| parse(&text).0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Entry {
        part: usize,
        name: String,
    }

    fn sample(part: usize) -> Entry {
        Entry { part, name: "0".repeat(64) }
    }

    #[test]
    fn any_cut_leaves_the_whole_lines() {
        let text: Vec<u8> = (0..3).flat_map(|shard| line(&sample(shard))).collect();
        let one = line(&sample(0)).len();
        for cut in 0..=text.len() {
            let (entries, whole) = parse::<Entry>(&text[..cut]);
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
            let (entries, _) = parse::<Entry>(&text);
            assert_eq!(entries.len(), at / one, "byte {at}");
        }
    }

    #[test]
    fn a_second_writer_is_locked_out_and_a_torn_line_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut journal = Journal::create(&path).unwrap();
        journal.append(&sample(0)).unwrap();
        let error = Journal::<Entry>::open(&path).unwrap_err();
        assert!(matches!(error, AnalysisError::Locked { .. }), "{error}");
        journal.file.write_all(b"0123 torn").unwrap();
        drop(journal);
        let (mut journal, entries) = Journal::<Entry>::open(&path).unwrap();
        assert_eq!(entries, [sample(0)]);
        journal.append(&sample(1)).unwrap();
        drop(journal);
        assert_eq!(Journal::<Entry>::open(&path).unwrap().1, [sample(0), sample(1)]);
    }
}
