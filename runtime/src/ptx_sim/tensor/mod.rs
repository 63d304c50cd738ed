//! Tensor instructions as pure functions: matrix fragments, `wgmma` operands, tile copies.
//!
//! Registers come as arrays of 32 lanes; memory is reached through closures, which do the checking. Nothing here keeps
//! state, orders accesses or knows which warp waits for what: that is the executor's.

pub mod matrix;
pub mod mma;
pub mod numbers;
pub mod operand;
pub mod tile;
pub mod wgmma;

/// One register of a warp: a value for each lane.
pub type Register = [u32; 32];

/// Element types that matrix instructions multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// The upper 19 bits of a binary32, in a register of 32.
    Tf32,
}

impl Kind {
    /// Bytes of an element in a register or in shared memory.
    pub const fn size(self) -> u32 {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::Tf32 => 4,
        }
    }
}
