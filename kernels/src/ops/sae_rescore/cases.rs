use super::SaeRescore;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// Inputs that make every sum exact in f32, in any order, and many of them equal.
const EXACT_X: Fill = Fill::Multiples(0.125, 8);
const EXACT_WEIGHT: Fill = Fill::Multiples(0.125, 8);
const EXACT_BIAS: Fill = Fill::Multiples(0.015_625, 64);

/// (rows, width, features, candidates, k, why), of sums that are exact: indices and values are the same everywhere.
const EXACT: &[(usize, usize, usize, usize, usize, &str)] = &[
    (0, 8, 40, 9, 5, "no rows"),
    (1, 1, 1, 1, 1, "smallest"),
    (3, 7, 5, 5, 5, "every feature is a candidate and may be kept, odd width"),
    (5, 24, 53, 17, 4, "whole vectors of columns, fewer than lanes"),
    (6, 130, 300, 33, 20, "width of whole pairs, one candidate more than a round of all warps"),
    (131, 40, 701, 141, 100, "what the published k asks for"),
    (2, 16, 3001, 1536, 1024, "the most candidates and places"),
    (3, 36, 1201, 600, 9, "several candidates a thread"),
    (9, 1024, 641, 56, 32, "MusicGen-small width"),
    (40, 12, 307, 17, 1, "only the best"),
    (400, 16, 29, 12, 5, "rows that can be cut"),
];

/// (rows, width, features, candidates, k, size of x and weight, why), of noise: no two values about the k-th are near each other,
/// which a test measures.
const ROUNDED: &[(usize, usize, usize, usize, usize, f32, &str)] = &[
    (5, 96, 499, 26, 4, 1.0, "noise"),
    (3, 1024, 907, 21, 4, 1.0, "noise of MusicGen-small's width"),
    (4, 50, 307, 23, 4, 1e12, "huge"),
    (4, 50, 307, 23, 4, 1e-12, "tiny"),
];

fn planned([rows, width, features, screened, k]: [usize; 5]) -> crate::Plan {
    let (x, weight) = (TensorDesc::f32([rows, width]), TensorDesc::f32([features, width]));
    let (bias, candidates) = (TensorDesc::f32([features]), TensorDesc::u32([rows, screened]));
    SaeRescore { k }.plan(&x, &weight, &bias, &candidates).expect("a case's shapes fit")
}

/// Candidates out of order, different ones in a row and from row to row.
fn candidates(features: usize) -> Fill {
    let below = u32::try_from(features).expect("features of a case");
    // features of all cases are no multiples of it, or fewer than it
    Fill::Stepping { stride: 37, below }
}

fn exact(
    &(rows, width, features, screened, k, why): &(usize, usize, usize, usize, usize, &'static str),
) -> Case {
    Case {
        why,
        plan: planned([rows, width, features, screened, k]),
        fill: vec![
            ("x", EXACT_X),
            ("weight", EXACT_WEIGHT),
            ("bias", EXACT_BIAS),
            ("candidates", candidates(features)),
        ],
        tolerance: Tolerance { why: "sums without rounding", ..Tolerance::EXACT },
    }
}

fn rounded(
    &(rows, width, features, screened, k, size, why): &(usize, usize, usize, usize, usize, f32, &'static str),
) -> Case {
    let square = f64::from(size) * f64::from(size);
    Case {
        why,
        plan: planned([rows, width, features, screened, k]),
        fill: vec![
            ("x", Fill::Noise(size)),
            ("weight", Fill::Noise(size)),
            ("bias", Fill::Noise(size * size)),
            ("candidates", candidates(features)),
        ],
        tolerance: Tolerance {
            // partial sums of width terms of at most size^2 grow as the root of their number
            abs: square * (width as f64).powf(1.5) * 6e-8,
            rel: 0.0,
            why: "width terms in another order",
        },
    }
}

fn words(values: impl Iterator<Item = f32>) -> Fill {
    Fill::Words(values.map(f32::to_bits).collect())
}

/// A case whose weight is 0, so that its pre-activations are the bias.
fn of_bias(
    (rows, features, screened, k): (usize, usize, usize, usize),
    bias: impl Fn(usize) -> f32,
    why: &'static str,
) -> Case {
    let mut case = exact(&(rows, 9, features, screened, k, why));
    case.fill[1].1 = Fill::Multiples(0.0, 1);
    case.fill[2].1 = words((0..features).map(bias));
    case
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = EXACT.iter().map(exact).chain(ROUNDED.iter().map(rounded)).collect();
    cases.push(of_bias((3, 709, 90, 40), |_| 1.5, "all equal: the first features"));
    cases.push(of_bias((66, 301, 30, 7), |f| -1.0 - f as f32, "all below 0"));
    cases.push(of_bias((5, 301, 60, 20), |f| if f % 37 == 5 { 2.0 } else { 0.0 }, "few above 0"));
    let steps = |f: usize| (f / 50 % 7 + 1) as f32;
    cases.push(of_bias((4, 1501, 416, 333), steps, "many equals about the last place"));
    // rows of fewer candidates than places, and of none
    let mut case = exact(&(4, 20, 50, 12, 8, "candidates that are none"));
    let there = |row: usize, i: usize| i < 6 * (row % 3) && i != 2;
    let or_none = |i: usize| if there(i / 12, i % 12) { (i * 7 % 50) as u32 } else { u32::MAX };
    case.fill[3].1 = Fill::Words((0..48).map(or_none).collect());
    cases.push(case);
    // rows 1 and 6 hold what is not a number, row 3 only zeros
    let (rows, width) = (7, 10);
    let spoilt = |i: usize| match (i / width, i % width) {
        (1, 4) | (6, 9) => f32::NAN,
        (3, _) => 0.0,
        (r, c) => ((r * 7 + c * 5) % 17) as f32 / 8.0 - 1.0,
    };
    let mut case = exact(&(rows, width, 201, 23, 6, "rows that are not numbers spoil no other"));
    case.fill[0].1 = words((0..rows * width).map(spoilt));
    cases.push(case);
    let not_one = |f: usize| if f == 37 { f32::NAN } else { (f % 23) as f32 - 11.0 };
    cases.push(of_bias((3, 201, 20, 9), not_one, "a feature that is not a number spoils its rows"));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The inputs of a case, in f32, and its candidates.
    fn inputs(case: &Case) -> ([Vec<f32>; 3], Vec<u32>) {
        let float = |bytes: &[u8]| f32::from_ne_bytes(bytes.try_into().expect("four bytes"));
        let floats = [0, 1, 2].map(|slot| case.input(slot).chunks_exact(4).map(float).collect());
        (floats, bytemuck::pod_collect_to_vec(&case.input(3)))
    }

    #[test]
    fn candidates_of_a_row_are_different() {
        for case in cases() {
            let screened = case.plan.slots[3].as_ref().expect("candidates").shape[1];
            for row in inputs(&case).1.chunks_exact(screened) {
                let mut row: Vec<u32> = row.iter().copied().filter(|&f| f != u32::MAX).collect();
                let there = row.len();
                row.sort_unstable();
                row.dedup();
                assert_eq!(row.len(), there, "{}", case.why);
            }
        }
    }

    #[test]
    fn sums_that_are_said_to_be_exact_are() {
        for case in EXACT.iter().map(exact) {
            let ([x, weight, bias], _) = inputs(&case);
            let width = case.plan.slots[0].as_ref().expect("x").shape[1];
            let whole = |values: &[f32], parts: f32| {
                values.iter().all(|v| (v * parts).fract() == 0.0 && v.abs() <= 1.0)
            };
            assert!(whole(&x, 8.0) && whole(&weight, 8.0) && whole(&bias, 64.0), "{}", case.why);
            // parts of 1/64, of which a sum has at most 64 (width + 1)
            assert!(64 * (width + 1) < 1 << 24, "{}", case.why);
        }
    }

    #[test]
    fn noise_leaves_a_margin_about_every_place() {
        for case in ROUNDED.iter().map(rounded) {
            let ([x, weight, bias], candidates) = inputs(&case);
            let shapes = &case.plan.slots;
            let width = shapes[0].as_ref().expect("x").shape[1];
            let screened = shapes[3].as_ref().expect("candidates").shape[1];
            let k = shapes[4].as_ref().expect("indices").shape[1];
            for (x, candidates) in x.chunks_exact(width).zip(candidates.chunks_exact(screened)) {
                let pre = |&f: &u32| {
                    let terms = x.iter().zip(&weight[f as usize * width..][..width]);
                    let sum: f64 = terms.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                    sum + f64::from(bias[f as usize])
                };
                let mut pre: Vec<f64> = candidates.iter().map(pre).collect();
                pre.sort_by(|a, b| b.total_cmp(a));
                let apart = |pair: &[f64]| pair[0] - pair[1] > 2.0 * case.tolerance.abs;
                assert!(pre[..=k].windows(2).all(apart), "{}: {:?}", case.why, &pre[..=k]);
                assert!(pre[k] > case.tolerance.abs, "{}: all places are taken", case.why);
            }
        }
    }
}
