//! A tensor of one value.
//!
//! `y[i] = value`.

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
    /// What each of them becomes.
    pub value: f32,
    pad: [u32; 2],
}

/// Invocations of a workgroup.
const BLOCK: u32 = 256;

/// Values of a block in PTX: four vectors of four for each of 256 threads.
const PTX_VALUES: u32 = 4096;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "fill_f32",
    slots: &[Slot::write("y", DType::F32)],
    fields: fields![Params; elements, value],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("fill.wgsl"), "fill_f32", [BLOCK, 1, 1], |params| {
        fold_groups(bytemuck::pod_read_unaligned::<Params>(params).elements.div_ceil(BLOCK).into())
    })],
    ptx: &[Ptx {
        registers: 24,
        ..Ptx::new(include_str!("fill_f32.ptx"), "fill_f32", [256, 1, 1], |params, _| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            [p.elements.div_ceil(PTX_VALUES), 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// A tensor of one value.
#[derive(Clone, Debug)]
pub struct Fill {
    /// Extent of every axis of y, slowest first.
    pub shape: Vec<usize>,
    /// What every element becomes; finite.
    pub value: f32,
}

impl Fill {
    /// Plans `y = value`: nothing is read, y is f32 of the shape of this op.
    pub fn plan(&self) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let y = TensorDesc::f32(self.shape.as_slice());
        if !self.value.is_finite() {
            return Err(ShapeError::value(op, "value", self.value, "a finite number"));
        }
        let elements = y.elements();
        let params =
            Params { elements: ShapeError::size(op, "elements", elements)?, value: self.value, pad: [0; 2] };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost { bytes: y.bytes() as u64, flops: 0 },
            slots: vec![Some(y)],
            splits: vec![Split {
                items: elements,
                count_at: std::mem::offset_of!(Params, elements),
                first_at: None,
                item_bytes: vec![4],
            }],
        })
    }
}

impl Op for Fill {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "none"));
        };
        self.plan()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |shape: &[usize], value| {
            Fill { shape: shape.to_vec(), value }.plan().expect_err("refused").to_string()
        };
        assert_eq!(text(&[3], f32::NAN), "fill_f32: `value` has value NaN, expected a finite number");
        assert_eq!(
            text(&[65_536, 65_536], 0.0),
            "fill_f32: `elements` has value 4294967296, expected at most 4294967295"
        );
        let op: &dyn Op = &Fill { shape: vec![3], value: 0.0 };
        assert_eq!(
            op.plan(&[None]).expect_err("refused").to_string(),
            "fill_f32: `inputs` has value 1, expected none"
        );
    }
}
