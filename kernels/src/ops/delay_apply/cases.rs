use super::{DelayApply, Steps};
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (batch, codebooks, frames, channels, steps, why)
type Shape = (usize, usize, usize, usize, Steps, &'static str);

const SHAPES: &[Shape] = &[
    (0, 4, 7, 1, Steps::Valid, "no sequences"),
    (2, 4, 0, 1, Steps::Full, "no frames: nothing but special"),
    (1, 1, 1, 1, Steps::Full, "smallest, no delay"),
    (1, 4, 2, 1, Steps::Valid, "fewer frames than delays"),
    (3, 4, 50, 1, Steps::Full, "mono, every frame of every codebook"),
    (2, 8, 51, 2, Steps::Full, "stereo, pairs share a delay"),
    (67, 4, 50, 1, Steps::Full, "many short sequences, which devices may cut"),
    (1, 4, 500, 1, Steps::Valid, "ten seconds of MusicGen"),
    (3, 4, 1_400_000, 1, Steps::Valid, "more workgroups than one axis holds"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(batch, codebooks, frames, channels, steps, why): &Shape| {
        let plan =
            DelayApply { special: 2048, channels, steps }.plan(&TensorDesc::u32([batch, codebooks, frames]));
        Case {
            why,
            plan: plan.expect("a case's shapes fit"),
            fill: vec![("codes", Fill::Below(2048))],
            tolerance: Tolerance::EXACT,
        }
    };
    SHAPES.iter().map(case).collect()
}
