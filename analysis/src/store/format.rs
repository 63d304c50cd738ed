//! What a store's files hold: `store.json` and the rows of `index.jsonl`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use auscult_kernels::DType;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{AnalysisError, Result};
use crate::record::difference;

/// The number that `store.json` opens with.
pub const FORMAT: u32 = 1;
/// What a store holds and how it was made.
pub const STORE_JSON: &str = "store.json";
/// One row a clip.
pub const INDEX_JSONL: &str = "index.jsonl";
/// Hashes of all other files, written last.
pub const SHA256SUMS: &str = "SHA256SUMS";
/// The progress of an unfinished store.
pub const JOURNAL: &str = "journal.jsonl";
/// The directory of the codes.
pub const CODES_DIR: &str = "codes";
/// The tensor of a hook's shard, [rows, width].
pub const RESID: &str = "resid";

/// Element type of stored activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreDtype {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
}

impl StoreDtype {
    /// As tensors know it.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
        }
    }

    /// Bytes of one value.
    pub fn size(self) -> usize {
        self.dtype().size()
    }
}

impl fmt::Display for StoreDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        })
    }
}

impl FromStr for StoreDtype {
    type Err = AnalysisError;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::BF16),
            other => Err(AnalysisError::usage("--dtype", format!("`{other}`"), "f32, f16 or bf16")),
        }
    }
}

/// A site as a store holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The name it was asked for by, which is its directory's name: `hook_layers.5`.
    pub hook: String,
    /// The site's own name: `layers.5.resid_post`.
    pub site: String,
    /// Values of one row.
    pub width: usize,
}

/// An autoencoder whose features a store holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaeMeta {
    /// Its name in the store, which is part of its files' names; unique, and [`is_sae_name`].
    pub name: String,
    /// Where it was read from, as the user named it.
    pub path: String,
    /// SHA-256 over the names and hashes of its files.
    pub sha256: String,
    /// The hook that its rows are those of, which is among [`StoreMeta::sites`].
    pub hook: String,
    /// That hook's site.
    pub site: String,
    /// Values of the rows that it reads.
    pub width: usize,
    /// Features there are.
    pub features: usize,
    /// Places of a row in every shard; none where the architecture sets no limit: a shard then has as many as its fullest row
    /// needs, at least 1.
    pub k: Option<usize>,
    /// `topk`, `jumprelu` and so on, as SAELens names them.
    pub architecture: String,
    /// What its encoder multiplied: f32, or bf16, of which near ties about the last place were computed again in f32.
    #[serde(default = "full_precision")]
    pub precision: String,
}

/// Of stores that do not say.
fn full_precision() -> String {
    "f32".into()
}

impl SaeMeta {
    /// Element type of the stored indices.
    pub fn index_dtype(&self) -> DType {
        index_dtype(self.features)
    }
}

/// Element type of the indices of so many features: U16 up to 65,536 of them, else U32.
pub fn index_dtype(features: usize) -> DType {
    match features <= 1 << 16 {
        true => DType::U16,
        false => DType::U32,
    }
}

/// Little-endian bytes of whole numbers that fit `dtype`, which is no wider than theirs.
pub fn narrowed(numbers: &[u32], dtype: DType) -> Vec<u8> {
    // the first bytes of a little-endian number are the narrower number
    numbers.iter().flat_map(|number| number.to_le_bytes().into_iter().take(dtype.size())).collect()
}

/// The content of `store.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreMeta {
    /// [`FORMAT`].
    pub format: u32,
    /// The model as the user named it.
    pub model: String,
    /// SHA-256 of its weights ([`crate::record::ModelRecord::weights_sha256`]).
    pub model_sha256: String,
    /// SHA-256 of its `config.json`.
    pub config_sha256: String,
    /// The hooks, in the order they were asked for.
    pub sites: Vec<Hook>,
    /// Autoencoders whose features are stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saes: Vec<SaeMeta>,
    /// Whether features alone are stored, and no activations.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sae_only: bool,
    /// Element type of the activations.
    pub dtype: StoreDtype,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Frames a second; position `s` lies at `(s - 1) / frame_rate` seconds of its clip.
    pub frame_rate: f64,
    /// Samples a second of the clips, in Hz.
    pub sample_rate: u32,
    /// Samples of one frame.
    pub hop_length: usize,
    /// Codebooks of the codes.
    pub codebooks: usize,
    /// Codes of one codebook; they are stored as U16 up to 65,536 of them, else as I32.
    pub codebook_size: usize,
    /// How positions were embedded.
    pub posemb: String,
    /// The text the model was conditioned on; none for the unconditional model.
    pub text: Option<String>,
    /// How files were cut.
    pub windows: WindowsMeta,
    /// Most clips stored.
    pub limit: Option<usize>,
    /// The inputs, by number and hash of their names and ranges.
    pub inputs: InputsMeta,
    /// Positions after which a shard is closed, at the end of a clip.
    pub shard_rows: usize,
    /// What computed it.
    pub engine: EngineMeta,
}

/// How files were cut into clips; times in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowsMeta {
    /// Length of a clip; none: whole files.
    pub window: Option<f64>,
    /// From one clip's start to the next one's; none: the window.
    pub stride: Option<f64>,
    /// Where cutting starts.
    pub start: f64,
    /// Length of what is cut; none: to the end.
    pub duration: Option<f64>,
    /// Whether a last clip shorter than the window was dropped.
    pub drop_last: bool,
}

/// The inputs of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputsMeta {
    /// How many.
    pub count: usize,
    /// SHA-256 over their names, paths, promised hashes and ranges.
    pub sha256: String,
}

/// What computed a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineMeta {
    /// `auscult`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The commit it was built from.
    pub git_commit: String,
    /// The device: `cpu`, `wgpu:0`.
    pub device: String,
    /// What the device calls itself.
    pub device_name: String,
    /// Precision of the decoder.
    pub precision: String,
    /// Clips computed together: `auto` or a number.
    pub batch: String,
}

/// A row of `index.jsonl`. Rows of the index are in the order of the clips.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipRow {
    /// Unique: `<track_id>@<first sample>-<one past the last>`, in samples at the store's `sample_rate`.
    pub clip_id: String,
    /// The recording.
    pub track_id: String,
    /// The file as the manifest or the command line names it.
    pub audio_path: String,
    /// SHA-256 of the file.
    pub audio_sha256: String,
    /// Start within the file.
    pub start_seconds: f64,
    /// End within the file.
    pub end_seconds: f64,
    /// Frames of codes.
    pub frames: usize,
    /// Rows in each hook's tensor: `frames + 1`.
    pub positions: usize,
    /// Number of the files `<hook>/<shard>.safetensors` and `codes/<shard>.safetensors`, written with five digits.
    pub shard: usize,
    /// First row within that shard.
    pub row_start: usize,
    /// Whether it is shorter than the window.
    pub partial: bool,
    /// Samples a second of the file before resampling, in Hz.
    pub source_sample_rate: u32,
}

/// The name of a clip.
pub fn clip_id(track_id: &str, start_sample: u64, samples: usize) -> String {
    let end = start_sample + u64::try_from(samples).expect("a clip in memory has fewer than 2^64 samples");
    format!("{track_id}@{start_sample}-{end}")
}

/// The file of a shard within the store, with `/`.
pub fn shard_name(dir: &str, shard: usize) -> String {
    format!("{dir}/{shard:05}.safetensors")
}

/// The file that holds the first `rows` rows of a shard while a run is suspended.
pub(super) fn open_name(dir: &str, shard: usize, rows: usize) -> String {
    format!("{dir}/{shard:05}.open-{rows}.safetensors")
}

/// The file of a shard of an autoencoder's features within the store, with `/`.
pub fn sae_shard_name(sae: &SaeMeta, shard: usize) -> String {
    format!("{}/{shard:05}.{}.safetensors", sae.hook, sae.name)
}

/// The same file while a run is suspended, of the first `rows` rows.
pub(super) fn sae_open_name(sae: &SaeMeta, shard: usize, rows: usize) -> String {
    format!("{}/{shard:05}.{}.open-{rows}.safetensors", sae.hook, sae.name)
}

/// The file of what is known of each feature of an autoencoder over the whole store, with `/`.
pub fn sae_stats_name(sae: &SaeMeta) -> String {
    format!("{}/{}.stats.safetensors", sae.hook, sae.name)
}

/// Whether an autoencoder can have this name in a store: letters, digits, `_` and `-`, and not taken for another part of a
/// file's name.
pub fn is_sae_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.chars().all(plain) && name != "stats" && !name.starts_with("open-")
}

/// Names for autoencoders in a store, after the last part of their paths; numbered from the second of a name on.
pub fn sae_names(paths: &[&Path]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(paths.len());
    for path in paths {
        let last = path.file_name().unwrap_or_default().to_string_lossy();
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        let plain: String = last.chars().map(plain).collect();
        // what no letter or digit is left of has no name, and one with `-` first would be taken for an option
        let plain = if plain.starts_with('-') { plain.trim_matches('-') } else { &plain };
        let plain = if plain.is_empty() { "sae" } else { plain }.to_string();
        let name = if is_sae_name(&plain) { plain } else { format!("sae-{plain}") };
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let mut free = std::iter::once(name.clone()).chain(numbered).filter(|name| !names.contains(name));
        names.push(free.next().expect("there are more numbers than names"));
    }
    names
}

/// The tensor of a clip in `codes/<shard>.safetensors`, [codebooks, frames].
pub fn codes_tensor(clip_id: &str) -> String {
    format!("codes/{clip_id}")
}

impl StoreMeta {
    /// Element type of the codes.
    pub fn codes_dtype(&self) -> DType {
        match self.codebook_size <= 1 << 16 {
            true => DType::U16,
            false => DType::I32,
        }
    }

    /// The first field that differs from `stored`, as (field, here, there); the model's name, the autoencoders' paths and
    /// the commit may differ, for they change nothing that is stored.
    pub(super) fn difference(&self, stored: &Self) -> Option<(String, String, String)> {
        let mut ours = self.clone();
        ours.model.clone_from(&stored.model);
        ours.saes.iter_mut().zip(&stored.saes).for_each(|(ours, stored)| ours.path.clone_from(&stored.path));
        ours.engine.git_commit.clone_from(&stored.engine.git_commit);
        let value =
            |meta: &Self| serde_json::to_value(meta).expect("store.json has string keys and finite numbers");
        difference(&value(&ours), &value(stored))
    }

    /// Reads a store's `store.json`.
    ///
    /// # Errors
    /// [`AnalysisError::Store`] if it is missing, unreadable or of another format.
    pub fn read(dir: &Path) -> Result<Self> {
        let text = std::fs::read(dir.join(STORE_JSON)).map_err(|e| {
            AnalysisError::store(dir, format!("`{STORE_JSON}` cannot be read ({e}), expected a store"))
        })?;
        Self::parse(dir, &text)
    }

    pub(super) fn parse(dir: &Path, text: &[u8]) -> Result<Self> {
        let bad = |e| AnalysisError::store(dir, format!("`{STORE_JSON}` is broken: {e}"));
        let value: Value = serde_json::from_slice(text).map_err(bad)?;
        if value.get("format") != Some(&FORMAT.into()) {
            let found = value.get("format").map_or("absent".to_string(), Value::to_string);
            return Err(AnalysisError::store(
                dir,
                format!("`format` in `{STORE_JSON}` is {found}, expected {FORMAT}"),
            ));
        }
        serde_json::from_value(value).map_err(bad)
    }
}

/// Reads `index.jsonl`.
pub(super) fn read_index(dir: &Path) -> Result<Vec<ClipRow>> {
    let text = std::fs::read(dir.join(INDEX_JSONL))
        .map_err(|e| AnalysisError::store(dir, format!("`{INDEX_JSONL}` cannot be read ({e})")))?;
    let lines = text.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(at, line)| {
            serde_json::from_slice(line).map_err(|e| {
                AnalysisError::store(dir, format!("`{INDEX_JSONL}`, line {}, is broken: {e}", at + 1))
            })
        })
        .collect()
}

/// The content of `index.jsonl`.
pub(super) fn index_text<'a>(rows: impl Iterator<Item = &'a ClipRow>) -> Vec<u8> {
    let mut text = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut text, row).expect("index rows have string keys and finite numbers");
        text.push(b'\n');
    }
    text
}
