use super::SaeThresholdGrad;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (rows, features, width, why)
type Shape = (usize, usize, usize, &'static str);

const SHAPES: &[Shape] = &[
    (0, 5, 7, "no rows"),
    (3, 0, 7, "no features"),
    (5, 3, 0, "no columns: the penalty alone"),
    (1, 1, 1, "smallest"),
    (33, 9, 65, "one past a warp of rows, a block of features, the invocations along a row"),
    (70, 41, 30, "columns fewer than invocations"),
    (128, 2048, 256, "128 rows, 2048 features"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(rows, features, width, why): &Shape| Case {
        why,
        plan: SaeThresholdGrad { bandwidth: 0.4 }
            .plan(
                &TensorDesc::f32([rows, features]),
                &TensorDesc::f32([features]),
                &TensorDesc::f32([features, width]),
                &TensorDesc::f32([rows, width]),
                &TensorDesc::f32([1]),
            )
            .expect("a case's shapes fit"),
        fill: vec![("log_threshold", Fill::Between(-4.0, -0.5)), ("error", Fill::Noise(0.1))],
        tolerance: Tolerance {
            abs: 2e-5,
            rel: 4e-6,
            why: "up to 50 rows near a threshold below 0.61, whose sums of up to 256 products stay below 3, times 1.5",
        },
    };
    SHAPES.iter().map(case).collect()
}
