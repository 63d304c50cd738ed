//! Addition of a scaled tensor or of a scaled row.
//!
//! `y[r, c] = x[r, c] + alpha * v[r, c]`, or `alpha * v[c]` where v is one row. With alpha exactly 0, y is x bit for
//! bit, whatever v holds.

mod cases;
mod reference;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows of x and y; where v has the shape of x, every value is a row of its own.
    pub rows: u32,
    /// Row length.
    pub cols: u32,
    /// 1 where v has a row for every row of x, 0 where it is one row.
    pub v_rows: u32,
    /// What v is multiplied by.
    pub alpha: f32,
}

/// Invocations of a workgroup.
const BLOCK: u32 = 256;

/// Values of a block in PTX: four vectors of four for each of 256 threads.
const PTX_VALUES: u32 = 4096;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "add_f32",
    slots: &[Slot::read("x", DType::F32), Slot::read("v", DType::F32), Slot::write("y", DType::F32)],
    fields: fields![Params; rows, cols, v_rows, alpha],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("add.wgsl"), "add_f32", [BLOCK, 1, 1], |params| {
        let p: Params = bytemuck::pod_read_unaligned(params);
        fold_groups((u64::from(p.rows) * u64::from(p.cols)).div_ceil(BLOCK.into()))
    })],
    ptx: &[Ptx {
        registers: 40,
        ..Ptx::new(include_str!("add_f32.ptx"), "add_f32", [256, 1, 1], |params, _| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            [(p.rows * p.cols).div_ceil(PTX_VALUES), 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// Addition of a scaled tensor or of a scaled row.
#[derive(Clone, Copy, Debug)]
pub struct Add {
    /// What v is multiplied by; finite.
    pub alpha: f32,
}

impl Add {
    /// Plans `y = x + alpha * v`: x f32 of any shape, v f32 like x or `[cols]` of its last axis, y like x.
    pub fn plan(&self, x: &TensorDesc, v: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        if x.dtype != DType::F32 {
            return Err(ShapeError::tensor(op, "x", x, "F32 of any shape"));
        }
        if !self.alpha.is_finite() {
            return Err(ShapeError::value(op, "alpha", self.alpha, "a finite number"));
        }
        let last = x.shape.last().copied().unwrap_or(1);
        let row = TensorDesc::f32([last]);
        let per_row = v == x;
        if !per_row && *v != row {
            return Err(ShapeError::tensor(op, "v", v, format!("{x} (x) or {row} (last axis of x)")));
        }
        let elements = x.elements();
        ShapeError::size(op, "elements", elements)?;
        // With every value a row of its own, a tensor of any shape can be cut anywhere.
        let (rows, cols) = if per_row { (elements, 1) } else { (elements / last.max(1), last) };
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            cols: ShapeError::size(op, "cols", cols)?,
            v_rows: u32::from(per_row),
            alpha: self.alpha,
        };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            slots: vec![Some(x.clone()), Some(v.clone()), Some(x.clone())],
            cost: Cost { bytes: (2 * x.bytes() + v.bytes()) as u64, flops: 2 * elements as u64 },
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * cols, if per_row { 4 * cols } else { 0 }, 4 * cols],
            }],
        })
    }
}

impl Op for Add {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(x), Some(v)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "x, v"));
        };
        self.plan(x, v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |alpha, x: &TensorDesc, v: &TensorDesc| {
            Add { alpha }.plan(x, v).expect_err("refused").to_string()
        };
        let x = TensorDesc::f32([3, 5]);
        assert_eq!(
            text(1.0, &TensorDesc::u32([3]), &x),
            "add_f32: `x` has type and shape U32 [3], expected F32 of any shape"
        );
        assert_eq!(
            text(1.0, &x, &TensorDesc::f32([3])),
            "add_f32: `v` has type and shape F32 [3], expected F32 [3, 5] (x) or F32 [5] (last axis of x)"
        );
        assert_eq!(text(f32::NAN, &x, &x), "add_f32: `alpha` has value NaN, expected a finite number");
        let vast = TensorDesc::f32([65_536, 65_536]);
        assert_eq!(
            text(1.0, &vast, &vast),
            "add_f32: `elements` has value 4294967296, expected at most 4294967295"
        );
        let op: &dyn Op = &Add { alpha: 1.0 };
        assert_eq!(
            op.plan(&[Some(&x)]).expect_err("refused").to_string(),
            "add_f32: `inputs` has value 1, expected x, v"
        );
    }
}
