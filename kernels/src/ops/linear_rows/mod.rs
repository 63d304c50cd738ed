//! A linear layer for few rows, as in generation: up to three weights side by side, bias, activation, residual.
//!
//! `y[r, o] = act(sum_c x[r, c] w[o, c] + bias[o]) + residual[r, o]`, w the rows of `weight`, then of `weight_b`, then of
//! `weight_c`. Weights are f32, f16 or bf16 and are widened exactly; everything else is f32. Any number of rows is right;
//! the forms are made for those that wait for the weights to come from memory, and read these once for as many rows as
//! they can. The bits of a row of y depend on that row of x (and of the residual) alone, not on how many travel with it.

mod cases;
mod cpu;
mod reference;

use super::linear::Activation;
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
    /// Columns of x and of the weights.
    pub cols: u32,
    /// Rows of the first weight.
    pub outs: u32,
    /// Rows of the second weight, 0 without one.
    pub outs_b: u32,
    /// Rows of the third weight, 0 without one.
    pub outs_c: u32,
    /// Column of residual and y that the first row of the first weight makes.
    pub out_first: u32,
    /// Row length of residual and y.
    pub out_stride: u32,
    /// [`Activation::code`].
    pub activation: u32,
    /// 1 with a bias, else 0.
    pub has_bias: u32,
    /// 1 with a residual, else 0.
    pub has_residual: u32,
    pad: [u32; 2],
}

impl Params {
    /// Columns of y that a launch makes: at most as many as a row of y has, which a plan counted in u32.
    fn made(&self) -> u32 {
        self.outs + self.outs_b + self.outs_c
    }
}

/// Rows of a workgroup's tile in WGSL.
const WGSL_ROWS: u32 = 8;

/// Outs of a workgroup's tile in WGSL.
const WGSL_OUTS: u32 = 4;

const FIELDS: &[crate::Field] = fields![Params; rows, cols, outs, outs_b, outs_c, out_first, out_stride, activation, has_bias, has_residual];

const fn slots(weight: DType) -> [Slot; 7] {
    [
        Slot::read("x", DType::F32),
        Slot::read("weight", weight),
        Slot::maybe("weight_b", weight),
        Slot::maybe("weight_c", weight),
        Slot::maybe("bias", DType::F32),
        Slot::maybe("residual", DType::F32),
        Slot::write("y", DType::F32),
    ]
}

const fn wgsl(overrides: &'static [(&'static str, f64)]) -> Wgsl {
    Wgsl { overrides, ..Wgsl::new(include_str!("linear_rows.wgsl"), "linear_rows", [64, 1, 1], grid) }
}

fn grid(params: &[u8]) -> [u32; 3] {
    let p: Params = bytemuck::pod_read_unaligned(params);
    fold_groups(u64::from(p.rows.div_ceil(WGSL_ROWS)) * u64::from(p.made().div_ceil(WGSL_OUTS)))
}

/// Rows of a block's tile in PTX.
const PTX_ROWS: u32 = 16;

/// Outs of a block's tile in PTX, and in its wide form.
const PTX_OUTS: u32 = 8;
const WIDE_OUTS: u32 = 16;

/// From so many outs on, wide tiles are enough for every multiprocessor of an H100 (132) to have one.
const WIDE_FROM: u32 = 132 * WIDE_OUTS;

/// Blocks of a PTX form whose tiles have `side` outs.
fn tiles(params: &[u8], side: u32) -> [u32; 3] {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let blocks = u64::from(p.rows.div_ceil(PTX_ROWS)) * u64::from(p.made().div_ceil(side));
    [u32::try_from(blocks).expect("fewer tiles than elements of y, which a plan counts in u32"), 1, 1]
}

/// Whether rows of x and of the weights consist of the 8 columns that a thread loads.
fn in_vectors(params: &[u8]) -> bool {
    bytemuck::pod_read_unaligned::<Params>(params).cols.is_multiple_of(8)
}

/// Vector loads, twice the outs a block: x is split into parts half as often.
const fn wide(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        takes: |params| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            in_vectors(params) && p.made() >= WIDE_FROM
        },
        registers: 120,
        static_shared: 16_384,
        ..Ptx::new(source, entry, [512, 1, 1], |params, _| tiles(params, WIDE_OUTS))
    }
}

/// Vector loads.
const fn piped(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        takes: in_vectors,
        registers: 96,
        static_shared: 8192,
        ..Ptx::new(source, entry, [512, 1, 1], |params, _| tiles(params, PTX_OUTS))
    }
}

/// Value by value.
const fn any(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        registers: 40,
        static_shared: 8192,
        ..Ptx::new(source, entry, [512, 1, 1], |params, _| tiles(params, PTX_OUTS))
    }
}

/// With f32 weights.
pub static F32: KernelInfo = KernelInfo {
    name: "linear_rows_f32",
    slots: &slots(DType::F32),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("weight_type", 0.0)])],
    ptx: &[
        wide(include_str!("linear_rows_f32_wide.ptx"), "linear_rows_f32_wide"),
        piped(include_str!("linear_rows_f32.ptx"), "linear_rows_f32"),
        any(include_str!("linear_rows_f32_any.ptx"), "linear_rows_f32_any"),
    ],
    reference: reference::f32,
    cpu: Some(cpu::f32),
    cases: || cases::cases(DType::F32),
};

/// With f16 weights.
pub static F16: KernelInfo = KernelInfo {
    name: "linear_rows_f16",
    slots: &slots(DType::F16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("weight_type", 1.0)])],
    ptx: &[
        wide(include_str!("linear_rows_f16_wide.ptx"), "linear_rows_f16_wide"),
        piped(include_str!("linear_rows_f16.ptx"), "linear_rows_f16"),
        any(include_str!("linear_rows_f16_any.ptx"), "linear_rows_f16_any"),
    ],
    reference: reference::f16,
    cpu: Some(cpu::f16),
    cases: || cases::cases(DType::F16),
};

/// With bf16 weights.
pub static BF16: KernelInfo = KernelInfo {
    name: "linear_rows_bf16",
    slots: &slots(DType::BF16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("weight_type", 2.0)])],
    ptx: &[
        wide(include_str!("linear_rows_bf16_wide.ptx"), "linear_rows_bf16_wide"),
        piped(include_str!("linear_rows_bf16.ptx"), "linear_rows_bf16"),
        any(include_str!("linear_rows_bf16_any.ptx"), "linear_rows_bf16_any"),
    ],
    reference: reference::bf16,
    cpu: Some(cpu::bf16),
    cases: || cases::cases(DType::BF16),
};

/// A linear layer for few rows.
#[derive(Clone, Copy, Debug)]
pub struct LinearRows {
    /// What is applied before the residual.
    pub activation: Activation,
}

impl LinearRows {
    /// Plans y f32 `[rows, total]` from x f32 `[rows, cols]`, weight f32, f16 or bf16 `[outs, cols]`, up to two more of its
    /// type (`weight_b` and `weight_c`, `[outs_b, cols]` and `[outs_c, cols]`), bias f32 `[total]` and residual f32
    /// `[rows, total]`, where total = outs + outs_b + outs_c.
    ///
    /// A launch with one weight can be cut along its outs; with several each has to fit a binding.
    pub fn plan(
        &self,
        x: &TensorDesc,
        weight: &TensorDesc,
        more: [Option<&TensorDesc>; 2],
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
        let rows_of = |name: &'static str, other: Option<&TensorDesc>| match other {
            None => Ok(0),
            Some(other) => match *other.shape.as_slice() {
                [outs, other_cols] if other_cols == cols && other.dtype == weight.dtype => Ok(outs),
                _ => {
                    let expected =
                        format!("{} [outs, {cols}] (type of weight, last axis of x)", weight.dtype);
                    Err(ShapeError::tensor(op, name, other, expected))
                }
            },
        };
        let (outs_b, outs_c) = (rows_of("weight_b", more[0])?, rows_of("weight_c", more[1])?);
        // of shapes that fit memory, or have no columns at all
        let total = outs.saturating_add(outs_b).saturating_add(outs_c);
        let out_stride = ShapeError::size(op, "outs of all weights", total)?;
        if let Some(bias) = bias {
            ShapeError::expect(op, "bias", bias, &TensorDesc::f32([total]), "outs of all weights")?;
        }
        let y = TensorDesc::f32([rows, total]);
        if let Some(residual) = residual {
            ShapeError::expect(op, "residual", residual, &y, "rows of x, outs of all weights")?;
        }
        let weights = [Some(weight), more[0], more[1]];
        let sizes = [("elements of x", Some(x)), ("elements of y", Some(&y))].into_iter();
        let names = ["elements of weight", "elements of weight_b", "elements of weight_c"];
        for (name, desc) in sizes.chain(names.into_iter().zip(weights)) {
            ShapeError::size(op, name, desc.map_or(0, TensorDesc::elements))?;
        }
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            cols: ShapeError::size(op, "cols", cols)?,
            outs: ShapeError::size(op, "outs", outs)?,
            outs_b: ShapeError::size(op, "outs", outs_b)?,
            outs_c: ShapeError::size(op, "outs", outs_c)?,
            out_first: 0,
            out_stride,
            activation: self.activation.code(),
            has_bias: u32::from(bias.is_some()),
            has_residual: u32::from(residual.is_some()),
            pad: [0; 2],
        };
        let mut splits = vec![Split {
            items: rows,
            count_at: std::mem::offset_of!(Params, rows),
            first_at: None,
            item_bytes: vec![4 * cols, 0, 0, 0, 0, 4 * total, 4 * total],
        }];
        if more == [None; 2] {
            splits.push(Split {
                items: outs,
                count_at: std::mem::offset_of!(Params, outs),
                first_at: Some(std::mem::offset_of!(Params, out_first)),
                item_bytes: vec![0, cols * weight.dtype.size(), 0, 0, 4, 0, 0],
            });
        }
        let slots: Vec<Option<TensorDesc>> =
            [Some(x), weights[0], weights[1], weights[2], bias, residual, Some(&y)]
                .map(|d| d.cloned())
                .into();
        Ok(Plan {
            kernel,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: slots.iter().flatten().map(|desc| desc.bytes() as u64).sum(),
                flops: 2 * rows as u64 * cols as u64 * total as u64,
            },
            slots,
            splits,
        })
    }
}

impl Op for LinearRows {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), Some(weight), weight_b, weight_c, bias, residual] = inputs else {
            return Err(ShapeError::value(
                "linear_rows",
                "inputs",
                inputs.len(),
                "x, weight, weight_b?, weight_c?, bias?, residual?",
            ));
        };
        self.plan(x, weight, [weight_b, weight_c], bias, residual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let x = TensorDesc::f32([3, 5]);
        let w = TensorDesc::new(DType::F16, [7, 5]);
        let other = TensorDesc::new(DType::F16, [2, 5]);
        let op: &dyn Op = &LinearRows { activation: Activation::None };
        let text = |inputs: [Option<&TensorDesc>; 6]| op.plan(&inputs).expect_err("refused").to_string();
        assert_eq!(
            text([Some(&TensorDesc::f32([5])), Some(&w), None, None, None, None]),
            "linear_rows_f16: `x` has type and shape F32 [5], expected F32 [rows, cols]"
        );
        assert_eq!(
            text([Some(&x), Some(&TensorDesc::u32([7, 5])), None, None, None, None]),
            "linear_rows_f32: `weight` has type and shape U32 [7, 5], expected F32, F16 or BF16 [outs, cols]"
        );
        assert_eq!(
            text([Some(&x), Some(&TensorDesc::new(DType::BF16, [7, 6])), None, None, None, None]),
            "linear_rows_bf16: `weight` has type and shape BF16 [7, 6], expected [outs, 5] (last axis of x)"
        );
        assert_eq!(
            text([Some(&x), Some(&w), Some(&TensorDesc::f32([2, 5])), None, None, None]),
            "linear_rows_f16: `weight_b` has type and shape F32 [2, 5], expected F16 [outs, 5] (type of weight, last axis of x)"
        );
        assert_eq!(
            text([Some(&x), Some(&w), Some(&other), Some(&TensorDesc::new(DType::F16, [5])), None, None]),
            "linear_rows_f16: `weight_c` has type and shape F16 [5], expected F16 [outs, 5] (type of weight, last axis of x)"
        );
        assert_eq!(
            text([Some(&x), Some(&w), Some(&other), None, Some(&TensorDesc::f32([7])), None]),
            "linear_rows_f16: `bias` has type and shape F32 [7], expected F32 [9] (outs of all weights)"
        );
        assert_eq!(
            text([Some(&x), Some(&w), None, Some(&other), None, Some(&x)]),
            "linear_rows_f16: `residual` has type and shape F32 [3, 5], expected F32 [3, 9] (rows of x, outs of all weights)"
        );
        let long = TensorDesc::f32([1 << 31, 0]);
        assert_eq!(
            text([Some(&TensorDesc::f32([3, 0])), Some(&long), Some(&long), None, None, None]),
            "linear_rows_f32: `outs of all weights` has value 4294967296, expected at most 4294967295"
        );
        let wide = TensorDesc::f32([65_536, 65_536]);
        assert_eq!(
            text([Some(&TensorDesc::f32([1, 65_536])), Some(&w_f32(1)), None, Some(&wide), None, None]),
            "linear_rows_f32: `elements of weight_c` has value 4294967296, expected at most 4294967295"
        );
        assert_eq!(
            op.plan(&[Some(&x), Some(&w)]).expect_err("refused").to_string(),
            "linear_rows: `inputs` has value 2, expected x, weight, weight_b?, weight_c?, bias?, residual?"
        );
    }

    fn w_f32(outs: usize) -> TensorDesc {
        TensorDesc::f32([outs, 65_536])
    }

    #[test]
    fn only_a_lone_weight_is_cut_along_its_outs() {
        let (x, w) = (TensorDesc::f32([1, 64]), TensorDesc::f32([64, 64]));
        let op = LinearRows { activation: Activation::None };
        let lone = op.plan(&x, &w, [None, None], None, None).expect("shapes fit");
        assert_eq!(lone.pieces(4096, 4).expect("four pieces").len(), 4);
        let pair = op.plan(&x, &w, [Some(&w), None], None, None).expect("shapes fit");
        assert_eq!(
            pair.pieces(4096, 4).expect_err("refused").to_string(),
            "linear_rows_f32: `weight` has value 16384 bytes in one binding, expected at most 4096 on this device; use smaller batches or windows"
        );
    }
}
