//! An autoencoder on a device: its encoder and decoder as ops of a graph.

use super::{Sae, SaePrecision};
use crate::error::{ModelError, Result};
use auscult_kernels::DType;
use auscult_kernels::ops::{
    capture::Capture,
    sae_decode::SaeDecode,
    sae_encode::{MOST_K, SaeEncode},
    sae_rescore::SaeRescore,
    sae_screen::{SaeScreen, screened},
};
use auscult_runtime::{Backend, GraphBuilder, GraphError, Tensor, Value};

/// The tensors of an autoencoder of the k largest features, on a device.
#[derive(Clone, Debug)]
pub struct DeviceSae {
    k: usize,
    /// f32 `[features, width]`.
    pub(super) encoder: Tensor,
    /// bf16 `[features, width]`, where that is what is multiplied first.
    pub(super) narrow: Option<Tensor>,
    /// f32 `[features]`: with what is subtracted from a row folded in.
    pub(super) bias: Tensor,
    /// f32 `[features, width]`.
    decoder: Tensor,
    /// f32 `[width]`.
    b_dec: Tensor,
}

impl Sae {
    /// The autoencoder on a device, for graphs that encode and decode.
    ///
    /// # Errors
    /// Those of [`top_k`](Self::top_k); one that sets no limit to its active features, or one above 1024; for bf16 a weight
    /// beyond its range; memory.
    pub fn on_device(&self, backend: &dyn Backend, precision: SaePrecision) -> Result<DeviceSae> {
        let k = self.top_k()?;
        if !(1..=MOST_K).contains(&k) {
            let found = if k == 0 { "no limit (relu)".to_string() } else { k.to_string() };
            return Err(ModelError::Argument {
                argument: "k",
                found,
                expected: format!("1 to {MOST_K}, which the fused encoder keeps of a row"),
            });
        }
        let (encoder, bias) = self.encoder(backend)?;
        let narrow = match precision {
            SaePrecision::F32 => None,
            SaePrecision::Bf16 => Some(self.narrow_encoder()?.upload(backend)?),
        };
        let b_dec = crate::device::HostTensor::from_f32s([self.width], self.b_dec.clone());
        Ok(DeviceSae {
            k,
            encoder,
            narrow,
            bias,
            decoder: self.decoder.upload(backend)?,
            b_dec: b_dec.upload(backend)?,
        })
    }
}

impl DeviceSae {
    /// Features that are active at most.
    pub fn k(&self) -> usize {
        self.k
    }

    /// What its products are of.
    pub fn precision(&self) -> SaePrecision {
        if self.narrow.is_some() { SaePrecision::Bf16 } else { SaePrecision::F32 }
    }

    /// The op that encodes in f32.
    pub(super) fn encoder_op(&self) -> SaeEncode {
        SaeEncode { k: self.k }
    }

    /// The ops that encode in bf16: rows are rounded, screened, and what was found computed in f32.
    pub(super) fn narrow_ops(&self) -> (Capture, SaeScreen, SaeRescore) {
        narrow_ops(self.k, self.encoder.desc.shape[0])
    }

    /// What the decoder reads behind features and values: its weight and its bias.
    pub(super) fn decoder(&self) -> [Tensor; 2] {
        [self.decoder.clone(), self.b_dec.clone()]
    }

    /// Appends the encoder: of x f32 `[rows, width]` the features u32 `[rows, k]` and their values f32 `[rows, k]`, by value,
    /// then index; 0 behind the last active one. A row with a value that is not a number has values NaN.
    ///
    /// # Errors
    /// Another shape.
    pub fn encode(&self, graph: &mut GraphBuilder, x: Value) -> Result<(Value, Value), GraphError> {
        let (encoder, bias) = (graph.constant(&self.encoder), graph.constant(&self.bias));
        let written = match &self.narrow {
            None => graph.op_all(&self.encoder_op(), &[x, encoder, bias].map(Some), &[])?,
            Some(narrow) => {
                let (round, screen, rescore) = self.narrow_ops();
                let rounded = graph.op(&round, &[Some(x), None])?;
                let narrow = graph.constant(narrow);
                let found = graph.op_all(&screen, &[rounded, narrow, bias].map(Some), &[])?;
                graph.op_all(&rescore, &[x, encoder, bias, found[0]].map(Some), &[])?
            }
        };
        match written.as_slice() {
            &[indices, values] => Ok((indices, values)),
            written => unreachable!("the encoder writes indices and values, not {} slots", written.len()),
        }
    }

    /// Appends the decoder: f32 `[rows, width]` of what [`encode`](Self::encode) yields, less `minus` of the same shape where
    /// it is there.
    ///
    /// # Errors
    /// Another shape.
    pub fn decode(
        &self,
        graph: &mut GraphBuilder,
        (indices, values): (Value, Value),
        minus: Option<Value>,
    ) -> Result<Value, GraphError> {
        let (decoder, b_dec) = (graph.constant(&self.decoder), graph.constant(&self.b_dec));
        graph.op(&SaeDecode, &[Some(indices), Some(values), Some(decoder), Some(b_dec), minus])
    }
}

/// Of the `k` largest of so many features.
pub(super) fn narrow_ops(k: usize, features: usize) -> (Capture, SaeScreen, SaeRescore) {
    (Capture { dtype: DType::BF16 }, SaeScreen { k: screened(k, features) }, SaeRescore { k })
}
