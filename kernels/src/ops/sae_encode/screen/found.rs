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
    /// In order of features.
    pub candidates: Vec<Candidate>,
    /// What values of the likely best are likely to be at least, in no order.
    likely: Vec<f32>,
    /// A guess of what a value must be at least.
    pub least: f32,
}

impl Found {
    pub fn new(k: usize) -> Self {
        Self { k, candidates: Vec::new(), likely: Vec::with_capacity(2 * k), least: SMALLEST }
    }

    /// Takes in a feature whose value is at most `upper`, and likely to be at least `likely`.
    #[inline(always)]
    pub fn push(&mut self, feature: u32, upper: f32, likely: f32) {
        self.candidates.push(Candidate { upper, feature });
        if likely > self.least {
            self.likely.push(likely);
            if self.likely.len() == 2 * self.k {
                self.guess();
            }
        }
    }

    fn guess(&mut self) {
        if self.likely.len() >= self.k {
            let (_, &mut kth, _) = self.likely.select_nth_unstable_by(self.k - 1, |a, b| b.total_cmp(a));
            self.likely.truncate(self.k);
            self.least = kth;
        }
    }
}

/// The best of every row out of what was found; `None` where a guess was wrong.
pub(super) fn settle(
    mut found: Vec<Found>,
    k: usize,
    width: usize,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
) -> Option<Vec<Best>> {
    let chunk = (CHUNK_BYTES / 4 / width).max(1);
    let ends = |found: &mut Found| -> Vec<usize> {
        found.guess();
        let least = found.least;
        found.candidates.retain(|candidate| candidate.upper >= least);
        let mut ends = vec![0; bias.len().div_ceil(chunk)];
        found.candidates.iter().for_each(|candidate| ends[candidate.feature as usize / chunk] += 1);
        let mut end = 0;
        ends.iter_mut().for_each(|count| {
            end += *count;
            *count = end;
        });
        ends
    };
    let ends: Vec<Vec<usize>> = found.par_iter_mut().map(ends).collect();
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
    (0..bias.len().div_ceil(chunk)).into_par_iter().for_each(of_chunk);
    let best = |(found, keys): (Found, Mutex<Vec<u64>>)| {
        let keys = keys.into_inner().expect("no thread panics with it");
        let sure = keys.len() >= k || found.least <= SMALLEST;
        let mut best = Best::of(k, keys);
        best.shrink();
        sure.then_some(best)
    };
    found.into_par_iter().zip(keys).map(best).collect()
}
