//! Writing a checkpoint directory in the Hugging Face layout: weights in one file or in shards, then the small files,
//! `config.json` last, so that a directory that has one is complete.
//!
//! Every file appears whole or not at all; what a failed attempt wrote is removed again. The values come from a
//! callback, one tensor at a time, so nothing here holds a checkpoint in memory.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use auscult_runtime::files::atomic_write_bytes;
use auscult_runtime::safetensors_io::{TensorSpec, write_safetensors};
use serde_json::{Map, Value, json};

use crate::config::CONFIG_FILE;
use crate::error::{ModelError, Result};

/// Largest shard, as HF `save_pretrained` cuts them.
pub const SHARD_BYTES: u64 = 5_000_000_000;

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// Why a tensor could not be produced: its source is at fault, or the destination is.
#[derive(Debug)]
pub enum FillError {
    /// The source could not be read.
    Source(ModelError),
    /// The destination could not be written.
    Write(io::Error),
}

impl From<ModelError> for FillError {
    fn from(error: ModelError) -> Self {
        Self::Source(error)
    }
}

/// Told how many bytes of weights are written, and how many there will be.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// A directory being filled. Dropped before [`finish`](Self::finish), it removes what it wrote.
#[derive(Debug)]
pub(crate) struct OutputDir {
    path: PathBuf,
    created: bool,
    written: Vec<PathBuf>,
    finished: bool,
}

impl OutputDir {
    /// Makes `path`, or takes it when it is there and holds no checkpoint.
    pub fn create(path: &Path) -> Result<Self> {
        let created = !path.exists();
        if created {
            fs::create_dir_all(path).map_err(ModelError::io("create", path))?;
        } else if !path.is_dir() {
            return Err(ModelError::file(path, "is a file, expected a directory to write a checkpoint to"));
        }
        for name in [CONFIG_FILE, SINGLE_FILE, INDEX_FILE] {
            if path.join(name).exists() {
                let message = format!("holds a {name} already, expected a new or empty directory");
                return Err(ModelError::file(path, message));
            }
        }
        Ok(Self { path: path.to_path_buf(), created, written: Vec::new(), finished: false })
    }

    /// Writes `tensors` as `model.safetensors`, or as shards of at most `shard_bytes` with their index.
    ///
    /// `fill(i, out)` writes the little-endian bytes of `tensors[i]`.
    pub fn weights(
        &mut self,
        tensors: &[TensorSpec],
        shard_bytes: u64,
        progress: Progress<'_>,
        fill: &mut dyn FnMut(usize, &mut dyn Write) -> Result<(), FillError>,
    ) -> Result<()> {
        let sizes = self.sizes(tensors)?;
        let shards = cut(&sizes, shard_bytes);
        let total: u64 = sizes.iter().sum();
        let metadata = [("format".to_string(), "pt".to_string())];
        let mut done = 0;
        let mut weight_map = Map::new();
        for (number, shard) in shards.iter().enumerate() {
            let name = match shards.len() {
                1 => SINGLE_FILE.to_string(),
                count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
            };
            let path = self.path.join(&name);
            let mut source_error = None;
            let result = write_safetensors(&path, &metadata, &tensors[shard.clone()], |i, out| {
                let i = shard.start + i;
                match fill(i, out) {
                    Ok(()) => {
                        done += sizes[i];
                        progress(done, total);
                        Ok(())
                    }
                    Err(FillError::Write(error)) => Err(error),
                    Err(FillError::Source(error)) => {
                        source_error = Some(error);
                        Err(io::Error::other("the source of a tensor failed"))
                    }
                }
            });
            if let Some(error) = source_error {
                return Err(error);
            }
            result?;
            self.written.push(path);
            for tensor in &tensors[shard.clone()] {
                weight_map.insert(tensor.name.clone(), name.clone().into());
            }
        }
        if shards.len() > 1 {
            let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
            self.json(INDEX_FILE, &index)?;
        }
        Ok(())
    }

    /// Writes a JSON file as HF does: sorted keys, two spaces.
    pub fn json(&mut self, name: &str, value: &Value) -> Result<()> {
        let mut text = serde_json::to_string_pretty(&sorted(value)).expect("JSON values always print");
        text.push('\n');
        self.bytes(name, text.as_bytes())
    }

    /// Writes a small file.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        atomic_write_bytes(&path, bytes)?;
        self.written.push(path);
        Ok(())
    }

    /// Keeps what was written; returns the files.
    pub fn finish(mut self) -> Vec<PathBuf> {
        self.finished = true;
        std::mem::take(&mut self.written)
    }

    fn sizes(&self, tensors: &[TensorSpec]) -> Result<Vec<u64>> {
        let size = |tensor: &TensorSpec| {
            tensor.bytes().and_then(|bytes| u64::try_from(bytes).ok()).ok_or_else(|| {
                let message = format!(
                    "tensor `{}` of shape {:?} has more bytes than memory",
                    tensor.name, tensor.shape
                );
                ModelError::file(&self.path, message)
            })
        };
        tensors.iter().map(size).collect()
    }
}

impl Drop for OutputDir {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // best effort: the error that led here matters more than one of the clean-up
        for path in &self.written {
            let _ = fs::remove_file(path);
        }
        if self.created {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Cuts tensors into runs of at most `limit` bytes each; a larger tensor is a run of its own.
fn cut(sizes: &[u64], limit: u64) -> Vec<std::ops::Range<usize>> {
    let mut shards = Vec::new();
    let (mut start, mut bytes) = (0, 0u64);
    for (i, &size) in sizes.iter().enumerate() {
        if i > start && bytes.saturating_add(size) > limit {
            shards.push(start..i);
            (start, bytes) = (i, 0);
        }
        bytes = bytes.saturating_add(size);
    }
    shards.push(start..sizes.len());
    shards
}

/// `value` with the keys of every object in order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            Value::Object(entries.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
