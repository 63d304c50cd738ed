use super::SumRows;
use crate::{Case, TensorDesc, Tolerance};

/// (rows, cols, factor, why)
type Shape = (usize, usize, f32, &'static str);

const SHAPES: &[Shape] = &[
    (0, 5, 2.0, "no rows: zeros"),
    (5, 0, 2.0, "no columns"),
    (1, 1, -1.0, "smallest"),
    (7, 33, 0.5, "one past a workgroup, fewer rows than share a column"),
    (64, 1024, -1.0, "a batch of MusicGen-small"),
    (2049, 95, -2.0, "many rows, columns of part of a workgroup"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(rows, cols, factor, why): &Shape| Case {
        why,
        plan: SumRows { factor }.plan(&TensorDesc::f32([rows, cols])).expect("a case's shapes fit"),
        fill: vec![],
        tolerance: Tolerance {
            // the sum of n uniform values wanders to about sqrt(n / 3), and rounds that often
            abs: (rows.max(1) as f64) * 2.0_f64.powi(-21),
            rel: 2e-7,
            why: "a sum of as many values below 1 as there are rows, in f32 in another order",
        },
    };
    SHAPES.iter().map(case).collect()
}
