//! Writing a store so that it can be interrupted anywhere.
//!
//! Activations grow in hidden temporaries; a shard that has reached its size is renamed into place, hashed, and entered
//! in the journal. A killed run loses the clips of the open shard at most; a run that is stopped keeps them too
//! ([`StoreWriter::suspend`]). Where a shard ends depends on the clips alone, so that an interrupted store ends up the
//! same, byte for byte, as one written in one go.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use auscult_model::Codes;
use auscult_runtime::files::{FileError, sha256_file};
use auscult_runtime::safetensors_io::{GrowingTensorFile, TensorSpec, write_safetensors};
use rayon::prelude::*;

use super::format::{CODES_DIR, ClipRow, Hook, RESID, StoreMeta, codes_tensor, shard_name};
use super::journal::{Entry, Journal, JournalClip, ShardFile, ShardState};
use crate::capture::Failure;
use crate::error::{AnalysisError, Result};
use crate::record::InputRecord;

/// Positions after which a shard is closed unless told otherwise: 66 clips of 10 s, 135 MB in f32 at a width of 1024.
/// A killed run loses one shard at most.
pub const SHARD_ROWS: usize = 1 << 15;

/// Where shards end: with the clip that brings them to `limit` rows or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardRule {
    limit: usize,
    rows: usize,
}

impl ShardRule {
    /// A rule for shards of `limit` rows; `rows` of them lie in the open shard already.
    pub fn new(limit: usize, rows: usize) -> Self {
        Self { limit, rows }
    }

    /// Counts a clip; whether the shard ends with it.
    pub fn add(&mut self, rows: usize) -> bool {
        self.rows += rows;
        let ends = self.rows >= self.limit;
        if ends {
            self.rows = 0;
        }
        ends
    }
}

/// A clip to be stored: its place in the run, and its row, in which the writer fills `shard` and `row_start`.
#[derive(Clone, Debug, PartialEq)]
pub struct NewClip {
    /// Number of the input.
    pub input: usize,
    /// Number of the clip within the input.
    pub ordinal: usize,
    /// Its row of the index.
    pub row: ClipRow,
}

/// The shard that is being written.
#[derive(Debug, Default)]
pub(super) struct OpenShard {
    /// One a hook; empty until the first clip.
    pub hooks: Vec<GrowingTensorFile>,
    pub rows: usize,
    pub clips: Vec<JournalClip>,
    /// Little-endian codes of each clip, in the order of `clips`.
    pub codes: Vec<Vec<u8>>,
    /// Files that hold the start of this shard since the run was last suspended.
    pub kept: Vec<ShardFile>,
}

/// A store being written; one process a store. Dropped before [`finish`](Self::finish), it leaves an unfinished store
/// that [`open`](Self::open) takes up again.
#[derive(Debug)]
pub struct StoreWriter {
    pub(super) dir: PathBuf,
    pub(super) meta: StoreMeta,
    pub(super) journal: Journal,
    pub(super) open: OpenShard,
    /// Number of the open shard.
    pub(super) shard: usize,
    /// Clips of closed shards.
    pub(super) clips: Vec<JournalClip>,
    pub(super) ids: HashSet<String>,
    /// Files of closed shards.
    pub(super) files: Vec<ShardFile>,
    /// What is known of the inputs, by number.
    pub(super) inputs: BTreeMap<usize, InputRecord>,
    pub(super) failed: BTreeMap<usize, Failure>,
    /// Numbers of the inputs that are not in the journal yet.
    pub(super) unwritten: Vec<usize>,
    /// Whether this writer made the directory.
    pub(super) made: bool,
    #[cfg(test)]
    pub(super) observer: Observer,
}

/// Called after each step that changes the disk; tests take a copy of the store there.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Observer(pub Option<Box<Watch>>);

#[cfg(test)]
type Watch = dyn FnMut(&str) + Send;

#[cfg(test)]
impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

impl StoreWriter {
    pub(super) fn new(dir: &Path, meta: StoreMeta, journal: Journal, made: bool) -> Self {
        Self {
            dir: dir.to_path_buf(),
            meta,
            journal,
            open: OpenShard::default(),
            shard: 0,
            clips: Vec::new(),
            ids: HashSet::new(),
            files: Vec::new(),
            inputs: BTreeMap::new(),
            failed: BTreeMap::new(),
            unwritten: Vec::new(),
            made,
            #[cfg(test)]
            observer: Observer::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn step(&mut self, step: &str) {
        if let Some(observer) = &mut self.observer.0 {
            observer(step);
        }
    }

    #[cfg(not(test))]
    pub(super) fn step(&mut self, _: &str) {}

    /// The directories of the hooks and of the codes.
    pub(super) fn directories(&self) -> impl Iterator<Item = &str> {
        self.meta.sites.iter().map(|site| site.hook.as_str()).chain([CODES_DIR])
    }

    pub(super) fn make_directories(&self) -> Result<()> {
        for name in self.directories() {
            let path = self.dir.join(name);
            fs::create_dir_all(&path).map_err(|e| FileError::io(&path, "create directory", e))?;
        }
        Ok(())
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The store's settings: when taken up again, those it was started with.
    pub fn meta(&self) -> &StoreMeta {
        &self.meta
    }

    /// Clips stored, in closed shards and in the open one.
    pub fn clips(&self) -> usize {
        self.clips.len() + self.open.clips.len()
    }

    /// Rows of those clips.
    pub fn positions(&self) -> usize {
        self.rows().map(|row| row.positions).sum()
    }

    /// Failures recorded, in the order of the inputs.
    pub fn failed(&self) -> impl Iterator<Item = &Failure> {
        self.failed.values()
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &ClipRow> {
        self.clips.iter().chain(&self.open.clips).map(|clip| &clip.row)
    }

    fn tensor(&self, clip: &str, what: &str, found: impl ToString, expected: impl ToString) -> AnalysisError {
        AnalysisError::Answer {
            what: format!("{what} of clip `{clip}`"),
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }

    /// Adds a clip: its codes, and for each hook its rows, little-endian [positions, width] in the store's type.
    /// Returns whether that closed the shard.
    ///
    /// # Errors
    /// [`AnalysisError::Answer`] if something is not of the announced size or a `clip_id` is not new;
    /// [`AnalysisError::File`]. After an error the writer must be dropped.
    pub fn append(&mut self, clip: NewClip, codes: &Codes, rows: &[&[u8]]) -> Result<bool> {
        let NewClip { input, ordinal, mut row } = clip;
        let id = row.clip_id.clone();
        let (found, expected) = ((codes.codebooks(), codes.frames()), (self.meta.codebooks, row.frames));
        if found != expected {
            return Err(self.tensor(
                &id,
                "[codebooks, frames] of the codes",
                format!("{found:?}"),
                format!("{expected:?}"),
            ));
        }
        if rows.len() != self.meta.sites.len() {
            return Err(self.tensor(&id, "hooks", rows.len(), self.meta.sites.len()));
        }
        for (site, rows) in self.meta.sites.iter().zip(rows) {
            let expected = row.positions * site.width * self.meta.dtype.size();
            if rows.len() != expected {
                return Err(self.tensor(&id, &format!("bytes at `{}`", site.hook), rows.len(), expected));
            }
        }
        if !self.ids.insert(id.clone()) {
            return Err(self.tensor(&id, "name", "taken", "a name of its own"));
        }
        let codes = self.encode_codes(&id, codes)?;
        if self.open.hooks.is_empty() {
            self.open.hooks = self.begin_shard()?;
        }
        for (file, rows) in self.open.hooks.iter_mut().zip(rows) {
            file.append(rows)?;
        }
        row.shard = self.shard;
        row.row_start = self.open.rows;
        self.open.rows += row.positions;
        self.open.clips.push(JournalClip { input, ordinal, row });
        self.open.codes.push(codes);
        let ends = self.open.rows >= self.meta.shard_rows;
        if ends {
            self.close_shard()?;
        }
        Ok(ends)
    }

    /// Notes that an input was read to its end, or as far as it is wanted.
    pub fn input_done(&mut self, input: usize, record: InputRecord) {
        self.inputs.insert(input, record);
        self.unwritten.push(input);
    }

    /// Notes that an input failed.
    pub fn input_failed(&mut self, failure: Failure) {
        self.unwritten.push(failure.input);
        self.failed.insert(failure.input, failure);
    }

    pub(super) fn begin_shard(&self) -> Result<Vec<GrowingTensorFile>> {
        let begin = |site: &Hook| {
            let path = self.dir.join(shard_name(&site.hook, self.shard));
            GrowingTensorFile::create(path, &[], RESID, self.meta.dtype.dtype(), &[site.width])
        };
        Ok(self.meta.sites.iter().map(begin).collect::<Result<Vec<_>, FileError>>()?)
    }

    /// Codes as they are stored.
    fn encode_codes(&self, clip: &str, codes: &Codes) -> Result<Vec<u8>> {
        let size = self.meta.codes_dtype().size();
        let mut bytes = Vec::with_capacity(codes.values().len() * size);
        for &code in codes.values() {
            if usize::try_from(code).map_or(true, |code| code >= self.meta.codebook_size) {
                return Err(self.tensor(
                    clip,
                    "a code",
                    code,
                    format!("less than {}", self.meta.codebook_size),
                ));
            }
            // little-endian and below the codebook's size, so the first bytes are the narrower number
            bytes.extend_from_slice(&code.to_le_bytes()[..size]);
        }
        Ok(bytes)
    }

    pub(super) fn write_codes(&self, name: &str) -> Result<(), FileError> {
        let dtype = self.meta.codes_dtype();
        let spec = |clip: &JournalClip| {
            TensorSpec::new(codes_tensor(&clip.row.clip_id), dtype, [self.meta.codebooks, clip.row.frames])
        };
        let specs: Vec<_> = self.open.clips.iter().map(spec).collect();
        write_safetensors(self.dir.join(name), &[], &specs, |i, out| out.write_all(&self.open.codes[i]))
    }

    /// Length and hash of files in the store.
    pub(super) fn hashed(&self, names: &[String]) -> Result<Vec<ShardFile>, FileError> {
        let dir = self.dir.as_path();
        let hashed = |name: &String| {
            let path = dir.join(name);
            let bytes = fs::metadata(&path).map_err(|e| FileError::io(&path, "read", e))?.len();
            Ok(ShardFile { name: name.clone(), bytes, sha256: sha256_file(&path)? })
        };
        names.par_iter().map(hashed).collect()
    }

    pub(super) fn entry(&mut self, state: ShardState, files: Vec<ShardFile>) -> Entry {
        let known = std::mem::take(&mut self.unwritten);
        let inputs =
            known.iter().filter_map(|i| self.inputs.get(i).map(|record| (*i, record.clone()))).collect();
        let failed = known.iter().filter_map(|i| self.failed.get(i).cloned()).collect();
        Entry { state, shard: self.shard, files, clips: self.open.clips.clone(), inputs, failed }
    }

    /// Renames the open shard into place and enters it in the journal.
    pub(super) fn close_shard(&mut self) -> Result<()> {
        let hooks = std::mem::take(&mut self.open.hooks);
        let rows = self.open.rows;
        // not in parallel: renames are cheap, and syncing is the disk's work
        for hook in hooks {
            hook.finish(rows)?;
            self.step("a hook's shard is renamed into place");
        }
        self.write_codes(&shard_name(CODES_DIR, self.shard))?;
        self.step("the codes are renamed into place");
        let names: Vec<String> = self.directories().map(|dir| shard_name(dir, self.shard)).collect();
        let files = self.hashed(&names)?;
        let entry = self.entry(ShardState::Closed, files);
        self.journal.append(&entry)?;
        self.step("the shard is in the journal");
        let open = std::mem::take(&mut self.open);
        self.files.extend(entry.files);
        self.clips.extend(open.clips);
        self.shard += 1;
        self.discard(&open.kept)
    }

    /// Deletes files that the journal no longer counts.
    pub(super) fn discard(&mut self, files: &[ShardFile]) -> Result<()> {
        for file in files {
            let path = self.dir.join(&file.name);
            fs::remove_file(&path).map_err(|e| FileError::io(&path, "delete", e))?;
            self.step("a suspended shard's file is deleted");
        }
        Ok(())
    }
}
