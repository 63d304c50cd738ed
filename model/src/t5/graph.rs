//! T5's encoder as one page: HF `T5Stack`, `T5LayerSelfAttention`, `T5LayerFF`.

use super::config::T5Config;
use super::sites::TextSite;
use super::weights::{Block, T5Weights, Up};
use crate::error::Result;
use auscult_kernels::TensorDesc;
use auscult_kernels::ops::{
    attention_masked::AttentionMasked,
    gated_gelu::GatedGelu,
    linear::{Activation, Linear},
    rms_norm::RmsNorm,
};
use auscult_runtime::{Edits, Graph, GraphBuilder, Tensor, Value};

/// Name of the graph's first input: embeddings f32 `[batch * steps, d_model]`.
pub(crate) const EMBEDDED: &str = "embedded";
/// Name of the other input: tokens of every prompt, u32 `[batch]`.
pub(crate) const LENGTHS: &str = "lengths";

/// What a forward pass is built for.
pub(crate) struct Forward<'a> {
    pub config: &'a T5Config,
    pub weights: &'a T5Weights,
    /// f32 `[heads, steps, steps]`.
    pub position_bias: &'a Tensor,
    pub batch: usize,
    pub steps: usize,
}

impl Forward<'_> {
    /// The graph of a forward pass that applies `edits`.
    pub fn build(&self, edits: Edits) -> Result<Graph> {
        let mut g = GraphBuilder::new(edits);
        let rows = self.batch * self.steps;
        let x = g.input(EMBEDDED, TensorDesc::f32([rows, self.config.d_model]))?;
        let lengths = g.input(LENGTHS, TensorDesc::u32([self.batch]))?;
        let mut x = g.site(TextSite::Embed, x)?;
        for (b, block) in self.weights.blocks.iter().enumerate() {
            x = self.block(&mut g, block, x, lengths)?;
            x = g.site(TextSite::Block(b), x)?;
        }
        let x = self.norm(&mut g, x, &self.weights.final_norm)?;
        g.site(TextSite::FinalNorm, x)?;
        Ok(g.finish()?)
    }

    fn block(&self, g: &mut GraphBuilder, w: &Block<Tensor>, x: Value, lengths: Value) -> Result<Value> {
        let h = self.norm(g, x, &w.attention_norm)?;
        let q = linear(g, h, &w.attention.query, None)?; // [rows, heads * d_kv]
        let k = linear(g, h, &w.attention.key, None)?;
        let v = linear(g, h, &w.attention.value, None)?;
        let a = self.attention(g, q, k, v, lengths)?;
        let x = linear(g, a, &w.attention.out, Some(x))?;

        let h = self.norm(g, x, &w.mlp_norm)?;
        let h = match &w.up {
            Up::Relu(up) => {
                let up = g.constant(up);
                g.op(&Linear { activation: Activation::Relu }, &[Some(h), Some(up), None, None])?
            }
            Up::Gated { gate, value } => {
                let (gate, value) = (linear(g, h, gate, None)?, linear(g, h, value, None)?);
                g.op(&GatedGelu, &[Some(gate), Some(value)])?
            }
        }; // [rows, d_ff]
        linear(g, h, &w.down, Some(x))
    }

    /// Of every token to those of its own prompt. T5 does not scale its scores.
    fn attention(&self, g: &mut GraphBuilder, q: Value, k: Value, v: Value, lengths: Value) -> Result<Value> {
        let (rows, inner) = (self.batch * self.steps, self.config.inner_dim());
        let batched = [self.batch, self.steps, inner];
        let (q, k, v) = (g.view(q, batched)?, g.view(k, batched)?, g.view(v, batched)?);
        let bias = g.constant(self.position_bias);
        let op = AttentionMasked { heads: self.config.num_heads, scale: 1.0 };
        let a = g.op(&op, &[Some(q), Some(k), Some(v), Some(lengths), Some(bias)])?;
        Ok(g.view(a, [rows, inner])?)
    }

    fn norm(&self, g: &mut GraphBuilder, x: Value, gamma: &Tensor) -> Result<Value> {
        let gamma = g.constant(gamma);
        let eps = self.config.layer_norm_epsilon as f32;
        Ok(g.op(&RmsNorm { eps }, &[Some(x), Some(gamma)])?)
    }
}

/// `x * weight + residual`.
fn linear(g: &mut GraphBuilder, x: Value, weight: &Tensor, residual: Option<Value>) -> Result<Value> {
    let weight = g.constant(weight);
    Ok(g.op(&Linear { activation: Activation::None }, &[Some(x), Some(weight), None, residual])?)
}
