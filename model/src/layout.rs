//! Names and shapes of every tensor of a checkpoint in the Hugging Face layout, from its configuration alone.
//!
//! Names are those of the published files (`weight_g`, `weight_v`), the order is that of the modules in HF
//! `modeling_t5.py`, `modeling_encodec.py` and `modeling_musicgen.py`. What a loader makes of the tensors, and which
//! ones it can do without, is not decided here.

use crate::encodec::config::EncodecConfig;
use crate::musicgen::config::{MusicgenConfig, MusicgenDecoderConfig};
use crate::t5::config::T5Config;

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutTensor {
    /// Name in the file.
    pub name: String,
    /// Extents, slowest first.
    pub shape: Vec<usize>,
}

/// Collects tensors below a prefix.
struct Names<'a> {
    prefix: &'a str,
    tensors: Vec<LayoutTensor>,
}

impl<'a> Names<'a> {
    fn new(prefix: &'a str) -> Self {
        Self { prefix, tensors: Vec::new() }
    }

    fn add(&mut self, name: impl AsRef<str>, shape: impl Into<Vec<usize>>) {
        self.tensors
            .push(LayoutTensor { name: format!("{}{}", self.prefix, name.as_ref()), shape: shape.into() });
    }

    fn affine(&mut self, name: &str, width: usize) {
        self.add(format!("{name}.weight"), [width]);
        self.add(format!("{name}.bias"), [width]);
    }

    /// A weight-normed convolution; `shape` is that of its weight, `magnitudes` the channels of its first axis.
    fn conv(&mut self, name: &str, bias: usize, shape: [usize; 3]) {
        self.add(format!("{name}.bias"), [bias]);
        self.add(format!("{name}.weight_g"), [shape[0], 1, 1]);
        self.add(format!("{name}.weight_v"), shape);
    }

    fn lstm(&mut self, name: &str, layers: usize, width: usize) {
        for layer in 0..layers {
            self.add(format!("{name}.weight_ih_l{layer}"), [4 * width, width]);
            self.add(format!("{name}.weight_hh_l{layer}"), [4 * width, width]);
            self.add(format!("{name}.bias_ih_l{layer}"), [4 * width]);
            self.add(format!("{name}.bias_hh_l{layer}"), [4 * width]);
        }
    }

    fn residual(&mut self, name: &str, config: &EncodecConfig, width: usize) {
        let hidden = width / config.compress;
        self.conv(&format!("{name}.block.1.conv"), hidden, [hidden, width, config.residual_kernel_size]);
        self.conv(&format!("{name}.block.3.conv"), width, [width, hidden, 1]);
        if config.use_conv_shortcut {
            self.conv(&format!("{name}.shortcut.conv"), width, [width, width, 1]);
        }
    }
}

/// Tensors of a T5 encoder, without the second name of its embedding.
pub fn t5(prefix: &str, config: &T5Config) -> Vec<LayoutTensor> {
    let mut names = Names::new(prefix);
    let (width, inner) = (config.d_model, config.inner_dim());
    names.add("shared.weight", [config.vocab_size, width]);
    for block in 0..config.num_layers {
        let attention = format!("encoder.block.{block}.layer.0.SelfAttention");
        for part in ["q", "k", "v"] {
            names.add(format!("{attention}.{part}.weight"), [inner, width]);
        }
        names.add(format!("{attention}.o.weight"), [width, inner]);
        if block == 0 {
            let buckets = config.relative_attention_num_buckets;
            names.add(format!("{attention}.relative_attention_bias.weight"), [buckets, config.num_heads]);
        }
        names.add(format!("encoder.block.{block}.layer.0.layer_norm.weight"), [width]);
        let dense = format!("encoder.block.{block}.layer.1.DenseReluDense");
        // a gated layer has two matrices in front, whatever its gate is
        let gated = config.feed_forward_proj.starts_with("gated-");
        for up in if gated { &["wi_0", "wi_1"][..] } else { &["wi"] } {
            names.add(format!("{dense}.{up}.weight"), [config.d_ff, width]);
        }
        names.add(format!("{dense}.wo.weight"), [width, config.d_ff]);
        names.add(format!("encoder.block.{block}.layer.1.layer_norm.weight"), [width]);
    }
    names.add("encoder.final_layer_norm.weight", [width]);
    names.tensors
}

/// Tensors of a weight-normed EnCodec, with the codebooks' training statistics.
pub fn encodec(prefix: &str, config: &EncodecConfig) -> Vec<LayoutTensor> {
    let mut names = Names::new(prefix);
    let widest = config.bottleneck_width();
    let (channels, filters, latent) = (config.audio_channels, config.num_filters, config.hidden_size);

    names.conv("encoder.layers.0.conv", filters, [filters, channels, config.kernel_size]);
    let (mut layer, mut width) = (1, filters);
    for &ratio in config.upsampling_ratios.iter().rev() {
        for _ in 0..config.num_residual_layers {
            names.residual(&format!("encoder.layers.{layer}"), config, width);
            layer += 1;
        }
        layer += 1; // ELU
        names.conv(&format!("encoder.layers.{layer}.conv"), 2 * width, [2 * width, width, 2 * ratio]);
        layer += 1;
        width *= 2;
    }
    names.lstm(&format!("encoder.layers.{layer}.lstm"), config.num_lstm_layers, widest);
    layer += 2; // LSTM, ELU
    let last = [latent, widest, config.last_kernel_size];
    names.conv(&format!("encoder.layers.{layer}.conv"), latent, last);

    names.conv("decoder.layers.0.conv", widest, [widest, latent, config.kernel_size]);
    names.lstm("decoder.layers.1.lstm", config.num_lstm_layers, widest);
    (layer, width) = (2, widest);
    for &ratio in &config.upsampling_ratios {
        layer += 1; // ELU
        names.conv(&format!("decoder.layers.{layer}.conv"), width / 2, [width, width / 2, 2 * ratio]);
        layer += 1;
        width /= 2;
        for _ in 0..config.num_residual_layers {
            names.residual(&format!("decoder.layers.{layer}"), config, width);
            layer += 1;
        }
    }
    layer += 1; // ELU
    let last = [channels, filters, config.last_kernel_size];
    names.conv(&format!("decoder.layers.{layer}.conv"), channels, last);

    for codebook in 0..config.num_quantizers() {
        let name = format!("quantizer.layers.{codebook}.codebook");
        names.add(format!("{name}.inited"), [1]);
        names.add(format!("{name}.cluster_size"), [config.codebook_size]);
        names.add(format!("{name}.embed"), [config.codebook_size, config.codebook_dim()]);
        names.add(format!("{name}.embed_avg"), [config.codebook_size, config.codebook_dim()]);
    }
    names.tensors
}

/// Tensors of a MusicGen decoder with cross-attention, without the optional table of positions.
pub fn decoder(prefix: &str, config: &MusicgenDecoderConfig) -> Vec<LayoutTensor> {
    let mut names = Names::new(prefix);
    let width = config.hidden_size;
    for codebook in 0..config.num_codebooks {
        names.add(format!("model.decoder.embed_tokens.{codebook}.weight"), [config.vocab_size + 1, width]);
    }
    for layer in 0..config.num_hidden_layers {
        let name = format!("model.decoder.layers.{layer}");
        for attention in ["self_attn", "encoder_attn"] {
            for part in ["k", "v", "q", "out"] {
                names.add(format!("{name}.{attention}.{part}_proj.weight"), [width, width]);
            }
            names.affine(&format!("{name}.{attention}_layer_norm"), width);
        }
        names.add(format!("{name}.fc1.weight"), [config.ffn_dim, width]);
        names.add(format!("{name}.fc2.weight"), [width, config.ffn_dim]);
        names.affine(&format!("{name}.final_layer_norm"), width);
    }
    names.affine("model.decoder.layer_norm", width);
    for codebook in 0..config.num_codebooks {
        names.add(format!("lm_heads.{codebook}.weight"), [config.vocab_size, width]);
    }
    names.tensors
}

/// Tensors of a whole MusicGen.
pub fn musicgen(config: &MusicgenConfig) -> Vec<LayoutTensor> {
    let mut tensors = t5("text_encoder.", &config.text_encoder);
    tensors.extend(encodec("audio_encoder.", &config.audio_encoder));
    tensors.extend(language_model(config));
    tensors
}

/// The decoder of a whole MusicGen, and the layers from what conditions it to its width.
pub fn language_model(config: &MusicgenConfig) -> Vec<LayoutTensor> {
    let mut tensors = decoder("decoder.", &config.decoder);
    if config.melody.is_some() {
        tensors.retain(|tensor| !tensor.name.contains(".encoder_attn"));
    }
    tensors.extend(text_projection(config));
    tensors.extend(chroma_projection(config));
    tensors
}

/// The layer from pitch classes to the decoder's width, where the widths differ.
fn chroma_projection(config: &MusicgenConfig) -> Vec<LayoutTensor> {
    let mut names = Names::new("audio_enc_to_dec_proj.");
    if let Some(melody) = config.melody.filter(|_| config.has_chroma_projection()) {
        names.add("weight", [config.decoder.hidden_size, melody.num_chroma]);
        names.add("bias", [config.decoder.hidden_size]);
    }
    names.tensors
}

/// The layer from text states to the decoder's width, where the widths differ.
pub fn text_projection(config: &MusicgenConfig) -> Vec<LayoutTensor> {
    let mut names = Names::new("enc_to_dec_proj.");
    if config.has_text_projection() {
        names.add("weight", [config.decoder.hidden_size, config.text_encoder.d_model]);
        names.add("bias", [config.decoder.hidden_size]);
    }
    names.tensors
}
