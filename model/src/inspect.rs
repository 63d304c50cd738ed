//! What a checkpoint holds, without a device.

use crate::config::CheckpointConfig;
use crate::error::Result;
use auscult_kernels::DType;
use auscult_runtime::weights::{WeightFile, Weights};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One component of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// First part of its tensors' names: `decoder`, `audio_encoder`, ...
    pub name: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of values.
    pub values: u64,
    /// Bytes in the file.
    pub bytes: u64,
}

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// Its type.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// A checkpoint's contents.
#[derive(Debug)]
pub struct Inspection {
    /// Its configuration.
    pub config: CheckpointConfig,
    /// Components, by name.
    pub parts: Vec<Part>,
    /// Every tensor, by name.
    pub tensors: Vec<TensorEntry>,
    /// Types that occur.
    pub types: Vec<&'static str>,
    /// Whether every weight of the decoder survives rounding to f16; `None` where there is no decoder.
    pub decoder_f16_exact: Option<bool>,
    /// Weight files.
    pub files: Vec<WeightFile>,
}

/// Reads the configuration and the weights' headers of a checkpoint directory; with `check_finite` also every value.
///
/// # Errors
/// A malformed configuration or file; a value that is not finite, where that is checked.
pub fn inspect(dir: &Path, check_finite: bool) -> Result<Inspection> {
    let config = CheckpointConfig::load(dir)?;
    let weights = Weights::open(dir)?;
    if check_finite {
        weights.check_finite()?;
    }
    let mut parts: BTreeMap<String, Part> = BTreeMap::new();
    let mut tensors = Vec::new();
    let mut types = BTreeSet::new();
    let mut decoder_f16_exact = None;
    let has_decoder = !matches!(config, CheckpointConfig::Encodec(_));
    for name in weights.names() {
        // every listed tensor can be viewed, unless it is of a type that no kernel has
        let Some(view) = weights.get(name) else { continue };
        let part = name.split('.').next().unwrap_or(name).to_string();
        let part = parts.entry(part.clone()).or_insert(Part { name: part, tensors: 0, values: 0, bytes: 0 });
        part.tensors += 1;
        part.values += view.elements() as u64;
        part.bytes += view.bytes.len() as u64;
        types.insert(view.dtype.name());
        if has_decoder && name.starts_with("decoder.") && !name.ends_with("embed_positions.weights") {
            let exact = decoder_f16_exact.get_or_insert(true);
            *exact = *exact && view.f16_exact();
        }
        tensors.push(TensorEntry { name: name.to_string(), dtype: view.dtype, shape: view.shape.to_vec() });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Inspection {
        config,
        parts: parts.into_values().collect(),
        tensors,
        types: types.into_iter().collect(),
        decoder_f16_exact,
        files: weights.files().to_vec(),
    })
}
