//! Random checkpoints in the Hugging Face layout: the real dimensions and file layout without anybody's weights.
//!
//! They exercise every path that published weights do and sound like nothing. Each tensor is drawn from its own stream
//! of the hash of its name, with a spread that keeps activations near 1 in every layer (uniform of standard deviation
//! `fan_in^-1/2` for matrices, codebooks that shrink along the residual chain), so that a codec really uses its codes
//! and half precision does not overflow. The tokenizer is a small one of common English. The same seed gives the same bytes on any machine.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use auscult_kernels::DType;
use auscult_runtime::safetensors_io::TensorSpec;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::config::CONFIG_FILE;
use crate::encodec::config::EncodecConfig;
use crate::error::{ModelError, Result};
use crate::layout::{self, LayoutTensor};
use crate::musicgen::config::{MusicgenConfig, MusicgenDecoderConfig};
use crate::output::{FillError, OutputDir, Progress, SHARD_BYTES};
use crate::procedural::Stream;
use crate::t5::config::T5Config;
use crate::t5::vocabulary;

/// Elements that one task draws: 64 KiB of f32.
const TASK: usize = 1 << 14;
/// Elements drawn between two writes.
const BATCH: usize = 64 * TASK;

/// The sizes that MusicGen was published in, and one that runs in an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preset {
    /// Three layers of width 128, 64 codes, the real ratios: 7 MB.
    Tiny,
    /// 24 layers of width 1024, as `facebook/musicgen-small`: 2.4 GB.
    Small,
    /// 48 layers of width 1536, as `facebook/musicgen-medium`: 8 GB.
    Medium,
    /// 48 layers of width 2048, as `facebook/musicgen-large`: 14 GB.
    Large,
}

impl Preset {
    /// Every preset, smallest first.
    pub const ALL: [Self; 4] = [Self::Tiny, Self::Small, Self::Medium, Self::Large];

    /// Its name, as [`FromStr`] reads it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }

    /// The configuration.
    pub fn config(self) -> MusicgenConfig {
        let real = |hidden_size: usize, num_hidden_layers: usize| MusicgenConfig {
            text_encoder: T5Config::t5_base(),
            audio_encoder: EncodecConfig::encodec_32khz(),
            decoder: MusicgenDecoderConfig {
                ffn_dim: 4 * hidden_size,
                hidden_size,
                num_attention_heads: hidden_size / 64,
                num_hidden_layers,
                ..MusicgenDecoderConfig::default()
            },
            melody: None,
        };
        match self {
            Self::Tiny => MusicgenConfig {
                text_encoder: T5Config {
                    d_ff: 96,
                    d_kv: 16,
                    d_model: 48,
                    num_heads: 3,
                    num_layers: 3,
                    vocab_size: 259,
                    ..T5Config::default()
                },
                audio_encoder: EncodecConfig {
                    codebook_size: 64,
                    hidden_size: 16,
                    num_filters: 8,
                    // 64 codes are 6 bits: 50 Hz x 6 bits x 4 codebooks
                    target_bandwidths: vec![1.2],
                    ..EncodecConfig::encodec_32khz()
                },
                decoder: MusicgenDecoderConfig {
                    ffn_dim: 512,
                    hidden_size: 128,
                    num_attention_heads: 2,
                    num_hidden_layers: 3,
                    vocab_size: 64,
                    ..MusicgenDecoderConfig::default()
                },
                melody: None,
            },
            Self::Small => real(1024, 24),
            Self::Medium => real(1536, 48),
            Self::Large => real(2048, 48),
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|preset| preset.name() == text)
            .ok_or_else(|| format!("preset `{text}`, expected tiny, small, medium or large"))
    }
}

/// How a random checkpoint is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitOptions {
    /// Chooses the weights; seed 0 hashes names alone.
    pub seed: u64,
    /// Type of every tensor: F32, F16 or BF16, rounded from F32.
    pub dtype: DType,
    /// Largest shard in bytes; less is one file.
    pub shard_bytes: u64,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self { seed: 0, dtype: DType::F32, shard_bytes: SHARD_BYTES }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitReport {
    /// Number of tensors.
    pub tensors: usize,
    /// Number of values.
    pub values: u64,
    /// Every file, weights first.
    pub files: Vec<PathBuf>,
}

/// Writes a random checkpoint of a published size to `out`, in f32.
///
/// # Errors
/// As [`init_checkpoint`].
pub fn init(preset: Preset, seed: u64, out: &Path) -> Result<InitReport> {
    init_checkpoint(&preset.config(), InitOptions { seed, ..InitOptions::default() }, out, &mut |_, _| {})
}

/// Writes a random checkpoint of `config` to the directory `out`, which is made or must hold no `config.json`. Memory
/// stays below 20 MB whatever the size.
///
/// # Errors
/// An invalid configuration, a `dtype` that is no float, an `out` that holds a checkpoint, or a failed write, after
/// which nothing is left behind.
pub fn init_checkpoint(
    config: &MusicgenConfig,
    options: InitOptions,
    out: &Path,
    progress: Progress<'_>,
) -> Result<InitReport> {
    config.validate(&out.join(CONFIG_FILE))?;
    if !matches!(options.dtype, DType::F32 | DType::F16 | DType::BF16) {
        let message = format!("weights of type {}, expected F32, F16 or BF16", options.dtype);
        return Err(ModelError::file(out, message));
    }
    let tokenizer = vocabulary::files(config.text_encoder.vocab_size, &out.join(CONFIG_FILE))?;
    let tensors = layout::musicgen(config);
    let rules = Rules::new(config, &tensors);
    let specs: Vec<TensorSpec> =
        tensors.iter().map(|t| TensorSpec::new(&t.name, options.dtype, t.shape.clone())).collect();
    let values = tensors.iter().map(elements).sum();
    let mut dir = OutputDir::create(out)?;
    dir.weights(&specs, options.shard_bytes, progress, &mut |i, out| {
        draw(&tensors[i], rules.of(&tensors[i]), options, out)
    })?;
    dir.json("generation_config.json", &config.generation_json())?;
    for (name, file) in &tokenizer {
        // as HF writes it: the order of the fields is the library's
        let mut text = serde_json::to_string_pretty(file).expect("JSON values always print");
        text.push('\n');
        dir.bytes(name, text.as_bytes())?;
    }
    dir.json(CONFIG_FILE, &config.to_json(options.dtype))?;
    Ok(InitReport { tensors: tensors.len(), values, files: dir.finish() })
}

/// Where a tensor's values come from.
#[derive(Clone, Debug, PartialEq)]
enum Rule {
    /// Uniform in `mean - amp .. mean + amp`, from the stream of `name`.
    Uniform { name: String, mean: f32, amp: f32 },
    /// Ones.
    Ones,
}

/// Spreads by tensor, from its name and shape.
struct Rules<'a> {
    text: &'a T5Config,
    shapes: HashMap<&'a str, &'a [usize]>,
}

impl<'a> Rules<'a> {
    fn new(config: &'a MusicgenConfig, tensors: &'a [LayoutTensor]) -> Self {
        let shapes = tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
        Self { text: &config.text_encoder, shapes }
    }

    fn of(&self, tensor: &LayoutTensor) -> Rule {
        let name = tensor.name.as_str();
        if name.ends_with("codebook.inited") || name.ends_with("codebook.cluster_size") {
            return Rule::Ones;
        }
        // one value under two names, and a moving average that has settled
        let stream = match name {
            "text_encoder.shared.weight" => "text_encoder.encoder.embed_tokens.weight".to_string(),
            _ => name.replace("codebook.embed_avg", "codebook.embed"),
        };
        let (mean, amp) = if let Some(codec) = name.strip_prefix("audio_encoder.") {
            self.codec(name, codec, &tensor.shape)
        } else if let Some(text) = name.strip_prefix("text_encoder.") {
            self.text(text, &tensor.shape)
        } else {
            decoder(name, &tensor.shape)
        };
        Rule::Uniform { name: stream, mean: mean as f32, amp: amp as f32 }
    }

    fn codec(&self, full: &str, name: &str, shape: &[usize]) -> (f64, f64) {
        if let Some(conv) = full.strip_suffix(".weight_g") {
            // a transposed convolution overlaps few of its taps: a larger norm keeps its output's spread
            let magnitude = match self.transposed_taps(conv) {
                Some(taps) => (taps as f64).sqrt() / 2.0,
                None => 1.0,
            };
            return (magnitude, 0.2 * magnitude);
        }
        if name.ends_with("weight_v") {
            return (0.0, 1.0);
        }
        if name.contains(".lstm.") {
            return (0.0, 1.0 / ((shape[0] / 4) as f64).sqrt());
        }
        if let Some(rest) = name.strip_prefix("quantizer.layers.") {
            let depth: f64 = rest.split('.').next().and_then(|q| q.parse().ok()).unwrap_or(0.0);
            return (0.0, 1.2 / (1.0 + depth));
        }
        (0.0, 0.05)
    }

    /// Taps of convolution `conv` if it is transposed: its first axis counts inputs, so its bias has another length.
    fn transposed_taps(&self, conv: &str) -> Option<usize> {
        let weight = self.shapes.get(format!("{conv}.weight_v").as_str())?;
        let bias = self.shapes.get(format!("{conv}.bias").as_str())?;
        (weight[0] != bias[0]).then_some(weight[2])
    }

    fn text(&self, name: &str, shape: &[usize]) -> (f64, f64) {
        if name.contains("layer_norm") {
            return (1.0, 0.2);
        }
        if name.contains("relative_attention_bias") {
            return (0.0, 1.0);
        }
        if name.starts_with("shared") {
            return (0.0, amp(1.0));
        }
        if name.ends_with(".q.weight") {
            // T5 does not scale its scores; its queries are small instead
            return (0.0, amp(((self.text.d_model * self.text.d_kv) as f64).powf(-0.5)));
        }
        (0.0, amp((shape[1] as f64).powf(-0.5)))
    }
}

fn decoder(name: &str, shape: &[usize]) -> (f64, f64) {
    if name.contains("layer_norm") {
        return if name.ends_with("weight") { (1.0, 0.2) } else { (0.0, 0.1) };
    }
    if name.contains("embed_tokens") {
        return (0.0, amp(0.5));
    }
    match shape {
        [_, inputs] => (0.0, amp((*inputs as f64).powf(-0.5))),
        _ => (0.0, 0.1),
    }
}

/// Half-width of the uniform distribution of standard deviation `deviation`.
fn amp(deviation: f64) -> f64 {
    deviation * 3f64.sqrt()
}

fn elements(tensor: &LayoutTensor) -> u64 {
    tensor.shape.iter().map(|&extent| u64::try_from(extent).expect("an extent fits 64 bits")).product()
}

/// Writes one tensor, a batch at a time; the batch's tasks run on all threads.
fn draw(
    tensor: &LayoutTensor,
    rule: Rule,
    options: InitOptions,
    out: &mut dyn Write,
) -> Result<(), FillError> {
    let size = options.dtype.size();
    let count: usize = tensor.shape.iter().product();
    let mut bytes = vec![0; count.min(BATCH) * size];
    let mut start = 0;
    while start < count {
        let batch = (count - start).min(BATCH);
        let bytes = &mut bytes[..batch * size];
        bytes.par_chunks_mut(TASK * size).enumerate().for_each(|(task, bytes)| {
            let mut values = vec![1.0; bytes.len() / size];
            if let Rule::Uniform { name, mean, amp } = &rule {
                let first = u64::try_from(start + task * TASK).expect("an index fits 64 bits");
                Stream::new(options.seed, name).fill(first, *mean, *amp, &mut values);
            }
            encode(&values, options.dtype, bytes);
        });
        out.write_all(bytes).map_err(FillError::Write)?;
        start += batch;
    }
    Ok(())
}

/// `values` as little-endian elements of a float type.
fn encode(values: &[f32], dtype: DType, bytes: &mut [u8]) {
    let pairs = bytes.chunks_exact_mut(dtype.size()).zip(values);
    match dtype {
        DType::F16 => pairs.for_each(|(b, &v)| b.copy_from_slice(&f16::from_f32(v).to_le_bytes())),
        DType::BF16 => pairs.for_each(|(b, &v)| b.copy_from_slice(&bf16::from_f32(v).to_le_bytes())),
        _ => pairs.for_each(|(b, &v)| b.copy_from_slice(&v.to_le_bytes())),
    }
}
