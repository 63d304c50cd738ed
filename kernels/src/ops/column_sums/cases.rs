use super::ColumnSums;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (groups, rows of a group, cols, skip, with a shift, why)
const SHAPES: &[(usize, usize, usize, usize, bool, &str)] = &[
    (2, 3, 0, 0, true, "no columns"),
    (3, 2, 5, 2, true, "every row skipped: sums of nothing"),
    (1, 1, 1, 0, false, "smallest"),
    (2, 31, 63, 0, true, "one below a run of rows, one below a block of columns"),
    (3, 33, 65, 1, true, "a run behind a skipped row, one past a block"),
    (5, 67, 130, 0, false, "runs that end within the rows, no shift"),
    (1, 501, 1024, 0, true, "10 s of MusicGen-small"),
    (2, 507, 96, 6, true, "behind a prefix"),
    (65_537, 2, 3, 0, false, "more workgroups than one axis holds"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(groups, steps, cols, skip, shifted, why): &(
        usize,
        usize,
        usize,
        usize,
        bool,
        &'static str,
    )| {
        let shift = shifted.then(|| TensorDesc::f32([cols]));
        let x = TensorDesc::f32([groups * steps, cols]);
        let mut fill = vec![("x", Fill::Noise(3.0))];
        if shifted {
            fill.push(("shift", Fill::Noise(2.0)));
        }
        Case {
            why,
            plan: ColumnSums { groups, skip }.plan(&x, shift.as_ref()).expect("a case's shapes fit"),
            fill,
            tolerance: Tolerance {
                // terms up to 5, their partial sums up to some hundreds
                abs: 5e-4,
                rel: 3e-6,
                why: "differences rounded once; runs of 32 in f32, then their sums: 48 roundings of what is summed so far",
            },
        }
    };
    SHAPES.iter().map(case).collect()
}
