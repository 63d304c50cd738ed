//! A step of Adam for every value of a parameter.
//!
//! With g = rates\[0\] * grad\[i, column\]: v = beta2 v + (1 - beta2) g^2, m = beta1 m + (1 - beta1) g, and
//! `param[i] -= rates[1] * m / (rates[2] * sqrt(v) + eps)`. Where beta1 is 0, m is g and is not kept. What the rates are is said at
//! [`super::sae_clip`]; the corrections of the moments' bias are among them.

mod cases;
mod reference;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Numbers of `rates`.
pub const RATES: usize = 4;

/// The optimiser: Kingma and Ba, "Adam: a method for stochastic optimization" (2014), without weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// How much of the first moment is kept from step to step; 0 for the gradient itself.
    pub beta1: f64,
    /// How much of the second moment is kept from step to step.
    pub beta2: f64,
    /// What is added to the root of the second moment; above 0.
    pub eps: f32,
}

impl Adam {
    /// How many moments are kept: the second, and where `beta1` is not 0, behind it the first.
    pub fn moments(&self) -> usize {
        if self.beta1 == 0.0 { 1 } else { 2 }
    }

    /// Refuses what is no optimiser.
    pub(crate) fn check(&self, op: &'static str) -> Result<(), ShapeError> {
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(ShapeError::value(op, name, beta, "0 up to but not including 1"));
            }
        }
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return Err(ShapeError::value(op, "eps", self.eps, "a finite number above 0"));
        }
        Ok(())
    }
}

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Values of the parameter.
    pub elements: u32,
    /// Row length of grad.
    pub stride: u32,
    /// Which of a row of grad counts.
    pub column: u32,
    /// 1 where the second moment alone is kept, 2 with the first.
    pub count: u32,
    /// beta1.
    pub keep1: f32,
    /// 1 - beta1.
    pub fresh1: f32,
    /// beta2.
    pub keep2: f32,
    /// 1 - beta2.
    pub fresh2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    pad: [u32; 3],
}

/// Invocations of a workgroup.
const BLOCK: u32 = 256;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "adam_f32",
    slots: &[
        Slot::update("param", DType::F32),
        Slot::update("moments", DType::F32),
        Slot::read("grad", DType::F32),
        Slot::read("rates", DType::F32),
    ],
    fields: fields![Params; elements, stride, column, count, keep1, fresh1, keep2, fresh2, eps],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("adam.wgsl"), "adam_f32", [BLOCK, 1, 1], |params| {
        fold_groups(bytemuck::pod_read_unaligned::<Params>(params).elements.div_ceil(BLOCK).into())
    })],
    ptx: &[Ptx {
        registers: 32,
        ..Ptx::new(include_str!("adam_f32.ptx"), "adam_f32", [128, 1, 1], |params, _| {
            [bytemuck::pod_read_unaligned::<Params>(params).elements.div_ceil(128), 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// A step of Adam by column `column` of a table of gradients.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    /// The optimiser.
    pub adam: Adam,
    /// Which column of `grad` is the gradient.
    pub column: usize,
}

impl AdamStep {
    /// Plans a step: param f32 `[elements]` and moments f32 `[1 or 2, elements]` (the second moment, then the first where
    /// beta1 is not 0), both updated, grad f32 `[elements, columns]`, rates f32 `[4]`.
    pub fn plan(
        &self,
        param: &TensorDesc,
        moments: &TensorDesc,
        grad: &TensorDesc,
        rates: &TensorDesc,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        self.adam.check(op)?;
        let (DType::F32, &[elements]) = (param.dtype, param.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "param", param, "F32 [elements]"));
        };
        let count = self.adam.moments();
        let kept = TensorDesc::f32([count, elements]);
        ShapeError::expect(op, "moments", moments, &kept, "a moment, two where beta1 is not 0; param")?;
        let stride = match (grad.dtype, grad.shape.as_slice()) {
            (DType::F32, &[n, columns]) if n == elements && self.column < columns => columns,
            _ => {
                let expected =
                    format!("F32 [{elements}, more than {}] (elements of param, column)", self.column);
                return Err(ShapeError::tensor(op, "grad", grad, expected));
            }
        };
        ShapeError::expect(op, "rates", rates, &TensorDesc::f32([RATES]), "what sae_clip yields")?;
        ShapeError::size(op, "elements of grad", grad.elements())?;
        let Adam { beta1, beta2, eps } = self.adam;
        let params = Params {
            elements: ShapeError::size(op, "elements", elements)?,
            stride: ShapeError::size(op, "columns", stride)?,
            column: ShapeError::size(op, "column", self.column)?,
            count: ShapeError::size(op, "moments", count)?,
            keep1: beta1 as f32,
            fresh1: (1.0 - beta1) as f32,
            keep2: beta2 as f32,
            fresh2: (1.0 - beta2) as f32,
            eps,
            pad: [0; 3],
        };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (2 * param.bytes() + 2 * moments.bytes() + param.bytes() + rates.bytes()) as u64,
                flops: 10 * elements as u64,
            },
            slots: vec![Some(param.clone()), Some(moments.clone()), Some(grad.clone()), Some(rates.clone())],
            splits: vec![],
        })
    }
}

impl Op for AdamStep {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(param), Some(moments), Some(grad), Some(rates)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "param, moments, grad, rates"));
        };
        self.plan(param, moments, grad, rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |adam, param: &[usize], moments: &[usize], grad: &[usize], rates: &[usize]| {
            AdamStep { adam, column: 1 }
                .plan(
                    &TensorDesc::f32(param),
                    &TensorDesc::f32(moments),
                    &TensorDesc::f32(grad),
                    &TensorDesc::f32(rates),
                )
                .expect_err("refused")
                .to_string()
        };
        let adam = Adam { beta1: 0.0, beta2: 0.999, eps: 1e-8 };
        assert_eq!(
            text(Adam { beta2: 1.0, ..adam }, &[5], &[1, 5], &[5, 2], &[4]),
            "adam_f32: `beta2` has value 1, expected 0 up to but not including 1"
        );
        assert_eq!(
            text(Adam { eps: 0.0, ..adam }, &[5], &[1, 5], &[5, 2], &[4]),
            "adam_f32: `eps` has value 0, expected a finite number above 0"
        );
        assert_eq!(
            text(adam, &[5, 1], &[1, 5], &[5, 2], &[4]),
            "adam_f32: `param` has type and shape F32 [5, 1], expected F32 [elements]"
        );
        assert_eq!(
            text(Adam { beta1: 0.9, ..adam }, &[5], &[1, 5], &[5, 2], &[4]),
            "adam_f32: `moments` has type and shape F32 [1, 5], expected F32 [2, 5] (a moment, two where beta1 is not 0; param)"
        );
        assert_eq!(
            text(adam, &[5], &[1, 5], &[5, 1], &[4]),
            "adam_f32: `grad` has type and shape F32 [5, 1], expected F32 [5, more than 1] (elements of param, column)"
        );
        assert_eq!(
            text(adam, &[5], &[1, 5], &[5, 2], &[3]),
            "adam_f32: `rates` has type and shape F32 [3], expected F32 [4] (what sae_clip yields)"
        );
        let op: &dyn Op = &AdamStep { adam, column: 0 };
        assert_eq!(
            op.plan(&[None]).expect_err("refused").to_string(),
            "adam_f32: `inputs` has value 1, expected param, moments, grad, rates"
        );
    }
}
