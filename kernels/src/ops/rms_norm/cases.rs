use super::RmsNorm;
use crate::{Case, TensorDesc, Tolerance};

/// (rows, cols, why)
const SHAPES: &[(usize, usize, &str)] = &[
    (0, 8, "no rows"),
    (3, 0, "no columns"),
    (1, 1, "smallest"),
    (5, 3, "row shorter than a warp"),
    (3, 31, "one below a warp"),
    (4, 128, "one vector of four for every lane of a warp"),
    (7, 129, "one past a workgroup, no whole vectors"),
    (5, 132, "whole vectors that end within a warp"),
    (9, 260, "one vector past two turns of a warp"),
    (2, 511, "one below four turns of a warp"),
    (37, 768, "T5-base width"),
    (65_537, 3, "more rows than workgroups along one axis"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(rows, cols, why): &(usize, usize, &'static str)| Case {
        why,
        plan: RmsNorm { eps: 1e-6 }
            .plan(&TensorDesc::f32([rows, cols]), &TensorDesc::f32([cols]))
            .expect("a case's shapes fit"),
        fill: vec![],
        tolerance: Tolerance {
            abs: 1e-9,
            rel: 1.5e-6,
            why: "squares have one sign: a sum of 768 in another order, a root, a reciprocal, two products",
        },
    };
    SHAPES.iter().map(case).collect()
}
