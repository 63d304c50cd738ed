use super::SaeDecode;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (rows, k, features, width, indices below, minus, why)
const SHAPES: &[(usize, usize, usize, usize, u32, bool, &str)] = &[
    (0, 4, 7, 5, 7, false, "no rows"),
    (3, 4, 7, 0, 7, true, "no columns"),
    (3, 0, 7, 5, 1, true, "no places: the bias alone"),
    (1, 1, 1, 1, 1, false, "smallest"),
    (3, 5, 17, 255, 17, false, "one column less than a workgroup, no whole vectors"),
    (5, 7, 31, 65, 50, true, "indices past the table, something subtracted"),
    (300, 8, 20, 16, 20, true, "few features, rows of whole vectors, devices may cut"),
    (67, 33, 129, 513, 129, true, "places that do not fill a group, one column past a block"),
    (6, 1024, 2000, 36, 2000, false, "the most places of the encoder"),
    (40, 100, 3000, 1024, 3000, true, "MusicGen-small width, published k"),
];

pub(super) fn cases() -> Vec<Case> {
    let case =
        |&(rows, k, features, width, below, subtracts, why): &(_, _, _, _, u32, bool, &'static str)| {
            let minus = subtracts.then(|| TensorDesc::f32([rows, width]));
            let plan = SaeDecode.plan(
                &TensorDesc::u32([rows, k]),
                &TensorDesc::f32([rows, k]),
                &TensorDesc::f32([features, width]),
                &TensorDesc::f32([width]),
                minus.as_ref(),
            );
            Case {
                why,
                plan: plan.expect("a case's shapes fit"),
                fill: vec![("indices", Fill::Below(below))],
                // k + 2 terms of at most 1, partial sums below sqrt(k + 2), each step rounding by 2^-24
                tolerance: Tolerance {
                    abs: (k + 2) as f64 * 6e-8 * ((k + 2) as f64).sqrt(),
                    rel: 1e-6,
                    why: "k + 2 terms in order, fused or not",
                },
            }
        };
    let mut cases: Vec<Case> = SHAPES.iter().map(case).collect();
    // value 0 at index 0, whose row is infinite: read, it would make NaN
    let (rows, k, features, width) = (5, 6, 9, 20);
    let at = |i: usize| if i % k < 3 { 1 + (i % 8) as u32 } else { 0 };
    let value = |i: usize| if i % k < 3 { (0.25 * (i + 1) as f32).to_bits() } else { 0 };
    let table = |i: usize| if i < width { f32::INFINITY } else { (i % 37) as f32 / 8.0 - 2.0 };
    let plan = SaeDecode.plan(
        &TensorDesc::u32([rows, k]),
        &TensorDesc::f32([rows, k]),
        &TensorDesc::f32([features, width]),
        &TensorDesc::f32([width]),
        None,
    );
    cases.push(Case {
        why: "places of value 0 add nothing, whatever their row holds",
        plan: plan.expect("a case's shapes fit"),
        fill: vec![
            ("indices", Fill::Words((0..rows * k).map(at).collect())),
            ("values", Fill::Words((0..rows * k).map(value).collect())),
            ("w_dec", Fill::Words((0..features * width).map(|i| table(i).to_bits()).collect())),
        ],
        tolerance: Tolerance { abs: 1e-5, rel: 1e-6, why: "four terms of at most 20" },
    });
    cases
}
