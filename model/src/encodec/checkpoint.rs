//! Where a codec's tensors lie in a checkpoint. All are taken in one pass, so that all faults are told at once.

use super::config::EncodecConfig;
use auscult_runtime::weights::{Loader, WeightView};

/// A convolution with weight norm, before folding. A part that is `None` is on record with the loader.
pub(crate) struct NormedConv<'w> {
    /// Lengths `[shape[0], 1, 1]`.
    pub g: Option<WeightView<'w>>,
    /// Directions.
    pub v: Option<WeightView<'w>>,
    /// `[out]`.
    pub bias: Option<WeightView<'w>>,
    /// torch's: `[out, in, kernel]`, or `[in, out, kernel]` if transposed.
    pub shape: [usize; 3],
    pub stride: usize,
    pub dilation: usize,
}

pub(crate) struct NormedResidual<'w> {
    pub first: NormedConv<'w>,
    pub second: NormedConv<'w>,
    pub shortcut: Option<NormedConv<'w>>,
}

pub(crate) struct HostLstm<'w> {
    pub input: Option<WeightView<'w>>,
    pub hidden: Option<WeightView<'w>>,
    pub bias_input: Option<WeightView<'w>>,
    pub bias_hidden: Option<WeightView<'w>>,
}

/// A codec's tensors as the file holds them.
pub(crate) struct Checkpoint<'w> {
    pub encoder_first: NormedConv<'w>,
    pub encoder_stages: Vec<(Vec<NormedResidual<'w>>, NormedConv<'w>)>,
    pub encoder_lstm: Vec<HostLstm<'w>>,
    pub encoder_last: NormedConv<'w>,
    pub decoder_first: NormedConv<'w>,
    pub decoder_lstm: Vec<HostLstm<'w>>,
    pub decoder_stages: Vec<(Vec<NormedResidual<'w>>, NormedConv<'w>)>,
    pub decoder_last: NormedConv<'w>,
    pub codebooks: Vec<Option<WeightView<'w>>>,
}

impl<'w> Checkpoint<'w> {
    /// Takes everything, in the order of HF's `EncodecEncoder` and `EncodecDecoder`.
    pub fn take(loader: &Loader<'w>, config: &EncodecConfig) -> Self {
        let (kernel, last) = (config.kernel_size, config.last_kernel_size);
        let bottleneck = config.bottleneck_width();

        let mut encoder = Modules { loader: loader.prefix("encoder.layers."), config, index: 0 };
        let encoder_first = encoder.conv([config.num_filters, config.audio_channels, kernel], 1);
        let mut width = config.num_filters;
        let mut encoder_stages = Vec::new();
        for &ratio in config.upsampling_ratios.iter().rev() {
            let residuals = encoder.residuals(width);
            encoder.activation();
            encoder_stages.push((residuals, encoder.conv([2 * width, width, 2 * ratio], ratio)));
            width *= 2;
        }
        let encoder_lstm = encoder.lstm(bottleneck);
        encoder.activation();
        let encoder_last = encoder.conv([config.hidden_size, bottleneck, last], 1);

        let mut decoder = Modules { loader: loader.prefix("decoder.layers."), config, index: 0 };
        let decoder_first = decoder.conv([bottleneck, config.hidden_size, kernel], 1);
        let decoder_lstm = decoder.lstm(bottleneck);
        let mut decoder_stages = Vec::new();
        for &ratio in &config.upsampling_ratios {
            decoder.activation();
            let up = decoder.conv_transpose([width, width / 2, 2 * ratio], ratio);
            width /= 2;
            decoder_stages.push((decoder.residuals(width), up));
        }
        decoder.activation();
        let decoder_last = decoder.conv([config.audio_channels, width, last], 1);

        let shape = [config.codebook_size, config.codebook_dim()];
        let codebook = |q| loader.take(&format!("quantizer.layers.{q}.codebook.embed"), &shape);
        Self {
            encoder_first,
            encoder_stages,
            encoder_lstm,
            encoder_last,
            decoder_first,
            decoder_lstm,
            decoder_stages,
            decoder_last,
            codebooks: (0..config.num_quantizers()).map(codebook).collect(),
        }
    }
}

/// Walks an `nn.ModuleList`: parameters are named after a module's index, and activations count.
struct Modules<'a, 'w> {
    loader: Loader<'w>,
    config: &'a EncodecConfig,
    index: usize,
}

impl<'w> Modules<'_, 'w> {
    fn activation(&mut self) {
        self.index += 1;
    }

    fn conv(&mut self, shape: [usize; 3], stride: usize) -> NormedConv<'w> {
        let conv = self.take(&format!("{}.conv", self.index), shape, shape[0], stride, 1);
        self.index += 1;
        conv
    }

    fn conv_transpose(&mut self, shape: [usize; 3], stride: usize) -> NormedConv<'w> {
        let conv = self.take(&format!("{}.conv", self.index), shape, shape[1], stride, 1);
        self.index += 1;
        conv
    }

    fn residuals(&mut self, width: usize) -> Vec<NormedResidual<'w>> {
        let (config, hidden) = (self.config, width / self.config.compress);
        let mut dilation = 1;
        let mut blocks = Vec::new();
        for _ in 0..config.num_residual_layers {
            let at = |part: &str| format!("{}.{part}.conv", self.index);
            let kernel = config.residual_kernel_size;
            blocks.push(NormedResidual {
                first: self.take(&at("block.1"), [hidden, width, kernel], hidden, 1, dilation),
                second: self.take(&at("block.3"), [width, hidden, 1], width, 1, 1),
                shortcut: config
                    .use_conv_shortcut
                    .then(|| self.take(&at("shortcut"), [width, width, 1], width, 1, 1)),
            });
            dilation *= config.dilation_growth_rate;
            self.index += 1;
        }
        blocks
    }

    fn lstm(&mut self, width: usize) -> Vec<HostLstm<'w>> {
        let scope = self.loader.prefix(&format!("{}.lstm.", self.index));
        self.index += 1;
        let layer = |l| HostLstm {
            input: scope.take(&format!("weight_ih_l{l}"), &[4 * width, width]),
            hidden: scope.take(&format!("weight_hh_l{l}"), &[4 * width, width]),
            bias_input: scope.take(&format!("bias_ih_l{l}"), &[4 * width]),
            bias_hidden: scope.take(&format!("bias_hh_l{l}"), &[4 * width]),
        };
        (0..self.config.num_lstm_layers).map(layer).collect()
    }

    /// A convolution under its published names (`weight_g`, `weight_v`) or those that current torch writes
    /// (`parametrizations.weight.original0`, `.original1`).
    fn take(
        &self,
        name: &str,
        shape: [usize; 3],
        out: usize,
        stride: usize,
        dilation: usize,
    ) -> NormedConv<'w> {
        let either = |old: &str, new: &str, shape: &[usize]| {
            let new = format!("{name}.parametrizations.weight.{new}");
            self.loader.take_any(&[&format!("{name}.{old}"), &new], shape)
        };
        NormedConv {
            g: either("weight_g", "original0", &[shape[0], 1, 1]),
            v: either("weight_v", "original1", &shape),
            bias: self.loader.take(&format!("{name}.bias"), &[out]),
            shape,
            stride,
            dilation,
        }
    }
}
