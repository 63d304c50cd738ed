//! Pickled sparse autoencoders: dictionary_learning's `ae.pt` with its `config.json`, and OpenAI's `sparse_autoencoder`.
//!
//! What encodes alike is written in the format of SAELens ([`Sae::save`]). Which class of dictionary_learning a file holds is
//! in its `config.json`; where that is missing the names of the tensors say it, but for top-k and batch top-k, which have the
//! same.

use std::path::Path;

use super::audiocraft::State;
use super::pickle::{TensorView, Value};
use super::{ConvertKind, ConvertReport, TorchFile};
use crate::config::read_json;
use crate::error::{ModelError, Result};
use crate::output::{FillError, Progress};
use crate::sae::{Activation, CFG_FILE, Metadata, Normalize, Sae, SaeParts, Settings, WEIGHTS_FILE};
use crate::sae::{fold, transposed};
use auscult_kernels::DType;
use half::{bf16, f16};
use serde_json::Value as Json;

/// The autoencoder of a directory that dictionary_learning wrote.
pub(super) const AE_FILE: &str = "ae.pt";
/// Its configuration.
const CONFIG: &str = "config.json";

/// What a file may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Class {
    AutoEncoder,
    AutoEncoderNew,
    Gated,
    TopK,
    BatchTopK,
    Matryoshka,
    JumpRelu,
    OpenAi,
}

/// The classes, as dictionary_learning calls them, and the tensors that they have and may have.
const CLASSES: [(Class, &str, &[&str], &[&str]); 8] = [
    (Class::AutoEncoder, "AutoEncoder", &["bias", "encoder.weight", "encoder.bias", "decoder.weight"], &[]),
    (
        Class::AutoEncoderNew,
        "AutoEncoderNew",
        &["encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"],
        &[],
    ),
    (
        Class::Gated,
        "GatedAutoEncoder",
        &["decoder_bias", "encoder.weight", "r_mag", "gate_bias", "mag_bias", "decoder.weight"],
        &[],
    ),
    (
        Class::TopK,
        "AutoEncoderTopK",
        &["b_dec", "encoder.weight", "encoder.bias", "decoder.weight"],
        &["k", "threshold"],
    ),
    (
        Class::BatchTopK,
        "BatchTopKSAE",
        &["b_dec", "encoder.weight", "encoder.bias", "decoder.weight", "threshold"],
        &["k"],
    ),
    (
        Class::Matryoshka,
        "MatryoshkaBatchTopKSAE",
        &["W_enc", "b_enc", "W_dec", "b_dec", "threshold", "group_sizes"],
        &["k"],
    ),
    (Class::JumpRelu, "JumpReluAutoEncoder", &["W_enc", "b_enc", "W_dec", "b_dec", "threshold"], &[]),
    (
        Class::OpenAi,
        "sparse_autoencoder",
        &["pre_bias", "latent_bias", "encoder.weight"],
        &[
            "decoder.weight",
            "decoder.linear.weight",
            "stats_last_nonzero",
            "latents_activation_frequency",
            "latents_mean_square",
        ],
    ),
];

/// Whether the tensors are those of an autoencoder.
pub(super) fn is_autoencoder(state: &State) -> bool {
    CLASSES.iter().any(|(_, _, has, may)| fits(state, has, may))
}

fn fits(state: &State, has: &[&str], may: &[&str]) -> bool {
    has.iter().all(|name| state.contains_key(*name))
        && state.keys().all(|name| has.contains(&name.as_str()) || may.contains(&name.as_str()))
}

/// Reads the autoencoder in `file` and writes it to `out`. `hook` names the site, where the file does not.
pub(super) fn write(
    mut file: TorchFile,
    state: &State,
    hook: Option<&str>,
    out: &Path,
    progress: Progress<'_>,
) -> Result<ConvertReport> {
    let path = file.path().to_path_buf();
    let config_file = path.parent().unwrap_or(Path::new("")).join(CONFIG);
    let config = match config_file.is_file() {
        true => Some(read_json(&config_file)?),
        false => None,
    };
    let mut notes = Vec::new();
    let class = class(&path, state, config.as_ref().map(|json| (config_file.as_path(), json)))?;
    let (parts, mut settings) = read(&mut file, state, class, &mut notes)?;
    let mut metadata = match (&config, class) {
        (Some(json), class) if class != Class::OpenAi => metadata(json, &mut notes),
        _ => Metadata::default(),
    };
    if let Some(hook) = hook {
        metadata.hook = Some(hook.to_string());
        metadata.layer = None;
    }
    if metadata.hook.is_none() {
        notes.push("hook: none is named, so nothing will say where it does not fit".into());
    }
    settings.metadata = metadata;
    let sae = Sae::with_settings(parts, settings).map_err(|error| match error {
        ModelError::Argument { argument, found, expected } => {
            ModelError::config(&path, argument, found, expected)
        }
        other => other,
    })?;
    sae.save(out)?;
    let tensors = 4 + sae.settings().activation.tensors().len();
    let files = vec![out.join(WEIGHTS_FILE), out.join(CFG_FILE)];
    let bytes = std::fs::metadata(&files[0]).map_err(ModelError::io("read", &files[0]))?.len();
    progress(bytes, bytes);
    let (_, skipped) = super::state_dict(&file)?;
    // what an OpenAI file says beside its tensors was read; its counts of training are not needed
    let counts = state.keys().filter(|name| name.starts_with("stats_") || name.starts_with("latents_"));
    let beside = skipped.into_iter().filter(|name| !name.starts_with("activation"));
    let dropped = counts.cloned().chain(beside).collect();
    Ok(ConvertReport { kind: ConvertKind::Autoencoder, tensors, bytes, dropped, notes, files })
}

fn class(path: &Path, state: &State, config: Option<(&Path, &Json)>) -> Result<Class> {
    let fitting: Vec<(Class, &str)> = CLASSES
        .iter()
        .filter(|(_, _, has, may)| fits(state, has, may))
        .map(|&(class, name, ..)| (class, name))
        .collect();
    if let [(Class::OpenAi, _)] = fitting.as_slice() {
        return Ok(Class::OpenAi);
    }
    let named = config.map(|(file, json)| (file, json.pointer("/trainer/dict_class").and_then(Json::as_str)));
    match (named, fitting.as_slice()) {
        (Some((file, Some(name))), fitting) => match fitting.iter().find(|(_, n)| *n == name) {
            Some((class, _)) => Ok(*class),
            None => {
                let there: Vec<&str> = fitting.iter().map(|(_, name)| *name).collect();
                let expected = format!("{}, whose tensors {} holds", there.join(" or "), path.display());
                Err(ModelError::config(file, "trainer.dict_class", name, expected))
            }
        },
        (_, [(class, _)]) => Ok(*class),
        (_, several) => {
            let names: Vec<&str> = several.iter().map(|(_, name)| *name).collect();
            let message = format!(
                "may be {}, expected {CONFIG} beside it, whose `trainer.dict_class` says which",
                names.join(" or ")
            );
            Err(ModelError::file(path, message))
        }
    }
}

/// Parts and settings, all but where it comes from.
fn read(
    file: &mut TorchFile,
    state: &State,
    class: Class,
    notes: &mut Vec<String>,
) -> Result<(SaeParts, Settings)> {
    let path = file.path().to_path_buf();
    let (encoder, decoder, b_enc, b_dec) = match class {
        Class::Matryoshka | Class::JumpRelu => ("W_enc", "W_dec", "b_enc", "b_dec"),
        Class::AutoEncoder => ("encoder.weight", "decoder.weight", "encoder.bias", "bias"),
        Class::AutoEncoderNew => ("encoder.weight", "decoder.weight", "encoder.bias", "decoder.bias"),
        Class::Gated => ("encoder.weight", "decoder.weight", "gate_bias", "decoder_bias"),
        Class::TopK | Class::BatchTopK => ("encoder.weight", "decoder.weight", "encoder.bias", "b_dec"),
        Class::OpenAi => ("encoder.weight", "decoder.weight", "latent_bias", "pre_bias"),
    };
    let linear = !matches!(class, Class::Matryoshka | Class::JumpRelu);
    let b_enc = floats(file, state, b_enc, None)?;
    let b_dec = floats(file, state, b_dec, None)?;
    let (width, features) = (b_dec.len(), b_enc.len());
    // `nn.Linear` holds [out, in]
    let shape = |into: bool| if into == linear { [features, width] } else { [width, features] };
    let w_enc = floats(file, state, encoder, Some(&shape(true)))?;
    // tied weights are one tensor under two names, of the encoder's shape
    let tied = class == Class::OpenAi && !state.contains_key(decoder);
    let mut parts = SaeParts {
        w_dec: match (tied, linear) {
            (true, _) => w_enc.clone(),
            (false, true) => transposed(&floats(file, state, decoder, Some(&shape(false)))?, features),
            (false, false) => floats(file, state, decoder, Some(&shape(false)))?,
        },
        w_enc: if linear { transposed(&w_enc, width) } else { w_enc },
        b_enc,
        b_dec,
    };
    let each = |file: &mut TorchFile, name: &str| floats(file, state, name, Some(&[features]));
    let mut settings = Settings::new(match class {
        Class::AutoEncoder | Class::AutoEncoderNew => Activation::Relu,
        Class::Gated => Activation::Gated { r_mag: each(file, "r_mag")?, b_mag: each(file, "mag_bias")? },
        Class::JumpRelu => Activation::JumpRelu { threshold: each(file, "threshold")? },
        Class::BatchTopK | Class::Matryoshka => {
            let threshold = floats(file, state, "threshold", Some(&[]))?[0];
            notes.push(format!("threshold: {threshold}, which stands for the batch's k largest"));
            Activation::JumpRelu { threshold: vec![threshold; features] }
        }
        Class::TopK => {
            if state.contains_key("threshold") {
                notes.push("threshold: left out, since the k largest are taken".into());
            }
            Activation::TopK(dictionary_k(file, state, &path)?)
        }
        Class::OpenAi => openai_activation(file)?,
    });
    match class {
        // AutoEncoder.from_pretrained, `normalize_decoder`
        Class::AutoEncoder => fold::norms(&mut parts),
        Class::AutoEncoderNew | Class::JumpRelu => settings.apply_b_dec_to_input = false,
        // "hacky way to determine if normalization is enabled", model.py
        Class::OpenAi if matches!(settings.activation, Activation::TopK(_)) => {
            settings.normalize = Normalize::LayerNorm;
        }
        _ => {}
    }
    Ok((parts, settings))
}

/// `k` of a top-k: a tensor of one integer, or in the configuration of files before there was one.
fn dictionary_k(file: &mut TorchFile, state: &State, path: &Path) -> Result<usize> {
    let bad = |found: String| ModelError::config(path, "k", found, "how many features are active");
    let Some(view) = state.get("k") else {
        let config = path.parent().unwrap_or(Path::new("")).join(CONFIG);
        let json = if config.is_file() { read_json(&config)? } else { Json::Null };
        let k = json.pointer("/trainer/k").and_then(Json::as_u64).and_then(|k| usize::try_from(k).ok());
        return k.ok_or_else(|| bad("absent, and not in config.json".into()));
    };
    let bytes = bytes(file, view)?;
    let k = match view.storage.dtype.written_as() {
        DType::I64 => bytes.first_chunk().map(|b| i64::from_le_bytes(*b)),
        DType::I32 => bytes.first_chunk().map(|b| i64::from(i32::from_le_bytes(*b))),
        _ => None,
    };
    k.filter(|_| view.elements() == 1)
        .and_then(|k| usize::try_from(k).ok())
        .ok_or_else(|| bad(format!("{} of shape {:?}", view.storage.dtype.storage_name(), view.shape)))
}

fn openai_activation(file: &TorchFile) -> Result<Activation> {
    let root = file.root();
    let name = root.get("activation").and_then(Value::as_str).unwrap_or("ReLU");
    let settings = root.get("activation_state_dict");
    let of = |key: &str| settings.and_then(|settings| settings.get(key));
    match name {
        "ReLU" => Ok(Activation::Relu),
        "TopK" => {
            let after = of("postact_fn").and_then(Value::as_str).unwrap_or("ReLU");
            if after != "ReLU" {
                let reason = "only features that are positive are read, `ReLU`";
                let field = "activation_state_dict.postact_fn";
                return Err(ModelError::unsupported(file.path(), field, after, reason));
            }
            match of("k").and_then(Value::as_int).and_then(|k| usize::try_from(k).ok()) {
                Some(k) => Ok(Activation::TopK(k)),
                None => {
                    let field = "activation_state_dict.k";
                    Err(ModelError::config(file.path(), field, "absent", "how many features are active"))
                }
            }
        }
        other => {
            Err(ModelError::unsupported(file.path(), "activation", other, "only ReLU and TopK are read"))
        }
    }
}

/// What dictionary_learning keeps of the training.
fn metadata(config: &Json, notes: &mut Vec<String>) -> Metadata {
    let of = |field: &str| config.pointer(field).filter(|value| !value.is_null());
    let layer = of("/trainer/layer").and_then(Json::as_u64).and_then(|layer| usize::try_from(layer).ok());
    let module = of("/trainer/submodule_name").and_then(Json::as_str);
    let hook = match (module, layer) {
        (Some(module), Some(layer)) if module == format!("resid_post_layer_{layer}") => {
            Some(format!("hook_layers.{layer}"))
        }
        (Some(module), _) => Some(module.to_string()),
        (None, Some(layer)) => {
            notes.push(format!("layer: {layer}, of which module is not said"));
            None
        }
        (None, None) => None,
    };
    let mut metadata = Metadata {
        hook,
        layer,
        model: of("/trainer/lm_name").and_then(Json::as_str).map(String::from),
        ..Metadata::default()
    };
    if let Some(length) = of("/buffer/ctx_len") {
        metadata.other.insert("context_size".into(), length.clone());
    }
    metadata
}

/// The floats of a tensor, of `shape` where one is expected, else of one axis.
fn floats(file: &mut TorchFile, state: &State, name: &str, shape: Option<&[usize]>) -> Result<Vec<f32>> {
    let path = file.path().to_path_buf();
    let Some(view) = state.get(name) else {
        return Err(ModelError::file(&path, format!("lacks `{name}`")));
    };
    let found: Vec<usize> = view.shape.iter().map(|&e| usize::try_from(e).unwrap_or(usize::MAX)).collect();
    match shape {
        Some(shape) if found != shape => {
            let turned = found.len() == 2 && [found[1], found[0]] == *shape;
            let word = if turned { ", which is transposed" } else { "" };
            let message = format!("`{name}` has shape {found:?}{word}, expected {shape:?}");
            return Err(ModelError::file(&path, message));
        }
        None if found.len() != 1 => {
            return Err(ModelError::file(&path, format!("`{name}` has shape {found:?}, expected one axis")));
        }
        _ => {}
    }
    let bytes = bytes(file, view)?;
    match view.storage.dtype.written_as() {
        DType::F32 => Ok(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        DType::F16 => Ok(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()),
        DType::BF16 => Ok(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()),
        other => Err(ModelError::file(&path, format!("`{name}` holds {other}, expected floats"))),
    }
}

fn bytes(file: &mut TorchFile, view: &TensorView) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match file.copy(view, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(FillError::Source(error)) => Err(error),
        Err(FillError::Write(error)) => Err(ModelError::io("read", file.path())(error)),
    }
}
