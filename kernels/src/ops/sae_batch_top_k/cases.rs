use super::SaeBatchTopK;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (rows, places, most, values, why)
type Shape = (usize, usize, usize, Option<Fill>, &'static str);

// the bits of NaN, infinity, -1, -0, the least above 0, the largest, and 1
const ODD: &[u32] = &[0x7fc0_0000, 0x7f80_0000, 0xbf80_0000, 0x8000_0000, 1, 0x7f7f_ffff, 0x3f80_0000];

pub(super) fn cases() -> Vec<Case> {
    let shapes: [Shape; 9] = [
        (0, 7, 3, None, "no rows: the threshold stays"),
        (1, 1, 1, Some(Fill::Between(0.5, 1.5)), "smallest"),
        (5, 41, 30, None, "half above 0, of which a third stays"),
        (5, 41, 200, None, "fewer above 0 than may stay: the smallest is the least"),
        (3, 11, 4, Some(Fill::Between(-2.0, -1.0)), "none above 0: the threshold stays"),
        (9, 33, 100, Some(Fill::Multiples(0.25, 3)), "many equals at the last place: all of them stay"),
        (7, 9, 20, Some(Fill::Cycle(ODD)), "infinities, what is no number, the least and the largest"),
        (
            67,
            63,
            700,
            Some(Fill::Between(1.0, 1.001)),
            "equal in the first digit, more than one look of a block",
        ),
        (1024, 1024, 65_536, None, "1024 rows, 64 a row on average"),
    ];
    let case = |(rows, places, most, fill, why): Shape| {
        let plan = SaeBatchTopK { most }.plan(
            &TensorDesc::f32([rows, places]),
            &TensorDesc::f32([1]),
            &TensorDesc::f32([1]),
        );
        let mut filled = vec![("keep", Fill::Between(0.5, 1.0))];
        filled.extend(fill.map(|fill| ("values", fill)));
        Case {
            why,
            plan: plan.expect("a case's shapes fit"),
            fill: filled,
            tolerance: Tolerance {
                abs: 1e-7,
                rel: 3e-7,
                why: "values exactly; the threshold a sum of two products of numbers below 2",
            },
        }
    };
    shapes.into_iter().map(case).collect()
}
