use super::{Adam, AdamStep, RATES};
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (elements, columns of grad, column, beta1, why)
type Shape = (usize, usize, usize, f64, &'static str);

const SHAPES: &[Shape] = &[
    (0, 1, 0, 0.0, "no values"),
    (1, 1, 0, 0.0, "smallest"),
    (257, 4, 1, 0.0, "one past a workgroup, a column of four"),
    (255, 3, 2, 0.9, "one below a workgroup, both moments"),
    (32_768, 4, 1, 0.0, "the biases of 32,768 features"),
    (1024, 1, 0, 0.9, "the bias of a decoder, both moments"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(elements, columns, column, beta1, why): &Shape| {
        let adam = Adam { beta1, beta2: 0.999, eps: 1e-8 };
        let plan = AdamStep { adam, column }.plan(
            &TensorDesc::f32([elements]),
            &TensorDesc::f32([adam.moments(), elements]),
            &TensorDesc::f32([elements, columns]),
            &TensorDesc::f32([RATES]),
        );
        Case {
            why,
            plan: plan.expect("a case's shapes fit"),
            // a second moment is never negative; a first one of such values is as good as any
            fill: vec![("moments", Fill::Between(0.01, 1.0)), ("rates", Fill::Between(0.25, 0.75))],
            tolerance: Tolerance {
                abs: 2e-5,
                rel: 4e-7,
                why: "m / sqrt(v), at most 40, of a root and a quotient within 2 ulp each, times a rate below 1",
            },
        }
    };
    SHAPES.iter().map(case).collect()
}
