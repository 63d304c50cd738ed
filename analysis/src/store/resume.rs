//! Opening a directory to write a store: a new one, or one that was left unfinished.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use auscult_model::sae::SparseRows;
use auscult_runtime::files::{FileError, atomic_write_bytes, remove_leftovers, sha256_file};
use auscult_runtime::weights::Weights;
use rayon::prelude::*;

use super::entry::{Entry, JournalClip, ShardFile, ShardState};
use super::features::{self, OpenFeatures};
use super::fit::Activity;
use super::format::{
    JOURNAL, RESID, SHA256SUMS, STORE_JSON, SaeMeta, StoreMeta, codes_tensor, is_sae_name, sae_shard_name,
};
use super::writer::{OpenShard, StoreWriter};
use crate::error::{AnalysisError, Result};
use crate::journal::Journal;
use crate::record::pretty;
use crate::sae_stats::Fit;

/// What a store that is taken up again holds already.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resumed {
    /// Clips stored.
    pub clips: usize,
    /// Their length, in seconds.
    pub audio_seconds: f64,
    /// The input that the last of them came from, and how many of that input's clips are stored: reading goes on there.
    pub at: Option<(usize, usize)>,
    /// Rows of the open shard.
    pub open_rows: usize,
}

/// How a directory was opened for writing.
#[derive(Debug)]
pub enum Opened {
    /// To be written, or to be gone on with.
    Writer(Box<StoreWriter>, Resumed),
    /// It is finished, with the same settings.
    Finished,
}

/// The name of one entry of a directory that is neither the journal nor a temporary of ours, if there is any.
fn any_entry(dir: &Path) -> Result<Option<String>> {
    let failed = |e| FileError::io(dir, "list", e);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name != JOURNAL && !name.starts_with(".auscult-") {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

impl StoreWriter {
    /// Opens a directory to write a store: an absent or empty one, or with `resume` an unfinished store of the same
    /// settings too. Of an unfinished store, files of closed shards are held against the journal's hashes, and files
    /// that the journal does not know are deleted.
    ///
    /// # Errors
    /// [`AnalysisError::NotEmpty`], [`AnalysisError::Settings`], [`AnalysisError::Locked`]; [`AnalysisError::Store`]
    /// and [`AnalysisError::Hash`] for an unfinished store that is damaged; [`AnalysisError::File`].
    pub fn open(dir: impl AsRef<Path>, meta: StoreMeta, resume: bool) -> Result<Opened> {
        let dir = dir.as_ref();
        if meta.shard_rows == 0 {
            return Err(AnalysisError::usage("shard rows", 0, "at least 1"));
        }
        check_saes(&meta)?;
        let made = !dir.exists();
        fs::create_dir_all(dir).map_err(|e| FileError::io(dir, "create directory", e))?;
        let holds = any_entry(dir)?;
        let journal_there = dir.join(JOURNAL).exists();
        if holds.is_none() && !journal_there {
            return Self::begin(dir, meta, Journal::create(dir.join(JOURNAL))?, made);
        }
        if !resume {
            let holds = holds.unwrap_or_else(|| JOURNAL.to_string());
            return Err(AnalysisError::NotEmpty { dir: dir.to_path_buf(), holds });
        }
        if !dir.join(STORE_JSON).exists() {
            if let Some(holds) = holds {
                let problem = format!("holds `{holds}` and no `{STORE_JSON}`, expected a store to resume");
                return Err(AnalysisError::store(dir, problem));
            }
            // killed before `store.json` was in place
            let (journal, _) = Journal::open(dir.join(JOURNAL))?;
            remove_leftovers(dir)?;
            return Self::begin(dir, meta, journal, made);
        }
        let stored = StoreMeta::read(dir)?;
        if let Some((field, found, stored)) = meta.difference(&stored) {
            return Err(AnalysisError::Settings { dir: dir.to_path_buf(), field, found, stored });
        }
        let finished = || dir.join(SHA256SUMS).exists();
        if !journal_there {
            if finished() {
                return Ok(Opened::Finished);
            }
            let problem = format!("has neither `{SHA256SUMS}` nor `{JOURNAL}`, expected one of them");
            return Err(AnalysisError::store(dir, problem));
        }
        let (journal, entries) = Journal::open(dir.join(JOURNAL))?;
        // asked only now: whoever held the lock may have finished meanwhile
        if finished() {
            journal.delete()?;
            return Ok(Opened::Finished);
        }
        Self::go_on(dir, stored, journal, entries)
    }

    fn begin(dir: &Path, meta: StoreMeta, journal: Journal<Entry>, made: bool) -> Result<Opened> {
        atomic_write_bytes(dir.join(STORE_JSON), &pretty(&meta))?;
        let writer = Self::new(dir, meta, journal, made);
        writer.make_directories()?;
        Ok(Opened::Writer(Box::new(writer), Resumed::default()))
    }

    fn go_on(dir: &Path, meta: StoreMeta, journal: Journal<Entry>, entries: Vec<Entry>) -> Result<Opened> {
        let mut writer = Self::new(dir, meta, journal, false);
        writer.make_directories()?;
        let mut open = None;
        let mut closed = Vec::new();
        for entry in entries {
            if entry.shard != writer.shard {
                let problem =
                    format!("`{JOURNAL}` goes on with shard {}, expected {}", entry.shard, writer.shard);
                return Err(AnalysisError::store(dir, problem));
            }
            writer.inputs.extend(entry.inputs.iter().cloned());
            writer.failed.extend(entry.failed.iter().map(|failure| (failure.input, failure.clone())));
            // an entry holds all that earlier ones of the same shard did
            open = match entry.state {
                ShardState::Closed => {
                    closed.push((writer.clips.len(), entry.fits));
                    writer.files.extend(entry.files);
                    writer.clips.extend(entry.clips);
                    writer.shard += 1;
                    None
                }
                ShardState::Open => Some(entry),
            };
        }
        check_files(dir, &writer.files)?;
        for (shard, (first, fits)) in closed.iter().enumerate() {
            writer.count(shard, *first, fits)?;
        }
        writer.delete_leftovers()?;
        if let Some(entry) = open {
            writer.reopen(entry)?;
        }
        writer.delete_unknown()?;
        writer.ids = writer.rows().map(|row| row.clip_id.clone()).collect();
        let last = writer.clips.iter().chain(&writer.open.clips).next_back();
        let at = last.map(|clip| (clip.input, clip.ordinal + 1));
        // what is known of the input where reading goes on, and of later ones, will be found again
        let from = at.map_or(0, |(input, _)| input);
        writer.inputs.retain(|&input, _| input < from);
        writer.failed.retain(|&input, _| input < from);
        let resumed = Resumed {
            clips: writer.clips(),
            audio_seconds: writer.rows().map(|row| row.end_seconds - row.start_seconds).sum(),
            at,
            open_rows: writer.open.rows,
        };
        Ok(Opened::Writer(Box::new(writer), resumed))
    }

    /// Counts the features of a closed shard again, whose first clip is number `first`.
    fn count(&mut self, shard: usize, first: usize, fits: &[Fit]) -> Result<()> {
        let (dir, clips) = (&self.dir, &self.clips[first..]);
        let of_sae = |(sae, activity): (&SaeMeta, &mut Activity)| -> Result<()> {
            let name = sae_shard_name(sae, shard);
            let weights = Weights::open(dir.join(&name))?;
            for (at, clip) in clips.iter().take_while(|clip| clip.row.shard == shard).enumerate() {
                activity.add(first + at, &features_of(dir, &name, &weights, sae, clip)?);
            }
            Ok(())
        };
        self.meta.saes.par_iter().zip(&mut self.activity).try_for_each(of_sae)?;
        self.activity.iter_mut().zip(fits).for_each(|(activity, fit)| activity.fit.add(fit));
        Ok(())
    }

    /// Goes on with a shard whose start was kept. Where that is not what the journal says, the clips are computed again:
    /// an open shard is a convenience, not a promise.
    fn reopen(&mut self, entry: Entry) -> Result<()> {
        if entry.files.is_empty() || check_files(&self.dir, &entry.files).is_err() {
            return Ok(());
        }
        let mut hooks = self.begin_shard()?;
        let (codes_file, files) = entry.files.split_last().expect("a shard has a file of codes");
        for (hook, file) in hooks.iter_mut().zip(files) {
            let weights = Weights::open(self.dir.join(&file.name))?;
            let tensor = weights.get(RESID).ok_or_else(|| self.lacks(file, RESID))?;
            hook.append(tensor.bytes)?;
        }
        let rows = entry.clips.iter().map(|clip| clip.row.positions).sum();
        let mut features = Vec::with_capacity(self.meta.saes.len());
        for ((sae, file), fit) in self.meta.saes.iter().zip(&files[hooks.len()..]).zip(entry.fits) {
            let weights = Weights::open(self.dir.join(&file.name))?;
            let mut open = OpenFeatures::with(fit);
            for (at, clip) in entry.clips.iter().enumerate() {
                let rows = features_of(&self.dir, &file.name, &weights, sae, clip)?;
                open.append(&rows);
                self.activity[features.len()].add(self.clips.len() + at, &rows);
            }
            features.push(open);
        }
        let weights = Weights::open(self.dir.join(&codes_file.name))?;
        let codes = |clip: &JournalClip| {
            let name = codes_tensor(&clip.row.clip_id);
            weights
                .get(&name)
                .map(|tensor| tensor.bytes.to_vec())
                .ok_or_else(|| self.lacks(codes_file, &name))
        };
        let codes = entry.clips.iter().map(codes).collect::<Result<Vec<_>>>()?;
        self.open = OpenShard { hooks, features, rows, clips: entry.clips, codes, kept: entry.files };
        Ok(())
    }

    fn lacks(&self, file: &ShardFile, tensor: &str) -> AnalysisError {
        AnalysisError::store(&self.dir, format!("`{}` lacks tensor `{tensor}`", file.name))
    }

    /// Deletes temporaries of a killed run.
    fn delete_leftovers(&self) -> Result<()> {
        remove_leftovers(&self.dir)?;
        self.directories().try_for_each(|dir| remove_leftovers(self.dir.join(dir)).map(drop))?;
        Ok(())
    }

    /// Deletes shards that are not in the journal.
    fn delete_unknown(&self) -> Result<()> {
        let known: HashSet<&str> =
            self.files.iter().chain(&self.open.kept).map(|file| file.name.as_str()).collect();
        for dir in self.directories() {
            let path = self.dir.join(dir);
            for entry in fs::read_dir(&path).map_err(|e| FileError::io(&path, "list", e))? {
                let entry = entry.map_err(|e| FileError::io(&path, "list", e))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let shard = name.ends_with(".safetensors") && !name.starts_with('.');
                if shard && !known.contains(format!("{dir}/{name}").as_str()) {
                    let path = entry.path();
                    fs::remove_file(&path).map_err(|e| FileError::io(&path, "delete", e))?;
                }
            }
        }
        Ok(())
    }
}

/// The features of a clip in a shard's file, that are in order.
fn features_of(
    dir: &Path,
    name: &str,
    weights: &Weights,
    sae: &SaeMeta,
    clip: &JournalClip,
) -> Result<SparseRows> {
    let rows = features::read(weights, sae, clip.row.row_start, clip.row.positions);
    let problem = match rows {
        Ok(rows) => match features::disorder(sae, &rows) {
            None => return Ok(rows),
            Some(problem) => problem,
        },
        Err(problem) => problem,
    };
    Err(AnalysisError::store(dir, format!("`{name}` {problem}")))
}

/// Whether features can be stored as they are announced.
fn check_saes(meta: &StoreMeta) -> Result<()> {
    let bad = |sae: &SaeMeta, what: &str, found: String, expected: String| {
        Err(AnalysisError::usage(format!("{what} of autoencoder `{}`", sae.name), found, expected))
    };
    if meta.sae_only && meta.saes.is_empty() {
        return Err(AnalysisError::usage("autoencoders", 0, "at least 1 in a store of features alone"));
    }
    let mut names = HashSet::new();
    for sae in &meta.saes {
        if !is_sae_name(&sae.name) || !names.insert(&sae.name) {
            return bad(
                sae,
                "name",
                sae.name.clone(),
                "a name of its own of letters, digits, `_` and `-`".into(),
            );
        }
        match meta.sites.iter().find(|site| site.hook == sae.hook) {
            None => {
                let hooks: Vec<&str> = meta.sites.iter().map(|site| site.hook.as_str()).collect();
                return bad(sae, "hook", sae.hook.clone(), format!("one of {}", hooks.join(", ")));
            }
            Some(site) if site.width != sae.width => {
                return bad(sae, "width", sae.width.to_string(), format!("{}, as at its hook", site.width));
            }
            Some(_) => (),
        }
        if sae.k.is_some_and(|k| !(1..=sae.features).contains(&k)) {
            let expected = format!("1 to {}, the features there are", sae.features);
            return bad(sae, "k", format!("{:?}", sae.k.unwrap_or_default()), expected);
        }
    }
    Ok(())
}

/// Holds files against the journal.
fn check_files(dir: &Path, files: &[ShardFile]) -> Result<()> {
    files.par_iter().try_for_each(|file| {
        let path = dir.join(&file.name);
        let found = sha256_file(&path)
            .map_err(|e| AnalysisError::store(dir, format!("`{JOURNAL}` lists a shard: {e}")))?;
        if found == file.sha256 {
            return Ok(());
        }
        Err(AnalysisError::Hash {
            path,
            found,
            expected: file.sha256.clone(),
            origin: format!("`{JOURNAL}`"),
        })
    })
}
