use super::Fill;
use crate::{Case, Tolerance};

/// (shape, value, why)
const SHAPES: &[(&[usize], f32, &str)] = &[
    (&[0], 2.0, "no values"),
    (&[], -0.0, "a scalar, negative zero"),
    (&[5, 51], 1.5, "one below a workgroup"),
    (&[257], -7.25, "one past a workgroup"),
    (&[16_776_961], 0.1, "more workgroups than one axis holds"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(shape, value, why): &(&[usize], f32, &'static str)| Case {
        why,
        plan: Fill { shape: shape.to_vec(), value }.plan().expect("a case's shapes fit"),
        fill: vec![],
        tolerance: Tolerance::EXACT,
    };
    SHAPES.iter().map(case).collect()
}
