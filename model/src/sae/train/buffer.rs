//! Rows in a shuffled order, from a source that gives them in its own.
//!
//! A pool is filled and shuffled; batches leave it until less than half is left; then it is filled up and shuffled again. Rows of
//! one clip, which are alike, so end in many batches. The order is a function of the seed alone: in refill n the row at place i is
//! exchanged with one drawn from those up to it (Fisher and Yates), by word 0 of Philox at counter (i, n, 2).

use auscult_kernels::philox::philox4x32_10;

/// Number of the stream of random numbers; 0 and 1 draw first weights.
const STREAM: u32 = 2;

/// A pool of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixing {
    width: usize,
    capacity: usize,
    seed: u64,
    /// Rows that have not left; they leave from the end.
    pool: Vec<f32>,
    refills: u32,
    drawn: u64,
}

/// What a pool holds, to be taken up again.
#[derive(Clone, Debug, PartialEq)]
pub struct MixingState {
    /// Rows that have not left.
    pub pool: Vec<f32>,
    /// How often it was filled.
    pub refills: u32,
    /// Rows it took of its source.
    pub drawn: u64,
}

impl Mixing {
    /// An empty pool for `capacity` rows of `width`; at least two batches are of use.
    pub fn new(width: usize, capacity: usize, seed: u64) -> Self {
        Self { width, capacity: capacity.max(1), seed, pool: Vec::new(), refills: 0, drawn: 0 }
    }

    /// A pool as it was.
    pub fn restored(width: usize, capacity: usize, seed: u64, state: MixingState) -> Self {
        let MixingState { pool, refills, drawn } = state;
        Self { pool, refills, drawn, ..Self::new(width, capacity, seed) }
    }

    /// What the pool holds.
    pub fn state(&self) -> MixingState {
        MixingState { pool: self.pool.clone(), refills: self.refills, drawn: self.drawn }
    }

    /// Rows it holds when it is full.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Rows that have not left.
    pub fn pool(&self) -> &[f32] {
        &self.pool
    }

    /// Rows it took of its source, which begins there when a run is taken up.
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// Fills the pool where less than half of it, or less than a batch, is left. `draw(rows, into)` appends so many rows.
    ///
    /// # Errors
    /// Those of `draw`; the pool is then as it was.
    pub fn fill<E>(
        &mut self,
        batch: usize,
        mut draw: impl FnMut(usize, &mut Vec<f32>) -> Result<(), E>,
    ) -> Result<(), E> {
        let missing = self.missing(batch);
        if missing == 0 {
            return Ok(());
        }
        let before = self.pool.len();
        draw(missing, &mut self.pool).inspect_err(|_| self.pool.truncate(before))?;
        self.drawn += missing as u64;
        self.shuffle();
        Ok(())
    }

    /// Rows that [`fill`](Self::fill) would draw now.
    pub fn missing(&self, batch: usize) -> usize {
        let capacity = self.capacity.max(batch);
        let there = self.pool.len() / self.width;
        if there >= batch && 2 * there >= capacity { 0 } else { capacity - there }
    }

    /// The next batch.
    ///
    /// # Errors
    /// Those of `draw`, as in [`fill`](Self::fill).
    pub fn batch<E>(
        &mut self,
        rows: usize,
        draw: impl FnMut(usize, &mut Vec<f32>) -> Result<(), E>,
    ) -> Result<Vec<f32>, E> {
        self.fill(rows, draw)?;
        Ok(self.pool.split_off(self.pool.len() - rows * self.width))
    }

    fn shuffle(&mut self) {
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        for i in (1..self.pool.len() / self.width).rev() {
            let [word, ..] = philox4x32_10([i as u32, self.refills, STREAM, 0], key);
            // the bias of a 32-bit draw among at most millions is of no concern
            let other = ((u64::from(word) * (i as u64 + 1)) >> 32) as usize;
            if other != i {
                let (head, tail) = self.pool.split_at_mut(i * self.width);
                head[other * self.width..][..self.width].swap_with_slice(&mut tail[..self.width]);
            }
        }
        self.refills += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Rows (n, -n), counted from where the last draw ended.
    fn counting(next: &mut u64) -> impl FnMut(usize, &mut Vec<f32>) -> Result<(), Infallible> {
        |rows, into| {
            for _ in 0..rows {
                into.extend([*next as f32, -(*next as f32)]);
                *next += 1;
            }
            Ok(())
        }
    }

    fn numbers(rows: &[f32]) -> Vec<usize> {
        rows.chunks(2).map(|row| row[0] as usize).collect()
    }

    #[test]
    fn every_row_leaves_once_and_far_from_its_neighbours() {
        let (mut mixing, mut next) = (Mixing::new(2, 100, 7), 0);
        let mut left = Vec::new();
        for _ in 0..60 {
            let Ok(batch) = mixing.batch(10, counting(&mut next));
            assert!(batch.chunks(2).all(|row| row[0] == -row[1]));
            left.extend(numbers(&batch));
        }
        let neighbours = left.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
        assert!(neighbours < 30, "{neighbours} of 599");
        left.extend(numbers(mixing.pool()));
        left.sort_unstable();
        assert_eq!(left, (0..next as usize).collect::<Vec<_>>());
    }

    #[test]
    fn a_pool_taken_up_goes_on_as_it_would_have() {
        let (mut mixing, mut next) = (Mixing::new(2, 64, 3), 0);
        for _ in 0..5 {
            let Ok(_) = mixing.batch(8, counting(&mut next));
        }
        let (mut other, mut other_next) = (Mixing::restored(2, 64, 3, mixing.state()), mixing.drawn());
        for _ in 0..20 {
            assert_eq!(mixing.batch(8, counting(&mut next)), other.batch(8, counting(&mut other_next)));
        }
        let (mut seeded, mut seeded_next) = (Mixing::new(2, 64, 4), 0);
        let (mut first, mut first_next) = (Mixing::new(2, 64, 3), 0);
        assert_ne!(seeded.batch(8, counting(&mut seeded_next)), first.batch(8, counting(&mut first_next)));
    }

    #[test]
    fn a_source_that_fails_leaves_the_pool() {
        let mut mixing = Mixing::new(2, 8, 3);
        let failed = mixing.batch(4, |_, into: &mut Vec<f32>| {
            into.push(1.0);
            Err("gone")
        });
        assert_eq!(failed, Err("gone"));
        assert!(mixing.pool().is_empty() && mixing.drawn() == 0);
    }
}
