//! A linear layer in half precision: matrix product, bias, activation, residual.
//!
//! `y[r, o] = act(sum_c x[r, c] weight[o, c] + bias[o]) + residual[r, o]`. x and the weight are both f16 or both bf16;
//! sums, bias, activation and residual are f32; y is f32, or rounded once to the type of x.

pub(in crate::ops) mod cases;
pub(in crate::ops) mod cpu;
pub(in crate::ops) mod reference;

use super::linear::{Activation, FIELDS, Params, tiles};
use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, Swizzle, Target, TensorDesc, TensorMap,
    Wgsl, WgslNeeds, fold_groups,
};

/// Rows and outs of the WGSL's tile.
const TILE: u32 = 64;

const fn slots(half: DType, y: DType) -> [Slot; 5] {
    [
        Slot::read("x", half),
        Slot::read("weight", half),
        Slot::maybe("bias", DType::F32),
        Slot::maybe("residual", DType::F32),
        Slot::write("y", y),
    ]
}

const fn wgsl(overrides: &'static [(&'static str, f64)]) -> Wgsl {
    Wgsl { overrides, ..Wgsl::new(include_str!("linear_half.wgsl"), "linear_half", [256, 1, 1], grid) }
}

/// Rows and outs of the tile of the WGSL form on units for matrices.
const MATRICES_TILE: u32 = 128;

/// The form on units for matrices of f16.
const fn matrices(overrides: &'static [(&'static str, f64)]) -> Wgsl {
    Wgsl {
        overrides,
        needs: WgslNeeds::HalfMatrices16,
        // rows of x and of the weight are read by 16 bytes, y is written in pairs
        takes: |params| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            p.cols.is_multiple_of(8)
                && [p.outs, p.out_first, p.out_stride].iter().all(|n| n.is_multiple_of(2))
        },
        ..Wgsl::new(
            include_str!("linear_half_matrices.wgsl"),
            "linear_half_matrices",
            [128, 1, 1],
            |params| {
                let p: Params = bytemuck::pod_read_unaligned(params);
                let tiles = |n: u32| u64::from(n.div_ceil(MATRICES_TILE));
                fold_groups(tiles(p.rows) * tiles(p.outs))
            },
        )
    }
}

/// Workgroups of the WGSL.
pub(in crate::ops) fn grid(params: &[u8]) -> [u32; 3] {
    let p: Params = bytemuck::pod_read_unaligned(params);
    fold_groups(u64::from(p.rows.div_ceil(TILE)) * u64::from(p.outs.div_ceil(TILE)))
}

/// Rows and outs of the tile of the forms for `sm_90a`.
const HOPPER_TILE: u32 = 128;
/// Columns of a stage of those forms: 128 bytes, which a swizzled row is.
const HOPPER_COLS: u32 = 64;
/// Five stages, eight warps' rows of results, twelve barriers.
const HOPPER_SHARED: u32 = 5 * 32_768 + 8 * 4_608 + 96;

/// The form with asynchronous matrix products and tensor copies.
pub(in crate::ops) const fn hopper(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        target: Target::Sm90a,
        // copies of tensors ask for rows that begin at multiples of 16 bytes; writing goes by 8 outs
        takes: |params| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            p.cols > 0 && [p.cols, p.outs, p.out_first, p.out_stride].iter().all(|n| n.is_multiple_of(8))
        },
        dynamic_shared: |_| HOPPER_SHARED,
        maps: |params| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            // the type does not matter to a copy, its width does
            let map = |slot, rows: u32| TensorMap {
                slot,
                dtype: DType::F16,
                extents: vec![u64::from(p.cols), u64::from(rows)],
                strides: vec![2 * u64::from(p.cols)],
                tile: vec![HOPPER_COLS, HOPPER_TILE],
                swizzle: Swizzle::Bytes128,
            };
            vec![map(0, p.rows), map(1, p.outs)]
        },
        registers: 168,
        ..Ptx::new(source, entry, [384, 1, 1], |params, device| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            let tiles = p.rows.div_ceil(HOPPER_TILE) * p.outs.div_ceil(HOPPER_TILE);
            [tiles.min(device.multiprocessors), 1, 1]
        })
    }
}

/// Tiles of 128 rows and outs in pipelined copies of 16 bytes, which rows of x and of the weight must be multiples of.
pub(in crate::ops) const fn piped(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        takes: |params| bytemuck::pod_read_unaligned::<Params>(params).cols.is_multiple_of(8),
        registers: 240,
        static_shared: 49_152,
        ..Ptx::new(source, entry, [128, 1, 1], |params, _| tiles(params, 128))
    }
}

/// Tiles of 64 rows and outs, read value by value.
pub(in crate::ops) const fn any(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        registers: 80,
        static_shared: 12_288,
        ..Ptx::new(source, entry, [128, 1, 1], |params, _| tiles(params, 64))
    }
}

/// f16 throughout.
pub static F16: KernelInfo = KernelInfo {
    name: "linear_half_f16",
    slots: &slots(DType::F16, DType::F16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[matrices(&[("y_type", 0.0)]), wgsl(&[("half_type", 0.0), ("y_type", 0.0)])],
    ptx: &[
        hopper(include_str!("linear_half_f16_sm90a.ptx"), "linear_half_f16_sm90a"),
        piped(include_str!("linear_half_f16.ptx"), "linear_half_f16"),
        any(include_str!("linear_half_f16_any.ptx"), "linear_half_f16_any"),
    ],
    reference: reference::f16,
    cpu: Some(cpu::f16),
    cases: || cases::cases(DType::F16, DType::F16),
};

/// f16 into f32.
pub static F16_F32: KernelInfo = KernelInfo {
    name: "linear_half_f16_f32",
    slots: &slots(DType::F16, DType::F32),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[matrices(&[("y_type", 1.0)]), wgsl(&[("half_type", 0.0), ("y_type", 1.0)])],
    ptx: &[
        hopper(include_str!("linear_half_f16_f32_sm90a.ptx"), "linear_half_f16_f32_sm90a"),
        piped(include_str!("linear_half_f16_f32.ptx"), "linear_half_f16_f32"),
        any(include_str!("linear_half_f16_f32_any.ptx"), "linear_half_f16_f32_any"),
    ],
    reference: reference::f16_f32,
    cpu: Some(cpu::f16_f32),
    cases: || cases::cases(DType::F16, DType::F32),
};

/// bf16 throughout.
pub static BF16: KernelInfo = KernelInfo {
    name: "linear_half_bf16",
    slots: &slots(DType::BF16, DType::BF16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("half_type", 1.0), ("y_type", 0.0)])],
    ptx: &[
        hopper(include_str!("linear_half_bf16_sm90a.ptx"), "linear_half_bf16_sm90a"),
        piped(include_str!("linear_half_bf16.ptx"), "linear_half_bf16"),
        any(include_str!("linear_half_bf16_any.ptx"), "linear_half_bf16_any"),
    ],
    reference: reference::bf16,
    cpu: Some(cpu::bf16),
    cases: || cases::cases(DType::BF16, DType::BF16),
};

/// bf16 into f32.
pub static BF16_F32: KernelInfo = KernelInfo {
    name: "linear_half_bf16_f32",
    slots: &slots(DType::BF16, DType::F32),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("half_type", 1.0), ("y_type", 1.0)])],
    ptx: &[
        hopper(include_str!("linear_half_bf16_f32_sm90a.ptx"), "linear_half_bf16_f32_sm90a"),
        piped(include_str!("linear_half_bf16_f32.ptx"), "linear_half_bf16_f32"),
        any(include_str!("linear_half_bf16_f32_any.ptx"), "linear_half_bf16_f32_any"),
    ],
    reference: reference::bf16_f32,
    cpu: Some(cpu::bf16_f32),
    cases: || cases::cases(DType::BF16, DType::F32),
};

/// A linear layer whose inputs are both in the same half precision.
#[derive(Clone, Copy, Debug)]
pub struct LinearHalf {
    /// What is applied before the residual.
    pub activation: Activation,
    /// Type of y: f32, or that of x.
    pub out: DType,
}

impl LinearHalf {
    /// Plans y `[rows, outs]` from x f16 or bf16 `[rows, cols]`, weight of the same type `[outs, cols]`, bias f32
    /// `[outs]` and residual f32 `[rows, outs]`.
    pub fn plan(
        &self,
        x: &TensorDesc,
        weight: &TensorDesc,
        bias: Option<&TensorDesc>,
        residual: Option<&TensorDesc>,
    ) -> Result<Plan, ShapeError> {
        let half = half_type("linear_half", x)?;
        let kernel = match (half, self.out) {
            (DType::F16, DType::F16) => &F16,
            (DType::F16, DType::F32) => &F16_F32,
            (DType::BF16, DType::BF16) => &BF16,
            (DType::BF16, DType::F32) => &BF16_F32,
            (_, out) => {
                let expected = format!("F32 or {half} (type of x)");
                return Err(ShapeError::value("linear_half", "out", out, expected));
            }
        };
        product(kernel, self.activation, [x, weight], bias, residual)
    }
}

/// The two-byte type of x, where x is a matrix.
pub(in crate::ops) fn half_type(op: &'static str, x: &TensorDesc) -> Result<DType, ShapeError> {
    match (x.dtype, x.shape.len()) {
        (DType::F16 | DType::BF16, 2) => Ok(x.dtype),
        _ => Err(ShapeError::tensor(op, "x", x, "F16 or BF16 [rows, cols]")),
    }
}

/// Plans the written slots of `kernel`, each `[rows, outs]`, from what all such products read.
pub(in crate::ops) fn product(
    kernel: &'static KernelInfo,
    activation: Activation,
    [x, weight]: [&TensorDesc; 2],
    bias: Option<&TensorDesc>,
    residual: Option<&TensorDesc>,
) -> Result<Plan, ShapeError> {
    let op = kernel.name;
    let half = half_type(op, x)?;
    let [rows, cols] = [x.shape[0], x.shape[1]];
    let &[outs, _] = weight.shape.as_slice() else {
        return Err(ShapeError::tensor(op, "weight", weight, format!("{half} [outs, cols]")));
    };
    ShapeError::expect(op, "weight", weight, &TensorDesc::new(half, [outs, cols]), "type and columns of x")?;
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
        activation: activation.code(),
        has_bias: u32::from(bias.is_some()),
        has_residual: u32::from(residual.is_some()),
    };
    let mut slots = vec![Some(x.clone()), Some(weight.clone()), bias.cloned(), residual.cloned()];
    let mut by_rows = vec![half.size() * cols, 0, 0, 4 * outs];
    let mut by_outs = vec![0, half.size() * cols, 4, 0];
    for written in &kernel.slots[slots.len()..] {
        slots.push(Some(TensorDesc::new(written.dtype, [rows, outs])));
        by_rows.push(written.dtype.size() * outs);
        by_outs.push(0);
    }
    let by_rows = Split {
        items: rows,
        count_at: std::mem::offset_of!(Params, rows),
        first_at: None,
        item_bytes: by_rows,
    };
    let by_outs = Split {
        items: outs,
        count_at: std::mem::offset_of!(Params, outs),
        first_at: Some(std::mem::offset_of!(Params, out_first)),
        item_bytes: by_outs,
    };
    let bytes: usize = slots.iter().flatten().map(TensorDesc::bytes).sum();
    let (rows, cols, outs) = (rows as u64, cols as u64, outs as u64);
    Ok(Plan {
        kernel,
        params: bytemuck::bytes_of(&params).to_vec(),
        cost: Cost { bytes: bytes as u64, flops: 2 * rows * cols * outs },
        splits: vec![by_rows, by_outs],
        slots,
    })
}

impl Op for LinearHalf {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), Some(weight), bias, residual] = inputs else {
            let expected = "x, weight, bias?, residual?";
            return Err(ShapeError::value("linear_half", "inputs", inputs.len(), expected));
        };
        self.plan(x, weight, bias, residual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_follows_the_types() {
        for (half, out, name) in [
            (DType::F16, DType::F16, "linear_half_f16"),
            (DType::F16, DType::F32, "linear_half_f16_f32"),
            (DType::BF16, DType::BF16, "linear_half_bf16"),
            (DType::BF16, DType::F32, "linear_half_bf16_f32"),
        ] {
            let (x, w) = (TensorDesc::new(half, [3, 5]), TensorDesc::new(half, [7, 5]));
            let plan = LinearHalf { activation: Activation::Relu, out }.plan(&x, &w, None, None);
            let plan = plan.expect("shapes fit");
            assert_eq!(plan.kernel.name, name);
            assert_eq!(plan.slots[4], Some(TensorDesc::new(out, [3, 7])));
        }
    }

    #[test]
    fn refusals_name_the_argument() {
        let x = TensorDesc::new(DType::F16, [3, 5]);
        let w = TensorDesc::new(DType::F16, [7, 5]);
        let text = |out, x: &TensorDesc, w: &TensorDesc, extra: [Option<&TensorDesc>; 2]| {
            let op = LinearHalf { activation: Activation::None, out };
            op.plan(x, w, extra[0], extra[1]).expect_err("refused").to_string()
        };
        assert_eq!(
            text(DType::F32, &TensorDesc::f32([3, 5]), &w, [None; 2]),
            "linear_half: `x` has type and shape F32 [3, 5], expected F16 or BF16 [rows, cols]"
        );
        assert_eq!(
            text(DType::F32, &TensorDesc::new(DType::BF16, [5]), &w, [None; 2]),
            "linear_half: `x` has type and shape BF16 [5], expected F16 or BF16 [rows, cols]"
        );
        assert_eq!(
            text(DType::BF16, &x, &w, [None; 2]),
            "linear_half: `out` has value BF16, expected F32 or F16 (type of x)"
        );
        assert_eq!(
            text(DType::F16, &x, &TensorDesc::new(DType::F16, [7]), [None; 2]),
            "linear_half_f16: `weight` has type and shape F16 [7], expected F16 [outs, cols]"
        );
        assert_eq!(
            text(DType::F32, &x, &TensorDesc::new(DType::BF16, [7, 5]), [None; 2]),
            "linear_half_f16_f32: `weight` has type and shape BF16 [7, 5], expected F16 [7, 5] (type and columns of x)"
        );
        assert_eq!(
            text(DType::F32, &x, &w, [Some(&TensorDesc::f32([5])), None]),
            "linear_half_f16_f32: `bias` has type and shape F32 [5], expected F32 [7] (first axis of weight)"
        );
        assert_eq!(
            text(DType::F16, &x, &w, [None, Some(&TensorDesc::new(DType::F16, [3, 7]))]),
            "linear_half_f16: `residual` has type and shape F16 [3, 7], expected F32 [3, 7] (rows of x, first axis of \
             weight)"
        );
        let empty = TensorDesc::new(DType::BF16, [65_536, 0]);
        assert_eq!(
            text(DType::BF16, &empty, &empty, [None; 2]),
            "linear_half_bf16: `elements of y` has value 4294967296, expected at most 4294967295"
        );
        let op: &dyn Op = &LinearHalf { activation: Activation::Gelu, out: DType::F16 };
        assert_eq!(
            op.plan(&[Some(&x), Some(&w)]).expect_err("refused").to_string(),
            "linear_half: `inputs` has value 2, expected x, weight, bias?, residual?"
        );
    }
}
