//! What an autoencoder's configuration says beside its weights.

use serde_json::{Map, Value};

/// When a feature is active, and how strongly. `pre` is the row's pre-activation, `x W_enc + b_enc`.
#[derive(Clone, Debug, PartialEq)]
pub enum Activation {
    /// `max(pre, 0)`.
    Relu,
    /// `max(pre, 0)` of the so many largest of a row, 0 elsewhere; of equals the smaller index is kept.
    TopK(usize),
    /// `max(pre, 0)` where `pre > threshold`, else 0.
    JumpRelu {
        /// f32 `[features]`.
        threshold: Vec<f32>,
    },
    /// `max(x W_enc exp(r_mag) + b_mag, 0)` where `pre > 0`, else 0.
    Gated {
        /// f32 `[features]`.
        r_mag: Vec<f32>,
        /// f32 `[features]`.
        b_mag: Vec<f32>,
    },
}

impl Activation {
    /// The name of the architecture in SAELens' configurations.
    pub const fn architecture(&self) -> &'static str {
        match self {
            Self::Relu => "standard",
            Self::TopK(_) => "topk",
            Self::JumpRelu { .. } => "jumprelu",
            Self::Gated { .. } => "gated",
        }
    }

    /// The tensors it has of its own, `[features]` each, as SAELens names them.
    pub(crate) fn tensors(&self) -> Vec<(&'static str, &[f32])> {
        match self {
            Self::Relu | Self::TopK(_) => Vec::new(),
            Self::JumpRelu { threshold } => vec![("threshold", threshold)],
            Self::Gated { r_mag, b_mag } => vec![("r_mag", r_mag), ("b_mag", b_mag)],
        }
    }
}

/// What is done to a row before it is encoded; what is decoded goes the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Normalize {
    /// Nothing.
    #[default]
    None,
    /// Scaled to a length of `sqrt(width)` (SAELens `constant_norm_rescale`).
    ConstantNorm,
    /// Centred, then divided by its standard deviation (of `width - 1` degrees of freedom) plus 1e-5 (SAELens `layer_norm`).
    LayerNorm,
}

impl Normalize {
    /// The name in SAELens' configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ConstantNorm => "constant_norm_rescale",
            Self::LayerNorm => "layer_norm",
        }
    }
}

/// Where an autoencoder comes from, as its file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// The site that it was trained at, such as `hook_layers.11`.
    pub hook: Option<String>,
    /// The layer that it was trained at, counted from 0.
    pub layer: Option<usize>,
    /// The model whose activations it was trained on.
    pub model: Option<String>,
    /// Whatever else SAELens keeps of the training (`context_size`, `dataset_path`, `sae_lens_version`, ...), by its names.
    pub other: Map<String, Value>,
}

/// An autoencoder but for its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// When a feature is active.
    pub activation: Activation,
    /// What is done to a row first.
    pub normalize: Normalize,
    /// Whether `b_dec` is subtracted from what is encoded.
    pub apply_b_dec_to_input: bool,
    /// Where it comes from.
    pub metadata: Metadata,
}

impl Settings {
    /// The usual ones: no normalisation, `b_dec` is subtracted, nothing known of the origin.
    pub fn new(activation: Activation) -> Self {
        Self {
            activation,
            normalize: Normalize::None,
            apply_b_dec_to_input: true,
            metadata: Metadata::default(),
        }
    }
}
