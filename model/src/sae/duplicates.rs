//! Features that write nearly the same direction: what an autoencoder learned twice.

use super::encode::product;
use super::{Sae, floats};
use crate::error::{ModelError, Result};
use auscult_kernels::TILED_ROWS;
use rayon::prelude::*;

/// Cosines that are held at a time, 32 MiB of them: those of all pairs never exist together.
const BLOCK_COSINES: usize = 8 << 20;

/// Two features and the cosine between what they write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The smaller feature.
    pub first: usize,
    /// The other.
    pub second: usize,
    /// In f32: -1 to 1, but for rounding.
    pub cosine: f32,
}

/// Pairs of features whose directions are nearly parallel or opposite.
#[derive(Clone, Debug, PartialEq)]
pub struct Duplicates {
    /// How many pairs there are.
    pub pairs: usize,
    /// How many features are in one.
    pub features: usize,
    /// The pairs of the largest `|cosine|`, of equals those of the smaller features.
    pub top: Vec<Pair>,
}

impl Sae {
    /// Pairs of features whose directions have a `|cosine|` above `threshold`, and the `keep` most alike of them. A direction
    /// of length 0 is like no other.
    ///
    /// # Errors
    /// A threshold outside 0..=1.
    pub fn duplicates(&self, threshold: f32, keep: usize) -> Result<Duplicates> {
        if !(0.0..=1.0).contains(&threshold) {
            let (found, expected) = (threshold.to_string(), "0 to 1, a cosine".to_string());
            return Err(ModelError::Argument { argument: "threshold", found, expected });
        }
        let (width, features) = (self.width, self.features);
        let mut unit = floats(&self.decoder).to_vec();
        unit.par_chunks_exact_mut(width).for_each(|d| {
            let norm = d.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            d.iter_mut().filter(|_| norm > 0.0).for_each(|v| *v = (f64::from(*v) / norm) as f32);
        });
        let block = (BLOCK_COSINES / features).max(TILED_ROWS);
        let mut found = Duplicates { pairs: 0, features: 0, top: Vec::new() };
        let mut is_in_one = vec![false; features];
        for first in (0..features).step_by(block) {
            // pairs with features before this block were looked at with theirs
            let rest = &unit[first * width..];
            let rows = block.min(features - first);
            let cosines = product(rest[..rows * width].to_vec(), bytemuck::cast_slice(rest), width)?;
            let of_row = |(i, row): (usize, &[f32])| -> Vec<Pair> {
                let others = row.iter().enumerate().skip(i + 1).filter(|(_, c)| c.abs() > threshold);
                others.map(|(j, &cosine)| Pair { first: first + i, second: first + j, cosine }).collect()
            };
            let pairs: Vec<Vec<Pair>> =
                cosines.par_chunks_exact(features - first).take(rows).enumerate().map(of_row).collect();
            for pair in pairs.iter().flatten() {
                found.pairs += 1;
                is_in_one[pair.first] = true;
                is_in_one[pair.second] = true;
            }
            found.top.extend(pairs.into_iter().flatten());
            found.top.sort_by(|a, b| {
                let by_features = (a.first, a.second).cmp(&(b.first, b.second));
                b.cosine.abs().total_cmp(&a.cosine.abs()).then(by_features)
            });
            found.top.truncate(keep);
        }
        found.features = is_in_one.iter().filter(|&&is| is).count();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::SaeParts;
    use super::*;

    fn sae(w_dec: Vec<f32>, width: usize) -> Sae {
        let features = w_dec.len() / width;
        let parts = SaeParts {
            w_enc: vec![0.5; w_dec.len()],
            b_enc: vec![0.0; features],
            w_dec,
            b_dec: vec![0.0; width],
        };
        Sae::new(parts, Some(1), None).unwrap()
    }

    #[test]
    fn pairs_by_hand() {
        // feature 2 is 0 again, longer; 3 is opposite to 1, nearly; 4 writes nothing
        let sae = sae(vec![1.0, 0.0, 0.0, 2.0, 3.0, 0.0, 0.1, -1.0, 0.0, 0.0], 2);
        let found = sae.duplicates(0.9, 9).unwrap();
        assert_eq!((found.pairs, found.features), (2, 4));
        let pairs: Vec<_> = found.top.iter().map(|p| (p.first, p.second)).collect();
        assert_eq!(pairs, [(0, 2), (1, 3)]);
        assert!((found.top[0].cosine - 1.0).abs() < 1e-6);
        assert!((found.top[1].cosine + 1.0 / 1.01f32.sqrt()).abs() < 1e-6);
        let one = sae.duplicates(0.9, 1).unwrap();
        assert_eq!((one.pairs, one.top.len()), (2, 1), "all are counted, one is kept");
        assert_eq!(sae.duplicates(0.999, 9).unwrap().pairs, 1);
        assert!(
            sae.duplicates(1.5, 9).unwrap_err().to_string().contains("`threshold` is 1.5, expected 0 to 1")
        );
    }

    #[test]
    fn blocks_see_every_pair() {
        // more features than one block takes rows of: copies stand far apart
        let (width, features) = (3, 5000);
        let mut state = 7u32;
        let mut w_dec: Vec<f32> = (0..width * features)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect();
        for (from, to) in [(3, 4999), (1700, 1701), (0, 3000)] {
            let copy: Vec<f32> = w_dec[from * width..][..width].iter().map(|v| v * -2.0).collect();
            w_dec[to * width..][..width].copy_from_slice(&copy);
        }
        assert!(BLOCK_COSINES / features < features, "several blocks");
        let found = sae(w_dec.clone(), width).duplicates(0.999_99, usize::MAX).unwrap();
        let unit: Vec<Vec<f64>> = w_dec
            .chunks_exact(width)
            .map(|d| {
                let norm = d.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                d.iter().map(|&v| f64::from(v) / norm).collect()
            })
            .collect();
        let cosine =
            |p: &Pair| -> f64 { unit[p.first].iter().zip(&unit[p.second]).map(|(a, b)| a * b).sum() };
        assert!(found.top.iter().all(|p| (cosine(p) - f64::from(p.cosine)).abs() < 1e-6));
        for pair in [(3, 4999), (1700, 1701), (0, 3000)] {
            assert!(found.top.iter().any(|p| (p.first, p.second) == pair), "{pair:?}");
        }
        let near = |i: usize, j: usize| {
            let cosine: f64 = unit[i].iter().zip(&unit[j]).map(|(a, b)| a * b).sum();
            cosine.abs()
        };
        // counted the plain way, but for pairs at the threshold itself
        let (mut least, mut most) = (0, 0);
        for i in 0..features {
            for j in i + 1..features {
                least += usize::from(near(i, j) > 0.999_99 + 1e-6);
                most += usize::from(near(i, j) > 0.999_99 - 1e-6);
            }
        }
        assert!((least..=most).contains(&found.pairs), "{} pairs, {least} to {most}", found.pairs);
    }
}
