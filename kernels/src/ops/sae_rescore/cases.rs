use super::SaeRescore;
use crate::ops::sae_screen::{self, SaeScreen};
use crate::{Case, DType, Fill, HostSlot, TensorDesc, Tolerance};
use half::bf16;

/// Inputs that bf16 holds and that make every sum exact in f32, in any order, and many of them equal.
const EXACT_X: Fill = Fill::Multiples(0.125, 8);
const EXACT_WEIGHT: Fill = Fill::Multiples(0.125, 8);
const EXACT_BIAS: Fill = Fill::Multiples(0.015_625, 64);

/// What [`super::errors`] says of a column of weights that are spread evenly up to 1.
const EVEN: f32 = 0.58 / 128.0;

/// Sizes, error, why.
type Exact = ([usize; 5], f32, &'static str);
/// Sizes, size of x and weight, bits, error, why.
type Rounded = ([usize; 5], f32, u32, f32, &'static str);

/// Mesa's software adapter ends loops after 65,535 turns of an invocation in all, so cases of many candidates have few rows.
///
/// [rows, width, features, candidates, k], error and why, of sums that are exact: indices and values are the same everywhere.
const EXACT: &[Exact] = &[
    ([0, 8, 40, 9, 5], EVEN, "no rows"),
    ([1, 1, 1, 1, 1], EVEN, "smallest"),
    ([3, 7, 5, 5, 5], EVEN, "every feature is a candidate and may be kept, odd width"),
    ([5, 24, 53, 17, 4], EVEN, "whole vectors of columns, fewer than lanes"),
    ([6, 130, 300, 33, 20], EVEN, "width of whole pairs, one candidate more than a round of all warps"),
    ([131, 40, 701, 141, 100], EVEN, "what the published k asks for"),
    ([2, 16, 3001, 1536, 1024], EVEN, "the most candidates and places"),
    ([3, 36, 1201, 600, 9], 0.3, "several near ties a thread"),
    ([9, 1024, 641, 56, 32], EVEN, "MusicGen-small width"),
    ([40, 12, 307, 17, 1], EVEN, "only the best"),
    ([400, 16, 29, 12, 5], EVEN, "rows that can be cut"),
    ([4, 24, 307, 40, 12], 0.0, "only equals are near"),
    ([3, 16, 2100, 50, 40], 3.0, "rows that are gone through whole, in rounds"),
    ([2, 8, 2700, 1100, 1024], 9.0, "such rounds with the most places"),
    ([5, 24, 61, 61, 9], 9.0, "all are near, and no others are there"),
];

/// [rows, width, features, candidates, k], size of x and weight, bits of significands, error and why, of noise: no two values that are
/// kept or left out are near each other, which a test measures, as it does what each is for.
const ROUNDED: &[Rounded] = &[
    ([5, 96, 499, 26, 4], 1.0, 8, EVEN, "noise"),
    ([3, 1024, 907, 21, 4], 1.0, 8, EVEN, "noise of MusicGen-small's width"),
    ([4, 50, 307, 23, 4], 1e7, 8, EVEN * 1e7, "large"),
    ([4, 50, 307, 23, 4], 3e-7, 8, EVEN * 3e-7, "small"),
    ([2, 50, 307, 23, 4], 1e12, 8, EVEN * 1e12, "too large to square"),
    ([2, 50, 307, 23, 4], 1e-12, 8, EVEN * 1e-12, "too small to square"),
    ([6, 64, 300, 80, 20], 1.0, 4, 16.0 * EVEN, "scores that are far off"),
    ([2, 40, 301, 12, 8], 1.0, 3, 32.0 * EVEN, "scores so far off that all are to be computed"),
];

/// The launch, and what it reads but for candidates.
struct Inputs {
    shape: [usize; 5],
    error: f32,
    x: Fill,
    weight: Fill,
    bias: Fill,
    why: &'static str,
}

impl Inputs {
    fn exact(&(shape, error, why): &Exact) -> Self {
        Self { shape, error, x: EXACT_X, weight: EXACT_WEIGHT, bias: EXACT_BIAS, why }
    }

    /// The case whose candidates and scores are what the screen finds, x and weight rounded to so many bits.
    fn screened(self, bits: u32, tolerance: Tolerance) -> Case {
        let [rows, width, features, screened, k] = self.shape;
        let [x, weight] = [[rows, width], [features, width]].map(TensorDesc::f32);
        let (bias, errors) = (TensorDesc::f32([features]), TensorDesc::f32([width]));
        let (candidates, scores) = (TensorDesc::u32([rows, screened]), TensorDesc::f32([rows, screened]));
        let plan = SaeRescore { k }.plan(&x, &weight, &bias, &errors, &candidates, &scores);
        let plan = plan.expect("a case's shapes fit");
        // some columns more, some less
        let errors = words((0..width).map(|column| self.error * [1.0, 1.25, 0.75][column % 3]));
        let fill = vec![("x", self.x), ("weight", self.weight), ("bias", self.bias), ("errors", errors)];
        let mut case = Case { why: self.why, plan, fill, tolerance };
        let narrow = |slot| -> Vec<bf16> {
            let bytes = case.input(slot);
            let floats = bytes.chunks_exact(4).map(|v| f32::from_ne_bytes(v.try_into().expect("four bytes")));
            floats.map(|v| bf16::from_f32(rounded_to(v, bits))).collect()
        };
        let [x_desc, weight_desc] = [x, weight].map(|desc| TensorDesc::new(DType::BF16, desc.shape));
        let plan = SaeScreen { k: screened }.plan(&x_desc, &weight_desc, &bias).expect("shapes fit");
        let (mut found, mut scores) = (vec![0_u32; rows * screened], vec![0_u32; rows * screened]);
        let (x, weight) = (narrow(0), narrow(1));
        let read = [bytemuck::cast_slice(&x), bytemuck::cast_slice(&weight), &case.input(2)];
        let written = [&mut found, &mut scores].map(|list| bytemuck::cast_slice_mut(list));
        let slots = read.map(HostSlot::Read).into_iter().chain(written.map(HostSlot::Write));
        (sae_screen::INFO.reference)(&plan.params, &mut slots.collect::<Vec<_>>());
        case.fill.extend([("candidates", Fill::Words(found)), ("scores", Fill::Words(scores))]);
        case
    }

    fn without_rounding(self) -> Case {
        self.screened(8, Tolerance { why: "sums without rounding", ..Tolerance::EXACT })
    }

    /// Weights of 0, so that pre-activations are the bias.
    fn of_bias(
        [rows, features, screened, k]: [usize; 4],
        bias: impl Fn(usize) -> f32,
        why: &'static str,
    ) -> Self {
        let (weight, bias) = (Fill::Multiples(0.0, 1), words((0..features).map(bias)));
        Self { weight, bias, ..Self::exact(&([rows, 9, features, screened, k], EVEN, why)) }
    }
}

/// A number of fewer bits in its significand, cut off.
fn rounded_to(value: f32, bits: u32) -> f32 {
    if bits < 8 { f32::from_bits(value.to_bits() & (u32::MAX << (24 - bits))) } else { value }
}

fn rounded(&(shape, size, bits, error, why): &Rounded) -> Case {
    let square = f64::from(size) * f64::from(size);
    let inputs = Inputs {
        shape,
        error,
        x: Fill::Noise(size),
        weight: Fill::Noise(size),
        bias: Fill::Noise(size * size),
        why,
    };
    inputs.screened(
        bits,
        Tolerance {
            // partial sums of width terms of at most size^2 grow as the root of their number
            abs: square * (shape[1] as f64).powf(1.5) * 6e-8,
            rel: 0.0,
            why: "width terms in another order",
        },
    )
}

fn words(values: impl Iterator<Item = f32>) -> Fill {
    Fill::Words(values.map(f32::to_bits).collect())
}

/// Rows of 10 columns, and their number: NaN, infinity and zeros among whole ones.
fn spoilt(i: usize) -> f32 {
    match (i / 10, i % 10) {
        (1, 4) | (6, 9) => f32::NAN,
        (2, 3) => f32::INFINITY,
        (3, _) => 0.0,
        (r, c) => ((r * 7 + c * 5) % 17) as f32 / 8.0 - 1.0,
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = EXACT.iter().map(|exact| Inputs::exact(exact).without_rounding()).collect();
    cases.extend(ROUNDED.iter().map(rounded));
    let steps = |f: usize| (f / 50 % 7 + 1) as f32;
    let not_one = |f: usize| if f == 37 { f32::NAN } else { (f % 23) as f32 - 11.0 };
    let none = |f: usize| if f < 44 { f32::NEG_INFINITY } else { (f % 5) as f32 - 1.0 };
    let of_bias =
        |shape, bias: &dyn Fn(usize) -> f32, why| Inputs::of_bias(shape, bias, why).without_rounding();
    cases.extend([
        of_bias([3, 709, 90, 40], &|_| 1.5, "all equal: the first features"),
        of_bias([66, 301, 30, 7], &|f| -1.0 - f as f32, "all below 0"),
        of_bias([5, 301, 60, 20], &|f| if f % 37 == 5 { 2.0 } else { 0.0 }, "few above 0"),
        of_bias([4, 1501, 416, 333], &steps, "many equals about the last place"),
        of_bias([3, 201, 20, 9], &not_one, "a feature that is not a number spoils its rows"),
        of_bias([1, 262_144, 40, 9], &|f| f as f32, "the most features"),
        of_bias([4, 50, 12, 8], &none, "candidates that are none"),
        of_bias([4, 50, 50, 8], &none, "all are candidates or none"),
    ]);
    let of_rows = |rows, features, x: &dyn Fn(usize) -> f32, why| {
        let shape = ([rows, 10, features, 23, 6], EVEN, why);
        Inputs { x: words((0..rows * 10).map(x)), ..Inputs::exact(&shape) }
    };
    cases.push(of_rows(7, 201, &spoilt, "rows that are not finite spoil no other").without_rounding());
    // rounded to bf16 they are infinite; in f32 a weight that is not 0 there makes the others nothing
    let beyond = |i: usize| if i % 10 == i / 10 { f32::MAX } else { 0.0 };
    let weight = Fill::Multiples(0.125, 1);
    let inputs = of_rows(3, 201, &beyond, "rows that bf16 does not hold");
    cases.push(Inputs { weight, bias: Fill::Multiples(0.0, 1), ..inputs }.without_rounding());
    // multiples of 2^-70 and 2^70
    for (size, why) in [
        (1.0 / 1024.0_f32.powi(7), "rows too small to square"),
        (1024.0_f32.powi(7), "rows too large to square"),
    ] {
        let x = move |i: usize| size * ((i * 7 % 15) as f32 - 7.0);
        let inputs = of_rows(4, 97, &x, why);
        cases.push(Inputs { bias: Fill::Multiples(0.0, 1), ..inputs }.without_rounding());
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::sae_rescore::{Params, near_ties};

    /// x, weight, bias, errors and scores of a case, and its candidates.
    fn inputs(case: &Case) -> ([Vec<f32>; 5], Vec<u32>) {
        let float = |bytes: &[u8]| f32::from_ne_bytes(bytes.try_into().expect("four bytes"));
        let floats = [0, 1, 2, 3, 5].map(|slot| case.input(slot).chunks_exact(4).map(float).collect());
        (floats, bytemuck::pod_collect_to_vec(&case.input(4)))
    }

    #[test]
    fn sums_that_are_said_to_be_exact_are() {
        for case in EXACT.iter().map(|exact| Inputs::exact(exact).without_rounding()) {
            let ([x, weight, bias, ..], _) = inputs(&case);
            let width = case.plan.slots[0].as_ref().expect("x").shape[1];
            let whole = |values: &[f32], parts: f32| {
                values.iter().all(|v| (v * parts).fract() == 0.0 && v.abs() <= 1.0)
            };
            assert!(whole(&x, 8.0) && whole(&weight, 8.0) && whole(&bias, 64.0), "{}", case.why);
            // parts of 1/64, of which a sum has at most 64 (width + 1)
            assert!(64 * (width + 1) < 1 << 24, "{}", case.why);
        }
    }

    /// What cases of noise come to: rows that are gone through whole; candidates that keep their score, near ties, and those that are
    /// left out; rows that keep a feature which the screen had behind the k-th.
    #[derive(Debug, Default)]
    struct Counts {
        whole: usize,
        kept: usize,
        near: usize,
        out: usize,
        changed: usize,
    }

    /// Counts, and holds every decision to a margin.
    fn counted(case: &Case) -> Counts {
        let ([x, weight, bias, errors, scores], candidates) = inputs(case);
        let p: Params = bytemuck::pod_read_unaligned(&case.plan.params);
        let [width, screened, k] = [p.width, p.screened, p.k].map(|n| n as usize);
        let margin = 2.0 * case.tolerance.abs;
        let mut counts = Counts::default();
        let lists = candidates.chunks_exact(screened).zip(scores.chunks_exact(screened));
        for (x, (candidates, scores)) in x.chunks_exact(width).zip(lists) {
            let computed = |f: u32| {
                let terms = x.iter().zip(&weight[f as usize * width..][..width]);
                let sum: f64 = terms.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                sum + f64::from(bias[f as usize])
            };
            let mut pre: Vec<(f64, u32)> = match near_ties(&p, x, &errors, scores) {
                None => {
                    counts.whole += 1;
                    (0..p.features).map(|f| (computed(f), f)).collect()
                }
                Some((low, high)) => {
                    let far = |score: f64| (score - low).abs() > margin && (score - high).abs() > margin;
                    let mut pre = Vec::new();
                    for (&f, score) in candidates.iter().zip(scores.iter().map(|&v| f64::from(v))) {
                        assert!(far(score), "{}: {score} between {low} and {high}", case.why);
                        let (count, value) = match score {
                            _ if score > high => (&mut counts.kept, Some(score)),
                            _ if score < low => (&mut counts.out, None),
                            _ => (&mut counts.near, Some(computed(f))),
                        };
                        *count += 1;
                        pre.extend(value.map(|value| (value, f)));
                    }
                    pre
                }
            };
            pre.sort_by(|a, b| b.0.total_cmp(&a.0));
            let several = &pre[..pre.len().min(k + 1)];
            assert!(
                several.windows(2).all(|pair| pair[0].0 - pair[1].0 > margin),
                "{}: {several:?}",
                case.why
            );
            assert!(pre[k - 1].0 > margin, "{}: all places are taken", case.why);
            counts.changed += usize::from(pre[..k].iter().any(|(_, f)| !candidates[..k].contains(f)));
        }
        counts
    }

    #[test]
    fn noise_leaves_a_margin_about_every_decision() {
        let counts: Vec<Counts> = ROUNDED.iter().map(|case| counted(&rounded(case))).collect();
        for (count, (shape, .., why)) in counts.iter().zip(ROUNDED) {
            let told_apart = count.whole == 0 && count.kept > 0 && count.near > 0 && count.out > 0;
            assert!(told_apart || count.whole == shape[0], "{why}: {count:?}");
        }
        for kind in [|count: &Counts| count.whole, |count: &Counts| count.changed] {
            assert!(counts.iter().any(|count| kind(count) > 0), "{counts:?}");
        }
    }
}
