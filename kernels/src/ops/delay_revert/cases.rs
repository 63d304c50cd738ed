use super::DelayRevert;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (batch, codebooks, steps, channels, frames, why)
type Shape = (usize, usize, usize, usize, usize, &'static str);

const SHAPES: &[Shape] = &[
    (2, 4, 7, 1, 0, "no frames"),
    (2, 4, 0, 1, 3, "no positions: nothing but special"),
    (1, 1, 2, 1, 1, "smallest, no delay"),
    (3, 4, 54, 1, 50, "mono, every frame of every codebook"),
    (2, 8, 55, 2, 51, "stereo, pairs share a delay"),
    (67, 4, 54, 1, 50, "many short sequences, which devices may cut"),
    (1, 4, 501, 1, 500, "ten seconds of MusicGen, the last frames cut off"),
    (3, 4, 1_400_001, 1, 1_400_000, "more workgroups than one axis holds"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(batch, codebooks, steps, channels, frames, why): &Shape| {
        let plan =
            DelayRevert { special: 2048, channels, frames }.plan(&TensorDesc::u32([batch, steps, codebooks]));
        Case {
            why,
            plan: plan.expect("a case's shapes fit"),
            fill: vec![("ids", Fill::Below(2049))],
            tolerance: Tolerance::EXACT,
        }
    };
    SHAPES.iter().map(case).collect()
}
