//! Rows of keys and values, written into a paged cache in place.
//!
//! For step s of row r, `p = positions[r] + s` and `page = pages[r, p / page_steps]`:
//! `k_cache[page, p % page_steps] = k[r * steps + s, k_first .. k_first + width]`, and v_cache likewise from v and
//! `v_first`, rounded to nearest, ties to even. A position past the row's pages is not written, nor one whose page is not in the
//! cache (`u32::MAX` marks none); everything else in the caches stays as it was.
//!
//! What two rows write to one place is one of the two, value by value: rows that share pages must not write to them.

mod cases;
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
    /// Sequences.
    pub rows: u32,
    /// Positions that each sequence writes.
    pub steps: u32,
    /// Row length of k.
    pub k_cols: u32,
    /// Column of k that keys start at.
    pub k_first: u32,
    /// Row length of v.
    pub v_cols: u32,
    /// Column of v that values start at.
    pub v_first: u32,
    /// Row length of the caches.
    pub width: u32,
    /// Pages of the caches.
    pub pages_held: u32,
    /// Positions of a page.
    pub page_steps: u32,
    /// Pages of a row.
    pub pages_per_row: u32,
    pad: [u32; 2],
}

/// Invocations of a workgroup, threads of a block: those of one position.
const BLOCK: u32 = 128;

const FIELDS: &[Field] = fields![Params; rows, steps, k_cols, k_first, v_cols, v_first, width, pages_held, page_steps, pages_per_row];

const fn slots(cached: DType) -> [Slot; 6] {
    [
        Slot::read("k", DType::F32),
        Slot::read("v", DType::F32),
        Slot::read("positions", DType::U32),
        Slot::read("pages", DType::U32),
        Slot::update("k_cache", cached),
        Slot::update("v_cache", cached),
    ]
}

/// Positions of a launch. At least one, since there may be caches and nothing to write to them.
fn positions(params: &[u8]) -> u32 {
    let p: Params = bytemuck::pod_read_unaligned(params);
    (p.rows * p.steps).max(1)
}

const fn wgsl(overrides: &'static [(&'static str, f64)]) -> Wgsl {
    Wgsl {
        overrides,
        ..Wgsl::new(include_str!("cache_write.wgsl"), "cache_write", [BLOCK, 1, 1], |params| {
            fold_groups(positions(params).into())
        })
    }
}

const fn ptx(source: &'static str, entry: &'static str) -> Ptx {
    Ptx { registers: 40, ..Ptx::new(source, entry, [BLOCK, 1, 1], |params, _| [positions(params), 1, 1]) }
}

/// Into f32.
pub static F32: KernelInfo = KernelInfo {
    name: "cache_write_f32",
    slots: &slots(DType::F32),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("cached_type", 0.0)])],
    ptx: &[ptx(include_str!("cache_write_f32.ptx"), "cache_write_f32")],
    reference: reference::f32,
    cpu: None,
    cases: || cases::cases(DType::F32),
};

/// Rounds to binary16.
pub static F16: KernelInfo = KernelInfo {
    name: "cache_write_f16",
    slots: &slots(DType::F16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("cached_type", 1.0)])],
    ptx: &[ptx(include_str!("cache_write_f16.ptx"), "cache_write_f16")],
    reference: reference::f16,
    cpu: None,
    cases: || cases::cases(DType::F16),
};

/// Rounds to bfloat16.
pub static BF16: KernelInfo = KernelInfo {
    name: "cache_write_bf16",
    slots: &slots(DType::BF16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("cached_type", 2.0)])],
    ptx: &[ptx(include_str!("cache_write_bf16.ptx"), "cache_write_bf16")],
    reference: reference::bf16,
    cpu: None,
    cases: || cases::cases(DType::BF16),
};

/// Rows of keys and values, written into a paged cache in place.
#[derive(Clone, Copy, Debug)]
pub struct CacheWrite {
    /// Positions that each sequence writes, one after another.
    pub steps: usize,
    /// Column of k that keys start at.
    pub k_first: usize,
    /// Column of v that values start at.
    pub v_first: usize,
}

impl CacheWrite {
    /// Plans the update of k_cache and v_cache, both f32, both f16 or both bf16 `[pages, page_steps, width]`, in memory of
    /// their own each, from k f32 `[rows * steps, k_cols]`, v f32 `[rows * steps, v_cols]`, which may be one tensor, positions u32
    /// `[rows]` and pages u32 `[rows, pages_per_row]`.
    ///
    /// Positions and pages are not known here: what does not lie in the caches is not written.
    pub fn plan(
        &self,
        k: &TensorDesc,
        v: &TensorDesc,
        positions: &TensorDesc,
        pages: &TensorDesc,
        k_cache: &TensorDesc,
        v_cache: &TensorDesc,
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
        let (DType::U32, &[rows]) = (positions.dtype, positions.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "positions", positions, "U32 [rows]"));
        };
        let pages_per_row = match (pages.dtype, pages.shape.as_slice()) {
            (DType::U32, &[n, pages_per_row]) if n == rows => pages_per_row,
            _ => {
                let expected = format!("U32 [{rows} (rows of positions), pages of a row]");
                return Err(ShapeError::tensor(op, "pages", pages, expected));
            }
        };
        let cols = |name: &'static str, x: &TensorDesc, first_name: &'static str, first: usize| {
            let (DType::F32, &[n, cols]) = (x.dtype, x.shape.as_slice()) else {
                return Err(ShapeError::tensor(op, name, x, "F32 [rows * steps, cols]"));
            };
            if Some(n) != rows.checked_mul(self.steps) {
                let expected = format!("F32 [{rows} (rows of positions) * {} (steps), cols]", self.steps);
                return Err(ShapeError::tensor(op, name, x, expected));
            }
            if first.checked_add(width).is_none_or(|end| end > cols) {
                let expected =
                    format!("at most {cols} (columns of {name}) less {width} (last axis of k_cache)");
                return Err(ShapeError::value(op, first_name, first, expected));
            }
            ShapeError::size(op, "elements of k and v", x.elements())?;
            Ok(cols)
        };
        let k_cols = cols("k", k, "k_first", self.k_first)?;
        let v_cols = cols("v", v, "v_first", self.v_first)?;
        ShapeError::size(op, "elements of k_cache", k_cache.elements())?;
        ShapeError::size(op, "elements of pages", pages.elements())?;
        ShapeError::size(op, "positions of a row", pages_per_row.saturating_mul(page_steps))?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            steps: ShapeError::size(op, "steps", self.steps)?,
            k_cols: ShapeError::size(op, "k_cols", k_cols)?,
            k_first: ShapeError::size(op, "k_first", self.k_first)?,
            v_cols: ShapeError::size(op, "v_cols", v_cols)?,
            v_first: ShapeError::size(op, "v_first", self.v_first)?,
            width: ShapeError::size(op, "width", width)?,
            pages_held: ShapeError::size(op, "pages of k_cache", pages_held)?,
            page_steps: ShapeError::size(op, "page_steps", page_steps)?,
            pages_per_row: ShapeError::size(op, "pages_per_row", pages_per_row)?,
            pad: [0; 2],
        };
        ShapeError::size(op, "rows of k", rows * self.steps)?;
        // keys and values of every position are read as f32 and written as they are kept; a row looks up its pages
        let moved = 2 * rows * self.steps * width * (4 + k_cache.dtype.size());
        let looked_up = rows * self.steps.div_ceil(page_steps).min(pages_per_row) * 4;
        Ok(Plan {
            kernel,
            params: bytemuck::bytes_of(&params).to_vec(),
            slots: [k, v, positions, pages, k_cache, v_cache].map(|desc| Some(desc.clone())).to_vec(),
            cost: Cost { bytes: (moved + positions.bytes() + looked_up) as u64, flops: 0 },
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![
                    4 * self.steps * k_cols,
                    4 * self.steps * v_cols,
                    4,
                    4 * pages_per_row,
                    0,
                    0,
                ],
            }],
        })
    }
}

impl Op for CacheWrite {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(k), Some(v), Some(positions), Some(pages), Some(k_cache), Some(v_cache)] = inputs else {
            let expected = "k, v, positions, pages, k_cache, v_cache";
            return Err(ShapeError::value("cache_write", "inputs", inputs.len(), expected));
        };
        self.plan(k, v, positions, pages, k_cache, v_cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let x = TensorDesc::f32([6, 12]);
        let positions = TensorDesc::u32([3]);
        let pages = TensorDesc::u32([3, 2]);
        let cache = TensorDesc::f32([5, 4, 4]);
        let op = CacheWrite { steps: 2, k_first: 4, v_first: 8 };
        op.plan(&x, &x, &positions, &pages, &cache, &cache).expect("shapes fit");
        let text = |op: CacheWrite, inputs: [&TensorDesc; 5]| {
            let [x, positions, pages, k_cache, v_cache] = inputs;
            op.plan(x, x, positions, pages, k_cache, v_cache).expect_err("refused").to_string()
        };
        let half = TensorDesc::new(DType::F16, [5, 4, 4]);
        assert_eq!(
            text(op, [&x, &positions, &pages, &TensorDesc::u32([5, 4, 4]), &cache]),
            "cache_write_f32: `k_cache` has type and shape U32 [5, 4, 4], expected F32, F16 or BF16 [pages, page_steps, \
             width] with a position or more in a page"
        );
        assert_eq!(
            text(op, [&x, &positions, &pages, &TensorDesc::f32([5, 0, 4]), &cache]),
            "cache_write_f32: `k_cache` has type and shape F32 [5, 0, 4], expected F32, F16 or BF16 [pages, page_steps, \
             width] with a position or more in a page"
        );
        assert_eq!(
            text(op, [&x, &positions, &pages, &half, &cache]),
            "cache_write_f16: `v_cache` has type and shape F32 [5, 4, 4], expected F16 [5, 4, 4] (k_cache)"
        );
        assert_eq!(
            text(op, [&x, &TensorDesc::f32([3]), &pages, &cache, &cache]),
            "cache_write_f32: `positions` has type and shape F32 [3], expected U32 [rows]"
        );
        assert_eq!(
            text(op, [&x, &positions, &TensorDesc::u32([2, 3]), &cache, &cache]),
            "cache_write_f32: `pages` has type and shape U32 [2, 3], expected U32 [3 (rows of positions), pages of a row]"
        );
        assert_eq!(
            text(CacheWrite { steps: 3, ..op }, [&x, &positions, &pages, &cache, &cache]),
            "cache_write_f32: `k` has type and shape F32 [6, 12], expected F32 [3 (rows of positions) * 3 (steps), cols]"
        );
        assert_eq!(
            text(CacheWrite { k_first: 9, ..op }, [&x, &positions, &pages, &cache, &cache]),
            "cache_write_f32: `k_first` has value 9, expected at most 12 (columns of k) less 4 (last axis of k_cache)"
        );
        assert_eq!(
            text(CacheWrite { v_first: usize::MAX, ..op }, [&x, &positions, &pages, &cache, &cache]),
            "cache_write_f32: `v_first` has value 18446744073709551615, expected at most 12 (columns of v) less 4 (last \
             axis of k_cache)"
        );
        let vast = TensorDesc::f32([65_536, 16_384, 4]);
        assert_eq!(
            text(op, [&x, &positions, &pages, &vast, &vast]),
            "cache_write_f32: `elements of k_cache` has value 4294967296, expected at most 4294967295"
        );
        let op: &dyn Op = &op;
        assert_eq!(
            op.plan(&[Some(&x), None]).expect_err("refused").to_string(),
            "cache_write: `inputs` has value 2, expected k, v, positions, pages, k_cache, v_cache"
        );
    }
}
