//! The rates of a step of training: the length of the whole gradient, and how much of it and of Adam's step is taken.
//!
//! Gradients come without the factor `scale` (2 / rows) that all of them share. With norm = scale * sqrt(sum of the features'
//! squares + sum of bias_grad^2), the rates are: scale * min(1, max_norm / (norm + 1e-6)), or scale where max_norm is 0;
//! schedule\[0\], Adam's step; schedule\[1\], one over the root of its second moment's correction; norm, for records.
//!
//! The features' squares are column 0 of what [`super::sae_feature_sums`] yields.

mod cases;
mod reference;

use super::adam::RATES;
use super::sae_feature_sums::SUMS;
use crate::{Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, TensorDesc, Wgsl, fields};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows of sums.
    pub features: u32,
    /// Values of bias_grad.
    pub width: u32,
    /// What gradients are short of.
    pub scale: f32,
    /// Longest gradient; 0 for any.
    pub max_norm: f32,
}

/// Numbers of `schedule`: the step, one over the root of the second moment's correction.
pub const SCHEDULE: usize = 2;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_clip_f32",
    slots: &[
        Slot::read("sums", DType::F32),
        Slot::read("bias_grad", DType::F32),
        Slot::read("schedule", DType::F32),
        Slot::write("rates", DType::F32),
    ],
    fields: fields![Params; features, width, scale, max_norm],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sae_clip.wgsl"), "sae_clip_f32", [256, 1, 1], |_| [1, 1, 1])],
    ptx: &[Ptx {
        registers: 40,
        static_shared: 128,
        ..Ptx::new(include_str!("sae_clip_f32.ptx"), "sae_clip_f32", [1024, 1, 1], |_, _| [1, 1, 1])
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// The rates of a step of training.
#[derive(Clone, Copy, Debug)]
pub struct SaeClip {
    /// What gradients are short of; finite, above 0.
    pub scale: f32,
    /// Longest gradient; 0 for any.
    pub max_norm: f32,
}

impl SaeClip {
    /// Plans the rates: sums f32 `[features, 4]`, bias_grad f32 `[width, 1]`, schedule f32 `[2]`, rates f32 `[4]`.
    pub fn plan(
        &self,
        sums: &TensorDesc,
        bias_grad: &TensorDesc,
        schedule: &TensorDesc,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[features, SUMS]) = (sums.dtype, sums.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "sums", sums, format!("F32 [features, {SUMS}]")));
        };
        let (DType::F32, &[width, 1]) = (bias_grad.dtype, bias_grad.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "bias_grad", bias_grad, "F32 [width, 1]"));
        };
        ShapeError::expect(op, "schedule", schedule, &TensorDesc::f32([SCHEDULE]), "step and correction")?;
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            return Err(ShapeError::value(op, "scale", self.scale, "a finite number above 0"));
        }
        if !(self.max_norm >= 0.0 && self.max_norm.is_finite()) {
            return Err(ShapeError::value(op, "max_norm", self.max_norm, "a finite number, 0 for no limit"));
        }
        ShapeError::size(op, "elements of sums", sums.elements())?;
        let params = Params {
            features: ShapeError::size(op, "features", features)?,
            width: ShapeError::size(op, "width", width)?,
            scale: self.scale,
            max_norm: self.max_norm,
        };
        let rates = TensorDesc::f32([RATES]);
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (4 * features + bias_grad.bytes() + schedule.bytes() + rates.bytes()) as u64,
                flops: (features + 2 * width) as u64,
            },
            slots: vec![Some(sums.clone()), Some(bias_grad.clone()), Some(schedule.clone()), Some(rates)],
            splits: vec![],
        })
    }
}

impl Op for SaeClip {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(sums), Some(bias_grad), Some(schedule)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "sums, bias_grad, schedule"));
        };
        self.plan(sums, bias_grad, schedule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |op: SaeClip, sums: &[usize], bias: &[usize], schedule: &[usize]| {
            op.plan(&TensorDesc::f32(sums), &TensorDesc::f32(bias), &TensorDesc::f32(schedule))
                .expect_err("refused")
                .to_string()
        };
        let clip = SaeClip { scale: 0.5, max_norm: 1.0 };
        assert_eq!(
            text(clip, &[7, 3], &[5, 1], &[2]),
            "sae_clip_f32: `sums` has type and shape F32 [7, 3], expected F32 [features, 4]"
        );
        assert_eq!(
            text(clip, &[7, 4], &[5], &[2]),
            "sae_clip_f32: `bias_grad` has type and shape F32 [5], expected F32 [width, 1]"
        );
        assert_eq!(
            text(clip, &[7, 4], &[5, 1], &[3]),
            "sae_clip_f32: `schedule` has type and shape F32 [3], expected F32 [2] (step and correction)"
        );
        assert_eq!(
            text(SaeClip { scale: 0.0, ..clip }, &[7, 4], &[5, 1], &[2]),
            "sae_clip_f32: `scale` has value 0, expected a finite number above 0"
        );
        assert_eq!(
            text(SaeClip { max_norm: -1.0, ..clip }, &[7, 4], &[5, 1], &[2]),
            "sae_clip_f32: `max_norm` has value -1, expected a finite number, 0 for no limit"
        );
        let op: &dyn Op = &clip;
        assert_eq!(
            op.plan(&[None]).expect_err("refused").to_string(),
            "sae_clip_f32: `inputs` has value 1, expected sums, bias_grad, schedule"
        );
    }
}
