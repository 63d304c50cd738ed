//! Types of registers and instructions, and which register an instruction of a type takes.

use std::fmt;

/// What the bits of a type mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// One bit for each lane.
    Predicate,
    /// Nothing in particular.
    Bits,
    /// A whole number from 0.
    Unsigned,
    /// A whole number in two's complement.
    Signed,
    /// IEEE binary16, binary32 or binary64, by size.
    Float,
    /// Two binary16.
    FloatPair,
    /// The upper half of a binary32.
    Brain,
    /// Two of them.
    BrainPair,
    /// A binary32 of which 19 bits count.
    Tensor,
}

/// A fundamental type of PTX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type {
    /// What its bits mean.
    pub meaning: Meaning,
    /// How many there are.
    pub bits: u32,
}

/// How strictly a register has to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Of the size of the instruction.
    Same,
    /// Or wider: loads, stores and conversions.
    Wider,
}

impl Type {
    /// Untyped 32 bits.
    pub const B32: Self = Self { meaning: Meaning::Bits, bits: 32 };
    /// Untyped 64 bits.
    pub const B64: Self = Self { meaning: Meaning::Bits, bits: 64 };
    /// Untyped 16 bits.
    pub const B16: Self = Self { meaning: Meaning::Bits, bits: 16 };
    /// An unsigned number of 32 bits.
    pub const U32: Self = Self { meaning: Meaning::Unsigned, bits: 32 };
    /// A signed number of 32 bits.
    pub const S32: Self = Self { meaning: Meaning::Signed, bits: 32 };
    /// An unsigned number of 64 bits.
    pub const U64: Self = Self { meaning: Meaning::Unsigned, bits: 64 };
    /// binary32.
    pub const F32: Self = Self { meaning: Meaning::Float, bits: 32 };
    /// A predicate.
    pub const PRED: Self = Self { meaning: Meaning::Predicate, bits: 1 };

    /// The type of that name, which is written without a dot.
    pub fn named(name: &str) -> Option<Self> {
        let (meaning, bits) = match name {
            "pred" => (Meaning::Predicate, 1),
            "f16x2" => (Meaning::FloatPair, 32),
            "bf16" => (Meaning::Brain, 16),
            "bf16x2" => (Meaning::BrainPair, 32),
            "tf32" => (Meaning::Tensor, 32),
            "f16" => (Meaning::Float, 16),
            "f32" => (Meaning::Float, 32),
            "f64" => (Meaning::Float, 64),
            _ => {
                let (letter, digits) = name.split_at_checked(1)?;
                let meaning = match letter {
                    "b" => Meaning::Bits,
                    "u" => Meaning::Unsigned,
                    "s" => Meaning::Signed,
                    _ => return None,
                };
                let bits = match digits {
                    "8" => 8,
                    "16" => 16,
                    "32" => 32,
                    "64" => 64,
                    _ => return None,
                };
                (meaning, bits)
            }
        };
        Some(Self { meaning, bits })
    }

    /// Bytes of a value in memory.
    pub fn bytes(self) -> usize {
        match self.bits {
            0..=8 => 1,
            16 => 2,
            32 => 4,
            _ => 8,
        }
    }

    /// Whether it is a whole number.
    pub fn is_integer(self) -> bool {
        matches!(self.meaning, Meaning::Unsigned | Meaning::Signed)
    }

    /// Whether it is a signed whole number.
    pub fn is_signed(self) -> bool {
        self.meaning == Meaning::Signed
    }

    /// Whether an instruction of this type takes a register of type `register`, as `ptxas` decides it.
    pub fn takes(self, register: Self, fit: Fit) -> bool {
        use Meaning::{Bits, Predicate, Signed, Unsigned};
        if self.meaning == Predicate || register.meaning == Predicate {
            return self == register;
        }
        let size = match fit {
            Fit::Same => register.bits == self.bits,
            Fit::Wider => register.bits >= self.bits,
        };
        let meaning = match (self.meaning, register.meaning) {
            (Bits, _) | (_, Bits) => true,
            (Unsigned | Signed, Unsigned | Signed) => true,
            (instruction, register_meaning) => instruction == register_meaning && self.bits == register.bits,
        };
        size && meaning
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.meaning {
            Meaning::Predicate => f.write_str(".pred"),
            Meaning::Bits => write!(f, ".b{}", self.bits),
            Meaning::Unsigned => write!(f, ".u{}", self.bits),
            Meaning::Signed => write!(f, ".s{}", self.bits),
            Meaning::Float => write!(f, ".f{}", self.bits),
            Meaning::FloatPair => f.write_str(".f16x2"),
            Meaning::Brain => f.write_str(".bf16"),
            Meaning::BrainPair => f.write_str(".bf16x2"),
            Meaning::Tensor => f.write_str(".tf32"),
        }
    }
}
