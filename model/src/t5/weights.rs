//! The text encoder's weights: taken from the checkpoint in one pass, those of the blocks put on the device.
//!
//! The embedding stays on the host: a text reads a few of its rows, and all of them are most of the encoder's bytes.

use super::config::{FeedForward, T5Config};
use crate::device::{HostTensor, present};
use crate::error::Result;
use auscult_kernels::DType;
use auscult_runtime::weights::{Loader, WeightView};
use auscult_runtime::{Backend, Tensor};
use half::{bf16, f16};

/// The projections of an attention block: `[inner, d_model]`, and back.
pub(crate) struct Attention<T> {
    pub query: T,
    pub key: T,
    pub value: T,
    pub out: T,
}

/// What comes before the last projection of a feed-forward layer, `[d_ff, d_model]` each.
pub(crate) enum Up<T> {
    /// Through a ReLU.
    Relu(T),
    /// A gate through GELU, times a value.
    Gated { gate: T, value: T },
}

/// One block.
pub(crate) struct Block<T> {
    pub attention_norm: T,
    pub attention: Attention<T>,
    pub mlp_norm: T,
    pub up: Up<T>,
    /// `[d_model, d_ff]`.
    pub down: T,
}

/// The weights of an encoder.
pub(crate) struct T5Weights {
    /// `[vocabulary, d_model]`, in the checkpoint's type.
    embedding: HostTensor,
    /// `[buckets, heads]`: the first block's, which all share.
    pub position_table: Vec<f32>,
    pub blocks: Vec<Block<Tensor>>,
    pub final_norm: Tensor,
}

impl T5Weights {
    /// Takes every tensor of the text encoder.
    ///
    /// # Errors
    /// All missing, misshapen and unexpected tensors at once.
    pub fn load(
        all: &Loader<'_>,
        config: &T5Config,
        feed_forward: FeedForward,
        backend: &dyn Backend,
    ) -> Result<Self> {
        let (d, heads) = (config.d_model, config.num_heads);
        let loader = all.prefix("text_encoder.");
        // one tensor, which files hold under either name or both
        let embedding =
            loader.take_any(&["shared.weight", "encoder.embed_tokens.weight"], &[config.vocab_size, d]);
        let encoder = loader.prefix("encoder.");
        let position_table = encoder.take(
            "block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            &[config.relative_attention_num_buckets, heads],
        );
        let blocks: Vec<_> = (0..config.num_layers)
            .map(|b| take_block(&encoder.prefix(&format!("block.{b}.layer.")), config, feed_forward))
            .collect();
        let final_norm = encoder.take("final_layer_norm.weight", &[d]);
        loader.finish()?;
        Ok(Self {
            embedding: HostTensor::stored(present(&embedding)),
            position_table: present(&position_table).to_f32()?,
            blocks: blocks.into_iter().map(|block| block.upload(backend)).collect::<Result<_>>()?,
            final_norm: upload(&final_norm, backend)?,
        })
    }

    /// Row `token` of the embedding, appended to `rows`.
    pub fn embed(&self, token: u32, rows: &mut Vec<f32>) {
        let width = self.embedding.desc.shape[1];
        let row_bytes = width * self.embedding.desc.dtype.size();
        let row = &self.embedding.bytes[token as usize * row_bytes..][..row_bytes];
        match self.embedding.desc.dtype {
            DType::F16 => rows.extend(row.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
            DType::BF16 => rows.extend(row.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
            _ => rows.extend(row.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
        }
    }
}

type View<'w> = Option<WeightView<'w>>;

fn take_block<'w>(loader: &Loader<'w>, config: &T5Config, feed_forward: FeedForward) -> Block<View<'w>> {
    let (d, inner, ff) = (config.d_model, config.inner_dim(), config.d_ff);
    let attention = loader.prefix("0.SelfAttention.");
    let dense = loader.prefix("1.DenseReluDense.");
    Block {
        attention_norm: loader.take("0.layer_norm.weight", &[d]),
        attention: Attention {
            query: attention.take("q.weight", &[inner, d]),
            key: attention.take("k.weight", &[inner, d]),
            value: attention.take("v.weight", &[inner, d]),
            out: attention.take("o.weight", &[d, inner]),
        },
        mlp_norm: loader.take("1.layer_norm.weight", &[d]),
        up: match feed_forward {
            FeedForward::Relu => Up::Relu(dense.take("wi.weight", &[ff, d])),
            FeedForward::GatedGelu => Up::Gated {
                gate: dense.take("wi_0.weight", &[ff, d]),
                value: dense.take("wi_1.weight", &[ff, d]),
            },
        },
        down: dense.take("wo.weight", &[d, ff]),
    }
}

impl Block<View<'_>> {
    fn upload(self, backend: &dyn Backend) -> Result<Block<Tensor>> {
        let upload = |view: &View<'_>| upload(view, backend);
        Ok(Block {
            attention_norm: upload(&self.attention_norm)?,
            attention: Attention {
                query: upload(&self.attention.query)?,
                key: upload(&self.attention.key)?,
                value: upload(&self.attention.value)?,
                out: upload(&self.attention.out)?,
            },
            mlp_norm: upload(&self.mlp_norm)?,
            up: match &self.up {
                Up::Relu(up) => Up::Relu(upload(up)?),
                Up::Gated { gate, value } => Up::Gated { gate: upload(gate)?, value: upload(value)? },
            },
            down: upload(&self.down)?,
        })
    }
}

/// A tensor that was found, as f32.
pub(super) fn upload(view: &View<'_>, backend: &dyn Backend) -> Result<Tensor> {
    HostTensor::f32(present(view))?.upload(backend)
}
