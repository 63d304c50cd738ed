use super::SaeActive;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (rows, features, has thresholds, why)
type Shape = (usize, usize, bool, &'static str);

const SHAPES: &[Shape] = &[
    (0, 5, true, "no rows"),
    (3, 0, false, "no features"),
    (1, 1, false, "smallest"),
    (5, 33, true, "one past a warp"),
    (7, 259, false, "past a workgroup: an invocation has several"),
    (3, 771, true, "some warps have more than others"),
    (256, 16_384, true, "256 rows, 16,384 features"),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = SHAPES.iter().map(case).collect();
    // the bits of NaN, infinity, -infinity, 0, -0 and 1
    const ODD: &[u32] = &[0x7fc0_0000, 0x7f80_0000, 0xff80_0000, 0, 0x8000_0000, 0x3f80_0000];
    let mut odd = case(&(2, 41, false, "infinities, zeros, what is no number"));
    odd.fill = vec![("pre", Fill::Cycle(ODD))];
    cases.push(odd);
    cases
}

fn case(&(rows, features, has_threshold, why): &Shape) -> Case {
    let logs = has_threshold.then(|| TensorDesc::f32([features]));
    Case {
        why,
        plan: SaeActive.plan(&TensorDesc::f32([rows, features]), logs.as_ref()).expect("a case's shapes fit"),
        fill: vec![("log_threshold", Fill::Between(-6.0, -0.1))],
        tolerance: Tolerance::EXACT,
    }
}
