//! How an encoder multiplies.

use super::{Activation, Sae, floats};
use crate::device::HostTensor;
use crate::error::{ModelError, Result};
use auscult_kernels::DType;
use auscult_kernels::ops::{
    capture::Capture,
    sae_encode::MOST_K,
    sae_rescore::{SaeRescore, errors},
    sae_screen::{SaeScreen, screened},
};
use rayon::prelude::*;
use std::fmt;
use std::str::FromStr;

/// What the products of a top-k encoder are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum SaePrecision {
    /// Every feature in f32.
    #[default]
    F32,
    /// Every feature with rows, less what is subtracted from them, and weight rounded to bf16. Features that are so near the k-th
    /// largest, or 0, that this does not tell on which side they are, are computed again in f32; so are all features of a row that
    /// has more of those than were kept in view, a quarter more than k, and 16. So the features are those of f32, but for rare
    /// ones where features are not alike ([`errors`] says how); the values of others than near ties are off by about a thousandth of
    /// the spread of a row's pre-activations.
    Bf16,
}

impl SaePrecision {
    /// The name on the command line and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl FromStr for SaePrecision {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::F32, Self::Bf16];
        all.into_iter().find(|precision| precision.name() == text).ok_or_else(|| ModelError::Argument {
            argument: "precision",
            found: format!("`{text}`"),
            expected: all.map(Self::name).join(", "),
        })
    }
}

impl fmt::Display for SaePrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What encodes in bf16.
#[derive(Clone, Debug)]
pub(super) struct Narrow {
    /// bf16 `[features, width]`.
    pub weight: HostTensor,
    /// f32 `[features]`: negative infinity for a feature without weights that cannot be active, so that it is no near tie of 0.
    pub bias: HostTensor,
    /// f32 `[width + features]`: how far products with it are off, of a column of a row; then scales of features.
    pub errors: HostTensor,
}

/// What finds the `k` largest of so many features in bf16: rows are rounded and screened, and near ties are computed in f32.
pub(super) fn narrow_ops(k: usize, features: usize) -> (Capture, SaeScreen, SaeRescore) {
    (Capture { dtype: DType::BF16 }, SaeScreen { k: screened(k, features) }, SaeRescore { k })
}

impl Sae {
    /// The encoder in bf16.
    ///
    /// # Errors
    /// An autoencoder that is not one of the k largest features; a weight beyond the range of bf16.
    pub(super) fn narrow_encoder(&self) -> Result<Narrow> {
        let bad =
            |found: String, expected| Err(ModelError::Argument { argument: "precision", found, expected });
        if !matches!(self.settings.activation, Activation::TopK(k) if k <= MOST_K) {
            let found = format!("bf16 with a {} autoencoder", self.settings.activation.architecture());
            let expected =
                format!("f32: only those of the k largest features, k at most {MOST_K}, encode in bf16");
            return bad(found, expected);
        }
        let Some(weight) = self.encoder.narrowed(DType::BF16) else {
            return bad("bf16".into(), "f32: a weight is beyond the range of bf16".into());
        };
        let encoder = floats(&self.encoder);
        let bias = encoder.par_chunks_exact(self.width).zip(&self.b_enc).map(|(row, &bias)| {
            let is_never_active = bias <= 0.0 && row.iter().all(|&w| w == 0.0);
            if is_never_active { f32::NEG_INFINITY } else { bias }
        });
        Ok(Narrow {
            weight,
            bias: HostTensor::from_f32s([self.features], bias.collect()),
            errors: HostTensor::from_f32s([self.width + self.features], errors(encoder, self.width)),
        })
    }
}
