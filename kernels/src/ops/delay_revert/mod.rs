//! The delay pattern of MusicGen, undone: ids in order of prediction become frames of codes.
//!
//! `codes[b, q, f] = ids[b, f + 1 + delay, q]`, `delay = q / channels`, and `special` where that position does not
//! exist.

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
    name: "delay_revert_u32",
    slots: &[Slot::read("ids", DType::U32), Slot::write("codes", DType::U32)],
    fields: fields![Params; batch, codebooks, frames, steps, special, channels],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("delay_revert.wgsl"), "delay_revert_u32", [BLOCK, 1, 1], |params| {
        let p: Params = bytemuck::pod_read_unaligned(params);
        let ids = u64::from(p.batch) * u64::from(p.codebooks) * u64::from(p.frames);
        fold_groups(ids.div_ceil(BLOCK.into()))
    })],
    ptx: &[Ptx {
        registers: 16,
        ..Ptx::new(include_str!("delay_revert_u32.ptx"), "delay_revert_u32", [BLOCK, 1, 1], |params, _| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            [(p.batch * p.codebooks * p.frames).div_ceil(BLOCK), 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// The delay pattern of MusicGen, undone.
#[derive(Clone, Copy, Debug)]
pub struct DelayRevert {
    /// The code of a place without an id.
    pub special: u32,
    /// Neighbouring codebooks that share a delay: 1 for mono, 2 for stereo.
    pub channels: usize,
    /// Frames of the result.
    pub frames: usize,
}

impl DelayRevert {
    /// Plans codes u32 `[batch, codebooks, frames]` from ids u32 `[batch, steps, codebooks]`.
    pub fn plan(&self, ids: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::U32, &[batch, steps, codebooks]) = (ids.dtype, ids.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "ids", ids, "U32 [batch, steps, codebooks]"));
        };
        if self.channels == 0 || codebooks % self.channels != 0 {
            let expected = format!("a divisor of {codebooks} (codebooks of ids)");
            return Err(ShapeError::value(op, "channels", self.channels, expected));
        }
        // so that `f + 1 + delay` fits in 32 bits
        let longest = codebooks.saturating_sub(1) / self.channels;
        ShapeError::size(op, "last position", self.frames.saturating_add(longest))?;
        let codes = TensorDesc::u32([batch, codebooks, self.frames]);
        ShapeError::size(op, "elements of codes", codes.elements())?;
        let params = Params {
            batch: ShapeError::size(op, "batch", batch)?,
            codebooks: ShapeError::size(op, "codebooks", codebooks)?,
            frames: ShapeError::size(op, "frames", self.frames)?,
            steps: ShapeError::size(op, "steps", steps)?,
            special: self.special,
            channels: ShapeError::size(op, "channels", self.channels)?,
            pad: [0; 2],
        };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost { bytes: (ids.bytes() + codes.bytes()) as u64, flops: 0 },
            slots: vec![Some(ids.clone()), Some(codes)],
            splits: vec![Split {
                items: batch,
                count_at: std::mem::offset_of!(Params, batch),
                first_at: None,
                item_bytes: vec![4 * steps * codebooks, 4 * codebooks * self.frames],
            }],
        })
    }
}

impl Op for DelayRevert {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(ids)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "ids"));
        };
        self.plan(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |channels, frames, ids: &TensorDesc| {
            DelayRevert { special: 2048, channels, frames }.plan(ids).expect_err("refused").to_string()
        };
        assert_eq!(
            text(1, 4, &TensorDesc::u32([50, 4])),
            "delay_revert_u32: `ids` has type and shape U32 [50, 4], expected U32 [batch, steps, codebooks]"
        );
        assert_eq!(
            text(3, 4, &TensorDesc::u32([1, 50, 4])),
            "delay_revert_u32: `channels` has value 3, expected a divisor of 4 (codebooks of ids)"
        );
        assert_eq!(
            text(1, u32::MAX as usize, &TensorDesc::u32([0, 50, 4])),
            "delay_revert_u32: `last position` has value 4294967298, expected at most 4294967295"
        );
        let op: &dyn Op = &DelayRevert { special: 2048, channels: 1, frames: 3 };
        assert_eq!(
            op.plan(&[]).expect_err("refused").to_string(),
            "delay_revert_u32: `inputs` has value 0, expected ids"
        );
    }
}
