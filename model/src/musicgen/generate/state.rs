//! What a generator keeps on the device from one column to the next.

use super::interventions::upload;
use super::sampling::SETTINGS;
use crate::error::Result;
use crate::musicgen::config::MusicgenDecoderConfig;
use auscult_kernels::{DType, TensorDesc};
use auscult_runtime::{Backend, Contents, Tensor};

/// Columns of a page of the caches.
pub(crate) const PAGE: usize = 16;

/// Words of a take's limits, as `delay_step_u32` reads them.
pub(crate) const LIMITS: usize = 2;

/// The number of no page.
pub(crate) const NO_PAGE: u32 = u32::MAX;

/// What a generator is sized by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Takes that play side by side.
    pub slots: usize,
    /// Rows of a take: 2 with guidance.
    pub halves: usize,
    /// Frames of the longest window.
    pub frames: usize,
    /// Positions in front of the first column, which hold what a take is conditioned by.
    pub prefix: usize,
    /// Tokens of the longest text that layers attend to; 0 without.
    pub tokens: usize,
    /// Type that keys and values are kept in.
    pub cache: DType,
}

impl Sizes {
    /// Rows of every launch: the halves that see text first, then the others, in the order of slots.
    pub fn rows(&self) -> usize {
        self.slots * self.halves
    }

    /// Positions of a window at most: what is in front, a column for every frame, those that the last codebook lags, and
    /// the first, which holds only special tokens.
    pub fn positions(&self, config: &MusicgenDecoderConfig) -> usize {
        let lag = config.delays().into_iter().max().unwrap_or(0);
        self.prefix + self.frames + lag + 1
    }

    /// Pages of a row.
    pub fn pages_per_row(&self, config: &MusicgenDecoderConfig) -> usize {
        self.positions(config).div_ceil(PAGE)
    }

    /// Pages of all rows, and one for each half in which a prompt ends while it is copied.
    pub fn pages(&self, config: &MusicgenDecoderConfig) -> usize {
        self.rows() * self.pages_per_row(config) + self.halves
    }

    /// Bytes of device memory that the caches take.
    pub fn cache_bytes(&self, config: &MusicgenDecoderConfig) -> usize {
        let row = config.hidden_size * self.cache.size();
        let own = self.pages(config) * PAGE;
        2 * config.num_hidden_layers * row * (own + self.slots * self.tokens)
    }
}

/// Keys and values of one layer, `[pages, columns of a page, hidden]` each.
pub(crate) struct LayerCache {
    pub keys: Tensor,
    pub values: Tensor,
}

/// The texts that takes are conditioned by: one page for each slot.
pub(crate) struct TextState {
    pub layers: Vec<LayerCache>,
    /// u32 `[rows, 1]`.
    pub pages: Tensor,
    /// u32 `[rows]`.
    pub lengths: Tensor,
}

/// The tensors of a generator.
pub(crate) struct State {
    /// u32 `[rows, codebooks]`: the column that the next step feeds.
    pub ids: Tensor,
    /// u32 `[rows]`: its position.
    pub positions: Tensor,
    /// u32 `[rows, pages of a row]`.
    pub pages: Tensor,
    /// u32 `[slots, SETTINGS]`.
    pub settings: Tensor,
    /// u32 `[slots, LIMITS]`.
    pub limits: Tensor,
    /// u32 `[slots, codebooks, prefix + frames]`: behind a special token for each position in front of a take's columns, its
    /// frames.
    pub codes: Tensor,
    pub layers: Vec<LayerCache>,
    pub text: Option<TextState>,
}

impl State {
    /// Memory for all of it; nothing plays.
    pub fn new(config: &MusicgenDecoderConfig, sizes: &Sizes, backend: &dyn Backend) -> Result<Self> {
        let Sizes { slots, frames, prefix, tokens, cache, .. } = *sizes;
        let (rows, codebooks, d) = (sizes.rows(), config.num_codebooks, config.hidden_size);
        let pages_per_row = sizes.pages_per_row(config);
        let words = |shape: Vec<usize>, value: u32| {
            let desc = TensorDesc::u32(shape);
            let values = vec![value; desc.elements()];
            upload(backend, desc, &values)
        };
        let layers = |pages: usize, columns: usize| -> Result<Vec<LayerCache>> {
            let tensor = || -> Result<Tensor> {
                let desc = TensorDesc::new(cache, [pages, columns, d]);
                Ok(Tensor { span: backend.alloc(Contents::Undefined(desc.bytes()))?.span(), desc })
            };
            (0..config.num_hidden_layers)
                .map(|_| Ok(LayerCache { keys: tensor()?, values: tensor()? }))
                .collect()
        };
        let text = match tokens {
            0 => None,
            _ => Some(TextState {
                layers: layers(slots, tokens)?,
                pages: words(vec![rows, 1], NO_PAGE)?,
                lengths: words(vec![rows], 0)?,
            }),
        };
        let special = u32::try_from(config.special_token()).expect("validate() bounds the vocabulary");
        Ok(Self {
            ids: words(vec![rows, codebooks], special)?,
            positions: words(vec![rows], 0)?,
            pages: words(vec![rows, pages_per_row], NO_PAGE)?,
            settings: words(vec![slots, SETTINGS], 0)?,
            limits: words(vec![slots, LIMITS], 0)?,
            codes: words(vec![slots, codebooks, prefix + frames], 0)?,
            layers: layers(sizes.pages(config), PAGE)?,
            text,
        })
    }
}

/// Overwrites row `row` of a tensor.
pub(crate) fn put_row<T: bytemuck::Pod>(
    backend: &dyn Backend,
    tensor: &Tensor,
    row: usize,
    values: &[T],
) -> Result<()> {
    let bytes = size_of_val(values);
    Ok(backend.upload(&tensor.span.slice(row * bytes, bytes)?, bytemuck::cast_slice(values))?)
}
