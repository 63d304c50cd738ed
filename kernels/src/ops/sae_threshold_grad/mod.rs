//! The gradient of the logarithms of thresholds, estimated by a rectangle around each.
//!
//! A threshold is a step, which has no gradient; Rajamanoharan et al., "Jumping ahead" (2024), equations 11 and 12, estimate one from
//! the pre-activations within half a bandwidth of it. With t = exp(log_threshold\[f\]) and the error e = decoded - x of a row:
//! `grad[f] = -(t / bandwidth) sum of (t e[r] . w_dec[f] + penalty)` over the rows r with |pre\[r, f\] - t| < bandwidth / 2. The factor
//! 2 / rows is put on by [`super::sae_clip`].

mod cases;
mod cpu;
mod reference;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows of the batch.
    pub rows: u32,
    /// Thresholds.
    pub features: u32,
    /// Length of an error.
    pub width: u32,
    /// Width of the rectangle.
    pub bandwidth: f32,
}

/// Features of a block of the PTX form.
const PTX_FEATURES: u32 = 8;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_threshold_grad_f32",
    slots: &[
        Slot::read("pre", DType::F32),
        Slot::read("log_threshold", DType::F32),
        Slot::read("w_dec", DType::F32),
        Slot::read("error", DType::F32),
        Slot::read("penalty", DType::F32),
        Slot::write("grad", DType::F32),
    ],
    fields: fields![Params; rows, features, width, bandwidth],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(
        include_str!("sae_threshold_grad.wgsl"),
        "sae_threshold_grad_f32",
        [64, 1, 1],
        |params| fold_groups(bytemuck::pod_read_unaligned::<Params>(params).features.into()),
    )],
    ptx: &[Ptx {
        registers: 48,
        ..Ptx::new(
            include_str!("sae_threshold_grad_f32.ptx"),
            "sae_threshold_grad_f32",
            [256, 1, 1],
            |params, _| {
                [bytemuck::pod_read_unaligned::<Params>(params).features.div_ceil(PTX_FEATURES), 1, 1]
            },
        )
    }],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// The gradient of the logarithms of thresholds.
#[derive(Clone, Copy, Debug)]
pub struct SaeThresholdGrad {
    /// Width of the rectangle; finite, above 0.
    pub bandwidth: f32,
}

impl SaeThresholdGrad {
    /// Plans the gradient f32 `[features, 1]`: pre f32 `[rows, features]`, log_threshold f32 `[features]`, w_dec f32
    /// `[features, width]`, error f32 `[rows, width]`, penalty f32 `[1]`.
    pub fn plan(
        &self,
        pre: &TensorDesc,
        log_threshold: &TensorDesc,
        w_dec: &TensorDesc,
        error: &TensorDesc,
        penalty: &TensorDesc,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[rows, features]) = (pre.dtype, pre.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "pre", pre, "F32 [rows, features]"));
        };
        let logs = TensorDesc::f32([features]);
        ShapeError::expect(op, "log_threshold", log_threshold, &logs, "last axis of pre")?;
        let width = match (w_dec.dtype, w_dec.shape.as_slice()) {
            (DType::F32, &[n, width]) if n == features => width,
            _ => {
                let expected = format!("F32 [{features}, width] (last axis of pre)");
                return Err(ShapeError::tensor(op, "w_dec", w_dec, expected));
            }
        };
        let errors = TensorDesc::f32([rows, width]);
        ShapeError::expect(op, "error", error, &errors, "rows of pre, last axis of w_dec")?;
        ShapeError::expect(op, "penalty", penalty, &TensorDesc::f32([1]), "one number")?;
        if !(self.bandwidth > 0.0 && self.bandwidth.is_finite()) {
            return Err(ShapeError::value(op, "bandwidth", self.bandwidth, "a finite number above 0"));
        }
        ShapeError::size(op, "elements of pre", pre.elements())?;
        ShapeError::size(op, "elements of w_dec", w_dec.elements())?;
        ShapeError::size(op, "elements of error", error.elements())?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            features: ShapeError::size(op, "features", features)?,
            width: ShapeError::size(op, "width", width)?,
            bandwidth: self.bandwidth,
        };
        let grad = TensorDesc::f32([features, 1]);
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            // how many rows are near a threshold is not known here: what each has at least
            cost: Cost {
                bytes: (pre.bytes() + logs.bytes() + grad.bytes()) as u64,
                flops: pre.elements() as u64,
            },
            slots: vec![
                Some(pre.clone()),
                Some(log_threshold.clone()),
                Some(w_dec.clone()),
                Some(error.clone()),
                Some(penalty.clone()),
                Some(grad),
            ],
            splits: vec![],
        })
    }
}

impl Op for SaeThresholdGrad {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(pre), Some(log_threshold), Some(w_dec), Some(error), Some(penalty)] = inputs else {
            let expected = "pre, log_threshold, w_dec, error, penalty";
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), expected));
        };
        self.plan(pre, log_threshold, w_dec, error, penalty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |bandwidth, shapes: [&[usize]; 5]| {
            let [pre, logs, w_dec, error, penalty] = shapes.map(TensorDesc::f32);
            SaeThresholdGrad { bandwidth }
                .plan(&pre, &logs, &w_dec, &error, &penalty)
                .expect_err("refused")
                .to_string()
        };
        assert_eq!(
            text(0.1, [&[15], &[5], &[5, 7], &[3, 7], &[1]]),
            "sae_threshold_grad_f32: `pre` has type and shape F32 [15], expected F32 [rows, features]"
        );
        assert_eq!(
            text(0.1, [&[3, 5], &[3], &[5, 7], &[3, 7], &[1]]),
            "sae_threshold_grad_f32: `log_threshold` has type and shape F32 [3], expected F32 [5] (last axis of pre)"
        );
        assert_eq!(
            text(0.1, [&[3, 5], &[5], &[3, 7], &[3, 7], &[1]]),
            "sae_threshold_grad_f32: `w_dec` has type and shape F32 [3, 7], expected F32 [5, width] (last axis of pre)"
        );
        assert_eq!(
            text(0.1, [&[3, 5], &[5], &[5, 7], &[5, 7], &[1]]),
            "sae_threshold_grad_f32: `error` has type and shape F32 [5, 7], expected F32 [3, 7] (rows of pre, last axis of w_dec)"
        );
        assert_eq!(
            text(0.1, [&[3, 5], &[5], &[5, 7], &[3, 7], &[2]]),
            "sae_threshold_grad_f32: `penalty` has type and shape F32 [2], expected F32 [1] (one number)"
        );
        assert_eq!(
            text(0.0, [&[3, 5], &[5], &[5, 7], &[3, 7], &[1]]),
            "sae_threshold_grad_f32: `bandwidth` has value 0, expected a finite number above 0"
        );
        let op: &dyn Op = &SaeThresholdGrad { bandwidth: 0.1 };
        assert_eq!(
            op.plan(&[None]).expect_err("refused").to_string(),
            "sae_threshold_grad_f32: `inputs` has value 1, expected pre, log_threshold, w_dec, error, penalty"
        );
    }
}
