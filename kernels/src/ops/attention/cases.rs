use super::{Attention, Mask};
use crate::{Case, DType, Fill, TensorDesc, Tolerance};

/// (batch, steps, heads, head_dim, mask, amplitude of q, why)
type Shape = (usize, usize, usize, usize, Mask, f32, &'static str);

const SHAPES: &[Shape] = &[
    (0, 3, 2, 4, Mask::Causal, 1.0, "no sequences"),
    (3, 0, 2, 4, Mask::Causal, 1.0, "no positions"),
    (1, 1, 1, 1, Mask::Causal, 1.0, "smallest: a copy of v"),
    (3, 2, 3, 7, Mask::Causal, 1.0, "the first position sees one key"),
    (1, 15, 5, 20, Mask::None, 1.0, "one below a block of queries"),
    (1, 16, 1, 33, Mask::Causal, 1.0, "exactly one block of queries"),
    (1, 17, 3, 96, Mask::None, 1.0, "one past a block of queries"),
    (3, 31, 1, 7, Mask::Causal, 1.0, "keys end within a tile"),
    (1, 32, 3, 65, Mask::Causal, 1.0, "whole tiles, head_dim one past a power of two"),
    (1, 33, 16, 64, Mask::None, 1.0, "one key past whole tiles"),
    (1, 63, 3, 20, Mask::Causal, 40.0, "one below the host's block; scores far apart"),
    (3, 64, 1, 128, Mask::Causal, 1.0, "the host's block, longest head"),
    (1, 65, 5, 1, Mask::Causal, 1.0, "one past the host's block, shortest head"),
    (1, 127, 3, 33, Mask::None, 200.0, "scores so far apart that one key takes all"),
    (2, 130, 3, 96, Mask::Causal, 1.0, "three blocks of the host"),
    (1, 257, 5, 65, Mask::Causal, 1.0, "odd sizes"),
    (1, 501, 16, 64, Mask::Causal, 1.0, "MusicGen-small"),
    (1, 511, 1, 20, Mask::None, 1.0, "one below the host's tile of keys"),
    (1, 513, 1, 33, Mask::None, 30.0, "one past the host's tile of keys, its maximum moves"),
    (
        1,
        577,
        1,
        20,
        Mask::Causal,
        1.0,
        "a block of queries that sees nothing of its last tile but the diagonal",
    ),
    (1, 1501, 1, 64, Mask::Causal, 1.0, "thirty seconds of MusicGen"),
];

/// In half precision: no longer than an interpreter can run, and around every edge of a tile where head_dim is 64.
const HALF_SHAPES: &[Shape] = &[
    (0, 3, 2, 64, Mask::Causal, 1.0, "no sequences"),
    (3, 0, 2, 64, Mask::Causal, 1.0, "no positions"),
    (1, 1, 1, 1, Mask::Causal, 1.0, "smallest: half a word, a copy of v"),
    (3, 2, 3, 7, Mask::Causal, 1.0, "odd rows: words shared by heads, by positions and by sequences"),
    (1, 15, 5, 20, Mask::None, 1.0, "one below a block of queries"),
    (1, 17, 3, 96, Mask::None, 1.0, "one past a block of queries"),
    (3, 31, 1, 7, Mask::Causal, 1.0, "keys end within a tile, odd rows of one head"),
    (1, 33, 3, 65, Mask::Causal, 1.0, "head_dim one past a power of two"),
    (1, 63, 3, 20, Mask::Causal, 40.0, "one below the host's block; scores far apart"),
    (2, 64, 1, 128, Mask::Causal, 1.0, "the host's block, longest head"),
    (1, 65, 5, 1, Mask::Causal, 1.0, "one past the host's block, shortest head"),
    (1, 127, 3, 33, Mask::None, 200.0, "scores so far apart that one key takes all"),
    (3, 1, 2, 64, Mask::Causal, 1.0, "head_dim 64: one position"),
    (1, 33, 16, 64, Mask::None, 1.0, "head_dim 64: one key past half a tile"),
    (1, 63, 1, 64, Mask::Causal, 1.0, "head_dim 64: one below a tile of keys"),
    (2, 64, 2, 64, Mask::Causal, 1.0, "head_dim 64: exactly a tile of keys"),
    (1, 65, 2, 64, Mask::None, 1.0, "head_dim 64: one past a tile of keys"),
    (1, 128, 1, 64, Mask::Causal, 1.0, "head_dim 64: exactly a block of queries"),
    (2, 129, 1, 64, Mask::Causal, 30.0, "head_dim 64: one past a block of queries; the maximum moves"),
    (1, 193, 1, 64, Mask::None, 200.0, "head_dim 64: one key takes all"),
    (2, 1, 3, 64, Mask::None, 1.0, "head_dim 64: one position, unmasked"),
    (1, 127, 2, 64, Mask::None, 1.0, "head_dim 64: one below two tiles of keys, unmasked"),
    (3, 128, 2, 64, Mask::None, 30.0, "head_dim 64: two tiles of keys, unmasked"),
    (2, 192, 3, 64, Mask::Causal, 30.0, "head_dim 64: three tiles of queries; the maximum moves"),
    (2, 193, 2, 64, Mask::Causal, 1.0, "head_dim 64: one past three tiles of queries"),
    (2, 257, 2, 64, Mask::None, 1.0, "head_dim 64: a last tile of one key, another sequence behind it"),
    (1, 385, 3, 64, Mask::Causal, 30.0, "head_dim 64: one past six tiles of queries; the maximum moves"),
    (1, 501, 1, 64, Mask::Causal, 1.0, "ten seconds of MusicGen"),
    (1, 301, 2, 64, Mask::Causal, 1.0, "two heads and six seconds of MusicGen"),
];

/// With scales that are no scale of a model's: scores turned over, and none.
const SCALED: &[(Shape, f32)] = &[
    ((2, 130, 1, 64, Mask::Causal, 5.0, "a negative scale"), -0.125),
    ((1, 70, 2, 64, Mask::None, 5.0, "scale 0: a mean of all values"), 0.0),
];

pub(super) fn cases(values: DType) -> Vec<Case> {
    // What rounding to nearest may change a value by, relatively. Results in half precision are rounded here and in the
    // reference; weights may be rounded before they are multiplied, which moves a mean of values below 1 by at most this,
    // and by 2^-25 a key where they are below the smallest normal f16.
    let (shapes, unit, subnormal) = match values {
        DType::F16 => (HALF_SHAPES, 2.0_f64.powi(-11), 2.0_f64.powi(-25)),
        DType::BF16 => (HALF_SHAPES, 2.0_f64.powi(-8), 0.0),
        _ => (SHAPES, 0.0, 0.0),
    };
    // the edges of tiles where head_dim is 64 are those of all types
    let edges = HALF_SHAPES.iter().filter(|shape| values == DType::F32 && shape.6.starts_with("head_dim 64"));
    let scaled = |&(batch, steps, heads, head_dim, mask, amplitude, why): &Shape, scale: f32| {
        let x = TensorDesc::new(values, [batch, steps, heads * head_dim]);
        let score = f64::from(amplitude) * f64::from(scale.abs()) * head_dim as f64;
        Case {
            why,
            plan: Attention { heads, scale, mask }.plan(&x, &x, &x).expect("a case's shapes fit"),
            fill: vec![("q", Fill::Noise(amplitude))],
            // A score of at most `score` is off by a few of its units in the last place, and so, relatively, is its
            // weight; WGSL grants exp an error of 3 + 2 |x| units.
            tolerance: Tolerance {
                abs: 1e-6 + 5e-7 * score + unit + subnormal * steps as f64,
                rel: 1e-6 + 2.0 * unit,
                why: "rounding of scores, of exp of their differences, and in half precision of weights and results",
            },
        }
    };
    let usual = shapes.iter().chain(edges).map(|shape| scaled(shape, 1.0 / (shape.3 as f32).sqrt()));
    usual.chain(SCALED.iter().map(|(shape, scale)| scaled(shape, *scale))).collect()
}
