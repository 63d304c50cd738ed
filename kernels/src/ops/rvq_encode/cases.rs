use super::RvqEncode;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (rows, stages, entries, dim, amplitude of the codebooks, why)
///
/// Noise leaves a margin between the nearest two entries in every row and stage of these; a test measures it.
const SHAPES: &[(usize, usize, usize, usize, f32, &str)] = &[
    (0, 4, 7, 8, 1.0, "no rows"),
    (3, 0, 7, 8, 1.0, "no stages"),
    (1, 1, 1, 1, 1.0, "smallest"),
    (5, 3, 1, 7, 1.0, "one entry to choose from"),
    (67, 2, 7, 1, 1.0, "vectors of one number, one block of rows and a few"),
    (63, 4, 64, 7, 0.7, "one below a block of rows, primes"),
    (65, 3, 255, 5, 0.7, "one past a block of rows, one below a workgroup of entries"),
    (9, 2, 256, 31, 0.7, "exactly one workgroup of entries"),
    (9, 2, 257, 33, 0.7, "one past a workgroup of entries"),
    (11, 3, 300, 12, 0.7, "vectors of three times four numbers"),
    (10, 4, 2048, 128, 0.7, "32 kHz codec"),
    (70, 3, 131, 128, 0.7, "past a block of rows and a tile of entries of the codec's dim"),
    (5, 2, 128, 128, 0.0, "entries of the codec's dim, all equal"),
    (3, 32, 1024, 128, 0.3, "24 kHz codec at its highest bandwidth"),
    (2, 2, 5, 2048, 1.0, "the longest vectors"),
    (4, 3, 65, 6, 0.0, "entries all equal: the smallest index wins"),
    (65_537, 1, 3, 2, 1.0, "more rows than workgroups fit along one axis"),
];

pub(super) fn cases() -> Vec<Case> {
    let case =
        |&(rows, stages, entries, dim, amp, why): &(usize, usize, usize, usize, f32, &'static str)| Case {
            why,
            plan: RvqEncode
                .plan(&TensorDesc::f32([rows, dim]), &TensorDesc::f32([stages, entries, dim]))
                .expect("a case's shapes fit"),
            fill: vec![("codebooks", Fill::Noise(amp))],
            tolerance: Tolerance { why: "the nearest entry, with a margin", ..Tolerance::EXACT },
        };
    SHAPES.iter().map(case).collect()
}
