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
    ([4, 50, 307, 23, 4], 1e-6, 8, EVEN * 1e-6, "small"),
    ([2, 50, 307, 23, 4], 1e12, 8, EVEN * 1e12, "too large to square"),
    ([2, 50, 307, 23, 4], 1e-12, 8, EVEN * 1e-12, "too small to square"),
    ([6, 64, 300, 80, 20], 1.0, 4, 16.0 * EVEN, "scores that are far off"),
    ([2, 40, 301, 12, 8], 1.0, 3, 32.0 * EVEN, "scores so far off that all are to be computed"),
    ([6, 64, 300, 80, 20], 1.0, 5, EVEN, "scores further off than is said, which near ties tell"),
    ([3, 40, 301, 25, 8], 1.0, 3, EVEN, "near ties tell that all are to be computed"),
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
        let [bias, errors] = [features, width + features].map(|n| TensorDesc::f32([n]));
        let (candidates, scores) = (TensorDesc::u32([rows, screened]), TensorDesc::f32([rows, screened]));
        let plan = SaeRescore { k }.plan(&x, &weight, &bias, &errors, &candidates, &scores);
        let plan = plan.expect("a case's shapes fit");
        // some columns more, some less; a feature in seventeen is more than twice as far off
        let columns = (0..width).map(|column| self.error * [1.0, 1.25, 0.75][column % 3]);
        let errors = words(columns.chain((0..features).map(|f| if f % 17 == 3 { 2.5 } else { 1.0 })));
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
    // 2^127 in bf16, of which those rows have 1.996; in f32 it is more than 2^128
    let large = |f: usize| if f % 12 == 7 { 2.0_f32.powi(127) * 1.003 } else { (f % 13) as f32 / 8.0 };
    let halves = |i: usize| if i % 10 < 2 { 1.0 - (i % 10) as f32 / 256.0 } else { 0.0 };
    let inputs = of_rows(2, 97, &halves, "near ties that are infinite");
    let weight = words((0..97 * 10).map(|i| large(i / 10)));
    cases.push(Inputs { weight, ..inputs }.without_rounding());
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
    use crate::ops::sae_rescore::{Doubt, Params, SHOWN};

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

    /// What cases of noise come to: rows that are gone through whole, at once or since near ties told; those where they told that more
    /// are near; candidates that keep their score, near ties, and those that are left out; rows that keep a feature which the screen had
    /// behind the k-th.
    #[derive(Debug, Default)]
    struct Counts {
        whole: usize,
        told_whole: usize,
        told: usize,
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
            let scale = |i: usize| f64::from(errors[width + candidates[i] as usize]);
            let mut doubt = Doubt::of(&p, x, &errors, scores);
            let is_known = doubt.is_some();
            let mut told = false;
            let span = loop {
                let Some(doubt) = &mut doubt else { break None };
                let far = |a: f64, b: f64| assert!((a - b).abs() > margin, "{}: {a} and {b}", case.why);
                for (i, &score) in scores.iter().enumerate() {
                    let (low, high) = doubt.limits(scale(i));
                    far(score.into(), low);
                    far(score.into(), high);
                }
                far(scores[screened - 1].into(), doubt.limits(1.0).0);
                let Some(span) = doubt.span(&p, scores, scale) else { break None };
                let off = |i: usize| (computed(candidates[i]) - f64::from(scores[i])).abs() / scale(i);
                let off = span.clone().map(off).fold(0.0, f64::max);
                // the one that told is still there
                if SHOWN * off != doubt.reach {
                    far(SHOWN * off, doubt.reach);
                }
                if !doubt.shown(off) {
                    break Some(span);
                }
                told = true;
            };
            counts.told += usize::from(told && span.is_some());
            counts.told_whole += usize::from(is_known && told && span.is_none());
            counts.whole += usize::from(span.is_none());
            let mut pre: Vec<(f64, u32)> = match span {
                None => (0..p.features).map(|f| (computed(f), f)).collect(),
                Some(span) => {
                    counts.kept += span.start;
                    counts.near += span.len();
                    counts.out += screened - span.end;
                    let value = |i: usize| {
                        if span.contains(&i) { computed(candidates[i]) } else { scores[i].into() }
                    };
                    (0..span.end).map(|i| (value(i), candidates[i])).collect()
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
    fn near_ties_that_are_said_to_be_infinite_are() {
        let case =
            cases().into_iter().find(|case| case.why == "near ties that are infinite").expect("a case");
        let ([x, weight, _, errors, scores], candidates) = inputs(&case);
        let p: Params = bytemuck::pod_read_unaligned(&case.plan.params);
        let scores = &scores[..p.screened as usize];
        let doubt = Doubt::of(&p, &x[..10], &errors, scores).expect("scores that are finite");
        let near = doubt.span(&p, scores, |_| 1.0).expect("others are no near ties");
        let computed =
            |i: usize| x[..10].iter().zip(&weight[10 * candidates[i] as usize..]).map(|(x, w)| x * w);
        assert!(!near.is_empty() && near.into_iter().all(|i| computed(i).sum::<f32>() == f32::INFINITY));
    }

    #[test]
    fn noise_leaves_a_margin_about_every_decision() {
        let counts: Vec<Counts> = ROUNDED.iter().map(|case| counted(&rounded(case))).collect();
        for (count, (shape, .., why)) in counts.iter().zip(ROUNDED) {
            let told_apart = count.whole == 0 && count.kept > 0 && count.near > 0 && count.out > 0;
            assert!(told_apart || count.whole == shape[0], "{why}: {count:?}");
        }
        let kinds: [fn(&Counts) -> usize; 4] =
            [|count| count.whole, |count| count.told_whole, |count| count.told, |count| count.changed];
        for kind in kinds {
            assert!(counts.iter().any(|count| kind(count) > 0), "{counts:?}");
        }
    }
}
