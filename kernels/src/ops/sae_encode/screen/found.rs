//! What may be among the best of a row.

use super::super::best::{Best, key};
use crate::gemm::dots;
use rayon::prelude::*;
use std::sync::Mutex;

/// The smallest value that may be among the best.
pub(super) const SMALLEST: f32 = f32::from_bits(1);
/// Of weights of the features that are settled at a time: they stay in the second cache.
const CHUNK_BYTES: usize = 3 << 17;
/// Chunks of a task.
const TASK_CHUNKS: usize = 8;

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
        if self.candidates.len() == self.candidates.capacity() {
            self.prune();
        }
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

    /// Whether more than so many are still candidates.
    pub fn has_more_than(&mut self, most: usize) -> bool {
        if self.candidates.len() > most {
            self.prune();
        }
        self.candidates.len() > most
    }

    /// Drops what is below the guess.
    fn prune(&mut self) {
        let least = self.least;
        self.candidates.retain(|candidate| candidate.upper >= least);
    }

    fn guess(&mut self, rank: usize) {
        if self.likely.len() >= rank {
            let (_, &mut last, _) = self.likely.select_nth_unstable_by(rank - 1, |a, b| b.total_cmp(a));
            self.likely.truncate(rank);
            self.least = last;
        }
    }

    /// Drops what is below the last guess and puts the rest in order of features; where parts of so many features end.
    fn sort(&mut self, part: usize, parts: usize) -> Vec<u32> {
        self.guess(self.k);
        self.prune();
        self.candidates.sort_unstable_by_key(|candidate| candidate.feature);
        let mut ends = vec![0; parts];
        self.candidates.iter().for_each(|candidate| ends[candidate.feature as usize / part] += 1);
        let mut end = 0;
        for count in &mut ends {
            end += *count;
            *count = end;
        }
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
    let part = TASK_CHUNKS * chunk;
    let parts = bias.len().div_ceil(part);
    let ends: Vec<Vec<u32>> = found.par_iter_mut().map(|found| found.sort(part, parts)).collect();
    let keys: Vec<Mutex<Vec<u64>>> = found.iter().map(|_| Mutex::new(Vec::with_capacity(2 * k))).collect();
    let task = |number: usize| {
        // rows and features in order of chunks, and of rows in each
        let mut chunks: [Vec<(u32, u32)>; TASK_CHUNKS] = Default::default();
        for (row, (found, ends)) in found.iter().zip(&ends).enumerate() {
            let first = if number == 0 { 0 } else { ends[number - 1] };
            for c in &found.candidates[first as usize..ends[number] as usize] {
                chunks[(c.feature as usize - number * part) / chunk].push((row as u32, c.feature));
            }
        }
        let mut values: Vec<(u32, u64)> = Vec::new();
        let mut offer = |row: u32, feature: u32, product: f32| {
            let value = product + bias[feature as usize];
            if value >= found[row as usize].least {
                values.push((row, key(value, feature)));
            }
        };
        let x = |row: u32| &x[row as usize * width..][..width];
        let weight = |feature: u32| &weight[feature as usize * width..][..width];
        for chunk in &chunks {
            for of_row in chunk.chunk_by(|a, b| a.0 == b.0) {
                let (pairs, rest) = of_row.as_chunks::<2>();
                for &[(row, a), (_, b)] in pairs {
                    let [of_a, of_b] = dots([weight(a), weight(b)], x(row));
                    offer(row, a, of_a);
                    offer(row, b, of_b);
                }
                for &(row, one) in rest {
                    let [product] = dots([weight(one)], x(row));
                    offer(row, one, product);
                }
            }
        }
        for (row, key) in values {
            keys[row as usize].lock().expect("no thread panics with it").push(key);
        }
    };
    (0..parts).into_par_iter().for_each(task);
    let best = |(found, keys): (Found, Mutex<Vec<u64>>)| {
        let keys = keys.into_inner().expect("no thread panics with it");
        let sure = !found.is_given_up() && (keys.len() >= k || found.least <= SMALLEST);
        let mut best = Best::of(k, keys);
        best.shrink();
        sure.then_some(best)
    };
    found.into_par_iter().zip(keys).map(best).collect()
}
