use super::Lstm;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// Whether the residual is bound.
#[derive(Clone, Copy, PartialEq)]
enum Skip {
    Without,
    With,
}
use Skip::{With, Without};

/// (batch, steps, hidden, residual, why)
const SHAPES: &[(usize, usize, usize, Skip, &str)] = &[
    (0, 3, 4, With, "no sequences"),
    (2, 0, 4, With, "no steps"),
    (2, 3, 0, Without, "no units"),
    (1, 1, 1, Without, "smallest"),
    (1, 50, 1, With, "one unit, many steps"),
    (3, 11, 7, With, "fewer units than a panel, batch of 3"),
    (23, 4, 12, With, "three times four units, two sequences past 21"),
    (1, 5, 15, Without, "one below a panel of units"),
    (2, 5, 16, With, "exactly one panel"),
    (1, 5, 17, With, "one past a panel"),
    (1, 9, 64, With, "four panels, one run of sums"),
    (3, 9, 65, With, "one past a run of sums, batch of 3"),
    (9, 3, 68, With, "rows of 16 bytes, half a group of 8 units, one sequence past 8"),
    (66, 2, 70, Without, "rows of 8 bytes, two sequences past 64"),
    (1, 4, 127, Without, "prime"),
    (1, 3, 255, Without, "one below a workgroup"),
    (1, 3, 257, With, "one past a workgroup"),
    (1, 4, 512, Without, "24 kHz codec"),
    (1, 3, 1024, With, "32 kHz codec"),
    (1, 2, 2048, Without, "the most units"),
    (65_537, 1, 1, With, "more sequences than workgroups fit along one axis"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(batch, steps, hidden, skip, why): &(usize, usize, usize, Skip, &'static str)| {
        let y = TensorDesc::f32([batch, steps, hidden]);
        let plan = Lstm.plan(
            &TensorDesc::f32([batch, steps, 4 * hidden]),
            &TensorDesc::f32([4 * hidden, hidden]),
            (skip == With).then_some(&y),
        );
        // as torch initialises: the recurrence contracts, and errors fade instead of growing
        let amp = 1.0 / (hidden.max(1) as f32).sqrt();
        Case {
            why,
            plan: plan.expect("a case's shapes fit"),
            fill: vec![("gates", Fill::Noise(2.0)), ("weight", Fill::Noise(amp))],
            tolerance: Tolerance {
                abs: 4e-6,
                rel: 1e-6,
                why: "exp at 3 + 2 |x| ulp in three gates and the state's tanh, carried on through the state",
            },
        }
    };
    SHAPES.iter().map(case).collect()
}
