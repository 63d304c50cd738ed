use super::Params;
use crate::{
    HostSlot,
    gemm::{Store, matmul_seq, view, view_mut},
    math::vectorised,
    ops::conv1d::host::share,
};
use rayon::prelude::*;
use std::cmp::Ordering::Less;

/// Rows that share a pass over a codebook; their scores of 2048 entries take 512 KiB.
const ROWS: usize = 64;

/// Scores that are compared at a time.
const LANES: usize = 16;

/// Blocks of rows in parallel. At every stage one matrix product gives each entry the score `x.e - |e|^2 / 2`, which is
/// largest where the distance is smallest; entries whose score is within its rounding error of the best are compared
/// again by their distance in f64, so that the codes are those of the definition.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, codebooks, codes] = slots else { panic!("rvq_encode has three slots") };
    let (x, codebooks, codes): (&[f32], &[f32], &mut [u32]) = (x.read(), codebooks.read(), codes.write());
    let (dim, stages, entries) = (p.dim as usize, p.stages as usize, p.entries as usize);
    if codes.is_empty() {
        return;
    }
    let books: Vec<Book<'_>> =
        codebooks.par_chunks_exact(entries * dim).map(|values| Book::new(values, dim)).collect();
    let blocks = codes.chunks_mut(ROWS * stages).zip(x.chunks(ROWS * dim));
    share(blocks, |scores, (codes, x)| {
        let mut residual = x.to_vec();
        let rows = x.len() / dim;
        scores.resize(ROWS * entries, 0.0);
        for (s, book) in books.iter().enumerate() {
            let scores = &mut scores[..rows * entries];
            let products = view_mut(scores, rows, entries, entries);
            matmul_seq(
                products,
                view(&residual, rows, dim, dim),
                view(book.values, entries, dim, dim),
                Store::Replace,
            );
            let each = scores.chunks_exact_mut(entries).zip(residual.chunks_exact_mut(dim));
            for ((scores, residual), codes) in each.zip(codes.chunks_exact_mut(stages)) {
                let nearest = book.nearest(scores, residual);
                codes[s] = u32::try_from(nearest).expect("the plan counted entries in u32");
                residual.iter_mut().zip(book.entry(nearest)).for_each(|(v, e)| *v -= e);
            }
        }
    });
}

/// A codebook, and what scores need of it.
struct Book<'a> {
    values: &'a [f32],
    dim: usize,
    /// |e|^2 / 2 of every entry.
    half_squares: Vec<f32>,
    /// The largest |e|.
    longest: f64,
}

impl<'a> Book<'a> {
    fn new(values: &'a [f32], dim: usize) -> Self {
        let squares: Vec<f64> = values.chunks_exact(dim).map(square).collect();
        Self {
            values,
            dim,
            half_squares: squares.iter().map(|s| (0.5 * s) as f32).collect(),
            longest: squares.iter().copied().fold(0.0, f64::max).sqrt(),
        }
    }

    fn entry(&self, e: usize) -> &'a [f32] {
        &self.values[e * self.dim..(e + 1) * self.dim]
    }

    /// The entry nearest to `x`, from its products with all entries, which become scores.
    fn nearest(&self, scores: &mut [f32], x: &[f32]) -> usize {
        let best = subtract_and_max(scores, &self.half_squares);
        // A dot product of n terms, however it is ordered, errs by at most n 2^-24 |x| |e| (Higham, Accuracy and
        // Stability of Numerical Algorithms, 3.1), and the subtraction by 2^-24 of its result and of |e|^2 / 2; both
        // the best and the true nearest may err. Four more terms cover the second order and the rounding here, and the
        // smallest f32 what products lose that are smaller still.
        let size = square(x).sqrt() * self.longest + 0.5 * self.longest * self.longest;
        let band = 2.0 * (self.dim + 4) as f64 * (2.0_f64.powi(-24) * size + 2.0_f64.powi(-149));
        let floor = (f64::from(best) - band) as f32;
        // where the margin or the best is not finite, scores say nothing and every entry is a candidate, as is any entry
        // whose score is not a number
        let floor = if band.is_finite() && best.is_finite() { floor.next_down() } else { f32::NEG_INFINITY };
        let (mut nearest, mut smallest) = (0, f64::INFINITY);
        for e in (0..scores.len()).filter(|&e| scores[e].partial_cmp(&floor) != Some(Less)) {
            let distance = distance(x, self.entry(e));
            if distance < smallest {
                (nearest, smallest) = (e, distance);
            }
        }
        nearest
    }
}

/// `scores -= half_squares`; the largest of them, numbers only.
fn subtract_and_max(scores: &mut [f32], half_squares: &[f32]) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            let mut best = [f32::NEG_INFINITY; LANES];
            for (scores, halves) in scores.chunks_mut(LANES).zip(half_squares.chunks(LANES)) {
                for ((best, score), half) in best.iter_mut().zip(scores).zip(halves) {
                    *score -= half;
                    *best = if *score > *best { *score } else { *best };
                }
            }
            best.into_iter().fold(f32::NEG_INFINITY, f32::max)
        },
    )
}

fn square(x: &[f32]) -> f64 {
    x.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
}

fn distance(x: &[f32], entry: &[f32]) -> f64 {
    let mut sum = 0.0;
    for (&v, &e) in x.iter().zip(entry) {
        let d = f64::from(v) - f64::from(e);
        sum += d * d;
    }
    sum
}
