<<<<<<< HEAD
//! The files of an autoencoder, for records.

use anyhow::Result;
use auscult_analysis::record::{FileRecord, InputRecord};
use auscult_runtime::files::{FileError, sha256_bytes};
use std::path::{Path, PathBuf};

/// The files of an autoencoder's directory that may be read of it, or the one that it is.
pub fn files(sae: &Path) -> Result<Vec<FileRecord>> {
    if sae.is_file() {
        return Ok(vec![FileRecord::of(sae)?]);
    }
    let read = |path: &PathBuf| {
        path.extension().is_some_and(|e| e == "json" || e == "safetensors" || e == "npz") && path.is_file()
    };
    let mut paths: Vec<PathBuf> = Vec::new();
    for dir in [sae.to_path_buf(), sae.join("checkpoints")] {
        if dir == sae || dir.is_dir() {
            let failed = |e| FileError::io(&dir, "list", e);
            for entry in std::fs::read_dir(&dir).map_err(failed)? {
                paths.push(entry.map_err(failed)?.path());
            }
        }
    }
    paths.retain(read);
    paths.sort();
    Ok(paths.iter().map(FileRecord::of).collect::<Result<_, _>>()?)
}

/// The same as inputs of a run.
pub fn inputs(sae: &Path) -> Result<Vec<InputRecord>> {
    Ok(files(sae)?.into_iter().map(|file| InputRecord { file, audio: None }).collect())
}

/// SHA-256 over the names, without folders, and the hashes of files.
pub fn sha256(files: &[FileRecord]) -> String {
    let name = |file: &FileRecord| {
        let name = Path::new(&file.path).file_name().unwrap_or_default();
        format!("{}  {}\n", file.sha256, name.to_string_lossy())
    };
    let mut lines: Vec<String> = files.iter().map(name).collect();
    lines.sort();
    sha256_bytes(lines.concat().as_bytes())
=======
//! The files that an autoencoder is read from, for records.

use anyhow::Result;
use auscult_analysis::record::{FileRecord, InputRecord};
use auscult_runtime::files::FileError;
use std::path::Path;

/// The files of an autoencoder's directory that may be read of it, hashed, in the order of their names.
pub fn files(dir: &Path) -> Result<Vec<InputRecord>> {
    let failed = |e| FileError::io(dir, "list", e);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "json" || e == "safetensors") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| Ok(InputRecord { file: FileRecord::of(path)?, audio: None })).collect()
>>>>>>> cap
}
