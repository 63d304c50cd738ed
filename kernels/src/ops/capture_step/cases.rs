use super::CaptureStep;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (rows, cols, columns, bound of positions, why)
const SHAPES: &[(usize, usize, usize, u32, &str)] = &[
    (0, 5, 3, 1, "no rows"),
    (3, 0, 3, 9, "no columns of x"),
    (1, 1, 1, 100, "one value, over and over"),
    (2, 257, 3, 3, "one past a workgroup; within the first round"),
    (7, 37, 64, 4_000_000_000, "odd rows; positions beyond 2^31"),
    (16, 1024, 64, 1504, "MusicGen-small, eight takes with guidance"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(rows, cols, columns, below, why): &(usize, usize, usize, u32, &'static str)| Case {
        why,
        plan: CaptureStep
            .plan(
                &TensorDesc::f32([rows, cols]),
                &TensorDesc::u32([rows]),
                &TensorDesc::f32([rows, columns, cols]),
            )
            .expect("a case's shapes fit"),
        fill: vec![("positions", Fill::Below(below))],
        tolerance: Tolerance::EXACT,
    };
    SHAPES.iter().map(case).collect()
}
