//! The second half of the encoder of a sparse autoencoder in half precision: of the features that
//! [`SaeScreen`](super::sae_screen::SaeScreen) found for a row, the best are kept, and those that are too near the last place to
//! tell are computed in f32 first.
//!
//! ```text
//! reach[r] = |x[r] errors|, column by column    how far the score of a feature of scale 1 may be off
//! edge[r]  = max(scores[r, k - 1], 0)
//! near[r]  = from the first to the last candidate with |scores[r, i] - edge[r]| <= reach[r] (1 + scale[candidates[r, i]])
//! pre[r, i] = scores[r, i]                                                      before near[r]
//!             sum_c x[r, c] weight[candidates[r, i], c] + bias[candidates[r, i]]  in near[r]
//!             none                                                              behind it
//! indices[r], values[r] = the k largest max(pre[r], 0), by value descending; of equals the smaller index first
//! ```
//!
//! `errors` holds one number for each column, then the scale of each feature. The candidates of a row are different features in the
//! order of the screen; one past the table is none. Where fewer than k are above 0, index 0 and value 0 fill the row. A row that has a
//! pre-activation which is not a number has values NaN and indices 0.
//!
//! **Near ties tell how far scores are off.** Where the score of one, by its scale, was further off than four fifths of reach, reach is
//! five quarters of that instead, and what is near is found anew, until none is. So a weight whose features are not alike, of which
//! [`errors`] says too little, has more near ties, not other features.
//!
//! Where no score is further off than reach, by scale, and features that are no candidates have scale 1, the features that are kept are
//! those that [`SaeEncode`](super::sae_encode::SaeEncode) keeps. A row whose list may be too short for that, since there are features that are no
//! candidates and the last candidate is not below edge - 2 reach, is gone through whole: every feature is computed. So is a row with a
//! score that is infinite or not a number, or further off than f32 holds, and one whose largest x errors is 2^50 or more, or below 2^-50
//! but not 0, since reach is then no number to go by in f32.
//!
//! A candidate's row of 1,024 columns is 4 KiB: 141 of each of 65,536 rows are 38 GB, 8 ms at 4.8 TB/s where no cache helps, beside
//! 7 ms for a screen of 32,768 features at 600 TFLOP/s. Near ties alone are some ten of them. What is not near keeps the score,
//! which is off by about a thousandth of the spread of a row's pre-activations.

mod cases;
mod cpu;
mod reference;

use super::{sae_encode::MOST_K, sae_screen::MOST_SCREENED};
use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;
use std::ops::Range;

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows of x, candidates, indices and values.
    pub rows: u32,
    /// Row length of x and weight.
    pub width: u32,
    /// Rows of weight.
    pub features: u32,
    /// Candidates a row.
    pub screened: u32,
    /// Features a row that are kept.
    pub k: u32,
    pad: [u32; 3],
}

/// Threads of a block of the PTX form, which makes a row.
const PTX_BLOCK: u32 = 128;
/// Invocations of a workgroup, which makes a row.
const WGSL_BLOCK: u32 = 256;
/// The largest x errors of a row whose reach is a number to go by: squares of larger and smaller ones leave f32.
const SIZES: Range<f32> = f32::from_bits((127 - 50) << 23)..f32::from_bits((127 + 50) << 23);
/// Blocks along x at most.
const PTX_GRID_X: u32 = i32::MAX.unsigned_abs();

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_rescore_f32",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::read("weight", DType::F32),
        Slot::read("bias", DType::F32),
        Slot::read("errors", DType::F32),
        Slot::read("candidates", DType::U32),
        Slot::read("scores", DType::F32),
        Slot::write("indices", DType::U32),
        Slot::write("values", DType::F32),
    ],
    fields: fields![Params; rows, width, features, screened, k],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sae_rescore.wgsl"), "sae_rescore_f32", [WGSL_BLOCK, 1, 1], |params| {
        fold_groups(bytemuck::pod_read_unaligned::<Params>(params).rows.into())
    })],
    ptx: &[Ptx {
        registers: 48,
        static_shared: 12_304,
        ..Ptx::new(include_str!("sae_rescore_f32.ptx"), "sae_rescore_f32", [PTX_BLOCK, 1, 1], |params, _| {
            let rows = bytemuck::pod_read_unaligned::<Params>(params).rows;
            [rows.min(PTX_GRID_X), rows.div_ceil(PTX_GRID_X), 1]
        })
    }],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// How many times as far as near ties show scores to be off, reach is at least.
const SHOWN: f64 = 1.25;
/// The largest scale of a feature; reach times that is finite.
const LARGEST_SCALE: f64 = 1e6;

/// Which of a row's candidates are near ties.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    edge: f64,
    reach: f64,
}

impl Doubt {
    /// None where a score is infinite or not a number, or reach is no number to go by.
    fn of(p: &Params, x: &[f32], errors: &[f32], scores: &[f32]) -> Option<Self> {
        let products = || x.iter().zip(errors).map(|(x, error)| x * error);
        // in the order of bits NaN is the largest
        let largest = products().map(|v| v.abs().to_bits()).max().map_or(0.0, f32::from_bits);
        // scores come in order, what is not a number first
        let known = (largest == 0.0 || SIZES.contains(&largest)) && scores[0] < f32::INFINITY;
        let edge = f64::from(scores[p.k as usize - 1].max(0.0));
        let reach = products().map(|v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        known.then_some(Self { edge, reach })
    }

    /// From where and up to where the score of a feature of a scale is near.
    fn limits(&self, scale: f64) -> (f64, f64) {
        let near = self.reach * (1.0 + scale);
        (self.edge - near, self.edge + near)
    }

    /// From the first to the last candidate that is near; none where features that are no candidates may be.
    fn span(&self, p: &Params, scores: &[f32], scale: impl Fn(usize) -> f64) -> Option<Range<usize>> {
        let score = |i: usize| f64::from(scores[i]);
        let last = scores.len() - 1;
        let complete = p.screened >= p.features || score(last) < self.limits(1.0).0;
        let start = (0..=last).find(|&i| score(i) <= self.limits(scale(i)).1).unwrap_or(last);
        let end =
            (start..=last).rev().find(|&i| score(i) >= self.limits(scale(i)).0).map_or(start, |i| i + 1);
        complete.then_some(start..end)
    }

    /// Takes in how far a near tie's score, by its scale, was off; whether more may be near than was taken to be.
    fn shown(&mut self, off: f64) -> bool {
        let grows = SHOWN * off > self.reach;
        self.reach = self.reach.max(SHOWN * off);
        grows
    }
}

/// The candidates of a row that are before near ties, with their scores, and near ties, computed; none where all features are to be.
fn settled(
    p: &Params,
    [x, errors]: [&[f32]; 2],
    candidates: &[u32],
    scores: &[f32],
    compute: impl Fn(u32) -> f32,
) -> Option<Vec<(u32, f32)>> {
    let scales = &errors[p.width as usize..];
    let scale = |i: usize| scales.get(candidates[i] as usize).map_or(1.0, |&scale| f64::from(scale));
    let mut doubt = Doubt::of(p, x, errors, scores)?;
    loop {
        let span = doubt.span(p, scores, scale)?;
        let there = |range: Range<usize>| range.filter(|&i| candidates[i] < p.features);
        let mut pre: Vec<(u32, f32)> = there(0..span.start).map(|i| (candidates[i], scores[i])).collect();
        let mut off = 0.0_f64;
        for i in there(span) {
            let value = compute(candidates[i]);
            let own = (f64::from(value) - f64::from(scores[i])).abs() / scale(i);
            off = if own.is_finite() { off.max(own) } else { return None };
            pre.push((candidates[i], value));
        }
        if !doubt.shown(off) {
            return Some(pre);
        }
    }
}

/// The `errors` `[width + features]` for a weight `[features, width]`: of columns, then scales of features.
///
/// With x and weight rounded to bf16, whose unit roundoff is 2^-8, a product is off by about sqrt(2) * 0.39 * 2^-8 of itself, the root
/// mean square of what rounding does to numbers of any size: 0.0022. Where those are independent, the sum of a feature's products is
/// off by that much of the root of the sum of their squares. Taken is 2^-7, 3.6 times as much, of the products of x with the root mean
/// square of a column of the weight over features, so that what is twice as far apart, as near ties are told, is five standard
/// deviations of a difference.
///
/// In those means every feature is as long as the one that one in a hundred exceeds: most features of an autoencoder may be dead and
/// short, and few that are long beyond all others should not make every row doubtful. The scale of these is how many times as long
/// they are, up to a million; that of all others is 1.
///
/// Features whose weights are in few columns are off by more where a row is large there, and those are the ones that are near its last
/// place. That near ties tell.
pub fn errors(weight: &[f32], width: usize) -> Vec<f32> {
    let length = |row: &[f32]| row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
    let lengths: Vec<f64> = weight.par_chunks_exact(width).map(length).collect();
    let squares = |(rows, lengths): (&[f32], &[f64])| {
        let mut sums = vec![0.0_f64; width];
        for (row, &length) in rows.chunks_exact(width).zip(lengths) {
            if length > 0.0 {
                sums.iter_mut().zip(row).for_each(|(sum, &w)| *sum += (f64::from(w) / length).powi(2));
            }
        }
        sums
    };
    // parts of fixed sizes, so that sums are always the same
    let parts = weight.par_chunks(256 * width).zip(lengths.par_chunks(256));
    let parts: Vec<Vec<f64>> = parts.map(squares).collect();
    let mut sorted: Vec<f64> = lengths.iter().copied().filter(|length| *length > 0.0).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let live = sorted.len();
    let typical = sorted.get(live.saturating_sub(1 + live / 100)).copied().unwrap_or(1.0);
    let mean = |column: usize| parts.iter().map(|part| part[column]).sum::<f64>() / live.max(1) as f64;
    let columns = (0..width).map(|column| typical * mean(column).sqrt() / 128.0);
    let scales = lengths.iter().map(|length| (length / typical).clamp(1.0, LARGEST_SCALE));
    columns.chain(scales).map(|v| v as f32).collect()
}

/// The best of the candidates of each row.
#[derive(Clone, Copy, Debug)]
pub struct SaeRescore {
    /// Features a row that are kept: 1 to 1024, at most as many as there are candidates.
    pub k: usize,
}

impl SaeRescore {
    /// Plans indices u32 and values f32 `[rows, k]` from x f32 `[rows, width]`, weight f32 `[features, width]`, bias f32
    /// `[features]`, errors f32 `[width + features]`, candidates u32 `[rows, screened]`, at most 1536 a row, and their scores f32, of the
    /// same shape.
    pub fn plan(
        &self,
        x: &TensorDesc,
        weight: &TensorDesc,
        bias: &TensorDesc,
        errors: &TensorDesc,
        candidates: &TensorDesc,
        scores: &TensorDesc,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[rows, width @ (1..)]) = (x.dtype, x.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "x", x, "F32 [rows, width] with a column or more"));
        };
        let features = match (weight.dtype, weight.shape.as_slice()) {
            (DType::F32, &[features @ (1..), w]) if w == width => features,
            _ => {
                let expected = format!("F32 [features, {width}] (last axis of x) with a feature or more");
                return Err(ShapeError::tensor(op, "weight", weight, expected));
            }
        };
        ShapeError::expect(op, "bias", bias, &TensorDesc::f32([features]), "first axis of weight")?;
        let both = TensorDesc::f32([width + features]);
        ShapeError::expect(op, "errors", errors, &both, "columns and rows of weight")?;
        let screened = match (candidates.dtype, candidates.shape.as_slice()) {
            (DType::U32, &[r, screened]) if r == rows && (1..=MOST_SCREENED).contains(&screened) => screened,
            _ => {
                let expected = format!("U32 [{rows}, 1 to {MOST_SCREENED}] (rows of x)");
                return Err(ShapeError::tensor(op, "candidates", candidates, expected));
            }
        };
        ShapeError::expect(op, "scores", scores, &TensorDesc::f32([rows, screened]), "shape of candidates")?;
        let most = MOST_K.min(screened);
        if !(1..=most).contains(&self.k) {
            let expected = format!("1 to {most} (candidates of a row, at most {MOST_K})");
            return Err(ShapeError::value(op, "k", self.k, expected));
        }
        let k = self.k;
        ShapeError::size(op, "elements of x", x.elements())?;
        ShapeError::size(op, "elements of weight", weight.elements())?;
        ShapeError::size(op, "elements of candidates", candidates.elements())?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            width: ShapeError::size(op, "width", width)?,
            features: ShapeError::size(op, "features", features)?,
            screened: ShapeError::size(op, "screened", screened)?,
            k: ShapeError::size(op, "k", k)?,
            pad: [0; 3],
        };
        let (indices, values) = (TensorDesc::u32([rows, k]), TensorDesc::f32([rows, k]));
        let read = x.bytes() + candidates.bytes() + scores.bytes();
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            // of every row; what near ties take depends on the rows
            cost: Cost {
                bytes: (read + indices.bytes() + values.bytes()) as u64,
                flops: 3 * x.elements() as u64,
            },
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * width, 0, 0, 0, 4 * screened, 4 * screened, 4 * k, 4 * k],
            }],
            slots: vec![
                Some(x.clone()),
                Some(weight.clone()),
                Some(bias.clone()),
                Some(errors.clone()),
                Some(candidates.clone()),
                Some(scores.clone()),
                Some(indices),
                Some(values),
            ],
        })
    }
}

impl Op for SaeRescore {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), Some(weight), Some(bias), Some(errors), Some(candidates), Some(scores)] = inputs
        else {
            let expected = "x, weight, bias, errors, candidates, scores";
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), expected));
        };
        self.plan(x, weight, bias, errors, candidates, scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |k,
                    [x, weight]: [[usize; 2]; 2],
                    [bias, errors]: [usize; 2],
                    [candidates, scores]: [[usize; 2]; 2]| {
            let [x, weight, scores] = [x, weight, scores].map(TensorDesc::f32);
            let ([bias, errors], candidates) =
                ([bias, errors].map(|n| TensorDesc::f32([n])), TensorDesc::u32(candidates));
            let plan = SaeRescore { k }.plan(&x, &weight, &bias, &errors, &candidates, &scores);
            plan.expect_err("refused").to_string()
        };
        assert_eq!(
            text(2, [[3, 0], [7, 0]], [7, 0], [[3, 4]; 2]),
            "sae_rescore_f32: `x` has type and shape F32 [3, 0], expected F32 [rows, width] with a column or more"
        );
        assert_eq!(
            text(2, [[3, 5], [0, 5]], [0, 5], [[3, 4]; 2]),
            "sae_rescore_f32: `weight` has type and shape F32 [0, 5], expected F32 [features, 5] (last axis of x) with a \
             feature or more"
        );
        assert_eq!(
            text(2, [[3, 5], [7, 5]], [5, 5], [[3, 4]; 2]),
            "sae_rescore_f32: `bias` has type and shape F32 [5], expected F32 [7] (first axis of weight)"
        );
        assert_eq!(
            text(2, [[3, 5], [7, 5]], [7, 7], [[3, 4]; 2]),
            "sae_rescore_f32: `errors` has type and shape F32 [7], expected F32 [12] (columns and rows of weight)"
        );
        for candidates in [[2, 4], [3, 0], [3, 1537]] {
            assert_eq!(
                text(2, [[3, 5], [7, 5]], [7, 12], [candidates; 2]),
                format!(
                    "sae_rescore_f32: `candidates` has type and shape U32 {candidates:?}, expected U32 [3, 1 to 1536] (rows \
                     of x)"
                )
            );
        }
        assert_eq!(
            text(2, [[3, 5], [7, 5]], [7, 12], [[3, 5], [3, 4]]),
            "sae_rescore_f32: `scores` has type and shape F32 [3, 4], expected F32 [3, 5] (shape of candidates)"
        );
        for (k, screened, most) in [(0, 4, 4), (5, 4, 4), (1025, 1500, 1024)] {
            assert_eq!(
                text(k, [[3, 5], [7, 5]], [7, 12], [[3, screened]; 2]),
                format!(
                    "sae_rescore_f32: `k` has value {k}, expected 1 to {most} (candidates of a row, at most 1024)"
                )
            );
        }
        let op: &dyn Op = &SaeRescore { k: 4 };
        assert_eq!(
            op.plan(&[]).expect_err("refused").to_string(),
            "sae_rescore_f32: `inputs` has value 0, expected x, weight, bias, errors, candidates, scores"
        );
    }

    #[test]
    fn errors_go_by_columns_and_by_what_one_feature_in_a_hundred_exceeds() {
        // lengths 0.5, two thirds in the first column; dead ones and one beyond all others change nothing but its scale
        let row = |length: f32| [0.8 * length, 0.6 * length];
        for (longest, scale) in [(0.5, 1.0), (100.0, 200.0), (1e30, 1e6)] {
            let lengths = (0..300).map(|f| if f % 3 == 0 { 0.01 } else { 0.5 }).chain([longest, 0.0]);
            let weight: Vec<f32> = lengths.flat_map(row).collect();
            let found = errors(&weight, 2);
            let near = |got: f32, want: f32| (got - want).abs() <= 1e-6 * want;
            assert!(near(found[0], 0.4 / 128.0) && near(found[1], 0.3 / 128.0), "{found:?}");
            let scales = &found[2..];
            assert!(scales.len() == 302 && near(scales[300], scale), "{}", scales[300]);
            assert!(scales[..300].iter().all(|&of| near(of, 1.0)) && scales[301] == 1.0, "{scales:?}");
        }
        assert_eq!(errors(&[0.0; 6], 3), [0.0, 0.0, 0.0, 1.0, 1.0]);
        let off = f32::MAX / 128.0;
        assert_eq!(errors(&[f32::MAX; 2], 2), [off, off, 1.0]);
    }
}
