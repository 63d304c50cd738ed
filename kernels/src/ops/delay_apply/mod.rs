//! The delay pattern of MusicGen: codebook q of a frame is predicted q positions later.
//!
//! `ids[b, s, q] = codes[b, q, s - 1 - delay]`, `delay = q / channels`, and `special` where that frame does not exist.
//! The position before the first frame holds nothing but `special` (HF `modeling_musicgen.py`,
//! `build_delay_pattern_mask`).

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
    /// Sequences.
    pub batch: u32,
    /// Codebooks, all channels together.
    pub codebooks: u32,
    /// Frames of codes.
    pub frames: u32,
    /// Positions of the language model.
    pub steps: u32,
    /// The id of a place without a code.
    pub special: u32,
    /// Neighbouring codebooks that share a delay: 1 for mono, 2 for stereo.
    pub channels: u32,
    pad: [u32; 2],
}

/// Invocations of a workgroup, threads of a block.
const BLOCK: u32 = 256;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "delay_apply_u32",
    slots: &[Slot::read("codes", DType::U32), Slot::write("ids", DType::U32)],
    fields: fields![Params; batch, codebooks, frames, steps, special, channels],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("delay_apply.wgsl"), "delay_apply_u32", [BLOCK, 1, 1], |params| {
        let p: Params = bytemuck::pod_read_unaligned(params);
        let ids = u64::from(p.batch) * u64::from(p.codebooks) * u64::from(p.steps);
        fold_groups(ids.div_ceil(BLOCK.into()))
    })],
    ptx: &[Ptx {
        registers: 16,
        ..Ptx::new(include_str!("delay_apply_u32.ptx"), "delay_apply_u32", [BLOCK, 1, 1], |params, _| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            [(p.batch * p.codebooks * p.steps).div_ceil(BLOCK), 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// How many positions a sequence of frames is laid out over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// `frames + 1`: the positions at which the first codebook has a frame, and the one before them.
    Valid,
    /// `frames + 1 + longest delay`: all positions at which any codebook has a frame, and the one before them.
    Full,
}

impl Steps {
    /// Positions for `frames` frames of `codebooks` codebooks, of which `channels` at a time share a delay.
    pub fn count(self, frames: usize, codebooks: usize, channels: usize) -> usize {
        match self {
            Self::Valid => frames + 1,
            Self::Full => frames + 1 + codebooks.saturating_sub(1) / channels,
        }
    }
}

/// The delay pattern of MusicGen, applied.
#[derive(Clone, Copy, Debug)]
pub struct DelayApply {
    /// The id of a place without a code.
    pub special: u32,
    /// Neighbouring codebooks that share a delay: 1 for mono, 2 for stereo.
    pub channels: usize,
    /// How many positions there are.
    pub steps: Steps,
}

impl DelayApply {
    /// Plans ids u32 `[batch, steps, codebooks]` from codes u32 `[batch, codebooks, frames]`.
    pub fn plan(&self, codes: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::U32, &[batch, codebooks, frames]) = (codes.dtype, codes.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "codes", codes, "U32 [batch, codebooks, frames]"));
        };
        if self.channels == 0 || codebooks % self.channels != 0 {
            let expected = format!("a divisor of {codebooks} (codebooks of codes)");
            return Err(ShapeError::value(op, "channels", self.channels, expected));
        }
        let steps = self.steps.count(frames, codebooks, self.channels);
        let ids = TensorDesc::u32([batch, steps, codebooks]);
        ShapeError::size(op, "elements of ids", ids.elements())?;
        let params = Params {
            batch: ShapeError::size(op, "batch", batch)?,
            codebooks: ShapeError::size(op, "codebooks", codebooks)?,
            frames: ShapeError::size(op, "frames", frames)?,
            steps: ShapeError::size(op, "steps", steps)?,
            special: self.special,
            channels: ShapeError::size(op, "channels", self.channels)?,
            pad: [0; 2],
        };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost { bytes: (codes.bytes() + ids.bytes()) as u64, flops: 0 },
            slots: vec![Some(codes.clone()), Some(ids)],
            splits: vec![Split {
                items: batch,
                count_at: std::mem::offset_of!(Params, batch),
                first_at: None,
                item_bytes: vec![4 * codebooks * frames, 4 * steps * codebooks],
            }],
        })
    }
}

impl Op for DelayApply {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(codes)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "codes"));
        };
        self.plan(codes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |channels, codes: &TensorDesc| {
            let op = DelayApply { special: 2048, channels, steps: Steps::Valid };
            op.plan(codes).expect_err("refused").to_string()
        };
        assert_eq!(
            text(1, &TensorDesc::u32([4, 50])),
            "delay_apply_u32: `codes` has type and shape U32 [4, 50], expected U32 [batch, codebooks, frames]"
        );
        assert_eq!(
            text(1, &TensorDesc::f32([1, 4, 50])),
            "delay_apply_u32: `codes` has type and shape F32 [1, 4, 50], expected U32 [batch, codebooks, frames]"
        );
        for channels in [0, 3] {
            assert_eq!(
                text(channels, &TensorDesc::u32([1, 4, 50])),
                format!(
                    "delay_apply_u32: `channels` has value {channels}, expected a divisor of 4 (codebooks of codes)"
                )
            );
        }
        let op: &dyn Op = &DelayApply { special: 2048, channels: 1, steps: Steps::Full };
        assert_eq!(
            op.plan(&[None]).expect_err("refused").to_string(),
            "delay_apply_u32: `inputs` has value 1, expected codes"
        );
    }
}
