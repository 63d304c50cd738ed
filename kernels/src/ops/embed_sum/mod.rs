//! Embeddings of several codebooks, summed in f32, of tables in f32, f16 or bf16.
//!
//! `y[r] = ((base[r] + e_0) + e_1) + ... + positions[r % steps]`, `e_q = table[q * entries + ids[r, first + q]]`; without
//! a base the sum starts at `e_0` itself. A table may hold some of the codebooks only, so that tables longer than a
//! device binds go one after another, each with the sum so far as its base. With `at`, row r takes `positions[at[r]]`, past the
//! last position the last. The order of additions is part of the definition: every executor returns the
//! same bits. An id past the last entry reads the last entry.

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
    /// Rows of ids and y.
    pub rows: u32,
    /// Row of the whole launch that the first of these rows is.
    pub first_row: u32,
    /// Codebooks of the table.
    pub codebooks: u32,
    /// Column of ids that belongs to the table's first codebook.
    pub first_codebook: u32,
    /// Ids of a row.
    pub ids_cols: u32,
    /// Rows of the table that a codebook has.
    pub entries: u32,
    /// Row length.
    pub cols: u32,
    /// Rows of a sequence, after which positions start again.
    pub steps: u32,
    /// 1 with a base, else 0.
    pub has_base: u32,
    /// 1 with positions, else 0.
    pub has_positions: u32,
    /// 1 where every row names its position, else 0.
    pub has_at: u32,
    /// Rows of positions.
    pub places: u32,
}

/// Invocations of a workgroup, threads of a block.
const BLOCK: u32 = 256;

/// Rows of a thread in PTX.
const PTX_ROWS: u32 = 4;

/// Columns of a warp in the wide PTX form, its warps of a block, and what a grid's second axis holds.
const WIDE_COLS: u32 = 256;
const WIDE_WARPS: u32 = BLOCK / 32;
const WIDE_GROUPS: u32 = 65_535;

const FIELDS: &[Field] = fields![Params; rows, first_row, codebooks, first_codebook, ids_cols, entries, cols, steps, has_base, has_positions, has_at, places];

const fn slots(table: DType) -> [Slot; 6] {
    [
        Slot::read("ids", DType::U32),
        Slot::read("table", table),
        Slot::maybe("base", DType::F32),
        Slot::maybe("positions", DType::F32),
        Slot::maybe("at", DType::U32),
        Slot::write("y", DType::F32),
    ]
}

const fn wgsl(overrides: &'static [(&'static str, f64)]) -> Wgsl {
    let grid = |params: &[u8]| {
        let p: Params = bytemuck::pod_read_unaligned(params);
        fold_groups((u64::from(p.rows) * u64::from(p.cols)).div_ceil(BLOCK.into()))
    };
    Wgsl { overrides, ..Wgsl::new(include_str!("embed_sum.wgsl"), "embed_sum", [BLOCK, 1, 1], grid) }
}

/// A warp for up to as many rows as one load fetches the ids of.
const fn wide(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        takes: |params| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            matches!(p.codebooks, 4 | 8)
                && p.cols.is_multiple_of(WIDE_COLS)
                && p.cols / WIDE_COLS <= WIDE_GROUPS
        },
        registers: 64,
        ..Ptx::new(source, entry, [BLOCK, 1, 1], |params, _| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            [row_units(&p, 32 / p.codebooks).div_ceil(WIDE_WARPS), p.cols / WIDE_COLS, 1]
        })
    }
}

/// Value by value, of tables in two bytes.
const fn any(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        registers: 48,
        ..Ptx::new(source, entry, [BLOCK, 1, 1], |params, _| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            [(row_units(&p, PTX_ROWS) * p.cols).div_ceil(BLOCK), 1, 1]
        })
    }
}

/// With an f32 table.
pub static F32: KernelInfo = KernelInfo {
    name: "embed_sum_f32",
    slots: &slots(DType::F32),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("table_type", 0.0)])],
    ptx: &[
        wide(include_str!("embed_sum_f32_wide.ptx"), "embed_sum_f32_wide"),
        Ptx {
            registers: 72,
            ..Ptx::new(include_str!("embed_sum_f32.ptx"), "embed_sum_f32", [BLOCK, 1, 1], |params, _| {
                let p: Params = bytemuck::pod_read_unaligned(params);
                let width = if p.cols.is_multiple_of(4) { p.cols / 4 } else { p.cols };
                [(row_units(&p, PTX_ROWS) * width).div_ceil(BLOCK), 1, 1]
            })
        },
    ],
    reference: reference::f32,
    cpu: None,
    cases: || cases::cases(DType::F32),
};

/// With an f16 table.
pub static F16: KernelInfo = KernelInfo {
    name: "embed_sum_f16",
    slots: &slots(DType::F16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("table_type", 1.0)])],
    ptx: &[
        wide(include_str!("embed_sum_f16_wide.ptx"), "embed_sum_f16_wide"),
        any(include_str!("embed_sum_f16.ptx"), "embed_sum_f16"),
    ],
    reference: reference::f16,
    cpu: None,
    cases: || cases::cases(DType::F16),
};

/// With a bf16 table.
pub static BF16: KernelInfo = KernelInfo {
    name: "embed_sum_bf16",
    slots: &slots(DType::BF16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("table_type", 2.0)])],
    ptx: &[
        wide(include_str!("embed_sum_bf16_wide.ptx"), "embed_sum_bf16_wide"),
        any(include_str!("embed_sum_bf16.ptx"), "embed_sum_bf16"),
    ],
    reference: reference::bf16,
    cpu: None,
    cases: || cases::cases(DType::BF16),
};

/// Groups that a PTX form makes of the rows: up to `rows` each that share a position; one where every row names its own.
///
/// With one for each vector of 4 columns, or column where rows do not end on a vector, at most as many as y has elements,
/// which a plan counted in u32.
fn row_units(p: &Params, rows: u32) -> u32 {
    let rows = if p.has_at == 1 { 1 } else { rows };
    p.rows.div_ceil(p.steps).div_ceil(rows) * p.steps.min(p.rows)
}

/// Embeddings of several codebooks, summed.
#[derive(Clone, Copy, Debug)]
pub struct EmbedSum {
    /// Rows of a sequence: row r has position `r % steps`.
    pub steps: usize,
    /// Rows that a codebook has in the table; at least 1.
    pub entries: usize,
    /// Which codebook the table begins with; 0 for a table of all.
    pub first_codebook: usize,
}

impl EmbedSum {
    /// Plans y f32 `[rows, cols]` from ids u32 `[rows, ids_cols]`, table f32, f16 or bf16 `[codebooks * entries, cols]` with
    /// `first_codebook + codebooks <= ids_cols`, base f32 `[rows, cols]`, positions f32 `[places, cols]`, of which there are
    /// at least `steps`, and at u32 `[rows]`, with which one position is enough.
    ///
    /// Whether ids are below `entries` is not known here: whoever uploads ids checks them.
    pub fn plan(
        &self,
        ids: &TensorDesc,
        table: &TensorDesc,
        base: Option<&TensorDesc>,
        positions: Option<&TensorDesc>,
        at: Option<&TensorDesc>,
    ) -> Result<Plan, ShapeError> {
        let kernel = match table.dtype {
            DType::F16 => &F16,
            DType::BF16 => &BF16,
            _ => &F32,
        };
        let op = kernel.name;
        let (DType::U32, &[rows, ids_cols @ (1..)]) = (ids.dtype, ids.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "ids", ids, "U32 [rows, ids_cols] with a codebook or more"));
        };
        let (DType::F32 | DType::F16 | DType::BF16, &[table_rows @ (1..), cols]) =
            (table.dtype, table.shape.as_slice())
        else {
            return Err(ShapeError::tensor(
                op,
                "table",
                table,
                "F32, F16 or BF16 [codebooks * entries, cols] with an entry or more",
            ));
        };
        if self.entries == 0 || table_rows % self.entries != 0 {
            let expected = format!("a multiple of {} rows (entries)", self.entries);
            return Err(ShapeError::tensor(op, "table", table, expected));
        }
        let codebooks = table_rows / self.entries;
        if self.first_codebook.checked_add(codebooks).is_none_or(|end| end > ids_cols) {
            let expected = format!(
                "at most {ids_cols} codebooks (columns of ids) less {} (first_codebook)",
                self.first_codebook
            );
            return Err(ShapeError::tensor(op, "table", table, expected));
        }
        let y = TensorDesc::f32([rows, cols]);
        if let Some(base) = base {
            ShapeError::expect(op, "base", base, &y, "rows of ids, last axis of table")?;
        }
        if self.steps == 0 || rows % self.steps != 0 {
            return Err(ShapeError::value(
                op,
                "steps",
                self.steps,
                format!("a divisor of {rows} (rows of ids)"),
            ));
        }
        if let Some(positions) = positions {
            let (least, why) = if at.is_some() { (1, "any row's") } else { (self.steps, "steps") };
            let fits = |shape: &[usize]| matches!(shape, &[n, c] if n >= least && c == cols);
            if positions.dtype != DType::F32 || !fits(&positions.shape) {
                let expected = format!("F32 [at least {least} ({why}), {cols} (last axis of table)]");
                return Err(ShapeError::tensor(op, "positions", positions, expected));
            }
        }
        if let Some(at) = at {
            if positions.is_none() {
                return Err(ShapeError::tensor(op, "at", at, "positions that it chooses from"));
            }
            ShapeError::expect(op, "at", at, &TensorDesc::u32([rows]), "rows of ids")?;
        }
        let places = positions.map_or(0, |positions| positions.shape[0]);
        ShapeError::size(op, "elements of y", y.elements())?;
        ShapeError::size(op, "elements of table", table.elements())?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            first_row: 0,
            codebooks: ShapeError::size(op, "codebooks", codebooks)?,
            first_codebook: ShapeError::size(op, "first_codebook", self.first_codebook)?,
            ids_cols: ShapeError::size(op, "ids_cols", ids_cols)?,
            entries: ShapeError::size(op, "entries", self.entries)?,
            cols: ShapeError::size(op, "cols", cols)?,
            steps: ShapeError::size(op, "steps", self.steps)?,
            has_base: u32::from(base.is_some()),
            has_positions: u32::from(positions.is_some()),
            has_at: u32::from(at.is_some()),
            places: ShapeError::size(op, "places", places)?,
        };
        // rows of the table that are read, at most: one for every id
        let touched = (rows * codebooks).min(table_rows) * cols * table.dtype.size();
        let base_bytes = base.map_or(0, TensorDesc::bytes);
        let visited = if at.is_some() { rows.min(places) } else { self.steps.min(rows) };
        let positions_bytes = positions.map_or(0, |_| visited * cols * 4) + at.map_or(0, TensorDesc::bytes);
        let terms = codebooks - 1 + usize::from(base.is_some()) + usize::from(positions.is_some());
        Ok(Plan {
            kernel,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (ids.bytes() + touched + base_bytes + positions_bytes + y.bytes()) as u64,
                flops: (terms * y.elements()) as u64,
            },
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: Some(std::mem::offset_of!(Params, first_row)),
                item_bytes: vec![4 * ids_cols, 0, 4 * cols, 0, at.map_or(0, |_| 4), 4 * cols],
            }],
            slots: vec![
                Some(ids.clone()),
                Some(table.clone()),
                base.cloned(),
                positions.cloned(),
                at.cloned(),
                Some(y),
            ],
        })
    }
}

impl Op for EmbedSum {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(ids), Some(table), base, positions, at] = inputs else {
            return Err(ShapeError::value(
                "embed_sum",
                "inputs",
                inputs.len(),
                "ids, table, base?, positions?, at?",
            ));
        };
        self.plan(ids, table, base, positions, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let ids = TensorDesc::u32([6, 4]);
        let table = TensorDesc::f32([8, 5]);
        let wrong = TensorDesc::f32([2, 5]);
        let text = |steps, ids: &TensorDesc, table: &TensorDesc, base: Option<&TensorDesc>, positions| {
            EmbedSum { steps, entries: 2, first_codebook: 0 }
                .plan(ids, table, base, positions, None)
                .expect_err("refused")
                .to_string()
        };
        assert_eq!(
            text(3, &TensorDesc::u32([6, 0]), &table, None, None),
            "embed_sum_f32: `ids` has type and shape U32 [6, 0], expected U32 [rows, ids_cols] with a codebook or more"
        );
        assert_eq!(
            text(3, &ids, &TensorDesc::f32([0, 5]), None, None),
            "embed_sum_f32: `table` has type and shape F32 [0, 5], expected F32, F16 or BF16 [codebooks * entries, cols] \
             with an entry or more"
        );
        assert_eq!(
            text(3, &ids, &TensorDesc::new(DType::BF16, [7, 5]), None, None),
            "embed_sum_bf16: `table` has type and shape BF16 [7, 5], expected a multiple of 2 rows (entries)"
        );
        assert_eq!(
            text(3, &ids, &TensorDesc::u32([8, 5]), None, None),
            "embed_sum_f32: `table` has type and shape U32 [8, 5], expected F32, F16 or BF16 [codebooks * entries, cols] \
             with an entry or more"
        );
        assert_eq!(
            text(3, &ids, &TensorDesc::f32([7, 5]), None, None),
            "embed_sum_f32: `table` has type and shape F32 [7, 5], expected a multiple of 2 rows (entries)"
        );
        assert_eq!(
            text(3, &ids, &TensorDesc::f32([10, 5]), None, None),
            "embed_sum_f32: `table` has type and shape F32 [10, 5], expected at most 4 codebooks (columns of ids) less 0 \
             (first_codebook)"
        );
        assert_eq!(
            text(3, &ids, &table, Some(&wrong), None),
            "embed_sum_f32: `base` has type and shape F32 [2, 5], expected F32 [6, 5] (rows of ids, last axis of table)"
        );
        for steps in [0, 4] {
            assert_eq!(
                text(steps, &ids, &table, None, None),
                format!("embed_sum_f32: `steps` has value {steps}, expected a divisor of 6 (rows of ids)")
            );
        }
        assert_eq!(
            text(3, &ids, &table, None, Some(&wrong)),
            "embed_sum_f32: `positions` has type and shape F32 [2, 5], expected F32 [at least 3 (steps), 5 (last axis \
             of table)]"
        );
        let chosen = |positions: Option<&TensorDesc>, at: &TensorDesc| {
            EmbedSum { steps: 3, entries: 2, first_codebook: 0 }
                .plan(&ids, &table, None, positions, Some(at))
                .expect_err("refused")
                .to_string()
        };
        let one = TensorDesc::f32([1, 5]);
        assert_eq!(
            chosen(None, &TensorDesc::u32([6])),
            "embed_sum_f32: `at` has type and shape U32 [6], expected positions that it chooses from"
        );
        assert_eq!(
            chosen(Some(&one), &TensorDesc::u32([3])),
            "embed_sum_f32: `at` has type and shape U32 [3], expected U32 [6] (rows of ids)"
        );
        assert_eq!(
            chosen(Some(&TensorDesc::f32([0, 5])), &TensorDesc::u32([6])),
            "embed_sum_f32: `positions` has type and shape F32 [0, 5], expected F32 [at least 1 (any row's), 5 (last axis \
             of table)]"
        );
        let op: &dyn Op = &EmbedSum { steps: 3, entries: 2, first_codebook: 0 };
        assert_eq!(
            op.plan(&[Some(&ids)]).expect_err("refused").to_string(),
            "embed_sum: `inputs` has value 1, expected ids, table, base?, positions?, at?"
        );
    }
}
