//! How well rows are reconstructed and how features are used: sums over rows, taken in blocks and merged.
//!
//! The one place that says what the fraction of variance unexplained (FVU) is. What a feature is active for is asked elsewhere.

use auscult_model::sae::SparseRows;
use serde::{Deserialize, Serialize};

/// Rows beside their reconstructions. Sums are f64; blocks can be added and merged in any grouping, and the order of merging
/// moves only the last bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reconstruction {
    rows: usize,
    /// Mean of the rows so far, `[width]`.
    mean: Vec<f64>,
    /// Sum over the rows of `|x - mean|^2`.
    spread: f64,
    /// Sum over the rows of `|x - xhat|^2`.
    error: f64,
}

impl Reconstruction {
    /// No rows yet, of `width` values each.
    pub fn new(width: usize) -> Self {
        Self { rows: 0, mean: vec![0.0; width], spread: 0.0, error: 0.0 }
    }

    /// The sums of one block: `x` and `xhat` are `[rows, width]`.
    ///
    /// # Panics
    /// Lengths that differ, or are no multiple of the width.
    pub fn of(width: usize, x: &[f32], xhat: &[f32]) -> Self {
        assert!(x.len() == xhat.len() && x.len().is_multiple_of(width), "rows and their reconstructions");
        let rows = x.len() / width;
        let mut mean = vec![0.0; width];
        for row in x.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v));
        }
        mean.iter_mut().for_each(|m| *m /= rows.max(1) as f64);
        let from_mean =
            |row: &[f32]| -> f64 { row.iter().zip(&mean).map(|(&v, m)| (f64::from(v) - m).powi(2)).sum() };
        let spread = x.chunks_exact(width).map(from_mean).sum();
        let error = x.iter().zip(xhat).map(|(&v, &w)| (f64::from(v) - f64::from(w)).powi(2)).sum();
        Self { rows, mean, spread, error }
    }

    /// Adds a block of rows `[rows, width]` and their reconstructions.
    ///
    /// # Panics
    /// As [`of`](Self::of).
    pub fn add(&mut self, x: &[f32], xhat: &[f32]) {
        self.merge(&Self::of(self.mean.len(), x, xhat));
    }

    /// Adds the sums of other rows (Chan, Golub and LeVeque's update of a mean and a spread).
    ///
    /// # Panics
    /// Another width.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.mean.len(), other.mean.len(), "sums of rows of one width");
        if other.rows == 0 {
            return;
        }
        let (mine, theirs) = (self.rows as f64, other.rows as f64);
        let share = theirs / (mine + theirs);
        let mut apart = 0.0;
        for (m, o) in self.mean.iter_mut().zip(&other.mean) {
            let delta = o - *m;
            apart += delta * delta;
            *m += delta * share;
        }
        self.spread += other.spread + apart * mine * share;
        self.error += other.error;
        self.rows += other.rows;
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Fraction of variance unexplained: `sum |x - xhat|^2 / sum |x - mean|^2`. 0 is exact, 1 is what the mean of the rows
    /// alone reaches, and worse is possible. `None` where the rows do not differ.
    pub fn fvu(&self) -> Option<f64> {
        (self.spread > 0.0).then(|| self.error / self.spread)
    }

    /// Explained variance, `1 - FVU`.
    pub fn explained_variance(&self) -> Option<f64> {
        self.fvu().map(|fvu| 1.0 - fvu)
    }

    /// Mean over the rows of `|x - xhat|^2`.
    pub fn squared_error(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.error / self.rows as f64)
    }
}

/// Which features are active in how many rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    rows: usize,
    /// Rows that each feature is active in.
    counts: Vec<u64>,
}

impl Activity {
    /// No rows yet, of so many features.
    pub fn new(features: usize) -> Self {
        Self { rows: 0, counts: vec![0; features] }
    }

    /// Adds rows that were encoded.
    ///
    /// # Panics
    /// A feature that there is not.
    pub fn add(&mut self, codes: &SparseRows) {
        self.rows += codes.rows();
        for (&feature, &value) in codes.indices.iter().zip(&codes.values) {
            if value > 0.0 {
                self.counts[feature as usize] += 1;
            }
        }
    }

    /// Adds the counts of other rows.
    ///
    /// # Panics
    /// Another number of features.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.counts.len(), other.counts.len(), "counts of one autoencoder's features");
        self.rows += other.rows;
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, other)| *count += other);
    }

    /// Rows that each feature is active in.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Features active in a row, on average. `None` without rows.
    pub fn l0(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.counts.iter().sum::<u64>() as f64 / self.rows as f64)
    }

    /// Features active in no row.
    pub fn dead(&self) -> usize {
        self.counts.iter().filter(|&&count| count == 0).count()
    }

    /// Share of the features that are active in no row.
    pub fn dead_share(&self) -> f64 {
        self.dead() as f64 / self.counts.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() <= 1e-12 * wanted.abs().max(1.0), "{found} is not {wanted}");
    }

    #[test]
    fn a_small_case_by_hand() {
        // mean (2, 1): deviations 1 + 1 + 1 + 1 = 4; errors 1 and 4
        let sums = Reconstruction::of(2, &[1.0, 2.0, 3.0, 0.0], &[1.0, 1.0, 3.0, 2.0]);
        close(sums.fvu().unwrap(), 5.0 / 4.0);
        close(sums.explained_variance().unwrap(), -0.25);
        close(sums.squared_error().unwrap(), 2.5);
    }

    #[test]
    fn the_mean_alone_reaches_one_and_the_rows_reach_zero() {
        let x = noise(7 * 5, 3);
        let mean: Vec<f32> =
            (0..5).map(|c| (0..7).map(|r| f64::from(x[r * 5 + c])).sum::<f64>() as f32 / 7.0).collect();
        let fvu = Reconstruction::of(5, &x, &mean.repeat(7)).fvu().unwrap();
        assert!((fvu - 1.0).abs() < 1e-6, "{fvu}");
        assert_eq!(Reconstruction::of(5, &x, &x).fvu(), Some(0.0));
    }

    #[test]
    fn blocks_merge_to_the_whole_even_far_from_zero() {
        // a spread of 1 beside a mean of 10,000: sums of squares alone would lose it in f32
        let x: Vec<f32> = noise(40 * 3, 5).iter().map(|v| v + 10_000.0).collect();
        let xhat: Vec<f32> = x.iter().zip(noise(40 * 3, 6)).map(|(v, e)| v + 0.25 * e).collect();
        let whole = Reconstruction::of(3, &x, &xhat);
        for cut in [0, 1, 13, 40] {
            let (a, b) = (x.split_at(cut * 3), xhat.split_at(cut * 3));
            let mut sums = Reconstruction::new(3);
            sums.add(a.0, b.0);
            let mut rest = Reconstruction::new(3);
            a.1.chunks(6).zip(b.1.chunks(6)).for_each(|(x, xhat)| rest.add(x, xhat));
            sums.merge(&rest);
            assert_eq!(sums.rows(), 40);
            let (found, wanted) = (sums.fvu().unwrap(), whole.fvu().unwrap());
            assert!((found / wanted - 1.0).abs() < 1e-9, "{found} is not {wanted}, cut at {cut}");
        }
    }

    #[test]
    fn rows_that_do_not_differ_have_no_share() {
        assert_eq!(Reconstruction::new(3).fvu(), None);
        assert_eq!(Reconstruction::of(2, &[1.0, 2.0, 1.0, 2.0], &[0.0; 4]).fvu(), None);
        assert_eq!(Reconstruction::new(3).squared_error(), None);
    }

    #[test]
    fn activity_counts_what_is_above_zero() {
        let codes = |indices: &[u32], values: &[f32]| SparseRows {
            k: 2,
            indices: indices.to_vec(),
            values: values.to_vec(),
        };
        let mut activity = Activity::new(5);
        assert_eq!((activity.l0(), activity.dead_share()), (None, 1.0));
        activity.add(&codes(&[3, 1, 3, 0], &[2.0, 1.0, 0.5, 0.0]));
        let mut other = Activity::new(5);
        other.add(&codes(&[4, 3], &[2.0, 1.0]));
        activity.merge(&other);
        assert_eq!(activity.counts(), [0, 1, 0, 3, 1]);
        assert_eq!((activity.l0(), activity.dead()), (Some(5.0 / 3.0), 2));
        close(activity.dead_share(), 0.4);
    }
}
