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
}
