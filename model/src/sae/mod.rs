//! Sparse autoencoders: what they read of the stream, and the direction that each feature writes.

use crate::device::HostTensor;
use crate::error::{ModelError, Result};
use auscult_runtime::{Backend, Tensor};

/// A sparse autoencoder: `f = max(x W_enc + b_enc, 0)`, of which the `k` largest are kept; a feature writes `f W_dec[feature]`.
#[derive(Debug)]
pub struct Sae {
    width: usize,
    features: usize,
    k: Option<usize>,
    hook: Option<String>,
    /// The encoder's weight, transposed: f32 `[features, width]`.
    encoder: HostTensor,
    /// The encoder's bias with the decoder's folded in: f32 `[features]`.
    bias: HostTensor,
    /// f32 `[features, width]`.
    decoder: HostTensor,
}

/// The tensors of an autoencoder, row-major f32.
#[derive(Clone, Debug)]
pub struct SaeParts {
    /// `[width, features]`.
    pub w_enc: Vec<f32>,
    /// `[features]`.
    pub b_enc: Vec<f32>,
    /// `[features, width]`.
    pub w_dec: Vec<f32>,
    /// `[width]`: subtracted from what is encoded.
    pub b_dec: Vec<f32>,
}

impl Sae {
    /// An autoencoder of its parts. `k` is how many features are active at most; all positive ones without. `hook` names the
    /// site that it was trained at.
    ///
    /// # Errors
    /// Parts whose lengths do not fit together, values that are not finite, a `k` of 0 or beyond the features.
    pub fn new(parts: SaeParts, k: Option<usize>, hook: Option<String>) -> Result<Self> {
        let (width, features) = (parts.b_dec.len(), parts.b_enc.len());
        let bad = |argument, found: String, expected: String| {
            Err(ModelError::Argument { argument, found, expected })
        };
        for (name, values, want) in
            [("W_enc", &parts.w_enc, width * features), ("W_dec", &parts.w_dec, width * features)]
        {
            if values.len() != want || want == 0 {
                let expected = format!("{features} features (b_enc) times {width} (b_dec)");
                return bad(name, format!("{} values", values.len()), expected);
            }
        }
        for (name, values) in [
            ("W_enc", &parts.w_enc),
            ("b_enc", &parts.b_enc),
            ("W_dec", &parts.w_dec),
            ("b_dec", &parts.b_dec),
        ] {
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                return bad(name, format!("{} at {at}", values[at]), "finite values".into());
            }
        }
        if let Some(k) = k
            && !(1..=features).contains(&k)
        {
            return bad("k", k.to_string(), format!("1 to {features}, the features there are"));
        }
        // (x - b_dec) W + b_enc = x W + (b_enc - b_dec W)
        let mut folded: Vec<f64> = parts.b_enc.iter().map(|&b| f64::from(b)).collect();
        for (row, &b) in parts.w_enc.chunks_exact(features).zip(&parts.b_dec) {
            folded.iter_mut().zip(row).for_each(|(sum, &w)| *sum -= f64::from(b) * f64::from(w));
        }
        let mut encoder = vec![0.0; width * features];
        for (c, row) in parts.w_enc.chunks_exact(features).enumerate() {
            row.iter().enumerate().for_each(|(f, &w)| encoder[f * width + c] = w);
        }
        Ok(Self {
            width,
            features,
            k,
            hook,
            encoder: HostTensor::from_f32s([features, width], encoder),
            bias: HostTensor::from_f32s([features], folded.into_iter().map(|b| b as f32).collect()),
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

    /// Features that are active at most; `None` where every positive one is.
    pub fn k(&self) -> Option<usize> {
        self.k
    }

    /// The site that it was trained at, where its file says.
    pub fn hook(&self) -> Option<&str> {
        self.hook.as_deref()
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
        let row = 4 * self.width;
        Ok(bytemuck::pod_collect_to_vec(&self.decoder.bytes[feature * row..][..row]))
    }

    /// Weight f32 `[features, width]` and bias f32 `[features]` of the encoder on a device.
    pub(crate) fn encoder(&self, backend: &dyn Backend) -> Result<(Tensor, Tensor)> {
        Ok((self.encoder.upload(backend)?, self.bias.upload(backend)?))
    }
}
