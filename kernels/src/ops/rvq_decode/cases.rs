use super::RvqDecode;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (rows, stages, entries, dim, codes below, why)
const SHAPES: &[(usize, usize, usize, usize, u32, &str)] = &[
    (0, 4, 7, 8, 7, "no rows"),
    (1, 1, 1, 1, 1, "smallest"),
    (5, 3, 7, 1, 7, "vectors of one number"),
    (37, 2, 7, 7, 7, "primes, less than two workgroups of elements"),
    (51, 4, 64, 5, 64, "one below a workgroup of elements"),
    (2, 4, 64, 128, 64, "exactly one workgroup of elements"),
    (257, 1, 7, 1, 7, "one past a workgroup of elements"),
    (11, 4, 7, 9, 23, "codes past the last entry"),
    (9, 3, 7, 260, 7, "vectors longer than a warp takes at once, rows not a multiple of 4"),
    (50, 4, 2048, 128, 2048, "MusicGen's codec, one second"),
    (75, 32, 1024, 128, 1024, "24 kHz codec at its highest bandwidth, one second"),
    (65_537, 2, 7, 257, 7, "more workgroups than fit along one axis"),
];

pub(super) fn cases() -> Vec<Case> {
    let case =
        |&(rows, stages, entries, dim, below, why): &(usize, usize, usize, usize, u32, &'static str)| Case {
            why,
            plan: RvqDecode
                .plan(&TensorDesc::u32([rows, stages]), &TensorDesc::f32([stages, entries, dim]))
                .expect("a case's shapes fit"),
            fill: vec![("codes", Fill::Below(below))],
            tolerance: Tolerance {
                why: "the order of the additions is part of the definition",
                ..Tolerance::EXACT
            },
        };
    SHAPES.iter().map(case).collect()
}
