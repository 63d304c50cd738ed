//! A step of training on the processor, in f32, with dense matrix products: for autoencoders of which a row has any number of
//! active features.
//!
//! Every product is a [`linear`] of the fast host form, so that its order of summation is its own; all else is a loop over
//! features or rows in parallel, whose sums are in order.

use super::config::{Mode, TrainConfig};
use super::start::unit_rows;
use super::{Measured, Outcome};
use crate::error::Result;
use crate::sae::encode::linear;
use crate::sae::{SaeParts, transposed};
use rayon::prelude::*;

/// Share of the threshold of the largest of a batch that stays from step to step.
const THRESHOLD_KEPT: f64 = 0.99;
/// First thresholds of `jumprelu`.
const FIRST_THRESHOLD: f32 = 0.01;
/// What is kept from step to step, by name.
const NAMES: [&str; 5] = ["W_enc", "b_enc", "W_dec", "b_dec", "log_threshold"];

/// A parameter with its moments.
struct Parameter {
    values: Vec<f32>,
    /// The second moment, then the first where there is one.
    moments: Vec<Vec<f32>>,
}

impl Parameter {
    fn new(values: Vec<f32>, moments: usize) -> Self {
        let moments = vec![vec![0.0; values.len()]; moments];
        Self { values, moments }
    }

    /// A step of Adam, as [`auscult_kernels::ops::adam`] has it.
    fn step(&mut self, config: &TrainConfig, [step, root]: [f32; 2], factor: f32, grad: &[f32]) {
        let (keep1, keep2) = (config.beta1 as f32, config.beta2 as f32);
        let (fresh1, fresh2) = ((1.0 - config.beta1) as f32, (1.0 - config.beta2) as f32);
        let mut first: Vec<f32> = grad.par_iter().map(|g| factor * g).collect();
        let (second, others) = self.moments.split_at_mut(1);
        second[0].par_iter_mut().zip(&first).for_each(|(v, g)| *v = keep2 * *v + fresh2 * g * g);
        if let [m] = others {
            m.par_iter_mut().zip(&mut first).for_each(|(m, g)| {
                *m = keep1 * *m + fresh1 * *g;
                *g = *m;
            });
        }
        let moved = self.values.par_iter_mut().zip(&first).zip(&second[0]);
        moved.for_each(|((w, m), v)| *w -= step * m / (root * v.sqrt() + config.eps));
    }
}

/// The weights and the optimiser on the host.
pub(super) struct Dense {
    config: TrainConfig,
    /// As [`NAMES`] names them, the encoder's weight transposed, `[features, width]`; the last in `jumprelu` alone.
    parameters: Vec<Parameter>,
    /// In `batchtopk`: the least activation that is kept, averaged over steps.
    threshold: f64,
    outcome: Outcome,
    measured: Measured,
}

/// What the encoder makes of a batch.
struct Codes {
    /// `[batch, features]`, before anything is dropped.
    pre: Vec<f32>,
    /// `[batch, features]`, 0 where not active.
    values: Vec<f32>,
}

impl Dense {
    /// Takes first weights; the optimiser is at its start.
    pub fn new(config: &TrainConfig, parts: SaeParts) -> Self {
        let moments = config.adam().moments();
        let encoder = transposed(&parts.w_enc, config.features);
        let mut values = vec![encoder, parts.b_enc, parts.w_dec, parts.b_dec];
        if config.mode == Mode::JumpRelu {
            values.push(vec![FIRST_THRESHOLD.ln(); config.features]);
        }
        let zeros = vec![0; config.features];
        Self {
            config: config.clone(),
            parameters: values.into_iter().map(|values| Parameter::new(values, moments)).collect(),
            threshold: 0.0,
            outcome: Outcome { since: zeros.clone(), counts: zeros },
            measured: Measured::default(),
        }
    }

    /// Moves the weights by a batch.
    pub fn step(&mut self, step: u64, rows: &[f32]) -> Result<()> {
        let (width, features, batch) = (self.config.width, self.config.features, self.config.batch);
        let l1 = self.config.l1_at(step);
        let [w_enc, b_enc, b_dec] = [0, 1, 3].map(|i| self.parameters[i].values.as_slice());
        let mut centred = rows.to_vec();
        centred.par_chunks_exact_mut(width).for_each(|row| {
            row.iter_mut().zip(b_dec).for_each(|(v, b)| *v -= b);
        });
        let pre = linear(&centred, width, w_enc, Some(b_enc))?;
        let Codes { pre, values } = self.kept(pre, step);
        let [w_enc, w_dec, b_dec] = [0, 2, 3].map(|i| self.parameters[i].values.as_slice());
        let mut error = linear(&values, features, &transposed(w_dec, width), Some(b_dec))?;
        error.par_iter_mut().zip(rows).for_each(|(e, x)| *e -= x);
        self.measured = measured(&error, &values, batch);

        // of the loss times batch / 2: the factor 2 / batch is put on when gradients are applied
        let mut codes_grad = linear(&error, width, w_dec, None)?;
        let penalty = (l1 / 2.0) as f32;
        let mut threshold_grad = Vec::new();
        if self.config.mode == Mode::JumpRelu {
            threshold_grad = self.threshold_grad(&pre, &codes_grad, penalty);
        }
        let flat = if self.config.mode == Mode::Relu { penalty } else { 0.0 };
        codes_grad.par_iter_mut().zip(&values).for_each(|(g, v)| *g = if *v > 0.0 { *g + flat } else { 0.0 });

        let by_feature = transposed(&codes_grad, features);
        let enc_grad = linear(&by_feature, batch, &transposed(&centred, width), None)?;
        let dec_grad = linear(&transposed(&values, features), batch, &transposed(&error, width), None)?;
        let bias_grad: Vec<f32> = by_feature
            .par_chunks_exact(batch)
            .map(|row| row.iter().map(|&g| f64::from(g)).sum::<f64>() as f32)
            .collect();
        let mut out_grad = vec![0.0_f64; width];
        for row in error.chunks_exact(width) {
            out_grad.iter_mut().zip(row).for_each(|(s, &e)| *s += f64::from(e));
        }
        for (row, &g) in w_enc.chunks_exact(width).zip(&bias_grad).filter(|(_, g)| **g != 0.0) {
            out_grad.iter_mut().zip(row).for_each(|(s, &w)| *s -= f64::from(g) * f64::from(w));
        }
        let out_grad: Vec<f32> = out_grad.into_iter().map(|v| v as f32).collect();
        self.count(&values);

        let grads = [enc_grad, bias_grad, dec_grad, out_grad, threshold_grad];
        let squares = |grad: &Vec<f32>| -> f64 {
            let parts: Vec<f64> = grad
                .par_chunks(1 << 16)
                .map(|part| part.iter().map(|&g| f64::from(g).powi(2)).sum())
                .collect();
            parts.into_iter().sum()
        };
        let scale = 2.0 / batch as f64;
        let norm = scale * grads.iter().map(squares).sum::<f64>().sqrt();
        let most = f64::from(self.config.max_norm) / (norm + 1e-6);
        let factor = if self.config.max_norm > 0.0 && most < 1.0 { scale * most } else { scale };
        self.measured.norm = norm;
        let schedule = self.config.schedule(step);
        for (parameter, grad) in self.parameters.iter_mut().zip(&grads) {
            parameter.step(&self.config, schedule, factor as f32, grad);
        }
        unit_rows(&mut self.parameters[2].values, width);
        Ok(())
    }

    /// Drops what is not active.
    fn kept(&mut self, pre: Vec<f32>, step: u64) -> Codes {
        let features = self.config.features;
        let mut values = pre.clone();
        match self.config.mode {
            Mode::JumpRelu => {
                let logs = &self.parameters[4].values;
                let thresholds: Vec<f32> = logs.iter().map(|log| log.exp()).collect();
                let drop = |row: &mut [f32]| {
                    row.iter_mut().zip(&thresholds).for_each(|(v, t)| *v = if *v > *t { *v } else { 0.0 });
                };
                values.par_chunks_exact_mut(features).for_each(drop);
            }
            Mode::BatchTopK => {
                let most = self.config.k * (values.len() / features);
                let least = least_kept(&values, most);
                values.par_iter_mut().for_each(|v| *v = if *v >= least { *v } else { 0.0 });
                // a batch without any activation tells nothing
                if least.is_finite() {
                    let kept = if step == 0 { 0.0 } else { THRESHOLD_KEPT };
                    self.threshold = kept * self.threshold + (1.0 - kept) * f64::from(least);
                }
            }
            _ => values.par_iter_mut().for_each(|v| *v = v.max(0.0)),
        }
        Codes { pre, values }
    }

    /// The gradient of the logarithms of thresholds, estimated by a rectangle of the bandwidth around each (Rajamanoharan et al.,
    /// equations 11 and 12): -(t / width) (t g + penalty) for every activation within it, g the gradient of the code.
    fn threshold_grad(&self, pre: &[f32], codes_grad: &[f32], penalty: f32) -> Vec<f32> {
        let (features, bandwidth) = (self.config.features, self.config.bandwidth);
        let (pre, grads) = (transposed(pre, features), transposed(codes_grad, features));
        let logs = self.parameters[4].values.par_iter();
        let rows = pre.par_chunks_exact(self.config.batch).zip(grads.par_chunks_exact(self.config.batch));
        logs.zip(rows)
            .map(|(log, (pre, grads))| {
                let threshold = log.exp();
                let near = pre.iter().zip(grads).filter(|(p, _)| (**p - threshold).abs() < bandwidth / 2.0);
                let sum: f64 = near.map(|(_, &g)| f64::from(threshold * g + penalty)).sum();
                -(f64::from(threshold / bandwidth) * sum) as f32
            })
            .collect()
    }

    /// Counts the rows in which features are active.
    fn count(&mut self, values: &[f32]) {
        let features = self.config.features;
        let mut active = vec![0_u32; features];
        for row in values.chunks_exact(features) {
            active.iter_mut().zip(row).for_each(|(n, v)| *n += u32::from(*v > 0.0));
        }
        let history = self.outcome.since.iter_mut().zip(&mut self.outcome.counts);
        for ((since, count), active) in history.zip(active) {
            *since = if active > 0 { 0 } else { since.saturating_add(1) };
            *count += active;
        }
    }

    /// What the last step found, before it moved the weights.
    pub fn measured(&self) -> Measured {
        self.measured
    }

    /// Of every feature the steps since it was last active, and the rows in which it was since the counts began.
    pub fn history(&self) -> Outcome {
        self.outcome.clone()
    }

    /// Begins the counts of activity anew.
    pub fn reset_counts(&mut self) {
        self.outcome.counts.fill(0);
    }

    /// The thresholds of features, where the mode has any.
    pub fn thresholds(&self) -> Option<Vec<f32>> {
        match self.config.mode {
            Mode::JumpRelu => Some(self.parameters[4].values.iter().map(|log| log.exp()).collect()),
            // below the average of the least that were kept a feature is not active; nor is it at 0
            Mode::BatchTopK => Some(vec![self.threshold.max(0.0) as f32; self.config.features]),
            _ => None,
        }
    }

    /// The average of the least activation kept, of `batchtopk`.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Everything but the threshold that the next step depends on, by name.
    pub fn state(&self) -> Vec<(String, Vec<u8>)> {
        let words = |values: &[u32]| bytemuck::cast_slice(values).to_vec();
        let mut out = Vec::new();
        for (name, parameter) in NAMES.into_iter().zip(&self.parameters) {
            out.push((name.to_string(), bytemuck::cast_slice(&parameter.values).to_vec()));
            for (i, moment) in parameter.moments.iter().enumerate() {
                out.push((format!("moment_{i}_{name}"), bytemuck::cast_slice(moment).to_vec()));
            }
        }
        out.push(("since".into(), words(&self.outcome.since)));
        out.push(("counts".into(), words(&self.outcome.counts)));
        out
    }

    /// Takes up what [`state`](Self::state) gave: `of(name, values)` for each, of so many values.
    pub fn restore(
        &mut self,
        threshold: f64,
        mut of: impl FnMut(&str, usize) -> Result<Vec<u8>>,
    ) -> Result<()> {
        self.threshold = threshold;
        for (name, parameter) in NAMES.into_iter().zip(&mut self.parameters) {
            let n = parameter.values.len();
            parameter.values = bytemuck::pod_collect_to_vec(&of(name, n)?);
            for (i, moment) in parameter.moments.iter_mut().enumerate() {
                *moment = bytemuck::pod_collect_to_vec(&of(&format!("moment_{i}_{name}"), n)?);
            }
        }
        let features = self.config.features;
        self.outcome.since = bytemuck::pod_collect_to_vec(&of("since", features)?);
        self.outcome.counts = bytemuck::pod_collect_to_vec(&of("counts", features)?);
        Ok(())
    }

    /// The weights as they are now.
    pub fn parts(&self) -> SaeParts {
        let values = |i: usize| self.parameters[i].values.clone();
        SaeParts {
            w_enc: transposed(&values(0), self.config.width),
            b_enc: values(1),
            w_dec: values(2),
            b_dec: values(3),
        }
    }
}

/// The `most`-th largest of the positive values, or the least of them where there are fewer; infinity where there is none. Values
/// that equal it are all kept, so that rows do not depend on their order.
fn least_kept(values: &[f32], most: usize) -> f32 {
    let mut positive: Vec<f32> = values.iter().copied().filter(|&v| v > 0.0).collect();
    if positive.len() > most && most > 0 {
        return *positive.select_nth_unstable_by(most - 1, |a, b| b.total_cmp(a)).1;
    }
    positive.into_iter().fold(f32::INFINITY, f32::min)
}

fn measured(error: &[f32], values: &[f32], batch: usize) -> Measured {
    let sum = |values: &[f32], of: fn(f64) -> f64| -> f64 {
        let parts: Vec<f64> =
            values.par_chunks(1 << 16).map(|part| part.iter().map(|&v| of(f64::from(v))).sum()).collect();
        parts.into_iter().sum::<f64>() / batch as f64
    };
    Measured {
        mse: sum(error, |e| e * e),
        activation: sum(values, |v| v),
        l0: sum(values, |v| if v > 0.0 { 1.0 } else { 0.0 }),
        norm: 0.0,
    }
}
