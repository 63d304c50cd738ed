//! One draw for every codebook of a sequence, on the device: guidance, temperature, top-k, top-p.
//!
//! `g = uncond + guidance * (cond - uncond)`, or the logits themselves where there are no pairs. Greedy: the largest g, the
//! smaller code of equals. Else scores g / temperature; top-k keeps those that are at least the k-th largest, top-p of these the
//! ones that are at least t, the largest t at which their share of the softmax's mass reaches top_p; equals are kept together.
//! The token is the first code, in order of the vocabulary, at which the summed mass of the kept passes u times all of it, with
//! `u = (philox4x32_10([row key, step, codebook, 0], seed)[0] >> 8) / 2^24` and step = column offset + positions\[take\]. So a
//! draw depends on seed, row key, step and codebook, and on nothing that shares the batch.
//!
//! Where a g is NaN, the largest is not finite, or the settings leave no code with a mass, the token is u32::MAX: no code, and
//! for the host to report.

mod cases;
mod reference;

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
    /// Codebooks.
    pub codebooks: u32,
    /// Codes of a codebook.
    pub entries: u32,
    /// 1 where row takes + t holds the unconditional logits of take t, else 0.
    pub paired: u32,
}

/// What one take is sampled with: a row of the slot `settings`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Settings {
    /// Lower half of the seed.
    pub seed_low: u32,
    /// Upper half of the seed.
    pub seed_high: u32,
    /// Which stream of the seed.
    pub row_key: u32,
    /// Added to the position, for windows that start behind column 0.
    pub column_offset: u32,
    /// 1 takes the largest, 0 draws.
    pub greedy: u32,
    /// Weight of the conditional logits against the unconditional ones.
    pub guidance: f32,
    /// Above 0.
    pub temperature: f32,
    /// How many codes are kept; 0 for all.
    pub top_k: u32,
    /// Which share of the mass is kept; 0, or 1 and above, for all.
    pub top_p: f32,
    /// Zero.
    pub pad: [u32; 3],
}

/// Words of [`Settings`].
pub const SETTINGS: usize = size_of::<Settings>() / 4;

/// Whether every take has a second row without its prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guidance {
    /// One row a take.
    None,
    /// Two: the conditional rows of all takes, then the unconditional ones in the same order.
    Pairs,
}

impl Guidance {
    /// Rows of so many takes.
    pub const fn rows(self, takes: usize) -> usize {
        match self {
            Self::None => takes,
            Self::Pairs => 2 * takes,
        }
    }

    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::None => "one row a take",
            Self::Pairs => "two rows a take",
        }
    }
}

/// Invocations of a workgroup, threads of a block: a workgroup draws one token.
const BLOCK: u32 = 256;

/// Codes that a thread of the PTX form holds in registers.
const PTX_HELD: u32 = 8;

/// Codes of a codebook at most: what a block has shared memory for, on every device.
pub const MOST_ENTRIES: usize = 24_576;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sample_u32",
    slots: &[
        Slot::read("logits", DType::F32),
        Slot::read("settings", DType::U32),
        Slot::read("positions", DType::U32),
        Slot::write("tokens", DType::U32),
    ],
    fields: fields![Params; takes, codebooks, entries, paired],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sample.wgsl"), "sample_u32", [BLOCK, 1, 1], groups)],
    ptx: &[Ptx {
        registers: 48,
        static_shared: 128,
        dynamic_shared: |params| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            // the codes of a thread's run that its registers do not hold
            p.entries.div_ceil(BLOCK).saturating_sub(PTX_HELD) * BLOCK * 4
        },
        ..Ptx::new(include_str!("sample_u32.ptx"), "sample_u32", [BLOCK, 1, 1], |params, _| groups(params))
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

fn groups(params: &[u8]) -> [u32; 3] {
    let p: Params = bytemuck::pod_read_unaligned(params);
    fold_groups(u64::from(p.takes) * u64::from(p.codebooks))
}

/// One draw for every codebook of every take.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Codebooks that a row of logits holds, one after another.
    pub codebooks: usize,
    /// Whether unconditional rows are there.
    pub guided: Guidance,
}

impl Sample {
    /// Plans tokens u32 `[takes, codebooks]` from logits f32 `[rows, codebooks * entries]`, settings u32 `[takes, 12]` (rows of
    /// [`Settings`]) and positions u32 `[rows]`.
    pub fn plan(
        &self,
        logits: &TensorDesc,
        settings: &TensorDesc,
        positions: &TensorDesc,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[rows, cols @ (1..)]) = (logits.dtype, logits.shape.as_slice()) else {
            return Err(ShapeError::tensor(
                op,
                "logits",
                logits,
                "F32 [rows, codebooks * entries] with an entry or more",
            ));
        };
        if self.codebooks == 0 || cols % self.codebooks != 0 {
            let expected = format!("a divisor of {cols} (columns of logits)");
            return Err(ShapeError::value(op, "codebooks", self.codebooks, expected));
        }
        if cols / self.codebooks > MOST_ENTRIES {
            let expected = format!("at most {MOST_ENTRIES} codes of each of {} codebooks", self.codebooks);
            return Err(ShapeError::tensor(op, "logits", logits, expected));
        }
        let takes = rows / self.guided.rows(1);
        if self.guided.rows(takes) != rows {
            return Err(ShapeError::tensor(
                op,
                "logits",
                logits,
                "a conditional and an unconditional row for each take",
            ));
        }
        let wanted = TensorDesc::u32([takes, SETTINGS]);
        ShapeError::expect(op, "settings", settings, &wanted, "takes of logits, the words of `Settings`")?;
        ShapeError::expect(op, "positions", positions, &TensorDesc::u32([rows]), "rows of logits")?;
        let tokens = TensorDesc::u32([takes, self.codebooks]);
        ShapeError::size(op, "elements of logits", logits.elements())?;
        let params = Params {
            takes: ShapeError::size(op, "takes", takes)?,
            codebooks: ShapeError::size(op, "codebooks", self.codebooks)?,
            entries: ShapeError::size(op, "entries", cols / self.codebooks)?,
            paired: u32::from(self.guided == Guidance::Pairs),
        };
        let each = match self.guided {
            Guidance::None => 5,
            Guidance::Pairs => 8,
        };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (logits.bytes() + settings.bytes() + 4 * takes + tokens.bytes()) as u64,
                // guidance, the score, its difference from the largest, exp and two sums for every code
                flops: (each * takes * cols) as u64,
            },
            slots: [logits, settings, positions, &tokens].map(|desc| Some(desc.clone())).into(),
            splits: vec![],
        })
    }
}

impl Op for Sample {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(logits), Some(settings), Some(positions)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "logits, settings, positions"));
        };
        self.plan(logits, settings, positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |codebooks, guided, logits: &TensorDesc, settings: [usize; 2], positions: usize| {
            Sample { codebooks, guided }
                .plan(logits, &TensorDesc::u32(settings), &TensorDesc::u32([positions]))
                .expect_err("refused")
                .to_string()
        };
        let logits = TensorDesc::f32([6, 20]);
        assert_eq!(
            text(4, Guidance::None, &TensorDesc::u32([6, 20]), [6, 12], 6),
            "sample_u32: `logits` has type and shape U32 [6, 20], expected F32 [rows, codebooks * entries] with an entry or \
             more"
        );
        for codebooks in [0, 3] {
            assert_eq!(
                text(codebooks, Guidance::None, &logits, [6, 12], 6),
                format!(
                    "sample_u32: `codebooks` has value {codebooks}, expected a divisor of 20 (columns of logits)"
                )
            );
        }
        assert_eq!(
            text(2, Guidance::None, &TensorDesc::f32([1, 49_154]), [1, 12], 1),
            "sample_u32: `logits` has type and shape F32 [1, 49154], expected at most 24576 codes of each of 2 codebooks"
        );
        assert_eq!(
            text(4, Guidance::Pairs, &TensorDesc::f32([5, 20]), [2, 12], 5),
            "sample_u32: `logits` has type and shape F32 [5, 20], expected a conditional and an unconditional row for each \
             take"
        );
        assert_eq!(
            text(4, Guidance::Pairs, &logits, [6, 12], 6),
            "sample_u32: `settings` has type and shape U32 [6, 12], expected U32 [3, 12] (takes of logits, the words of \
             `Settings`)"
        );
        assert_eq!(
            text(4, Guidance::Pairs, &logits, [3, 12], 3),
            "sample_u32: `positions` has type and shape U32 [3], expected U32 [6] (rows of logits)"
        );
        let op: &dyn Op = &Sample { codebooks: 4, guided: Guidance::None };
        assert_eq!(
            op.plan(&[Some(&logits)]).expect_err("refused").to_string(),
            "sample_u32: `inputs` has value 1, expected logits, settings, positions"
        );
    }
}
