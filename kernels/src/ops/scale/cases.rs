use super::Scale;
use crate::{Case, TensorDesc, Tolerance};

/// (shape, factor, why)
const SHAPES: &[(&[usize], f32, &str)] = &[
    (&[0, 5], 2.0, "no values"),
    (&[], 0.5, "a scalar"),
    (&[3, 85], -1.5, "one below a workgroup"),
    (&[256], 0.1, "exactly one workgroup"),
    (&[257], 1.0, "a copy, one past a workgroup"),
    (&[3, 5, 7, 11], 0.0, "four axes, to zero"),
    (&[501, 1024], 3.25, "MusicGen-small hidden states"),
    (&[16_776_961], -0.75, "more workgroups than one axis holds"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(shape, factor, why): &(&[usize], f32, &'static str)| Case {
        why,
        plan: Scale { factor }.plan(&TensorDesc::f32(shape)).expect("a case's shapes fit"),
        fill: vec![],
        tolerance: Tolerance { abs: 0.0, rel: 0.0, why: "one rounded multiplication" },
    };
    SHAPES.iter().map(case).collect()
}
