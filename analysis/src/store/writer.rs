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
use auscult_runtime::weights::first_non_finite;
use rayon::prelude::*;

use super::entry::{Entry, JournalClip, ShardFile, ShardState};
use super::features::{OpenFeatures, SaeRows, disorder};
use super::fit::{Activity, SaeSummary};
use super::format::{
    CODES_DIR, ClipRow, Hook, RESID, SaeMeta, StoreMeta, codes_tensor, narrowed, open_name, sae_open_name,
    sae_shard_name, shard_name,
};
use crate::capture::Failure;
use crate::error::{AnalysisError, Result};
use crate::journal::Journal;
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
    /// One a hook; empty until the first clip, and where features alone are stored.
    pub hooks: Vec<GrowingTensorFile>,
    /// One an autoencoder; empty until the first clip.
    pub features: Vec<OpenFeatures>,
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
    pub(super) journal: Journal<Entry>,
    pub(super) open: OpenShard,
    /// Number of the open shard.
    pub(super) shard: usize,
    /// Clips of closed shards.
    pub(super) clips: Vec<JournalClip>,
    pub(super) ids: HashSet<String>,
    /// Files of closed shards.
    pub(super) files: Vec<ShardFile>,
    /// Of each autoencoder; the fit is that of closed shards.
    pub(super) activity: Vec<Activity>,
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
    pub(super) fn new(dir: &Path, meta: StoreMeta, journal: Journal<Entry>, made: bool) -> Self {
        let activity = meta.saes.iter().map(|sae| Activity::new(sae.features)).collect();
        Self {
            dir: dir.to_path_buf(),
            meta,
            journal,
            activity,
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

    /// The files of the open shard, those of activations first, then those of features, then the codes: as they are called
    /// when it is closed, or while the run is suspended.
    pub(super) fn shard_files(&self, state: ShardState) -> Vec<String> {
        let (shard, rows) = (self.shard, self.open.rows);
        let dense = |dir: &str| match state {
            ShardState::Closed => shard_name(dir, shard),
            ShardState::Open => open_name(dir, shard, rows),
        };
        let sites = if self.meta.sae_only { &[] } else { self.meta.sites.as_slice() };
        let features = self.meta.saes.iter().map(|sae| match state {
            ShardState::Closed => sae_shard_name(sae, shard),
            ShardState::Open => sae_open_name(sae, shard, rows),
        });
        let dense_files = sites.iter().map(|site| dense(&site.hook));
        dense_files.chain(features).chain([dense(CODES_DIR)]).collect()
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

    /// What each autoencoder made of the rows stored so far.
    pub fn summaries(&self) -> Vec<SaeSummary> {
        let with_open = |(at, sae): (usize, &SaeMeta)| {
            let activity = &self.activity[at];
            let mut fit = activity.fit.clone();
            if let Some(open) = self.open.features.get(at) {
                fit.add(&open.fit);
            }
            activity.summary(sae, &fit)
        };
        self.meta.saes.iter().enumerate().map(with_open).collect()
    }

    /// The clips stored so far: of which input, of which number within it, and its row of the index.
    pub fn stored(&self) -> impl Iterator<Item = (usize, usize, &ClipRow)> {
        self.clips.iter().chain(&self.open.clips).map(|clip| (clip.input, clip.ordinal, &clip.row))
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

    /// Adds a clip: its codes; for each hook its rows, little-endian [positions, width] in the store's type (none at all
    /// where features alone are stored); and for each autoencoder its features. Returns whether that closed the shard.
    ///
    /// # Errors
    /// [`AnalysisError::Answer`] if something is not of the announced size, features are none of the autoencoder or out of
    /// order, or a `clip_id` is not new; [`AnalysisError::NotFinite`]; [`AnalysisError::File`]. After an error the writer must be dropped.
    pub fn append(
        &mut self,
        clip: NewClip,
        codes: &Codes,
        rows: &[&[u8]],
        features: &[SaeRows],
    ) -> Result<bool> {
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
        let hooks = if self.meta.sae_only { 0 } else { self.meta.sites.len() };
        if rows.len() != hooks {
            return Err(self.tensor(&id, "hooks", rows.len(), hooks));
        }
        for (site, rows) in self.meta.sites.iter().zip(rows) {
            let expected = row.positions * site.width * self.meta.dtype.size();
            if rows.len() != expected {
                return Err(self.tensor(&id, &format!("bytes at `{}`", site.hook), rows.len(), expected));
            }
            if let Some(at) = first_non_finite(self.meta.dtype.dtype(), rows) {
                let (clip, hook) = (id, site.hook.clone());
                let (position, column) = (at / site.width, at % site.width);
                return Err(AnalysisError::NotFinite { clip, hook, position, column });
            }
        }
        self.check_features(&row, features)?;
        if !self.ids.insert(id.clone()) {
            return Err(self.tensor(&id, "name", "taken", "a name of its own"));
        }
        let codes = self.encode_codes(&id, codes)?;
        if self.open.clips.is_empty() {
            self.open.hooks = self.begin_shard()?;
            self.open.features.resize_with(self.meta.saes.len(), OpenFeatures::default);
        }
        for (file, rows) in self.open.hooks.iter_mut().zip(rows) {
            file.append(rows)?;
        }
        let number = self.clips();
        for ((open, activity), of_clip) in self.open.features.iter_mut().zip(&mut self.activity).zip(features)
        {
            open.append(&of_clip.features);
            open.fit.add(&of_clip.fit);
            activity.add(number, &of_clip.features);
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

    fn check_features(&self, row: &ClipRow, features: &[SaeRows]) -> Result<()> {
        let id = &row.clip_id;
        if features.len() != self.meta.saes.len() {
            return Err(self.tensor(id, "autoencoders", features.len(), self.meta.saes.len()));
        }
        for (sae, SaeRows { features, fit }) in self.meta.saes.iter().zip(features) {
            let what = |what: &str| format!("{what} of `{}`", sae.name);
            let places = (features.k > 0).then(|| features.values.len() / features.k);
            if places != Some(row.positions)
                || features.indices.len() != features.values.len()
                || sae.k.is_some_and(|k| k != features.k)
            {
                let found = format!("{} of {} places a row", features.values.len(), features.k);
                let k = sae.k.map_or("any number of".to_string(), |k| k.to_string());
                return Err(self.tensor(
                    id,
                    &what("values"),
                    found,
                    format!("{} rows of {k} places", row.positions),
                ));
            }
            if let Some(found) = disorder(sae, features) {
                return Err(self.tensor(id, &what("features"), found, "features in order"));
            }
            if usize::try_from(fit.rows) != Ok(row.positions) || fit.sum.len() != sae.width {
                let found = format!("{} rows of width {}", fit.rows, fit.sum.len());
                let expected = format!("{} rows of width {}", row.positions, sae.width);
                return Err(self.tensor(id, &what("fit"), found, expected));
            }
        }
        Ok(())
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
        let sites = if self.meta.sae_only { &[] } else { self.meta.sites.as_slice() };
        Ok(sites.iter().map(begin).collect::<Result<Vec<_>, FileError>>()?)
    }

    /// Codes as they are stored.
    fn encode_codes(&self, clip: &str, codes: &Codes) -> Result<Vec<u8>> {
        let beyond =
            |code: &&u32| usize::try_from(**code).map_or(true, |code| code >= self.meta.codebook_size);
        match codes.values().iter().find(beyond) {
            Some(code) => {
                Err(self.tensor(clip, "a code", code, format!("less than {}", self.meta.codebook_size)))
            }
            None => Ok(narrowed(codes.values(), self.meta.codes_dtype())),
        }
    }

    /// Writes the features of the open shard to these files, one an autoencoder.
    pub(super) fn write_features(&mut self, names: &[String]) -> Result<()> {
        for (at, name) in names.iter().enumerate() {
            self.open.features[at].write(&self.dir.join(name), &self.meta.saes[at])?;
            self.step("the features of an autoencoder are renamed into place");
        }
        Ok(())
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
        let fits = self.open.features.iter().map(|open| open.fit.clone()).collect();
        Entry { state, shard: self.shard, files, clips: self.open.clips.clone(), fits, inputs, failed }
    }

    /// Renames the open shard into place and enters it in the journal.
    pub(super) fn close_shard(&mut self) -> Result<()> {
        let names = self.shard_files(ShardState::Closed);
        let hooks = std::mem::take(&mut self.open.hooks);
        let (rows, dense) = (self.open.rows, hooks.len());
        // not in parallel: renames are cheap, and syncing is the disk's work
        for hook in hooks {
            hook.finish(rows)?;
            self.step("a hook's shard is renamed into place");
        }
        self.write_features(&names[dense..names.len() - 1])?;
        self.write_codes(names.last().expect("a shard has a file of codes"))?;
        self.step("the codes are renamed into place");
        let files = self.hashed(&names)?;
        let entry = self.entry(ShardState::Closed, files);
        self.journal.append(&entry)?;
        self.step("the shard is in the journal");
        let open = std::mem::take(&mut self.open);
        for (activity, features) in self.activity.iter_mut().zip(&open.features) {
            activity.fit.add(&features.fit);
        }
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
