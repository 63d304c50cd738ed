//! An autoencoder on a device: its encoder and decoder as ops of a graph.

use super::Sae;
use crate::error::{ModelError, Result};
use auscult_kernels::ops::sae_decode::SaeDecode;
use auscult_kernels::ops::sae_encode::{MOST_K, SaeEncode};
use auscult_runtime::{Backend, GraphBuilder, GraphError, Tensor, Value};

/// The tensors of an autoencoder of the k largest features, on a device.
#[derive(Clone, Debug)]
pub struct DeviceSae {
    k: usize,
    /// f32 `[features, width]`.
    encoder: Tensor,
    /// f32 `[features]`: with what is subtracted from a row folded in.
    bias: Tensor,
    /// f32 `[features, width]`.
    decoder: Tensor,
    /// f32 `[width]`.
    b_dec: Tensor,
}

impl Sae {
    /// The autoencoder on a device, for graphs that encode and decode.
    ///
    /// # Errors
    /// Those of [`top_k`](Self::top_k); one that sets no limit to its active features, or one above 1024; memory.
    pub fn on_device(&self, backend: &dyn Backend) -> Result<DeviceSae> {
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
        let b_dec = crate::device::HostTensor::from_f32s([self.width], self.b_dec.clone());
        Ok(DeviceSae {
            k,
            encoder,
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

    /// The encoder of `x`, f32 `[rows, width]`, and the tensors that it reads behind x, for an op at a site.
    pub fn encoder(&self) -> (SaeEncode, [Tensor; 2]) {
        (SaeEncode { k: self.k }, [self.encoder.clone(), self.bias.clone()])
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
        let (op, [encoder, bias]) = self.encoder();
        let inputs = [x, graph.constant(&encoder), graph.constant(&bias)].map(Some);
        match graph.op_all(&op, &inputs, &[])?.as_slice() {
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
