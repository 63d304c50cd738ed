//! The files that an autoencoder is read from, for records.

use anyhow::Result;
use auscult_analysis::record::{FileRecord, InputRecord};
use auscult_runtime::files::{FileError, sha256_bytes};
use std::path::{Path, PathBuf};

/// The files of an autoencoder's directory that may be read of it, or the one that it is, hashed, in the order of their names.
pub fn files(sae: &Path) -> Result<Vec<InputRecord>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    // Llama Scope keeps its weights in a folder of the directory
    for dir in [sae.to_path_buf(), sae.join("checkpoints")].iter().filter(|dir| dir.is_dir()) {
        let failed = |e| FileError::io(dir, "list", e);
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let known = path.extension().is_some_and(|e| e == "json" || e == "safetensors" || e == "npz");
            if known && path.is_file() {
                paths.push(path);
            }
        }
    }
    if sae.is_file() {
        paths.push(sae.to_path_buf());
    }
    paths.sort();
    paths.iter().map(|path| Ok(InputRecord { file: FileRecord::of(path)?, audio: None })).collect()
}

/// SHA-256 over the names and hashes of files, wherever they lie.
pub fn sha256(files: &[InputRecord]) -> String {
    let line = |InputRecord { file, .. }: &InputRecord| {
        let name = Path::new(&file.path).file_name().unwrap_or_default().to_string_lossy();
        format!("{}  {name}\n", file.sha256)
    };
    sha256_bytes(files.iter().map(line).collect::<String>().as_bytes())
}
