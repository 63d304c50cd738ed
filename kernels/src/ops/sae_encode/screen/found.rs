//! What may be among the best of a row.

use super::super::best::{Best, key};
use crate::gemm::dots;
use rayon::prelude::*;
use std::sync::Mutex;

/// The smallest value that may be among the best.
pub(super) const SMALLEST: f32 = f32::from_bits(1);
/// Of weights of the features that are settled at a time: they stay in the second cache.
const CHUNK_BYTES: usize = 1 << 20;

/// A feature that may be among the best, and what its value is at most.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub upper: f32,
    pub feature: u32,
}

/// What may be among the best of a row.
pub(super) struct Found {
    k: usize,
    /// In order of panels.
    pub candidates: Vec<Candidate>,
    /// What values of the likely best are likely to be at least, in no order.
    likely: Vec<f32>,
    /// A guess of what a value must be at least; infinite once the row is given up.
    pub least: f32,
}

impl Found {
    pub fn new(k: usize) -> Self {
        let (candidates, likely) = (Vec::with_capacity(8 * k), Vec::with_capacity(2 * k));
        Self { k, candidates, likely, least: SMALLEST }
    }

    /// Takes in a feature whose value is at most `upper`, and likely to be at least `likely`; `rank` is what [`rank`] says.
    #[inline(always)]
    pub fn push(&mut self, feature: u32, upper: f32, likely: f32, rank: usize) {
        self.candidates.push(Candidate { upper, feature });
        if likely > self.least {
            self.likely.push(likely);
            if self.likely.len() >= 2 * rank {
                self.guess(rank);
            }
        }
    }

    /// Leaves the row to products in f32.
    pub fn give_up(&mut self) {
        (self.candidates, self.likely, self.least) = (Vec::new(), Vec::new(), f32::INFINITY);
    }

    /// Whether the row is left to products in f32.
    pub fn is_given_up(&self) -> bool {
        self.least == f32::INFINITY
    }

    fn guess(&mut self, rank: usize) {
        if self.likely.len() >= rank {
            let (_, &mut last, _) = self.likely.select_nth_unstable_by(rank - 1, |a, b| b.total_cmp(a));
            self.likely.truncate(rank);
            self.least = last;
        }
    }

    /// Drops what is below the last guess and puts the rest in order of chunks of so many features; where each chunk ends.
    fn sort(&mut self, chunk: usize, chunks: usize) -> Vec<usize> {
        self.guess(self.k);
        let least = self.least;
        self.candidates.retain(|candidate| candidate.upper >= least);
        let mut ends = vec![0; chunks];
        self.candidates.iter().for_each(|candidate| ends[candidate.feature as usize / chunk] += 1);
        let mut end = 0;
        ends.iter_mut().for_each(|count| end += std::mem::replace(count, end));
        let mut sorted = self.candidates.clone();
        for &candidate in &self.candidates {
            let place = &mut ends[candidate.feature as usize / chunk];
            sorted[*place] = candidate;
            *place += 1;
        }
        self.candidates = sorted;
        ends
    }
}

/// Among so many features of all, the place of a value that is very likely below the k-th best of all.
///
/// Of the k best, about `k seen / features` are among those seen, as in Poisson's distribution; six of its deviations and three
/// more are hardly ever reached. Where they are, as where the best stand side by side, the row is done in f32.
pub(super) fn rank(k: usize, seen: usize, features: usize) -> usize {
    let mean = k as f32 * (seen as f32 / features as f32);
    k.min((mean + 6.0 * mean.sqrt()) as usize + 3)
}

/// The best of every row out of what was found; `None` for rows that were given up or whose guess was wrong.
pub(super) fn settle(
    mut found: Vec<Found>,
    k: usize,
    width: usize,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
) -> Vec<Option<Best>> {
    let chunk = (CHUNK_BYTES / 4 / width).max(1);
    let chunks = bias.len().div_ceil(chunk);
    let ends: Vec<Vec<usize>> = found.par_iter_mut().map(|found| found.sort(chunk, chunks)).collect();
    let keys: Vec<Mutex<Vec<u64>>> = found.iter().map(|_| Mutex::new(Vec::with_capacity(2 * k))).collect();
    let of_chunk = |chunk: usize| {
        for (row, (found, ends)) in found.iter().zip(&ends).enumerate() {
            let first = if chunk == 0 { 0 } else { ends[chunk - 1] };
            let candidates = &found.candidates[first..ends[chunk]];
            if candidates.is_empty() {
                continue;
            }
            let x = &x[row * width..][..width];
            let weight = |c: &Candidate| &weight[c.feature as usize * width..][..width];
            let mut keys = keys[row].lock().expect("no thread panics with it");
            let mut offer = |c: &Candidate, product: f32| {
                let value = product + bias[c.feature as usize];
                if value >= found.least {
                    keys.push(key(value, c.feature));
                }
            };
            let (pairs, rest) = candidates.as_chunks::<2>();
            for [a, b] in pairs {
                let [of_a, of_b] = dots([weight(a), weight(b)], x);
                offer(a, of_a);
                offer(b, of_b);
            }
            for one in rest {
                let [product] = dots([weight(one)], x);
                offer(one, product);
            }
        }
    };
    (0..chunks).into_par_iter().for_each(of_chunk);
    let best = |(found, keys): (Found, Mutex<Vec<u64>>)| {
        let keys = keys.into_inner().expect("no thread panics with it");
        let sure = !found.is_given_up() && (keys.len() >= k || found.least <= SMALLEST);
        let mut best = Best::of(k, keys);
        best.shrink();
        sure.then_some(best)
    };
    found.into_par_iter().zip(keys).map(best).collect()
}
