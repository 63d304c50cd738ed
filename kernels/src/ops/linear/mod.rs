//! A linear layer: matrix product, bias, activation, residual.
//!
//! `y[r, o] = act(sum_c x[r, c] weight[o, c] + bias[o]) + residual[r, o]`. The weight is f32, f16 or bf16 and is
//! widened exactly; everything else is f32.

mod cases;
mod cpu;
mod reference;

pub(super) use cpu::finish;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows of x and y.
    pub rows: u32,
    /// Columns of x and of the weight.
    pub cols: u32,
    /// Rows of the weight.
    pub outs: u32,
    /// Column of residual and y that the first row of the weight makes.
    pub out_first: u32,
    /// Row length of residual and y.
    pub out_stride: u32,
    /// [`Activation::code`].
    pub activation: u32,
    /// 1 with a bias, else 0.
    pub has_bias: u32,
    /// 1 with a residual, else 0.
    pub has_residual: u32,
}

/// Rows and outs of the WGSL's tile.
const TILE: u32 = 64;

pub(super) const FIELDS: &[crate::Field] =
    fields![Params; rows, cols, outs, out_first, out_stride, activation, has_bias, has_residual];

const fn slots(weight: DType) -> [Slot; 5] {
    [
        Slot::read("x", DType::F32),
        Slot::read("weight", weight),
        Slot::maybe("bias", DType::F32),
        Slot::maybe("residual", DType::F32),
        Slot::write("y", DType::F32),
    ]
}

const fn wgsl(overrides: &'static [(&'static str, f64)]) -> Wgsl {
    Wgsl { overrides, ..Wgsl::new(include_str!("linear.wgsl"), "linear", [256, 1, 1], grid) }
}

fn grid(params: &[u8]) -> [u32; 3] {
    let p: Params = bytemuck::pod_read_unaligned(params);
    fold_groups(u64::from(p.rows.div_ceil(TILE)) * u64::from(p.outs.div_ceil(TILE)))
}

/// Blocks of a PTX form whose tiles have `side` rows and outs each.
pub(super) fn tiles(params: &[u8], side: u32) -> [u32; 3] {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let blocks = u64::from(p.rows.div_ceil(side)) * u64::from(p.outs.div_ceil(side));
    [u32::try_from(blocks).expect("fewer tiles than elements of y, which a plan counts in u32"), 1, 1]
}

const fn ptx(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        registers: 128,
        static_shared: 49_152,
        ..Ptx::new(source, entry, [256, 1, 1], |params, _| tiles(params, 128))
    }
}

/// With an f32 weight.
pub static F32: KernelInfo = KernelInfo {
    name: "linear_f32",
    slots: &slots(DType::F32),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("weight_type", 0.0)])],
    ptx: &[ptx(include_str!("linear_f32.ptx"), "linear_f32")],
    reference: reference::f32,
    cpu: Some(cpu::f32),
    cases: || cases::cases(DType::F32),
};

/// With an f16 weight.
pub static F16: KernelInfo = KernelInfo {
    name: "linear_f16",
    slots: &slots(DType::F16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("weight_type", 1.0)])],
    ptx: &[ptx(include_str!("linear_f16.ptx"), "linear_f16")],
    reference: reference::f16,
    cpu: Some(cpu::f16),
    cases: || cases::cases(DType::F16),
};

/// With a bf16 weight.
pub static BF16: KernelInfo = KernelInfo {
    name: "linear_bf16",
    slots: &slots(DType::BF16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("weight_type", 2.0)])],
    ptx: &[ptx(include_str!("linear_bf16.ptx"), "linear_bf16")],
    reference: reference::bf16,
    cpu: Some(cpu::bf16),
    cases: || cases::cases(DType::BF16),
};

/// What a linear layer applies before the residual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `x (1 + erf(x / sqrt 2)) / 2`.
    Gelu,
    /// `max(x, 0)`.
    Relu,
    /// x above 0, `e^x - 1` below.
    Elu,
}

impl Activation {
    /// The number that stands for it in parameter blocks.
    pub const fn code(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Gelu => 1,
            Self::Relu => 2,
            Self::Elu => 3,
        }
    }

    pub(super) const fn from_code(code: u32) -> Self {
        match code {
            0 => Self::None,
            1 => Self::Gelu,
            2 => Self::Relu,
            3 => Self::Elu,
            _ => panic!("a plan writes codes of activations only"),
        }
    }
}

/// A linear layer.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// What is applied before the residual.
    pub activation: Activation,
}

impl Linear {
    /// Plans y f32 `[rows, outs]` from x f32 `[rows, cols]`, weight f32, f16 or bf16 `[outs, cols]`, bias f32 `[outs]`
    /// and residual f32 `[rows, outs]`.
    pub fn plan(
        &self,
        x: &TensorDesc,
        weight: &TensorDesc,
        bias: Option<&TensorDesc>,
        residual: Option<&TensorDesc>,
    ) -> Result<Plan, ShapeError> {
        let kernel = match weight.dtype {
            DType::F16 => &F16,
            DType::BF16 => &BF16,
            _ => &F32,
        };
        let op = kernel.name;
        let (DType::F32, &[rows, cols]) = (x.dtype, x.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "x", x, "F32 [rows, cols]"));
        };
        let (DType::F32 | DType::F16 | DType::BF16, &[outs, weight_cols]) =
            (weight.dtype, weight.shape.as_slice())
        else {
            return Err(ShapeError::tensor(op, "weight", weight, "F32, F16 or BF16 [outs, cols]"));
        };
        if weight_cols != cols {
            return Err(ShapeError::tensor(op, "weight", weight, format!("[outs, {cols}] (last axis of x)")));
        }
        if let Some(bias) = bias {
            ShapeError::expect(op, "bias", bias, &TensorDesc::f32([outs]), "first axis of weight")?;
        }
        let y = TensorDesc::f32([rows, outs]);
        if let Some(residual) = residual {
            ShapeError::expect(op, "residual", residual, &y, "rows of x, first axis of weight")?;
        }
        for (name, elements) in [("elements of x", x), ("elements of weight", weight), ("elements of y", &y)]
            .map(|(n, t)| (n, t.elements()))
        {
            ShapeError::size(op, name, elements)?;
        }
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            cols: ShapeError::size(op, "cols", cols)?,
            outs: ShapeError::size(op, "outs", outs)?,
            out_first: 0,
            out_stride: ShapeError::size(op, "outs", outs)?,
            activation: self.activation.code(),
            has_bias: u32::from(bias.is_some()),
            has_residual: u32::from(residual.is_some()),
        };
        let optional = bias.map_or(0, TensorDesc::bytes) + residual.map_or(0, TensorDesc::bytes);
        let by_rows = Split {
            items: rows,
            count_at: std::mem::offset_of!(Params, rows),
            first_at: None,
            item_bytes: vec![4 * cols, 0, 0, 4 * outs, 4 * outs],
        };
        let by_outs = Split {
            items: outs,
            count_at: std::mem::offset_of!(Params, outs),
            first_at: Some(std::mem::offset_of!(Params, out_first)),
            item_bytes: vec![0, cols * weight.dtype.size(), 4, 0, 0],
        };
        let (rows, cols, outs) = (rows as u64, cols as u64, outs as u64);
        Ok(Plan {
            kernel,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (x.bytes() + weight.bytes() + optional + y.bytes()) as u64,
                flops: 2 * rows * cols * outs,
            },
            splits: vec![by_rows, by_outs],
            slots: vec![Some(x.clone()), Some(weight.clone()), bias.cloned(), residual.cloned(), Some(y)],
        })
    }
}

impl Op for Linear {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), Some(weight), bias, residual] = inputs else {
            return Err(ShapeError::value("linear", "inputs", inputs.len(), "x, weight, bias?, residual?"));
        };
        self.plan(x, weight, bias, residual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let x = TensorDesc::f32([3, 5]);
        let w = TensorDesc::new(DType::F16, [7, 5]);
        let text =
            |x: &TensorDesc, w: &TensorDesc, bias: Option<&TensorDesc>, residual: Option<&TensorDesc>| {
                Linear { activation: Activation::None }
                    .plan(x, w, bias, residual)
                    .expect_err("refused")
                    .to_string()
            };
        assert_eq!(
            text(&TensorDesc::f32([5]), &w, None, None),
            "linear_f16: `x` has type and shape F32 [5], expected F32 [rows, cols]"
        );
        assert_eq!(
            text(&x, &TensorDesc::u32([7, 5]), None, None),
            "linear_f32: `weight` has type and shape U32 [7, 5], expected F32, F16 or BF16 [outs, cols]"
        );
        assert_eq!(
            text(&x, &TensorDesc::new(DType::BF16, [7, 6]), None, None),
            "linear_bf16: `weight` has type and shape BF16 [7, 6], expected [outs, 5] (last axis of x)"
        );
        assert_eq!(
            text(&x, &w, Some(&TensorDesc::f32([5])), None),
            "linear_f16: `bias` has type and shape F32 [5], expected F32 [7] (first axis of weight)"
        );
        assert_eq!(
            text(&x, &w, None, Some(&x)),
            "linear_f16: `residual` has type and shape F32 [3, 5], expected F32 [3, 7] (rows of x, first axis of weight)"
        );
        let (tall, wide) = (TensorDesc::f32([65_536, 0]), TensorDesc::f32([65_536, 0]));
        assert_eq!(
            text(&tall, &wide, None, None),
            "linear_f32: `elements of y` has value 4294967296, expected at most 4294967295"
        );
        let op: &dyn Op = &Linear { activation: Activation::Gelu };
        assert_eq!(
            op.plan(&[Some(&x), Some(&w)]).expect_err("refused").to_string(),
            "linear: `inputs` has value 2, expected x, weight, bias?, residual?"
        );
    }

    #[test]
    fn activations_survive_the_parameter_block() {
        for activation in [Activation::None, Activation::Gelu, Activation::Relu, Activation::Elu] {
            assert_eq!(Activation::from_code(activation.code()), activation);
        }
    }
}
