//! `mma.sync.aligned`: a warp's product of a 16 x k and a k x 8 matrix held in registers.
//!
//! Layouts: PTX ISA, "Matrix Fragments for mma.m16n8k4 with .tf32", "mma.m16n8k8", "mma.m16n8k16 with floating point
//! type". With `group = lane / 4` and `thread = lane % 4`:
//!
//! | fragment | register i (and half h) | row | column |
//! |---|---|---|---|
//! | A, 16-bit | i, h | `group + 8 (i % 2)` | `2 thread + h + 8 (i / 2)` |
//! | A, tf32   | i    | `group + 8 (i % 2)` | `thread + 4 (i / 2)` |
//! | B, 16-bit | i, h | `2 thread + h + 8 i` | `group` |
//! | B, tf32   | i    | `thread + 4 i` | `group` |
//! | C, D, f32 | i    | `group + 8 (i / 2)` | `2 thread + i % 2` |
//! | C, D, f16 | i, h | `group + 8 i` | `2 thread + h` |
//!
//! Numerics: products are exact; one instruction's products are added in f64 in the order of k, then C, and the sum is
//! rounded once to the accumulator's type, to nearest even. The ISA promises less ("at least single precision" for the
//! sums, unspecified order); hardware may differ in the last bits of a sum whose terms differ much in size.

use half::f16;

use super::numbers::{halves, pair, round, tf32};
use super::{Kind, Register};

/// A fragment of A in rows.
pub(super) type Rows<const K: usize> = [[f64; K]; 16];
/// A fragment of B, eight columns of it, in rows.
pub(super) type Columns<const K: usize> = [[f64; 8]; K];

/// `mma.m16n8kK` with f32 accumulators: `c + a * b`.
///
/// k is what the fragments hold: 8 or 16 for 16-bit elements (2 or 4 registers of A), 4 or 8 for tf32.
pub fn mma_f32(kind: Kind, a: &[Register], b: &[Register], c: &[Register; 4]) -> [Register; 4] {
    let sums = product(kind, a, b);
    let mut d = *c;
    accumulate(&sums, &mut d);
    d
}

/// `mma.m16n8kK` of f16 elements with f16 accumulators: `c + a * b`.
pub fn mma_f16(a: &[Register], b: &[Register], c: &[Register; 2]) -> [Register; 2] {
    let sums = product(Kind::F16, a, b);
    std::array::from_fn(|i| {
        std::array::from_fn(|lane| {
            let [low, high] = halves(c[i][lane]);
            let row = &sums[lane / 4 + 8 * i];
            let column = 2 * (lane % 4);
            let low = f16::from_f64(f16::from_bits(low).to_f64() + row[column]);
            let high = f16::from_f64(f16::from_bits(high).to_f64() + row[column + 1]);
            u32::from(half_bits(low)) | u32::from(half_bits(high)) << 16
        })
    })
}

fn half_bits(value: f16) -> u16 {
    if value.is_nan() { 0x7fff } else { value.to_bits() }
}

fn product(kind: Kind, a: &[Register], b: &[Register]) -> [[f64; 8]; 16] {
    assert_eq!(a.len(), 2 * b.len(), "A has twice the registers of B");
    match (kind, b.len()) {
        (Kind::Tf32, 1) => multiply::<4>(&rows(kind, a), &columns(kind, b)),
        (Kind::Tf32, 2) | (Kind::F16 | Kind::Bf16, 1) => multiply::<8>(&rows(kind, a), &columns(kind, b)),
        (Kind::F16 | Kind::Bf16, 2) => multiply::<16>(&rows(kind, a), &columns(kind, b)),
        (_, registers) => unreachable!("no shape of mma has {registers} registers of B"),
    }
}

/// Unpacks a fragment of A.
pub(super) fn rows<const K: usize>(kind: Kind, a: &[Register]) -> Rows<K> {
    let mut rows = [[0.0; K]; 16];
    for (i, register) in a.iter().enumerate() {
        for (lane, bits) in register.iter().enumerate() {
            let (row, thread) = (lane / 4 + 8 * (i % 2), lane % 4);
            if kind == Kind::Tf32 {
                rows[row][thread + 4 * (i / 2)] = f64::from(tf32(*bits));
            } else {
                let column = 2 * thread + 8 * (i / 2);
                let [low, high] = pair(kind, *bits);
                rows[row][column] = f64::from(low);
                rows[row][column + 1] = f64::from(high);
            }
        }
    }
    rows
}

fn columns<const K: usize>(kind: Kind, b: &[Register]) -> Columns<K> {
    let mut columns = [[0.0; 8]; K];
    for (i, register) in b.iter().enumerate() {
        for (lane, bits) in register.iter().enumerate() {
            let (column, thread) = (lane / 4, lane % 4);
            if kind == Kind::Tf32 {
                columns[thread + 4 * i][column] = f64::from(tf32(*bits));
            } else {
                let row = 2 * thread + 8 * i;
                let [low, high] = pair(kind, *bits);
                columns[row][column] = f64::from(low);
                columns[row + 1][column] = f64::from(high);
            }
        }
    }
    columns
}

/// `a * b`, summed in the order of k.
pub(super) fn multiply<const K: usize>(a: &Rows<K>, b: &Columns<K>) -> [[f64; 8]; 16] {
    let mut sums = [[0.0; 8]; 16];
    for (sums, a) in sums.iter_mut().zip(a) {
        let mut row = [0.0; 8];
        for (a, b) in a.iter().zip(b) {
            for (sum, b) in row.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
        *sums = row;
    }
    sums
}

/// Adds sums to a fragment of f32 accumulators.
pub(super) fn accumulate(sums: &[[f64; 8]; 16], d: &mut [Register; 4]) {
    for (i, register) in d.iter_mut().enumerate() {
        for (group, lanes) in register.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let row = &sums[group + 8 * (i / 2)];
            for (thread, bits) in lanes.iter_mut().enumerate() {
                *bits = round(f64::from(f32::from_bits(*bits)) + row[2 * thread + i % 2]);
            }
        }
    }
}

#[cfg(test)]
#[path = "mma_tests.rs"]
mod tests;
