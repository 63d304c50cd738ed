//! What may be among the best of a row.

use super::super::best::{Best, key};
use crate::gemm::dots;
use crate::math::ask_all;
use rayon::prelude::*;
use std::sync::Mutex;

/// The smallest value that may be among the best.
pub(super) const SMALLEST: f32 = f32::from_bits(1);
/// Features of a task: enough of them for each row to have some, and few enough for tasks to end together.
const PART: usize = 768;

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

    /// Drops what is below the last guess and puts the rest in order of [`PART`]s, by way of `sorted`; where each of so many ends.
    fn sort(&mut self, parts: usize, sorted: &mut Vec<Candidate>) -> Vec<u32> {
        self.guess(self.k);
        self.prune();
        sorted.clone_from(&self.candidates);
        let part = |candidate: &Candidate| candidate.feature as usize / PART;
        let candidates = &mut self.candidates;
        sort_into(parts, || sorted.iter().map(|c| (part(c), *c)), |place, c| candidates[place] = c)
    }

    /// The candidates in a part, once sorted.
    fn in_part(&self, ends: &[u32], part: usize) -> &[Candidate] {
        let first = if part == 0 { 0 } else { ends[part - 1] };
        &self.candidates[first as usize..ends[part] as usize]
    }
}

/// Puts what comes in order of bins, where it stays in its order; where each of so many bins ends.
fn sort_into<T, I: Iterator<Item = (usize, T)>>(
    bins: usize,
    all: impl Fn() -> I,
    mut put: impl FnMut(usize, T),
) -> Vec<u32> {
    let mut ends = vec![0; bins];
    all().for_each(|(bin, _)| ends[bin] += 1);
    // where each bin begins, and in the end ends
    let mut end = 0;
    ends.iter_mut().for_each(|count| end += std::mem::replace(count, end));
    for (bin, value) in all() {
        put(ends[bin] as usize, value);
        ends[bin] += 1;
    }
    ends
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
    let parts = bias.len().div_ceil(PART);
    let sort = |sorted: &mut Vec<Candidate>, found: &mut Found| found.sort(parts, sorted);
    let ends: Vec<Vec<u32>> = found.par_iter_mut().map_init(Vec::new, sort).collect();
    let keys: Vec<Mutex<Vec<u64>>> = found.iter().map(|_| Mutex::new(Vec::with_capacity(2 * k))).collect();
    let x = |row: u32| &x[row as usize * width..][..width];
    let of_part = |part: usize| {
        let mut values: Vec<(u32, u64)> = Vec::new();
        let mut offer = |row: u32, feature: usize, product: f32| {
            let value = product + bias[feature];
            if value >= found[row as usize].least {
                values.push((row, key(value, feature as u32)));
            }
        };
        let (rows, ends) = rows_of_features(&found, &ends, part);
        let mut begin = 0;
        for (feature, end) in (part * PART..bias.len()).zip(ends) {
            let (pairs, rest) = rows[begin..end as usize].as_chunks::<2>();
            begin = end as usize;
            let (weight, next) = weight[feature * width..].split_at(width);
            ask_all(&next[..width.min(next.len())]);
            for &[a, b] in pairs {
                let [of_a, of_b] = dots([x(a), x(b)], weight);
                offer(a, feature, of_a);
                offer(b, feature, of_b);
            }
            for &row in rest {
                let [product] = dots([x(row)], weight);
                offer(row, feature, product);
            }
        }
        for (row, key) in values {
            keys[row as usize].lock().expect("no thread panics with it").push(key);
        }
    };
    (0..parts).into_par_iter().for_each(of_part);
    let best = |(found, keys): (Found, Mutex<Vec<u64>>)| {
        let keys = keys.into_inner().expect("no thread panics with it");
        let sure = !found.is_given_up() && (keys.len() >= k || found.least <= SMALLEST);
        let mut best = Best::of(k, keys);
        best.shrink();
        sure.then_some(best)
    };
    found.into_par_iter().zip(keys).map(best).collect()
}

/// Rows of which a feature of a part is a candidate, feature after feature, and where those of each end.
fn rows_of_features(found: &[Found], ends: &[Vec<u32>], part: usize) -> (Vec<u32>, Vec<u32>) {
    let in_part = || found.iter().zip(ends).map(|(found, ends)| found.in_part(ends, part));
    let all = || {
        in_part()
            .zip(0_u32..)
            .flat_map(|(some, row)| some.iter().map(move |c| (c.feature as usize - part * PART, row)))
    };
    let mut rows = vec![0; in_part().map(<[Candidate]>::len).sum()];
    let ends = sort_into(PART, all, |place, row| rows[place] = row);
    (rows, ends)
}
