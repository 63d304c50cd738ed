//! An autoencoder on a device: its encoder and decoder as ops of a graph.
//!
//! The encoder finds the k largest. One that sets a threshold instead of a limit is brought into that form: a feature is active
//! where `pre - threshold` is above 0, which is a bias that is smaller by the threshold, and the threshold is added to what is
//! found. A gated one is a threshold too: of `mag = x (W_enc exp(r_mag)) + b_mag` that is active which is above both 0 and what
//! `mag` is where the gate opens, `b_mag - exp(r_mag) b_gate`. Such rows are given places, and more where one fills them.

use super::precision::{Narrow, narrow_ops};
use super::{Activation, Normalize, Sae, SaePrecision, SparseRows, floats};
use crate::device::HostTensor;
use crate::error::{ModelError, Result};
use auscult_kernels::ops::{
    add::Add,
    capture::Capture,
    sae_add_threshold::SaeAddThreshold,
    sae_decode::SaeDecode,
    sae_encode::{MOST_K, SaeEncode},
    sae_rescore::SaeRescore,
    sae_screen::SaeScreen,
};
use auscult_kernels::{DType, Plan, ShapeError, TensorDesc};
use auscult_runtime::{Backend, DeviceInfo, GraphBuilder, GraphError, Tensor, Value};
use rayon::prelude::*;

/// Places that rows are given at first where there is no limit: several times what most published autoencoders have active.
const FIRST_PLACES: usize = 256;
/// Subtracts a row from rows.
pub(super) const CENTRE: Add = Add { alpha: -1.0 };

/// The tensors of an autoencoder on a device.
#[derive(Clone, Debug)]
pub struct DeviceSae {
    /// Places of a row.
    k: usize,
    /// Whether the autoencoder itself has no more than that active.
    is_limit: bool,
    /// f32 `[features, width]`.
    pub(super) encoder: Tensor,
    /// What is multiplied first, where that is in bf16.
    pub(super) narrow: Option<NarrowWeight>,
    /// f32 `[width]`: what is subtracted from a row before it is rounded to that.
    pub(super) centre: Option<Tensor>,
    /// f32 `[features]`: less the threshold, and with what is subtracted from a row folded in where no `centre` is.
    pub(super) bias: Tensor,
    /// f32 `[features]`: what is added to the values of active features.
    threshold: Option<Tensor>,
    /// f32 `[features, width]`.
    decoder: Tensor,
    /// f32 `[width]`.
    b_dec: Tensor,
}

/// What multiplies rows that are rounded to bf16.
#[derive(Clone, Debug)]
pub(super) struct NarrowWeight {
    /// bf16 `[features, width]`.
    pub weight: Tensor,
    /// f32 `[width]`: how far products with it are off, of a column of a row.
    pub errors: Tensor,
}

/// An encoder in the form that devices have: features are active where `x weight^T + bias` is above a threshold of their own.
pub(crate) struct Form {
    /// f32 `[features, width]`.
    pub weight: HostTensor,
    /// `[features]`: with what is subtracted from a row folded in.
    bias: Vec<f64>,
    /// `[features]`, none of them below 0; all are 0 without.
    pub threshold: Option<Vec<f32>>,
}

impl Form {
    /// The bias, f32 `[features]`.
    pub fn bias(&self) -> HostTensor {
        self.bias_less(|_| 0.0)
    }

    /// The bias less a feature's threshold: what is above 0 is active.
    fn bias_less_threshold(&self) -> HostTensor {
        self.bias_less(|f| self.threshold.as_ref().map_or(0.0, |threshold| f64::from(threshold[f])))
    }

    fn bias_less(&self, what: impl Fn(usize) -> f64) -> HostTensor {
        let values: Vec<f32> =
            self.bias.iter().enumerate().map(|(f, bias)| (bias - what(f)) as f32).collect();
        HostTensor::from_f32s([values.len()], values)
    }
}

impl Sae {
    /// Whether [`on_device`](Self::on_device) can have it encode on a device: without normalisation, and without a limit of
    /// active features beyond what the encoder keeps; in bf16 only with such a limit, and where a binding holds the weight in f32,
    /// of which near ties may be anywhere. [`Sae::encode`] can always.
    pub fn encodes_on(&self, device: &DeviceInfo, precision: SaePrecision) -> bool {
        let plans = match (self.places(), precision) {
            (Ok((k, _)), SaePrecision::F32) => self.plans_f32(k),
            (Ok((k, true)), SaePrecision::Bf16) if fits(&self.encoder, device) => self.plans_bf16(k),
            _ => return false,
        };
        let runs = |plan: &Plan| {
            device.ptx.as_ref().is_none_or(|ptx| plan.kernel.ptx_for(&plan.params, ptx).is_some())
        };
        plans.is_ok_and(|plans| plans.iter().all(runs))
    }

    /// Whether graphs of a device can decode with it: where a binding holds the decoder, of which any rows may be active.
    pub fn decodes_on(&self, device: &DeviceInfo) -> bool {
        fits(&self.decoder, device)
    }

    /// What encodes a row.
    fn plans_f32(&self, k: usize) -> Result<Vec<Plan>, ShapeError> {
        let row = TensorDesc::f32([1, self.width]);
        Ok(vec![SaeEncode { k }.plan(&row, &self.encoder.desc, &self.bias.desc)?])
    }

    fn plans_bf16(&self, k: usize) -> Result<Vec<Plan>, ShapeError> {
        let row = TensorDesc::f32([1, self.width]);
        let [narrow_row, narrow] =
            [&row, &self.encoder.desc].map(|t| TensorDesc::new(DType::BF16, t.shape.clone()));
        let (round, screen, rescore) = narrow_ops(k, self.features);
        let (candidates, scores) = (TensorDesc::u32([1, screen.k]), TensorDesc::f32([1, screen.k]));
        let [b_dec, errors] = [self.width, self.width + self.features].map(|n| TensorDesc::f32([n]));
        Ok(vec![
            CENTRE.plan(&row, &b_dec)?,
            round.plan(&row, None)?,
            screen.plan(&narrow_row, &narrow, &self.bias.desc)?,
            rescore.plan(&row, &self.encoder.desc, &self.bias.desc, &errors, &candidates, &scores)?,
        ])
    }

    /// The autoencoder on a device, for graphs that encode and decode.
    ///
    /// # Errors
    /// One that normalises rows, whose limit of active features is above 1024, or whose magnitudes are not normal numbers; for bf16
    /// one without a limit of active features, or with a weight beyond its range; memory.
    pub fn on_device(&self, backend: &dyn Backend, precision: SaePrecision) -> Result<DeviceSae> {
        let (k, is_limit) = self.places()?;
        let b_dec = HostTensor::from_f32s([self.width], self.b_dec.clone()).upload(backend)?;
        let form = self.form()?;
        let (narrow, centre, bias) = match precision {
            SaePrecision::F32 => (None, None, form.bias_less_threshold()),
            SaePrecision::Bf16 => {
                let Narrow { weight, bias, errors } = self.narrow_encoder()?;
                let narrow =
                    NarrowWeight { weight: weight.upload(backend)?, errors: errors.upload(backend)? };
                // what is rounded is off by its own size, so that what rows have in common is better gone
                (Some(narrow), self.settings.apply_b_dec_to_input.then(|| b_dec.clone()), bias)
            }
        };
        let Form { weight, threshold, .. } = form;
        let threshold = threshold.map(|values| HostTensor::from_f32s([self.features], values));
        Ok(DeviceSae {
            k,
            is_limit,
            encoder: weight.upload(backend)?,
            narrow,
            centre,
            bias: bias.upload(backend)?,
            threshold: threshold.map(|threshold| threshold.upload(backend)).transpose()?,
            decoder: self.decoder.upload(backend)?,
            b_dec,
        })
    }

    /// Places of a row at first, and whether they are a limit of the autoencoder itself.
    fn places(&self) -> Result<(usize, bool)> {
        self.check_form()?;
        match self.settings.activation {
            Activation::TopK(k) if k > MOST_K => Err(ModelError::Argument {
                argument: "k",
                found: k.to_string(),
                expected: format!("1 to {MOST_K}, which the fused encoder keeps of a row"),
            }),
            Activation::TopK(k) => Ok((k, true)),
            _ => Ok((FIRST_PLACES.min(self.features), false)),
        }
    }

    /// Whether its encoder is one product with rows as they are.
    ///
    /// # Errors
    /// One that normalises rows, or whose magnitudes are not normal numbers.
    pub fn check_form(&self) -> Result<()> {
        let refuse = |field: &'static str, found: String, expected: &str| {
            let reason = format!("edits know {expected} alone; `sae encode` and `capture --sae` know it");
            Err(match &self.origin {
                Some(file) => ModelError::unsupported(file, field, found, reason),
                None => ModelError::Argument { argument: field, found, expected: reason },
            })
        };
        if self.settings.normalize != Normalize::None {
            return refuse("normalize_activations", self.settings.normalize.name().into(), "`none`");
        }
        match self.magnitudes().iter().position(|scale| !scale.is_normal()) {
            Some(at) => refuse("r_mag", format!("beyond f32 at {at}"), "exp(r_mag) that is a normal number"),
            None => Ok(()),
        }
    }

    /// The encoder as one product and thresholds.
    pub(crate) fn form(&self) -> Result<Form> {
        self.check_form()?;
        let biases = floats(&self.bias);
        let wide = || biases.iter().copied().map(f64::from).collect();
        Ok(match &self.settings.activation {
            Activation::Relu | Activation::TopK(_) => {
                Form { weight: self.encoder.clone(), bias: wide(), threshold: None }
            }
            Activation::JumpRelu { threshold } => {
                // what is not above 0 is not active, whatever the threshold
                let threshold = threshold.iter().map(|t| t.max(0.0)).collect();
                Form { weight: self.encoder.clone(), bias: wide(), threshold: Some(threshold) }
            }
            Activation::Gated { b_mag, .. } => {
                let scales = self.magnitudes();
                let mut weight = floats(&self.encoder).to_vec();
                let rows = weight.par_chunks_exact_mut(self.width).zip(&scales);
                rows.for_each(|(row, scale)| row.iter_mut().for_each(|v| *v *= scale));
                let of = |f: usize| {
                    let [scale, mag, gate] = [scales[f], b_mag[f], self.b_enc[f]].map(f64::from);
                    // biases hold b_gate, less what is subtracted from rows
                    (scale * (f64::from(biases[f]) - gate) + mag, (mag - scale * gate).max(0.0) as f32)
                };
                let (bias, threshold) = (0..self.features).map(of).unzip();
                let weight = HostTensor::from_f32s([self.features, self.width], weight);
                Form { weight, bias, threshold: Some(threshold) }
            }
        })
    }

    /// What is added to what features decode to: `[width]`.
    pub fn b_dec(&self) -> &[f32] {
        &self.b_dec
    }
}

/// Whether a binding of a device holds a tensor.
fn fits(tensor: &HostTensor, device: &DeviceInfo) -> bool {
    tensor.desc.bytes() <= device.max_binding
}

impl DeviceSae {
    /// Places of a row: as many as are active at most, or as it was given.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Whether a row may have more active features than `values`, `[rows, k]` of [`encode`](Self::encode), have places for.
    pub fn overflows(&self, values: &[f32]) -> bool {
        let may = !self.is_limit && self.k < self.features();
        may && values.chunks_exact(self.k).any(|row| row[self.k - 1] > 0.0)
    }

    /// The same with twice the places; none where devices have no more.
    pub fn widened(&self) -> Option<Self> {
        let k = (2 * self.k).min(MOST_K).min(self.features());
        (k > self.k && !self.is_limit).then(|| Self { k, ..self.clone() })
    }

    fn features(&self) -> usize {
        self.bias.desc.elements()
    }

    /// Length of a row.
    pub(super) fn width(&self) -> usize {
        self.b_dec.desc.elements()
    }

    /// What [`encode`](Self::encode) yields, as [`Sae::encode`] has it: in the order of values, and without a limit with as many
    /// places as the row with the most active features needs.
    pub fn sparse_rows(&self, mut indices: Vec<u32>, mut values: Vec<f32>) -> SparseRows {
        if self.threshold.is_some() {
            // they came in the order of what lies above the thresholds
            let rows = indices.par_chunks_exact_mut(self.k).zip(values.par_chunks_exact_mut(self.k));
            rows.for_each(|(indices, values)| {
                let mut row: Vec<(u32, f32)> = indices.iter().copied().zip(values.iter().copied()).collect();
                let active = row.iter().take_while(|(_, value)| *value > 0.0).count();
                row[..active].sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                indices.iter_mut().zip(values).zip(row).for_each(|((i, v), (index, value))| {
                    (*i, *v) = (index, value);
                });
            });
        }
        let rows = SparseRows { k: self.k, indices, values };
        if self.is_limit {
            return rows;
        }
        let active = |row: &[f32]| row.iter().take_while(|value| **value != 0.0).count();
        let most = rows.values.chunks_exact(self.k).map(active).max().unwrap_or(0);
        rows.resized(most.max(1))
    }

    /// Appends the encoder: of x f32 `[rows, width]` the features u32 `[rows, k]` and their values f32 `[rows, k]`, by how far they
    /// are above their thresholds, then index; 0 behind the last active one. A row with a value that is not a number has values NaN.
    ///
    /// # Errors
    /// Another shape.
    pub fn encode(&self, graph: &mut GraphBuilder, x: Value) -> Result<(Value, Value), GraphError> {
        let (encoder, bias) = (graph.constant(&self.encoder), graph.constant(&self.bias));
        let written = match &self.narrow {
            None => graph.op_all(&self.encoder_op(), &[x, encoder, bias].map(Some), &[])?,
            Some(narrow) => {
                let (round, screen, rescore) = self.narrow_ops();
                let x = match &self.centre {
                    None => x,
                    Some(centre) => {
                        let centre = graph.constant(centre);
                        graph.op(&CENTRE, &[x, centre].map(Some))?
                    }
                };
                let rounded = graph.op(&round, &[Some(x), None])?;
                let (weight, errors) = (graph.constant(&narrow.weight), graph.constant(&narrow.errors));
                let found = graph.op_all(&screen, &[rounded, weight, bias].map(Some), &[])?;
                let near = [x, encoder, bias, errors, found[0], found[1]];
                graph.op_all(&rescore, &near.map(Some), &[])?
            }
        };
        let (indices, values) = match written.as_slice() {
            &[indices, values] => (indices, values),
            written => unreachable!("the encoder writes indices and values, not {} slots", written.len()),
        };
        let Some(threshold) = &self.threshold else { return Ok((indices, values)) };
        let threshold = graph.constant(threshold);
        Ok((indices, graph.op(&SaeAddThreshold, &[indices, values, threshold].map(Some))?))
    }

    /// Appends the decoder: f32 `[rows, width]` of what [`encode`](Self::encode) yields, less `minus` of the same shape where
    /// it is there.
    ///
    /// # Errors
    /// Another shape.
    pub fn decode(
        &self,
        graph: &mut GraphBuilder,
        (indices, values): (Value, Value),
        minus: Option<Value>,
    ) -> Result<Value, GraphError> {
        let (decoder, b_dec) = (graph.constant(&self.decoder), graph.constant(&self.b_dec));
        graph.op(&SaeDecode, &[Some(indices), Some(values), Some(decoder), Some(b_dec), minus])
    }

    /// What its products are of.
    pub fn precision(&self) -> SaePrecision {
        if self.narrow.is_some() { SaePrecision::Bf16 } else { SaePrecision::F32 }
    }

    /// The op that encodes in f32.
    pub(super) fn encoder_op(&self) -> SaeEncode {
        SaeEncode { k: self.k }
    }

    /// The ops that encode in bf16.
    pub(super) fn narrow_ops(&self) -> (Capture, SaeScreen, SaeRescore) {
        narrow_ops(self.k, self.features())
    }

    /// What is added to the values of active features.
    pub(super) fn threshold(&self) -> Option<Tensor> {
        self.threshold.clone()
    }

    /// What the decoder reads behind features and values: its weight and its bias.
    pub(super) fn decoder(&self) -> [Tensor; 2] {
        [self.decoder.clone(), self.b_dec.clone()]
    }
}
