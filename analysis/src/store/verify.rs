//! Holding a store against its hashes and its index.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use auscult_runtime::files::{FileError, sha256_file};
use auscult_runtime::weights::Weights;
use rayon::prelude::*;
use serde::Serialize;

use super::entry::{Entry, ShardState};
use super::features::{self, INDICES};
use super::format::{
    CODES_DIR, ClipRow, INDEX_JSONL, JOURNAL, RESID, SHA256SUMS, STORE_JSON, SaeMeta, StoreMeta,
    codes_tensor, read_index, sae_shard_name, sae_stats_name, shard_name,
};
use super::reader::code_values;
use crate::error::{AnalysisError, Result};
use crate::journal::peek;
use crate::record::RUN_JSON;
use crate::time;

/// How far a store has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum StoreState {
    /// It has its `SHA256SUMS`.
    Finished,
    /// It has none: `capture --resume` finishes it.
    Unfinished {
        /// Clips that are safe on disk.
        clips: usize,
    },
}

impl StoreState {
    /// Looks at a store's directory.
    pub fn of(dir: &Path) -> Self {
        if dir.join(SHA256SUMS).exists() {
            return Self::Finished;
        }
        let entries = peek::<Entry>(&dir.join(JOURNAL));
        let open = entries
            .last()
            .filter(|entry| entry.state == ShardState::Open)
            .map_or(0, |entry| entry.clips.len());
        let closed: usize = entries
            .iter()
            .filter(|entry| entry.state == ShardState::Closed)
            .map(|entry| entry.clips.len())
            .sum();
        Self::Unfinished { clips: closed + open }
    }
}

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Whether the store is finished; an unfinished one is not examined further.
    #[serde(flatten)]
    pub state: StoreState,
    /// Files whose hash is right.
    pub files: usize,
    /// Their length in bytes.
    pub bytes: u64,
    /// Clips of the index.
    pub clips: usize,
    /// Everything that is wrong, a sentence each.
    pub problems: Vec<String>,
}

impl VerifyReport {
    /// Whether the store is finished and nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.state == StoreState::Finished && self.problems.is_empty()
    }
}

/// Hashes every file of a store, looks for missing and surplus ones, and holds tensors against the index: types,
/// shapes, rows that lie one after another, codes within their range, features in order, names that are unique.
///
/// # Errors
/// [`AnalysisError::Store`] for a directory without `store.json`; what is wrong with a store is no error but stands in
/// the report. [`AnalysisError::File`] if the directory cannot be listed.
pub fn verify(dir: impl AsRef<Path>) -> Result<VerifyReport> {
    let dir = dir.as_ref();
    if !dir.join(STORE_JSON).exists() {
        return Err(AnalysisError::store(dir, format!("has no `{STORE_JSON}`, expected a store")));
    }
    let state = StoreState::of(dir);
    let mut report = VerifyReport { state, files: 0, bytes: 0, clips: 0, problems: Vec::new() };
    if let StoreState::Unfinished { clips } = state {
        report.clips = clips;
        report.problems.push(format!(
            "the store is unfinished: it has no `{SHA256SUMS}`; {clips} clips are safe on disk"
        ));
        return Ok(report);
    }
    check_hashes(dir, &mut report)?;
    match StoreMeta::read(dir).and_then(|meta| Ok((meta, read_index(dir)?))) {
        Ok((meta, clips)) => {
            report.clips = clips.len();
            report.problems.extend(check_index(&meta, &clips));
            report.problems.extend(check_tensors(dir, &meta, &clips));
            let stats = meta.saes.iter().map(sae_stats_name).filter(|name| !dir.join(name).exists());
            report.problems.extend(stats.map(|name| format!("`{name}` is missing")));
        }
        Err(error) => report.problems.push(error.to_string()),
    }
    Ok(report)
}

/// Files of a directory and its directories, relative, with `/`.
pub(super) fn files_of(dir: &Path) -> Result<BTreeSet<String>, FileError> {
    let mut files = BTreeSet::new();
    let mut directories = vec![String::new()];
    while let Some(within) = directories.pop() {
        let path = dir.join(&within);
        for entry in fs::read_dir(&path).map_err(|e| FileError::io(&path, "list", e))? {
            let entry = entry.map_err(|e| FileError::io(&path, "list", e))?;
            let kind = entry.file_type().map_err(|e| FileError::io(&entry.path(), "read", e))?;
            let name = format!("{within}{}", entry.file_name().to_string_lossy());
            match kind.is_dir() {
                true => directories.push(format!("{name}/")),
                false => drop(files.insert(name)),
            }
        }
    }
    Ok(files)
}

fn check_hashes(dir: &Path, report: &mut VerifyReport) -> Result<()> {
    let text = fs::read(dir.join(SHA256SUMS)).map_err(|e| FileError::io(&dir.join(SHA256SUMS), "read", e))?;
    let sums = match parse_sums(&text) {
        Ok(sums) => sums,
        Err(problem) => {
            report.problems.push(problem);
            BTreeMap::new()
        }
    };
    let there = files_of(dir)?;
    // the journal of a run that was killed at its very end is harmless
    let known = |name: &str| sums.contains_key(name) || [SHA256SUMS, JOURNAL].contains(&name);
    let surplus = there.iter().filter(|name| !known(name));
    report.problems.extend(surplus.map(|name| format!("`{name}` is there, but not in `{SHA256SUMS}`")));
    for name in [STORE_JSON, INDEX_JSONL, RUN_JSON] {
        if !sums.contains_key(name) {
            report.problems.push(format!("`{SHA256SUMS}` does not list `{name}`"));
        }
    }
    let check = |(name, expected): (&String, &String)| -> Result<u64, String> {
        if !there.contains(name) {
            return Err(format!("`{name}` is in `{SHA256SUMS}`, but not there"));
        }
        let path = dir.join(name);
        let found = sha256_file(&path).map_err(|e| e.to_string())?;
        if found != *expected {
            return Err(format!("`{name}` has SHA-256 {found}, expected {expected}"));
        }
        fs::metadata(&path).map(|meta| meta.len()).map_err(|e| e.to_string())
    };
    let checked: Vec<_> = sums.par_iter().map(check).collect();
    for result in checked {
        match result {
            Ok(bytes) => {
                report.files += 1;
                report.bytes += bytes;
            }
            Err(problem) => report.problems.push(problem),
        }
    }
    Ok(())
}

/// Names and hashes of `SHA256SUMS`.
fn parse_sums(text: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let text = std::str::from_utf8(text).map_err(|e| format!("`{SHA256SUMS}` is not UTF-8: {e}"))?;
    let mut sums = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let hex =
            |hash: &str| hash.len() == 64 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let Some((hash, name)) = line.split_once("  ").filter(|(hash, _)| hex(hash)) else {
            return Err(format!(
                "`{SHA256SUMS}`, line {}: expected a SHA-256, two blanks and a name",
                at + 1
            ));
        };
        if sums.insert(name.to_string(), hash.to_string()).is_some() {
            return Err(format!("`{SHA256SUMS}` lists `{name}` twice"));
        }
    }
    Ok(sums)
}

/// What the index says of itself.
fn check_index(meta: &StoreMeta, clips: &[ClipRow]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut ids = BTreeSet::new();
    let (mut shard, mut row) = (0, 0);
    for clip in clips {
        let id = &clip.clip_id;
        if !ids.insert(id.as_str()) {
            problems.push(format!("the index has clip `{id}` twice"));
        }
        if clip.positions != time::positions(clip.frames) {
            let expected = time::positions(clip.frames);
            problems.push(format!("clip `{id}` has {} positions, expected {expected}", clip.positions));
        }
        if row >= meta.shard_rows {
            (shard, row) = (shard + 1, 0);
        }
        if (clip.shard, clip.row_start) != (shard, row) {
            let found = format!("shard {}, row {}", clip.shard, clip.row_start);
            problems.push(format!("clip `{id}` begins at {found}, expected shard {shard}, row {row}"));
            (shard, row) = (clip.shard, clip.row_start);
        }
        row += clip.positions;
    }
    problems
}

/// What shards hold, against the index.
fn check_tensors(dir: &Path, meta: &StoreMeta, clips: &[ClipRow]) -> Vec<String> {
    let mut by_shard: BTreeMap<usize, Vec<&ClipRow>> = BTreeMap::new();
    for clip in clips {
        by_shard.entry(clip.shard).or_default().push(clip);
    }
    let check = |(&shard, clips): (&usize, &Vec<&ClipRow>)| {
        let mut problems = Vec::new();
        let rows: usize = clips.iter().map(|clip| clip.positions).sum();
        let sites = if meta.sae_only { &[] } else { meta.sites.as_slice() };
        for site in sites {
            let name = shard_name(&site.hook, shard);
            match Weights::open(dir.join(&name)) {
                Err(error) => problems.push(error.to_string()),
                Ok(weights) => {
                    let found: Vec<_> =
                        weights.iter().map(|t| format!("{} {} {:?}", t.name, t.dtype, t.shape)).collect();
                    let expected = format!("{RESID} {} {:?}", meta.dtype.dtype(), [rows, site.width]);
                    if found != [expected.as_str()] {
                        problems.push(format!("`{name}` holds {}, expected {expected}", found.join(", ")));
                    }
                }
            }
        }
        problems.extend(meta.saes.iter().filter_map(|sae| check_features(dir, sae, shard, rows)));
        problems.extend(check_codes(dir, meta, shard, clips));
        problems
    };
    by_shard.par_iter().flat_map_iter(check).collect()
}

/// What is wrong with the features of a shard of `rows` rows.
fn check_features(dir: &Path, sae: &SaeMeta, shard: usize, rows: usize) -> Option<String> {
    let name = sae_shard_name(sae, shard);
    let weights = match Weights::open(dir.join(&name)) {
        Ok(weights) => weights,
        Err(error) => return Some(error.to_string()),
    };
    let there = weights.get(INDICES).and_then(|tensor| tensor.shape.first().copied());
    let problem = match features::read(&weights, sae, 0, rows) {
        Err(problem) => Some(problem),
        Ok(_) if there != Some(rows) => {
            Some(format!("has {} rows, expected {rows}", there.unwrap_or_default()))
        }
        Ok(features) => features::disorder(sae, &features),
    };
    problem.map(|problem| format!("`{name}` {problem}"))
}

fn check_codes(dir: &Path, meta: &StoreMeta, shard: usize, clips: &[&ClipRow]) -> Vec<String> {
    let name = shard_name(CODES_DIR, shard);
    let weights = match Weights::open(dir.join(&name)) {
        Ok(weights) => weights,
        Err(error) => return vec![error.to_string()],
    };
    let mut problems = Vec::new();
    if weights.names().count() != clips.len() {
        problems.push(format!(
            "`{name}` holds {} tensors, expected {}",
            weights.names().count(),
            clips.len()
        ));
    }
    for clip in clips {
        let tensor = codes_tensor(&clip.clip_id);
        let Some(view) = weights.get(&tensor) else {
            problems.push(format!("`{name}` lacks `{tensor}`"));
            continue;
        };
        let expected = [meta.codebooks, clip.frames];
        if view.dtype != meta.codes_dtype() || view.shape != expected {
            let found = format!("{} {:?}", view.dtype, view.shape);
            problems.push(format!("`{tensor}` is {found}, expected {} {expected:?}", meta.codes_dtype()));
            continue;
        }
        let in_range = |&code: &u32| usize::try_from(code).is_ok_and(|code| code < meta.codebook_size);
        if !code_values(&view).is_some_and(|codes| codes.iter().all(in_range)) {
            problems.push(format!("`{tensor}` has a code outside 0..{}", meta.codebook_size));
        }
    }
    problems
}
