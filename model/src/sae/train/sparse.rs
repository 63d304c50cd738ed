//! The weights and the optimiser of a training run on a device, and the graphs that move them.

use super::config::{Mode, TrainConfig};
use super::graph::{Aux, check_aux, graph, placed};
use super::{Measured, Outcome};
use crate::error::Result;
use crate::sae::{SaeParts, transposed};
use auscult_kernels::TensorDesc;
use auscult_kernels::ops::sae_feature_grad::STATS;
use auscult_kernels::ops::sae_feature_sums::HISTORY;
use auscult_runtime::{Backend, Program, Tensor};
use std::sync::Arc;

/// Steps between two looks at which features are silent.
const LOOK: u64 = 20;

/// Share of the running threshold of `batchtopk` that stays from step to step.
const THRESHOLD_KEPT: f32 = 0.99;
/// First thresholds of `jumprelu`.
const FIRST_THRESHOLD: f32 = 0.01;

/// What is kept from step to step; every tensor is called in checkpoints as it is here, in the order of [`State::named`].
pub(super) struct State {
    /// f32 `[features, width]`: the encoder's weight, transposed.
    pub w_enc: Tensor,
    /// f32 `[features]`.
    pub b_enc: Tensor,
    /// f32 `[features, width]`.
    pub w_dec: Tensor,
    /// f32 `[width]`.
    pub b_dec: Tensor,
    /// f32 `[features, moments, width]`.
    pub moments_w_enc: Tensor,
    /// f32 `[moments, features]`.
    pub moments_b_enc: Tensor,
    /// f32 `[features, moments, width]`.
    pub moments_w_dec: Tensor,
    /// f32 `[moments, width]`.
    pub moments_b_dec: Tensor,
    /// u32 `[features, 3]`: what [`auscult_kernels::ops::sae_feature_sums`] counts.
    pub history: Tensor,
    /// f32 `[1]`, of `batchtopk`: the least activation that is kept, averaged over steps.
    pub threshold: Option<Tensor>,
    /// f32 `[features]` and `[moments, features]`, of `jumprelu`: logarithms of the thresholds, and their moments.
    pub log_threshold: Option<[Tensor; 2]>,
}

impl State {
    fn new(backend: &dyn Backend, config: &TrainConfig, parts: &SaeParts) -> Result<Self> {
        let (width, features, moments) = (config.width, config.features, config.adam().moments());
        let of = |shape: &[usize], values: &[f32]| {
            placed(backend, TensorDesc::f32(shape), bytemuck::cast_slice(values))
        };
        let zeros = |shape: &[usize]| of(shape, &vec![0.0; shape.iter().product()]);
        let threshold = (config.mode == Mode::BatchTopK).then(|| zeros(&[1])).transpose()?;
        let log_threshold = match config.mode {
            Mode::JumpRelu => {
                let first = of(&[features], &vec![FIRST_THRESHOLD.ln(); features])?;
                Some([first, zeros(&[moments, features])?])
            }
            _ => None,
        };
        Ok(Self {
            w_enc: of(&[features, width], &transposed(&parts.w_enc, features))?,
            b_enc: of(&[features], &parts.b_enc)?,
            w_dec: of(&[features, width], &parts.w_dec)?,
            b_dec: of(&[width], &parts.b_dec)?,
            moments_w_enc: zeros(&[features, moments, width])?,
            moments_b_enc: zeros(&[moments, features])?,
            moments_w_dec: zeros(&[features, moments, width])?,
            moments_b_dec: zeros(&[moments, width])?,
            history: placed(backend, TensorDesc::u32([features, HISTORY]), &vec![0; 4 * features * HISTORY])?,
            threshold,
            log_threshold,
        })
    }

    /// Every tensor by its name.
    fn named(&self) -> Vec<(&'static str, &Tensor)> {
        let mut named = vec![
            ("W_enc", &self.w_enc),
            ("b_enc", &self.b_enc),
            ("W_dec", &self.w_dec),
            ("b_dec", &self.b_dec),
            ("moments_W_enc", &self.moments_w_enc),
            ("moments_b_enc", &self.moments_b_enc),
            ("moments_W_dec", &self.moments_w_dec),
            ("moments_b_dec", &self.moments_b_dec),
            ("history", &self.history),
        ];
        named.extend(self.threshold.iter().map(|tensor| ("threshold", tensor)));
        if let Some([logs, moments]) = &self.log_threshold {
            named.extend([("log_threshold", logs), ("moments_log_threshold", moments)]);
        }
        named
    }
}

/// The weights and the optimiser on a device, and the graphs that move them.
pub(super) struct Sparse {
    backend: Arc<dyn Backend>,
    config: TrainConfig,
    state: State,
    plain: Program,
    /// Made when it is first wanted.
    with_aux: Option<Program>,
    /// Features that were silent at the last look.
    silent: usize,
    /// The program of the last step.
    last_aux: bool,
}

impl Sparse {
    /// Puts first weights on a device; the optimiser is at its start.
    pub fn new(backend: Arc<dyn Backend>, config: &TrainConfig, parts: &SaeParts) -> Result<Self> {
        check_aux(backend.info(), config)?;
        let state = State::new(&*backend, config, parts)?;
        let plain = Program::new(backend.clone(), graph(&*backend, config, &state, Aux::Without)?)?;
        Ok(Self { backend, config: config.clone(), state, plain, with_aux: None, silent: 0, last_aux: false })
    }

    /// Moves the weights by a batch.
    pub fn step(&mut self, step: u64, rows: &[f32]) -> Result<()> {
        if self.config.aux_k > 0 && step.is_multiple_of(LOOK) {
            self.silent = self.silent_now()?;
        }
        self.last_aux = self.config.aux_k > 0 && self.silent > 0;
        if self.last_aux && self.with_aux.is_none() {
            let graph = graph(&*self.backend, &self.config, &self.state, Aux::With)?;
            self.with_aux = Some(Program::new(self.backend.clone(), graph)?);
        }
        let schedule = self.config.schedule(step);
        // the gradient's half of the penalty: the factor 2 is put on with the others
        let penalty = [(self.config.l1_at(step) / 2.0) as f32];
        // the first average is the first value
        let keep = [if step == 0 { 0.0 } else { THRESHOLD_KEPT }];
        let mut inputs: Vec<(&str, &[u8])> = vec![
            ("x", bytemuck::cast_slice(rows)),
            ("schedule", bytemuck::cast_slice(&schedule)),
            ("penalty", bytemuck::cast_slice(&penalty)),
        ];
        if self.state.threshold.is_some() {
            inputs.push(("keep", bytemuck::cast_slice(&keep)));
        }
        Ok(self.program().run(&inputs)?)
    }

    fn program(&self) -> &Program {
        match (&self.with_aux, self.last_aux) {
            (Some(program), true) => program,
            _ => &self.plain,
        }
    }

    /// What the last step found, before it moved the weights.
    pub fn measured(&self) -> Result<Measured> {
        let stats = self.program().output_f32("stats")?;
        let rows = stats.len() as f64 / STATS as f64;
        let mean =
            |column: usize| stats.chunks_exact(STATS).map(|row| f64::from(row[column])).sum::<f64>() / rows;
        let rates = self.program().output_f32("rates")?;
        Ok(Measured { mse: mean(0), activation: mean(1), l0: mean(2), norm: f64::from(rates[3]) })
    }

    /// Of every feature the steps since it was last active, and the rows in which it was since the counts began.
    pub fn history(&self) -> Result<Outcome> {
        let history: Vec<u32> =
            bytemuck::pod_collect_to_vec(&self.backend.download(&self.state.history.span)?);
        let column = |at: usize| history.chunks_exact(HISTORY).map(|row| row[at]).collect();
        Ok(Outcome { since: column(1), counts: column(2) })
    }

    /// Begins the counts of activity anew.
    pub fn reset_counts(&mut self) -> Result<()> {
        let bytes = self.backend.download(&self.state.history.span)?;
        let mut history: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
        history.chunks_exact_mut(HISTORY).for_each(|row| row[2] = 0);
        Ok(self.backend.upload(&self.state.history.span, bytemuck::cast_slice(&history))?)
    }

    fn silent_now(&self) -> Result<usize> {
        let since = self.history()?.since;
        Ok(since.into_iter().filter(|&steps| steps >= self.config.dead_after).count())
    }

    /// Everything that the next step depends on, by name.
    pub fn state(&self) -> Result<Vec<(&'static str, TensorDesc, Vec<u8>)>> {
        let named = self.state.named().into_iter();
        named
            .map(|(name, tensor)| Ok((name, tensor.desc.clone(), self.backend.download(&tensor.span)?)))
            .collect()
    }

    /// Features that were silent at the last look, which steps go by until the next.
    pub fn silent(&self) -> usize {
        self.silent
    }

    /// Takes up what [`state`](Self::state) gave: `of(name)` for each.
    pub fn restore(
        &mut self,
        silent: usize,
        mut of: impl FnMut(&'static str, &TensorDesc) -> Result<Vec<u8>>,
    ) -> Result<()> {
        self.silent = silent;
        for (name, tensor) in self.state.named() {
            self.backend.upload(&tensor.span, &of(name, &tensor.desc)?)?;
        }
        Ok(())
    }

    /// The weights as they are now.
    pub fn parts(&self) -> Result<SaeParts> {
        let State { w_enc, b_enc, w_dec, b_dec, .. } = &self.state;
        Ok(SaeParts {
            w_enc: transposed(&self.values(w_enc)?, self.config.width),
            b_enc: self.values(b_enc)?,
            w_dec: self.values(w_dec)?,
            b_dec: self.values(b_dec)?,
        })
    }

    /// The thresholds of features, where the mode has any.
    pub fn thresholds(&self) -> Result<Option<Vec<f32>>> {
        if let Some([logs, _]) = &self.state.log_threshold {
            return Ok(Some(self.values(logs)?.into_iter().map(f32::exp).collect()));
        }
        // below the average of the least that were kept a feature is not active; nor is it at 0
        let Some(threshold) = &self.state.threshold else { return Ok(None) };
        Ok(Some(vec![self.values(threshold)?[0].max(0.0); self.config.features]))
    }

    fn values(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        Ok(bytemuck::pod_collect_to_vec(&self.backend.download(&tensor.span)?))
    }
}
