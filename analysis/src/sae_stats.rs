//! How well an autoencoder stands for rows, and how many of its features are used: sums that add up.
//!
//! The one place that says what the fraction of variance unexplained (FVU) is. What a feature is active for is asked elsewhere.

use auscult_model::sae::SparseRows;
use serde::{Deserialize, Serialize};

/// Sums over rows `x` and what their features decode to. They add up: those of two parts are those of the whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// How many rows.
    pub rows: u64,
    /// Sum of `|x - decoded|^2`.
    pub error: f64,
    /// Sum of `|x|^2`.
    pub squares: f64,
    /// Sum of `x`, `[width]`.
    pub sum: Vec<f64>,
}

impl Fit {
    /// Of rows [rows, width] and what stands for them, of the same shape.
    ///
    /// # Panics
    /// If the lengths differ or are no multiple of the width.
    pub fn of(rows: &[f32], decoded: &[f32], width: usize) -> Self {
        assert!(rows.len() == decoded.len() && rows.len().is_multiple_of(width), "rows of one width");
        let squared = |v: f64| v * v;
        let mut sum = vec![0.0; width];
        for row in rows.chunks_exact(width) {
            sum.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
        }
        Self {
            rows: (rows.len() / width) as u64,
            error: rows.iter().zip(decoded).map(|(&x, &y)| squared(f64::from(x) - f64::from(y))).sum(),
            squares: rows.iter().map(|&x| squared(f64::from(x))).sum(),
            sum,
        }
    }

    /// Adds the sums of further rows.
    pub fn add(&mut self, more: &Self) {
        self.rows += more.rows;
        self.error += more.error;
        self.squares += more.squares;
        self.sum.resize(self.sum.len().max(more.sum.len()), 0.0);
        self.sum.iter_mut().zip(&more.sum).for_each(|(sum, more)| *sum += more);
    }

    /// The fraction of variance unexplained, `sum |x - decoded|^2 / sum |x - mean|^2`, where the mean is that of all rows;
    /// none where all rows are equal. 0 is exact, 1 is what the mean alone reaches, and worse is possible.
    pub fn fvu(&self) -> Option<f64> {
        let of_mean: f64 = self.sum.iter().map(|v| v * v).sum::<f64>() / self.rows as f64;
        let spread = self.squares - of_mean;
        // what is left of equal rows is rounding
        (spread > 1e-12 * self.squares).then(|| self.error / spread)
    }

    /// `sum |x - decoded|^2 / sum |x|^2`: as the FVU, but small too where rows hardly differ and their mean is met.
    pub fn missed_power(&self) -> Option<f64> {
        (self.squares > 0.0).then(|| self.error / self.squares)
    }

    /// Explained variance, `1 - FVU`.
    pub fn explained_variance(&self) -> Option<f64> {
        self.fvu().map(|fvu| 1.0 - fvu)
    }
}

/// Which features are active in how many rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureCounts {
    rows: usize,
    /// Rows that each feature is active in.
    counts: Vec<u64>,
}

impl FeatureCounts {
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
        let fit = Fit::of(&[1.0, 2.0, 3.0, 0.0], &[1.0, 1.0, 3.0, 2.0], 2);
        close(fit.fvu().unwrap(), 5.0 / 4.0);
        close(fit.explained_variance().unwrap(), -0.25);
        close(fit.missed_power().unwrap(), 5.0 / 14.0);
    }

    #[test]
    fn the_mean_alone_reaches_one_and_the_rows_reach_zero() {
        let x = noise(7 * 5, 3);
        let mean: Vec<f32> =
            (0..5).map(|c| (0..7).map(|r| f64::from(x[r * 5 + c])).sum::<f64>() as f32 / 7.0).collect();
        let fvu = Fit::of(&x, &mean.repeat(7), 5).fvu().unwrap();
        assert!((fvu - 1.0).abs() < 1e-6, "{fvu}");
        assert_eq!(Fit::of(&x, &x, 5).fvu(), Some(0.0));
    }

    #[test]
    fn parts_add_up_to_the_whole_even_far_from_zero() {
        // a spread of 1 beside a mean of 1,000: f32 sums of squares would lose it
        let x: Vec<f32> = noise(40 * 3, 5).iter().map(|v| v + 1_000.0).collect();
        let xhat: Vec<f32> = x.iter().zip(noise(40 * 3, 6)).map(|(v, e)| v + 0.25 * e).collect();
        let column = |c: usize| x.iter().skip(c).step_by(3).map(|&v| f64::from(v));
        let spread: f64 = (0..3)
            .map(|c| {
                let mean = column(c).sum::<f64>() / 40.0;
                column(c).map(|v| (v - mean).powi(2)).sum::<f64>()
            })
            .sum();
        let error: f64 = x.iter().zip(&xhat).map(|(&v, &w)| (f64::from(v) - f64::from(w)).powi(2)).sum();
        for cut in [0, 1, 13, 40] {
            let mut fit = Fit::of(&x[..cut * 3], &xhat[..cut * 3], 3);
            let mut rest = Fit::default();
            x[cut * 3..]
                .chunks(6)
                .zip(xhat[cut * 3..].chunks(6))
                .for_each(|(x, w)| rest.add(&Fit::of(x, w, 3)));
            fit.add(&rest);
            assert_eq!(fit.rows, 40);
            let found = fit.fvu().unwrap();
            assert!((found / (error / spread) - 1.0).abs() < 1e-8, "{found}, cut at {cut}");
        }
    }

    #[test]
    fn rows_that_do_not_differ_have_no_share() {
        assert_eq!(Fit::default().fvu(), None);
        assert_eq!(Fit::of(&[1.0, 2.0, 1.0, 2.0], &[0.0; 4], 2).fvu(), None);
    }

    #[test]
    fn activity_counts_what_is_above_zero() {
        let codes = |indices: &[u32], values: &[f32]| SparseRows {
            k: 2,
            indices: indices.to_vec(),
            values: values.to_vec(),
        };
        let mut activity = FeatureCounts::new(5);
        assert_eq!((activity.l0(), activity.dead_share()), (None, 1.0));
        activity.add(&codes(&[3, 1, 3, 0], &[2.0, 1.0, 0.5, 0.0]));
        let mut other = FeatureCounts::new(5);
        other.add(&codes(&[4, 3], &[2.0, 1.0]));
        activity.merge(&other);
        assert_eq!(activity.counts(), [0, 1, 0, 3, 1]);
        assert_eq!((activity.l0(), activity.dead()), (Some(5.0 / 3.0), 2));
        close(activity.dead_share(), 0.4);
    }
}
