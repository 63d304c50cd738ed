//! Features of autoencoders as shards hold them: `indices` and `values` [rows, k], the largest first.

use std::path::Path;

use auscult_kernels::DType;
use auscult_model::sae::SparseRows;
use auscult_runtime::files::FileError;
use auscult_runtime::safetensors_io::{TensorSpec, write_safetensors};
use auscult_runtime::weights::Weights;

use super::format::{SaeMeta, narrowed};
use crate::sae_stats::Fit;

/// The tensor of features, [rows, k].
pub const INDICES: &str = "indices";
/// The tensor of how active they are, [rows, k].
pub const VALUES: &str = "values";

/// What an autoencoder makes of the rows of a clip.
#[derive(Clone, Debug, PartialEq)]
pub struct SaeRows {
    /// The active features of each position.
    pub features: SparseRows,
    /// How well they stand for the rows.
    pub fit: Fit,
}

/// Why features cannot be those of an autoencoder: places of a row must hold features that there are, finite values, the
/// largest first and of equals the smaller feature, and behind the last active one feature 0 with value 0.
pub(super) fn disorder(sae: &SaeMeta, features: &SparseRows) -> Option<String> {
    let k = features.k.max(1);
    let rows = features.indices.chunks(k).zip(features.values.chunks(k));
    rows.enumerate().find_map(|(row, (indices, values))| {
        let wrong = |at: usize, what: &str| Some(format!("row {row}, place {at} has {what}"));
        for (at, (&feature, &value)) in indices.iter().zip(values).enumerate() {
            if !value.is_finite() || value < 0.0 {
                return wrong(at, &format!("value {value}, expected a finite number from 0"));
            }
            if usize::try_from(feature).map_or(true, |feature| feature >= sae.features) {
                return wrong(at, &format!("feature {feature}, expected less than {}", sae.features));
            }
            if value == 0.0 && feature != 0 {
                return wrong(at, &format!("feature {feature} with value 0, expected feature 0"));
            }
            let sorted = at == 0
                || values[at - 1] > value
                || values[at - 1] == value && (value == 0.0 || indices[at - 1] < feature);
            if !sorted {
                return wrong(at, &format!("feature {feature}, value {value}, out of order"));
            }
        }
        None
    })
}

/// Active features of the rows of an open shard.
#[derive(Debug, Default)]
pub(super) struct OpenFeatures {
    /// Active features of each row.
    counts: Vec<usize>,
    /// One row's behind the other's.
    indices: Vec<u32>,
    values: Vec<f32>,
    /// Of the rows so far.
    pub fit: Fit,
}

impl OpenFeatures {
    /// Without rows, but with the sums of those that are to come.
    pub fn with(fit: Fit) -> Self {
        Self { fit, ..Self::default() }
    }

    pub fn append(&mut self, rows: &SparseRows) {
        let places = rows.indices.chunks_exact(rows.k).zip(rows.values.chunks_exact(rows.k));
        for (indices, values) in places {
            let active = values.partition_point(|&value| value > 0.0);
            self.counts.push(active);
            self.indices.extend_from_slice(&indices[..active]);
            self.values.extend_from_slice(&values[..active]);
        }
    }

    /// Writes the rows as a shard.
    pub fn write(&self, path: &Path, sae: &SaeMeta) -> Result<(), FileError> {
        let rows = self.counts.len();
        let k = sae.k.unwrap_or_else(|| self.counts.iter().copied().max().unwrap_or(0).max(1));
        let specs = [
            TensorSpec::new(INDICES, sae.index_dtype(), [rows, k]),
            TensorSpec::new(VALUES, DType::F32, [rows, k]),
        ];
        write_safetensors(path, &[], &specs, |tensor, out| {
            let mut first = 0;
            self.counts.iter().try_for_each(|&active| {
                let places = first..first + active;
                first = places.end;
                let mut bytes: Vec<u8> = match tensor {
                    0 => narrowed(&self.indices[places], sae.index_dtype()),
                    _ => self.values[places].iter().flat_map(|v| v.to_le_bytes()).collect(),
                };
                bytes.resize(k * specs[tensor].dtype.size(), 0);
                out.write_all(&bytes)
            })
        })
    }
}

/// Rows `first..first + rows` of a shard, or what the shard holds where that is not [`SaeMeta`]'s.
pub(super) fn read(
    weights: &Weights,
    sae: &SaeMeta,
    first: usize,
    rows: usize,
) -> Result<SparseRows, String> {
    let (Some(indices), Some(values)) = (weights.get(INDICES), weights.get(VALUES)) else {
        let names: Vec<&str> = weights.names().collect();
        return Err(format!("holds {}, expected `{INDICES}` and `{VALUES}`", names.join(", ")));
    };
    let end = first.checked_add(rows);
    let k = match (indices.shape, values.shape, end) {
        (&[there, k], values_shape, Some(end))
            if k > 0
                && end <= there
                && sae.k.is_none_or(|of_sae| of_sae == k)
                && *values_shape == [there, k]
                && indices.dtype == sae.index_dtype()
                && values.dtype == DType::F32 =>
        {
            k
        }
        _ => {
            let shape = |name, dtype: DType, shape: &[usize]| format!("`{name}` {dtype} {shape:?}");
            return Err(format!(
                "holds {} and {}, expected {} and F32 [rows, {}] of both, with {} rows or more",
                shape(INDICES, indices.dtype, indices.shape),
                shape(VALUES, values.dtype, values.shape),
                sae.index_dtype(),
                sae.k.map_or("k".to_string(), |k| k.to_string()),
                first.saturating_add(rows)
            ));
        }
    };
    let range = |size: usize| first * k * size..(first + rows) * k * size;
    let floats = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let bytes = &indices.bytes[range(indices.dtype.size())];
    let indices = match indices.dtype {
        DType::U16 => bytes.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b).into()).collect(),
        _ => bytes.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect(),
    };
    Ok(SparseRows { k, indices, values: floats(&values.bytes[range(size_of::<f32>())]) })
}
