//! The decoder's weights: taken from the checkpoint in one pass, put on the device layer by layer as they are needed.

use super::config::MusicgenDecoderConfig;
use super::decoder::Precision;
use crate::device::{HostTensor, present};
use crate::error::{ModelError, Result};
use auscult_kernels::DType;
use auscult_runtime::weights::{Loader, WeightView};
use auscult_runtime::{Backend, Tensor};
use std::sync::{Arc, OnceLock};

/// A layer norm's parameters, f32 `[hidden]` each.
pub(crate) struct Norm<T> {
    pub gamma: T,
    pub beta: T,
}

/// The projections of an attention block, `[hidden, hidden]` each.
pub(crate) struct Attention<T> {
    pub query: T,
    pub key: T,
    pub value: T,
    pub out: T,
}

/// One decoder layer.
pub(crate) struct Layer<T> {
    pub self_attn_norm: Norm<T>,
    pub self_attn: Attention<T>,
    pub mlp_norm: Norm<T>,
    /// `[ffn, hidden]`.
    pub fc1: T,
    /// `[hidden, ffn]`.
    pub fc2: T,
}

/// A layer's cross-attention to text, which passes without text do without.
pub(crate) struct Cross<T> {
    pub norm: Norm<T>,
    pub attn: Attention<T>,
}

/// What stands behind the last layer.
pub(crate) struct Head<T> {
    pub norm: Norm<T>,
    /// `[codebooks * vocabulary, hidden]`.
    pub logits: T,
}

/// How a decoder is told what to play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conditioning {
    /// Every layer attends to text.
    CrossAttention,
    /// By what stands in front of the first column.
    Prefix,
}

/// The decoder's weights on the host, and as much of them on the device as was used.
pub(crate) struct DecoderWeights {
    backend: Arc<dyn Backend>,
    precision: Precision,
    host_layers: Vec<Layer<HostTensor>>,
    layers: Vec<OnceLock<Layer<Tensor>>>,
    host_cross: Vec<Cross<HostTensor>>,
    cross: Vec<OnceLock<Cross<Tensor>>>,
    host_embeddings: Vec<HostTensor>,
    embeddings: OnceLock<Vec<Tensor>>,
    host_norm: Norm<HostTensor>,
    host_heads: Vec<HostTensor>,
    head: OnceLock<Head<Tensor>>,
    /// The checkpoint's own table of positions, f32 `[positions, hidden]`, where it holds one.
    pub positions: Option<HostTensor>,
}

impl DecoderWeights {
    /// Takes every tensor of the decoder.
    ///
    /// # Errors
    /// All missing, misshapen and unexpected tensors at once; a linear weight beyond the range of the precision.
    pub fn load(
        all: &Loader<'_>,
        config: &MusicgenDecoderConfig,
        conditioning: Conditioning,
        precision: Precision,
        backend: Arc<dyn Backend>,
    ) -> Result<Self> {
        let (d, codebooks) = (config.hidden_size, config.num_codebooks);
        let loader = all.prefix("decoder.");
        let model = loader.prefix("model.decoder.");
        let embedding = |q| model.take(&format!("embed_tokens.{q}.weight"), &[config.vocab_size + 1, d]);
        let embeddings: Vec<_> = (0..codebooks).map(embedding).collect();
        let positions = model.optional("embed_positions.weights", &[config.max_position_embeddings, d]);
        let layers: Vec<_> = (0..config.num_hidden_layers)
            .map(|l| take_layer(&model.prefix(&format!("layers.{l}.")), d, config.ffn_dim))
            .collect();
        let with_cross = match conditioning {
            Conditioning::CrossAttention => config.num_hidden_layers,
            Conditioning::Prefix => 0,
        };
        let cross: Vec<_> =
            (0..with_cross).map(|l| take_cross(&model.prefix(&format!("layers.{l}.")), d)).collect();
        let norm = take_norm(&model, "layer_norm", d);
        let head = |q| loader.take(&format!("lm_heads.{q}.weight"), &[config.vocab_size, d]);
        let heads: Vec<_> = (0..codebooks).map(head).collect();
        loader.finish()?;
        Ok(Self {
            backend,
            precision,
            layers: layers.iter().map(|_| OnceLock::new()).collect(),
            host_layers: layers.into_iter().map(Layer::host).collect::<Result<_>>()?,
            cross: cross.iter().map(|_| OnceLock::new()).collect(),
            host_cross: cross.into_iter().map(Cross::host).collect::<Result<_>>()?,
            host_embeddings: embeddings
                .iter()
                .map(|view| match conditioning {
                    Conditioning::CrossAttention => float(view),
                    Conditioning::Prefix => Ok(with_zeros(&float(view)?)),
                })
                .collect::<Result<_>>()?,
            embeddings: OnceLock::new(),
            host_norm: norm.host()?,
            host_heads: heads
                .iter()
                .map(|view| Ok(HostTensor::stored(present(view))))
                .collect::<Result<_>>()?,
            head: OnceLock::new(),
            positions: positions.as_ref().map(HostTensor::f32).transpose()?,
        })
    }

    /// Layer `l` on the device.
    pub fn layer(&self, l: usize) -> Result<&Layer<Tensor>> {
        once(&self.layers[l], || {
            let host = &self.host_layers[l];
            Ok(Layer {
                self_attn_norm: self.norm(&host.self_attn_norm)?,
                self_attn: self.attention(&host.self_attn, "self_attn")?,
                mlp_norm: self.norm(&host.mlp_norm)?,
                fc1: self.linear(&host.fc1, "fc1")?,
                fc2: self.linear(&host.fc2, "fc2")?,
            })
        })
    }

    /// The cross-attention of layer `l` on the device, where it goes only for passes with text.
    pub fn cross(&self, l: usize) -> Result<&Cross<Tensor>> {
        once(&self.cross[l], || {
            let host = &self.host_cross[l];
            Ok(Cross { norm: self.norm(&host.norm)?, attn: self.attention(&host.attn, "encoder_attn")? })
        })
    }

    /// Rows that a codebook has in the embedding tables: its codes, the special token and, where a prefix stands in front
    /// of the columns, a row of zeros for positions that hold no code.
    pub fn entries(&self) -> usize {
        self.host_embeddings[0].desc.shape[0]
    }

    /// Embedding tables on the device, f32 `[codebooks of the group * entries, hidden]`: one table, or as many as
    /// the device's binding limit asks for.
    pub fn embeddings(&self) -> Result<&[Tensor]> {
        let tables = once(&self.embeddings, || {
            let one = self.host_embeddings[0].desc.bytes();
            let a_group = (self.backend.info().max_binding / one).max(1);
            self.host_embeddings
                .chunks(a_group)
                .map(|group| concatenated(group)?.upload(&*self.backend))
                .collect()
        })?;
        Ok(tables)
    }

    /// The last norm and the heads on the device.
    pub fn head(&self) -> Result<&Head<Tensor>> {
        once(&self.head, || {
            let heads = self
                .host_heads
                .iter()
                .map(|head| self.narrowed(head, "lm_heads"))
                .collect::<Result<Vec<_>>>()?;
            Ok(Head {
                norm: self.norm(&self.host_norm)?,
                logits: concatenated(&heads)?.upload(&*self.backend)?,
            })
        })
    }

    fn norm(&self, norm: &Norm<HostTensor>) -> Result<Norm<Tensor>> {
        Ok(Norm { gamma: norm.gamma.upload(&*self.backend)?, beta: norm.beta.upload(&*self.backend)? })
    }

    fn attention(&self, host: &Attention<HostTensor>, name: &str) -> Result<Attention<Tensor>> {
        let linear = |weight, part: &str| self.linear(weight, &format!("{name}.{part}_proj"));
        Ok(Attention {
            query: linear(&host.query, "q")?,
            key: linear(&host.key, "k")?,
            value: linear(&host.value, "v")?,
            out: linear(&host.out, "out")?,
        })
    }

    fn linear(&self, weight: &HostTensor, name: &str) -> Result<Tensor> {
        self.narrowed(weight, name)?.upload(&*self.backend)
    }

    fn narrowed(&self, weight: &HostTensor, name: &str) -> Result<HostTensor> {
        weight.narrowed(self.precision.dtype()).ok_or_else(|| ModelError::Argument {
            argument: "precision",
            found: self.precision.to_string(),
            expected: format!("one that holds the values of `{name}`, such as bf16 or f32"),
        })
    }
}

/// `get_or_try_init` of a cell: two threads may both compute, one result is kept.
fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}

/// Tensors of one type and width, one below the other. A single one is not copied.
fn concatenated(parts: &[HostTensor]) -> Result<HostTensor> {
    let [first, rest @ ..] = parts else { unreachable!("a decoder has at least one codebook") };
    if rest.is_empty() {
        return Ok(first.clone());
    }
    let mut bytes = Vec::with_capacity(parts.iter().map(|p| p.desc.bytes()).sum());
    parts.iter().for_each(|part| bytes.extend_from_slice(&part.bytes));
    let rows = parts.iter().map(|p| p.desc.shape[0]).sum();
    Ok(HostTensor::from_bytes(first.desc.dtype, [rows, first.desc.shape[1]], bytes))
}

/// A table of f32 rows with one of zeros behind them.
fn with_zeros(table: &HostTensor) -> HostTensor {
    let (rows, width) = (table.desc.shape[0], table.desc.shape[1]);
    let mut bytes = table.bytes.to_vec();
    bytes.resize(4 * (rows + 1) * width, 0);
    HostTensor::from_bytes(DType::F32, [rows + 1, width], bytes)
}

type View<'w> = Option<WeightView<'w>>;

fn take_norm<'w>(loader: &Loader<'w>, name: &str, d: usize) -> Norm<View<'w>> {
    Norm {
        gamma: loader.take(&format!("{name}.weight"), &[d]),
        beta: loader.take(&format!("{name}.bias"), &[d]),
    }
}

fn take_attention<'w>(loader: &Loader<'w>, name: &str, d: usize) -> Attention<View<'w>> {
    let take = |part: &str| loader.take(&format!("{name}.{part}_proj.weight"), &[d, d]);
    Attention { query: take("q"), key: take("k"), value: take("v"), out: take("out") }
}

fn take_layer<'w>(loader: &Loader<'w>, d: usize, ffn: usize) -> Layer<View<'w>> {
    Layer {
        self_attn_norm: take_norm(loader, "self_attn_layer_norm", d),
        self_attn: take_attention(loader, "self_attn", d),
        mlp_norm: take_norm(loader, "final_layer_norm", d),
        fc1: loader.take("fc1.weight", &[ffn, d]),
        fc2: loader.take("fc2.weight", &[d, ffn]),
    }
}

fn take_cross<'w>(loader: &Loader<'w>, d: usize) -> Cross<View<'w>> {
    Cross {
        norm: take_norm(loader, "encoder_attn_layer_norm", d),
        attn: take_attention(loader, "encoder_attn", d),
    }
}

fn float(view: &View<'_>) -> Result<HostTensor> {
    HostTensor::f32(present(view))
}

fn stored(view: &View<'_>) -> HostTensor {
    HostTensor::stored(present(view))
}

impl Norm<View<'_>> {
    fn host(self) -> Result<Norm<HostTensor>> {
        Ok(Norm { gamma: float(&self.gamma)?, beta: float(&self.beta)? })
    }
}

impl Attention<View<'_>> {
    fn host(self) -> Attention<HostTensor> {
        Attention {
            query: stored(&self.query),
            key: stored(&self.key),
            value: stored(&self.value),
            out: stored(&self.out),
        }
    }
}

impl Cross<View<'_>> {
    fn host(self) -> Result<Cross<HostTensor>> {
        Ok(Cross { norm: self.norm.host()?, attn: self.attn.host() })
    }
}

impl Layer<View<'_>> {
    fn host(self) -> Result<Layer<HostTensor>> {
        Ok(Layer {
            self_attn_norm: self.self_attn_norm.host()?,
            self_attn: self.self_attn.host(),
            mlp_norm: self.mlp_norm.host()?,
            fc1: stored(&self.fc1),
            fc2: stored(&self.fc2),
        })
    }
}

impl Precision {
    /// The storage type of linear weights.
    pub(crate) const fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
        }
    }
}
