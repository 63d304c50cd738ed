//! Writing an autoencoder in the format of SAELens: one that version 5 loads, and 6.

use super::{Activation, Sae, floats};
use crate::error::{ModelError, Result};
use auscult_kernels::DType;
use auscult_runtime::files::atomic_write_bytes;
use auscult_runtime::safetensors_io::{TensorSpec, write_safetensors};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// The configuration.
pub const CFG_FILE: &str = "cfg.json";
/// The weights.
pub const WEIGHTS_FILE: &str = "sae_weights.safetensors";

/// Fields of the origin that SAELens 5 keeps beside the others, and 6 within `metadata`.
pub(super) const ORIGIN_FIELDS: [&str; 12] = [
    "hook_head_index",
    "prepend_bos",
    "dataset_path",
    "dataset_trust_remote_code",
    "context_size",
    "sae_lens_version",
    "sae_lens_training_version",
    "neuronpedia_id",
    "model_class_name",
    "model_from_pretrained_kwargs",
    "exclude_special_tokens",
    "seqpos_slice",
];

impl Sae {
    /// Writes `cfg.json` and `sae_weights.safetensors` (f32) to `dir`, which is made where it is not there. What
    /// [`open`](Self::open) then reads is the same to the last bit.
    ///
    /// Every file appears whole or not at all, `cfg.json` last.
    ///
    /// # Errors
    /// A directory that holds an autoencoder already; the operating system's refusals.
    pub fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).map_err(ModelError::io("create", dir))?;
        for name in [CFG_FILE, WEIGHTS_FILE] {
            if dir.join(name).exists() {
                let message = format!("holds a {name} already, expected a new or empty directory");
                return Err(ModelError::file(dir, message));
            }
        }
        let gated = matches!(self.settings.activation, Activation::Gated { .. });
        // the encoder lies transposed
        let w_enc = super::transposed(floats(&self.encoder), self.width);
        let mut tensors: Vec<(&str, Vec<usize>, &[f32])> = vec![
            ("W_enc", vec![self.width, self.features], &w_enc),
            ("W_dec", vec![self.features, self.width], floats(&self.decoder)),
            (if gated { "b_gate" } else { "b_enc" }, vec![self.features], &self.b_enc),
            ("b_dec", vec![self.width], &self.b_dec),
        ];
        let own = self.settings.activation.tensors();
        tensors.extend(own.into_iter().map(|(name, values)| (name, vec![self.features], values)));
        let specs: Vec<TensorSpec> = tensors
            .iter()
            .map(|(name, shape, _)| TensorSpec::new(*name, DType::F32, shape.clone()))
            .collect();
        write_safetensors(dir.join(WEIGHTS_FILE), &[], &specs, |i, out| {
            out.write_all(bytemuck::cast_slice(tensors[i].2))
        })?;
        let mut text = serde_json::to_string_pretty(&self.cfg()).expect("JSON values always print");
        text.push('\n');
        Ok(atomic_write_bytes(dir.join(CFG_FILE), text.as_bytes())?)
    }

    /// The fields that version 5 wants, all of them, those that 6 added, and its `metadata`.
    fn cfg(&self) -> Value {
        let settings = &self.settings;
        let metadata = &settings.metadata;
        let k = self.k();
        let mut cfg = Map::new();
        let mut put = |name: &str, value: Value| cfg.insert(name.to_string(), value);
        put("architecture", settings.activation.architecture().into());
        put("d_in", self.width.into());
        put("d_sae", self.features.into());
        put("dtype", "float32".into());
        put("device", "cpu".into());
        put("activation_fn_str", if k.is_some() { "topk" } else { "relu" }.into());
        put("activation_fn_kwargs", k.map_or_else(|| json!({}), |k| json!({ "k": k })));
        if let Some(k) = k {
            put("k", k.into());
            put("rescale_acts_by_decoder_norm", false.into());
        }
        put("apply_b_dec_to_input", settings.apply_b_dec_to_input.into());
        put("normalize_activations", settings.normalize.name().into());
        put("reshape_activations", "none".into());
        put("finetuning_scaling_factor", false.into());
        // SAELens asks what the name ends in, so it has to be text
        let hook = metadata.hook.as_deref().unwrap_or_default();
        put("model_name", metadata.model.as_deref().unwrap_or_default().into());
        put("hook_name", hook.into());
        put("hook_layer", metadata.layer.into());
        for name in ORIGIN_FIELDS {
            let default = match name {
                "prepend_bos" | "dataset_trust_remote_code" => Some(true.into()),
                "model_from_pretrained_kwargs" => Some(json!({})),
                "seqpos_slice" => Some(json!([null])),
                // no field of version 5
                "sae_lens_version" | "model_class_name" | "exclude_special_tokens" => None,
                _ => Some(Value::Null),
            };
            if let Some(value) = metadata.other.get(name).cloned().or(default) {
                put(name, value);
            }
        }
        let mut origin = metadata.other.clone();
        origin.insert("model_name".into(), metadata.model.clone().into());
        origin.insert("hook_name".into(), metadata.hook.clone().into());
        put("metadata", Value::Object(origin));
        Value::Object(cfg)
    }
}
