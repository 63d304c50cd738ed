//! Attention of one query a row to the keys and values of a paged cache.
//!
//! `y[r, h] = sum_t p[t] v[t, h]`, `p = softmax_t(scale * q[r, h] . k[t, h])`, over the row's keys: the first
//! `min(positions[r] + extra, pages_per_row * page_steps)` positions of its pages, and none from a page on that is not in
//! the cache. A row without keys gives 0. Rows may name the same pages.
//!
//! Where the capacity of a row, `pages_per_row * page_steps`, is longer than a chunk, keys are split: every chunk of a
//! head gives `head_dim + 2` numbers, `sum_t w[t] v[t, h]`, the chunk's largest score m, and `sum_t w[t]`, where
//! `w[t] = e^(score[t] - m)`. A chunk without keys gives zeros with m = `f32::MIN`. [`super::attention_merge`] makes y of
//! them. The split depends on the capacity alone, and so do the bits of a row.
//!
//! Queries, scores, sums and y are f32; keys and values are f32, f16 or bf16.

mod cases;
mod cpu;
mod reference;

use crate::{
    Cost, DType, Field, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, TensorDesc, Wgsl, fields,
    fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Queries.
    pub rows: u32,
    /// Heads, side by side in a row.
    pub heads: u32,
    /// Row length of a head.
    pub head_dim: u32,
    /// Row length of q, of which the first `heads * head_dim` are the query.
    pub q_cols: u32,
    /// Pages of the caches.
    pub pages_held: u32,
    /// Positions of a page.
    pub page_steps: u32,
    /// Pages of a row.
    pub pages_per_row: u32,
    /// Keys of a row beside its position.
    pub extra: u32,
    /// Keys of a chunk.
    pub chunk: u32,
    /// Chunks of a row; with one, y is the result itself.
    pub chunks: u32,
    /// What scores are multiplied by.
    pub scale: f32,
    pad: u32,
}

/// Longest head: what the WGSL has workgroup memory for.
pub const MAX_HEAD_DIM: usize = 128;

/// Invocations of a workgroup, threads of a block: those of one chunk of one head.
const BLOCK: u32 = 128;

const FIELDS: &[Field] = fields![Params; rows, heads, head_dim, q_cols, pages_held, page_steps, pages_per_row, extra, chunk, chunks, scale];

const fn slots(cached: DType) -> [Slot; 6] {
    [
        Slot::read("q", DType::F32),
        Slot::read("k_cache", cached),
        Slot::read("v_cache", cached),
        Slot::read("pages", DType::U32),
        Slot::read("positions", DType::U32),
        Slot::write("y", DType::F32),
    ]
}

/// Chunks of a launch; a plan counted them in u32.
fn units(params: &[u8]) -> u32 {
    let p: Params = bytemuck::pod_read_unaligned(params);
    p.rows * p.heads * p.chunks
}

const fn wgsl(overrides: &'static [(&'static str, f64)]) -> Wgsl {
    Wgsl {
        overrides,
        ..Wgsl::new(include_str!("attention_cache.wgsl"), "attention_cache", [BLOCK, 1, 1], |params| {
            fold_groups(units(params).into())
        })
    }
}

/// A form for head_dim 64: vectors of 16 bytes.
const fn ptx_64(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        takes: |params| bytemuck::pod_read_unaligned::<Params>(params).head_dim == 64,
        ..ptx_any(source, entry)
    }
}

/// A form for every head_dim: value by value.
const fn ptx_any(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        // seven blocks a multiprocessor, on devices of compute capability 8.0 and 9.0
        registers: 72,
        // places of 512 keys, and what four warps found: sums of up to 128 columns, the maximum, the sum of weights
        static_shared: 4 * (512 + 4 * 128 + 8),
        ..Ptx::new(source, entry, [BLOCK, 1, 1], |params, _| [units(params), 1, 1])
    }
}

/// Of f32 keys and values.
pub static F32: KernelInfo = KernelInfo {
    name: "attention_cache_f32",
    slots: &slots(DType::F32),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("cached_type", 0.0)])],
    ptx: &[
        ptx_64(include_str!("attention_cache_f32_hd64.ptx"), "attention_cache_f32_hd64"),
        ptx_any(include_str!("attention_cache_f32_any.ptx"), "attention_cache_f32_any"),
    ],
    reference: reference::f32,
    cpu: Some(cpu::f32),
    cases: || cases::cases(DType::F32),
};

/// Of f16 keys and values.
pub static F16: KernelInfo = KernelInfo {
    name: "attention_cache_f16",
    slots: &slots(DType::F16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("cached_type", 1.0)])],
    ptx: &[
        ptx_64(include_str!("attention_cache_f16_hd64.ptx"), "attention_cache_f16_hd64"),
        ptx_any(include_str!("attention_cache_f16_any.ptx"), "attention_cache_f16_any"),
    ],
    reference: reference::f16,
    cpu: Some(cpu::f16),
    cases: || cases::cases(DType::F16),
};

/// Of bf16 keys and values.
pub static BF16: KernelInfo = KernelInfo {
    name: "attention_cache_bf16",
    slots: &slots(DType::BF16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("cached_type", 2.0)])],
    ptx: &[
        ptx_64(include_str!("attention_cache_bf16_hd64.ptx"), "attention_cache_bf16_hd64"),
        ptx_any(include_str!("attention_cache_bf16_any.ptx"), "attention_cache_bf16_any"),
    ],
    reference: reference::bf16,
    cpu: Some(cpu::bf16),
    cases: || cases::cases(DType::BF16),
};

/// Attention of one query a row to a paged cache.
#[derive(Clone, Copy, Debug)]
pub struct AttentionCache {
    /// Heads, side by side in a row.
    pub heads: usize,
    /// What scores are multiplied by, mostly `1 / sqrt(head_dim)`; finite.
    pub scale: f32,
    /// Keys of a row beside its position: 1 where the key of the position itself is in the cache.
    pub extra: usize,
    /// Keys of a chunk, at least 1. Rows that hold no more are not split.
    pub chunk: usize,
}

impl AttentionCache {
    /// Chunks that a row of `capacity` positions is split into, at least one.
    pub fn chunks(&self, capacity: usize) -> usize {
        capacity.div_ceil(self.chunk.max(1)).max(1)
    }

    /// Plans y from q f32 `[rows, q_cols]`, whose first `width` columns are the query, k_cache and v_cache, both f32, both
    /// f16 or both bf16 `[pages, page_steps, width]`, pages u32 `[rows, pages_per_row]` and positions u32 `[rows]`. `width`
    /// is `heads * head_dim`, head_dim 1 to 128. y is f32 `[rows, width]`, or, with several chunks,
    /// `[rows, heads, chunks, head_dim + 2]`.
    pub fn plan(
        &self,
        q: &TensorDesc,
        k_cache: &TensorDesc,
        v_cache: &TensorDesc,
        pages: &TensorDesc,
        positions: &TensorDesc,
    ) -> Result<Plan, ShapeError> {
        let kernel = match k_cache.dtype {
            DType::F16 => &F16,
            DType::BF16 => &BF16,
            _ => &F32,
        };
        let op = kernel.name;
        let (DType::F32 | DType::F16 | DType::BF16, &[pages_held, page_steps @ (1..), width]) =
            (k_cache.dtype, k_cache.shape.as_slice())
        else {
            let expected = "F32, F16 or BF16 [pages, page_steps, width] with a position or more in a page";
            return Err(ShapeError::tensor(op, "k_cache", k_cache, expected));
        };
        ShapeError::expect(op, "v_cache", v_cache, k_cache, "k_cache")?;
        if self.heads == 0 || width % self.heads != 0 {
            let expected = format!("a divisor of {width} (last axis of k_cache)");
            return Err(ShapeError::value(op, "heads", self.heads, expected));
        }
        let head_dim = width / self.heads;
        if !(1..=MAX_HEAD_DIM).contains(&head_dim) {
            return Err(ShapeError::value(op, "head_dim", head_dim, format!("1 to {MAX_HEAD_DIM}")));
        }
        let (DType::F32, &[rows, q_cols]) = (q.dtype, q.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "q", q, "F32 [rows, q_cols]"));
        };
        if q_cols < width {
            let expected = format!("at least {width} columns (last axis of k_cache)");
            return Err(ShapeError::tensor(op, "q", q, expected));
        }
        let pages_per_row = match (pages.dtype, pages.shape.as_slice()) {
            (DType::U32, &[n, pages_per_row]) if n == rows => pages_per_row,
            _ => {
                let expected = format!("U32 [{rows} (rows of q), pages of a row]");
                return Err(ShapeError::tensor(op, "pages", pages, expected));
            }
        };
        ShapeError::expect(op, "positions", positions, &TensorDesc::u32([rows]), "rows of q")?;
        if !self.scale.is_finite() {
            return Err(ShapeError::value(op, "scale", self.scale, "a finite number"));
        }
        if self.chunk == 0 {
            return Err(ShapeError::value(op, "chunk", self.chunk, "a key or more"));
        }
        let capacity = pages_per_row.saturating_mul(page_steps);
        ShapeError::size(op, "positions of a row", capacity)?;
        let chunks = self.chunks(capacity);
        let y = match chunks {
            1 => TensorDesc::f32([rows, width]),
            _ => TensorDesc::f32([rows, self.heads, chunks, head_dim + 2]),
        };
        ShapeError::size(op, "elements of q", q.elements())?;
        ShapeError::size(op, "elements of k_cache", k_cache.elements())?;
        ShapeError::size(op, "elements of pages", pages.elements())?;
        ShapeError::size(op, "elements of y", y.elements())?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            heads: ShapeError::size(op, "heads", self.heads)?,
            head_dim: ShapeError::size(op, "head_dim", head_dim)?,
            q_cols: ShapeError::size(op, "q_cols", q_cols)?,
            pages_held: ShapeError::size(op, "pages of k_cache", pages_held)?,
            page_steps: ShapeError::size(op, "page_steps", page_steps)?,
            pages_per_row: ShapeError::size(op, "pages_per_row", pages_per_row)?,
            extra: ShapeError::size(op, "extra", self.extra)?,
            chunk: ShapeError::size(op, "chunk", self.chunk.min(capacity.max(1)))?,
            chunks: ShapeError::size(op, "chunks", chunks)?,
            scale: self.scale,
            pad: 0,
        };
        // of rows that are full: what a row holds is known to its positions alone
        let cached = (rows * capacity).min(pages_held * page_steps) * 2 * width * k_cache.dtype.size();
        let item = y.bytes().checked_div(rows).unwrap_or(0);
        Ok(Plan {
            kernel,
            params: bytemuck::bytes_of(&params).to_vec(),
            slots: [q, k_cache, v_cache, pages, positions, &y].map(|desc| Some(desc.clone())).to_vec(),
            // two products of head_dim multiply-adds, and four operations of the softmax
            cost: Cost {
                bytes: (rows * width * 4 + cached + pages.bytes() + positions.bytes() + y.bytes()) as u64,
                flops: (rows * capacity) as u64 * (4 * width as u64 + 4 * self.heads as u64),
            },
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * q_cols, 0, 0, 4 * pages_per_row, 4, item],
            }],
        })
    }
}

impl Op for AttentionCache {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(q), Some(k_cache), Some(v_cache), Some(pages), Some(positions)] = inputs else {
            let expected = "q, k_cache, v_cache, pages, positions";
            return Err(ShapeError::value("attention_cache", "inputs", inputs.len(), expected));
        };
        self.plan(q, k_cache, v_cache, pages, positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let q = TensorDesc::f32([3, 36]);
        let cache = TensorDesc::f32([5, 4, 12]);
        let pages = TensorDesc::u32([3, 2]);
        let positions = TensorDesc::u32([3]);
        let op = AttentionCache { heads: 2, scale: 1.0, extra: 1, chunk: 8 };
        let plan = op.plan(&q, &cache, &cache, &pages, &positions).expect("shapes fit");
        assert_eq!(plan.slots[5], Some(TensorDesc::f32([3, 12])));
        let plan = AttentionCache { chunk: 7, ..op }.plan(&q, &cache, &cache, &pages, &positions);
        assert_eq!(plan.expect("shapes fit").slots[5], Some(TensorDesc::f32([3, 2, 2, 8])));
        let text = |op: AttentionCache, inputs: [&TensorDesc; 5]| {
            let [q, k_cache, v_cache, pages, positions] = inputs;
            op.plan(q, k_cache, v_cache, pages, positions).expect_err("refused").to_string()
        };
        let half = TensorDesc::new(DType::F16, [5, 4, 12]);
        assert_eq!(
            text(op, [&q, &TensorDesc::f32([5, 0, 12]), &cache, &pages, &positions]),
            "attention_cache_f32: `k_cache` has type and shape F32 [5, 0, 12], expected F32, F16 or BF16 [pages, \
             page_steps, width] with a position or more in a page"
        );
        assert_eq!(
            text(op, [&q, &half, &cache, &pages, &positions]),
            "attention_cache_f16: `v_cache` has type and shape F32 [5, 4, 12], expected F16 [5, 4, 12] (k_cache)"
        );
        for heads in [0, 5] {
            assert_eq!(
                text(AttentionCache { heads, ..op }, [&q, &cache, &cache, &pages, &positions]),
                format!(
                    "attention_cache_f32: `heads` has value {heads}, expected a divisor of 12 (last axis of k_cache)"
                )
            );
        }
        let wide = TensorDesc::new(DType::BF16, [5, 4, 129]);
        assert_eq!(
            text(AttentionCache { heads: 1, ..op }, [&q, &wide, &wide, &pages, &positions]),
            "attention_cache_bf16: `head_dim` has value 129, expected 1 to 128"
        );
        assert_eq!(
            text(op, [&half, &cache, &cache, &pages, &positions]),
            "attention_cache_f32: `q` has type and shape F16 [5, 4, 12], expected F32 [rows, q_cols]"
        );
        assert_eq!(
            text(op, [&TensorDesc::f32([3, 11]), &cache, &cache, &pages, &positions]),
            "attention_cache_f32: `q` has type and shape F32 [3, 11], expected at least 12 columns (last axis of k_cache)"
        );
        assert_eq!(
            text(op, [&q, &cache, &cache, &TensorDesc::u32([2, 3]), &positions]),
            "attention_cache_f32: `pages` has type and shape U32 [2, 3], expected U32 [3 (rows of q), pages of a row]"
        );
        assert_eq!(
            text(op, [&q, &cache, &cache, &pages, &TensorDesc::u32([2])]),
            "attention_cache_f32: `positions` has type and shape U32 [2], expected U32 [3] (rows of q)"
        );
        assert_eq!(
            text(AttentionCache { scale: f32::INFINITY, ..op }, [&q, &cache, &cache, &pages, &positions]),
            "attention_cache_f32: `scale` has value inf, expected a finite number"
        );
        assert_eq!(
            text(AttentionCache { chunk: 0, ..op }, [&q, &cache, &cache, &pages, &positions]),
            "attention_cache_f32: `chunk` has value 0, expected a key or more"
        );
        let op: &dyn Op = &op;
        assert_eq!(
            op.plan(&[Some(&q)]).expect_err("refused").to_string(),
            "attention_cache: `inputs` has value 1, expected q, k_cache, v_cache, pages, positions"
        );
    }
}
