use super::SaeFeatureGrad;
use crate::ops::sae_group::{Grouped, SaeGroup, grouped};
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (rows, k, features, width, why)
type Shape = (usize, usize, usize, usize, &'static str);

const SHAPES: &[Shape] = &[
    (0, 3, 5, 7, "no rows"),
    (3, 0, 5, 7, "no places: statistics alone"),
    (1, 1, 1, 1, "smallest"),
    (200, 2, 3, 5, "many rows of few features, which can be cut"),
    (5, 7, 61, 33, "one past the invocations of an entry, fewer places than entries at a time"),
    (7, 270, 300, 65, "more places than invocations"),
    (64, 100, 32_768, 1024, "a batch of 64 on MusicGen-small, 32,768 features"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(rows, k, features, width, why): &Shape| {
        let Grouped { indices, values, .. } = grouped(why, SaeGroup { features, rows, k, aux_k: 0 });
        let plan = SaeFeatureGrad.plan(
            &TensorDesc::u32([rows, k]),
            &TensorDesc::f32([rows, k]),
            &TensorDesc::f32([features, width]),
            &TensorDesc::f32([rows, width]),
            &TensorDesc::f32([1]),
        );
        Case {
            why,
            plan: plan.expect("a case's shapes fit"),
            fill: vec![
                ("indices", Fill::Words(indices)),
                ("values", Fill::Words(values.iter().map(|v| v.to_bits()).collect())),
            ],
            tolerance: Tolerance {
                abs: 2e-5,
                rel: 2e-6,
                why: "products of up to 1024 values below 1, whose partial sums stay below 30, and sums of up to 1024 squares",
            },
        }
    };
    SHAPES.iter().map(case).collect()
}
