//! Normalisation by the root of the mean square, over the last axis.
//!
//! `y[r, c] = x[r, c] / sqrt(mean_c(x[r, c]^2) + eps) * gamma[c]`: no mean is taken off, and there is no bias.

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
    /// Rows to normalise.
    pub rows: u32,
    /// Row length.
    pub cols: u32,
    /// Added to the mean square.
    pub eps: f32,
    pad: u32,
}

/// Invocations of a workgroup, which has one row.
const BLOCK: u32 = 128;

/// Rows of a block in PTX: one for each of its four warps.
const PTX_ROWS: u32 = 4;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "rms_norm_f32",
    slots: &[Slot::read("x", DType::F32), Slot::read("gamma", DType::F32), Slot::write("y", DType::F32)],
    fields: fields![Params; rows, cols, eps],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("rms_norm.wgsl"), "rms_norm_f32", [BLOCK, 1, 1], |params| {
        fold_groups(bytemuck::pod_read_unaligned::<Params>(params).rows.into())
    })],
    ptx: &[Ptx {
        registers: 40,
        ..Ptx::new(include_str!("rms_norm_f32.ptx"), "rms_norm_f32", [32 * PTX_ROWS, 1, 1], |params, _| {
            [bytemuck::pod_read_unaligned::<Params>(params).rows.div_ceil(PTX_ROWS), 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// Normalisation by the root of the mean square.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    /// Added to the mean square; positive.
    pub eps: f32,
}

impl RmsNorm {
    /// Plans `y = rms_norm(x, gamma)`: x f32 `[rows, cols]`, gamma f32 `[cols]`, y like x.
    pub fn plan(&self, x: &TensorDesc, gamma: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[rows, cols]) = (x.dtype, x.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "x", x, "F32 [rows, cols]"));
        };
        ShapeError::expect(op, "gamma", gamma, &TensorDesc::f32([cols]), "last axis of x")?;
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return Err(ShapeError::value(op, "eps", self.eps, "a positive number"));
        }
        ShapeError::size(op, "elements of x", x.elements())?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            cols: ShapeError::size(op, "cols", cols)?,
            eps: self.eps,
            pad: 0,
        };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            slots: vec![Some(x.clone()), Some(gamma.clone()), Some(x.clone())],
            cost: Cost { bytes: (2 * x.bytes() + gamma.bytes()) as u64, flops: 4 * x.elements() as u64 },
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * cols, 0, 4 * cols],
            }],
        })
    }
}

impl Op for RmsNorm {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(x), Some(gamma)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "x, gamma"));
        };
        self.plan(x, gamma)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let (x, row) = (TensorDesc::f32([3, 5]), TensorDesc::f32([5]));
        let text = |eps, x: &TensorDesc, gamma: &TensorDesc| {
            RmsNorm { eps }.plan(x, gamma).expect_err("refused").to_string()
        };
        assert_eq!(
            text(1e-6, &TensorDesc::new(DType::F16, [3, 5]), &row),
            "rms_norm_f32: `x` has type and shape F16 [3, 5], expected F32 [rows, cols]"
        );
        assert_eq!(
            text(1e-6, &row, &row),
            "rms_norm_f32: `x` has type and shape F32 [5], expected F32 [rows, cols]"
        );
        assert_eq!(
            text(1e-6, &x, &TensorDesc::f32([3])),
            "rms_norm_f32: `gamma` has type and shape F32 [3], expected F32 [5] (last axis of x)"
        );
        assert_eq!(text(0.0, &x, &row), "rms_norm_f32: `eps` has value 0, expected a positive number");
        assert_eq!(
            text(f32::INFINITY, &x, &row),
            "rms_norm_f32: `eps` has value inf, expected a positive number"
        );
        assert_eq!(
            text(1e-6, &TensorDesc::f32([65_536, 65_536]), &TensorDesc::f32([65_536])),
            "rms_norm_f32: `elements of x` has value 4294967296, expected at most 4294967295"
        );
        let op: &dyn Op = &RmsNorm { eps: 1e-6 };
        assert_eq!(
            op.plan(&[Some(&x)]).expect_err("refused").to_string(),
            "rms_norm_f32: `inputs` has value 1, expected x, gamma"
        );
    }
}
