use super::Add;
use crate::{Case, TensorDesc, Tolerance};

/// (shape of x, shape of v, alpha, why)
type Shape = (&'static [usize], &'static [usize], f32, &'static str);

const SHAPES: &[Shape] = &[
    (&[0, 5], &[5], 2.0, "no rows"),
    (&[3, 0], &[0], 2.0, "no columns"),
    (&[], &[], 0.5, "scalars"),
    (&[3, 85], &[3, 85], -1.5, "one below a workgroup"),
    (&[257], &[257], 1.0, "one past a workgroup, alpha 1"),
    (&[7, 11], &[11], 0.0, "a row, alpha 0: a copy"),
    (&[7, 13], &[7, 13], -0.0, "alpha -0: a copy"),
    (&[2, 3, 5, 7], &[7], 3.0, "four axes and a row"),
    (&[101, 132], &[132], -0.7, "rows of whole vectors that end within blocks"),
    (&[501, 1024], &[1024], 0.75, "a steering vector on MusicGen-small"),
    (&[501, 1024], &[501, 1024], 1.0, "a residual of MusicGen-small"),
    (&[65_537, 257], &[257], 0.3, "more workgroups than one axis holds"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(x, v, alpha, why): &Shape| Case {
        why,
        plan: Add { alpha }.plan(&TensorDesc::f32(x), &TensorDesc::f32(v)).expect("a case's shapes fit"),
        fill: vec![],
        tolerance: match alpha {
            0.0 | 1.0 => Tolerance { abs: 0.0, rel: 0.0, why: "at most one rounded addition" },
            _ => Tolerance {
                abs: 3e-7,
                rel: 1.2e-7,
                why: "alpha * v, at most 3, rounded before the addition or not",
            },
        },
    };
    SHAPES.iter().map(case).collect()
}
