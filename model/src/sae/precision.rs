//! How an encoder multiplies.

use super::{Activation, Sae};
use crate::device::HostTensor;
use crate::error::{ModelError, Result};
use auscult_kernels::DType;
use auscult_kernels::ops::sae_encode::MOST_K;
use std::fmt;

/// What the products of a top-k encoder are of. Either way its features and values are those of f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum SaePrecision {
    /// Every feature in f32.
    #[default]
    F32,
    /// Every feature with rows and weight rounded to bf16; a quarter more than the k largest, and 16, are computed again in f32,
    /// and the cut is made among those. A feature is missed only where more others than that lie between it and the k-th by
    /// their rounded products, which are off by some 0.002 of the spread of a row's pre-activations.
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

impl fmt::Display for SaePrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Sae {
    /// The encoder's weight in bf16, `[features, width]`.
    ///
    /// # Errors
    /// An autoencoder that is not one of the k largest features; a weight beyond the range of bf16.
    pub(super) fn narrow_encoder(&self) -> Result<HostTensor> {
        let bad =
            |found: String, expected| Err(ModelError::Argument { argument: "precision", found, expected });
        if !matches!(self.settings.activation, Activation::TopK(k) if k <= MOST_K) {
            let found = format!("bf16 with a {} autoencoder", self.settings.activation.architecture());
            let expected =
                format!("f32: only those of the k largest features, k at most {MOST_K}, encode in bf16");
            return bad(found, expected);
        }
        match self.encoder.narrowed(DType::BF16) {
            Some(narrow) => Ok(narrow),
            None => bad("bf16".into(), "f32: a weight is beyond the range of bf16".into()),
        }
    }
}
