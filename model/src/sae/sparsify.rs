//! Autoencoders of EleutherAI's sparsify (formerly `sae`): `encoder.weight`, `encoder.bias`, `W_dec`, `b_dec`.
//!
//! Its encoder is `topk(relu((x - b_dec) weight^T + bias))`; which features are active and how strongly is the same as
//! with the selection first. Transcoders, skip connections and `groupmax` are refused.

use super::fields::Fields;
use super::turned::{Matrix, not_turned};
use super::{Activation, Metadata, Sae, SaeParts, Settings, transposed};
use crate::device::present;
use crate::error::{ModelError, Result};
use auscult_runtime::weights::{Loader, Weights};
use std::path::Path;

/// The weights beside `cfg.json`.
pub(super) const SPARSIFY_FILE: &str = "sae.safetensors";

/// Reads the autoencoder in `dir`.
pub(super) fn read(fields: &Fields<'_>, weights: &Weights, dir: &Path) -> Result<Sae> {
    let width = fields.size("d_in")?;
    // sparse_coder.py: `cfg.num_latents or d_in * cfg.expansion_factor`
    let features = match fields.count(&["num_latents"])? {
        Some(features) if features > 0 => fields.size("num_latents")?,
        _ => width * fields.size("expansion_factor")?,
    };
    let unsupported = |field: &str, found: String, reason: &str| {
        Err(ModelError::unsupported(fields.file, field, found, reason))
    };
    match fields.text(&["activation"])? {
        None | Some("topk") => (),
        Some(other) => return unsupported("activation", other.into(), "only `topk` is read"),
    }
    for flag in ["transcode", "skip_connection"] {
        if fields.flag(flag, false)? {
            return unsupported(
                flag,
                "true".into(),
                "it writes elsewhere than it reads; only autoencoders are read",
            );
        }
    }
    if fields.flag("signed", false)? {
        return unsupported("signed", "true".into(), "only features that are positive are read");
    }
    let k = fields.size("k")?;
    if k > features {
        return Err(ModelError::config(
            fields.file,
            "k",
            k,
            format!("1 to {features}, the features there are"),
        ));
    }

    let matrix = |name| Matrix { name, axes: ["num_latents", "d_in"], shape: [features, width] };
    let matrices = [matrix("encoder.weight"), matrix("W_dec")];
    not_turned(weights, &dir.join(SPARSIFY_FILE), ("b_dec", width), &matrices)?;
    let loader = Loader::new(weights);
    let encoder = loader.take("encoder.weight", &[features, width]);
    let b_enc = loader.take("encoder.bias", &[features]);
    let w_dec = loader.take("W_dec", &[features, width]);
    let b_dec = loader.take("b_dec", &[width]);
    loader.finish()?;
    let parts = SaeParts {
        w_enc: transposed(&present(&encoder).to_f32()?, width),
        b_enc: present(&b_enc).to_f32()?,
        w_dec: present(&w_dec).to_f32()?,
        b_dec: present(&b_dec).to_f32()?,
    };
    let mut settings = Settings::new(Activation::TopK(k));
    settings.metadata = metadata(dir);
    Sae::with_settings(parts, settings).map_err(|error| fields.blame(error))
}

/// The hook is the name of the directory: the module whose output was read, such as `layers.11` or
/// `decoder.model.decoder.layers.11`. Modules within a layer have no name here.
fn metadata(dir: &Path) -> Metadata {
    let at = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    let name = at.file_name().unwrap_or_default().to_string_lossy();
    let layer = name.rsplit_once('.').and_then(|(path, layer)| {
        let of_layers = path == "layers" || path.ends_with(".layers");
        layer.parse::<usize>().ok().filter(|_| of_layers)
    });
    Metadata { hook: layer.map(|layer| format!("hook_layers.{layer}")), layer, ..Metadata::default() }
}
