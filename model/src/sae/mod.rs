//! Sparse autoencoders: what they read of the stream, and the direction that each feature writes.
//!
//! [`Sae::open`] reads the files of SAELens 5 and 6, of EleutherAI's sparsify, of Gemma Scope and of Llama Scope (pickles of
//! other programs are for [`crate::convert`]), [`Sae::save`] writes SAELens'. [`Sae::encode`] and [`Sae::decode`] are encoder
//! and decoder on the host, for any of them, [`Sae::on_device`] those that do not normalise as ops of a graph, with products in
//! f32 or bf16 ([`SaePrecision`]), and [`Encoder`] is the one that is at hand; [`Sae::duplicates`] finds what was learned twice.
//! Generation takes the features of those that [`Sae::check_form`] passes. [`train`] makes new ones.

mod decode;
mod device;
mod duplicates;
mod encode;
mod encoder;
mod fields;
pub(crate) mod fold;
mod gemma_scope;
mod inserts;
mod llama_scope;
mod open;
mod precision;
mod saelens;
mod save;
mod settings;
mod sparsify;
pub mod train;
mod turned;

pub use device::DeviceSae;
pub use duplicates::{Duplicates, Pair};
pub use encode::{HostEncoder, NotFinite, SparseRows};
pub use encoder::Encoder;
pub use inserts::SaeOutputs;
pub use precision::SaePrecision;
pub use save::{CFG_FILE, WEIGHTS_FILE};
pub use settings::{Activation, Metadata, Normalize, Settings};

use crate::device::HostTensor;
use crate::error::{ModelError, Result};
use crate::musicgen::Site;
use rayon::prelude::*;
use std::fmt;
use std::path::{Path, PathBuf};

/// A sparse autoencoder: a row is encoded to features of which few are active, and an active feature writes `f W_dec[feature]`.
#[derive(Debug)]
pub struct Sae {
    width: usize,
    features: usize,
    settings: Settings,
    /// The configuration it was read from, to name in errors.
    origin: Option<PathBuf>,
    /// The encoder's weight, transposed: f32 `[features, width]`.
    encoder: HostTensor,
    /// `[features]`, as in the file; of a gated autoencoder its `b_gate`.
    b_enc: Vec<f32>,
    /// `[width]`.
    b_dec: Vec<f32>,
    /// The encoder's bias with what is subtracted from a row folded in: f32 `[features]`.
    bias: HostTensor,
    /// f32 `[features, width]`.
    decoder: HostTensor,
}

/// The tensors of an autoencoder, row-major f32.
#[derive(Clone, Debug, PartialEq)]
pub struct SaeParts {
    /// `[width, features]`.
    pub w_enc: Vec<f32>,
    /// `[features]`; of a gated autoencoder its `b_gate`.
    pub b_enc: Vec<f32>,
    /// `[features, width]`.
    pub w_dec: Vec<f32>,
    /// `[width]`: added to what is decoded, and usually subtracted from what is encoded.
    pub b_dec: Vec<f32>,
}

impl Sae {
    /// An autoencoder of its parts: of a row less `b_dec`, the `k` largest features are active, or all positive ones without
    /// `k`. `hook` names the site that it was trained at.
    ///
    /// # Errors
    /// As [`with_settings`](Self::with_settings).
    pub fn new(parts: SaeParts, k: Option<usize>, hook: Option<String>) -> Result<Self> {
        let mut settings = Settings::new(k.map_or(Activation::Relu, Activation::TopK));
        settings.metadata.hook = hook;
        Self::with_settings(parts, settings)
    }

    /// An autoencoder of its parts and settings.
    ///
    /// # Errors
    /// Parts whose lengths do not fit together, values that are not finite, a `k` of 0 or beyond the features.
    pub fn with_settings(parts: SaeParts, settings: Settings) -> Result<Self> {
        let (width, features) = (parts.b_dec.len(), parts.b_enc.len());
        let bad = |argument, found: String, expected: String| {
            Err(ModelError::Argument { argument, found, expected })
        };
        for (name, values) in [("W_enc", &parts.w_enc), ("W_dec", &parts.w_dec)] {
            if width.checked_mul(features) != Some(values.len()) || values.is_empty() {
                let expected = format!("{features} features (b_enc) times {width} (b_dec)");
                return bad(name, format!("{} values", values.len()), expected);
            }
        }
        let own = settings.activation.tensors();
        for (name, values) in &own {
            if values.len() != features {
                return bad(name, format!("{} values", values.len()), format!("{features}, as in b_enc"));
            }
        }
        let shared: [(&'static str, &[f32]); 4] = [
            ("W_enc", &parts.w_enc),
            ("b_enc", &parts.b_enc),
            ("W_dec", &parts.w_dec),
            ("b_dec", &parts.b_dec),
        ];
        for (name, values) in shared.into_iter().chain(own) {
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                return bad(name, format!("{} at {at}", values[at]), "finite values".into());
            }
        }
        if let Activation::TopK(k) = settings.activation
            && !(1..=features).contains(&k)
        {
            return bad("k", k.to_string(), format!("1 to {features}, the features there are"));
        }
        let encoder = transposed(&parts.w_enc, features);
        drop(parts.w_enc);
        let bias = match settings.apply_b_dec_to_input {
            true => folded(&encoder, &parts.b_enc, &parts.b_dec),
            false => parts.b_enc.clone(),
        };
        Ok(Self {
            width,
            features,
            settings,
            origin: None,
            encoder: HostTensor::from_f32s([features, width], encoder),
            b_enc: parts.b_enc,
            b_dec: parts.b_dec,
            bias: HostTensor::from_f32s([features], bias),
            decoder: HostTensor::from_f32s([features, width], parts.w_dec),
        })
    }

    /// Width of the stream.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of features.
    pub fn features(&self) -> usize {
        self.features
    }

    /// What it is but for its weights.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Features that are active at most; `None` where the architecture sets no limit.
    pub fn k(&self) -> Option<usize> {
        match self.settings.activation {
            Activation::TopK(k) => Some(k),
            _ => None,
        }
    }

    /// The site that it was trained at, where its file says.
    pub fn hook(&self) -> Option<&str> {
        self.settings.metadata.hook.as_deref()
    }

    /// What a feature writes to the stream: row `feature` of the decoder, `[width]`.
    ///
    /// # Errors
    /// A feature that there is not.
    pub fn direction(&self, feature: usize) -> Result<Vec<f32>> {
        if feature >= self.features {
            return Err(ModelError::Argument {
                argument: "feature",
                found: feature.to_string(),
                expected: format!("less than {}, the features of the autoencoder", self.features),
            });
        }
        Ok(floats(&self.decoder)[feature * self.width..][..self.width].to_vec())
    }

    /// Length of every feature's direction, in order.
    pub fn decoder_norms(&self) -> Vec<f32> {
        let norm = |d: &[f32]| d.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt() as f32;
        floats(&self.decoder).par_chunks_exact(self.width).map(norm).collect()
    }

    /// Whether every direction is of length 1, to one part in a thousand, but for those of features that write nothing: so
    /// that values of different features, and the strengths of edits, count in the same unit.
    pub fn unit_directions(&self) -> bool {
        self.decoder_norms().iter().all(|&norm| norm == 0.0 || (norm - 1.0).abs() <= 1e-3)
    }

    /// A copy of its tensors, as [`with_settings`](Self::with_settings) takes them.
    pub fn parts(&self) -> SaeParts {
        SaeParts {
            w_enc: transposed(floats(&self.encoder), self.width),
            b_enc: self.b_enc.clone(),
            w_dec: floats(&self.decoder).to_vec(),
            b_dec: self.b_dec.clone(),
        }
    }

    /// Whether it was trained at `site`, in a stream of `width`: [`check_width`](Self::check_width) and
    /// [`check_hook`](Self::check_hook).
    ///
    /// # Errors
    /// [`ModelError::Misfit`] names the field, what it holds and what the site asks for.
    pub fn check(&self, site: Site, width: usize) -> Result<()> {
        self.check_width(site, width)?;
        self.check_hook(site)
    }

    /// Whether it reads rows of `width`, the width of what `place` names.
    ///
    /// # Errors
    /// [`ModelError::Misfit`].
    pub fn check_width(&self, place: impl fmt::Display, width: usize) -> Result<()> {
        if self.width == width {
            return Ok(());
        }
        Err(self.misfit("d_in", self.width.to_string(), format!("{width}, the width at {place}")))
    }

    /// Whether its file names `site`. A file that names neither hook nor layer contradicts none.
    ///
    /// # Errors
    /// [`ModelError::Misfit`].
    pub fn check_hook(&self, site: Site) -> Result<()> {
        let counting = "`hook_layers.N` counts layers from 0, `paper:M` from 1";
        if let Some(hook) = self.hook() {
            let trained = hook.parse::<Site>().ok();
            if let (Some(Site::Layer(trained, one)), Site::Layer(at, other)) = (trained, site)
                && one == other
                && trained + 1 == at
            {
                let expected = format!(
                    "{site}; {hook} is layer {at} where layers are counted from 1 ({counting}), so {hook} may be what is meant"
                );
                return Err(self.misfit("hook_name", hook.into(), expected));
            }
            if trained != Some(site) {
                return Err(self.misfit("hook_name", hook.into(), format!("{site} ({counting})")));
            }
        }
        match (self.settings.metadata.layer, site) {
            (Some(layer), Site::Layer(at, _)) if layer != at => Err(self.misfit(
                "hook_layer",
                layer.to_string(),
                format!("{at}, the layer of {site} ({counting})"),
            )),
            _ => Ok(()),
        }
    }

    /// The file that it was read from, or its configuration's; `None` of one that was made.
    pub fn origin(&self) -> Option<&Path> {
        self.origin.as_deref()
    }

    fn misfit(&self, field: &'static str, found: String, expected: String) -> ModelError {
        ModelError::Misfit { autoencoder: self.name(), field, found, expected }
    }

    fn name(&self) -> String {
        let file = self.origin.as_deref().map(Path::display);
        file.map_or_else(|| "autoencoder".into(), |file| file.to_string())
    }
}

/// The values of a tensor made by [`HostTensor::from_f32s`].
fn floats(tensor: &HostTensor) -> &[f32] {
    bytemuck::cast_slice(&tensor.bytes)
}

/// `[rows, cols]` as `[cols, rows]`.
pub(crate) fn transposed(values: &[f32], cols: usize) -> Vec<f32> {
    /// Columns that are gathered together: two cache lines of the rows they lie in.
    const TOGETHER: usize = 32;
    let rows = values.len() / cols;
    let mut out = vec![0.0; values.len()];
    out.par_chunks_mut(TOGETHER * rows).enumerate().for_each(|(block, out)| {
        let columns = out.len() / rows;
        for r in 0..rows {
            let row = &values[r * cols + block * TOGETHER..][..columns];
            row.iter().enumerate().for_each(|(c, &v)| out[c * rows + r] = v);
        }
    });
    out
}

/// `(x - b_dec) W + b_enc = x W + (b_enc - b_dec W)`: the second term, of W transposed.
fn folded(encoder: &[f32], b_enc: &[f32], b_dec: &[f32]) -> Vec<f32> {
    let rest = |(w, &b): (&[f32], &f32)| {
        let dot: f64 = w.iter().zip(b_dec).map(|(&w, &b)| f64::from(w) * f64::from(b)).sum();
        (f64::from(b) - dot) as f32
    };
    encoder.par_chunks_exact(b_dec.len()).zip(b_enc).map(rest).collect()
}
