//! How the features of an autoencoder fire over a store: sums that grow clip by clip.

use std::path::Path;

use auscult_kernels::DType;
use auscult_model::sae::SparseRows;
use auscult_runtime::files::FileError;
use auscult_runtime::safetensors_io::{TensorSpec, write_safetensors};
use serde::{Deserialize, Serialize};

use super::format::SaeMeta;
use crate::sae_stats::Fit;

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
            explained_variance: fit.explained_variance(),
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
