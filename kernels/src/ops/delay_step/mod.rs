//! One step along the delay pattern, on the device: the sampled codes go into the sequence, the next column comes out.
//!
//! With c = positions\[take\] the column that was just fed, and t = c - delay, delay = q / channels, the frame that
//! codebook q has in the next: `codes[take, q, t] = tokens[take, q]` for prompt <= t < frames, `ids[r, q] = codes[take, q, t]`
//! for 0 <= t < frames and `special` elsewhere, then `positions[r] += 1`. Columns from frames + longest delay on lie behind the
//! last code: there ids are `special` and nothing else changes. With prompt 0 and the first column all `special`, frames +
//! longest delay steps give every code. Frames past the sequence's capacity do not exist.

mod cases;
mod reference;

use super::sample::Guidance;
use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Sequences.
    pub takes: u32,
    /// Codebooks, all channels together.
    pub codebooks: u32,
    /// Frames that a sequence has room for.
    pub capacity: u32,
    /// The id of a place without a code.
    pub special: u32,
    /// Neighbouring codebooks that share a delay: 1 for mono, 2 for stereo.
    pub channels: u32,
    /// 1 where row takes + t is the twin of row t, else 0.
    pub paired: u32,
    pad: [u32; 2],
}

/// Invocations of a workgroup, threads of a block: one for each codebook of a sequence.
const BLOCK: u32 = 32;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "delay_step_u32",
    slots: &[
        Slot::read("tokens", DType::U32),
        Slot::read("limits", DType::U32),
        Slot::update("positions", DType::U32),
        Slot::update("codes", DType::U32),
        Slot::write("ids", DType::U32),
    ],
    fields: fields![Params; takes, codebooks, capacity, special, channels, paired],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("delay_step.wgsl"), "delay_step_u32", [BLOCK, 1, 1], groups)],
    ptx: &[Ptx {
        registers: 40,
        ..Ptx::new(include_str!("delay_step_u32.ptx"), "delay_step_u32", [BLOCK, 1, 1], |params, _| {
            groups(params)
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// One for each sequence, since positions may change only after all of its codebooks have read them.
fn groups(params: &[u8]) -> [u32; 3] {
    fold_groups(bytemuck::pod_read_unaligned::<Params>(params).takes.into())
}

/// One step along the delay pattern.
#[derive(Clone, Copy, Debug)]
pub struct DelayStep {
    /// The id of a place without a code.
    pub special: u32,
    /// Neighbouring codebooks that share a delay: 1 for mono, 2 for stereo.
    pub channels: usize,
    /// Whether every sequence has a second row, which gets the same column.
    pub guided: Guidance,
}

impl DelayStep {
    /// Plans ids u32 `[rows, codebooks]` from tokens u32 `[takes, codebooks]` and limits u32 `[takes, 2]` (frames of the
    /// prompt, frames), and updates positions u32 `[rows]` and codes u32 `[takes, codebooks, capacity]`.
    pub fn plan(
        &self,
        tokens: &TensorDesc,
        limits: &TensorDesc,
        positions: &TensorDesc,
        codes: &TensorDesc,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::U32, &[takes, codebooks @ (1..)]) = (tokens.dtype, tokens.shape.as_slice()) else {
            return Err(ShapeError::tensor(
                op,
                "tokens",
                tokens,
                "U32 [takes, codebooks] with a codebook or more",
            ));
        };
        if self.channels == 0 || codebooks % self.channels != 0 {
            let expected = format!("a divisor of {codebooks} (codebooks of tokens)");
            return Err(ShapeError::value(op, "channels", self.channels, expected));
        }
        ShapeError::expect(op, "limits", limits, &TensorDesc::u32([takes, 2]), "takes of tokens")?;
        let rows = self.guided.rows(takes);
        let why = self.guided.why();
        ShapeError::expect(op, "positions", positions, &TensorDesc::u32([rows]), why)?;
        let fits = |shape: &[usize]| matches!(shape, &[t, q, _] if t == takes && q == codebooks);
        if codes.dtype != DType::U32 || !fits(&codes.shape) {
            let expected = format!("U32 [{takes}, {codebooks}, capacity] (takes and codebooks of tokens)");
            return Err(ShapeError::tensor(op, "codes", codes, expected));
        }
        let ids = TensorDesc::u32([rows, codebooks]);
        ShapeError::size(op, "elements of codes", codes.elements())?;
        ShapeError::size(op, "elements of ids", ids.elements())?;
        let params = Params {
            takes: ShapeError::size(op, "takes", takes)?,
            codebooks: ShapeError::size(op, "codebooks", codebooks)?,
            capacity: ShapeError::size(op, "capacity", codes.shape[2])?,
            special: self.special,
            channels: ShapeError::size(op, "channels", self.channels)?,
            paired: u32::from(self.guided == Guidance::Pairs),
            pad: [0; 2],
        };
        // of codes one frame of every codebook is read or written
        let touched = tokens.bytes() + limits.bytes() + 2 * positions.bytes() + tokens.bytes() + ids.bytes();
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost { bytes: touched as u64, flops: 0 },
            slots: [tokens, limits, positions, codes, &ids].map(|desc| Some(desc.clone())).into(),
            splits: vec![],
        })
    }
}

impl Op for DelayStep {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(tokens), Some(limits), Some(positions), Some(codes)] = inputs else {
            return Err(ShapeError::value(
                INFO.name,
                "inputs",
                inputs.len(),
                "tokens, limits, positions, codes",
            ));
        };
        self.plan(tokens, limits, positions, codes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let u32s = |shape: &[usize]| TensorDesc::u32(shape);
        let text = |channels, guided, [tokens, limits, positions, codes]: [&[usize]; 4]| {
            DelayStep { special: 2048, channels, guided }
                .plan(&u32s(tokens), &u32s(limits), &u32s(positions), &u32s(codes))
                .expect_err("refused")
                .to_string()
        };
        assert_eq!(
            text(1, Guidance::None, [&[3, 0], &[3, 2], &[3], &[3, 0, 9]]),
            "delay_step_u32: `tokens` has type and shape U32 [3, 0], expected U32 [takes, codebooks] with a codebook or \
             more"
        );
        for channels in [0, 3] {
            assert_eq!(
                text(channels, Guidance::None, [&[3, 4], &[3, 2], &[3], &[3, 4, 9]]),
                format!(
                    "delay_step_u32: `channels` has value {channels}, expected a divisor of 4 (codebooks of tokens)"
                )
            );
        }
        assert_eq!(
            text(1, Guidance::None, [&[3, 4], &[3, 3], &[3], &[3, 4, 9]]),
            "delay_step_u32: `limits` has type and shape U32 [3, 3], expected U32 [3, 2] (takes of tokens)"
        );
        assert_eq!(
            text(1, Guidance::None, [&[3, 4], &[3, 2], &[6], &[3, 4, 9]]),
            "delay_step_u32: `positions` has type and shape U32 [6], expected U32 [3] (one row a take)"
        );
        assert_eq!(
            text(1, Guidance::Pairs, [&[3, 4], &[3, 2], &[3], &[3, 4, 9]]),
            "delay_step_u32: `positions` has type and shape U32 [3], expected U32 [6] (two rows a take)"
        );
        assert_eq!(
            text(1, Guidance::Pairs, [&[3, 4], &[3, 2], &[6], &[6, 4, 9]]),
            "delay_step_u32: `codes` has type and shape U32 [6, 4, 9], expected U32 [3, 4, capacity] (takes and codebooks \
             of tokens)"
        );
        let op: &dyn Op = &DelayStep { special: 2048, channels: 1, guided: Guidance::None };
        assert_eq!(
            op.plan(&[None]).expect_err("refused").to_string(),
            "delay_step_u32: `inputs` has value 1, expected tokens, limits, positions, codes"
        );
    }
}
