//! Layer normalisation over the last axis.
//!
//! `y[r, c] = (x[r, c] - mean_r) / sqrt(var_r + eps) * gamma[c] + beta[c]`, with the biased variance. The result may be
//! rounded to half precision, to nearest, ties to even, for a product that takes its operands so; statistics are in f32
//! whatever y is.
//!
//! Two-byte results with an odd number of values: buffers end on a multiple of 4 bytes, and WGSL writes 0 to the spare
//! half of the last word.

mod cases;
mod cpu;
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
    /// Added to the variance.
    pub eps: f32,
    pad: u32,
}

/// Rows of a block in PTX: one for each of its four warps.
const PTX_ROWS: u32 = 4;

/// Workgroups of `rows_per_group` rows.
fn wgsl_grid(params: &[u8], rows_per_group: u32) -> [u32; 3] {
    let p: Params = bytemuck::pod_read_unaligned(params);
    fold_groups(u64::from(p.rows.div_ceil(rows_per_group)))
}

/// The form that packs two halves in a word: two rows a workgroup, so that no word belongs to two of them.
const fn wgsl_half(overrides: &'static [(&'static str, f64)]) -> Wgsl {
    Wgsl {
        overrides,
        ..Wgsl::new(include_str!("layer_norm_half.wgsl"), "layer_norm_half", [128, 1, 1], |params| {
            wgsl_grid(params, 2)
        })
    }
}

const fn ptx(source: &'static str, entry: &'static str) -> Ptx {
    let block = [32 * PTX_ROWS, 1, 1];
    let form = Ptx::new(source, entry, block, |params, _| {
        [bytemuck::pod_read_unaligned::<Params>(params).rows.div_ceil(PTX_ROWS), 1, 1]
    });
    Ptx { registers: 96, ..form }
}

/// Leaves f32 as it is.
pub static F32: KernelInfo = KernelInfo {
    name: "layer_norm_f32",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::read("gamma", DType::F32),
        Slot::read("beta", DType::F32),
        Slot::write("y", DType::F32),
    ],
    fields: fields![Params; rows, cols, eps],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("layer_norm.wgsl"), "layer_norm_f32", [128, 1, 1], |params| {
        wgsl_grid(params, 1)
    })],
    ptx: &[ptx(include_str!("layer_norm_f32.ptx"), "layer_norm_f32")],
    reference: reference::f32,
    cpu: Some(cpu::f32),
    cases: || cases::cases(DType::F32),
};

/// Rounds to binary16.
pub static F16: KernelInfo = KernelInfo {
    name: "layer_norm_f16",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::read("gamma", DType::F32),
        Slot::read("beta", DType::F32),
        Slot::write("y", DType::F16),
    ],
    fields: fields![Params; rows, cols, eps],
    params_size: size_of::<Params>(),
    wgsl: &[wgsl_half(&[("y_type", 1.0)])],
    ptx: &[ptx(include_str!("layer_norm_f16.ptx"), "layer_norm_f16")],
    reference: reference::f16,
    cpu: Some(cpu::f16),
    cases: || cases::cases(DType::F16),
};

/// Rounds to bfloat16.
pub static BF16: KernelInfo = KernelInfo {
    name: "layer_norm_bf16",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::read("gamma", DType::F32),
        Slot::read("beta", DType::F32),
        Slot::write("y", DType::BF16),
    ],
    fields: fields![Params; rows, cols, eps],
    params_size: size_of::<Params>(),
    wgsl: &[wgsl_half(&[("y_type", 2.0)])],
    ptx: &[ptx(include_str!("layer_norm_bf16.ptx"), "layer_norm_bf16")],
    reference: reference::bf16,
    cpu: Some(cpu::bf16),
    cases: || cases::cases(DType::BF16),
};

/// Layer normalisation over the last axis.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// Added to the variance; positive.
    pub eps: f32,
    /// The type of the result: f32, f16 or bf16.
    pub out: DType,
}

impl LayerNorm {
    /// Plans `y = layer_norm(x, gamma, beta)`: x f32 `[rows, cols]`, gamma and beta f32 `[cols]`, y of the shape of x.
    pub fn plan(&self, x: &TensorDesc, gamma: &TensorDesc, beta: &TensorDesc) -> Result<Plan, ShapeError> {
        let kernel = match self.out {
            DType::F32 => &F32,
            DType::F16 => &F16,
            DType::BF16 => &BF16,
            other => return Err(ShapeError::value("layer_norm", "out", other, "F32, F16 or BF16")),
        };
        let op = kernel.name;
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
        let y = TensorDesc::new(self.out, x.shape.as_slice());
        Ok(Plan {
            kernel,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (x.bytes() + gamma.bytes() + beta.bytes() + y.bytes()) as u64,
                flops: 8 * x.elements() as u64,
            },
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * cols, 0, 0, self.out.size() * cols],
            }],
            slots: vec![Some(x.clone()), Some(gamma.clone()), Some(beta.clone()), Some(y)],
        })
    }
}

impl Op for LayerNorm {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(x), Some(gamma), Some(beta)] = inputs else {
            return Err(ShapeError::value("layer_norm", "inputs", inputs.len(), "x, gamma, beta"));
        };
        self.plan(x, gamma, beta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let (x, row) = (TensorDesc::f32([3, 5]), TensorDesc::f32([5]));
        let text = |eps, out, x: &TensorDesc, gamma: &TensorDesc, beta: &TensorDesc| {
            LayerNorm { eps, out }.plan(x, gamma, beta).expect_err("refused").to_string()
        };
        assert_eq!(
            text(1e-5, DType::U16, &x, &row, &row),
            "layer_norm: `out` has value U16, expected F32, F16 or BF16"
        );
        assert_eq!(
            text(1e-5, DType::F16, &TensorDesc::new(DType::F16, [3, 5]), &row, &row),
            "layer_norm_f16: `x` has type and shape F16 [3, 5], expected F32 [rows, cols]"
        );
        assert_eq!(
            text(1e-5, DType::BF16, &x, &TensorDesc::f32([3]), &row),
            "layer_norm_bf16: `gamma` has type and shape F32 [3], expected F32 [5] (last axis of x)"
        );
        assert_eq!(
            text(1e-5, DType::F32, &x, &row, &TensorDesc::u32([5])),
            "layer_norm_f32: `beta` has type and shape U32 [5], expected F32 [5] (last axis of x)"
        );
        assert_eq!(
            text(0.0, DType::F32, &x, &row, &row),
            "layer_norm_f32: `eps` has value 0, expected a positive number"
        );
        let op: &dyn Op = &LayerNorm { eps: 1e-5, out: DType::F16 };
        assert_eq!(
            op.plan(&[Some(&x)]).expect_err("refused").to_string(),
            "layer_norm: `inputs` has value 1, expected x, gamma, beta"
        );
    }
}
