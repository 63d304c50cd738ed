//! The largest activations of a whole batch, and the running average of the least of them.
//!
//! `least` is the most-th largest value above 0, or the smallest above 0 where there are no more than so many. Values above 0 and
//! below it become 0; those that equal it all stay, so that rows do not depend on their order. Then
//! `threshold = keep threshold + (1 - keep) least`; where no value is above 0 it stays as it was.
//!
//! Values above 0 are in the order of their bits, so that the selection is one of digits: three, of 11, 10 and 10 bits.

mod cases;
mod reference;

use crate::{Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, TensorDesc, Wgsl, fields};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Values there are.
    pub elements: u32,
    /// How many of them stay.
    pub most: u32,
    pad: [u32; 2],
}

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_batch_top_k_f32",
    slots: &[
        Slot::update("values", DType::F32),
        Slot::update("threshold", DType::F32),
        Slot::read("keep", DType::F32),
    ],
    fields: fields![Params; elements, most],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sae_batch_top_k.wgsl"), "sae_batch_top_k_f32", [256, 1, 1], |_| {
        [1, 1, 1]
    })],
    ptx: &[Ptx {
        registers: 40,
        static_shared: 8208,
        ..Ptx::new(include_str!("sae_batch_top_k_f32.ptx"), "sae_batch_top_k_f32", [1024, 1, 1], |_, _| {
            [1, 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// The largest activations of a batch.
#[derive(Clone, Copy, Debug)]
pub struct SaeBatchTopK {
    /// How many values stay: at least 1.
    pub most: usize,
}

impl SaeBatchTopK {
    /// Plans the selection: values f32 of any shape and threshold f32 `[1]`, both updated, keep f32 `[1]`.
    pub fn plan(
        &self,
        values: &TensorDesc,
        threshold: &TensorDesc,
        keep: &TensorDesc,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        if values.dtype != DType::F32 {
            return Err(ShapeError::tensor(op, "values", values, "F32 of any shape"));
        }
        for (name, desc) in [("threshold", threshold), ("keep", keep)] {
            ShapeError::expect(op, name, desc, &TensorDesc::f32([1]), "one number")?;
        }
        let elements = values.elements();
        if self.most == 0 {
            return Err(ShapeError::value(op, "most", self.most, "at least 1"));
        }
        // a thread looks ahead of the last of them
        ShapeError::size(op, "elements of values, twice", 2 * elements)?;
        let params = Params {
            elements: ShapeError::size(op, "elements of values", elements)?,
            most: ShapeError::size(op, "most", self.most.min(elements))?,
            pad: [0; 2],
        };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost { bytes: (2 * values.bytes() + 12) as u64, flops: 0 },
            slots: vec![Some(values.clone()), Some(threshold.clone()), Some(keep.clone())],
            splits: vec![],
        })
    }
}

impl Op for SaeBatchTopK {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(values), Some(threshold), Some(keep)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "values, threshold, keep"));
        };
        self.plan(values, threshold, keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |most, values: &TensorDesc, threshold: &[usize], keep: &[usize]| {
            SaeBatchTopK { most }
                .plan(values, &TensorDesc::f32(threshold), &TensorDesc::f32(keep))
                .expect_err("refused")
                .to_string()
        };
        let values = TensorDesc::f32([3, 5]);
        assert_eq!(
            text(2, &TensorDesc::u32([3, 5]), &[1], &[1]),
            "sae_batch_top_k_f32: `values` has type and shape U32 [3, 5], expected F32 of any shape"
        );
        assert_eq!(
            text(2, &values, &[2], &[1]),
            "sae_batch_top_k_f32: `threshold` has type and shape F32 [2], expected F32 [1] (one number)"
        );
        assert_eq!(
            text(2, &values, &[1], &[3]),
            "sae_batch_top_k_f32: `keep` has type and shape F32 [3], expected F32 [1] (one number)"
        );
        assert_eq!(
            text(0, &values, &[1], &[1]),
            "sae_batch_top_k_f32: `most` has value 0, expected at least 1"
        );
        let op: &dyn Op = &SaeBatchTopK { most: 2 };
        assert_eq!(
            op.plan(&[None]).expect_err("refused").to_string(),
            "sae_batch_top_k_f32: `inputs` has value 1, expected values, threshold, keep"
        );
    }
}
