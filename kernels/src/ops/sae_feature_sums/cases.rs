use super::{HISTORY, SaeFeatureSums};
use crate::ops::sae_group::{Grouped, SaeGroup, grouped};
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (features, rows, k, aux_k, width, why)
type Shape = (usize, usize, usize, usize, usize, &'static str);

const SHAPES: &[Shape] = &[
    (5, 0, 3, 0, 7, "no rows: no feature is active"),
    (1, 1, 1, 0, 1, "smallest"),
    (61, 37, 11, 7, 65, "two tables, one column past a workgroup"),
    (2049, 5, 3, 0, 33, "few of many features"),
    (300, 129, 270, 0, 20, "most features in most rows"),
    (32_768, 64, 100, 0, 1024, "a batch of 64 on MusicGen-small, 32,768 features"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(features, rows, k, aux_k, width, why): &Shape| {
        let group = SaeGroup { features, rows, k, aux_k };
        let entries = group.entries();
        let Grouped { values, starts, order, .. } = grouped(why, group);
        let tables = if aux_k == 0 { 1 } else { 2 };
        let plan = SaeFeatureSums.plan([
            &TensorDesc::u32([features + 1]),
            &TensorDesc::u32([entries, 2]),
            &TensorDesc::f32([entries]),
            &TensorDesc::f32([entries]),
            &TensorDesc::f32([rows, width]),
            &TensorDesc::f32([tables * rows, width]),
            &TensorDesc::u32([features, HISTORY]),
        ]);
        Case {
            why,
            plan: plan.expect("a case's shapes fit"),
            fill: vec![
                ("starts", Fill::Words(starts)),
                ("order", Fill::Words(order)),
                ("values", Fill::Words(values.iter().map(|v| v.to_bits()).collect())),
                ("history", Fill::Below(1000)),
            ],
            tolerance: Tolerance {
                abs: 2e-5,
                rel: 2e-5,
                why: "squares of sums of up to 129 products below 1.2, in f32 in order, each sum within 129 roundings",
            },
        }
    };
    SHAPES.iter().map(case).collect()
}
