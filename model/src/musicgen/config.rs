//! MusicGen's configuration: the decoder's fields of HF `configuration_musicgen.py`, and the composite of text encoder,
//! codec and decoder that a checkpoint's `config.json` holds.

use std::path::Path;

use auscult_kernels::DType;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{Check, from_section, model_type, section};
use crate::encodec::config::EncodecConfig;
use crate::error::{ModelError, Result};
use crate::t5::config::T5Config;

/// Length of the clips that every published MusicGen was trained on, in seconds
/// (audiocraft `config/solver/musicgen`, `segment_duration`).
pub const TRAINED_SECONDS: usize = 30;

/// `model_type` of a MusicGen Melody.
pub(crate) const MELODY_TYPE: &str = "musicgen_melody";

/// The feed-forward layers' activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// The exact form, `x (1 + erf(x / sqrt 2)) / 2`.
    Gelu,
    /// `max(x, 0)`.
    Relu,
}

/// The decoder's hyper-parameters. Absent fields take HF's defaults, which are those of `facebook/musicgen-small`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MusicgenDecoderConfig {
    /// Activation of the feed-forward layers.
    pub activation_function: Activation,
    /// Channels of the audio that the codes describe: 1, or 2 with the channels' codebooks interleaved.
    pub audio_channels: usize,
    /// Width of the text states when they are fed unprojected; HF reads it, no published file sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_attention_hidden_size: Option<usize>,
    /// Width of the feed-forward layers.
    pub ffn_dim: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Rows of the table of sinusoidal positions.
    pub max_position_embeddings: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Parallel streams of codes.
    pub num_codebooks: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// The special token's id as the file states it; `None` means `vocab_size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<usize>,
    /// Whether embeddings are multiplied by the root of the width; no published model does.
    pub scale_embedding: bool,
    /// Codes of one codebook; the embeddings have one row more, for the special token.
    pub vocab_size: usize,
}

impl Default for MusicgenDecoderConfig {
    fn default() -> Self {
        Self {
            activation_function: Activation::Gelu,
            audio_channels: 1,
            cross_attention_hidden_size: None,
            ffn_dim: 4096,
            hidden_size: 1024,
            max_position_embeddings: 2048,
            num_attention_heads: 16,
            num_codebooks: 4,
            num_hidden_layers: 24,
            pad_token_id: None,
            scale_embedding: false,
            vocab_size: 2048,
        }
    }
}

impl MusicgenDecoderConfig {
    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// What scores of attention are multiplied by.
    pub fn attention_scale(&self) -> f32 {
        (self.head_dim() as f64).powf(-0.5) as f32
    }

    /// Id of the token that fills the delay pattern: one past the last code.
    pub fn special_token(&self) -> usize {
        self.vocab_size
    }

    /// Steps by which each codebook lags: `0, 1, 2, ..` for mono, `0, 0, 1, 1, ..` for interleaved stereo
    /// (HF `build_delay_pattern_mask`).
    pub fn delays(&self) -> Vec<usize> {
        (0..self.num_codebooks).map(|codebook| codebook / self.audio_channels).collect()
    }

    /// Checks that the values can belong to some MusicGen; `prefix` names the section in messages.
    ///
    /// # Errors
    /// Names the file, the field, the value and the allowed range.
    pub fn validate(&self, file: &Path, prefix: &str) -> Result<()> {
        let check = Check { file, prefix };
        for (field, value) in [
            ("ffn_dim", self.ffn_dim),
            ("hidden_size", self.hidden_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("num_attention_heads", self.num_attention_heads),
            ("num_codebooks", self.num_codebooks),
            ("num_hidden_layers", self.num_hidden_layers),
            ("vocab_size", self.vocab_size),
        ] {
            check.dim(field, value)?;
        }
        check.that(
            self.hidden_size >= 4 && self.hidden_size.is_multiple_of(2),
            "hidden_size",
            self.hidden_size,
            || "an even number of at least 4 (positions are cosines and sines)".into(),
        )?;
        check.that(
            self.hidden_size.is_multiple_of(self.num_attention_heads),
            "num_attention_heads",
            self.num_attention_heads,
            || format!("a divisor of `hidden_size` ({})", self.hidden_size),
        )?;
        check.that((1..=2).contains(&self.audio_channels), "audio_channels", self.audio_channels, || {
            "1 (mono) or 2 (stereo)".into()
        })?;
        check.that(
            self.num_codebooks.is_multiple_of(self.audio_channels),
            "num_codebooks",
            self.num_codebooks,
            || format!("a multiple of `audio_channels` ({})", self.audio_channels),
        )?;
        check.that(
            self.pad_token_id.is_none_or(|id| id == self.vocab_size),
            "pad_token_id",
            self.pad_token_id.unwrap_or_default(),
            || {
                format!(
                    "`vocab_size` ({}), the row that embeddings keep for the special token",
                    self.vocab_size
                )
            },
        )
    }

    /// Refuses decoders that this engine does not run; `prefix` names the section in messages.
    ///
    /// # Errors
    /// Names the field: `scale_embedding`, which HF reads but never applies, or `cross_attention_hidden_size`.
    pub fn check_supported(&self, file: &Path, prefix: &str) -> Result<()> {
        let check = Check { file, prefix };
        check.supported(
            !self.scale_embedding,
            "scale_embedding",
            self.scale_embedding,
            "scaled embeddings are not supported; every published MusicGen has false",
        )?;
        check.supported(
            self.cross_attention_hidden_size.is_none(),
            "cross_attention_hidden_size",
            self.cross_attention_hidden_size.unwrap_or_default(),
            "unprojected text states of another width are not supported; every published MusicGen has none",
        )
    }
}

/// How a melody stands in front of the columns of a MusicGen Melody. Absent fields take HF's defaults, which are those of
/// every published one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MelodyConfig {
    /// Positions that chroma takes: what is longer is cut, what is shorter goes round.
    pub chroma_length: usize,
    /// Pitch classes.
    pub num_chroma: usize,
}

impl Default for MelodyConfig {
    fn default() -> Self {
        Self { chroma_length: 235, num_chroma: 12 }
    }
}

/// A whole MusicGen: text encoder, codec and decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct MusicgenConfig {
    /// The text encoder.
    pub text_encoder: T5Config,
    /// The codec.
    pub audio_encoder: EncodecConfig,
    /// The decoder.
    pub decoder: MusicgenDecoderConfig,
    /// What stands in front of its columns, where that and not cross-attention conditions it: `musicgen_melody`.
    pub melody: Option<MelodyConfig>,
}

impl MusicgenConfig {
    /// Reads and validates the three sections of a composite `config.json`, and the fields of a melody where it has one.
    pub(crate) fn from_json(file: &Path, mut json: Value) -> Result<Self> {
        let has_melody = model_type(file, &json, "")? == MELODY_TYPE;
        let mut take = |name: &str, expected: Option<&str>| -> Result<Value> {
            let found = json.get_mut(name).map(Value::take).unwrap_or_default();
            if !found.is_object() {
                let found = if found.is_null() { "absent".to_string() } else { found.to_string() };
                return Err(ModelError::config(file, name, found, "an object"));
            }
            if let Some(expected) = expected {
                let prefix = format!("{name}.");
                let kind = model_type(file, &found, &prefix)?;
                if kind != expected {
                    return Err(ModelError::unsupported(
                        file,
                        format!("{prefix}model_type"),
                        format!("{kind:?}"),
                        format!("only \"{expected}\" is supported"),
                    ));
                }
            }
            Ok(found)
        };
        let text_encoder = take("text_encoder", Some("t5"))?;
        let audio_encoder = take("audio_encoder", Some("encodec"))?;
        let decoder = take("decoder", None)?;
        let config = Self {
            text_encoder: from_section(file, text_encoder, "text_encoder.")?,
            audio_encoder: from_section(file, audio_encoder, "audio_encoder.")?,
            decoder: from_section(file, decoder, "decoder.")?,
            melody: has_melody.then(|| from_section(file, json, "")).transpose()?,
        };
        config.validate(file)?;
        // redundant once validated; left out so that equal models compare equal
        let decoder = MusicgenDecoderConfig { pad_token_id: None, ..config.decoder };
        Ok(Self { audio_encoder: config.audio_encoder.canonical(), decoder, ..config })
    }

    /// Checks each section, and that they fit together.
    ///
    /// # Errors
    /// Names the file, the field, the value and the allowed range.
    pub fn validate(&self, file: &Path) -> Result<()> {
        self.text_encoder.validate(file, "text_encoder.")?;
        self.audio_encoder.validate(file, "audio_encoder.")?;
        self.decoder.validate(file, "decoder.")?;
        if let Some(MelodyConfig { chroma_length, num_chroma }) = self.melody {
            let check = Check { file, prefix: "" };
            check.dim("chroma_length", chroma_length)?;
            check.dim("num_chroma", num_chroma)?;
        }
        let check = Check { file, prefix: "decoder." };
        check.that(
            self.decoder.vocab_size >= self.audio_encoder.codebook_size,
            "vocab_size",
            self.decoder.vocab_size,
            || format!("at least `audio_encoder.codebook_size` ({})", self.audio_encoder.codebook_size),
        )?;
        let needed = self.decoder.num_codebooks / self.decoder.audio_channels;
        check.that(
            needed <= self.audio_encoder.num_quantizers(),
            "num_codebooks",
            self.decoder.num_codebooks,
            || {
                format!(
                    "at most {} for each of {} channels, the codebooks of `audio_encoder`",
                    self.audio_encoder.num_quantizers(),
                    self.decoder.audio_channels
                )
            },
        )
    }

    /// Refuses what this engine does not run in the codec and the decoder. The text encoder is checked where text is
    /// used: [`T5Config::check_supported`].
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn check_supported(&self, file: &Path) -> Result<()> {
        self.decoder.check_supported(file, "decoder.")?;
        self.audio_encoder.check_supported(file, "audio_encoder.")
    }

    /// Whether text states are projected to the decoder's width; HF leaves the layer out when the widths agree.
    pub fn has_text_projection(&self) -> bool {
        self.text_encoder.d_model != self.decoder.hidden_size
    }

    /// Whether pitch classes are projected to the decoder's width; HF leaves the layer out when the widths agree.
    pub fn has_chroma_projection(&self) -> bool {
        self.melody.is_some_and(|melody| melody.num_chroma != self.decoder.hidden_size)
    }

    /// Codebooks that the codec encodes one audio channel into.
    pub fn codebooks_per_channel(&self) -> usize {
        self.decoder.num_codebooks / self.decoder.audio_channels
    }

    /// Frames a second, exact.
    pub fn frames_per_second(&self) -> f64 {
        self.audio_encoder.frames_per_second()
    }

    /// Frames of the longest clip: 30 s, or what the table of positions holds where that is less.
    pub fn trained_frames(&self) -> usize {
        let frames = TRAINED_SECONDS * self.audio_encoder.frame_rate();
        frames.min(self.decoder.max_position_embeddings - 1)
    }

    /// Positions of the longest clip: a start column, then one for each frame.
    pub fn trained_positions(&self) -> usize {
        self.trained_frames() + 1
    }
}

impl MusicgenConfig {
    /// The composite `config.json` that HF writes for these values, for weights of type `dtype` (F32, F16 or BF16).
    pub fn to_json(&self, dtype: DType) -> Value {
        let special = self.decoder.special_token();
        let [architecture, kind, decoder_kind] = match self.melody {
            Some(_) => ["MusicgenMelodyForConditionalGeneration", MELODY_TYPE, "musicgen_melody_decoder"],
            None => ["MusicgenForConditionalGeneration", "musicgen", "musicgen_decoder"],
        };
        let mut decoder = section(&self.decoder, decoder_kind);
        decoder.insert("pad_token_id".into(), special.into());
        decoder.insert("bos_token_id".into(), special.into());
        decoder.insert("use_cache".into(), true.into());
        let mut text = section(&self.text_encoder, "t5");
        text.insert("is_encoder_decoder".into(), false.into());
        text.insert("use_cache".into(), false.into());
        let torch_dtype = match dtype {
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
            _ => "float32",
        };
        let mut config = json!({
            "architectures": [architecture],
            "audio_encoder": self.audio_encoder.section(),
            "decoder": decoder,
            "is_encoder_decoder": true,
            "model_type": kind,
            "text_encoder": text,
            "torch_dtype": torch_dtype,
        });
        if let Some(melody) = self.melody {
            config["chroma_length"] = melody.chroma_length.into();
            config["num_chroma"] = melody.num_chroma.into();
        }
        config
    }

    /// The `generation_config.json` that goes with every published MusicGen
    /// (HF `convert_musicgen_transformers.py`): sampling, guidance 3, 30 s.
    pub fn generation_json(&self) -> Value {
        let special = self.decoder.special_token();
        json!({
            "bos_token_id": special,
            "decoder_start_token_id": special,
            "do_sample": true,
            "guidance_scale": 3.0,
            "max_length": TRAINED_SECONDS * self.audio_encoder.frame_rate(),
            "pad_token_id": special,
        })
    }
}
