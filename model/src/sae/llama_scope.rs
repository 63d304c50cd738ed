//! Autoencoders of Llama Scope and the program that trained them, `lm_saes`: `hyperparams.json`, and `encoder.weight`
//! [d_sae, d_model], `encoder.bias`, `decoder.weight` [d_model, d_sae], `decoder.bias` in `checkpoints/final.safetensors`.
//!
//! What that program folds into the weights when it loads them is folded here: the factors between the data's lengths and
//! `sqrt(d_model)`, and the lengths of the decoder's directions. Transcoders and gated encoders are refused.

use super::fields::Fields;
use super::turned::{Matrix, not_turned};
use super::{Activation, Metadata, Normalize, Sae, SaeParts, Settings, fold, transposed};
use crate::config::read_json;
use crate::device::present;
use crate::error::{ModelError, Result};
use auscult_runtime::weights::{Loader, Weights};
use std::path::{Path, PathBuf};

/// The configuration.
pub(super) const HYPERPARAMS_FILE: &str = "hyperparams.json";
/// The weights, in the order in which the program looks for them.
const WEIGHTS: [&str; 3] =
    ["sae_weights.safetensors", "checkpoints/pruned.safetensors", "checkpoints/final.safetensors"];
/// The model, where the program wrote it down.
const MODEL_FILE: &str = "lm_config.json";

/// The weights below `dir`.
pub(super) fn weights_file(dir: &Path) -> Option<PathBuf> {
    WEIGHTS.iter().map(|name| dir.join(name)).find(|file| file.is_file())
}

/// Reads the autoencoder in `dir`.
pub(super) fn read(fields: &Fields<'_>, weights: &Weights, dir: &Path) -> Result<Sae> {
    let width = fields.size("d_model")?;
    let features = match fields.count(&["d_sae"])? {
        Some(_) => fields.size("d_sae")?,
        None => width * fields.size("expansion_factor")?,
    };
    if fields.flag("use_glu_encoder", false)? {
        let reason = "encoders with a sigmoid gate are not read";
        return Err(ModelError::unsupported(fields.file, "use_glu_encoder", true, reason));
    }
    let hook = fields.text(&["hook_point_in"])?;
    if let (Some(from), Some(to)) = (hook, fields.text(&["hook_point_out"])?)
        && from != to
    {
        let reason = format!("`hook_point_in` is {from}; only autoencoders are read, no transcoders");
        return Err(ModelError::unsupported(fields.file, "hook_point_out", to, reason));
    }
    let biased = fields.flag("use_decoder_bias", true)?;
    let activation = activation(fields, features)?;
    let (normalize, factors) = normalize(fields, width)?;

    let encoder = Matrix { name: "encoder.weight", axes: ["d_sae", "d_model"], shape: [features, width] };
    let decoder = Matrix { name: "decoder.weight", axes: ["d_model", "d_sae"], shape: [width, features] };
    if let Some(file) = weights_file(dir) {
        not_turned(weights, &file, ("encoder.bias", features), &[encoder, decoder])?;
    }
    let loader = Loader::new(weights);
    let encoder = loader.take("encoder.weight", &[features, width]);
    let b_enc = loader.take("encoder.bias", &[features]);
    let decoder = loader.take("decoder.weight", &[width, features]);
    let b_dec = if biased { loader.take("decoder.bias", &[width]) } else { None };
    loader.finish()?;
    let mut parts = SaeParts {
        w_enc: transposed(&present(&encoder).to_f32()?, width),
        b_enc: present(&b_enc).to_f32()?,
        w_dec: transposed(&present(&decoder).to_f32()?, features),
        b_dec: match biased {
            true => present(&b_dec).to_f32()?,
            false => vec![0.0; width],
        },
    };
    if let Some([read, written]) = factors {
        // standardize_parameters_of_dataset_activation_scaling
        parts.b_enc.iter_mut().for_each(|v| *v = (f64::from(*v) / read) as f32);
        parts.b_dec.iter_mut().for_each(|v| *v = (f64::from(*v) / written) as f32);
        let decoder = (read / written) as f32;
        parts.w_dec.iter_mut().for_each(|v| *v *= decoder);
    }
    if fields.flag("sparsity_include_decoder_norm", true)? {
        // transform_to_unit_decoder_norm
        fold::norms(&mut parts);
    }
    let settings = Settings {
        activation,
        normalize,
        apply_b_dec_to_input: biased && fields.flag("apply_decoder_bias_to_pre_encoder", true)?,
        metadata: Metadata { hook: hook.map(String::from), model: model(dir)?, ..Metadata::default() },
    };
    Sae::with_settings(parts, settings).map_err(|error| fields.blame(error))
}

fn activation(fields: &Fields<'_>, features: usize) -> Result<Activation> {
    const THRESHOLD: &str = "jump_relu_threshold";
    let threshold = match fields.find(&[THRESHOLD]) {
        None => 0.0,
        Some((field, value)) => match value.as_f64() {
            Some(threshold) if threshold.is_finite() && threshold >= 0.0 => threshold as f32,
            _ => return Err(ModelError::config(fields.file, field, value, "a number from 0")),
        },
    };
    let name = fields.text(&["act_fn"])?.unwrap_or("relu").to_lowercase();
    match name.as_str() {
        "relu" => Ok(Activation::Relu),
        // a `topk` with a threshold is one that was turned into a JumpReLU after training
        "topk" if threshold == 0.0 => match fields.size("top_k")? {
            k if k <= features => Ok(Activation::TopK(k)),
            k => {
                let expected = format!("1 to {features}, the features there are");
                Err(ModelError::config(fields.file, "top_k", k, expected))
            }
        },
        "topk" | "jumprelu" => Ok(Activation::JumpRelu { threshold: vec![threshold; features] }),
        other => Err(ModelError::unsupported(
            fields.file,
            "act_fn",
            other,
            "only relu, topk and jumprelu are read",
        )),
    }
}

/// What is done to a row, and the factors on what is read and on what is written that are to be folded.
fn normalize(fields: &Fields<'_>, width: usize) -> Result<(Normalize, Option<[f64; 2]>)> {
    const FIELD: &str = "norm_activation";
    match fields.text(&[FIELD])?.unwrap_or("token-wise") {
        "none" | "inference" => Ok((Normalize::None, None)),
        "token-wise" => Ok((Normalize::ConstantNorm, None)),
        "dataset-wise" => {
            const NORMS: &str = "dataset_average_activation_norm";
            let factor = |side: &str| {
                let norms = fields.find(&[NORMS]).and_then(|(_, norms)| norms.get(side)?.as_f64());
                match norms.filter(|norm| norm.is_finite() && *norm > 0.0) {
                    Some(norm) => Ok((width as f64).sqrt() / norm),
                    None => {
                        let expected = "a length above 0, since rows are scaled `dataset-wise`";
                        let found =
                            fields.find(&[NORMS]).map_or("absent".to_string(), |(_, n)| n.to_string());
                        Err(ModelError::config(fields.file, format!("{NORMS}.{side}"), found, expected))
                    }
                }
            };
            Ok((Normalize::None, Some([factor("in")?, factor("out")?])))
        }
        other => {
            let reason = "only none, inference, token-wise and dataset-wise are read";
            Err(ModelError::unsupported(fields.file, FIELD, other, reason))
        }
    }
}

fn model(dir: &Path) -> Result<Option<String>> {
    let file = dir.join(MODEL_FILE);
    if !file.is_file() {
        return Ok(None);
    }
    let json = read_json(&file)?;
    Ok(Fields::of(&file, &json)?.text(&["model_name"])?.map(String::from))
}
