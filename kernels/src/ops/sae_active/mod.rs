//! The active features of rows whose pre-activations are all in memory, as a table of codes.
//!
//! Feature f of row r is active where `pre[r, f]` is above the threshold, exp(log_threshold\[f\]), or above 0 without thresholds. A row of
//! `indices` and `values` holds its active features, in order, with their pre-activations; behind them index 0 and value 0. There is
//! a place for every feature. A pre-activation that is not a number counts as active, so that it does not go unseen.

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
    /// Rows of pre.
    pub rows: u32,
    /// Length of a row.
    pub features: u32,
    /// 1 where there are thresholds, else 0.
    pub has_threshold: u32,
    pad: u32,
}

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_active_f32",
    slots: &[
        Slot::read("pre", DType::F32),
        Slot::maybe("log_threshold", DType::F32),
        Slot::write("indices", DType::U32),
        Slot::write("values", DType::F32),
    ],
    fields: fields![Params; rows, features, has_threshold],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sae_active.wgsl"), "sae_active_f32", [256, 1, 1], |params| {
        fold_groups(bytemuck::pod_read_unaligned::<Params>(params).rows.into())
    })],
    ptx: &[Ptx {
        registers: 40,
        static_shared: 32,
        ..Ptx::new(include_str!("sae_active_f32.ptx"), "sae_active_f32", [256, 1, 1], |params, _| {
            [bytemuck::pod_read_unaligned::<Params>(params).rows, 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// The active features of rows.
#[derive(Clone, Copy, Debug)]
pub struct SaeActive;

impl SaeActive {
    /// Plans indices u32 and values f32 `[rows, features]` from pre f32 `[rows, features]` and, where features have thresholds, their
    /// logarithms f32 `[features]`.
    pub fn plan(&self, pre: &TensorDesc, log_threshold: Option<&TensorDesc>) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[rows, features]) = (pre.dtype, pre.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "pre", pre, "F32 [rows, features]"));
        };
        if let Some(logs) = log_threshold {
            ShapeError::expect(op, "log_threshold", logs, &TensorDesc::f32([features]), "last axis of pre")?;
        }
        ShapeError::size(op, "elements of pre", pre.elements())?;
        let params = Params {
            // a block of the PTX form for each
            rows: ShapeError::size(op, "rows", 2 * rows).map(|twice| twice / 2)?,
            features: ShapeError::size(op, "features", features)?,
            has_threshold: u32::from(log_threshold.is_some()),
            pad: 0,
        };
        let indices = TensorDesc::u32([rows, features]);
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (3 * pre.bytes() + log_threshold.map_or(0, TensorDesc::bytes)) as u64,
                flops: 0,
            },
            slots: vec![Some(pre.clone()), log_threshold.cloned(), Some(indices), Some(pre.clone())],
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * features, 0, 4 * features, 4 * features],
            }],
        })
    }
}

impl Op for SaeActive {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(pre), log_threshold] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "pre, log_threshold?"));
        };
        self.plan(pre, log_threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let pre = TensorDesc::f32([3, 5]);
        let text = |pre: &TensorDesc, logs: &TensorDesc| {
            SaeActive.plan(pre, Some(logs)).expect_err("refused").to_string()
        };
        assert_eq!(
            text(&TensorDesc::f32([15]), &TensorDesc::f32([5])),
            "sae_active_f32: `pre` has type and shape F32 [15], expected F32 [rows, features]"
        );
        assert_eq!(
            text(&pre, &TensorDesc::f32([3])),
            "sae_active_f32: `log_threshold` has type and shape F32 [3], expected F32 [5] (last axis of pre)"
        );
        let op: &dyn Op = &SaeActive;
        assert_eq!(
            op.plan(&[Some(&pre)]).expect_err("refused").to_string(),
            "sae_active_f32: `inputs` has value 1, expected pre, log_threshold?"
        );
    }
}
