//! EnCodec's weights as the graph uses them: weight norm folded, convolutions channels-last.

use super::checkpoint::{Checkpoint, HostLstm, NormedConv, NormedResidual};
use super::config::EncodecConfig;
use crate::device::{HostTensor, present};
use crate::error::Result;
use auscult_kernels::ops::conv_transpose1d::prepare_weight;
use auscult_runtime::weights::{Loader, WeightView};
use auscult_runtime::{Backend, Tensor};

/// One convolution.
pub(crate) struct Conv {
    /// f32 `[out, kernel, in]`.
    pub weight: Tensor,
    /// f32 `[out]`.
    pub bias: Tensor,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
}

/// One transposed convolution.
pub(crate) struct ConvTranspose {
    /// f32 `[stride * out, taps, in]`.
    pub weight: Tensor,
    /// f32 `[out]`.
    pub bias: Tensor,
    pub kernel: usize,
    pub stride: usize,
}

/// One residual block: two convolutions, and a third one on the skip path of causal codecs.
pub(crate) struct Residual {
    pub first: Conv,
    pub second: Conv,
    pub shortcut: Option<Conv>,
}

/// One layer of the LSTM.
pub(crate) struct LstmLayer {
    /// f32 `[4 * width, width]`.
    pub input: Tensor,
    /// Both biases added, f32 `[4 * width]`.
    pub bias: Tensor,
    /// f32 `[4 * width, width]`.
    pub hidden: Tensor,
}

/// A ratio's residual blocks and the convolution that changes the rate.
pub(crate) struct Stage<C> {
    pub residuals: Vec<Residual>,
    pub resample: C,
}

/// The encoder.
pub(crate) struct EncoderWeights {
    pub first: Conv,
    pub stages: Vec<Stage<Conv>>,
    pub lstm: Vec<LstmLayer>,
    pub last: Conv,
}

/// The decoder.
pub(crate) struct DecoderWeights {
    pub first: Conv,
    pub lstm: Vec<LstmLayer>,
    pub stages: Vec<Stage<ConvTranspose>>,
    pub last: Conv,
}

/// A codec on a device.
pub(crate) struct EncodecWeights {
    pub encoder: EncoderWeights,
    pub decoder: DecoderWeights,
    /// f32 `[codebooks, entries, dim]`.
    pub codebooks: Tensor,
}

impl EncodecWeights {
    /// Takes every tensor of a codec from `loader` (scoped to the codec) and puts it on the device. Of the checkpoint's
    /// codebooks the first `codebooks` are used; the others must be there all the same.
    ///
    /// # Errors
    /// All missing, misshapen and unexpected tensors at once; failures of the device.
    pub fn load(
        loader: &Loader<'_>,
        config: &EncodecConfig,
        codebooks: usize,
        backend: &dyn Backend,
    ) -> Result<Self> {
        let checkpoint = Checkpoint::take(loader, config);
        // training statistics that inference never reads
        loader.ignore(|name| name.starts_with("quantizer.") && !name.ends_with(".codebook.embed"));
        loader.finish()?;
        let device = Device { backend };
        Ok(Self {
            encoder: EncoderWeights {
                first: device.conv(&checkpoint.encoder_first)?,
                stages: device.stages(&checkpoint.encoder_stages, Device::conv)?,
                lstm: device.lstm(&checkpoint.encoder_lstm)?,
                last: device.conv(&checkpoint.encoder_last)?,
            },
            decoder: DecoderWeights {
                first: device.conv(&checkpoint.decoder_first)?,
                lstm: device.lstm(&checkpoint.decoder_lstm)?,
                stages: device.stages(&checkpoint.decoder_stages, Device::conv_transpose)?,
                last: device.conv(&checkpoint.decoder_last)?,
            },
            codebooks: device.codebooks(&checkpoint.codebooks[..codebooks], config)?,
        })
    }
}

/// Folds, reorders and uploads. Every view is there: `load` calls it after the loader's account was found clean.
struct Device<'a> {
    backend: &'a dyn Backend,
}

impl Device<'_> {
    fn conv(&self, conv: &NormedConv<'_>) -> Result<Conv> {
        let [out, input, kernel] = conv.shape;
        let folded = fold_weight_norm(&values(&conv.v)?, &values(&conv.g)?);
        // torch [out, in, kernel] -> [out, kernel, in]
        let mut weight = vec![0.0; folded.len()];
        for (from, to) in folded.chunks_exact(input * kernel).zip(weight.chunks_exact_mut(input * kernel)) {
            for (i, taps) in from.chunks_exact(kernel).enumerate() {
                for (k, &value) in taps.iter().enumerate() {
                    to[k * input + i] = value;
                }
            }
        }
        Ok(Conv {
            weight: HostTensor::from_f32s([out, kernel, input], weight).upload(self.backend)?,
            bias: self.vector(&conv.bias)?,
            kernel,
            stride: conv.stride,
            dilation: conv.dilation,
        })
    }

    fn conv_transpose(&self, conv: &NormedConv<'_>) -> Result<ConvTranspose> {
        // torch's transposed convolutions keep [in, out, kernel], and weight norm its axis 0
        let [input, out, kernel] = conv.shape;
        let stride = conv.stride;
        let folded = fold_weight_norm(&values(&conv.v)?, &values(&conv.g)?);
        let weight = prepare_weight(&folded, conv.shape, stride);
        Ok(ConvTranspose {
            weight: HostTensor::from_f32s([stride * out, kernel.div_ceil(stride), input], weight)
                .upload(self.backend)?,
            bias: self.vector(&conv.bias)?,
            kernel,
            stride,
        })
    }

    fn residual(&self, block: &NormedResidual<'_>) -> Result<Residual> {
        Ok(Residual {
            first: self.conv(&block.first)?,
            second: self.conv(&block.second)?,
            shortcut: block.shortcut.as_ref().map(|conv| self.conv(conv)).transpose()?,
        })
    }

    fn stages<C>(
        &self,
        stages: &[(Vec<NormedResidual<'_>>, NormedConv<'_>)],
        resample: impl Fn(&Self, &NormedConv<'_>) -> Result<C>,
    ) -> Result<Vec<Stage<C>>> {
        let stage = |(residuals, conv): &(Vec<NormedResidual<'_>>, NormedConv<'_>)| {
            let residuals = residuals.iter().map(|block| self.residual(block)).collect::<Result<_>>()?;
            Ok(Stage { residuals, resample: resample(self, conv)? })
        };
        stages.iter().map(stage).collect()
    }

    fn lstm(&self, layers: &[HostLstm<'_>]) -> Result<Vec<LstmLayer>> {
        let layer = |lstm: &HostLstm<'_>| {
            let bias: Vec<f32> = values(&lstm.bias_input)?
                .iter()
                .zip(values(&lstm.bias_hidden)?)
                .map(|(a, b)| a + b)
                .collect();
            Ok(LstmLayer {
                input: HostTensor::f32(present(&lstm.input))?.upload(self.backend)?,
                bias: HostTensor::from_f32s([bias.len()], bias).upload(self.backend)?,
                hidden: HostTensor::f32(present(&lstm.hidden))?.upload(self.backend)?,
            })
        };
        layers.iter().map(layer).collect()
    }

    fn codebooks(&self, codebooks: &[Option<WeightView<'_>>], config: &EncodecConfig) -> Result<Tensor> {
        let mut all = Vec::with_capacity(codebooks.len() * config.codebook_size * config.codebook_dim());
        for codebook in codebooks {
            all.extend(values(codebook)?);
        }
        let shape = [codebooks.len(), config.codebook_size, config.codebook_dim()];
        HostTensor::from_f32s(shape, all).upload(self.backend)
    }

    fn vector(&self, view: &Option<WeightView<'_>>) -> Result<Tensor> {
        HostTensor::f32(present(view))?.upload(self.backend)
    }
}

fn values(view: &Option<WeightView<'_>>) -> Result<Vec<f32>> {
    Ok(present(view).to_f32()?)
}

/// `v * (g / ||v||)`, the norm over all axes but the first (torch `weight_norm`, dim 0): computed in f64, rounded once.
fn fold_weight_norm(v: &[f32], g: &[f32]) -> Vec<f32> {
    let row = v.len() / g.len();
    let mut folded = Vec::with_capacity(v.len());
    for (row, &g) in v.chunks_exact(row).zip(g) {
        let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let scale = f64::from(g) / norm;
        folded.extend(row.iter().map(|&x| (f64::from(x) * scale) as f32));
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::fold_weight_norm;

    #[test]
    fn weight_norm_scales_each_row_to_length_g() {
        // rows (3, 4) and (0, -2) have lengths 5 and 2
        let folded = fold_weight_norm(&[3.0, 4.0, 0.0, -2.0], &[10.0, 3.0]);
        assert_eq!(folded, [6.0, 8.0, 0.0, -3.0]);
    }
}
