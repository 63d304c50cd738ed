//! A step of training as a graph: for autoencoders of which a row has k active features at most, a step reads and moves the rows
//! of its active features alone.
//!
//! With e = decoded - x, B rows and penalty l, the loss is the mean of |e|^2 + l sum of activations. All gradients share the factor
//! 2 / B, which is put on when they are applied:
//!
//! ```text
//! c           = x - b_dec
//! codes       = top k of (c W_enc + b_enc), positive ones
//! e           = codes W_dec + b_dec - x
//! g           = e . W_dec[feature] + l / 2          for every code
//! W_dec'      = sum of code e      W_enc' = sum of g c      b_enc' = sum of g      b_dec' = sum of (e - g W_enc)
//! ```
//!
//! Where features have been silent for long, the largest among them explain what is left: they are a second table of codes, whose
//! error is aux_weight (their reconstruction - (x - decoded)). It moves W_dec, W_enc and b_enc, and not b_dec.

use super::config::TrainConfig;
use super::{Measured, Outcome};
use crate::error::{ModelError, Result};
use crate::sae::{SaeParts, transposed};
use auscult_kernels::ops::adam::AdamStep;
use auscult_kernels::ops::add::Add;
use auscult_kernels::ops::sae_adam_rows::{Length, SaeAdamRows};
use auscult_kernels::ops::sae_clip::SaeClip;
use auscult_kernels::ops::sae_dead_bias::SaeDeadBias;
use auscult_kernels::ops::sae_decode::SaeDecode;
use auscult_kernels::ops::sae_encode::SaeEncode;
use auscult_kernels::ops::sae_feature_grad::{STATS, SaeFeatureGrad};
use auscult_kernels::ops::sae_feature_sums::{HISTORY, SaeFeatureSums};
use auscult_kernels::ops::sae_group::SaeGroup;
use auscult_kernels::ops::scale::Scale;
use auscult_kernels::ops::sum_rows::SumRows;
use auscult_kernels::{DType, TensorDesc};
use auscult_runtime::{Backend, Contents, Edits, Graph, GraphBuilder, GraphError, Program, Tensor, Value};
use std::sync::Arc;

/// Steps between two looks at which features are silent.
const LOOK: u64 = 20;

/// What is kept from step to step, by name; the order is that of [`Sparse::state`].
const STATE: [&str; 9] = [
    "W_enc",
    "b_enc",
    "W_dec",
    "b_dec",
    "moments_W_enc",
    "moments_b_enc",
    "moments_W_dec",
    "moments_b_dec",
    "history",
];

/// The weights and the optimiser on a device, and the graphs that move them.
pub(super) struct Sparse {
    backend: Arc<dyn Backend>,
    config: TrainConfig,
    /// As [`STATE`] names them; the encoder's weight lies transposed, `[features, width]`.
    state: Vec<Tensor>,
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
        let (width, features) = (config.width, config.features);
        let encoder = transposed(&parts.w_enc, features);
        let moments = config.adam().moments();
        let zeros = |n: usize| vec![0_u8; 4 * n];
        let cast = |values: &[f32]| bytemuck::cast_slice(values).to_vec();
        let tables: [(TensorDesc, Vec<u8>); 9] = [
            (TensorDesc::f32([features, width]), cast(&encoder)),
            (TensorDesc::f32([features]), cast(&parts.b_enc)),
            (TensorDesc::f32([features, width]), cast(&parts.w_dec)),
            (TensorDesc::f32([width]), cast(&parts.b_dec)),
            (TensorDesc::f32([features, moments, width]), zeros(features * moments * width)),
            (TensorDesc::f32([moments, features]), zeros(moments * features)),
            (TensorDesc::f32([features, moments, width]), zeros(features * moments * width)),
            (TensorDesc::f32([moments, width]), zeros(moments * width)),
            (TensorDesc::u32([features, HISTORY]), zeros(features * HISTORY)),
        ];
        let state = tables
            .into_iter()
            .map(|(desc, bytes)| placed(&*backend, desc, &bytes))
            .collect::<Result<Vec<Tensor>>>()?;
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
        let inputs: [(&str, &[u8]); 3] = [
            ("x", bytemuck::cast_slice(rows)),
            ("schedule", bytemuck::cast_slice(&schedule)),
            ("penalty", bytemuck::cast_slice(&penalty)),
        ];
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
        let history: Vec<u32> = bytemuck::pod_collect_to_vec(&self.backend.download(&self.state[8].span)?);
        let column = |at: usize| history.chunks_exact(HISTORY).map(|row| row[at]).collect();
        Ok(Outcome { since: column(1), counts: column(2) })
    }

    /// Begins the counts of activity anew.
    pub fn reset_counts(&mut self) -> Result<()> {
        let bytes = self.backend.download(&self.state[8].span)?;
        let mut history: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
        history.chunks_exact_mut(HISTORY).for_each(|row| row[2] = 0);
        Ok(self.backend.upload(&self.state[8].span, bytemuck::cast_slice(&history))?)
    }

    fn silent_now(&self) -> Result<usize> {
        let since = self.history()?.since;
        Ok(since.into_iter().filter(|&steps| steps >= self.config.dead_after).count())
    }

    /// Everything that the next step depends on, by name.
    pub fn state(&self) -> Result<Vec<(&'static str, TensorDesc, Vec<u8>)>> {
        let each = STATE.into_iter().zip(&self.state);
        each.map(|(name, tensor)| Ok((name, tensor.desc.clone(), self.backend.download(&tensor.span)?)))
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
        for (name, tensor) in STATE.into_iter().zip(&self.state) {
            self.backend.upload(&tensor.span, &of(name, &tensor.desc)?)?;
        }
        Ok(())
    }

    /// The weights as they are now.
    pub fn parts(&self) -> Result<SaeParts> {
        let values = |at: usize| -> Result<Vec<f32>> {
            Ok(bytemuck::pod_collect_to_vec(&self.backend.download(&self.state[at].span)?))
        };
        Ok(SaeParts {
            w_enc: transposed(&values(0)?, self.config.width),
            b_enc: values(1)?,
            w_dec: values(2)?,
            b_dec: values(3)?,
        })
    }
}

/// A tensor in memory that steps may write.
fn placed(backend: &dyn Backend, desc: TensorDesc, bytes: &[u8]) -> Result<Tensor> {
    let span = backend.alloc(Contents::Undefined(bytes.len()))?.span();
    backend.upload(&span, bytes)?;
    Ok(Tensor { desc, span })
}

/// Whether silent features are made to explain what is left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aux {
    Without,
    With,
}

/// Codes of a batch, their gradients, and the errors that these go by.
struct Coded {
    indices: Value,
    values: Value,
    grads: Value,
    error: Value,
}

/// Both tables of a batch, one behind the other, each of them also by itself.
struct Tables {
    indices: [Tensor; 3],
    values: [Tensor; 3],
    grads: [Tensor; 3],
    error: [Tensor; 3],
}

impl Tables {
    fn new(backend: &dyn Backend, config: &TrainConfig, group: SaeGroup) -> Result<Self> {
        let (batch, width) = (config.batch, config.width);
        let entries = group.entries();
        let split = |dtype: DType| -> Result<[Tensor; 3]> {
            let whole = placed(backend, TensorDesc::new(dtype, [entries]), &vec![0; 4 * entries])?;
            let part = |first: usize, k: usize| -> Result<Tensor> {
                let span = whole.span.slice(4 * first, 4 * batch * k)?;
                Ok(Tensor { desc: TensorDesc::new(dtype, [batch, k]), span })
            };
            let (main, aux) = (part(0, config.k)?, part(group.second(), config.aux_k)?);
            Ok([main, aux, whole])
        };
        let errors = TensorDesc::f32([2 * batch, width]);
        let whole = placed(backend, errors.clone(), &vec![0; errors.bytes()])?;
        let half = errors.bytes() / 2;
        if !half.is_multiple_of(backend.info().binding_align) {
            return Err(ModelError::Argument {
                argument: "batch",
                found: format!("{batch} rows of {width}"),
                expected: format!(
                    "a multiple of {} values, where {} starts to read",
                    backend.info().binding_align / 4,
                    backend.info().id
                ),
            });
        }
        let part = |first: usize| -> Result<Tensor> {
            Ok(Tensor { desc: TensorDesc::f32([batch, width]), span: whole.span.slice(first, half)? })
        };
        let error = [part(0)?, part(half)?, whole.clone()];
        Ok(Self { indices: split(DType::U32)?, values: split(DType::F32)?, grads: split(DType::F32)?, error })
    }
}

/// A step; see the module.
fn graph(backend: &dyn Backend, config: &TrainConfig, state: &[Tensor], aux: Aux) -> Result<Graph> {
    let aux_k = if aux == Aux::With { config.aux_k } else { 0 };
    let group = SaeGroup { features: config.features, rows: config.batch, k: config.k, aux_k };
    let tables = if aux_k > 0 { Some(Tables::new(backend, config, group)?) } else { None };
    let zero = placed(backend, TensorDesc::f32([1]), &[0; 4])?;
    let zeros = placed(backend, TensorDesc::f32([config.width]), &vec![0; 4 * config.width])?;

    let mut g = GraphBuilder::new(Edits::new());
    let x = g.input("x", TensorDesc::f32([config.batch, config.width]))?;
    let schedule = g.input("schedule", TensorDesc::f32([2]))?;
    let penalty = g.input("penalty", TensorDesc::f32([1]))?;
    let held: Vec<Value> = state.iter().map(|tensor| g.constant(tensor)).collect();
    let [w_enc, b_enc, w_dec, b_dec, m_w_enc, m_b_enc, m_w_dec, m_b_dec, history] = held[..] else {
        unreachable!("nine tensors are kept")
    };
    let (zero, zeros) = (g.constant(&zero), g.constant(&zeros));

    let centred = g.op(&Add { alpha: -1.0 }, &[Some(x), Some(b_dec)])?;
    let into = |of: fn(&Tables) -> &[Tensor; 3], at: usize| tables.as_ref().map(|tables| &of(tables)[at]);
    let code = |g: &mut GraphBuilder, at: usize, k: usize, bias: Value| -> Result<[Value; 2], GraphError> {
        let into = [into(|t| &t.indices, at), into(|t| &t.values, at)];
        let codes = g.op_all(&SaeEncode { k }, &[Some(centred), Some(w_enc), Some(bias)], &into)?;
        Ok([codes[0], codes[1]])
    };
    let grad =
        |g: &mut GraphBuilder, at: usize, [indices, values]: [Value; 2], error: Value, penalty: Value| {
            let inputs = [indices, values, w_dec, error, penalty].map(Some);
            g.op_all(&SaeFeatureGrad, &inputs, &[into(|t| &t.grads, at)])
        };

    let codes = code(&mut g, 0, config.k, b_enc)?;
    let [indices, values] = codes;
    let inputs = [indices, values, w_dec, b_dec, x].map(Some);
    let error = g.op_all(&SaeDecode, &inputs, &[into(|t| &t.error, 0)])?[0];
    let gradients = grad(&mut g, 0, codes, error, penalty)?;
    let (grads, stats) = (gradients[0], gradients[1]);
    let mut coded = Coded { indices, values, grads, error };

    if let Some(tables) = &tables {
        let silent = g.op(&SaeDeadBias { after: config.dead_after }, &[Some(b_enc), Some(history)])?;
        let codes = code(&mut g, 1, aux_k, silent)?;
        let left = g.op(&Scale { factor: -1.0 }, &[Some(error)])?;
        let [indices, values] = codes;
        let inputs = [indices, values, w_dec, zeros, left].map(Some);
        let missed = g.op(&SaeDecode, &inputs)?;
        let weighted = g.op_into(&Scale { factor: config.aux_weight }, &[Some(missed)], &tables.error[1])?;
        grad(&mut g, 1, codes, weighted, zero)?;
        coded = Coded {
            indices: g.constant(&tables.indices[2]),
            values: g.constant(&tables.values[2]),
            grads: g.constant(&tables.grads[2]),
            error: g.constant(&tables.error[2]),
        };
    }

    let away = g.op(&SaeDecode, &[indices, grads, w_enc, zeros, error].map(Some))?;
    let bias_grad = g.op(&SumRows { factor: -1.0 }, &[Some(away)])?;
    let grouped = g.op_all(&group, &[Some(coded.indices), Some(coded.values)], &[])?;
    let (starts, order) = (grouped[0], grouped[1]);
    let inputs = [starts, order, coded.values, coded.grads, centred, coded.error, history].map(Some);
    let sums = g.op_all(&SaeFeatureSums, &inputs, &[])?[0];
    let clip = SaeClip { scale: 2.0 / config.batch as f32, max_norm: config.max_norm };
    let rates = g.op(&clip, &[sums, bias_grad, schedule].map(Some))?;

    let adam = config.adam();
    let encoder = [w_enc, m_w_enc, starts, order, coded.grads, centred, sums, rates].map(Some);
    g.op(&SaeAdamRows { adam, length: Length::Any }, &encoder)?;
    let decoder = [w_dec, m_w_dec, starts, order, coded.values, coded.error, sums, rates].map(Some);
    g.op(&SaeAdamRows { adam, length: Length::Unit }, &decoder)?;
    g.op(&AdamStep { adam, column: 1 }, &[b_enc, m_b_enc, sums, rates].map(Some))?;
    g.op(&AdamStep { adam, column: 0 }, &[b_dec, m_b_dec, bias_grad, rates].map(Some))?;
    g.output("stats", stats)?;
    g.output("rates", rates)?;
    Ok(g.finish()?)
}
