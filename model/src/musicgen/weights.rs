//! The decoder's weights: taken from the checkpoint in one pass, put on the device layer by layer as they are needed.

use super::config::MusicgenDecoderConfig;
use super::decoder::Precision;
use super::parts::{Attention, Cross, Head, Layer, Norm, View, take_cross, take_layer, take_norm};
use crate::device::{HostTensor, present};
use crate::error::{ModelError, Result};
use auscult_kernels::DType;
use auscult_runtime::weights::Loader;
use auscult_runtime::{Backend, Tensor};
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

/// How a decoder is told what to play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conditioning {
    /// Every layer attends to text.
    CrossAttention,
    /// By what stands in front of the first column.
    Prefix,
}

/// A part of the weights on the host, and on the device once it was asked for.
struct Part<H, D> {
    host: H,
    device: OnceLock<D>,
    lean: OnceLock<Option<D>>,
}

impl<H, D> Part<H, D> {
    fn new(host: H) -> Self {
        Self { host, device: OnceLock::new(), lean: OnceLock::new() }
    }
}

/// The decoder's weights on the host, and as much of them on the device as was used.
///
/// Linear weights lie there in the type of the precision; embedding tables in two bytes a value where no value of them
/// changes by it, else in the type of the precision, if its range holds them. For products of few rows, which wait for them, they are to be had
/// `lean` as well: in two bytes a value where no value of that part changes by it, whatever the precision.
pub(crate) struct DecoderWeights {
    backend: Arc<dyn Backend>,
    precision: Precision,
    layers: Vec<Part<Layer<HostTensor>, Layer<Tensor>>>,
    cross: Vec<Part<Cross<HostTensor>, Cross<Tensor>>>,
    host_embeddings: Vec<HostTensor>,
    embeddings: OnceLock<Vec<Tensor>>,
    head: Part<Heads, Head<Tensor>>,
    /// The checkpoint's own table of positions, f32 `[positions, hidden]`, where it holds one.
    pub positions: Option<HostTensor>,
}

/// What stands behind the last layer, a weight for each codebook.
struct Heads {
    norm: Norm<HostTensor>,
    logits: Vec<HostTensor>,
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
        let stored = |view: &View<'_>, _: &str| Ok(HostTensor::stored(present(view)));
        let layer = |layer: &Layer<_>| layer.try_map(&float, &stored).map(Part::new);
        let cross_of = |cross: &Cross<_>| cross.try_map(&float, &stored).map(Part::new);
        let embedding = |view| match conditioning {
            Conditioning::CrossAttention => float(view),
            Conditioning::Prefix => Ok(with_zeros(&float(view)?)),
        };
        Ok(Self {
            backend,
            precision,
            layers: layers.iter().map(layer).collect::<Result<_>>()?,
            cross: cross.iter().map(cross_of).collect::<Result<_>>()?,
            host_embeddings: in_few_bytes(
                embeddings.iter().map(embedding).collect::<Result<_>>()?,
                precision.dtype(),
            ),
            embeddings: OnceLock::new(),
            head: Part::new(Heads {
                norm: norm.try_map(&float)?,
                logits: heads.iter().map(|view| HostTensor::stored(present(view))).collect(),
            }),
            positions: positions.as_ref().map(HostTensor::f32).transpose()?,
        })
    }

    /// Layer `l` on the device.
    pub fn layer(&self, l: usize) -> Result<&Layer<Tensor>> {
        let Part { host, device, .. } = &self.layers[l];
        once(device, || host.try_map(&|norm| self.put(norm), &|weight, name| self.linear(weight, name)))
    }

    /// Layer `l`, lean where that is to be had.
    pub fn lean_layer(&self, l: usize) -> Result<&Layer<Tensor>> {
        let Part { host, lean, .. } = &self.layers[l];
        let make = || match lean_as(|dtype| host.try_map(&kept, &lean_in(dtype)).ok()) {
            Some(lean) => lean.try_map(&|norm| self.put(norm), &|weight, _| self.put(weight)).map(Some),
            None => Ok(None),
        };
        once(lean, make)?.as_ref().map_or_else(|| self.layer(l), Ok)
    }

    /// The cross-attention of layer `l` on the device, where it goes only for passes with text.
    pub fn cross(&self, l: usize) -> Result<&Cross<Tensor>> {
        let Part { host, device, .. } = &self.cross[l];
        once(device, || host.try_map(&|norm| self.put(norm), &|weight, name| self.linear(weight, name)))
    }

    /// The cross-attention of layer `l`, lean where that is to be had.
    pub fn lean_cross(&self, l: usize) -> Result<&Cross<Tensor>> {
        let Part { host, lean, .. } = &self.cross[l];
        let make = || match lean_as(|dtype| host.try_map(&kept, &lean_in(dtype)).ok()) {
            Some(lean) => lean.try_map(&|norm| self.put(norm), &|weight, _| self.put(weight)).map(Some),
            None => Ok(None),
        };
        once(lean, make)?.as_ref().map_or_else(|| self.cross(l), Ok)
    }

    /// Rows that a codebook has in the embedding tables: its codes, the special token and, where a prefix stands in front
    /// of the columns, a row of zeros for positions that hold no code.
    pub fn entries(&self) -> usize {
        self.host_embeddings[0].desc.shape[0]
    }

    /// Embedding tables on the device, f32, f16 or bf16 `[codebooks of the group * entries, hidden]`: one table, or as many
    /// as the device's binding limit asks for.
    pub fn embeddings(&self) -> Result<&[Tensor]> {
        let tables = once(&self.embeddings, || {
            let one = self.host_embeddings[0].desc.bytes();
            let a_group = (self.backend.info().max_binding / one).max(1);
            self.host_embeddings.chunks(a_group).map(|group| self.put(&concatenated(group))).collect()
        })?;
        Ok(tables)
    }

    /// The last norm and the heads on the device.
    pub fn head(&self) -> Result<&Head<Tensor>> {
        let Part { host, device, .. } = &self.head;
        once(device, || {
            let narrowed = |head| self.narrowed(head, "lm_heads");
            let heads = host.logits.iter().map(narrowed).collect::<Result<Vec<_>>>()?;
            self.put_head(&host.norm, &heads)
        })
    }

    /// The last norm and the heads, lean where that is to be had.
    pub fn lean_head(&self) -> Result<&Head<Tensor>> {
        let Part { host, lean, .. } = &self.head;
        let make = || {
            let heads = lean_as(|dtype| host.logits.iter().map(|head| head.lean(dtype)).collect());
            heads.map(|heads: Vec<_>| self.put_head(&host.norm, &heads)).transpose()
        };
        once(lean, make)?.as_ref().map_or_else(|| self.head(), Ok)
    }

    /// Bytes of everything on the device, in the type of the precision.
    pub fn device_bytes(&self) -> usize {
        let size = self.precision.dtype().size();
        let linear = |tensor: &HostTensor| tensor.desc.elements() * size;
        let mut bytes = self.host_embeddings.iter().map(|table| table.desc.bytes()).sum::<usize>();
        bytes += self.head.host.logits.iter().map(linear).sum::<usize>();
        let attention = |a: &Attention<HostTensor>| {
            [&a.query, &a.key, &a.value, &a.out].map(linear).iter().sum::<usize>()
        };
        bytes += self.cross.iter().map(|part| attention(&part.host.attn)).sum::<usize>();
        let layer = |l: &Layer<HostTensor>| attention(&l.self_attn) + linear(&l.fc1) + linear(&l.fc2);
        bytes + self.layers.iter().map(|part| layer(&part.host)).sum::<usize>()
    }

    /// Types that lean layers lie on the device in.
    pub fn lean_types(&self) -> Result<BTreeSet<String>> {
        (0..self.layers.len()).map(|l| Ok(self.lean_layer(l)?.fc1.desc.dtype.name().to_lowercase())).collect()
    }

    fn put_head(&self, norm: &Norm<HostTensor>, heads: &[HostTensor]) -> Result<Head<Tensor>> {
        Ok(Head { norm: norm.try_map(&|norm| self.put(norm))?, logits: self.put(&concatenated(heads))? })
    }

    fn put(&self, tensor: &HostTensor) -> Result<Tensor> {
        tensor.upload(&*self.backend)
    }

    fn linear(&self, weight: &HostTensor, name: &str) -> Result<Tensor> {
        self.put(&self.narrowed(weight, name)?)
    }

    fn narrowed(&self, weight: &HostTensor, name: &str) -> Result<HostTensor> {
        weight.narrowed(self.precision.dtype()).ok_or_else(|| ModelError::Argument {
            argument: "precision",
            found: self.precision.to_string(),
            expected: format!("one that holds the values of `{name}`, such as bf16 or f32"),
        })
    }
}

/// A part in the first of the two-byte types that holds it: all of it, since products side by side are of one type.
fn lean_as<T>(of: impl FnMut(DType) -> Option<T>) -> Option<T> {
    [DType::F16, DType::BF16].into_iter().find_map(of)
}

/// Embedding tables in two bytes a value where that changes none of theirs, else in `dtype`, where its range holds them.
fn in_few_bytes(tables: Vec<HostTensor>, dtype: DType) -> Vec<HostTensor> {
    let all = |of: &dyn Fn(&HostTensor) -> Option<HostTensor>| tables.iter().map(of).collect();
    let exact = lean_as(|dtype| all(&|table| table.lean(dtype)));
    exact.or_else(|| all(&|table| table.narrowed(dtype))).unwrap_or(tables)
}

/// A linear weight in two bytes a value.
fn lean_in(dtype: DType) -> impl Fn(&HostTensor, &str) -> Result<HostTensor, ()> {
    move |weight, _| weight.lean(dtype).ok_or(())
}

fn kept(tensor: &HostTensor) -> Result<HostTensor, ()> {
    Ok(tensor.clone())
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
fn concatenated(parts: &[HostTensor]) -> HostTensor {
    let [first, rest @ ..] = parts else { unreachable!("a decoder has at least one codebook") };
    if rest.is_empty() {
        return first.clone();
    }
    let mut bytes = Vec::with_capacity(parts.iter().map(|p| p.desc.bytes()).sum());
    parts.iter().for_each(|part| bytes.extend_from_slice(&part.bytes));
    let rows = parts.iter().map(|p| p.desc.shape[0]).sum();
    HostTensor::from_bytes(first.desc.dtype, [rows, first.desc.shape[1]], bytes)
}

/// A table of f32 rows with one of zeros behind them.
fn with_zeros(table: &HostTensor) -> HostTensor {
    let (rows, width) = (table.desc.shape[0], table.desc.shape[1]);
    let mut bytes = table.bytes.to_vec();
    bytes.resize(4 * (rows + 1) * width, 0);
    HostTensor::from_bytes(DType::F32, [rows + 1, width], bytes)
}

fn float(view: &View<'_>) -> Result<HostTensor> {
    HostTensor::f32(present(view))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedding_tables_take_two_bytes_where_that_is_allowed() {
        // exact in f16; beyond its range; exact in bf16 alone; exact in neither
        let (exact, far, wide, odd) = (0.375, 70_001.0, 2.0_f32.powi(100), 0.1);
        for (values, precision, expected, why) in [
            ([exact, 1.0], DType::F32, DType::F16, "no value changes"),
            ([exact, 1.0], DType::BF16, DType::F16, "no value changes, whatever the precision"),
            ([exact, wide], DType::F32, DType::BF16, "no value changes in bf16"),
            ([exact, odd], DType::F32, DType::F32, "one value of one table would change"),
            ([exact, odd], DType::F16, DType::F16, "rounded as the precision asks"),
            ([exact, odd], DType::BF16, DType::BF16, "rounded as the precision asks"),
            ([exact, far], DType::F16, DType::F32, "a value is beyond the range"),
        ] {
            let tables = values.map(|value| HostTensor::from_f32s([1, 2], vec![value, -0.5]));
            let kept = in_few_bytes(tables.to_vec(), precision);
            assert_eq!(kept.iter().map(|table| table.desc.dtype).collect::<Vec<_>>(), [expected; 2], "{why}");
            let back = kept.iter().map(|table| table.narrowed(DType::F32).expect("f32 holds them"));
            let back: Vec<f32> =
                back.flat_map(|table| bytemuck::pod_collect_to_vec::<u8, f32>(&table.bytes)).collect();
            if precision == DType::F32 {
                assert_eq!(back, [values[0], -0.5, values[1], -0.5], "{why}");
            }
        }
    }
}
