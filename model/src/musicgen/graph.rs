//! MusicGen's decoder over many positions at once, as one page.
//!
//! Block order and names: audiocraft `StreamingTransformerLayer`, HF `MusicgenDecoderLayer`. Without text the keys and
//! values of cross-attention are zero (no biases), so it adds exactly zero and is not computed.

use super::config::{Activation, MusicgenDecoderConfig};
use super::generate::state::LayerCache;
use super::parts::{Cross, Layer, Norm};
use super::sites::{At, Site};
use super::weights::DecoderWeights;
use crate::error::Result;
use auscult_kernels::ops::{
    add::Add,
    attention::{Attention, Mask},
    attention_masked::AttentionMasked,
    cache_write::CacheWrite,
    capture::Capture,
    delay_apply::{DelayApply, Steps},
    embed_sum::EmbedSum,
    fill::Fill,
    layer_norm::LayerNorm,
    linear::{Activation as Epilogue, Linear},
    linear_half::LinearHalf,
    linear_half_capture::LinearHalfCapture,
};
use auscult_kernels::{DType, TensorDesc};
use auscult_runtime::{Edits, Graph, GraphBuilder, Tensor, Value};

/// Name of the graph's input: codes u32 `[batch, codebooks, frames]`.
pub(crate) const CODES: &str = "codes";

/// Name of the input in place of codes where columns are given as they are, or a prefix stands in front of them: see
/// [`super::prefix::ids`].
pub(crate) const IDS: &str = "ids";

/// Name of the input of prefixes: a row of zeros, then those of every clip, f32 `[1 + batch * prefix, hidden]`.
pub(crate) const PREFIX: &str = "prefix";

/// Name of the input of projected text: f32 `[batch, tokens, hidden]`.
pub(crate) const TEXT: &str = "text";

/// Name of the input of the texts' lengths in tokens: u32 `[batch]`.
pub(crate) const TEXT_LENGTHS: &str = "text_lengths";

/// Name of the input of pages: u32 `[batch, pages_per_row]`.
pub(crate) const CACHE_PAGES: &str = "cache_pages";

/// Name of the input of first positions: u32 `[batch]`.
pub(crate) const CACHE_POSITIONS: &str = "cache_positions";

/// torch's default, which both reference implementations keep.
pub(crate) const EPS: f32 = 1e-5;

/// What a forward pass is built for.
pub(crate) struct Forward<'a> {
    pub config: &'a MusicgenDecoderConfig,
    pub weights: &'a DecoderWeights,
    /// f32 `[steps, hidden]`.
    pub positions: &'a Tensor,
    pub batch: usize,
    /// Positions in front of the first column.
    pub prefix: usize,
    /// Columns: the first, which holds only special tokens, and one for every frame. None at all only behind a prefix.
    pub columns: usize,
    /// Whether columns are given as they are, u32 `[batch * columns, codebooks]`, and not as codes.
    pub as_given: bool,
    /// Tokens that texts are padded to; `None` without text.
    pub tokens: Option<usize>,
    /// The last site that anything is done at; nothing behind it is computed.
    pub deepest: Site,
    /// What matrix products and attention read: f32, or the two-byte type of the weights. The stream, whatever a site shows,
    /// and every sum are f32 either way.
    pub factors: DType,
    /// Caches that keys and values are kept in, for columns that follow.
    pub caches: Option<Caches<'a>>,
}

/// Caches to be filled from the first column on.
#[derive(Clone, Copy)]
pub(crate) struct Caches<'a> {
    pub layers: &'a [LayerCache],
    pub pages_per_row: usize,
}

/// A pass's rows in the caches: pages u32 `[batch, pages_per_row]` and first positions u32 `[batch]`.
#[derive(Clone, Copy)]
struct Places {
    pages: Value,
    positions: Value,
}

/// Text as every layer attends to it.
#[derive(Clone, Copy)]
struct Text {
    /// `[batch * tokens, hidden]`, in the type of the factors.
    states: Value,
    /// u32 `[batch]`.
    lengths: Value,
    tokens: usize,
}

impl Forward<'_> {
    /// The graph of a forward pass that applies `edits` and stops behind the deepest site.
    pub fn build(&self, edits: Edits) -> Result<Graph> {
        let mut g = GraphBuilder::new(edits);
        self.record(&mut g)?;
        Ok(g.finish()?)
    }

    fn record(&self, g: &mut GraphBuilder) -> Result<()> {
        let text = self.tokens.map(|tokens| self.text(g, tokens)).transpose()?;
        let places = self.caches.map(|caches| self.places(g, caches)).transpose()?;
        let mut x = self.embed(g)?;
        x = g.site(Site::Embed, x)?;
        for l in 0..self.config.num_hidden_layers {
            if self.deepest < Site::Layer(l, At::ResidPre) {
                return Ok(());
            }
            let Some(next) = self.layer(g, self.weights.layer(l)?, (text, places), l, x)? else {
                return Ok(());
            };
            x = next;
        }
        if self.deepest < Site::FinalNorm {
            return Ok(());
        }
        let head = self.weights.head()?;
        x = if g.wants(Site::FinalNorm) {
            let x = norm(g, x, &head.norm, DType::F32)?;
            let x = g.site(Site::FinalNorm, x)?;
            self.narrow(g, x)?
        } else {
            let x = norm(g, x, &head.norm, self.factors)?;
            g.site(Site::FinalNorm, x)?
        };
        if self.deepest < Site::Logits {
            return Ok(());
        }
        let logits = self.linear(g, x, &head.logits, DType::F32)?; // [rows, codebooks * vocabulary]
        g.site(Site::Logits, logits)?;
        Ok(())
    }

    /// Positions of a clip.
    fn steps(&self) -> usize {
        self.prefix + self.columns
    }

    /// Columns as they are given, or codes through the delay pattern: u32 `[rows, codebooks]`.
    fn ids(&self, g: &mut GraphBuilder) -> Result<Value> {
        let config = self.config;
        if self.as_given {
            return Ok(g.input(IDS, TensorDesc::u32([self.batch * self.steps(), config.num_codebooks]))?);
        }
        let codes = g.input(CODES, TensorDesc::u32([self.batch, config.num_codebooks, self.columns - 1]))?;
        let delay = DelayApply {
            special: u32::try_from(config.special_token()).expect("validate() bounds the vocabulary"),
            channels: config.audio_channels,
            steps: Steps::Valid,
        };
        let ids = g.op(&delay, &[Some(codes)])?; // [batch, steps, codebooks]
        Ok(g.view(ids, [self.batch * self.steps(), config.num_codebooks])?)
    }

    /// Ids as the host laid them out, and the rows in front of the columns with zeros elsewhere.
    fn behind_prefix(&self, g: &mut GraphBuilder) -> Result<(Value, Value)> {
        let (codebooks, steps) = (self.config.num_codebooks, self.steps());
        let ids = g.input(IDS, TensorDesc::u32([self.batch * steps, codebooks + 1]))?;
        let entries = 1 + self.batch * self.prefix;
        let table = g.input(PREFIX, TensorDesc::f32([entries, self.config.hidden_size]))?;
        let op = EmbedSum { entries, first_codebook: codebooks, steps };
        Ok((ids, g.op(&op, &[Some(ids), Some(table), None, None, None])?))
    }

    /// The embeddings of codes summed, what stands in front of them, and positions: `[rows, hidden]`.
    fn embed(&self, g: &mut GraphBuilder) -> Result<Value> {
        let (ids, mut x) = match self.prefix {
            0 => (self.ids(g)?, None),
            _ => self.behind_prefix(g).map(|(ids, rows)| (ids, Some(rows)))?,
        };
        let positions = g.constant(self.positions);
        let (tables, entries) = (self.weights.embeddings()?, self.weights.entries());
        let mut first_codebook = 0;
        for (i, table) in tables.iter().enumerate() {
            let op = EmbedSum { entries, first_codebook, steps: self.steps() };
            let last = i + 1 == tables.len();
            let table_value = g.constant(table);
            x = Some(g.op(&op, &[Some(ids), Some(table_value), x, last.then_some(positions), None])?);
            first_codebook += table.desc.shape[0] / entries;
        }
        Ok(x.expect("a decoder has at least one codebook"))
    }

    fn places(&self, g: &mut GraphBuilder, caches: Caches<'_>) -> Result<Places> {
        let pages = g.input(CACHE_PAGES, TensorDesc::u32([self.batch, caches.pages_per_row]))?;
        let positions = g.input(CACHE_POSITIONS, TensorDesc::u32([self.batch]))?;
        Ok(Places { pages, positions })
    }

    /// Keys and values into a layer's caches.
    fn keep(
        &self,
        g: &mut GraphBuilder,
        k: Value,
        v: Value,
        cache: &LayerCache,
        places: Places,
    ) -> Result<()> {
        let write = CacheWrite { steps: self.steps(), k_first: 0, v_first: 0 };
        let [keys, values] = [&cache.keys, &cache.values].map(|t| g.constant(t));
        g.op(&write, &[k, v, places.positions, places.pages, keys, values].map(Some))?;
        Ok(())
    }

    fn text(&self, g: &mut GraphBuilder, tokens: usize) -> Result<Text> {
        let d = self.config.hidden_size;
        let states = g.input(TEXT, TensorDesc::f32([self.batch, tokens, d]))?;
        let states = g.view(states, [self.batch * tokens, d])?;
        let lengths = g.input(TEXT_LENGTHS, TensorDesc::u32([self.batch]))?;
        Ok(Text { states: self.narrow(g, states)?, lengths, tokens })
    }

    /// One layer; `None` where the deepest site lies within it.
    fn layer(
        &self,
        g: &mut GraphBuilder,
        w: &Layer<Tensor>,
        (text, places): (Option<Text>, Option<Places>),
        l: usize,
        x: Value,
    ) -> Result<Option<Value>> {
        let site = |at| Site::Layer(l, at);
        let x = g.site(site(At::ResidPre), x)?;
        if self.deepest == site(At::ResidPre) {
            return Ok(None);
        }
        let h = norm(g, x, &w.self_attn_norm, self.factors)?;
        let q = self.linear(g, h, &w.self_attn.query, self.factors)?;
        let (k, v) = match (self.caches, places) {
            (Some(caches), Some(places)) => {
                let k = self.linear(g, h, &w.self_attn.key, DType::F32)?;
                let v = self.linear(g, h, &w.self_attn.value, DType::F32)?;
                self.keep(g, k, v, &caches.layers[l], places)?;
                (self.narrow(g, k)?, self.narrow(g, v)?)
            }
            _ => {
                let k = self.linear(g, h, &w.self_attn.key, self.factors)?;
                (k, self.linear(g, h, &w.self_attn.value, self.factors)?)
            }
        };
        let a = self.attention(g, q, k, v)?;
        let x =
            self.add_to_stream(g, a, &w.self_attn.out, x, site(At::SelfAttnOut), Some(site(At::ResidMid)))?;
        if self.deepest == site(At::SelfAttnOut) {
            return Ok(None);
        }
        let x = g.site(site(At::ResidMid), x)?;
        if self.deepest == site(At::ResidMid) {
            return Ok(None);
        }
        let x = match text {
            Some(text) => self.cross_attention(g, self.weights.cross(l)?, text, x, site(At::CrossAttnOut))?,
            None => no_cross_attention(g, x, site(At::CrossAttnOut))?,
        };
        if self.deepest == site(At::CrossAttnOut) {
            return Ok(None);
        }
        let h = norm(g, x, &w.mlp_norm, self.factors)?;
        let activation = match self.config.activation_function {
            Activation::Gelu => Epilogue::Gelu,
            Activation::Relu => Epilogue::Relu,
        };
        let h = self.product(g, h, &w.fc1, activation, None, self.factors)?; // [rows, ffn]
        let x = self.add_to_stream(g, h, &w.fc2, x, site(At::MlpOut), Some(site(At::ResidPost)))?;
        if self.deepest == site(At::MlpOut) {
            return Ok(None);
        }
        Ok(Some(g.site(site(At::ResidPost), x)?))
    }

    /// The stream plus what its positions gather from the text.
    fn cross_attention(
        &self,
        g: &mut GraphBuilder,
        w: &Cross<Tensor>,
        text: Text,
        x: Value,
        summand: Site,
    ) -> Result<Value> {
        let (steps, d) = (self.steps(), self.config.hidden_size);
        let h = norm(g, x, &w.norm, self.factors)?;
        let q = self.linear(g, h, &w.attn.query, self.factors)?;
        let k = self.linear(g, text.states, &w.attn.key, self.factors)?;
        let v = self.linear(g, text.states, &w.attn.value, self.factors)?;
        let q = g.view(q, [self.batch, steps, d])?;
        let [k, v] = [k, v].map(|x| g.view(x, [self.batch, text.tokens, d]));
        let op =
            AttentionMasked { heads: self.config.num_attention_heads, scale: self.config.attention_scale() };
        let a = g.op(&op, &[Some(q), Some(k?), Some(v?), Some(text.lengths), None])?;
        let a = g.view(a, [self.batch * steps, d])?;
        self.add_to_stream(g, a, &w.attn.out, x, summand, None)
    }

    fn attention(&self, g: &mut GraphBuilder, q: Value, k: Value, v: Value) -> Result<Value> {
        let (rows, d) = (self.batch * self.steps(), self.config.hidden_size);
        let batched = [self.batch, self.steps(), d];
        let op = Attention {
            heads: self.config.num_attention_heads,
            scale: self.config.attention_scale(),
            mask: Mask::Causal,
        };
        let (q, k, v) = (g.view(q, batched)?, g.view(k, batched)?, g.view(v, batched)?);
        let a = g.op(&op, &[Some(q), Some(k), Some(v)])?;
        Ok(g.view(a, [rows, d])?)
    }

    /// `stream + h * weight`, in one launch unless an edit wants the summand; together with what a capture of the sum, where a
    /// site shows it, keeps in the type of the factors.
    fn add_to_stream(
        &self,
        g: &mut GraphBuilder,
        h: Value,
        weight: &Tensor,
        stream: Value,
        summand: Site,
        sum: Option<Site>,
    ) -> Result<Value> {
        if g.wants(summand) {
            let out = self.linear(g, h, weight, DType::F32)?;
            let out = g.site(summand, out)?;
            return Ok(g.op(&Add { alpha: 1.0 }, &[Some(stream), Some(out)])?);
        }
        if self.factors != DType::F32 && sum.is_some_and(|sum| g.captures_all(sum, self.factors)) {
            let op = LinearHalfCapture { activation: Epilogue::None };
            let inputs = [Some(h), Some(g.constant(weight)), None, Some(stream)];
            return Ok(g.op_with_rounded(&op, &inputs)?);
        }
        self.product(g, h, weight, Epilogue::None, Some(stream), DType::F32)
    }

    fn linear(&self, g: &mut GraphBuilder, x: Value, weight: &Tensor, out: DType) -> Result<Value> {
        self.product(g, x, weight, Epilogue::None, None, out)
    }

    /// `activation(x * weight) + residual`, kept as `out`: f32, or the type of the factors.
    fn product(
        &self,
        g: &mut GraphBuilder,
        x: Value,
        weight: &Tensor,
        activation: Epilogue,
        residual: Option<Value>,
        out: DType,
    ) -> Result<Value> {
        let inputs = [Some(x), Some(g.constant(weight)), None, residual];
        Ok(match self.factors {
            DType::F32 => g.op(&Linear { activation }, &inputs)?,
            _ => g.op(&LinearHalf { activation, out }, &inputs)?,
        })
    }

    /// An f32 value as matrix products read it.
    fn narrow(&self, g: &mut GraphBuilder, x: Value) -> Result<Value> {
        Ok(match self.factors {
            DType::F32 => x,
            dtype => g.op(&Capture { dtype }, &[Some(x), None])?,
        })
    }
}

fn norm(g: &mut GraphBuilder, x: Value, w: &Norm<Tensor>, out: DType) -> Result<Value> {
    let (gamma, beta) = (g.constant(&w.gamma), g.constant(&w.beta));
    Ok(g.op(&LayerNorm { eps: EPS, out }, &[Some(x), Some(gamma), Some(beta)])?)
}

/// The stream behind a cross-attention that adds zero; the zeros exist only where an edit wants them.
pub(crate) fn no_cross_attention(g: &mut GraphBuilder, stream: Value, summand: Site) -> Result<Value> {
    if !g.wants(summand) {
        return Ok(stream);
    }
    let zeros = g.op(&Fill { value: 0.0, shape: g.desc(stream).shape.clone() }, &[])?;
    let zeros = g.site(summand, zeros)?;
    Ok(g.op(&Add { alpha: 1.0 }, &[Some(stream), Some(zeros)])?)
}
