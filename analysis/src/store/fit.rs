//! How well an autoencoder stands for rows, and how its features fire: sums that grow clip by clip.

use std::path::Path;

use auscult_kernels::DType;
use auscult_model::sae::SparseRows;
use auscult_runtime::files::FileError;
use auscult_runtime::safetensors_io::{TensorSpec, write_safetensors};
use serde::{Deserialize, Serialize};

use super::format::SaeMeta;

/// Sums over rows `x` and what their features decode to. They add up: those of two parts are those of the whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// How many rows.
    pub rows: u64,
    /// Sum of `|x - decoded|^2`.
    pub error: f64,
    /// Sum of `|x|^2`.
    pub squares: f64,
    /// Sum of `x`, [width].
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
    /// none where all rows are equal.
    pub fn fvu(&self) -> Option<f64> {
        let of_mean: f64 = self.sum.iter().map(|v| v * v).sum::<f64>() / self.rows as f64;
        let spread = self.squares - of_mean;
        // what is left of equal rows is rounding
        (spread > 1e-12 * self.squares).then(|| self.error / spread)
    }
}

/// How the features of an autoencoder fired over the rows of a store.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Activity {
    /// Rows in which each is active.
    counts: Vec<u32>,
    /// Sum of its values.
    sums: Vec<f64>,
    /// The largest.
    largest: Vec<f32>,
    /// Where it is first reached: row of the index, and position of the clip.
    places: Vec<[u32; 2]>,
    /// Of all rows.
    pub fit: Fit,
}

/// An autoencoder over all rows of a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SaeSummary {
    /// Its name in the store.
    pub sae: String,
    /// The hook whose rows it read.
    pub hook: String,
    /// Rows.
    pub rows: u64,
    /// [`Fit::fvu`].
    pub fvu: Option<f64>,
    /// 1 less the fraction of variance unexplained.
    pub explained_variance: Option<f64>,
    /// Active features of a row, on average.
    pub l0: f64,
    /// Features there are.
    pub features: usize,
    /// Those of them that are active in no row.
    pub dead: usize,
}

impl Activity {
    pub fn new(features: usize) -> Self {
        Self {
            counts: vec![0; features],
            sums: vec![0.0; features],
            largest: vec![0.0; features],
            places: vec![[0; 2]; features],
            fit: Fit::default(),
        }
    }

    /// Counts the rows of clip number `clip`.
    pub fn add(&mut self, clip: usize, rows: &SparseRows) {
        let index = |at: usize| u32::try_from(at).expect("a store has fewer than 2^32 clips and rows");
        let places = rows.indices.chunks_exact(rows.k).zip(rows.values.chunks_exact(rows.k));
        for (position, (features, values)) in places.enumerate() {
            for (&feature, &value) in features.iter().zip(values).filter(|(_, value)| **value > 0.0) {
                let f = feature as usize;
                self.counts[f] += 1;
                self.sums[f] += f64::from(value);
                if value > self.largest[f] {
                    self.largest[f] = value;
                    self.places[f] = [index(clip), index(position)];
                }
            }
        }
    }

    pub fn summary(&self, sae: &SaeMeta, fit: &Fit) -> SaeSummary {
        let fvu = fit.fvu();
        let active: u64 = self.counts.iter().map(|&count| u64::from(count)).sum();
        SaeSummary {
            sae: sae.name.clone(),
            hook: sae.hook.clone(),
            rows: fit.rows,
            fvu,
            explained_variance: fvu.map(|fvu| 1.0 - fvu),
            l0: active as f64 / fit.rows.max(1) as f64,
            features: sae.features,
            dead: self.counts.iter().filter(|&&count| count == 0).count(),
        }
    }

    /// Writes what is known of each feature: `count`, `mean` (of the rows in which it is active), `max`, `max_clip` (row of
    /// the index) and `max_position`, [features] each.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let features = [self.counts.len()];
        let specs = [
            TensorSpec::new("count", DType::U32, features),
            TensorSpec::new("mean", DType::F32, features),
            TensorSpec::new("max", DType::F32, features),
            TensorSpec::new("max_clip", DType::U32, features),
            TensorSpec::new("max_position", DType::U32, features),
        ];
        let mean = |(&sum, &count): (&f64, &u32)| (sum / f64::from(count.max(1))) as f32;
        write_safetensors(path, &[], &specs, |tensor, out| {
            let bytes: Vec<u8> = match tensor {
                0 => self.counts.iter().flat_map(|v| v.to_le_bytes()).collect(),
                1 => self.sums.iter().zip(&self.counts).map(mean).flat_map(f32::to_le_bytes).collect(),
                2 => self.largest.iter().flat_map(|v| v.to_le_bytes()).collect(),
                _ => self.places.iter().flat_map(|place| place[tensor - 3].to_le_bytes()).collect(),
            };
            out.write_all(&bytes)
        })
    }
}
