//! The encoder on the host, in f32: any activation, any normalisation.

use super::decode::Scale;
use super::precision::{Narrow, narrow_ops};
use super::{Activation, Normalize, Sae, SaePrecision};
use crate::error::{ModelError, Result};
use auscult_kernels::ops::linear::{Activation as After, Linear};
use auscult_kernels::ops::sae_encode::{MOST_K, SaeEncode};
use auscult_kernels::{HostSlot, Plan, TILED_ROWS, TensorDesc};
use auscult_runtime::GraphError;
use rayon::prelude::*;
use std::cmp::Ordering;

/// Values of the product that are held at a time, 32 MiB of them.
const BLOCK_VALUES: usize = 8 << 20;
/// Rows that are encoded at a time where nothing but their features is held.
const BLOCK_ROWS: usize = 4096;
/// The active features of some rows, those of a row by value, the largest first, and of equal values by index.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseRows {
    /// Features a row.
    pub k: usize,
    /// `[rows, k]`; 0 behind the last active one.
    pub indices: Vec<u32>,
    /// `[rows, k]`, above 0; 0 behind the last active one, NaN in all places of a row that is marked.
    pub values: Vec<f32>,
}

impl SparseRows {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.indices.len() / self.k
    }

    /// How many features are active in all rows together.
    pub fn active(&self) -> usize {
        self.values.iter().filter(|&&v| v > 0.0).count()
    }

    /// Several blocks of rows as one, with `k` features a row, or as many as the block with the most has.
    pub fn joined(parts: &[Self], k: Option<usize>) -> Self {
        let k = k.unwrap_or_else(|| parts.iter().map(|part| part.k).max().unwrap_or(1));
        let mut whole = Self { k, indices: Vec::new(), values: Vec::new() };
        for part in parts {
            let part = part.resized(k);
            whole.indices.extend(part.indices);
            whole.values.extend(part.values);
        }
        whole
    }

    /// How many rows stand for one that is not finite.
    pub fn marked(&self) -> usize {
        self.values.chunks_exact(self.k).filter(|row| row[0].is_nan()).count()
    }

    /// Pads or cuts every row to `k` features; what is cut is the smallest. A row that is marked has the mark in all places.
    pub fn resized(&self, k: usize) -> Self {
        let mut all = Self { k, indices: Vec::new(), values: Vec::new() };
        for (indices, values) in self.indices.chunks_exact(self.k).zip(self.values.chunks_exact(self.k)) {
            let kept = k.min(self.k);
            let behind = if values[0].is_nan() { f32::NAN } else { 0.0 };
            all.indices.extend(&indices[..kept]);
            all.indices.extend(std::iter::repeat_n(0, k - kept));
            all.values.extend(&values[..kept]);
            all.values.extend(std::iter::repeat_n(behind, k - kept));
        }
        all
    }
}

/// What is done about rows with a value that is not finite, and about those that are so large that a feature is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFinite {
    /// They are an error, which names the first.
    Refuse,
    /// All their places have index 0 and value NaN.
    Mark,
}

impl Sae {
    /// Encodes rows `[rows, width]`. A row has as many places as the autoencoder has active features at most, or, where it sets
    /// no limit, as the row with the most has (1 at least).
    ///
    /// # Errors
    /// A length that is no multiple of the width; a value that is not finite, by row and column; a row of zeros where rows are
    /// scaled to a length; a row whose features are not finite, since it is too large.
    pub fn encode(&self, rows: &[f32]) -> Result<SparseRows> {
        self.encode_with(rows, NotFinite::Refuse)
    }

    /// As [`encode`](Self::encode), with a choice about rows that are not finite, or whose features are not.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), but for what is marked.
    pub fn encode_with(&self, rows: &[f32], not_finite: NotFinite) -> Result<SparseRows> {
        self.encode_by(None, rows, not_finite)
    }

    /// An encoder on the host whose products are of `precision`.
    ///
    /// # Errors
    /// For bf16 an autoencoder that is not one of the k largest features, k at most 1024, or a weight beyond the range of bf16.
    pub fn host_encoder(&self, precision: SaePrecision) -> Result<HostEncoder<'_>> {
        let narrow = match precision {
            SaePrecision::F32 => None,
            SaePrecision::Bf16 => Some(self.narrow_encoder()?),
        };
        Ok(HostEncoder { sae: self, narrow })
    }

    /// With an encoder in bf16, where there is one, products are of that.
    fn encode_by(&self, narrow: Option<&Narrow>, rows: &[f32], not_finite: NotFinite) -> Result<SparseRows> {
        self.encode_through(rows, not_finite, |rows| match self.settings.activation {
            Activation::TopK(k) if k <= MOST_K => self.encode_top_k(narrow, rows, k),
            _ => self.encode_any(rows),
        })
    }

    /// Encodes rows by what is sure to get rows that are finite, and holds what comes back to the same.
    pub(super) fn encode_through(
        &self,
        rows: &[f32],
        not_finite: NotFinite,
        encode: impl FnOnce(&[f32]) -> Result<SparseRows>,
    ) -> Result<SparseRows> {
        self.check_length(rows)?;
        self.check_lengths(rows)?;
        if not_finite == NotFinite::Refuse {
            self.check_finite(rows)?;
            let codes = encode(rows)?;
            self.check_codes(&codes)?;
            return Ok(codes);
        }
        let is_finite = |row: &[f32]| row.iter().all(|v| v.is_finite());
        let finite: Vec<f32> =
            rows.chunks_exact(self.width).filter(|row| is_finite(row)).flatten().copied().collect();
        let codes = encode(&finite)?;
        let k = codes.k;
        let mut found = codes.indices.chunks_exact(k).zip(codes.values.chunks_exact(k));
        let mut marked = SparseRows { k, indices: Vec::new(), values: Vec::new() };
        for row in rows.chunks_exact(self.width) {
            let found = is_finite(row).then(|| found.next().expect("every finite row was encoded"));
            match found.filter(|(_, values)| is_finite(values)) {
                Some((indices, values)) => {
                    marked.indices.extend(indices);
                    marked.values.extend(values);
                }
                None => {
                    marked.indices.extend(std::iter::repeat_n(0, k));
                    marked.values.extend(std::iter::repeat_n(f32::NAN, k));
                }
            }
        }
        Ok(marked)
    }

    fn check_length(&self, rows: &[f32]) -> Result<()> {
        if rows.len().is_multiple_of(self.width) {
            return Ok(());
        }
        let expected = format!("a multiple of {}, the autoencoder's width", self.width);
        Err(ModelError::Argument { argument: "rows", found: format!("{} values", rows.len()), expected })
    }

    /// Refuses rows that are not finite.
    fn check_finite(&self, rows: &[f32]) -> Result<()> {
        let Some(at) = rows.iter().position(|v| !v.is_finite()) else { return Ok(()) };
        let (row, column) = (at / self.width, at % self.width);
        let found = format!("{} in row {row}, column {column}", rows[at]);
        Err(ModelError::Argument { argument: "rows", found, expected: "finite values".into() })
    }

    /// Refuses rows of length 0 where rows are scaled to one.
    fn check_lengths(&self, rows: &[f32]) -> Result<()> {
        let all_zeros = |row: &[f32]| row.iter().all(|&v| v == 0.0);
        let scaled = self.settings.normalize == Normalize::ConstantNorm;
        match rows.chunks_exact(self.width).position(all_zeros).filter(|_| scaled) {
            Some(row) => Err(ModelError::Argument {
                argument: "rows",
                found: format!("all zeros in row {row}"),
                expected: "a length above 0, which is scaled to another".into(),
            }),
            None => Ok(()),
        }
    }

    /// Refuses features that are not finite.
    fn check_codes(&self, codes: &SparseRows) -> Result<()> {
        let Some(at) = codes.values.iter().position(|v| !v.is_finite()) else { return Ok(()) };
        Err(ModelError::Argument {
            argument: "rows",
            found: format!("so large in row {} that a feature is not finite", at / codes.k),
            expected: "values whose sums are finite".into(),
        })
    }

    /// The k largest features, chosen as they are computed.
    fn encode_top_k(&self, narrow: Option<&Narrow>, rows: &[f32], k: usize) -> Result<SparseRows> {
        let count = rows.len() / self.width;
        let (mut indices, mut values) = (Vec::new(), Vec::new());
        for rows in rows.chunks(BLOCK_ROWS * self.width) {
            let x = self.prepared(rows);
            let found = match narrow {
                None => self.best(&x, k)?,
                Some(narrow) => self.best_by(narrow, &x, k)?,
            };
            indices.extend(found.0);
            values.extend(found.1);
            // what rows of zeros behind the last made
            let known = indices.len().min(count * k);
            indices.truncate(known);
            values.truncate(known);
        }
        Ok(SparseRows { k, indices, values })
    }

    /// The k best features of rows that are prepared, and their values.
    fn best(&self, x: &[f32], k: usize) -> Result<(Vec<u32>, Vec<f32>)> {
        let desc = TensorDesc::f32([x.len() / self.width, self.width]);
        let bias = TensorDesc::f32([self.features]);
        let plan = SaeEncode { k }.plan(&desc, &self.encoder.desc, &bias).map_err(GraphError::from)?;
        let read = [bytemuck::cast_slice(x), &self.encoder.bytes, bytemuck::cast_slice(&self.b_enc)];
        Ok(chosen(&plan, &read, desc.shape[0] * k))
    }

    /// The same by products in bf16, and near ties in f32.
    fn best_by(&self, narrow: &Narrow, x: &[f32], k: usize) -> Result<(Vec<u32>, Vec<f32>)> {
        let rows = x.len() / self.width;
        let (round, screen, rescore) = narrow_ops(k, self.features);
        let (desc, bias) = (TensorDesc::f32([rows, self.width]), TensorDesc::f32([self.features]));
        let x_bytes = bytemuck::cast_slice(x);

        let plan = round.plan(&desc, None).map_err(GraphError::from)?;
        let mut rounded = vec![0_u16; x.len()];
        let written = HostSlot::Write(bytemuck::cast_slice_mut(&mut rounded));
        run(&plan, &mut [HostSlot::Read(x_bytes), HostSlot::Read(&[]), written]);

        let rounded_desc = TensorDesc::new(round.dtype, desc.shape.clone());
        let plan = screen.plan(&rounded_desc, &narrow.weight.desc, &bias).map_err(GraphError::from)?;
        let read = [bytemuck::cast_slice(&rounded), &narrow.weight.bytes, &narrow.bias.bytes];
        let (candidates, scores) = chosen(&plan, &read, rows * screen.k);

        let (found, scored) = (TensorDesc::u32([rows, screen.k]), TensorDesc::f32([rows, screen.k]));
        let (encoder, errors) = (&self.encoder, &narrow.errors);
        let plan = rescore.plan(&desc, &encoder.desc, &bias, &errors.desc, &found, &scored);
        let lists = [bytemuck::cast_slice(&candidates), bytemuck::cast_slice(&scores)];
        let read = [x_bytes, &encoder.bytes, &narrow.bias.bytes, &errors.bytes, lists[0], lists[1]];
        Ok(chosen(&plan.map_err(GraphError::from)?, &read, rows * k))
    }

    /// All features of some rows at a time, then those that are active.
    fn encode_any(&self, rows: &[f32]) -> Result<SparseRows> {
        let width = self.width;
        let block = (BLOCK_VALUES / self.features).max(TILED_ROWS);
        let mut chosen: Vec<Vec<(u32, f32)>> = Vec::with_capacity(rows.len() / width);
        let scales = self.magnitudes();
        for rows in rows.chunks(block * width) {
            let products = self.products(rows)?;
            let count = rows.len() / width;
            chosen.par_extend(
                products.par_chunks_exact(self.features).take(count).map(|u| self.select(u, &scales)),
            );
        }
        let k = self.k().unwrap_or_else(|| chosen.iter().map(Vec::len).max().unwrap_or(0).max(1));
        // a row that is not a number has one place, which stands for all
        let behind =
            |row: &[(u32, f32)]| row.first().copied().filter(|(_, v)| v.is_nan()).unwrap_or_default();
        let places = || {
            chosen.iter().flat_map(|row| (0..k).map(|i| row.get(i).copied().unwrap_or_else(|| behind(row))))
        };
        let (indices, values) = places().unzip();
        Ok(SparseRows { k, indices, values })
    }

    /// What the encoder's weight multiplies, of rows, and some rows of zeros behind them.
    fn prepared(&self, rows: &[f32]) -> Vec<f32> {
        let mut x: Vec<f32> = rows.to_vec();
        x.par_chunks_exact_mut(self.width).for_each(|row| self.prepare(row));
        x.resize(x.len().max(TILED_ROWS * self.width), 0.0);
        x
    }

    /// `x W_enc` of rows prepared for it, and of some rows of zeros behind them: `[at least rows, features]`.
    fn products(&self, rows: &[f32]) -> Result<Vec<f32>> {
        product(self.prepared(rows), &self.encoder.bytes, self.width)
    }

    /// What the encoder's weight multiplies, of one row.
    fn prepare(&self, row: &mut [f32]) {
        if self.settings.normalize != Normalize::None {
            let Scale { centre, divisor, eps } = Scale::of(row, self.settings.normalize);
            row.iter_mut().for_each(|v| *v = ((f64::from(*v) - centre) / (divisor + eps)) as f32);
        }
        if self.settings.apply_b_dec_to_input {
            row.iter_mut().zip(&self.b_dec).for_each(|(v, b)| *v -= b);
        }
    }

    /// `exp(r_mag)` of a gated autoencoder.
    pub(super) fn magnitudes(&self) -> Vec<f32> {
        match &self.settings.activation {
            Activation::Gated { r_mag, .. } => r_mag.iter().map(|r| r.exp()).collect(),
            _ => Vec::new(),
        }
    }

    /// The active features of a row whose products are `u`, in order; index 0 and NaN where one is not a number.
    fn select(&self, u: &[f32], scales: &[f32]) -> Vec<(u32, f32)> {
        let activation = |f: usize| {
            let pre = u[f] + self.b_enc[f];
            match &self.settings.activation {
                Activation::Relu | Activation::TopK(_) => pre,
                Activation::JumpRelu { threshold } if pre > threshold[f] => pre,
                Activation::Gated { b_mag, .. } if pre > 0.0 => u[f] * scales[f] + b_mag[f],
                Activation::JumpRelu { .. } | Activation::Gated { .. } => 0.0,
            }
        };
        // what is not positive is not active, whether it is among the largest or not
        let positive =
            |f: u32| Some((f, activation(f as usize))).filter(|(_, value)| *value > 0.0 || value.is_nan());
        let mut active: Vec<(u32, f32)> = (0..u.len() as u32).filter_map(positive).collect();
        if active.iter().any(|(_, value)| value.is_nan()) {
            return vec![(0, f32::NAN)];
        }
        let order = |a: &(u32, f32), b: &(u32, f32)| -> Ordering { b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)) };
        if let Activation::TopK(k) = self.settings.activation
            && active.len() > k
        {
            active.select_nth_unstable_by(k, order);
            active.truncate(k);
        }
        active.sort_unstable_by(order);
        active
    }
}

/// An encoder on the host, made by [`Sae::host_encoder`].
#[derive(Debug)]
pub struct HostEncoder<'a> {
    sae: &'a Sae,
    /// The encoder in bf16, where products are of that.
    narrow: Option<Narrow>,
}

impl HostEncoder<'_> {
    /// Encodes rows `[rows, width]`.
    ///
    /// # Errors
    /// As [`Sae::encode`].
    pub fn encode(&self, rows: &[f32]) -> Result<SparseRows> {
        self.encode_with(rows, NotFinite::Refuse)
    }

    /// Encodes rows `[rows, width]`.
    ///
    /// # Errors
    /// As [`Sae::encode_with`].
    pub fn encode_with(&self, rows: &[f32], not_finite: NotFinite) -> Result<SparseRows> {
        self.sae.encode_by(self.narrow.as_ref(), rows, not_finite)
    }
}

/// Runs a plan by its fast form on the host.
fn run(plan: &Plan, slots: &mut [HostSlot<'_>]) {
    plan.kernel.cpu.unwrap_or(plan.kernel.reference)(&plan.params, slots);
}

/// Features and values, so many places of each, which a plan writes from what it reads.
fn chosen(plan: &Plan, read: &[&[u8]], places: usize) -> (Vec<u32>, Vec<f32>) {
    let mut found = (vec![0_u32; places], vec![0.0_f32; places]);
    let mut slots: Vec<HostSlot<'_>> = read.iter().map(|&bytes| HostSlot::Read(bytes)).collect();
    slots.push(HostSlot::Write(bytemuck::cast_slice_mut(&mut found.0)));
    slots.push(HostSlot::Write(bytemuck::cast_slice_mut(&mut found.1)));
    run(plan, &mut slots);
    found
}

/// `x weight^T` of rows `x` and of some rows of zeros behind them where there are few, with a weight f32 `[features, width]`:
/// `[at least rows, features]`.
pub(super) fn product(mut x: Vec<f32>, weight: &[u8], width: usize) -> Result<Vec<f32>> {
    x.resize(x.len().max(TILED_ROWS * width), 0.0);
    let (rows, features) = (x.len() / width, weight.len() / 4 / width);
    let (x_desc, weight_desc) = (TensorDesc::f32([rows, width]), TensorDesc::f32([features, width]));
    let op = Linear { activation: After::None };
    let plan = op.plan(&x_desc, &weight_desc, None, None).map_err(GraphError::from)?;
    let mut y = vec![0.0f32; rows * features];
    run(
        &plan,
        &mut [
            HostSlot::Read(bytemuck::cast_slice(&x)),
            HostSlot::Read(weight),
            HostSlot::Read(&[]),
            HostSlot::Read(&[]),
            HostSlot::Write(bytemuck::cast_slice_mut(&mut y)),
        ],
    );
    Ok(y)
}
