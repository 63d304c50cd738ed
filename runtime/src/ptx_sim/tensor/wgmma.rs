//! `wgmma.mma_async.sync.aligned`: what one warp of a warpgroup computes, rows `16 w .. 16 w + 16` of 64.
//!
//! Fragments: PTX ISA, "Register Fragments for wgmma.mma_async.m64nNk16" and "m64nNk8". A in registers lies as in
//! `mma.m16n8k16` (tf32: `m16n8k8`) and so does every group of four accumulators, one for each eight columns:
//! register i of lane l holds row `l / 4 + 8 (i / 2 % 2)`, column `8 (i / 4) + 2 (l % 4) + i % 2`. Operands in shared
//! memory are those of [`super::operand`]. Numerics are those of [`super::mma`].

use super::mma::{Columns, Rows, accumulate, multiply, rows};
use super::operand::{Major, Operand};
use super::{Kind, Register};
use crate::ptx_sim::fault::{FaultKind, Refusal};

/// `imm-scale-a`, `imm-scale-b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// 1: as it is.
    Plus,
    /// -1: negated.
    Minus,
}

/// Everything of the instruction but its operands; accumulators are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wgmma {
    /// Type of both operands. k is 16, of tf32 8.
    pub kind: Kind,
    /// Columns of B.
    pub n: u32,
    /// Sign of A and of B.
    pub signs: [Sign; 2],
    /// Direction of A, which is [`Major::K`] in registers, and of B.
    pub majors: [Major; 2],
}

/// The left operand.
#[derive(Clone, Copy, Debug)]
pub enum Left<'a> {
    /// The warp's 16 rows.
    Registers(&'a [Register; 4]),
    /// Descriptor of 64 rows.
    Shared(u64),
}

impl Wgmma {
    /// Refuses sizes that the instruction does not have.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.n.is_multiple_of(8) && (8..=256).contains(&self.n) {
            return Ok(());
        }
        Err(Refusal {
            kind: FaultKind::Invalid,
            detail: format!("`n` is {}, expected a multiple of 8 between 8 and 256", self.n),
        })
    }

    /// Accumulators of a lane.
    pub const fn registers(&self) -> u32 {
        self.n / 2
    }

    /// Adds the product of warp `warp` (0 to 3) of the warpgroup to `d`, its [`Self::registers`].
    ///
    /// With `scale-d` false the caller passes zeros. `read(address, chunk)` reads 16 bytes of shared memory.
    pub fn run(
        &self,
        warp: u32,
        a: Left<'_>,
        b: u64,
        d: &mut [Register],
        read: impl FnMut(u32, &mut [u8; 16]) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        self.check()?;
        match self.kind {
            Kind::F16 | Kind::Bf16 => self.multiply::<16>(warp, a, b, d, read),
            Kind::Tf32 => self.multiply::<8>(warp, a, b, d, read),
        }
    }

    fn multiply<const K: usize>(
        &self,
        warp: u32,
        a: Left<'_>,
        b: u64,
        d: &mut [Register],
        mut read: impl FnMut(u32, &mut [u8; 16]) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut left: Rows<K> = match a {
            Left::Registers(a) => rows(self.kind, a),
            Left::Shared(bits) => {
                let a = Operand::new("a", bits, self.kind, self.majors[0], 64)?;
                let mut left = [[0.0; K]; 16];
                a.read::<K, 16>(16 * warp, &mut read, |k, row, value| left[row][k] = value)?;
                left
            }
        };
        // (-a) b, a (-b): products are exact, so one factor carries both signs
        if self.signs[0] != self.signs[1] {
            left.as_flattened_mut().iter_mut().for_each(|value| *value = -*value);
        }
        let b = Operand::new("b", b, self.kind, self.majors[1], self.n)?;
        let (blocks, rest) = d.as_chunks_mut::<4>();
        assert!(
            rest.is_empty() && blocks.len() * 8 == self.n as usize,
            "half as many accumulators as columns"
        );
        for (block, column) in blocks.iter_mut().zip((0..).step_by(8)) {
            let mut right: Columns<K> = [[0.0; 8]; K];
            b.read::<K, 8>(column, &mut read, |k, column, value| right[k][column] = value)?;
            accumulate(&multiply(&left, &right), block);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "wgmma_tests.rs"]
mod tests;
