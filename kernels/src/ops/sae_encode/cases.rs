use super::{SaeEncode, SaeEncodeParts};
use crate::{Case, Fill, TensorDesc, Tolerance};

/// Inputs that make every sum exact in f32, in any order, and many of them equal.
const EXACT_X: Fill = Fill::Multiples(0.125, 8);
const EXACT_WEIGHT: Fill = Fill::Multiples(0.125, 8);
const EXACT_BIAS: Fill = Fill::Multiples(0.015_625, 64);

/// Mesa's software adapter ends loops after 65,535 turns of an invocation in all, so cases of many candidates have few rows.
///
/// (rows, width, features, k, why), of sums that are exact: indices and values are the same everywhere.
const EXACT: &[(usize, usize, usize, usize, &str)] = &[
    (0, 8, 40, 5, "no rows"),
    (1, 1, 1, 1, "smallest"),
    (3, 7, 5, 5, "every feature may be kept"),
    (5, 24, 53, 5, "less than a tile"),
    (64, 64, 64, 8, "one tile"),
    (65, 33, 129, 17, "one past a tile of rows and of features, odd width"),
    (130, 40, 700, 100, "three tiles of rows, published k"),
    (2, 16, 3000, 1024, "the most places"),
    (9, 1024, 640, 32, "MusicGen-small width"),
    (257, 12, 300, 1, "only the best"),
    (20, 128, 4096, 64, "many tiles"),
    (40, 130, 2100, 16, "many rows of many features, odd numbers of both"),
];

/// (rows, width, features, k, size of x and weight, why), of noise: no two values about the k-th are near each other, which a
/// test measures.
const ROUNDED: &[(usize, usize, usize, usize, f32, &str)] = &[
    (5, 96, 500, 8, 1.0, "noise"),
    (3, 1024, 900, 4, 1.0, "noise of MusicGen-small's width"),
    (4, 50, 300, 6, 1e12, "huge"),
    (4, 50, 300, 6, 1e-12, "tiny"),
];

fn planned(rows: usize, width: usize, features: usize, k: usize) -> crate::Plan {
    let (x, weight) = (TensorDesc::f32([rows, width]), TensorDesc::f32([features, width]));
    SaeEncode { k }.plan(&x, &weight, &TensorDesc::f32([features])).expect("a case's shapes fit")
}

fn exact(&(rows, width, features, k, why): &(usize, usize, usize, usize, &'static str)) -> Case {
    Case {
        why,
        plan: planned(rows, width, features, k),
        fill: vec![("x", EXACT_X), ("weight", EXACT_WEIGHT), ("bias", EXACT_BIAS)],
        tolerance: Tolerance { why: "sums without rounding", ..Tolerance::EXACT },
    }
}

fn rounded(&(rows, width, features, k, size, why): &(usize, usize, usize, usize, f32, &'static str)) -> Case {
    let square = f64::from(size) * f64::from(size);
    Case {
        why,
        plan: planned(rows, width, features, k),
        fill: vec![
            ("x", Fill::Noise(size)),
            ("weight", Fill::Noise(size)),
            ("bias", Fill::Noise(size * size)),
        ],
        tolerance: Tolerance {
            // partial sums of width terms of at most size^2 grow as the root of their number
            abs: square * (width as f64).powf(1.5) * 6e-8,
            rel: 0.0,
            why: "width terms in another order",
        },
    }
}

/// A case whose features are looked through in parts.
fn in_parts(parts: usize, mut case: Case) -> Case {
    let descs: Vec<&TensorDesc> = case.plan.slots.iter().flatten().collect();
    let k = descs[3].shape[1];
    let plan = SaeEncodeParts { k, parts }.plan(descs[0], descs[1], descs[2]);
    case.plan = plan.expect("a case's shapes fit in parts");
    case
}

fn words(values: impl Iterator<Item = f32>) -> Fill {
    Fill::Words(values.map(f32::to_bits).collect())
}

/// A case whose weight is 0, so that its pre-activations are the bias.
fn of_bias(
    (rows, width, features, k): (usize, usize, usize, usize),
    bias: impl Fn(usize) -> f32,
    why: &'static str,
) -> Case {
    let fill =
        vec![("x", EXACT_X), ("weight", Fill::Multiples(0.0, 1)), ("bias", words((0..features).map(bias)))];
    Case { fill, ..exact(&(rows, width, features, k, why)) }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = EXACT.iter().map(exact).chain(ROUNDED.iter().map(rounded)).collect();
    cases.push(of_bias((3, 9, 700, 40), |_| 1.5, "all equal: the first features"));
    cases.push(of_bias((66, 9, 300, 7), |f| -1.0 - f as f32, "all below 0"));
    cases.push(of_bias(
        (5, 9, 300, 20),
        |f| if f % 37 == 5 { 2.0 } else { 0.0 },
        "fewer above 0 than places",
    ));
    let rising = |f: usize| (f + 1) as f32 / 64.0;
    cases.push(of_bias((10, 4, 700, 30), rising, "every feature is better than all before"));
    let steps = |f: usize| (f / 50 % 7 + 1) as f32;
    cases.push(of_bias((4, 4, 1500, 333), steps, "many equals about the last place"));
    // rows 1 and 66 hold what is not a number, row 3 only zeros
    let (rows, width, features, k) = (67, 10, 200, 6);
    let spoilt = |i: usize| match (i / width, i % width) {
        (1, 4) | (66, 9) => f32::NAN,
        (3, _) => 0.0,
        (r, c) => ((r * 7 + c * 5) % 17) as f32 / 8.0 - 1.0,
    };
    let mut case = exact(&(rows, width, features, k, "rows that are not numbers spoil no other"));
    case.fill[0] = ("x", words((0..rows * width).map(spoilt)));
    cases.push(case);
    let parts = [
        (256, exact(&(3, 7, 5, 5, "more parts than tiles"))),
        (3, exact(&(65, 33, 129, 17, "a part a tile, the last of one feature, odd width"))),
        (4, exact(&(130, 40, 700, 100, "three tiles of rows, parts of several tiles and a shorter one"))),
        (11, of_bias((10, 4, 700, 30), rising, "parts in which every feature is better than all before")),
        (
            2,
            of_bias(
                (5, 9, 300, 20),
                |f| if f % 37 == 5 { 2.0 } else { 0.0 },
                "parts with fewer above 0 than places",
            ),
        ),
    ];
    cases.extend(parts.map(|(parts, case)| in_parts(parts, case)));
    // a feature of the second part is not a number
    let not_one = |f: usize| if f == 70 { f32::NAN } else { (f % 23) as f32 - 11.0 };
    cases.push(in_parts(
        4,
        of_bias((3, 5, 201, 9), not_one, "what is no number spoils its part of the rows alone"),
    ));
    cases.push(exact(&(2, 4, 70_000, 12, "indices past 16 bits")));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The inputs of a case.
    fn inputs(case: &Case) -> [Vec<f32>; 3] {
        let float = |bytes: &[u8]| f32::from_ne_bytes(bytes.try_into().expect("four bytes"));
        [0, 1, 2].map(|slot| case.input(slot).chunks_exact(4).map(float).collect())
    }

    #[test]
    fn sums_that_are_said_to_be_exact_are() {
        for case in EXACT.iter().map(exact) {
            let [x, weight, bias] = inputs(&case);
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
            let [x, weight, bias] = inputs(&case);
            let shapes = &case.plan.slots;
            let width = shapes[0].as_ref().expect("x").shape[1];
            let k = shapes[3].as_ref().expect("indices").shape[1];
            for x in x.chunks_exact(width) {
                let pre = |(w, b): (&[f32], &f32)| {
                    let sum: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                    sum + f64::from(*b)
                };
                let mut pre: Vec<f64> = weight.chunks_exact(width).zip(&bias).map(pre).collect();
                pre.sort_by(|a, b| b.total_cmp(a));
                let apart = |pair: &[f64]| pair[0] - pair[1] > 2.0 * case.tolerance.abs;
                assert!(pre[..=k].windows(2).all(apart), "{}: {:?}", case.why, &pre[..=k]);
                assert!(pre[k] > case.tolerance.abs, "{}: all places are taken", case.why);
            }
        }
    }
}
