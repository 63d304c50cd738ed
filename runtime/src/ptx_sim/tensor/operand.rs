//! Operands of `wgmma` in shared memory: matrix descriptors, layouts, swizzles.
//!
//! Sources: PTX ISA, "Matrix Descriptor Format", "Strides" (leading and stride dimension byte offsets) and "Canonical
//! Layouts" under "Asynchronous Warpgroup Level Matrix Shared Memory Layout"; CUTLASS `cute/arch/mma_sm90_desc.hpp` and
//! `cute/atom/mma_traits_sm90_gmma.hpp` (`make_gmma_desc`) agree with them.
//!
//! With W the 16-byte chunks of a swizzled row (1, 2, 4, 8 for none, 32, 64, 128 bytes), LBO and SBO the two offsets of the
//! descriptor, `mn` the row of A or the column of B, the byte at which the chunk of an element lies, before swizzling:
//!
//! | layout | one chunk holds | byte from the start address |
//! |---|---|---|
//! | K-major, no swizzle  | 16 bytes along k | `16 (mn % 8) + SBO (mn / 8) + LBO (chunk)` |
//! | K-major, swizzled    | 16 bytes along k | `16 W (mn % 8) + SBO (mn / 8) + 16 (chunk)` |
//! | MN-major, no swizzle | 8 of `mn`, one k | `SBO (mn / 8) + 16 (k % 8) + LBO (k / 8)` |
//! | MN-major, swizzled   | 8 of `mn`, one k | `16 (mn / 8 % W) + LBO (mn / 8 / W) + 16 W (k % 8) + SBO (k / 8)` |
//!
//! The swizzle then acts on the address in shared memory, not on the offset: bits 4.. are exchanged by exclusive or with
//! bits 7.. of the same address, as many as W has. So a K-major tile may be entered at a later chunk of its row by
//! adding to the start address.
//!
//! Stricter than the hardware, which computes something for every descriptor: matrices start where their swizzle pattern
//! starts (the base offset is 0), offsets in use keep the patterns apart, unused bits are zero.

use super::Kind;
use super::numbers::{bf16, f16, tf32};
use crate::ptx_sim::fault::{FaultKind, Refusal};

/// Which way neighbouring elements of an operand go in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Major {
    /// Along k.
    K,
    /// Along the rows of A, the columns of B.
    Mn,
}

/// A descriptor, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    start: u32,
    leading: u32,
    stride: u32,
    /// 16-byte chunks of a swizzled row.
    width: u32,
}

/// An operand of one `wgmma`: a descriptor read for a size, a type and a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    descriptor: Descriptor,
    kind: Kind,
    major: Major,
}

fn invalid(detail: String) -> Refusal {
    Refusal { kind: FaultKind::Invalid, detail }
}

impl Descriptor {
    /// Takes a descriptor apart.
    pub fn decode(bits: u64) -> Result<Self, Refusal> {
        /// 14-15, 30-31, 46-48, 52-61.
        const UNUSED: u64 = 0x3ff1_c000_c000_c000;
        if bits & UNUSED != 0 {
            return Err(invalid(format!(
                "matrix descriptor {bits:#018x} has unused bits {:#x} set, expected zeros",
                bits & UNUSED
            )));
        }
        let base = bits >> 49 & 7;
        if base != 0 {
            return Err(Refusal {
                kind: FaultKind::Unsupported,
                detail: format!("matrix descriptor {bits:#018x} has base offset {base}, expected 0"),
            });
        }
        // 14 bits that lack the four lowest of an address or an offset
        let encoded = |at: u32| u32::try_from(bits >> at & 0x3fff).expect("14 bits") << 4;
        let width = [1, 8, 4, 2][usize::try_from(bits >> 62).expect("2 bits")];
        Ok(Self { start: encoded(0), leading: encoded(16), stride: encoded(32), width })
    }

    /// Bytes after which the swizzle repeats: eight rows.
    fn pattern(&self) -> u32 {
        8 * 16 * self.width
    }

    fn swizzled(&self, offset: u32) -> u32 {
        let address = self.start + offset;
        // 0x70, 0x30, 0x10 or 0
        address ^ ((address >> 3) & (16 * (self.width - 1)))
    }
}

impl Operand {
    /// Reads `bits` as the descriptor of `extent` rows of A (columns of B), 32 bytes of k each.
    pub fn new(name: &str, bits: u64, kind: Kind, major: Major, extent: u32) -> Result<Self, Refusal> {
        if kind == Kind::Tf32 && major == Major::Mn {
            return Err(invalid(format!(
                "`{name}` is MN-major tf32: only 16-bit elements may be transposed"
            )));
        }
        let descriptor = Descriptor::decode(bits)?;
        descriptor.check(name, major, extent)?;
        Ok(Self { descriptor, kind, major })
    }

    /// Reads rows (columns of B) `from..from + N`, `from` a multiple of 8, in the order k, row: `K` is 32 bytes of k.
    pub(super) fn read<const K: usize, const N: usize>(
        &self,
        from: u32,
        mut read: impl FnMut(u32, &mut [u8; 16]) -> Result<(), Refusal>,
        mut place: impl FnMut(usize, usize, f64),
    ) -> Result<(), Refusal> {
        let mut chunk = [0; 16];
        match self.major {
            Major::K => {
                for (n, row) in (0..N).zip(from..) {
                    for (half, first) in [(0, 0), (1, K / 2)] {
                        read(self.along_k(row, half), &mut chunk)?;
                        elements(self.kind, &chunk, |i, value| place(first + i, n, value));
                    }
                }
            }
            Major::Mn => {
                for (group, first) in (from / 8..).zip((0..N).step_by(8)) {
                    for (row, k) in (0..K).zip(0..) {
                        read(self.along_mn(group, k), &mut chunk)?;
                        elements(self.kind, &chunk, |i, value| place(row, first + i, value));
                    }
                }
            }
        }
        Ok(())
    }

    /// Address of one of the two chunks of a row.
    fn along_k(&self, row: u32, chunk: u32) -> u32 {
        let d = &self.descriptor;
        let step = if d.width == 1 { d.leading } else { 16 };
        d.swizzled(16 * d.width * (row % 8) + d.stride * (row / 8) + step * chunk)
    }

    /// Address of eight elements of a k.
    fn along_mn(&self, group: u32, k: u32) -> u32 {
        let d = &self.descriptor;
        d.swizzled(if d.width == 1 {
            d.stride * group + 16 * (k % 8) + d.leading * (k / 8)
        } else {
            16 * (group % d.width)
                + d.leading * (group / d.width)
                + 16 * d.width * (k % 8)
                + d.stride * (k / 8)
        })
    }
}

impl Descriptor {
    /// Refuses starts and offsets that cannot describe a matrix of `extent` by 32 bytes of k.
    fn check(&self, name: &str, major: Major, extent: u32) -> Result<(), Refusal> {
        let row = 16 * self.width;
        let within = self.start % self.pattern();
        if self.width > 1 && major == Major::K && within + 32 > row {
            return Err(invalid(format!(
                "`{name}` starts at {:#x}, {within} bytes into its {row}-byte swizzle, expected at most {} so that 32 \
                 bytes of k lie in the first row of the pattern, which repeats every {} bytes",
                self.start,
                row - 32,
                self.pattern()
            )));
        }
        if self.width > 1 && major == Major::Mn && within != 0 {
            return Err(invalid(format!(
                "`{name}` starts at {:#x}, expected a multiple of {} (its {row}-byte swizzle, MN-major)",
                self.start,
                self.pattern()
            )));
        }
        let more = extent > 8;
        let (leading, stride) = match (major, self.width) {
            (Major::K, 1) => (true, more),
            (Major::K, _) => (false, more),
            (Major::Mn, 1) => (true, more),
            (Major::Mn, width) => (extent > 8 * width, true),
        };
        for (used, offset, which) in [(leading, self.leading, "leading"), (stride, self.stride, "stride")] {
            if !used {
                continue;
            }
            if self.width == 1 && offset < 128 {
                return Err(invalid(format!(
                    "`{name}` has a {which} dimension offset of {offset} bytes, expected at least 128 (a core matrix of \
                     8 rows of 16 bytes; no swizzle)"
                )));
            }
            if self.width > 1 && (offset == 0 || !offset.is_multiple_of(self.pattern())) {
                return Err(invalid(format!(
                    "`{name}` has a {which} dimension offset of {offset} bytes, expected a multiple of {} (its \
                     {row}-byte swizzle)",
                    self.pattern()
                )));
            }
        }
        Ok(())
    }
}

fn elements(kind: Kind, chunk: &[u8; 16], mut place: impl FnMut(usize, f64)) {
    match kind {
        Kind::F16 => {
            for (i, bytes) in chunk.as_chunks().0.iter().enumerate() {
                place(i, f64::from(f16(u16::from_le_bytes(*bytes))));
            }
        }
        Kind::Bf16 => {
            for (i, bytes) in chunk.as_chunks().0.iter().enumerate() {
                place(i, f64::from(bf16(u16::from_le_bytes(*bytes))));
            }
        }
        Kind::Tf32 => {
            for (i, bytes) in chunk.as_chunks().0.iter().enumerate() {
                place(i, f64::from(tf32(u32::from_le_bytes(*bytes))));
            }
        }
    }
}

#[cfg(test)]
#[path = "operand_tests.rs"]
mod tests;
