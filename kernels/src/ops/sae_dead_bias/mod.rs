//! The encoder's bias for features that have been silent, minus infinity for all others: an encoder with it finds the
//! largest among the silent.
//!
//! `y[f] = bias[f]` where history\[f, 1\], the steps since the feature was last active, is at least `after`; else minus infinity.

mod cases;
mod reference;

use super::sae_feature_sums::HISTORY;
use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Values of y.
    pub features: u32,
    /// Steps without activity after which a feature counts as silent.
    pub after: u32,
    pad: [u32; 2],
}

/// Invocations of a workgroup.
const BLOCK: u32 = 256;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_dead_bias_f32",
    slots: &[Slot::read("bias", DType::F32), Slot::read("history", DType::U32), Slot::write("y", DType::F32)],
    fields: fields![Params; features, after],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sae_dead_bias.wgsl"), "sae_dead_bias_f32", [BLOCK, 1, 1], |params| {
        fold_groups(bytemuck::pod_read_unaligned::<Params>(params).features.div_ceil(BLOCK).into())
    })],
    ptx: &[Ptx {
        registers: 32,
        ..Ptx::new(include_str!("sae_dead_bias_f32.ptx"), "sae_dead_bias_f32", [64, 1, 1], |params, _| {
            [bytemuck::pod_read_unaligned::<Params>(params).features.div_ceil(256), 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// The bias of silent features.
#[derive(Clone, Copy, Debug)]
pub struct SaeDeadBias {
    /// Steps without activity after which a feature counts as silent.
    pub after: u32,
}

impl SaeDeadBias {
    /// Plans the bias: bias f32 `[features]`, history u32 `[features, 3]`, y f32 `[features]`.
    pub fn plan(&self, bias: &TensorDesc, history: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[features]) = (bias.dtype, bias.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "bias", bias, "F32 [features]"));
        };
        let counts = TensorDesc::u32([features, HISTORY]);
        ShapeError::expect(op, "history", history, &counts, "values of bias, counts of a feature")?;
        ShapeError::size(op, "elements of history", history.elements())?;
        let params =
            Params { features: ShapeError::size(op, "features", features)?, after: self.after, pad: [0; 2] };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost { bytes: (2 * bias.bytes() + 4 * features) as u64, flops: 0 },
            slots: vec![Some(bias.clone()), Some(history.clone()), Some(bias.clone())],
            splits: vec![],
        })
    }
}

impl Op for SaeDeadBias {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(bias), Some(history)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "bias, history"));
        };
        self.plan(bias, history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |bias: &TensorDesc, history: &[usize]| {
            SaeDeadBias { after: 3 }.plan(bias, &TensorDesc::u32(history)).expect_err("refused").to_string()
        };
        assert_eq!(
            text(&TensorDesc::u32([5]), &[5, 3]),
            "sae_dead_bias_f32: `bias` has type and shape U32 [5], expected F32 [features]"
        );
        assert_eq!(
            text(&TensorDesc::f32([5]), &[4, 3]),
            "sae_dead_bias_f32: `history` has type and shape U32 [4, 3], expected U32 [5, 3] (values of bias, counts of a feature)"
        );
        let op: &dyn Op = &SaeDeadBias { after: 3 };
        assert_eq!(
            op.plan(&[None]).expect_err("refused").to_string(),
            "sae_dead_bias_f32: `inputs` has value 1, expected bias, history"
        );
    }
}
