//! The sum of all rows, times a constant: `y[c] = factor * sum over r of x[r, c]`.

mod cases;
mod reference;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, TensorDesc, Wgsl, fields, fold_groups,
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
    /// What sums are multiplied by.
    pub factor: f32,
    pad: u32,
}

/// Columns of a workgroup; eight invocations share each.
const COLUMNS: u32 = 32;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sum_rows_f32",
    slots: &[Slot::read("x", DType::F32), Slot::write("y", DType::F32)],
    fields: fields![Params; rows, cols, factor],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sum_rows.wgsl"), "sum_rows_f32", [256, 1, 1], |params| {
        fold_groups(bytemuck::pod_read_unaligned::<Params>(params).cols.div_ceil(COLUMNS).into())
    })],
    ptx: &[Ptx {
        registers: 40,
        static_shared: 256,
        ..Ptx::new(include_str!("sum_rows_f32.ptx"), "sum_rows_f32", [256, 1, 1], |params, _| {
            [bytemuck::pod_read_unaligned::<Params>(params).cols.div_ceil(8), 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// The sum of all rows, times a constant.
#[derive(Clone, Copy, Debug)]
pub struct SumRows {
    /// What sums are multiplied by; finite.
    pub factor: f32,
}

impl SumRows {
    /// Plans `y = factor * sum of rows`: x f32 `[rows, cols]`, y f32 `[cols, 1]`; zeros where there are no rows.
    pub fn plan(&self, x: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[rows, cols]) = (x.dtype, x.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "x", x, "F32 [rows, cols]"));
        };
        if !self.factor.is_finite() {
            return Err(ShapeError::value(op, "factor", self.factor, "a finite number"));
        }
        ShapeError::size(op, "elements of x", x.elements())?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            cols: ShapeError::size(op, "cols", cols)?,
            factor: self.factor,
            pad: 0,
        };
        let y = TensorDesc::f32([cols, 1]);
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost { bytes: (x.bytes() + y.bytes()) as u64, flops: x.elements() as u64 },
            slots: vec![Some(x.clone()), Some(y)],
            splits: vec![],
        })
    }
}

impl Op for SumRows {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "x"));
        };
        self.plan(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |factor, x: &TensorDesc| SumRows { factor }.plan(x).expect_err("refused").to_string();
        assert_eq!(
            text(1.0, &TensorDesc::u32([3, 5])),
            "sum_rows_f32: `x` has type and shape U32 [3, 5], expected F32 [rows, cols]"
        );
        assert_eq!(
            text(f32::INFINITY, &TensorDesc::f32([3, 5])),
            "sum_rows_f32: `factor` has value inf, expected a finite number"
        );
        let op: &dyn Op = &SumRows { factor: 1.0 };
        assert_eq!(
            op.plan(&[None]).expect_err("refused").to_string(),
            "sum_rows_f32: `inputs` has value 1, expected x"
        );
    }
}
