//! Training of autoencoders on every executor against a plain transcription of its arithmetic in f64: every mode, step by step.
//!
//! Executors that are missing show as ignored, with the reason; `AUSCULT_REQUIRE_WGPU=1` and `AUSCULT_REQUIRE_CUDA=1` make
//! that a failure.

mod common;

use auscult_kernels::noise;
use auscult_model::sae::train::{Mixing, Mode, TrainConfig, Trainer};
use auscult_model::sae::{Activation, Metadata, SaeParts};
use auscult_runtime::Backend;
use common::executors::{Executor, Executors};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::sync::Arc;

const WIDTH: usize = 12;
/// More than a tile, so that devices encode them in parts.
const FEATURES: usize = 72;
/// The errors of silent features lie behind those of a batch, at `BATCH * WIDTH` values: where every device can start to read.
const BATCH: usize = 32;
/// Steps after which the counts of activity begin anew.
const WINDOW: u64 = 9;
/// Steps without activity after which a feature is silent.
const DEAD_AFTER: u32 = 3;
/// Steps between two looks at whether any feature is silent (`LOOK` of the trainer).
const LOOK: u64 = 20;
/// Features whose first encoders are too short for them to be among the largest, so that they fall silent.
const SHORT: usize = 12;

/// What single numbers of a step may differ by, as a share: sums in f32, and what they became over the steps.
const NUMBERS: f64 = 2e-4;
/// What all weights together may differ by after the last step, as a share of their length.
const WEIGHTS: f64 = 5e-5;

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let executors = Executors::open();
    let mut trials: Vec<Trial> = executors.missing().collect();
    let plain = Mode::ALL.map(|mode| Case { name: mode.name(), mode, steps: 20, saved_at: 7, aux_k: 0 });
    for case in plain.into_iter().chain([AUX_K]) {
        for Executor { name, backend } in &executors.there {
            let of_case = |what: &str| format!("{name}::{}::{what}", case.name);
            let (steps, resumed) = (backend.clone(), backend.clone());
            trials.push(Trial::test(of_case("steps"), move || every_step(case, &steps)));
            trials.push(Trial::test(of_case("resumed"), move || taken_up(case, &resumed)));
        }
    }
    for Executor { name, backend } in &executors.there {
        let backend = backend.clone();
        trials.push(Trial::test(format!("{name}::odd batches"), move || odd_batches(&backend)));
    }
    libtest_mimic::run(&args, trials).exit_code()
}

/// Where a device cannot start to read behind the errors of a batch, the trainer says so before the first step.
fn odd_batches(backend: &Arc<dyn Backend>) -> Result<(), Failed> {
    let config = TrainConfig { batch: BATCH - 1, ..AUX_K.config() };
    let start = backend.info().binding_align.div_ceil(4);
    match Trainer::with_weights(backend.clone(), config, AUX_K.start()) {
        Ok(_) => assert_eq!((BATCH - 1) * WIDTH % start, 0, "nothing starts amid {start} values"),
        Err(e) => assert_eq!(
            e.to_string(),
            format!(
                "`batch` is 31 rows of 12, expected with `aux_k` above 0 a multiple of {start} values, where {} starts to read: {} \
                 rows, say",
                backend.info().id,
                31_usize.next_multiple_of(start)
            )
        ),
    }
    Ok(())
}

/// A run that executors are held to.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    mode: Mode,
    steps: u64,
    /// The step before which its checkpoint is written.
    saved_at: u64,
    aux_k: usize,
}

/// Silent features explain what is left from the first look on, within a checkpoint too, and through a second look.
const AUX_K: Case = Case { name: "topk-aux-k", mode: Mode::TopK, steps: 46, saved_at: 27, aux_k: 6 };

impl Case {
    fn config(self) -> TrainConfig {
        TrainConfig {
            k: 4,
            batch: BATCH,
            lr: 3e-3,
            lr_decay: 4,
            l1: 0.3,
            l1_warmup: 5,
            window: WINDOW,
            dead_after: DEAD_AFTER,
            aux_k: self.aux_k,
            // so much that the gradient's length shows it
            aux_weight: 0.5,
            // some of every batch lie within it
            bandwidth: 0.4,
            ..TrainConfig::new(self.mode, WIDTH, FEATURES, self.steps)
        }
    }

    fn start(self) -> SaeParts {
        let mut w_enc = values("w_enc", WIDTH * FEATURES, 0.6);
        if self.aux_k > 0 {
            let short = w_enc.iter_mut().enumerate().filter(|(i, _)| i % FEATURES < SHORT);
            short.for_each(|(_, v)| *v *= 0.1);
        }
        SaeParts {
            w_enc,
            b_enc: values("b_enc", FEATURES, 0.1),
            w_dec: values("w_dec", WIDTH * FEATURES, 1.0),
            b_dec: values("b_dec", WIDTH, 0.2),
        }
    }
}

fn values(name: &str, n: usize, scale: f32) -> Vec<f32> {
    noise(name, n).map(|v| scale * v).collect()
}

fn rows(step: u64) -> Vec<f32> {
    values(&format!("rows {step}"), BATCH * WIDTH, 1.5)
}

/// A parameter and its second moment.
struct Parameter {
    values: Vec<f64>,
    moment: Vec<f64>,
}

impl Parameter {
    fn new(values: impl IntoIterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.into_iter().collect();
        Self { moment: vec![0.0; values.len()], values }
    }
}

/// The arithmetic of a step, every product spelt out; both weights `[features, width]`.
struct Plain {
    config: TrainConfig,
    w_enc: Parameter,
    b_enc: Parameter,
    w_dec: Parameter,
    b_dec: Parameter,
    log_threshold: Parameter,
    /// Average of the least activation that was kept.
    average: f64,
    since: Vec<u32>,
    counts: Vec<f64>,
    /// Whether the last look found a silent feature.
    any_silent: bool,
}

/// What a step found.
struct Found {
    mse: f64,
    l0: f64,
    activation: f64,
    norm: f64,
    /// Codes of silent features.
    auxiliary: usize,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Plain {
    fn new(config: TrainConfig, parts: &SaeParts) -> Self {
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let turned = (0..WIDTH * FEATURES).map(|i| f64::from(parts.w_enc[i % WIDTH * FEATURES + i / WIDTH]));
        let mut plain = Self {
            config,
            w_enc: Parameter::new(turned),
            b_enc: Parameter::new(wide(&parts.b_enc)),
            w_dec: Parameter::new(wide(&parts.w_dec)),
            b_dec: Parameter::new(wide(&parts.b_dec)),
            log_threshold: Parameter::new(vec![0.01_f64.ln(); FEATURES]),
            average: 0.0,
            since: vec![0; FEATURES],
            counts: vec![0.0; FEATURES],
            any_silent: false,
        };
        plain.unit_rows();
        plain
    }

    fn unit_rows(&mut self) {
        for row in self.w_dec.values.chunks_exact_mut(WIDTH) {
            let length = dot(row, row).sqrt();
            row.iter_mut().for_each(|v| *v /= length);
        }
    }

    /// The codes of a batch, 0 where not active.
    fn codes(&mut self, pre: &[f64], step: u64) -> Vec<f64> {
        let k = self.config.k;
        let mut codes = pre.to_vec();
        match self.config.mode {
            Mode::Saelens532 | Mode::TopK => keep_largest(&mut codes, k),
            Mode::BatchTopK => {
                let mut sorted: Vec<f64> = codes.iter().copied().filter(|&v| v > 0.0).collect();
                sorted.sort_by(|a, b| b.total_cmp(a));
                let least = sorted[(k * BATCH).min(sorted.len()) - 1];
                codes.iter_mut().filter(|v| **v < least).for_each(|v| *v = 0.0);
                let keep = if step == 0 { 0.0 } else { 0.99 };
                self.average = keep * self.average + (1.0 - keep) * least;
            }
            Mode::JumpRelu => {
                for (i, v) in codes.iter_mut().enumerate() {
                    *v = if *v > self.log_threshold.values[i % FEATURES].exp() { *v } else { 0.0 };
                }
            }
            Mode::Relu => {}
        }
        codes.iter_mut().for_each(|v| *v = v.max(0.0));
        codes
    }

    /// The codes of silent features in a batch, 0 where not active; none unless the last look found any.
    fn silent_codes(&mut self, pre: &[f64], step: u64) -> Option<Vec<f64>> {
        let silent: Vec<bool> = self.since.iter().map(|&steps| steps >= DEAD_AFTER).collect();
        if step.is_multiple_of(LOOK) {
            self.any_silent = silent.contains(&true);
        }
        if self.config.aux_k == 0 || !self.any_silent {
            return None;
        }
        let pre = pre.iter().enumerate();
        let mut codes: Vec<f64> =
            pre.map(|(i, &v)| if silent[i % FEATURES] { v.max(0.0) } else { 0.0 }).collect();
        keep_largest(&mut codes, self.config.aux_k);
        Some(codes)
    }

    /// Adds what silent features are moved by, towards what the others leave of the rows; how many codes they are.
    fn explain_rest(
        &self,
        codes: &[f64],
        error: &[f64],
        centred: &[f64],
        grads: &mut [Vec<f64>; 5],
    ) -> usize {
        let of = |table: &[f64], f: usize| -> Vec<f64> { table[f * WIDTH..][..WIDTH].to_vec() };
        let active = || codes.iter().enumerate().filter(|(_, code)| **code > 0.0);
        // their reconstruction - (x - decoded), and `error` is decoded - x
        let mut missed = error.to_vec();
        for (i, &code) in active() {
            let direction = of(&self.w_dec.values, i % FEATURES);
            missed[i / FEATURES * WIDTH..][..WIDTH]
                .iter_mut()
                .zip(direction)
                .for_each(|(e, d)| *e += code * d);
        }
        missed.iter_mut().for_each(|e| *e *= f64::from(self.config.aux_weight));
        for (i, &code) in active() {
            let (r, f) = (i / FEATURES, i % FEATURES);
            let (e, c) = (of(&missed, r), of(centred, r));
            let g = dot(&e, &of(&self.w_dec.values, f));
            grads[1][f] += g;
            for column in 0..WIDTH {
                grads[0][f * WIDTH + column] += g * c[column];
                grads[2][f * WIDTH + column] += code * e[column];
            }
        }
        active().count()
    }

    fn step(&mut self, step: u64, rows: &[f32]) -> Found {
        let penalty = self.config.l1_at(step) / 2.0;
        let (mode, bandwidth) = (self.config.mode, f64::from(self.config.bandwidth));
        let x: Vec<f64> = rows.iter().map(|&v| f64::from(v)).collect();
        let centred: Vec<f64> = x.iter().enumerate().map(|(i, v)| v - self.b_dec.values[i % WIDTH]).collect();
        let of = |table: &[f64], f: usize| -> Vec<f64> { table[f * WIDTH..][..WIDTH].to_vec() };
        let mut pre = vec![0.0; BATCH * FEATURES];
        for (i, v) in pre.iter_mut().enumerate() {
            let (r, f) = (i / FEATURES, i % FEATURES);
            *v = dot(&of(&centred, r), &of(&self.w_enc.values, f)) + self.b_enc.values[f];
        }
        let codes = self.codes(&pre, step);
        let mut error: Vec<f64> = centred.iter().map(|v| -v).collect();
        for (i, &code) in codes.iter().enumerate() {
            let (r, f) = (i / FEATURES, i % FEATURES);
            let direction = of(&self.w_dec.values, f);
            error[r * WIDTH..][..WIDTH].iter_mut().zip(direction).for_each(|(e, d)| *e += code * d);
        }

        let mut grads = [FEATURES * WIDTH, FEATURES, FEATURES * WIDTH, WIDTH, FEATURES].map(|n| vec![0.0; n]);
        for (i, &e) in error.iter().enumerate() {
            grads[3][i % WIDTH] += e;
        }
        let mut active = [0u32; FEATURES];
        for (i, &code) in codes.iter().enumerate() {
            let (r, f) = (i / FEATURES, i % FEATURES);
            let (e, c) = (of(&error, r), of(&centred, r));
            let plain = dot(&e, &of(&self.w_dec.values, f));
            let threshold = self.log_threshold.values[f].exp();
            if mode == Mode::JumpRelu && (pre[i] - threshold).abs() < bandwidth / 2.0 {
                grads[4][f] -= threshold / bandwidth * (threshold * plain + penalty);
            }
            if code == 0.0 {
                continue;
            }
            let g = if matches!(mode, Mode::BatchTopK | Mode::JumpRelu) { plain } else { plain + penalty };
            active[f] += 1;
            grads[1][f] += g;
            for column in 0..WIDTH {
                grads[0][f * WIDTH + column] += g * c[column];
                grads[2][f * WIDTH + column] += code * e[column];
                grads[3][column] -= g * self.w_enc.values[f * WIDTH + column];
            }
        }
        let auxiliary = match self.silent_codes(&pre, step) {
            Some(codes) => self.explain_rest(&codes, &error, &centred, &mut grads),
            None => 0,
        };
        for (f, &n) in active.iter().enumerate() {
            self.since[f] = if n > 0 { 0 } else { self.since[f] + 1 };
            self.counts[f] += f64::from(n);
        }

        let scale = 2.0 / BATCH as f64;
        let norm = scale * grads.iter().map(|grad| dot(grad, grad)).sum::<f64>().sqrt();
        let factor = scale * (f64::from(self.config.max_norm) / (norm + 1e-6)).min(1.0);
        let (lr, beta2) = (self.config.lr_at(step), self.config.beta2);
        let root = 1.0 / (1.0 - beta2.powf(step as f64 + 1.0)).sqrt();
        let parameters =
            [&mut self.w_enc, &mut self.b_enc, &mut self.w_dec, &mut self.b_dec, &mut self.log_threshold];
        for (parameter, grad) in parameters.into_iter().zip(&grads) {
            for ((w, v), g) in parameter.values.iter_mut().zip(&mut parameter.moment).zip(grad) {
                let g = factor * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                *w -= lr * g / (root * v.sqrt() + f64::from(self.config.eps));
            }
        }
        self.unit_rows();
        let mean = |sum: f64| sum / BATCH as f64;
        Found {
            mse: mean(dot(&error, &error)),
            l0: mean(codes.iter().filter(|v| **v > 0.0).count() as f64),
            activation: mean(codes.iter().sum()),
            norm,
            auxiliary,
        }
    }
}

/// Sets all but the `k` largest of every row to 0.
fn keep_largest(codes: &mut [f64], k: usize) {
    for row in codes.chunks_exact_mut(FEATURES) {
        let mut order: Vec<usize> = (0..FEATURES).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        order[k..].iter().for_each(|&f| row[f] = 0.0);
    }
}

fn near(got: f64, want: f64, what: &str) {
    assert!((got - want).abs() <= NUMBERS * want.abs().max(1e-3), "{what}: {got}, want {want}");
}

fn apart(got: &[f32], want: &[f64], what: &str) {
    let far: f64 = got.iter().zip(want).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum();
    let share = (far / dot(want, want)).sqrt();
    assert!(share <= WEIGHTS, "{what} differs by {share} of its length, at most {WEIGHTS} is expected");
}

fn every_step(case: Case, backend: &Arc<dyn Backend>) -> Result<(), Failed> {
    let (mode, steps) = (case.mode, case.steps);
    let mut trainer = Trainer::with_weights(backend.clone(), case.config(), case.start())?;
    let mut plain = Plain::new(case.config(), &case.start());
    for step in 0..steps {
        if (step + 1).is_multiple_of(WINDOW) {
            plain.counts.fill(0.0);
        }
        let record = trainer.step_recorded(&rows(step))?;
        let want = plain.step(step, &rows(step));
        let of = |what: &str| format!("{what} of step {step}");
        near(record.mse, want.mse, &of("square of the error"));
        near(record.l0, want.l0, &of("number of active features"));
        near(record.grad_norm, want.norm, &of("length of the gradient"));
        let penalised = match mode {
            Mode::BatchTopK => 0.0,
            Mode::JumpRelu => want.l0,
            _ => want.activation,
        };
        near(record.l1, plain.config.l1_at(step) * penalised, &of("penalty"));
        assert_eq!(
            record.dead,
            plain.since.iter().filter(|&&n| n >= DEAD_AFTER).count(),
            "dead in step {step}"
        );
        assert_eq!(
            want.auxiliary > 0,
            case.aux_k > 0 && step >= LOOK,
            "codes of silent features in step {step}"
        );
    }
    let sae = trainer.sae(Metadata::default())?;
    let parts = sae.parts();
    let turned: Vec<f32> =
        (0..WIDTH * FEATURES).map(|i| parts.w_enc[i % WIDTH * FEATURES + i / WIDTH]).collect();
    apart(&turned, &plain.w_enc.values, "W_enc");
    apart(&parts.b_enc, &plain.b_enc.values, "b_enc");
    apart(&parts.w_dec, &plain.w_dec.values, "W_dec");
    apart(&parts.b_dec, &plain.b_dec.values, "b_dec");
    match (mode, &sae.settings().activation) {
        (Mode::BatchTopK, Activation::JumpRelu { threshold }) => {
            apart(threshold, &[plain.average; FEATURES], "the threshold");
        }
        (Mode::JumpRelu, Activation::JumpRelu { threshold }) => {
            let want: Vec<f64> = plain.log_threshold.values.iter().map(|log| log.exp()).collect();
            apart(threshold, &want, "thresholds");
            assert!(
                want.iter().any(|t| (t / 0.01 - 1.0).abs() > 0.02),
                "thresholds have not moved: {want:?}"
            );
        }
        (Mode::Saelens532 | Mode::TopK, Activation::TopK(4)) | (Mode::Relu, Activation::Relu) => {}
        (mode, other) => panic!("{mode} has become {other:?}"),
    }
    // a window begins with the last step of the one before
    let rows = ((steps % WINDOW + 1) * BATCH as u64) as f64;
    let counted: Vec<f32> = plain.counts.iter().map(|n| (n / rows + 1e-10).log10() as f32).collect();
    assert_eq!(trainer.sparsity()?, counted);
    Ok(())
}

/// A run that is taken up from its checkpoint ends with the same bits.
fn taken_up(case: Case, backend: &Arc<dyn Backend>) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("checkpoint.safetensors");
    let mut whole = Trainer::with_weights(backend.clone(), case.config(), case.start())?;
    for step in 0..case.steps {
        if step == case.saved_at {
            whole.save(&file, &Mixing::new(WIDTH, 1, 0), &serde_json::Map::new())?;
        }
        whole.step(&rows(step))?;
    }
    let (mut again, _) = Trainer::resume(backend.clone(), &file)?;
    for step in case.saved_at..case.steps {
        again.step(&rows(step))?;
    }
    let [whole, again] = [&whole, &again].map(|trainer| trainer.sae(Metadata::default()));
    let (whole, again) = (whole?, again?);
    assert!(whole.parts() == again.parts(), "the weights differ");
    assert_eq!(whole.settings(), again.settings());
    Ok(())
}
