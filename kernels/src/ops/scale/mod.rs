//! Multiplication by a constant.
//!
//! `y[i] = factor * x[i]`; a factor of exactly 1 copies bits.

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
    /// Values.
    pub elements: u32,
    /// What they are multiplied by.
    pub factor: f32,
    pad: [u32; 2],
}

/// Invocations of a workgroup.
const BLOCK: u32 = 256;

/// Values of a block in PTX: four vectors of four for each of 256 threads.
const PTX_VALUES: u32 = 4096;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "scale_f32",
    slots: &[Slot::read("x", DType::F32), Slot::write("y", DType::F32)],
    fields: fields![Params; elements, factor],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("scale.wgsl"), "scale_f32", [BLOCK, 1, 1], |params| {
        fold_groups(bytemuck::pod_read_unaligned::<Params>(params).elements.div_ceil(BLOCK).into())
    })],
    ptx: &[Ptx {
        registers: 32,
        ..Ptx::new(include_str!("scale_f32.ptx"), "scale_f32", [256, 1, 1], |params, _| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            [p.elements.div_ceil(PTX_VALUES), 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// Multiplication by a constant.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// What every value is multiplied by; finite.
    pub factor: f32,
}

impl Scale {
    /// Plans `y = factor * x`: x f32 of any shape, y like x.
    pub fn plan(&self, x: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        if x.dtype != DType::F32 {
            return Err(ShapeError::tensor(op, "x", x, "F32 of any shape"));
        }
        if !self.factor.is_finite() {
            return Err(ShapeError::value(op, "factor", self.factor, "a finite number"));
        }
        let elements = x.elements();
        let params = Params {
            elements: ShapeError::size(op, "elements", elements)?,
            factor: self.factor,
            pad: [0; 2],
        };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            slots: vec![Some(x.clone()), Some(x.clone())],
            cost: Cost { bytes: 2 * x.bytes() as u64, flops: elements as u64 },
            splits: vec![Split {
                items: elements,
                count_at: std::mem::offset_of!(Params, elements),
                first_at: None,
                item_bytes: vec![4, 4],
            }],
        })
    }
}

impl Op for Scale {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(x)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "x"));
        };
        self.plan(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |factor, x| Scale { factor }.plan(&x).expect_err("refused").to_string();
        assert_eq!(
            text(2.0, TensorDesc::u32([3])),
            "scale_f32: `x` has type and shape U32 [3], expected F32 of any shape"
        );
        assert_eq!(
            text(f32::INFINITY, TensorDesc::f32([3])),
            "scale_f32: `factor` has value inf, expected a finite number"
        );
        assert_eq!(
            text(2.0, TensorDesc::f32([65_536, 65_536])),
            "scale_f32: `elements` has value 4294967296, expected at most 4294967295"
        );
        let op: &dyn Op = &Scale { factor: 2.0 };
        assert_eq!(
            op.plan(&[]).expect_err("refused").to_string(),
            "scale_f32: `inputs` has value 0, expected x"
        );
    }
}
