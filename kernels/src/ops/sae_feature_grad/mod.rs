//! The gradient of every active feature of a batch, and what a log wants to know of every row.
//!
//! With the error e = decoded - x of a row: `grads[r, j] = e[r] . w_dec[indices[r, j]] + penalty` where `values[r, j]` is above 0,
//! else 0. That is the gradient of `rows / 2 * (|e|^2 + 2 penalty * sum of values)`, summed over rows and divided by them: the factor
//! 2 / rows is put on by [`super::sae_clip`]. `stats[r]` is |e|^2, the sum of the values above 0, and how many they are.

mod cases;
mod cpu;
mod reference;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Numbers of a row of `stats`.
pub const STATS: usize = 3;

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows of the batch.
    pub rows: u32,
    /// Places of a row.
    pub k: u32,
    /// Rows of w_dec.
    pub features: u32,
    /// Length of an error.
    pub width: u32,
}

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_feature_grad_f32",
    slots: &[
        Slot::read("indices", DType::U32),
        Slot::read("values", DType::F32),
        Slot::read("w_dec", DType::F32),
        Slot::read("error", DType::F32),
        Slot::read("penalty", DType::F32),
        Slot::write("grads", DType::F32),
        Slot::write("stats", DType::F32),
    ],
    fields: fields![Params; rows, k, features, width],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(
        include_str!("sae_feature_grad.wgsl"),
        "sae_feature_grad_f32",
        [256, 1, 1],
        |params| fold_groups(bytemuck::pod_read_unaligned::<Params>(params).rows.into()),
    )],
    ptx: &[Ptx {
        registers: 72,
        ..Ptx::new(
            include_str!("sae_feature_grad_f32.ptx"),
            "sae_feature_grad_f32",
            [128, 1, 1],
            |params, _| {
                let Params { rows, k, .. } = bytemuck::pod_read_unaligned(params);
                fold_groups((u64::from(rows) * u64::from(k.div_ceil(4).max(1))).div_ceil(4))
            },
        )
    }],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// The gradient of every active feature of a batch.
#[derive(Clone, Copy, Debug)]
pub struct SaeFeatureGrad;

impl SaeFeatureGrad {
    /// Plans the gradients: indices u32 `[rows, k]`, values f32 `[rows, k]`, w_dec f32 `[features, width]`, error f32
    /// `[rows, width]`, penalty f32 `[1]`, grads f32 `[rows, k]`, stats f32 `[rows, 3]`.
    pub fn plan(
        &self,
        indices: &TensorDesc,
        values: &TensorDesc,
        w_dec: &TensorDesc,
        error: &TensorDesc,
        penalty: &TensorDesc,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::U32, &[rows, k]) = (indices.dtype, indices.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "indices", indices, "U32 [rows, k]"));
        };
        ShapeError::expect(op, "values", values, &TensorDesc::f32([rows, k]), "as indices")?;
        let (DType::F32, &[features, width]) = (w_dec.dtype, w_dec.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "w_dec", w_dec, "F32 [features, width]"));
        };
        let errors = TensorDesc::f32([rows, width]);
        ShapeError::expect(op, "error", error, &errors, "rows of indices, last axis of w_dec")?;
        ShapeError::expect(op, "penalty", penalty, &TensorDesc::f32([1]), "one number")?;
        ShapeError::size(op, "elements of w_dec", w_dec.elements())?;
        ShapeError::size(op, "elements of error", error.elements())?;
        ShapeError::size(op, "elements of indices", indices.elements())?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            k: ShapeError::size(op, "k", k)?,
            features: ShapeError::size(op, "features", features)?,
            width: ShapeError::size(op, "width", width)?,
        };
        let stats = TensorDesc::f32([rows, STATS]);
        let directions = (rows * k).min(features) * width * 4;
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (3 * indices.bytes() + directions + error.bytes() + stats.bytes()) as u64,
                flops: (2 * rows * k * width + 2 * rows * width) as u64,
            },
            slots: vec![
                Some(indices.clone()),
                Some(values.clone()),
                Some(w_dec.clone()),
                Some(error.clone()),
                Some(penalty.clone()),
                Some(values.clone()),
                Some(stats),
            ],
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * k, 4 * k, 0, 4 * width, 0, 4 * k, 4 * STATS],
            }],
        })
    }
}

impl Op for SaeFeatureGrad {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(indices), Some(values), Some(w_dec), Some(error), Some(penalty)] = inputs else {
            let expected = "indices, values, w_dec, error, penalty";
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), expected));
        };
        self.plan(indices, values, w_dec, error, penalty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text =
            |indices: &TensorDesc, values: &[usize], w_dec: &[usize], error: &[usize], penalty: &[usize]| {
                SaeFeatureGrad
                    .plan(
                        indices,
                        &TensorDesc::f32(values),
                        &TensorDesc::f32(w_dec),
                        &TensorDesc::f32(error),
                        &TensorDesc::f32(penalty),
                    )
                    .expect_err("refused")
                    .to_string()
            };
        let indices = TensorDesc::u32([3, 2]);
        assert_eq!(
            text(&TensorDesc::u32([6]), &[3, 2], &[7, 5], &[3, 5], &[1]),
            "sae_feature_grad_f32: `indices` has type and shape U32 [6], expected U32 [rows, k]"
        );
        assert_eq!(
            text(&indices, &[2, 3], &[7, 5], &[3, 5], &[1]),
            "sae_feature_grad_f32: `values` has type and shape F32 [2, 3], expected F32 [3, 2] (as indices)"
        );
        assert_eq!(
            text(&indices, &[3, 2], &[35], &[3, 5], &[1]),
            "sae_feature_grad_f32: `w_dec` has type and shape F32 [35], expected F32 [features, width]"
        );
        assert_eq!(
            text(&indices, &[3, 2], &[7, 5], &[3, 7], &[1]),
            "sae_feature_grad_f32: `error` has type and shape F32 [3, 7], expected F32 [3, 5] (rows of indices, last axis of w_dec)"
        );
        assert_eq!(
            text(&indices, &[3, 2], &[7, 5], &[3, 5], &[2]),
            "sae_feature_grad_f32: `penalty` has type and shape F32 [2], expected F32 [1] (one number)"
        );
        let op: &dyn Op = &SaeFeatureGrad;
        assert_eq!(
            op.plan(&[None]).expect_err("refused").to_string(),
            "sae_feature_grad_f32: `inputs` has value 1, expected indices, values, w_dec, error, penalty"
        );
    }
}
