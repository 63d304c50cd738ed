//! The decoder on the host: what the features of a row say that the row was.

use super::{Normalize, Sae, SparseRows, floats};
use crate::error::{ModelError, Result};
use rayon::prelude::*;

/// SAELens adds it to the standard deviation that rows are divided by, not to that which what is decoded is multiplied by.
const LAYER_NORM_EPS: f64 = 1e-5;

impl Sae {
    /// The rows that features stand for, `b_dec + sum of f W_dec[feature]`, `[rows, width]`, summed in f64 in the order of the
    /// features. Of an autoencoder that normalises its rows these are normalised rows; [`reconstruct`](Self::reconstruct) takes
    /// that back.
    ///
    /// # Errors
    /// Features beyond those there are.
    pub fn decode(&self, codes: &SparseRows) -> Result<Vec<f32>> {
        if let Some(at) =
            codes.indices.iter().position(|&f| usize::try_from(f).is_ok_and(|f| f >= self.features))
        {
            return Err(ModelError::Argument {
                argument: "indices",
                found: format!("{} in row {}", codes.indices[at], at / codes.k),
                expected: format!("less than {}, the features of the autoencoder", self.features),
            });
        }
        let decoder = floats(&self.decoder);
        let mut out = vec![0.0f32; codes.rows() * self.width];
        let features = codes.indices.par_chunks_exact(codes.k).zip(codes.values.par_chunks_exact(codes.k));
        out.par_chunks_exact_mut(self.width).zip(features).for_each(|(row, (indices, values))| {
            let mut sums: Vec<f64> = self.b_dec.iter().map(|&b| f64::from(b)).collect();
            for (&feature, &value) in indices.iter().zip(values).filter(|(_, value)| **value != 0.0) {
                let direction = &decoder[feature as usize * self.width..][..self.width];
                sums.iter_mut().zip(direction).for_each(|(sum, &d)| *sum += f64::from(value) * f64::from(d));
            }
            row.iter_mut().zip(sums).for_each(|(v, sum)| *v = sum as f32);
        });
        Ok(out)
    }

    /// What an autoencoder makes of `rows` `[rows, width]`, whose features are `codes`: what they decode to, on the scale of the
    /// rows.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode); another number of rows than there are features of.
    pub fn reconstruct(&self, rows: &[f32], codes: &SparseRows) -> Result<Vec<f32>> {
        let mut decoded = self.decode(codes)?;
        if rows.len() != decoded.len() {
            return Err(ModelError::Argument {
                argument: "rows",
                found: format!("{} values", rows.len()),
                expected: format!("{} of width {}, as there are features of", codes.rows(), self.width),
            });
        }
        if self.settings.normalize != Normalize::None {
            let back = |(out, row): (&mut [f32], &[f32])| {
                let Scale { centre, divisor, .. } = Scale::of(row, self.settings.normalize);
                out.iter_mut().for_each(|v| *v = (f64::from(*v) * divisor + centre) as f32);
            };
            decoded.par_chunks_exact_mut(self.width).zip(rows.par_chunks_exact(self.width)).for_each(back);
        }
        Ok(decoded)
    }
}

/// What normalises one row, and takes it back.
pub(super) struct Scale {
    /// Subtracted first.
    pub centre: f64,
    /// What the way back multiplies by.
    pub divisor: f64,
    /// Added to the divisor on the way there alone.
    pub eps: f64,
}

impl Scale {
    pub fn of(row: &[f32], normalize: Normalize) -> Self {
        let sum_of = |f: &dyn Fn(f64) -> f64| row.iter().map(|&v| f(f64::from(v))).sum::<f64>();
        let width = row.len() as f64;
        match normalize {
            Normalize::None => Self { centre: 0.0, divisor: 1.0, eps: 0.0 },
            Normalize::ConstantNorm => {
                Self { centre: 0.0, divisor: sum_of(&|v| v * v).sqrt() / width.sqrt(), eps: 0.0 }
            }
            Normalize::LayerNorm => {
                let centre = sum_of(&|v| v) / width;
                let freedom = (row.len() - 1).max(1) as f64;
                let divisor = (sum_of(&|v| (v - centre).powi(2)) / freedom).sqrt();
                Self { centre, divisor, eps: LAYER_NORM_EPS }
            }
        }
    }
}
