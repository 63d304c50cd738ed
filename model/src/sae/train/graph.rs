//! A step of training as a graph: rows of the weights that no feature of a batch reads are not touched.
//!
//! With e = decoded - x, B rows and penalty l, the loss is the mean of |e|^2 + l sum of activations. All gradients share the factor
//! 2 / B, which is put on when they are applied:
//!
//! ```text
//! c           = x - b_dec
//! codes       = the active features of c W_enc + b_enc
//! e           = codes W_dec + b_dec - x
//! g           = e . W_dec[feature] + l / 2          for every code
//! W_dec'      = sum of code e      W_enc' = sum of g c      b_enc' = sum of g      b_dec' = sum of (e - g W_enc)
//! ```
//!
//! Codes are a table with places for every row: the k largest; in `batchtopk` the largest of the rows, of which the largest of the
//! batch stay; in `relu` and `jumprelu` places for all features, filled from the products, which are then all in memory. In
//! `jumprelu` the penalty is of the number of active features and moves the thresholds alone ([`SaeThresholdGrad`]).
//!
//! Where features have been silent for long, the largest among them explain what is left: they are a second table of codes, whose
//! error is aux_weight (their reconstruction - (x - decoded)). It moves W_dec, W_enc and b_enc, and not b_dec.

use super::config::{Mode, TrainConfig};
use super::sparse::State;
use crate::error::{ModelError, Result};
use crate::sae::encoder::BLOCKS;
use auscult_kernels::ops::adam::AdamStep;
use auscult_kernels::ops::add::Add;
use auscult_kernels::ops::linear::{Activation, Linear};
use auscult_kernels::ops::sae_active::SaeActive;
use auscult_kernels::ops::sae_adam_rows::{Length, SaeAdamRows};
use auscult_kernels::ops::sae_batch_top_k::SaeBatchTopK;
use auscult_kernels::ops::sae_clip::SaeClip;
use auscult_kernels::ops::sae_dead_bias::SaeDeadBias;
use auscult_kernels::ops::sae_decode::SaeDecode;
use auscult_kernels::ops::sae_encode::{MOST_PARTS, PTX_ROWS, SaeEncode, SaeEncodeParts};
use auscult_kernels::ops::sae_feature_grad::SaeFeatureGrad;
use auscult_kernels::ops::sae_feature_sums::SaeFeatureSums;
use auscult_kernels::ops::sae_group::SaeGroup;
use auscult_kernels::ops::sae_merge::SaeMerge;
use auscult_kernels::ops::sae_threshold_grad::SaeThresholdGrad;
use auscult_kernels::ops::scale::Scale;
use auscult_kernels::ops::sum_rows::SumRows;
use auscult_kernels::{DType, TensorDesc};
use auscult_runtime::{Backend, Contents, DeviceInfo, Edits, Graph, GraphBuilder, GraphError, Tensor, Value};

/// A tensor in memory that steps may write.
pub(super) fn placed(backend: &dyn Backend, desc: TensorDesc, bytes: &[u8]) -> Result<Tensor> {
    let span = backend.alloc(Contents::Undefined(bytes.len()))?.span();
    backend.upload(&span, bytes)?;
    Ok(Tensor { desc, span })
}

/// Workgroups that are enough for a device of which no more is known.
const WORKGROUPS: usize = 128;

/// Whether silent features are made to explain what is left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Aux {
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
        let part = |first: usize| -> Result<Tensor> {
            Ok(Tensor { desc: TensorDesc::f32([batch, width]), span: whole.span.slice(first, half)? })
        };
        let error = [part(0)?, part(half)?, whole.clone()];
        Ok(Self { indices: split(DType::U32)?, values: split(DType::F32)?, grads: split(DType::F32)?, error })
    }
}

/// Refuses batches whose second table of errors would begin where the device cannot start to read.
pub(super) fn check_aux(info: &DeviceInfo, config: &TrainConfig) -> Result<()> {
    let (values, start) = (config.batch * config.width, info.binding_align.div_ceil(4));
    if config.aux_k == 0 || values.is_multiple_of(start) {
        return Ok(());
    }
    Err(ModelError::Argument {
        argument: "batch",
        found: format!("{} rows of {}", config.batch, config.width),
        expected: format!(
            "with `aux_k` above 0 a multiple of {start} values, where {} starts to read: {} rows, say",
            info.id,
            config.batch.next_multiple_of(start)
        ),
    })
}

/// Gradients that are of no feature's rows, one behind the other: of b_dec, and in `jumprelu` of the thresholds, so that both count in
/// the length of the whole.
struct Rest {
    whole: Tensor,
    /// f32 `[width, 1]`.
    b_dec: Tensor,
    /// f32 `[features, 1]`.
    log_threshold: Tensor,
}

impl Rest {
    fn new(backend: &dyn Backend, config: &TrainConfig) -> Result<Self> {
        let (width, features) = (config.width, config.features);
        // where every device can start to read; what lies between stays 0
        let second = width.next_multiple_of(backend.info().binding_align.div_ceil(4));
        let values = second + features;
        let whole = placed(backend, TensorDesc::f32([values, 1]), &vec![0; 4 * values])?;
        let part = |first: usize, values: usize| -> Result<Tensor> {
            Ok(Tensor { desc: TensorDesc::f32([values, 1]), span: whole.span.slice(4 * first, 4 * values)? })
        };
        Ok(Self { b_dec: part(0, width)?, log_threshold: part(second, features)?, whole })
    }
}

/// Parts that features are encoded in, where it takes more than one to have every multiprocessor of a device encode; none where
/// one is enough, as on the processor, or where the table is too long for one launch.
fn parts(info: &DeviceInfo, config: &TrainConfig) -> Option<usize> {
    let blocks = match (&info.ptx, &info.wgsl) {
        (Some(device), _) => BLOCKS * device.multiprocessors as usize,
        (None, Some(_)) => WORKGROUPS,
        (None, None) => return None,
    };
    let fits = 4 * config.features * config.width <= info.max_binding;
    // a part has as many blocks as the batch fills; of workgroups, which have fewer rows, some more
    let parts = (blocks / config.batch.div_ceil(PTX_ROWS as usize)).min(MOST_PARTS);
    (fits && parts > 1).then_some(parts)
}

/// A step; see the module.
pub(super) fn graph(backend: &dyn Backend, config: &TrainConfig, state: &State, aux: Aux) -> Result<Graph> {
    let aux_k = if aux == Aux::With { config.aux_k } else { 0 };
    let places = config.places();
    let group = SaeGroup { features: config.features, rows: config.batch, k: places, aux_k };
    let tables = if aux_k > 0 { Some(Tables::new(backend, config, group)?) } else { None };
    let zero = placed(backend, TensorDesc::f32([1]), &[0; 4])?;
    let zeros = placed(backend, TensorDesc::f32([config.width]), &vec![0; 4 * config.width])?;

    let mut g = GraphBuilder::new(Edits::new());
    let x = g.input("x", TensorDesc::f32([config.batch, config.width]))?;
    let schedule = g.input("schedule", TensorDesc::f32([2]))?;
    let penalty = g.input("penalty", TensorDesc::f32([1]))?;
    let [w_enc, b_enc, w_dec, b_dec] =
        [&state.w_enc, &state.b_enc, &state.w_dec, &state.b_dec].map(|tensor| g.constant(tensor));
    let [m_w_enc, m_b_enc, m_w_dec, m_b_dec] =
        [&state.moments_w_enc, &state.moments_b_enc, &state.moments_w_dec, &state.moments_b_dec]
            .map(|tensor| g.constant(tensor));
    let history = g.constant(&state.history);
    let thresholds =
        state.log_threshold.as_ref().map(|both| both.each_ref().map(|tensor| g.constant(tensor)));
    let (zero, zeros) = (g.constant(&zero), g.constant(&zeros));

    let centred = g.op(&Add { alpha: -1.0 }, &[Some(x), Some(b_dec)])?;
    let into = |of: fn(&Tables) -> &[Tensor; 3], at: usize| tables.as_ref().map(|tables| &of(tables)[at]);
    let parts = parts(backend.info(), config);
    let code = |g: &mut GraphBuilder, at: usize, k: usize, bias: Value| -> Result<[Value; 2], GraphError> {
        let into = [into(|t| &t.indices, at), into(|t| &t.values, at)];
        let inputs = [centred, w_enc, bias].map(Some);
        let codes = match parts {
            None => g.op_all(&SaeEncode { k }, &inputs, &into)?,
            Some(parts) => {
                let found = g.op_all(&SaeEncodeParts { k, parts }, &inputs, &[])?;
                g.op_all(&SaeMerge, &[Some(found[0]), Some(found[1])], &into)?
            }
        };
        Ok([codes[0], codes[1]])
    };
    let grad =
        |g: &mut GraphBuilder, at: usize, [indices, values]: [Value; 2], error: Value, penalty: Value| {
            let inputs = [indices, values, w_dec, error, penalty].map(Some);
            g.op_all(&SaeFeatureGrad, &inputs, &[into(|t| &t.grads, at)])
        };

    let mut pre = None;
    let codes = match config.mode {
        Mode::Saelens532 | Mode::TopK | Mode::BatchTopK => code(&mut g, 0, places, b_enc)?,
        Mode::JumpRelu | Mode::Relu => {
            let op = Linear { activation: Activation::None };
            let products = g.op(&op, &[Some(centred), Some(w_enc), Some(b_enc), None])?;
            pre = Some(products);
            let codes = g.op_all(&SaeActive, &[Some(products), thresholds.map(|[logs, _]| logs)], &[])?;
            [codes[0], codes[1]]
        }
    };
    let [indices, values] = codes;
    if let Some(threshold) = &state.threshold {
        let keep = g.input("keep", TensorDesc::f32([1]))?;
        let threshold = g.constant(threshold);
        g.op(&SaeBatchTopK { most: config.k * config.batch }, &[values, threshold, keep].map(Some))?;
    }
    let inputs = [indices, values, w_dec, b_dec, x].map(Some);
    let error = g.op_all(&SaeDecode, &inputs, &[into(|t| &t.error, 0)])?[0];
    let of_codes = match config.mode {
        Mode::Saelens532 | Mode::TopK | Mode::Relu => penalty,
        Mode::BatchTopK | Mode::JumpRelu => zero,
    };
    let gradients = grad(&mut g, 0, codes, error, of_codes)?;
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
    let of_b_dec = SumRows { factor: -1.0 };
    let (bias_grad, rest, threshold_grad) = match (thresholds, pre) {
        (Some([logs, _]), Some(pre)) => {
            let rest = Rest::new(backend, config)?;
            let bias_grad = g.op_into(&of_b_dec, &[Some(away)], &rest.b_dec)?;
            let op = SaeThresholdGrad { bandwidth: config.bandwidth };
            let inputs = [pre, logs, w_dec, error, penalty].map(Some);
            let threshold_grad = g.op_into(&op, &inputs, &rest.log_threshold)?;
            (bias_grad, g.constant(&rest.whole), Some(threshold_grad))
        }
        _ => {
            let bias_grad = g.op(&of_b_dec, &[Some(away)])?;
            (bias_grad, bias_grad, None)
        }
    };
    let grouped = g.op_all(&group, &[Some(coded.indices), Some(coded.values)], &[])?;
    let (starts, order) = (grouped[0], grouped[1]);
    let inputs = [starts, order, coded.values, coded.grads, centred, coded.error, history].map(Some);
    let sums = g.op_all(&SaeFeatureSums, &inputs, &[])?[0];
    let clip = SaeClip { scale: 2.0 / config.batch as f32, max_norm: config.max_norm };
    let rates = g.op(&clip, &[sums, rest, schedule].map(Some))?;

    let adam = config.adam();
    let encoder = [w_enc, m_w_enc, starts, order, coded.grads, centred, sums, rates].map(Some);
    g.op(&SaeAdamRows { adam, length: Length::Any }, &encoder)?;
    let decoder = [w_dec, m_w_dec, starts, order, coded.values, coded.error, sums, rates].map(Some);
    g.op(&SaeAdamRows { adam, length: Length::Unit }, &decoder)?;
    g.op(&AdamStep { adam, column: 1 }, &[b_enc, m_b_enc, sums, rates].map(Some))?;
    g.op(&AdamStep { adam, column: 0 }, &[b_dec, m_b_dec, bias_grad, rates].map(Some))?;
    if let (Some([logs, moments]), Some(grad)) = (thresholds, threshold_grad) {
        g.op(&AdamStep { adam, column: 0 }, &[logs, moments, grad, rates].map(Some))?;
    }
    g.output("stats", stats)?;
    g.output("rates", rates)?;
    Ok(g.finish()?)
}
