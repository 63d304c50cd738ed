use super::{SCHEDULE, SaeClip};
use crate::ops::sae_feature_sums::SUMS;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (features, width, max_norm, why)
type Shape = (usize, usize, f32, &'static str);

const SHAPES: &[Shape] = &[
    (0, 3, 1.0, "no features"),
    (1, 1, 0.0, "smallest, no limit"),
    (257, 5, 0.75, "one past a workgroup, over the limit"),
    (255, 301, 100.0, "one below a workgroup, within the limit"),
    (32_768, 1024, 1.0, "an autoencoder of 32,768 features on MusicGen-small"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(features, width, max_norm, why): &Shape| {
        let plan = SaeClip { scale: 0.125, max_norm }.plan(
            &TensorDesc::f32([features, SUMS]),
            &TensorDesc::f32([width, 1]),
            &TensorDesc::f32([SCHEDULE]),
        );
        Case {
            why,
            plan: plan.expect("a case's shapes fit"),
            fill: vec![("sums", Fill::Between(0.0, 1.0)), ("schedule", Fill::Between(0.1, 1.0))],
            tolerance: Tolerance {
                abs: 1e-9,
                rel: 1e-5,
                why: "a sum of as many positive values as there are features, 256 sums of which each rounds 128 times",
            },
        }
    };
    SHAPES.iter().map(case).collect()
}
