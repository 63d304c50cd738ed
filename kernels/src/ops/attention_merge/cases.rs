use super::AttentionMerge;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// Two chunks without keys, two with, and a head whose chunks all have none; for heads of one column.
const SOME_EMPTY: &[u32] = &[
    0,
    LOWEST,
    0, // no keys
    (-1.5_f32).to_bits(),
    3.0_f32.to_bits(),
    2.0_f32.to_bits(),
    0,
    LOWEST,
    0, // no keys
    0.25_f32.to_bits(),
    2.0_f32.to_bits(),
    1.0_f32.to_bits(),
    0,
    LOWEST,
    0, // no keys, nor in the three chunks behind
    0,
    LOWEST,
    0,
    0,
    LOWEST,
    0,
    0,
    LOWEST,
    0,
];

const LOWEST: u32 = f32::MIN.to_bits();

/// (rows, heads, chunks, head_dim, filling, why)
type Shape = (usize, usize, usize, usize, Fill, &'static str);

const SHAPES: &[Shape] = &[
    (0, 2, 3, 4, Fill::Between(0.5, 1.5), "no rows"),
    (1, 1, 1, 1, Fill::Between(0.5, 1.5), "smallest: a quotient"),
    (3, 2, 4, 1, Fill::Cycle(SOME_EMPTY), "chunks without keys"),
    (3, 5, 2, 33, Fill::Between(0.5, 1.5), "odd sizes"),
    (2, 3, 7, 65, Fill::Between(0.1, 40.0), "maxima far apart"),
    (5, 1, 3, 128, Fill::Between(0.5, 1.5), "longest head"),
    (2, 16, 6, 64, Fill::Between(0.5, 1.5), "thirty seconds of MusicGen-small with guidance"),
    (130, 2, 2, 8, Fill::Between(0.5, 1.5), "many rows"),
    (65_537, 1, 1, 128, Fill::Between(0.5, 1.5), "more workgroups than one axis holds"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(rows, heads, chunks, head_dim, ref fill, why): &Shape| Case {
        why,
        plan: AttentionMerge
            .plan(&TensorDesc::f32([rows, heads, chunks, head_dim + 2]))
            .expect("a case's shapes fit"),
        fill: vec![("parts", fill.clone())],
        tolerance: Tolerance {
            abs: 1e-6,
            // WGSL grants exp of a difference of at most 40 an error of 83 units in the last place
            rel: 1e-5,
            why: "rounding of exp of differences of maxima, and of sums of positive terms",
        },
    };
    SHAPES.iter().map(case).collect()
}
