//! A gate through the tanh form of GELU, times a value.
//!
//! `y = a / 2 * (1 + tanh(sqrt(2 / pi) * (a + 0.044715 a^3))) * b`, element by element: `gelu_new`, the activation of T5
//! v1.1. Not the exact GELU, which an activation of `linear` is.

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
    pad: [u32; 3],
}

/// Invocations of a workgroup.
const BLOCK: u32 = 256;

/// Values of a block in PTX: a vector of four for each of 256 threads.
const PTX_VALUES: u32 = 1024;

fn elements(params: &[u8]) -> u32 {
    bytemuck::pod_read_unaligned::<Params>(params).elements
}

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "gated_gelu_f32",
    slots: &[Slot::read("a", DType::F32), Slot::read("b", DType::F32), Slot::write("y", DType::F32)],
    fields: fields![Params; elements],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("gated_gelu.wgsl"), "gated_gelu_f32", [BLOCK, 1, 1], |params| {
        fold_groups(elements(params).div_ceil(BLOCK).into())
    })],
    ptx: &[Ptx {
        registers: 40,
        ..Ptx::new(include_str!("gated_gelu_f32.ptx"), "gated_gelu_f32", [256, 1, 1], |params, _| {
            [elements(params).div_ceil(PTX_VALUES), 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// A gate through the tanh form of GELU, times a value.
#[derive(Clone, Copy, Debug)]
pub struct GatedGelu;

impl GatedGelu {
    /// Plans `y = gelu_new(a) * b`: a f32 of any shape, b and y like a.
    pub fn plan(&self, a: &TensorDesc, b: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        if a.dtype != DType::F32 {
            return Err(ShapeError::tensor(op, "a", a, "F32 of any shape"));
        }
        ShapeError::expect(op, "b", b, a, "a")?;
        let elements = a.elements();
        let params = Params { elements: ShapeError::size(op, "elements", elements)?, pad: [0; 3] };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            slots: vec![Some(a.clone()), Some(b.clone()), Some(a.clone())],
            // a^3, its multiple and sum, the argument, tanh as one, its sum, two products and the half
            cost: Cost { bytes: 3 * a.bytes() as u64, flops: 9 * elements as u64 },
            splits: vec![Split {
                items: elements,
                count_at: std::mem::offset_of!(Params, elements),
                first_at: None,
                item_bytes: vec![4; 3],
            }],
        })
    }
}

impl Op for GatedGelu {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(a), Some(b)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "a, b"));
        };
        self.plan(a, b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |a: &TensorDesc, b: &TensorDesc| GatedGelu.plan(a, b).expect_err("refused").to_string();
        let a = TensorDesc::f32([3, 5]);
        assert_eq!(
            text(&TensorDesc::new(DType::BF16, [3, 5]), &a),
            "gated_gelu_f32: `a` has type and shape BF16 [3, 5], expected F32 of any shape"
        );
        assert_eq!(
            text(&a, &TensorDesc::f32([5])),
            "gated_gelu_f32: `b` has type and shape F32 [5], expected F32 [3, 5] (a)"
        );
        let vast = TensorDesc::f32([65_536, 65_536]);
        assert_eq!(
            text(&vast, &vast),
            "gated_gelu_f32: `elements` has value 4294967296, expected at most 4294967295"
        );
        let op: &dyn Op = &GatedGelu;
        assert_eq!(
            op.plan(&[Some(&a)]).expect_err("refused").to_string(),
            "gated_gelu_f32: `inputs` has value 1, expected a, b"
        );
    }
}
