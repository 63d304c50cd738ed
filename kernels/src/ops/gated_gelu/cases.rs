use super::GatedGelu;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (shape, amplitude of a, why)
const SHAPES: &[(&[usize], f32, &str)] = &[
    (&[0, 5], 1.0, "no rows"),
    (&[], 1.0, "a scalar"),
    (&[3, 85], 1.0, "one below a workgroup"),
    (&[257], 3.0, "one past a workgroup"),
    (&[2, 512], 8.0, "exactly a block of PTX; both tails"),
    (&[5, 205], 100.0, "one past a block of PTX; far into both tails"),
    (&[7, 11], 1e20, "a^3 past the largest f32"),
    (&[2, 3, 5, 7], 1e-20, "a^3 below the smallest f32"),
    (&[37, 2048], 4.0, "T5-base v1.1 width"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(shape, amplitude, why): &(&[usize], f32, &'static str)| {
        let a = TensorDesc::f32(shape);
        Case {
            why,
            plan: GatedGelu.plan(&a, &a).expect("a case's shapes fit"),
            fill: vec![("a", Fill::Noise(amplitude))],
            // with z = 2 sqrt(2 / pi) (a + ...), the result is a b / (1 + e^-z), and e^-z is off by |z| 2^-22, relatively;
            // e^-z |z|^2 / (1 + e^-z)^2 stays below 0.5
            tolerance: Tolerance {
                abs: 2e-6,
                rel: 1e-6,
                why: "rounding of the argument of exp, and of exp; 2^-22 of what it is",
            },
        }
    };
    SHAPES.iter().map(case).collect()
}
