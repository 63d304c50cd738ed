use super::SaeDeadBias;
use crate::ops::sae_feature_sums::HISTORY;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (features, after, why)
type Shape = (usize, u32, &'static str);

const SHAPES: &[Shape] = &[
    (0, 5, "no features"),
    (1, 0, "smallest: silent at once"),
    (257, 20, "one past a workgroup, half of them silent"),
    (32_768, 39, "one in forty silent"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(features, after, why): &Shape| Case {
        why,
        plan: SaeDeadBias { after }
            .plan(&TensorDesc::f32([features]), &TensorDesc::u32([features, HISTORY]))
            .expect("a case's shapes fit"),
        fill: vec![("history", Fill::Below(40))],
        tolerance: Tolerance::EXACT,
    };
    SHAPES.iter().map(case).collect()
}
