//! EnCodec's four graphs: the encoder before and behind its recurrent bottleneck, and the decoder likewise.
//!
//! Activations are channels-last, `[batch, steps, channels]`. The parts before the bottleneck (encoder) and behind it
//! (decoder) are local in time, so long audio runs through them in segments; see [`super::segments`].

use super::config::{EncodecConfig, PadMode};
use super::weights::{Conv, ConvTranspose, DecoderWeights, EncoderWeights, LstmLayer, Residual};
use auscult_kernels::TensorDesc;
use auscult_kernels::ops::conv_transpose1d::ConvTranspose1d;
use auscult_kernels::ops::conv1d::{Activation, Conv1d, PadMode as Pad};
use auscult_kernels::ops::linear::{Activation as LinearActivation, Linear};
use auscult_kernels::ops::lstm::Lstm;
use auscult_kernels::ops::rvq_decode::RvqDecode;
use auscult_kernels::ops::rvq_encode::RvqEncode;
use auscult_runtime::{Graph, GraphBuilder, GraphError, Tensor, Value};

type Result<T> = std::result::Result<T, GraphError>;

/// Name of every graph's only input.
pub(crate) const INPUT: &str = "input";
/// Name of every graph's main output.
pub(crate) const OUTPUT: &str = "output";
/// Name of the codes that [`bottleneck_to_codes`] yields beside the latents.
pub(crate) const CODES: &str = "codes";

/// `input` f32 `[batch, samples, 1]` to `output` `[batch, frames, width]`, which the LSTM reads.
pub(crate) fn audio_to_bottleneck(
    config: &EncodecConfig,
    w: &EncoderWeights,
    batch: usize,
    samples: usize,
) -> Result<Graph> {
    let mut g = GraphBuilder::new(Default::default());
    let audio = g.input(INPUT, TensorDesc::f32([batch, samples, 1]))?;
    let mut x = conv(&mut g, config, &w.first, audio, None, [Activation::None; 2])?;
    for stage in &w.stages {
        for block in &stage.residuals {
            x = residual(&mut g, config, block, x)?;
        }
        x = conv(&mut g, config, &stage.resample, x, None, [Activation::Elu, Activation::None])?;
    }
    g.output(OUTPUT, x)?;
    g.finish()
}

/// `input` f32 `[batch, frames, width]` to the latents `output` f32 `[batch, frames, hidden]` and their `codes` u32
/// `[batch * frames, codebooks]`.
pub(crate) fn bottleneck_to_codes(
    config: &EncodecConfig,
    w: &EncoderWeights,
    codebooks: &Tensor,
    batch: usize,
    frames: usize,
) -> Result<Graph> {
    let mut g = GraphBuilder::new(Default::default());
    let x = g.input(INPUT, TensorDesc::f32([batch, frames, config.bottleneck_width()]))?;
    let x = lstm(&mut g, &w.lstm, x)?;
    let latents = conv(&mut g, config, &w.last, x, None, [Activation::Elu, Activation::None])?;
    let rows = g.view(latents, [batch * frames, config.hidden_size])?;
    let codebooks = g.constant(codebooks);
    let codes = g.op(&RvqEncode, &[Some(rows), Some(codebooks)])?;
    g.output(OUTPUT, latents)?;
    g.output(CODES, codes)?;
    g.finish()
}

/// `input` u32 `[frames, codebooks]` to `output` f32 `[1, frames, width]`, behind the LSTM.
pub(crate) fn codes_to_bottleneck(
    config: &EncodecConfig,
    w: &DecoderWeights,
    codebooks: &Tensor,
    frames: usize,
) -> Result<Graph> {
    let mut g = GraphBuilder::new(Default::default());
    let codes = g.input(INPUT, TensorDesc::u32([frames, codebooks.desc.shape[0]]))?;
    let codebooks = g.constant(codebooks);
    let latents = g.op(&RvqDecode, &[Some(codes), Some(codebooks)])?;
    let latents = g.view(latents, [1, frames, config.hidden_size])?;
    let x = conv(&mut g, config, &w.first, latents, None, [Activation::None; 2])?;
    let x = lstm(&mut g, &w.lstm, x)?;
    g.output(OUTPUT, x)?;
    g.finish()
}

/// `input` f32 `[1, frames, width]` to the audio `output` f32 `[1, samples, 1]`.
pub(crate) fn bottleneck_to_audio(
    config: &EncodecConfig,
    w: &DecoderWeights,
    frames: usize,
) -> Result<Graph> {
    let mut g = GraphBuilder::new(Default::default());
    let mut x = g.input(INPUT, TensorDesc::f32([1, frames, config.bottleneck_width()]))?;
    for stage in &w.stages {
        x = conv_transpose(&mut g, config, &stage.resample, x)?;
        for block in &stage.residuals {
            x = residual(&mut g, config, block, x)?;
        }
    }
    let audio = conv(&mut g, config, &w.last, x, None, [Activation::Elu, Activation::None])?;
    g.output(OUTPUT, audio)?;
    g.finish()
}

/// ELU, convolution, ELU, 1x1 convolution, plus the input (or a 1x1 convolution of it).
fn residual(g: &mut GraphBuilder, config: &EncodecConfig, block: &Residual, x: Value) -> Result<Value> {
    let skip = match &block.shortcut {
        Some(shortcut) => conv(g, config, shortcut, x, None, [Activation::None; 2])?,
        None => x,
    };
    // both activations belong to the first convolution: nothing else reads its output
    let hidden = conv(g, config, &block.first, x, None, [Activation::Elu, Activation::Elu])?;
    conv(g, config, &block.second, hidden, Some(skip), [Activation::None; 2])
}

/// Stacked LSTM layers plus their input.
fn lstm(g: &mut GraphBuilder, layers: &[LstmLayer], x: Value) -> Result<Value> {
    let [batch, steps, width] = *g.desc(x).shape.as_slice() else {
        unreachable!("the bottleneck has three axes");
    };
    let mut hidden = x;
    for (l, layer) in layers.iter().enumerate() {
        let rows = g.view(hidden, [batch * steps, width])?;
        let (input, bias, recurrent) =
            (g.constant(&layer.input), g.constant(&layer.bias), g.constant(&layer.hidden));
        let linear = Linear { activation: LinearActivation::None };
        let gates = g.op(&linear, &[Some(rows), Some(input), Some(bias), None])?;
        let gates = g.view(gates, [batch, steps, 4 * width])?;
        let skip = (l + 1 == layers.len()).then_some(x);
        hidden = g.op(&Lstm, &[Some(gates), Some(recurrent), skip])?;
    }
    Ok(hidden)
}

fn conv(
    g: &mut GraphBuilder,
    config: &EncodecConfig,
    w: &Conv,
    x: Value,
    residual: Option<Value>,
    [input_activation, output_activation]: [Activation; 2],
) -> Result<Value> {
    let (left, right) = padding(config, w);
    let steps = g.desc(x).shape[1];
    // every stride pads its input up to a multiple of itself (HF `_get_extra_padding_for_conv1d`)
    let extra = steps.next_multiple_of(w.stride) - steps;
    let op = Conv1d {
        stride: w.stride,
        dilation: w.dilation,
        pad_left: left,
        pad_right: right + extra,
        pad: match config.pad_mode {
            PadMode::Constant => Pad::Zero,
            PadMode::Reflect => Pad::Reflect,
            PadMode::Replicate => Pad::Replicate,
        },
        input_activation,
        output_activation,
    };
    let (weight, bias) = (g.constant(&w.weight), g.constant(&w.bias));
    g.op(&op, &[Some(x), Some(weight), Some(bias), residual])
}

/// Padding of a convolution, left and right, before the extra one (HF `EncodecConv1d.forward`).
pub(crate) fn padding(config: &EncodecConfig, w: &Conv) -> (usize, usize) {
    let total = (w.kernel - 1) * w.dilation + 1 - w.stride;
    if config.use_causal_conv { (total, 0) } else { (total - total / 2, total / 2) }
}

fn conv_transpose(
    g: &mut GraphBuilder,
    config: &EncodecConfig,
    w: &ConvTranspose,
    x: Value,
) -> Result<Value> {
    let (trim_left, trim_right) = trimming(config, w);
    let op = ConvTranspose1d {
        stride: w.stride,
        kernel: w.kernel,
        trim_left,
        trim_right,
        input_activation: Activation::Elu,
        output_activation: Activation::None,
    };
    let (weight, bias) = (g.constant(&w.weight), g.constant(&w.bias));
    g.op(&op, &[Some(x), Some(weight), Some(bias)])
}

/// Samples cut off a transposed convolution, left and right (HF `EncodecConvTranspose1d.forward`).
pub(crate) fn trimming(config: &EncodecConfig, w: &ConvTranspose) -> (usize, usize) {
    let total = w.kernel - w.stride;
    let right = if config.use_causal_conv {
        // at most `total`, since `validate` bounds the ratio by 1
        (total as f64 * config.trim_right_ratio).ceil() as usize
    } else {
        total / 2
    };
    (total - right, right)
}
