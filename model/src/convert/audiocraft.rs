//! audiocraft's names for MusicGen and EnCodec tensors, and configurations derived from the tensors' shapes.
//!
//! Names: audiocraft `models/lm.py`, `modules/transformer.py`, `modules/seanet.py`, `quantization/core_vq.py` on one
//! side, HF `convert_musicgen_transformers.py` and `convert_encodec_checkpoint_to_pytorch.py` on the other. Shapes say
//! almost everything; what they cannot say is taken from the package's `xp.cfg`, and each such decision is noted.

use std::collections::BTreeMap;
use std::path::Path;

use super::pickle::TensorView;
use super::xp_config::XpConfig;
use crate::encodec::config::{EncodecConfig, PadMode};
use crate::error::{ModelError, Result};
use crate::musicgen::config::{Activation, MelodyConfig, MusicgenDecoderConfig};

/// Tensors by their name in the file.
pub type State = BTreeMap<String, TensorView>;

/// What becomes of one audiocraft tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renamed {
    /// The same tensor under this name.
    As(String),
    /// Queries, keys and values one below the other, to be split under these names.
    Split([String; 3]),
    /// Nothing: what is computed anew.
    Left,
    /// No name of this kind of model.
    Unknown,
}

/// Whether the names are those of an audiocraft language model.
pub fn is_lm(state: &State) -> bool {
    state.contains_key("emb.0.weight") && state.keys().any(|name| name.starts_with("transformer.layers."))
}

/// Whether the names are those of an audiocraft codec.
pub fn is_codec(state: &State) -> bool {
    state.keys().any(|name| name.starts_with("encoder.model.0.conv.conv."))
}

/// The HF name of a language model's tensor.
pub fn rename_lm(name: &str) -> Renamed {
    const ROOT: &str = "decoder.model.decoder";
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        ["emb", codebook, "weight"] => Renamed::As(format!("{ROOT}.embed_tokens.{codebook}.weight")),
        ["linears", codebook, "weight"] => Renamed::As(format!("decoder.lm_heads.{codebook}.weight")),
        ["out_norm", kind] => Renamed::As(format!("{ROOT}.layer_norm.{kind}")),
        ["condition_provider", "conditioners", "description", "output_proj", kind] => {
            Renamed::As(format!("enc_to_dec_proj.{kind}"))
        }
        ["condition_provider", "conditioners", "self_wav", "output_proj", kind] => {
            Renamed::As(format!("audio_enc_to_dec_proj.{kind}"))
        }
        // the window of the spectrum
        ["condition_provider", "conditioners", "self_wav", "chroma", ..] => Renamed::Left,
        ["transformer", "layers", layer, part, ref rest @ ..] => {
            let root = format!("{ROOT}.layers.{layer}");
            let attention = match part {
                "self_attn" => "self_attn",
                "cross_attention" => "encoder_attn",
                _ => return rename_block(&root, part, rest),
            };
            match *rest {
                ["in_proj_weight"] => {
                    Renamed::Split(["q", "k", "v"].map(|p| format!("{root}.{attention}.{p}_proj.weight")))
                }
                ["out_proj", "weight"] => Renamed::As(format!("{root}.{attention}.out_proj.weight")),
                _ => Renamed::Unknown,
            }
        }
        _ => Renamed::Unknown,
    }
}

fn rename_block(root: &str, part: &str, rest: &[&str]) -> Renamed {
    let name = match part {
        "norm1" => "self_attn_layer_norm",
        "norm_cross" => "encoder_attn_layer_norm",
        "norm2" => "final_layer_norm",
        "linear1" => "fc1",
        "linear2" => "fc2",
        _ => return Renamed::Unknown,
    };
    match rest {
        [kind] => Renamed::As(format!("{root}.{name}.{kind}")),
        _ => Renamed::Unknown,
    }
}

/// The HF name of a codec's tensor, without the `audio_encoder.` of a whole MusicGen. The indices of layers are the same.
pub fn rename_codec(name: &str) -> Renamed {
    let parts: Vec<&str> = name.split('.').collect();
    if let ["quantizer", "vq", "layers", layer, "_codebook", kind] = parts[..] {
        return Renamed::As(format!("quantizer.layers.{layer}.codebook.{kind}"));
    }
    let [side @ ("encoder" | "decoder"), "model", layer, ref rest @ ..] = parts[..] else {
        return Renamed::Unknown;
    };
    let rest = rest.join(".");
    // torch's newer spelling of weight norm
    let rest = rest
        .replace("parametrizations.weight.original0", "weight_g")
        .replace("parametrizations.weight.original1", "weight_v")
        .replace("convtr.convtr.", "conv.")
        .replace("conv.conv.", "conv.");
    Renamed::As(format!("{side}.layers.{layer}.{rest}"))
}

/// What was derived, and what was assumed on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Derived<T> {
    /// The configuration.
    pub config: T,
    /// One sentence for each decision that shapes do not force.
    pub notes: Vec<String>,
}

/// Looks up shapes, with errors that name the file.
struct Shapes<'a> {
    file: &'a Path,
    state: &'a State,
}

impl Shapes<'_> {
    fn get(&self, name: &str, rank: usize) -> Result<Vec<usize>> {
        let view = self.state.get(name).ok_or_else(|| {
            ModelError::file(self.file, format!("lacks tensor `{name}`, expected one of rank {rank}"))
        })?;
        let shape: Option<Vec<usize>> =
            view.shape.iter().map(|&extent| usize::try_from(extent).ok()).collect();
        shape.filter(|shape| shape.len() == rank && shape.iter().all(|&extent| extent > 0)).ok_or_else(|| {
            let found = &view.shape;
            ModelError::file(
                self.file,
                format!("`{name}` has shape {found:?}, expected {rank} positive extents"),
            )
        })
    }

    /// How many consecutive numbers, from 0, complete `{before}{number}{after}` to a name.
    fn count(&self, before: &str, after: &str) -> usize {
        (0..).take_while(|n| self.state.contains_key(&format!("{before}{n}{after}"))).count()
    }

    /// Refuses a value of `xp.cfg` that disagrees with the shapes.
    fn agree(&self, xp: &XpConfig, path: &str, found: usize) -> Result<()> {
        match xp.parse::<usize>(path) {
            Some(stated) if stated != found => Err(ModelError::config(
                self.file,
                format!("xp.cfg: {path}"),
                stated,
                format!("{found}, as the tensors' shapes have it"),
            )),
            _ => Ok(()),
        }
    }

    /// Refuses a choice of `xp.cfg` that this engine does not run; absent means the default.
    fn require(&self, xp: &XpConfig, path: &str, supported: &str) -> Result<()> {
        match xp.get(path) {
            Some(stated) if stated != supported => Err(ModelError::unsupported(
                self.file,
                format!("xp.cfg: {path}"),
                stated,
                format!("only {supported} is supported"),
            )),
            _ => Ok(()),
        }
    }
}

/// A language model's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Lm {
    /// The decoder.
    pub decoder: MusicgenDecoderConfig,
    /// Width of its text states.
    pub text_width: usize,
    /// What stands in front of its columns, where it follows melodies.
    pub melody: Option<MelodyConfig>,
}

/// The decoder's configuration, and what conditions it.
///
/// # Errors
/// Missing tensors, impossible shapes, and models of another kind (other activations, patterns or positions), named.
pub fn derive_lm(file: &Path, state: &State, xp: &XpConfig) -> Result<Derived<Lm>> {
    let shapes = Shapes { file, state };
    let [rows, width] = shapes.get("emb.0.weight", 2)?[..] else { unreachable!("rank 2 was checked") };
    let ffn_dim = shapes.get("transformer.layers.0.linear1.weight", 2)?[0];
    let text_width = shapes.get("condition_provider.conditioners.description.output_proj.weight", 2)?[1];
    let codebooks = shapes.count("emb.", ".weight");
    let layers = shapes.count("transformer.layers.", ".linear1.weight");
    for (path, found) in [
        ("transformer_lm.dim", width),
        ("transformer_lm.num_layers", layers),
        ("transformer_lm.n_q", codebooks),
        ("transformer_lm.card", rows.saturating_sub(1)),
    ] {
        shapes.agree(xp, path, found)?;
    }
    shapes.require(xp, "transformer_lm.norm_first", "true")?;
    shapes.require(xp, "transformer_lm.positional_embedding", "sin")?;
    shapes.require(xp, "transformer_lm.norm", "layer_norm")?;
    shapes.require(xp, "codebooks_pattern.modeling", "delay")?;

    let mut notes = Vec::new();
    let melody = if state.keys().any(|name| name.contains("conditioners.self_wav")) {
        let projection = "condition_provider.conditioners.self_wav.output_proj.weight";
        let num_chroma = shapes.get(projection, 2)?[1];
        let MelodyConfig { chroma_length, .. } = MelodyConfig::default();
        notes.push(format!(
            "melody: {chroma_length} positions of chroma, as in every published MusicGen Melody"
        ));
        Some(MelodyConfig { chroma_length, num_chroma })
    } else {
        None
    };
    let heads = match xp.parse("transformer_lm.num_heads") {
        Some(heads) => heads,
        None if width.is_multiple_of(64) => {
            notes.push(format!("heads: {}, of width 64 as in every published MusicGen", width / 64));
            width / 64
        }
        None => {
            let expected = "transformer_lm.num_heads, since the width is no multiple of 64";
            return Err(ModelError::config(file, "xp.cfg", "without it", expected));
        }
    };
    let activation_function = match xp.get("transformer_lm.activation") {
        Some("gelu") => Activation::Gelu,
        Some("relu") => Activation::Relu,
        Some(other) => {
            let field = "xp.cfg: transformer_lm.activation";
            return Err(ModelError::unsupported(file, field, other, "only gelu and relu are supported"));
        }
        None => {
            notes.push("activation: gelu, as in every published MusicGen".into());
            Activation::Gelu
        }
    };
    let audio_channels = match xp.get("interleave_stereo_codebooks.use") {
        Some(interleaved) => 1 + usize::from(interleaved.eq_ignore_ascii_case("true")),
        None => {
            let channels = if codebooks == 8 { 2 } else { 1 };
            notes.push(format!("channels: {channels}, from {codebooks} codebooks"));
            channels
        }
    };
    let config = MusicgenDecoderConfig {
        activation_function,
        audio_channels,
        ffn_dim,
        hidden_size: width,
        num_attention_heads: heads,
        num_codebooks: codebooks,
        num_hidden_layers: layers,
        vocab_size: rows.saturating_sub(1),
        ..MusicgenDecoderConfig::default()
    };
    config.validate(file, "decoder.")?;
    if let Some(delays) = xp.counts("codebooks_pattern.delay.delays")
        && delays != config.delays()
    {
        let reason = format!("only {:?} is supported", config.delays());
        let field = "xp.cfg: codebooks_pattern.delay.delays";
        return Err(ModelError::unsupported(file, field, format!("{delays:?}"), reason));
    }
    Ok(Derived { config: Lm { decoder: config, text_width, melody }, notes })
}

/// The codec's configuration.
///
/// # Errors
/// Missing tensors and impossible shapes, named; an `xp.cfg` that does not state the sample rate.
pub fn derive_codec(file: &Path, state: &State, xp: &XpConfig) -> Result<Derived<EncodecConfig>> {
    // shapes under HF's names, so that both spellings of weight norm are read alike
    let renamed: State = state
        .iter()
        .filter_map(|(name, view)| match rename_codec(name) {
            Renamed::As(name) => Some((name, view.clone())),
            _ => None,
        })
        .collect();
    let shapes = Shapes { file, state: &renamed };
    let conv = |layer: usize| format!("encoder.layers.{layer}.conv.weight_v");
    let [num_filters, audio_channels, kernel_size] = shapes.get(&conv(0), 3)?[..] else {
        unreachable!("rank 3 was checked")
    };
    // layer by layer: residual blocks, then a gap (ELU) and a strided convolution, until the LSTM
    let (mut layer, mut blocks, mut ratios) = (1, 0, Vec::new());
    let has = |name: String| renamed.contains_key(&name);
    loop {
        if has(format!("encoder.layers.{layer}.block.1.conv.weight_v")) {
            (layer, blocks) = (layer + 1, blocks + 1);
        } else if has(conv(layer + 1)) && !has(format!("encoder.layers.{layer}.lstm.weight_ih_l0")) {
            ratios.push(shapes.get(&conv(layer + 1), 3)?[2] / 2);
            layer += 2;
        } else {
            break;
        }
    }
    let lstm = format!("encoder.layers.{layer}.lstm.weight_ih_l");
    let last = shapes.get(&conv(layer + 2), 3)?;
    ratios.reverse();
    let block =
        if blocks > 0 { Some(shapes.get("encoder.layers.1.block.1.conv.weight_v", 3)?) } else { None };
    let [codebook_size, codebook_dim] = shapes.get("quantizer.layers.0.codebook.embed", 2)?[..] else {
        unreachable!("rank 2 was checked")
    };
    let codebooks = shapes.count("quantizer.layers.", ".codebook.embed");

    let mut notes = Vec::new();
    let Some(sampling_rate) = xp.parse("sample_rate") else {
        let expected = "sample_rate in it, or a codec in the Hugging Face layout given beside the file";
        return Err(ModelError::config(file, "xp.cfg", "without it", expected));
    };
    let defaults = EncodecConfig::encodec_32khz();
    let use_causal_conv = match xp.get("seanet.causal").or(xp.get("encodec.causal")) {
        Some(causal) => causal.eq_ignore_ascii_case("true"),
        None => {
            notes.push("codec convolutions: not causal, as in MusicGen's codec".into());
            false
        }
    };
    let pad_mode = match xp.get("seanet.pad_mode") {
        Some("constant") => PadMode::Constant,
        Some("reflect") => PadMode::Reflect,
        Some("replicate") => PadMode::Replicate,
        Some(other) => {
            let reason = "only constant, reflect and replicate are supported";
            return Err(ModelError::unsupported(file, "xp.cfg: seanet.pad_mode", other, reason));
        }
        None => {
            notes
                .push("codec padding: reflect, as in the Hugging Face conversion of MusicGen's codec".into());
            PadMode::Reflect
        }
    };
    if pad_mode != PadMode::Reflect {
        notes.push(format!(
            "codec padding: {}, as xp.cfg states; the Hugging Face conversion of MusicGen's codec has reflect",
            xp.get("seanet.pad_mode").unwrap_or_default()
        ));
    }
    let mut config = EncodecConfig {
        audio_channels,
        codebook_dim: Some(codebook_dim),
        codebook_size,
        compress: block.as_ref().map_or(defaults.compress, |shape| num_filters.div_ceil(shape[0])),
        dilation_growth_rate: xp.parse("seanet.dilation_base").unwrap_or(defaults.dilation_growth_rate),
        hidden_size: last[0],
        kernel_size,
        last_kernel_size: last[2],
        num_filters,
        num_lstm_layers: shapes.count(&lstm, ""),
        num_residual_layers: blocks / ratios.len().max(1),
        normalize: xp.get("encodec.renormalize").is_some_and(|v| v.eq_ignore_ascii_case("true")),
        pad_mode,
        residual_kernel_size: block.as_ref().map_or(defaults.residual_kernel_size, |shape| shape[2]),
        sampling_rate,
        trim_right_ratio: xp.parse("seanet.decoder.trim_right_ratio").unwrap_or(1.0),
        upsampling_ratios: ratios,
        use_causal_conv,
        use_conv_shortcut: has("encoder.layers.1.shortcut.conv.weight_v".into()),
        ..defaults
    };
    // the one bandwidth at which HF's arithmetic gives as many codebooks
    let hop = config.upsampling_ratios.iter().try_fold(1usize, |hop, &ratio| hop.checked_mul(ratio));
    if hop.is_some_and(|hop| hop > 0) && config.codebook_size > 1 {
        let bits = codebooks * config.codebook_bits() * config.frame_rate();
        config.target_bandwidths = vec![bits as f64 / 1000.0];
        if config.num_quantizers() < codebooks {
            config.target_bandwidths = vec![(bits as f64 / 1000.0).next_up()];
        }
    }
    config.validate(file, "audio_encoder.")?;
    Ok(Derived { config: config.canonical(), notes })
}
