use super::SaeAddThreshold;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (rows, k, features, why)
type Shape = (usize, usize, usize, &'static str);

const SHAPES: &[Shape] = &[
    (0, 3, 5, "no rows"),
    (3, 0, 5, "no places"),
    (1, 1, 1, "smallest"),
    (19, 27, 41, "one past two workgroups, half of the values not above 0"),
    (512, 256, 32_768, "a clip of ten seconds, 32,768 features"),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = SHAPES.iter().map(case).collect();
    // the bits of NaN, 0, -0, infinity, the least above 0, 1 and -1
    const ODD: &[u32] = &[0x7fc0_0000, 0, 0x8000_0000, 0x7f80_0000, 1, 0x3f80_0000, 0xbf80_0000];
    let mut odd = case(&(7, 9, 5, "values that are not numbers or 0, indices past the thresholds"));
    odd.fill = vec![("indices", Fill::Below(7)), ("values", Fill::Cycle(ODD))];
    cases.push(odd);
    cases
}

fn case(&(rows, k, features, why): &Shape) -> Case {
    Case {
        why,
        plan: SaeAddThreshold
            .plan(&TensorDesc::u32([rows, k]), &TensorDesc::f32([rows, k]), &TensorDesc::f32([features]))
            .expect("a case's shapes fit"),
        fill: vec![("indices", Fill::Below(features as u32))],
        tolerance: Tolerance::EXACT,
    }
}
