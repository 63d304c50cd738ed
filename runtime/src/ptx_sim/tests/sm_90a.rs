//! Instructions of sm_90a: whole programs against plain loops, and the same programs with one fault each.

mod attention;
mod copies;
mod form;
pub mod harness;
mod products;
mod screen;

use half::f16;

/// Small numbers, exact in every type, without a pattern that a wrong index could keep.
fn value(seed: usize, row: usize, column: usize) -> f32 {
    let mixed = (row * 31 + column * 17 + seed * 7 + row * column) % 13;
    f32::from(i16::try_from(mixed).unwrap()) - 6.0
}

fn half_bytes(rows: usize, cols: usize, seed: usize) -> Vec<u8> {
    (0..rows * cols).flat_map(|i| f16::from_f32(value(seed, i / cols, i % cols)).to_le_bytes()).collect()
}

#[test]
#[ignore = "needs ptxas on the path"]
fn the_programs_assemble() {
    for text in copies::PROGRAMS.iter().chain(&products::PROGRAMS) {
        harness::assemble(text);
    }
}
