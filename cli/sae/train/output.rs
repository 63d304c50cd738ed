//! The directory of a run: a log while it lasts, then the autoencoder, its record and its plots.

use super::checkpoints::NEXT_FILE;
use super::plot::{Series, plot};
use super::source::Place;
use crate::failure::Failure;
use anyhow::{Context as _, Result};
use auscult_analysis::record::RunRecord;
use auscult_kernels::DType;
use auscult_model::sae::train::{CHECKPOINT_FILE, Record, Trainer};
use auscult_model::sae::{CFG_FILE, Metadata, WEIGHTS_FILE};
use auscult_runtime::files::{atomic_write_bytes, is_leftover, lock, remove_leftovers};
use auscult_runtime::safetensors_io::{TensorSpec, write_safetensors};
use serde_json::{Map, Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The log: a [`Record`] a line.
const LOG_FILE: &str = "log.jsonl";
/// The plots.
const PLOT_FILE: &str = "training.svg";
/// How often every feature was active, as SAELens writes it.
const SPARSITY_FILE: &str = "sparsity.safetensors";

/// Held by the run that writes a directory.
const LOCK_FILE: &str = "training.lock";
/// What a run leaves that is killed before its first checkpoint.
const LEFT_OVER: [&str; 4] = [LOG_FILE, PLOT_FILE, SPARSITY_FILE, LOCK_FILE];

/// The right to write a directory; given back when it is dropped.
pub(super) struct Lock {
    path: PathBuf,
    _file: fs::File,
    /// The directory, where it was not there before.
    made: Option<PathBuf>,
}

impl Lock {
    /// Makes the directory where it is not there.
    ///
    /// # Errors
    /// A directory that another run writes.
    pub fn take(dir: &Path) -> Result<Self> {
        let made = (!dir.exists()).then(|| dir.to_path_buf());
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join(LOCK_FILE);
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        if !lock(&file).with_context(|| format!("cannot lock {}", path.display()))? {
            let message =
                format!("--out {}: another run writes it, expected a directory of its own", dir.display());
            return Err(Failure::usage(message));
        }
        Ok(Self { path, _file: file, made })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // one that stays holds nobody off, and a directory with anything in it stays
        let _ = fs::remove_file(&self.path);
        let _ = self.made.as_ref().map(fs::remove_dir);
    }
}

/// Refuses a directory that a fresh run cannot write: one with anything in it but what a run left that was killed early.
pub(super) fn check_free(dir: &Path) -> Result<()> {
    for (name, advice) in [
        (CFG_FILE, "expected a new or empty directory"),
        (CHECKPOINT_FILE, "expected a new or empty directory; `--resume` goes on with it"),
        (NEXT_FILE, "expected a new or empty directory; `--resume` goes on with it"),
    ] {
        if dir.join(name).exists() {
            return Err(Failure::usage(format!("--out {} holds a {name}, {advice}", dir.display())));
        }
    }
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot read {}", dir.display()))?,
    };
    for entry in entries {
        let name = entry.with_context(|| format!("cannot read {}", dir.display()))?.file_name();
        let name = name.to_string_lossy();
        if !LEFT_OVER.contains(&name.as_ref()) && !is_leftover(&name) {
            let message =
                format!("--out {} holds `{name}`, expected a new or empty directory", dir.display());
            return Err(Failure::usage(message));
        }
    }
    Ok(())
}

/// A directory that a run writes.
pub(super) struct Output {
    dir: PathBuf,
    log: fs::File,
    lines: Vec<Value>,
}

impl Output {
    /// A directory without a run.
    pub fn new(dir: &Path) -> Result<Self> {
        remove_leftovers(dir)?;
        Self::with_lines(dir, Vec::new())
    }

    /// The directory of a run that made so many steps; what its log has of later ones is made again, as is an autoencoder that
    /// lies beside its checkpoint, since the run was killed before the others were written.
    pub fn resumed(dir: &Path, steps: u64) -> Result<Self> {
        [CFG_FILE, WEIGHTS_FILE].iter().try_for_each(|name| remove(&dir.join(name)))?;
        let text = fs::read_to_string(dir.join(LOG_FILE)).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let kept = lines.filter(|line| line["step"].as_u64().is_some_and(|step| step < steps));
        Self::with_lines(dir, kept.collect())
    }

    fn with_lines(dir: &Path, lines: Vec<Value>) -> Result<Self> {
        let file = dir.join(LOG_FILE);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        atomic_write_bytes(&file, text.as_bytes())?;
        let log = fs::OpenOptions::new()
            .append(true)
            .open(&file)
            .with_context(|| format!("cannot open {}", file.display()))?;
        Ok(Self { dir: dir.to_path_buf(), log, lines })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds a line to the log.
    pub fn log(&mut self, record: &Record) -> Result<()> {
        let line = serde_json::to_value(record)?;
        writeln!(self.log, "{line}")
            .with_context(|| format!("cannot write {}", self.dir.join(LOG_FILE).display()))?;
        self.lines.push(line);
        Ok(())
    }

    /// Writes the autoencoder, its record and its plots.
    pub fn finish(&mut self, place: &Place, trainer: &Trainer, record: &RunRecord) -> Result<()> {
        let settings = serde_json::to_value(trainer.config())?;
        let mut other = Map::new();
        other.insert("training".into(), settings.clone());
        if let Some(positions) = place.positions {
            other.insert("context_size".into(), positions.into());
        }
        if let Some(posemb) = &place.posemb {
            other.insert("posemb".into(), posemb.clone().into());
        }
        let metadata =
            Metadata { hook: place.hook.clone(), layer: place.layer, model: place.model.clone(), other };
        let sparsity = trainer.sparsity()?;
        let spec = [TensorSpec::new("sparsity", DType::F32, [sparsity.len()])];
        write_safetensors(self.dir.join(SPARSITY_FILE), &[], &spec, |_, out| {
            out.write_all(bytemuck::cast_slice(&sparsity))
        })?;
        atomic_write_bytes(self.dir.join(PLOT_FILE), self.plots().as_bytes())?;
        trainer.sae(metadata)?.save(&self.dir)?;
        let mut record = record.clone();
        record.seed = Some(trainer.config().seed);
        record.details.insert("training".into(), settings);
        record.details.insert("hook".into(), json!(place.hook));
        record.details.insert("last".into(), self.lines.last().cloned().unwrap_or_default());
        record.finish();
        record.write(&self.dir)?;
        Ok(())
    }

    fn plots(&self) -> String {
        let series = |name: &'static str, field: &str| {
            let point = |line: &Value| Some((line["step"].as_f64()?, line[field].as_f64()?));
            Series { name, points: self.lines.iter().filter_map(point).collect() }
        };
        plot(&[
            series("loss", "loss"),
            series("unexplained variance (FVU)", "fvu"),
            series("active features of a row (L0)", "l0"),
            series("dead features", "dead"),
        ])
    }
}

/// Whether a directory holds an autoencoder that is finished.
pub(super) fn is_finished(dir: &Path) -> bool {
    dir.join(CFG_FILE).exists()
}

/// Removes a file, if it is there.
pub(super) fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}
