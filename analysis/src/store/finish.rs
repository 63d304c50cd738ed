//! The three ways in which writing ends: kept for later, removed, finished.

use std::fs;
use std::io::Write;
use std::path::Path;

use auscult_runtime::files::{FileError, atomic_write, atomic_write_bytes, sha256_bytes, sha256_file};

use super::entry::ShardState;
use super::format::{INDEX_JSONL, SHA256SUMS, STORE_JSON, index_text, sae_stats_name};
use super::writer::StoreWriter;
use crate::capture::Failure;
use crate::error::Result;
use crate::record::{RUN_JSON, RunRecord, pretty};

impl StoreWriter {
    /// Keeps the open shard on disk, so that nothing is lost when the run is taken up again.
    ///
    /// # Errors
    /// [`crate::AnalysisError::File`]; the store is then as if the run had been killed.
    pub fn suspend(mut self) -> Result<()> {
        let rows = self.open.rows;
        let names = self.shard_files(ShardState::Open);
        // nothing to keep, or nothing that was not kept the last time
        if self.open.clips.is_empty() || self.open.kept.iter().map(|file| &file.name).eq(&names) {
            return Ok(());
        }
        let hooks = std::mem::take(&mut self.open.hooks);
        let dense = hooks.len();
        for (hook, name) in hooks.into_iter().zip(&names) {
            let closed = hook.path().to_path_buf();
            hook.finish(rows)?;
            self.step("a suspended hook's shard is renamed into place");
            let open = self.dir.join(name);
            fs::rename(&closed, &open).map_err(|e| FileError::io(&open, "rename into place", e))?;
            self.step("a suspended hook's shard has its name");
        }
        self.write_features(&names[dense..names.len() - 1])?;
        self.write_codes(names.last().expect("a shard has a file of codes"))?;
        self.step("the suspended codes are renamed into place");
        let files = self.hashed(&names)?;
        let entry = self.entry(ShardState::Open, files);
        self.journal.append(&entry)?;
        self.step("the suspended shard is in the journal");
        let kept = std::mem::take(&mut self.open.kept);
        self.discard(&kept)
    }

    /// Removes a store that holds nothing, and its directory if this writer made it.
    ///
    /// # Errors
    /// [`crate::AnalysisError::File`].
    ///
    /// # Panics
    /// If a clip was stored.
    pub fn abandon(self) -> Result<()> {
        assert_eq!(self.clips(), 0, "only an empty store is abandoned");
        let remove =
            |path: &Path, result: std::io::Result<()>| result.map_err(|e| FileError::io(path, "delete", e));
        for name in self.directories() {
            let path = self.dir.join(name);
            remove(&path, fs::remove_dir(&path))?;
        }
        let path = self.dir.join(STORE_JSON);
        remove(&path, fs::remove_file(&path))?;
        let Self { dir, journal, made, .. } = self;
        journal.delete()?;
        if made {
            remove(&dir, fs::remove_dir(&dir))?;
        }
        Ok(())
    }

    /// Closes the last shard and writes what is known of each feature, the index, `run.json` (`record`, to which the inputs
    /// are added, the files that failed as `details.failed`, and of autoencoders [`Self::summaries`] as `details.saes`) and,
    /// last, `SHA256SUMS`.
    ///
    /// # Errors
    /// [`crate::AnalysisError::File`].
    pub fn finish(mut self, record: &mut RunRecord) -> Result<()> {
        if !self.open.clips.is_empty() {
            self.close_shard()?;
        }
        let stats: Vec<String> = self.meta.saes.iter().map(sae_stats_name).collect();
        for (activity, name) in self.activity.iter().zip(&stats) {
            activity.write(&self.dir.join(name))?;
        }
        self.step("what is known of each feature is written");
        let stats = self.hashed(&stats)?;
        let index = index_text(self.clips.iter().map(|clip| &clip.row));
        atomic_write_bytes(self.dir.join(INDEX_JSONL), &index)?;
        self.step("the index is written");
        record.inputs.extend(self.inputs.values().cloned());
        let failed: Vec<&Failure> = self.failed.values().collect();
        let failed = serde_json::to_value(failed).expect("failures have string keys");
        record.details.insert("failed".to_string(), failed);
        if !self.meta.saes.is_empty() {
            let saes = serde_json::to_value(self.summaries()).expect("summaries have string keys");
            record.details.insert("saes".to_string(), saes);
        }
        record.finish();
        let run = pretty(record);
        atomic_write_bytes(self.dir.join(RUN_JSON), &run)?;
        self.step("run.json is written");
        let mut sums: Vec<(String, String)> = vec![
            (INDEX_JSONL.to_string(), sha256_bytes(&index)),
            (RUN_JSON.to_string(), sha256_bytes(&run)),
            (STORE_JSON.to_string(), sha256_file(self.dir.join(STORE_JSON))?),
        ];
        sums.extend(self.files.iter().chain(&stats).map(|file| (file.name.clone(), file.sha256.clone())));
        sums.sort();
        atomic_write(self.dir.join(SHA256SUMS), |out| {
            sums.iter().try_for_each(|(name, hash)| writeln!(out, "{hash}  {name}"))
        })?;
        self.step("SHA256SUMS is written");
        self.journal.delete()?;
        Ok(())
    }
}
