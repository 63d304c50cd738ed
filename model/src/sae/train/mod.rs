//! Training: rows in, an autoencoder out.
//!
//! A [`Trainer`] moves the weights by a batch at a time and knows nothing of where rows come from; [`Mixing`] brings rows of a source
//! into a shuffled order. A step is a graph of kernels, on any device, and touches the active features of its batch alone.
//!
//! What a run depends on is in its [checkpoints](Trainer::save): one taken up goes on bit for bit on the device that it was made on.

mod buffer;
mod checkpoint;
mod config;
mod graph;
mod sparse;
mod start;

pub use buffer::{Mixing, MixingState};
pub use checkpoint::{CHECKPOINT_FILE, Checkpoint};
pub use config::{Mode, TrainConfig};
pub use start::geometric_median;

use super::{Activation, Metadata, Sae, SaeParts, Settings};
use crate::error::{ModelError, Result};
use auscult_runtime::Backend;
use serde::Serialize;
use sparse::Sparse;
use std::sync::Arc;

/// What a step found, before it moved the weights; means over the rows of its batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Record {
    /// Steps before it.
    pub step: u64,
    /// What was to be lowered: `mse`, and `l1`. The auxiliary loss of silent features moves the weights too, and is not in it.
    pub loss: f64,
    /// Square of the error, summed over a row.
    pub mse: f64,
    /// The penalty: its factor times the sum of activations, or, in `jumprelu`, times the number of active features.
    pub l1: f64,
    /// Share of the batch's variance that is not explained.
    pub fvu: f64,
    /// Active features of a row.
    pub l0: f64,
    /// Features that were not active for [`TrainConfig::dead_after`] steps.
    pub dead: usize,
    /// Length of the gradient, over all parameters, before it was shortened.
    pub grad_norm: f64,
    /// Rate of learning.
    pub lr: f64,
}

/// What the weights made of a batch.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    mse: f64,
    activation: f64,
    l0: f64,
    norm: f64,
}

/// How features were active.
#[derive(Clone, Debug)]
struct Outcome {
    /// Steps since the last activity.
    since: Vec<u32>,
    /// Rows of activity since the counts began.
    counts: Vec<u32>,
}

/// An autoencoder in training.
pub struct Trainer {
    config: TrainConfig,
    engine: Sparse,
    /// Steps that were made.
    step: u64,
    /// Steps since the counts of activity began.
    counted: u64,
}

impl Trainer {
    /// Begins with weights drawn by the seed and, as the decoder's bias, the [`geometric_median`] of `first` rows.
    ///
    /// # Errors
    /// Settings that cannot be trained, rows of another width, values that are not finite; the device.
    pub fn new(backend: Arc<dyn Backend>, config: TrainConfig, first: &[f32]) -> Result<Self> {
        config.check()?;
        check_rows(first, config.width)?;
        let mut parts = start::weights(&config);
        parts.b_dec = geometric_median(first, config.width);
        Self::with_weights(backend, config, parts)
    }

    /// Begins with given weights, whose decoder's rows are brought to length 1.
    ///
    /// # Errors
    /// Settings that cannot be trained, tensors of other sizes; the device.
    pub fn with_weights(backend: Arc<dyn Backend>, config: TrainConfig, mut parts: SaeParts) -> Result<Self> {
        config.check()?;
        let (width, features) = (config.width, config.features);
        for (argument, values, expected) in [
            ("W_enc", &parts.w_enc, width * features),
            ("b_enc", &parts.b_enc, features),
            ("W_dec", &parts.w_dec, width * features),
            ("b_dec", &parts.b_dec, width),
        ] {
            if values.len() != expected {
                let (found, expected) = (format!("{} values", values.len()), expected.to_string());
                return Err(ModelError::Argument { argument, found, expected });
            }
        }
        start::unit_rows(&mut parts.w_dec, width);
        let engine = Sparse::new(backend, &config, &parts)?;
        Ok(Self { config, engine, step: 0, counted: 0 })
    }

    /// What it was told.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Steps that were made.
    pub fn steps_made(&self) -> u64 {
        self.step
    }

    /// Whether all steps were made.
    pub fn is_done(&self) -> bool {
        self.step >= self.config.steps
    }

    /// Moves the weights by a batch, `[batch, width]`.
    ///
    /// # Errors
    /// Another number of values, values that are not finite; the device.
    pub fn step(&mut self, rows: &[f32]) -> Result<()> {
        let expected = self.config.batch * self.config.width;
        if rows.len() != expected {
            return Err(ModelError::Argument {
                argument: "rows",
                found: format!("{} values", rows.len()),
                expected: format!("{expected}, a batch"),
            });
        }
        check_rows(rows, self.config.width)?;
        // SAELens, `_train_step`: the counts begin anew in every last step of a window, before it is counted
        if (self.step + 1).is_multiple_of(self.config.window) {
            self.engine.reset_counts()?;
            self.counted = 0;
        }
        self.engine.step(self.step, rows)?;
        self.step += 1;
        self.counted += 1;
        Ok(())
    }

    /// As [`step`](Self::step), and what it found.
    ///
    /// # Errors
    /// As [`step`](Self::step); a loss that is not finite.
    pub fn step_recorded(&mut self, rows: &[f32]) -> Result<Record> {
        self.step(rows)?;
        let step = self.step - 1;
        let measured = self.engine.measured()?;
        let penalised = match self.config.mode {
            Mode::JumpRelu => measured.l0,
            Mode::Saelens532 | Mode::TopK | Mode::Relu => measured.activation,
            Mode::BatchTopK => 0.0,
        };
        let l1 = self.config.l1_at(step) * penalised;
        let record = Record {
            step,
            loss: measured.mse + l1,
            mse: measured.mse,
            l1,
            fvu: measured.mse / variance(rows, self.config.width),
            l0: measured.l0,
            dead: self.dead()?,
            grad_norm: measured.norm,
            lr: self.config.lr_at(step),
        };
        if !record.loss.is_finite() {
            return Err(ModelError::Argument {
                argument: "loss",
                found: format!("{} in step {step}", record.loss),
                expected: "a finite number; a lower `lr`, or rows of a smaller scale, may help".into(),
            });
        }
        Ok(record)
    }

    /// Features that were not active for [`TrainConfig::dead_after`] steps.
    ///
    /// # Errors
    /// The device.
    pub fn dead(&self) -> Result<usize> {
        Ok(self.engine.history()?.since.into_iter().filter(|&steps| steps >= self.config.dead_after).count())
    }

    /// Of every feature log10 of the share of rows, of those of the window so far, in which it was active, plus 1e-10: what SAELens
    /// writes as `sparsity`.
    ///
    /// # Errors
    /// The device.
    pub fn sparsity(&self) -> Result<Vec<f32>> {
        let rows = (self.counted * self.config.batch as u64).max(1) as f64;
        let log = |count: u32| (f64::from(count) / rows + 1e-10).log10() as f32;
        Ok(self.engine.history()?.counts.into_iter().map(log).collect())
    }

    /// The autoencoder as it is now, its decoder's rows of length 1.
    ///
    /// # Errors
    /// The device; weights that are not finite.
    pub fn sae(&self, metadata: Metadata) -> Result<Sae> {
        let (mut parts, thresholds) = (self.engine.parts()?, self.engine.thresholds()?);
        start::unit_rows(&mut parts.w_dec, self.config.width);
        let activation = match (self.config.mode, thresholds) {
            (Mode::Saelens532 | Mode::TopK, _) => Activation::TopK(self.config.k),
            (_, Some(threshold)) => Activation::JumpRelu { threshold },
            (_, None) => Activation::Relu,
        };
        Sae::with_settings(parts, Settings { metadata, ..Settings::new(activation) })
    }
}

/// Mean square of the distance of rows from their mean.
fn variance(rows: &[f32], width: usize) -> f64 {
    let count = (rows.len() / width) as f64;
    let (mut sums, mut squares) = (vec![0.0_f64; width], 0.0);
    for row in rows.chunks_exact(width) {
        for (sum, &v) in sums.iter_mut().zip(row) {
            *sum += f64::from(v);
            squares += f64::from(v).powi(2);
        }
    }
    (squares - sums.iter().map(|sum| sum * sum / count).sum::<f64>()) / count
}

fn check_rows(rows: &[f32], width: usize) -> Result<()> {
    let bad =
        |found: String, expected: String| Err(ModelError::Argument { argument: "rows", found, expected });
    if !rows.len().is_multiple_of(width) {
        return bad(format!("{} values", rows.len()), format!("a multiple of {width}, the width"));
    }
    match rows.iter().position(|v| !v.is_finite()) {
        Some(at) => {
            bad(format!("{} in row {}, column {}", rows[at], at / width, at % width), "finite values".into())
        }
        None => Ok(()),
    }
}
