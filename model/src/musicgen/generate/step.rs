//! One column of music for every row, as one page: what is replayed.
//!
//! It reads nothing from the host and ends where it begins, with the column that the next replay feeds, so that replays
//! follow each other on the device for as long as nobody wants to see the codes.

use super::state::{LayerCache, State, TextState};
use crate::error::Result;
use crate::musicgen::config::{Activation, MusicgenDecoderConfig};
use crate::musicgen::graph::{EPS, no_cross_attention};
use crate::musicgen::parts::{Cross, Layer, Norm};
use crate::musicgen::sites::{At, Site};
use crate::musicgen::weights::DecoderWeights;
use auscult_kernels::DType;
use auscult_kernels::ops::{
    add::Add,
    attention_cache::AttentionCache,
    attention_merge::AttentionMerge,
    cache_write::CacheWrite,
    delay_step::DelayStep,
    embed_sum::EmbedSum,
    layer_norm::LayerNorm,
    linear::Activation as Epilogue,
    linear_rows::LinearRows,
    sample::{Guidance, Sample},
};
use auscult_runtime::{Edits, Graph, GraphBuilder, Tensor, Value};

/// Keys that one part of a launch attends to: what lies beyond is split, so that few rows fill a device.
const CHUNK: usize = 256;

/// What a step is built for.
pub(crate) struct StepGraph<'a> {
    pub config: &'a MusicgenDecoderConfig,
    pub weights: &'a DecoderWeights,
    /// f32 `[positions, hidden]`.
    pub positions: &'a Tensor,
    pub state: &'a State,
    pub guidance: Guidance,
}

/// Where a layer's rows find the keys they attend to.
struct Keys<'a> {
    keys: &'a Tensor,
    values: &'a Tensor,
    pages: &'a Tensor,
    /// How many there are, less `extra`.
    counts: &'a Tensor,
    extra: usize,
}

impl StepGraph<'_> {
    /// The graph, with `edits` at sites.
    pub fn build(&self, edits: Edits) -> Result<Graph> {
        let mut g = GraphBuilder::new(edits);
        let x = self.embed(&mut g)?;
        let mut x = g.site(Site::Embed, x)?;
        for l in 0..self.config.num_hidden_layers {
            x = self.layer(&mut g, self.weights.lean_layer(l)?, l, x)?;
        }
        let head = self.weights.lean_head()?;
        let x = norm(&mut g, x, &head.norm)?;
        let x = g.site(Site::FinalNorm, x)?;
        let logits = linear(&mut g, x, &[&head.logits])?; // [rows, codebooks * vocabulary]
        let logits = g.site(Site::Logits, logits)?;
        self.choose(&mut g, logits)?;
        Ok(g.finish()?)
    }

    fn embed(&self, g: &mut GraphBuilder) -> Result<Value> {
        let entries = self.weights.entries();
        let [ids, positions, at] =
            [&self.state.ids, self.positions, &self.state.positions].map(|t| g.constant(t));
        let steps = g.desc(ids).shape[0];
        let tables = self.weights.embeddings()?;
        let mut x = None;
        let mut first_codebook = 0;
        for (i, table) in tables.iter().enumerate() {
            let last = i + 1 == tables.len();
            let op = EmbedSum { entries, first_codebook, steps };
            let table_value = g.constant(table);
            let inputs = [Some(ids), Some(table_value), x, last.then_some(positions), last.then_some(at)];
            x = Some(g.op(&op, &inputs)?);
            first_codebook += table.desc.shape[0] / entries;
        }
        Ok(x.expect("a decoder has at least one codebook"))
    }

    fn layer(&self, g: &mut GraphBuilder, w: &Layer<Tensor>, l: usize, x: Value) -> Result<Value> {
        let site = |at| Site::Layer(l, at);
        let d = self.config.hidden_size;
        let x = g.site(site(At::ResidPre), x)?;
        let h = norm(g, x, &w.self_attn_norm)?;
        let qkv = linear(g, h, &[&w.self_attn.query, &w.self_attn.key, &w.self_attn.value])?; // [rows, 3 hidden]
        let (state, cache) = (self.state, &self.state.layers[l]);
        let write = CacheWrite { steps: 1, k_first: d, v_first: 2 * d };
        let [at, pages, keys, values] =
            [&state.positions, &state.pages, &cache.keys, &cache.values].map(|t| g.constant(t));
        g.op(&write, &[qkv, qkv, at, pages, keys, values].map(Some))?;
        let own = Keys {
            keys: &cache.keys,
            values: &cache.values,
            pages: &state.pages,
            counts: &state.positions,
            extra: 1,
        };
        let a = self.attention(g, qkv, &own)?;
        let x = add_to_stream(g, a, &w.self_attn.out, x, site(At::SelfAttnOut))?;
        let x = g.site(site(At::ResidMid), x)?;
        let x = match &state.text {
            Some(text) => self.cross_attention(g, self.weights.lean_cross(l)?, text, l, x)?,
            None => no_cross_attention(g, x, site(At::CrossAttnOut))?,
        };
        let h = norm(g, x, &w.mlp_norm)?;
        let activation = match self.config.activation_function {
            Activation::Gelu => Epilogue::Gelu,
            Activation::Relu => Epilogue::Relu,
        };
        let fc1 = g.constant(&w.fc1);
        let h = g.op(&LinearRows { activation }, &[Some(h), Some(fc1), None, None, None, None])?;
        let x = add_to_stream(g, h, &w.fc2, x, site(At::MlpOut))?;
        Ok(g.site(site(At::ResidPost), x)?)
    }

    /// Rows without text have no keys, for which attention is exactly zero.
    fn cross_attention(
        &self,
        g: &mut GraphBuilder,
        w: &Cross<Tensor>,
        text: &TextState,
        l: usize,
        x: Value,
    ) -> Result<Value> {
        let h = norm(g, x, &w.norm)?;
        let q = linear(g, h, &[&w.attn.query])?;
        let LayerCache { keys, values } = &text.layers[l];
        let of = Keys { keys, values, pages: &text.pages, counts: &text.lengths, extra: 0 };
        let a = self.attention(g, q, &of)?;
        add_to_stream(g, a, &w.attn.out, x, Site::Layer(l, At::CrossAttnOut))
    }

    /// Queries, the first columns of `q`, over a cache: `[rows, hidden]`.
    fn attention(&self, g: &mut GraphBuilder, q: Value, of: &Keys<'_>) -> Result<Value> {
        let heads = self.config.num_attention_heads;
        let op =
            AttentionCache { heads, scale: self.config.attention_scale(), extra: of.extra, chunk: CHUNK };
        let [keys, values, pages, counts] = [of.keys, of.values, of.pages, of.counts].map(|t| g.constant(t));
        let y = g.op(&op, &[q, keys, values, pages, counts].map(Some))?;
        match g.desc(y).shape.len() {
            2 => Ok(y),
            _ => Ok(g.op(&AttentionMerge, &[Some(y)])?),
        }
    }

    /// From scores to the next column.
    fn choose(&self, g: &mut GraphBuilder, logits: Value) -> Result<()> {
        let state = self.state;
        let [settings, at, limits, codes] =
            [&state.settings, &state.positions, &state.limits, &state.codes].map(|t| g.constant(t));
        let sample = Sample { codebooks: self.config.num_codebooks, guided: self.guidance };
        let tokens = g.op(&sample, &[logits, settings, at].map(Some))?; // [slots, codebooks]
        let next = DelayStep {
            special: u32::try_from(self.config.special_token()).expect("validate() bounds the vocabulary"),
            channels: self.config.audio_channels,
            guided: self.guidance,
        };
        g.op_into(&next, &[tokens, limits, at, codes].map(Some), &state.ids)?;
        Ok(())
    }
}

fn norm(g: &mut GraphBuilder, x: Value, w: &Norm<Tensor>) -> Result<Value> {
    let (gamma, beta) = (g.constant(&w.gamma), g.constant(&w.beta));
    Ok(g.op(&LayerNorm { eps: EPS, out: DType::F32 }, &[Some(x), Some(gamma), Some(beta)])?)
}

/// The products with up to three weights, side by side.
fn linear(g: &mut GraphBuilder, x: Value, weights: &[&Tensor]) -> Result<Value> {
    let [a, b, c] = [0, 1, 2].map(|i| weights.get(i).map(|w| g.constant(w)));
    Ok(g.op(&LinearRows { activation: Epilogue::None }, &[Some(x), a, b, c, None, None])?)
}

/// `stream + h * weight`, in one launch unless an edit wants the summand.
fn add_to_stream(
    g: &mut GraphBuilder,
    h: Value,
    weight: &Tensor,
    stream: Value,
    summand: Site,
) -> Result<Value> {
    if g.wants(summand) {
        let out = linear(g, h, &[weight])?;
        let out = g.site(summand, out)?;
        return Ok(g.op(&Add { alpha: 1.0 }, &[Some(stream), Some(out)])?);
    }
    let weight = g.constant(weight);
    let inputs = [Some(h), Some(weight), None, None, None, Some(stream)];
    Ok(g.op(&LinearRows { activation: Epilogue::None }, &inputs)?)
}
