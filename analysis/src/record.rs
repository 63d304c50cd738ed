//! `run.json`: what was run, by which program, on which device, over which files. It lies in every output directory and
//! holds enough to run the same again.

use std::path::{Path, PathBuf};

use auscult_runtime::DeviceInfo;
use auscult_runtime::files::{FileError, atomic_write_bytes, open_regular, sha256_bytes, sha256_file};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{AnalysisError, Result};

/// The record's name in an output directory.
pub const RUN_JSON: &str = "run.json";
/// The number that `run.json` opens with.
pub const RUN_FORMAT: u32 = 1;
/// The git commit this crate was built from, or `unknown`.
pub const GIT_COMMIT: &str = match option_env!("AUSCULT_GIT_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// Version of the program, that of the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The content of `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`RUN_FORMAT`].
    pub format: u32,
    /// [`VERSION`].
    pub version: String,
    /// [`GIT_COMMIT`].
    pub git_commit: String,
    /// The command line, program first.
    pub command: Vec<String>,
    /// The directory it was run in, against which its relative paths hold.
    pub directory: String,
    /// Seed of everything random; none where nothing is.
    pub seed: Option<u64>,
    /// What it ran on; none for work that needs no device.
    pub device: Option<DeviceRecord>,
    /// Storage and matrix precision of the model.
    pub precision: Option<String>,
    /// Threads of the host that were used.
    pub threads: usize,
    /// Start, UTC, RFC 3339.
    pub started: String,
    /// End, UTC, RFC 3339.
    pub finished: Option<String>,
    /// Files of the models used.
    pub models: Vec<FileRecord>,
    /// The other files read.
    pub inputs: Vec<InputRecord>,
    /// What the command adds: counts, timings, warnings.
    pub details: Map<String, Value>,
}

/// A device as records name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// How users select it: `cpu`, `wgpu:0`.
    pub id: String,
    /// What it calls itself.
    pub name: String,
    /// Driver, library or processor features.
    pub driver: String,
    /// Whether it is hardware of its own.
    pub accelerator: bool,
}

impl From<&DeviceInfo> for DeviceRecord {
    fn from(info: &DeviceInfo) -> Self {
        Self {
            id: info.id.clone(),
            name: info.name.clone(),
            driver: info.driver.clone(),
            accelerator: info.accelerator,
        }
    }
}

/// A file that was read, by content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// As it was named.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the content, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl FileRecord {
    /// Reads a file and hashes it.
    ///
    /// # Errors
    /// [`AnalysisError::Input`] if it cannot be read.
    pub fn of(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let hash = || -> Result<Self, FileError> {
            let (_, bytes) = open_regular(path)?;
            Ok(Self { path: path.display().to_string(), bytes, sha256: sha256_file(path)? })
        };
        hash().map_err(|e| AnalysisError::unreadable(&e))
    }
}

/// An input file and how it was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputRecord {
    /// The file.
    #[serde(flatten)]
    pub file: FileRecord,
    /// How its audio was read, where it is audio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioRecord>,
}

/// How an audio file was turned into samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AudioRecord {
    /// Codec that was decoded: `pcm_s16le`, `mp3`.
    pub codec: String,
    /// Container it lay in: `wave`, `ogg`.
    pub container: String,
    /// Samples a second of each channel, in Hz.
    pub sample_rate: u32,
    /// Channels, averaged to one.
    pub channels: usize,
    /// What was done about encoder delay and padding.
    pub gapless: String,
    /// The resampler and its parameters.
    pub resampler: String,
    /// Frames decoded, as far as the file was read.
    pub frames: u64,
    /// Packets that could not be decoded.
    pub corrupt_packets: u64,
    /// Whether the audio matches the checksum in the file; none where it has none or the end was not reached.
    pub checksum_matches: Option<bool>,
}

/// Now, UTC, RFC 3339, to the millisecond.
pub fn now() -> String {
    let now = jiff::Timestamp::now();
    let rounded = now.round(jiff::Unit::Millisecond).unwrap_or(now);
    format!("{rounded:.3}")
}

impl RunRecord {
    /// A record of a run that starts now in the current directory, with this program's version.
    pub fn start(command: Vec<String>) -> Self {
        let directory =
            std::env::current_dir().map_or_else(|_| ".".to_string(), |dir| dir.display().to_string());
        Self {
            format: RUN_FORMAT,
            version: VERSION.to_string(),
            git_commit: GIT_COMMIT.to_string(),
            command,
            directory,
            seed: None,
            device: None,
            precision: None,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            started: now(),
            finished: None,
            models: Vec::new(),
            inputs: Vec::new(),
            details: Map::new(),
        }
    }

    /// Sets the end to now.
    pub fn finish(&mut self) {
        self.finished = Some(now());
    }

    /// Writes `run.json` into a directory, atomically.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<(), FileError> {
        atomic_write_bytes(dir.as_ref().join(RUN_JSON), &pretty(self))
    }

    /// Writes the record of a run that made a single file beside that file, as `<file>.run.json`, atomically. Returns
    /// where.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write_beside(&self, file: impl AsRef<Path>) -> Result<PathBuf, FileError> {
        let mut path = file.as_ref().as_os_str().to_owned();
        path.push(".");
        path.push(RUN_JSON);
        let path = PathBuf::from(path);
        atomic_write_bytes(&path, &pretty(self))?;
        Ok(path)
    }

    /// Reads a `run.json`.
    ///
    /// # Errors
    /// [`AnalysisError::Input`] if it cannot be read, is no record, or is of another format.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read(path)
            .map_err(|e| AnalysisError::input(path, "file", e, "a readable regular file"))?;
        let record: Self = serde_json::from_slice(&text)
            .map_err(|e| AnalysisError::input(path, "content", e, "a run record in JSON"))?;
        if record.format != RUN_FORMAT {
            return Err(AnalysisError::input(path, "format", record.format, RUN_FORMAT.to_string()));
        }
        Ok(record)
    }
}

/// Indented JSON with a newline at the end.
pub(crate) fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("records have string keys and finite numbers");
    text.push(b'\n');
    text
}

/// A model's files, by content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRecord {
    /// As the user named the model: a directory or a hub id.
    pub name: String,
    /// `config.json` and the safetensors files, in the order of their names.
    pub files: Vec<FileRecord>,
    /// SHA-256 of the weights: that of the safetensors file, or where there are several, of the lines
    /// `<sha256>  <name>\n` in the order of their names.
    pub weights_sha256: String,
    /// SHA-256 of `config.json`.
    pub config_sha256: String,
}

impl ModelRecord {
    /// Hashes the files of a model directory; gigabytes take seconds, so a caller may do it beside loading.
    ///
    /// # Errors
    /// [`AnalysisError::Input`] for a directory without `config.json` or weights, or files that cannot be read.
    pub fn of(name: impl Into<String>, dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let config = FileRecord::of(dir.join("config.json"))?;
        let weights = auscult_runtime::weights::Weights::open(dir)?;
        let mut paths: Vec<&Path> = weights.files().iter().map(|file| file.path.as_path()).collect();
        paths.sort();
        let files = paths.iter().map(FileRecord::of).collect::<Result<Vec<_>>>()?;
        let weights_sha256 = match files.as_slice() {
            [file] => file.sha256.clone(),
            files => {
                let name = |file: &FileRecord| {
                    let path = Path::new(&file.path);
                    path.strip_prefix(dir).unwrap_or(path).display().to_string()
                };
                let lines: String = files.iter().map(|f| format!("{}  {}\n", f.sha256, name(f))).collect();
                sha256_bytes(lines.as_bytes())
            }
        };
        let config_sha256 = config.sha256.clone();
        let mut all = vec![config];
        all.extend(files);
        Ok(Self { name: name.into(), files: all, weights_sha256, config_sha256 })
    }
}

/// The first field in which two descriptions of a run differ, as its dotted path, ours, and the stored one.
pub fn difference(ours: &Value, stored: &Value) -> Option<(String, String, String)> {
    difference_at("", ours, stored)
}

fn difference_at(path: &str, ours: &Value, stored: &Value) -> Option<(String, String, String)> {
    if let (Value::Object(a), Value::Object(b)) = (ours, stored) {
        let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
        return keys.into_iter().find_map(|key| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
            difference_at(&path, &of(a), &of(b))
        });
    }
    (ours != stored).then(|| (path.to_string(), ours.to_string(), stored.to_string()))
}
