//! Reading the files of SAELens: `cfg.json` of versions 3 to 6 and `sae_weights.safetensors`.
//!
//! Versions differ in names (`hook_point` became `hook_name`), in places (6 moved the origin to `metadata`) and in how an
//! architecture is said (5 calls `standard` with `activation_fn` `topk` what 6 calls `topk`). Transcoders are refused.

use super::fields::Fields;
use super::fold::{factor as fold_factor, norms as fold_norms};
use super::save::{ORIGIN_FIELDS, WEIGHTS_FILE};
use super::turned::{Matrix, not_turned};
use super::{Activation, Metadata, Normalize, Sae, SaeParts, Settings};
use crate::config::read_json;
use crate::device::present;
use crate::error::{ModelError, Result};
use auscult_runtime::weights::{Loader, Weights};
use rayon::prelude::*;
use std::path::Path;

/// Where SAELens 6 keeps the factor of `expected_average_only_in` until it folds it.
const SCALER_FILE: &str = "activation_scaler.json";

/// The architectures of SAELens that encode and decode the same place.
#[derive(Clone, Copy, PartialEq)]
enum Architecture {
    Standard,
    TopK(usize),
    JumpRelu,
    /// In training; what is saved for inference is a `jumprelu` of one threshold.
    BatchTopK,
    Gated,
}

/// Reads the autoencoder in `dir`.
pub(super) fn read(fields: &Fields<'_>, weights: &Weights, dir: &Path) -> Result<Sae> {
    let (width, features) = (fields.size("d_in")?, fields.size("d_sae")?);
    let architecture = architecture(fields, features)?;
    let (normalize, factor) = normalize(fields, dir)?;
    // rows of a store lie flat, which is how a `hook_z` autoencoder reads its heads
    if let Some((field, reshape)) = fields.find(&["reshape_activations"])
        && reshape != "none"
        && reshape != "hook_z"
    {
        return Err(ModelError::config(fields.file, field, reshape, "\"none\" or \"hook_z\""));
    }

    let encoder = Matrix { name: "W_enc", axes: ["d_in", "d_sae"], shape: [width, features] };
    let decoder = Matrix { name: "W_dec", axes: ["d_sae", "d_in"], shape: [features, width] };
    not_turned(weights, &dir.join(WEIGHTS_FILE), ("b_dec", width), &[encoder, decoder])?;
    let loader = Loader::new(weights);
    let gated = architecture == Architecture::Gated;
    let w_enc = loader.take("W_enc", &[width, features]);
    let w_dec = loader.take("W_dec", &[features, width]);
    let b_enc = loader.take(if gated { "b_gate" } else { "b_enc" }, &[features]);
    let b_dec = loader.take("b_dec", &[width]);
    let own = |name| loader.take(name, &[features]);
    let (r_mag, b_mag) = if gated { (own("r_mag"), own("b_mag")) } else { (None, None) };
    let one_threshold = match architecture {
        Architecture::BatchTopK => weights.scalar("topk_threshold"),
        _ => None,
    };
    let thresholds = matches!(architecture, Architecture::JumpRelu | Architecture::BatchTopK)
        .then_some(())
        .filter(|()| one_threshold.is_none())
        .and_then(|()| own("threshold"));
    if one_threshold.is_some() {
        loader.ignore(|name| name == "topk_threshold");
    }
    let scaling = ["finetuning_scaling_factor", "scaling_factor"]
        .into_iter()
        .find_map(|name| Some((name, loader.optional(name, &[features])?)));
    loader.finish()?;

    let mut parts = SaeParts {
        w_enc: present(&w_enc).to_f32()?,
        b_enc: present(&b_enc).to_f32()?,
        w_dec: present(&w_dec).to_f32()?,
        b_dec: present(&b_dec).to_f32()?,
    };
    let activation = match architecture {
        Architecture::Standard => Activation::Relu,
        Architecture::TopK(k) => Activation::TopK(k),
        Architecture::Gated => {
            Activation::Gated { r_mag: present(&r_mag).to_f32()?, b_mag: present(&b_mag).to_f32()? }
        }
        Architecture::JumpRelu | Architecture::BatchTopK => Activation::JumpRelu {
            threshold: match one_threshold {
                Some(threshold) => vec![threshold as f32; features],
                None => present(&thresholds).to_f32()?,
            },
        },
    };
    if let Some((name, view)) = scaling {
        scale_decoder(fields, &mut parts, name, &view.to_f32()?)?;
    }
    if let Some(factor) = factor {
        fold_factor(&mut parts, factor);
    }
    // absent in files of versions that did not rescale
    if fields.flag("rescale_acts_by_decoder_norm", false)? {
        fold_norms(&mut parts);
    }
    let settings = Settings {
        activation,
        normalize,
        apply_b_dec_to_input: fields.flag("apply_b_dec_to_input", true)?,
        metadata: metadata(fields)?,
    };
    Sae::with_settings(parts, settings).map_err(|error| fields.blame(error))
}

fn architecture(fields: &Fields<'_>, features: usize) -> Result<Architecture> {
    let name = fields.text(&["architecture"])?.unwrap_or("standard");
    let function = fields.text(&["activation_fn_str", "activation_fn"])?;
    match (name, function) {
        ("standard" | "topk", Some("topk")) | ("topk", None) => Ok(Architecture::TopK(k(fields, features)?)),
        ("standard", None | Some("relu")) => Ok(Architecture::Standard),
        ("jumprelu", None | Some("relu")) => Ok(Architecture::JumpRelu),
        ("gated", None | Some("relu")) => Ok(Architecture::Gated),
        // the name of a training run, whose function takes the whole batch's largest
        ("batchtopk" | "matryoshka_batchtopk", _) => Ok(Architecture::BatchTopK),
        ("standard" | "topk" | "jumprelu" | "gated", Some(other)) => {
            let reason = format!("architecture `{name}` is not known with it");
            Err(ModelError::unsupported(fields.file, "activation_fn", other, reason))
        }
        (other, _) => {
            let reason = "only standard, topk, jumprelu, gated and (matryoshka_)batchtopk are read";
            Err(ModelError::unsupported(fields.file, "architecture", other, reason))
        }
    }
}

fn k(fields: &Fields<'_>, features: usize) -> Result<usize> {
    let named = fields.count(&["k"])?.map(|k| ("k", k));
    let argument = match fields.find(&["activation_fn_kwargs"]) {
        None => None,
        Some((field, arguments)) => {
            let arguments = Fields::of(fields.file, arguments)?;
            let foreign = arguments.top().iter().find(|(name, value)| {
                *name != "k" && !value.is_null() && **value != serde_json::Value::Bool(false)
            });
            if let Some((name, value)) = foreign {
                let reason = "`topk` is read with `k` alone";
                return Err(ModelError::unsupported(fields.file, format!("{field}.{name}"), value, reason));
            }
            arguments.count(&["k"])?.map(|k| ("activation_fn_kwargs.k", k))
        }
    };
    let bad = |field: &str, found: String, expected: String| {
        Err(ModelError::config(fields.file, field, found, expected))
    };
    match (argument, named) {
        (Some((field, k)), Some((_, other))) if k != other => {
            bad(field, k.to_string(), format!("{other}, which `k` says"))
        }
        (Some((field, k)), _) | (None, Some((field, k))) if !(1..=features).contains(&k) => {
            bad(field, k.to_string(), format!("1 to {features}, which `d_sae` says"))
        }
        (Some((_, k)), _) | (None, Some((_, k))) => Ok(k),
        (None, None) => bad("k", "absent".into(), "how many features are active".into()),
    }
}

/// What is done to rows, and the factor on them that is still to be folded into the weights.
fn normalize(fields: &Fields<'_>, dir: &Path) -> Result<(Normalize, Option<f32>)> {
    const FIELD: &str = "normalize_activations";
    let found = fields.find(&[FIELD]);
    let name = match &found {
        None => "none",
        // version 2
        Some((_, value)) => match value.as_bool() {
            Some(false) => "none",
            Some(true) => "expected_average_only_in",
            None => value.as_str().unwrap_or_default(),
        },
    };
    match (name, found) {
        ("none", _) => Ok((Normalize::None, None)),
        ("constant_norm_rescale", _) => Ok((Normalize::ConstantNorm, None)),
        ("layer_norm", _) => Ok((Normalize::LayerNorm, None)),
        ("expected_average_only_in", Some((field, found))) => match scaling_factor(dir)? {
            Some(factor) => Ok((Normalize::None, Some(factor))),
            None => {
                let reason = format!(
                    "the factor on rows is neither folded into the weights nor in {SCALER_FILE}; fold it with SAELens' \
                     `fold_activation_norm_scaling_factor` and save again"
                );
                Err(ModelError::unsupported(fields.file, field, found, reason))
            }
        },
        (_, found) => {
            let (field, found) = found.map_or_else(
                || (FIELD.to_string(), "absent".to_string()),
                |(field, value)| (field, value.to_string()),
            );
            let expected =
                "\"none\", \"expected_average_only_in\", \"constant_norm_rescale\" or \"layer_norm\"";
            Err(ModelError::config(fields.file, field, found, expected))
        }
    }
}

fn scaling_factor(dir: &Path) -> Result<Option<f32>> {
    let file = dir.join(SCALER_FILE);
    if !file.exists() {
        return Ok(None);
    }
    let json = read_json(&file)?;
    match Fields::of(&file, &json)?.find(&["scaling_factor"]) {
        None => Ok(None),
        Some((field, value)) => match value.as_f64().map(|v| v as f32) {
            Some(factor) if factor.is_finite() && factor > 0.0 => Ok(Some(factor)),
            _ => Err(ModelError::config(&file, field, value, "a number above 0")),
        },
    }
}

/// Every feature's factor on what it writes. Files of a while have one that is all 1 and means nothing.
fn scale_decoder(fields: &Fields<'_>, parts: &mut SaeParts, name: &str, factors: &[f32]) -> Result<()> {
    // torch.allclose
    if factors.iter().all(|f| (f - 1.0).abs() <= 1e-5 + 1e-8) {
        return Ok(());
    }
    let flag = "finetuning_scaling_factor";
    if !fields.flag(flag, false)? {
        let expected = format!("true, since tensor `{name}` is not all 1");
        return Err(ModelError::config(fields.file, flag, "false", expected));
    }
    let width = parts.b_dec.len();
    parts
        .w_dec
        .par_chunks_exact_mut(width)
        .zip(factors)
        .for_each(|(row, f)| row.iter_mut().for_each(|v| *v *= f));
    Ok(())
}

fn metadata(fields: &Fields<'_>) -> Result<Metadata> {
    let text = |names: &[&str]| -> Result<Option<String>> {
        // an unknown name is written as an empty one
        Ok(fields.text(names)?.filter(|text| !text.is_empty()).map(String::from))
    };
    let mut metadata = Metadata {
        hook: text(&["hook_name", "hook_point"])?,
        layer: fields.count(&["hook_layer", "hook_point_layer"])?,
        model: text(&["model_name"])?,
        ..Metadata::default()
    };
    let known = ["hook_name", "hook_point", "hook_layer", "hook_point_layer", "model_name"];
    let kept = |name: &str| ORIGIN_FIELDS.contains(&name);
    let top = fields.top().iter().filter(|(name, _)| kept(name));
    for (name, value) in fields.metadata().into_iter().flatten().chain(top) {
        if !known.contains(&name.as_str()) && !value.is_null() {
            metadata.other.insert(name.clone(), value.clone());
        }
    }
    Ok(metadata)
}
