//! Rows of a tensor, selected and rounded to the type they are kept in.
//!
//! `y[i, c] = round(x[rows_index[i], c])`, to nearest, ties to even, subnormals kept, overflow to infinity, NaN stays
//! NaN. Without an index all rows are kept in order. An index past the last row reads the last row.
//!
//! Two-byte results with an odd number of values: buffers end on a multiple of 4 bytes, and WGSL writes 0 to the spare
//! half of the last word.

mod cases;
mod reference;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, PtxDevice, ShapeError, Slot, Split, TensorDesc, Wgsl, fields,
    fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows of x.
    pub rows: u32,
    /// Row length.
    pub cols: u32,
    /// Rows of y.
    pub kept: u32,
    /// 1 with an index, 0 where row i of y is row i of x.
    pub has_index: u32,
}

/// Invocations of a workgroup, threads of a block.
const BLOCK: u32 = 256;

/// Values of a block in PTX: four vectors of four for each of its threads.
const PTX_VALUES: u32 = 4096;

const fn wgsl(overrides: &'static [(&'static str, f64)], grid: fn(&[u8]) -> [u32; 3]) -> Wgsl {
    Wgsl { overrides, ..Wgsl::new(include_str!("capture.wgsl"), "capture", [BLOCK, 1, 1], grid) }
}

const fn ptx(source: &'static str, entry: &'static str) -> Ptx {
    let grid = |params: &[u8], _: &PtxDevice| {
        let p: Params = bytemuck::pod_read_unaligned(params);
        [(p.kept * p.cols).div_ceil(PTX_VALUES), 1, 1]
    };
    Ptx { registers: 32, ..Ptx::new(source, entry, [BLOCK, 1, 1], grid) }
}

fn grid(params: &[u8], values_per_word: u64) -> [u32; 3] {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let words = (u64::from(p.kept) * u64::from(p.cols)).div_ceil(values_per_word);
    fold_groups(words.div_ceil(BLOCK.into()))
}

/// Keeps f32 as it is.
pub static F32: KernelInfo = KernelInfo {
    name: "capture_f32",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::maybe("rows_index", DType::U32),
        Slot::write("y", DType::F32),
    ],
    fields: fields![Params; rows, cols, kept, has_index],
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("kept_type", 0.0)], |params| grid(params, 1))],
    ptx: &[ptx(include_str!("capture_f32.ptx"), "capture_f32")],
    reference: reference::f32,
    cpu: None,
    cases: || cases::cases(DType::F32),
};

/// Rounds to binary16.
pub static F16: KernelInfo = KernelInfo {
    name: "capture_f16",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::maybe("rows_index", DType::U32),
        Slot::write("y", DType::F16),
    ],
    fields: fields![Params; rows, cols, kept, has_index],
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("kept_type", 1.0)], |params| grid(params, 2))],
    ptx: &[ptx(include_str!("capture_f16.ptx"), "capture_f16")],
    reference: reference::f16,
    cpu: None,
    cases: || cases::cases(DType::F16),
};

/// Rounds to bfloat16.
pub static BF16: KernelInfo = KernelInfo {
    name: "capture_bf16",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::maybe("rows_index", DType::U32),
        Slot::write("y", DType::BF16),
    ],
    fields: fields![Params; rows, cols, kept, has_index],
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("kept_type", 2.0)], |params| grid(params, 2))],
    ptx: &[ptx(include_str!("capture_bf16.ptx"), "capture_bf16")],
    reference: reference::bf16,
    cpu: None,
    cases: || cases::cases(DType::BF16),
};

/// Rows of a tensor, selected and rounded.
#[derive(Clone, Copy, Debug)]
pub struct Capture {
    /// The type that rows are kept in: f32, f16 or bf16.
    pub dtype: DType,
}

impl Capture {
    /// Plans y `[kept, cols]` from x f32 `[rows, cols]` and rows_index u32 `[kept]`; without an index, `kept` is
    /// `rows`.
    ///
    /// Whether indices are below `rows` is not known here: whoever uploads them checks them.
    pub fn plan(&self, x: &TensorDesc, rows_index: Option<&TensorDesc>) -> Result<Plan, ShapeError> {
        let kernel = match self.dtype {
            DType::F32 => &F32,
            DType::F16 => &F16,
            DType::BF16 => &BF16,
            other => return Err(ShapeError::value("capture", "dtype", other, "F32, F16 or BF16")),
        };
        let op = kernel.name;
        let (DType::F32, &[rows, cols]) = (x.dtype, x.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "x", x, "F32 [rows, cols]"));
        };
        let kept = match rows_index {
            None => rows,
            Some(index) => {
                let (DType::U32, &[kept]) = (index.dtype, index.shape.as_slice()) else {
                    return Err(ShapeError::tensor(op, "rows_index", index, "U32 [kept]"));
                };
                if rows == 0 && kept > 0 {
                    return Err(ShapeError::tensor(op, "rows_index", index, "U32 [0] (x has no rows)"));
                }
                kept
            }
        };
        let y = TensorDesc::new(self.dtype, [kept, cols]);
        ShapeError::size(op, "elements of x", x.elements())?;
        ShapeError::size(op, "elements of y", y.elements())?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            cols: ShapeError::size(op, "cols", cols)?,
            kept: ShapeError::size(op, "kept", kept)?,
            has_index: u32::from(rows_index.is_some()),
        };
        let x_item = if rows_index.is_some() { 0 } else { 4 * cols };
        Ok(Plan {
            kernel,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (kept.min(rows) * cols * 4 + rows_index.map_or(0, TensorDesc::bytes) + y.bytes())
                    as u64,
                flops: 0,
            },
            splits: vec![Split {
                items: kept,
                count_at: std::mem::offset_of!(Params, kept),
                first_at: None,
                item_bytes: vec![x_item, 4, cols * self.dtype.size()],
            }],
            slots: vec![Some(x.clone()), rows_index.cloned(), Some(y)],
        })
    }
}

impl Op for Capture {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), rows_index] = inputs else {
            return Err(ShapeError::value("capture", "inputs", inputs.len(), "x, rows_index?"));
        };
        self.plan(x, rows_index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let x = TensorDesc::f32([3, 5]);
        let text = |dtype, x: &TensorDesc, index: Option<&TensorDesc>| {
            Capture { dtype }.plan(x, index).expect_err("refused").to_string()
        };
        assert_eq!(text(DType::U8, &x, None), "capture: `dtype` has value U8, expected F32, F16 or BF16");
        assert_eq!(
            text(DType::F16, &TensorDesc::f32([3]), None),
            "capture_f16: `x` has type and shape F32 [3], expected F32 [rows, cols]"
        );
        assert_eq!(
            text(DType::BF16, &x, Some(&TensorDesc::f32([2]))),
            "capture_bf16: `rows_index` has type and shape F32 [2], expected U32 [kept]"
        );
        assert_eq!(
            text(DType::F32, &TensorDesc::f32([0, 5]), Some(&TensorDesc::u32([2]))),
            "capture_f32: `rows_index` has type and shape U32 [2], expected U32 [0] (x has no rows)"
        );
        let op: &dyn Op = &Capture { dtype: DType::F16 };
        assert_eq!(
            op.plan(&[Some(&x)]).expect_err("refused").to_string(),
            "capture: `inputs` has value 1, expected x, rows_index?"
        );
    }
}
