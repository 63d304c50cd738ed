//! Layer normalisation over the last axis.
//!
//! `y[r, c] = (x[r, c] - mean_r) / sqrt(var_r + eps) * gamma[c] + beta[c]`, with the biased variance.

mod cases;
mod cpu;
mod reference;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
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
    /// Added to the variance.
    pub eps: f32,
    pad: u32,
}

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "layer_norm_f32",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::read("gamma", DType::F32),
        Slot::read("beta", DType::F32),
        Slot::write("y", DType::F32),
    ],
    fields: fields![Params; rows, cols, eps],
    params_size: size_of::<Params>(),
    wgsl: Wgsl {
        source: include_str!("layer_norm.wgsl"),
        entry: "layer_norm_f32",
        overrides: &[],
        workgroup: [128, 1, 1],
        grid: |params| fold_groups(u64::from(bytemuck::pod_read_unaligned::<Params>(params).rows)),
    },
    ptx: &[],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// Layer normalisation over the last axis.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// Added to the variance; positive.
    pub eps: f32,
}

impl LayerNorm {
    /// Plans `y = layer_norm(x, gamma, beta)`: x f32 `[rows, cols]`, gamma and beta f32 `[cols]`, y like x.
    pub fn plan(&self, x: &TensorDesc, gamma: &TensorDesc, beta: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[rows, cols]) = (x.dtype, x.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "x", x, "F32 [rows, cols]"));
        };
        let row = TensorDesc::f32([cols]);
        ShapeError::expect(op, "gamma", gamma, &row, "last axis of x")?;
        ShapeError::expect(op, "beta", beta, &row, "last axis of x")?;
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return Err(ShapeError::value(op, "eps", self.eps, "a positive number"));
        }
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            cols: ShapeError::size(op, "cols", cols)?,
            eps: self.eps,
            pad: 0,
        };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            slots: vec![Some(x.clone()), Some(gamma.clone()), Some(beta.clone()), Some(x.clone())],
            cost: Cost {
                bytes: (2 * x.bytes() + gamma.bytes() + beta.bytes()) as u64,
                flops: 8 * x.elements() as u64,
            },
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * cols, 0, 0, 4 * cols],
            }],
        })
    }
}

impl Op for LayerNorm {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(x), Some(gamma), Some(beta)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "x, gamma, beta"));
        };
        self.plan(x, gamma, beta)
    }
}
