//! Where training starts: the first weights, and the decoder's bias from the first rows.

use super::config::TrainConfig;
use crate::sae::SaeParts;
use auscult_kernels::philox::{philox4x32_10, uniform};
use rayon::prelude::*;

/// Steps of Weiszfeld's iteration at most (SAELens).
const ITERATIONS: usize = 100;
/// The least distance that counts (SAELens).
const NEAREST: f64 = 1e-6;
/// The iteration ends where the sum of distances changes by less than so much of itself (SAELens).
const CHANGE: f64 = 1e-20;

/// Rows whose sum a thread makes; always the same ones, so that sums do not depend on their number.
const BLOCK_ROWS: usize = 1024;

/// First weights, drawn from Philox with the seed as key: number i of tensor t is word i % 4 of counter (i / 4, t).
///
/// Both matrices are uniform within `sqrt(6 / fan_in)`, `kaiming_uniform` of torch on `[width, features]` and `[features, width]`; the
/// decoder's rows are then brought to length 1. But in `saelens-5.3.2` the encoder begins as the decoder
/// transposed. Biases are 0.
pub(super) fn weights(config: &TrainConfig) -> SaeParts {
    let (width, features) = (config.width, config.features);
    let mut w_dec = drawn(config.seed, 1, width * features, (6.0 / width as f64).sqrt());
    unit_rows(&mut w_dec, width);
    let w_enc = if config.mode == super::Mode::Saelens532 {
        drawn(config.seed, 0, width * features, (6.0 / features as f64).sqrt())
    } else {
        crate::sae::transposed(&w_dec, width)
    };
    SaeParts { w_enc, b_enc: vec![0.0; features], w_dec, b_dec: vec![0.0; width] }
}

fn drawn(seed: u64, tensor: u32, values: usize, bound: f64) -> Vec<f32> {
    let key = [seed as u32, (seed >> 32) as u32];
    let mut out = vec![0.0_f32; values];
    out.par_chunks_mut(4).enumerate().for_each(|(i, out)| {
        let words = philox4x32_10([i as u32, (i >> 32) as u32, tensor, 0], key);
        for (value, word) in out.iter_mut().zip(words) {
            *value = ((2.0 * f64::from(uniform(word)) - 1.0) * bound) as f32;
        }
    });
    out
}

/// Divides every row by its length; rows of zeros stay.
pub(super) fn unit_rows(rows: &mut [f32], width: usize) {
    rows.par_chunks_exact_mut(width).for_each(|row| {
        let length = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            row.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
        }
    });
}

/// The point with the least sum of distances to rows, by Weiszfeld's iteration from their mean (Vardi and Zhang, 2000, without
/// its step for points that are rows themselves: SAELens takes the least distance as 1e-6), in f64.
pub fn geometric_median(rows: &[f32], width: usize) -> Vec<f32> {
    if rows.is_empty() {
        return vec![0.0; width];
    }
    let average = |weights: &[f64]| -> Vec<f64> {
        let total: f64 = weights.iter().sum();
        let blocks = rows.par_chunks(BLOCK_ROWS * width).zip(weights.par_chunks(BLOCK_ROWS));
        let sums: Vec<Vec<f64>> = blocks
            .map(|(rows, weights)| {
                let mut sum = vec![0.0_f64; width];
                for (row, weight) in rows.chunks_exact(width).zip(weights) {
                    sum.iter_mut().zip(row).for_each(|(s, &v)| *s += weight / total * f64::from(v));
                }
                sum
            })
            .collect();
        (0..width).map(|c| sums.iter().map(|sum| sum[c]).sum()).collect()
    };
    let distances = |point: &[f64]| -> Vec<f64> {
        let to = |row: &[f32]| row.iter().zip(point).map(|(&v, p)| (f64::from(v) - p).powi(2)).sum::<f64>();
        rows.par_chunks_exact(width).map(|row| to(row).sqrt()).collect()
    };
    let mut median = average(&vec![1.0; rows.len() / width]);
    let mut near = distances(&median);
    let mut sum: f64 = near.iter().sum();
    for _ in 0..ITERATIONS {
        let weights: Vec<f64> = near.iter().map(|d| 1.0 / d.max(NEAREST)).collect();
        median = average(&weights);
        near = distances(&median);
        let before = std::mem::replace(&mut sum, near.iter().sum());
        if (before - sum).abs() <= CHANGE * sum {
            break;
        }
    }
    median.into_iter().map(|v| v as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sae::train::Mode;

    #[test]
    fn the_median_of_a_line_is_its_middle_point() {
        let rows = [0.0, 0.0, 1.0, 2.0, 100.0, 200.0];
        let median = geometric_median(&rows, 2);
        assert!((median[0] - 1.0).abs() < 1e-3 && (median[1] - 2.0).abs() < 1e-3, "{median:?}");
        // Fermat's point of a right triangle with legs of 1: (3 - sqrt 3) / 6
        let fermat = geometric_median(&[0.0, 0.0, 1.0, 0.0, 0.0, 1.0], 2);
        let want = (3.0 - 3.0_f32.sqrt()) / 6.0;
        assert!(fermat.iter().all(|v| (v - want).abs() < 1e-5), "{fermat:?}");
    }

    #[test]
    fn first_weights_keep_within_their_bounds() {
        let config = TrainConfig::new(Mode::Saelens532, 24, 96, 10);
        let parts = weights(&config);
        let bound = (6.0_f32 / 96.0).sqrt();
        let most = parts.w_enc.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        assert!(most <= bound && most > 0.95 * bound, "{most} of {bound}");
        assert!(parts.w_dec.chunks(24).all(|d| (d.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5));
        assert_eq!(parts, weights(&config));
        assert_ne!(parts.w_enc, weights(&TrainConfig { seed: 43, ..config }).w_enc);
        let tied = weights(&TrainConfig::new(Mode::TopK, 24, 96, 10));
        assert_eq!(tied.w_enc, crate::sae::transposed(&tied.w_dec, 24));
    }
}
