//! Autoencoders as Gemma Scope publishes them: `params.npz`, an archive of NumPy's arrays `W_enc` [d_in, d_sae], `b_enc`,
//! `W_dec` [d_sae, d_in], `b_dec` and `threshold`.
//!
//! They are JumpReLUs that do not subtract `b_dec`, as SAELens' `gemma_2_sae_huggingface_loader` reads them. There is no
//! configuration: where one was trained is in the names of the folders, `gemma-scope-2b-pt-res/layer_20/width_16k/...`.

use super::turned::Matrix;
use super::{Activation, Metadata, Sae, SaeParts, Settings};
use crate::error::{ModelError, Result};
use crate::musicgen::Site;
use auscult_runtime::files::open_regular;
use auscult_runtime::npy::Npy;
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::ZipArchive;

/// The archive.
pub(super) const PARAMS_FILE: &str = "params.npz";
/// Its arrays; some files write the first letter small.
const ARRAYS: [&str; 5] = ["W_enc", "W_dec", "b_enc", "b_dec", "threshold"];
/// Largest archive member that is read, in bytes: a weight of 2^20 features of width 8192 in f32.
const MAX_MEMBER_BYTES: u64 = 1 << 35;

/// Reads the autoencoder in the archive `file`.
pub(super) fn read(file: &Path) -> Result<Sae> {
    let mut arrays = members(file)?;
    let lacking: Vec<&str> = ARRAYS.into_iter().filter(|name| !arrays.contains_key(*name)).collect();
    if !lacking.is_empty() {
        let found: Vec<&str> = arrays.keys().map(String::as_str).collect();
        let message = format!(
            "lacks {}; found {}, expected {}",
            lacking.join(", "),
            found.join(", "),
            ARRAYS.join(", ")
        );
        return Err(ModelError::file(file, message));
    }
    if let Some(name) = arrays.keys().find(|name| !ARRAYS.contains(&name.as_str())) {
        let message = format!("holds `{name}`, whose meaning is not known, expected {}", ARRAYS.join(", "));
        return Err(ModelError::file(file, message));
    }
    let mut take = |name: &str| arrays.remove(name).expect("none is lacking");
    let [w_enc, w_dec, b_enc, b_dec, threshold] = ARRAYS.map(&mut take);
    let (width, features) = (b_dec.values.len(), b_enc.values.len());
    let vectors =
        [("b_dec", &b_dec, width), ("b_enc", &b_enc, features), ("threshold", &threshold, features)];
    for (name, array, length) in vectors {
        if array.shape != [length] {
            let message = format!("`{name}` has shape {:?}, expected [{length}]", array.shape);
            return Err(ModelError::file(file, message));
        }
    }
    let encoder = Matrix { name: "W_enc", axes: ["d_in", "d_sae"], shape: [width, features] };
    let decoder = Matrix { name: "W_dec", axes: ["d_sae", "d_in"], shape: [features, width] };
    for (matrix, array) in [(encoder, &w_enc), (decoder, &w_dec)] {
        matrix.check(file, &array.shape)?;
        if array.shape != matrix.shape {
            let [rows, cols] = matrix.shape;
            let message = format!(
                "`{}` has shape {:?}, expected [{rows}, {cols}], as `b_dec` and `b_enc` say",
                matrix.name, array.shape
            );
            return Err(ModelError::file(file, message));
        }
    }
    let parts =
        SaeParts { w_enc: w_enc.values, b_enc: b_enc.values, w_dec: w_dec.values, b_dec: b_dec.values };
    let mut settings = Settings::new(Activation::JumpRelu { threshold: threshold.values });
    settings.apply_b_dec_to_input = false;
    settings.metadata = of_folders(file);
    Sae::with_settings(parts, settings).map_err(|error| match error {
        ModelError::Argument { argument, found, expected } => {
            ModelError::config(file, argument, found, expected)
        }
        other => other,
    })
}

/// The arrays of an archive by name, the first letter of a weight large.
fn members(file: &Path) -> Result<BTreeMap<String, Npy>> {
    let (opened, length) = open_regular(file).map_err(|e| ModelError::file(file, e.to_string()))?;
    let damaged = |e: &dyn std::fmt::Display| ModelError::file(file, format!("is a damaged archive: {e}"));
    let mut archive = ZipArchive::new(BufReader::new(opened)).map_err(|e| damaged(&e))?;
    let mut arrays = BTreeMap::new();
    for at in 0..archive.len() {
        let entry = archive.by_index(at).map_err(|e| damaged(&e))?;
        let name = entry.name().map_err(|e| damaged(&e))?.to_string();
        let Some(array) = name.strip_suffix(".npy") else {
            return Err(ModelError::file(file, format!("holds `{name}`, expected arrays `*.npy` alone")));
        };
        let array = match array.strip_prefix("w_") {
            Some(rest) => format!("W_{rest}"),
            None => array.to_string(),
        };
        let mut bytes = Vec::new();
        entry
            .take(MAX_MEMBER_BYTES.min(length.saturating_mul(crate::convert::MAX_DEFLATE_RATIO)))
            .read_to_end(&mut bytes)
            .map_err(|e| damaged(&e))?;
        let values = Npy::read(&bytes)
            .map_err(|e| ModelError::config(file, format!("{name}: {}", e.field), e.found, e.expected))?;
        arrays.insert(array, values);
    }
    Ok(arrays)
}

/// Where an autoencoder was trained, as its folders are named: a site's own name, or `layer_N` below a folder that ends in
/// `-res`, `-mlp` or `-att`. What reads the heads before they are joined has no name here and keeps the one of TransformerLens.
fn of_folders(file: &Path) -> Metadata {
    let at = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    let folders: Vec<String> =
        at.ancestors().skip(1).filter_map(|a| Some(a.file_name()?.to_string_lossy().into_owned())).collect();
    let layer_of = |name: &String| name.strip_prefix("layer_")?.parse::<usize>().ok();
    let depth = folders.iter().position(|name| layer_of(name).is_some());
    let layer = depth.and_then(|depth| layer_of(&folders[depth]));
    // what lies further up is no part of the layout
    let folders = &folders[..folders.len().min(depth.map_or(1, |depth| depth + 2))];
    let named = folders.iter().find(|name| name.parse::<Site>().is_ok()).cloned();
    let below = |ending: &str| folders.iter().any(|name| name.ends_with(ending));
    let hook = named.or_else(|| {
        let layer = layer?;
        match (below("-res"), below("-mlp"), below("-att")) {
            (true, ..) => Some(format!("hook_layers.{layer}")),
            (_, true, _) => Some(format!("layers.{layer}.mlp_out")),
            (.., true) => Some(format!("blocks.{layer}.attn.hook_z")),
            _ => None,
        }
    });
    Metadata { hook, layer, ..Metadata::default() }
}
