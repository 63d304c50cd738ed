//! The activations of features that were found by how far they are above their thresholds.
//!
//! `y[r, j] = values[r, j] + threshold[indices[r, j]]` where values\[r, j\] is above 0, else values\[r, j\]: an encoder of the k largest
//! whose bias has the thresholds subtracted finds the features of a threshold, and this adds them again.

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
    /// Rows of indices, values and y.
    pub rows: u32,
    /// Places of a row.
    pub k: u32,
    /// Values of threshold.
    pub features: u32,
    pad: u32,
}

/// Invocations of a workgroup, threads of a block.
const BLOCK: u32 = 256;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_add_threshold_f32",
    slots: &[
        Slot::read("indices", DType::U32),
        Slot::read("values", DType::F32),
        Slot::read("threshold", DType::F32),
        Slot::write("y", DType::F32),
    ],
    fields: fields![Params; rows, k, features],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(
        include_str!("sae_add_threshold.wgsl"),
        "sae_add_threshold_f32",
        [BLOCK, 1, 1],
        |params| {
            let Params { rows, k, .. } = bytemuck::pod_read_unaligned(params);
            fold_groups((u64::from(rows) * u64::from(k)).div_ceil(BLOCK.into()))
        },
    )],
    ptx: &[Ptx {
        registers: 32,
        ..Ptx::new(
            include_str!("sae_add_threshold_f32.ptx"),
            "sae_add_threshold_f32",
            [BLOCK, 1, 1],
            |params, _| {
                let Params { rows, k, .. } = bytemuck::pod_read_unaligned(params);
                [(rows * k).div_ceil(BLOCK), 1, 1]
            },
        )
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// Thresholds added to what lies above them.
#[derive(Clone, Copy, Debug)]
pub struct SaeAddThreshold;

impl SaeAddThreshold {
    /// Plans y f32 `[rows, k]` from indices u32 `[rows, k]`, values f32 `[rows, k]` and threshold f32 `[features]`.
    pub fn plan(
        &self,
        indices: &TensorDesc,
        values: &TensorDesc,
        threshold: &TensorDesc,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::U32, &[rows, k]) = (indices.dtype, indices.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "indices", indices, "U32 [rows, k]"));
        };
        ShapeError::expect(op, "values", values, &TensorDesc::f32([rows, k]), "shape of indices")?;
        let (DType::F32, &[features]) = (threshold.dtype, threshold.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "threshold", threshold, "F32 [features]"));
        };
        ShapeError::size(op, "elements of indices", indices.elements())?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            k: ShapeError::size(op, "k", k)?,
            features: ShapeError::size(op, "features", features)?,
            pad: 0,
        };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (3 * indices.bytes() + threshold.bytes().min(indices.bytes())) as u64,
                flops: indices.elements() as u64,
            },
            slots: vec![
                Some(indices.clone()),
                Some(values.clone()),
                Some(threshold.clone()),
                Some(values.clone()),
            ],
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * k, 4 * k, 0, 4 * k],
            }],
        })
    }
}

impl Op for SaeAddThreshold {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(indices), Some(values), Some(threshold)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "indices, values, threshold"));
        };
        self.plan(indices, values, threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |indices: &TensorDesc, values: &[usize], threshold: &TensorDesc| {
            SaeAddThreshold
                .plan(indices, &TensorDesc::f32(values), threshold)
                .expect_err("refused")
                .to_string()
        };
        let (indices, threshold) = (TensorDesc::u32([3, 5]), TensorDesc::f32([9]));
        assert_eq!(
            text(&threshold, &[3, 5], &threshold),
            "sae_add_threshold_f32: `indices` has type and shape F32 [9], expected U32 [rows, k]"
        );
        assert_eq!(
            text(&indices, &[5, 3], &threshold),
            "sae_add_threshold_f32: `values` has type and shape F32 [5, 3], expected F32 [3, 5] (shape of indices)"
        );
        assert_eq!(
            text(&indices, &[3, 5], &indices),
            "sae_add_threshold_f32: `threshold` has type and shape U32 [3, 5], expected F32 [features]"
        );
        let op: &dyn Op = &SaeAddThreshold;
        assert_eq!(
            op.plan(&[None]).expect_err("refused").to_string(),
            "sae_add_threshold_f32: `inputs` has value 1, expected indices, values, threshold"
        );
    }
}
