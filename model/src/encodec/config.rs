//! EnCodec's configuration: every field of HF `configuration_encodec.py`, its defaults and what follows from them.
//!
//! A configuration can be valid and still describe a codec that this engine does not run (48 kHz: chunked, loudness
//! normalised, GroupNorm, stereo); [`EncodecConfig::check_supported`] tells the two apart.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::{Check, MAX_DIM, from_section, section};
use crate::error::Result;

/// What a convolution reads beyond the ends of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PadMode {
    /// Zeros.
    Constant,
    /// The signal mirrored, without its edge sample.
    Reflect,
    /// The edge sample repeated.
    Replicate,
}

/// How the convolutions are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormType {
    /// Weights are stored as direction and magnitude, and folded at load.
    WeightNorm,
    /// GroupNorm over time after every convolution (48 kHz).
    TimeGroupNorm,
}

/// EnCodec's hyper-parameters. Sizes are counts; rates are in Hz; bandwidths in kb/s. Absent fields take HF's defaults,
/// which are those of `facebook/encodec_24khz`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EncodecConfig {
    /// Channels of the audio that goes in and comes out.
    pub audio_channels: usize,
    /// Seconds of a chunk; `None` when a clip is encoded whole.
    pub chunk_length_s: Option<f64>,
    /// Width of a codebook entry; `None` means `hidden_size`.
    pub codebook_dim: Option<usize>,
    /// Entries of one codebook, a power of two.
    pub codebook_size: usize,
    /// Factor by which a residual branch is narrower.
    pub compress: usize,
    /// Dilation of residual layer `j` is this to the power `j`.
    pub dilation_growth_rate: usize,
    /// Width of the latent frames.
    pub hidden_size: usize,
    /// Taps of the first convolution.
    pub kernel_size: usize,
    /// Taps of the last convolution.
    pub last_kernel_size: usize,
    /// Normalisation of the convolutions.
    pub norm_type: NormType,
    /// Whether the audio's loudness is normalised before encoding.
    pub normalize: bool,
    /// Filters of the first convolution; each ratio doubles them.
    pub num_filters: usize,
    /// Stacked LSTM layers.
    pub num_lstm_layers: usize,
    /// Residual layers before each ratio.
    pub num_residual_layers: usize,
    /// Fraction by which chunks overlap.
    pub overlap: Option<f64>,
    /// What convolutions read beyond the ends.
    pub pad_mode: PadMode,
    /// Taps of the convolutions in residual branches.
    pub residual_kernel_size: usize,
    /// Samples per second.
    pub sampling_rate: u32,
    /// Bandwidths that the codec can encode at; the last one sets the number of codebooks.
    pub target_bandwidths: Vec<f64>,
    /// Share of a transposed convolution's excess that is cut on the right, when causal.
    pub trim_right_ratio: f64,
    /// Strides in the decoder's order; the encoder walks them backwards.
    pub upsampling_ratios: Vec<usize>,
    /// Whether convolutions see only the past.
    pub use_causal_conv: bool,
    /// Whether a residual layer's skip is a convolution rather than the identity.
    pub use_conv_shortcut: bool,
}

impl Default for EncodecConfig {
    fn default() -> Self {
        Self {
            audio_channels: 1,
            chunk_length_s: None,
            codebook_dim: None,
            codebook_size: 1024,
            compress: 2,
            dilation_growth_rate: 2,
            hidden_size: 128,
            kernel_size: 7,
            last_kernel_size: 7,
            norm_type: NormType::WeightNorm,
            normalize: false,
            num_filters: 32,
            num_lstm_layers: 2,
            num_residual_layers: 1,
            overlap: None,
            pad_mode: PadMode::Reflect,
            residual_kernel_size: 3,
            sampling_rate: 24_000,
            target_bandwidths: vec![1.5, 3.0, 6.0, 12.0, 24.0],
            trim_right_ratio: 1.0,
            upsampling_ratios: vec![8, 5, 4, 2],
            use_causal_conv: true,
            use_conv_shortcut: true,
        }
    }
}

impl EncodecConfig {
    /// The 32 kHz codec of MusicGen: 50 frames a second, 4 codebooks of 2048.
    pub fn encodec_32khz() -> Self {
        Self {
            codebook_size: 2048,
            num_filters: 64,
            sampling_rate: 32_000,
            target_bandwidths: vec![2.2],
            upsampling_ratios: vec![8, 5, 4, 4],
            use_causal_conv: false,
            use_conv_shortcut: false,
            ..Self::default()
        }
    }

    /// Reads and validates a standalone codec's `config.json`.
    pub(crate) fn from_json(file: &Path, json: Value) -> Result<Self> {
        let config: Self = from_section(file, json, "")?;
        config.validate(file, "")?;
        Ok(config.canonical())
    }

    /// The section of a `config.json` that HF writes for these values.
    pub(crate) fn section(&self) -> Map<String, Value> {
        let mut map = section(self, "encodec");
        map.insert("codebook_dim".into(), self.codebook_dim().into());
        map
    }

    /// The `config.json` of a codec by itself, for weights of type F32.
    pub fn to_json(&self) -> Value {
        let mut map = self.section();
        map.insert("architectures".into(), json!(["EncodecModel"]));
        map.insert("torch_dtype".into(), "float32".into());
        Value::Object(map)
    }

    /// The same codec with what `validate` found to be redundant left out, so that equal codecs compare equal.
    pub(crate) fn canonical(self) -> Self {
        Self { codebook_dim: None, ..self }
    }

    /// Checks that the values can belong to some EnCodec; `prefix` names the section in messages.
    ///
    /// # Errors
    /// Names the file, the field, the value and the allowed range.
    pub fn validate(&self, file: &Path, prefix: &str) -> Result<()> {
        let check = Check { file, prefix };
        for (field, value) in [
            ("audio_channels", self.audio_channels),
            ("codebook_size", self.codebook_size),
            ("compress", self.compress),
            ("dilation_growth_rate", self.dilation_growth_rate),
            ("hidden_size", self.hidden_size),
            ("kernel_size", self.kernel_size),
            ("last_kernel_size", self.last_kernel_size),
            ("num_filters", self.num_filters),
            ("num_lstm_layers", self.num_lstm_layers),
            ("residual_kernel_size", self.residual_kernel_size),
        ] {
            check.dim(field, value)?;
        }
        check.that(self.sampling_rate > 0, "sampling_rate", self.sampling_rate, || "at least 1 Hz".into())?;
        let ratios = format!("{:?}", self.upsampling_ratios);
        let hop = self.upsampling_ratios.iter().try_fold(1usize, |hop, &ratio| {
            hop.checked_mul(ratio).filter(|&hop| (1..=MAX_DIM).contains(&hop))
        });
        check.that((1..=16).contains(&self.upsampling_ratios.len()), "upsampling_ratios", &ratios, || {
            "1 to 16 ratios".into()
        })?;
        check.that(hop.is_some(), "upsampling_ratios", &ratios, || {
            format!("positive ratios whose product is at most {MAX_DIM}")
        })?;
        check.that(self.bottleneck_width() <= MAX_DIM, "num_filters", self.num_filters, || {
            format!("at most {MAX_DIM} after doubling once for each of `upsampling_ratios`")
        })?;
        check.that(self.compress <= self.num_filters, "compress", self.compress, || {
            format!("at most `num_filters` ({})", self.num_filters)
        })?;
        check.that(
            self.num_residual_layers <= 32,
            "num_residual_layers",
            self.num_residual_layers,
            || "at most 32".into(),
        )?;
        let widest = u32::try_from(self.num_residual_layers.saturating_sub(1))
            .ok()
            .and_then(|power| self.dilation_growth_rate.checked_pow(power));
        check.that(
            widest.is_some_and(|d| d <= MAX_DIM),
            "dilation_growth_rate",
            self.dilation_growth_rate,
            || format!("a dilation of at most {MAX_DIM} in the last of {} layers", self.num_residual_layers),
        )?;
        check.that(self.codebook_size.is_power_of_two(), "codebook_size", self.codebook_size, || {
            "a power of two (HF modeling_encodec.py)".into()
        })?;
        check.that(self.codebook_size >= 2, "codebook_size", self.codebook_size, || "at least 2".into())?;
        check.that(self.codebook_dim() == self.hidden_size, "codebook_dim", self.codebook_dim(), || {
            format!("`hidden_size` ({}): latents are quantised unprojected", self.hidden_size)
        })?;
        let bandwidths = format!("{:?}", self.target_bandwidths);
        let rising = self.target_bandwidths.windows(2).all(|pair| pair[0] < pair[1]);
        let positive = self.target_bandwidths.iter().all(|b| b.is_finite() && (0.0..=1e6).contains(b));
        check.that(
            !self.target_bandwidths.is_empty() && rising && positive,
            "target_bandwidths",
            &bandwidths,
            || "a rising list of kb/s".into(),
        )?;
        check.that((1..=1024).contains(&self.num_quantizers()), "target_bandwidths", &bandwidths, || {
            format!(
                "1 to 1024 codebooks of {} bits at {} frames a second, found {}",
                self.codebook_bits(),
                self.frame_rate(),
                self.num_quantizers()
            )
        })?;
        check.that(
            (0.0..=1.0).contains(&self.trim_right_ratio),
            "trim_right_ratio",
            self.trim_right_ratio,
            || "0 to 1".into(),
        )?;
        check.that(
            self.use_causal_conv || self.trim_right_ratio == 1.0,
            "trim_right_ratio",
            self.trim_right_ratio,
            || "1 when `use_causal_conv` is false (HF modeling_encodec.py)".into(),
        )
    }

    /// Refuses, by name, codecs that this engine does not run; `prefix` names the section in messages.
    ///
    /// # Errors
    /// Names the first field that belongs to a 48 kHz codec.
    pub fn check_supported(&self, file: &Path, prefix: &str) -> Result<()> {
        let check = Check { file, prefix };
        let reason = |what: &str| {
            format!("{what}; 48 kHz EnCodec is not supported, the mono 24 kHz and 32 kHz configurations are")
        };
        check.supported(
            self.norm_type == NormType::WeightNorm,
            "norm_type",
            "\"time_group_norm\"",
            &reason("codecs with GroupNorm are not run"),
        )?;
        check.supported(
            !self.normalize,
            "normalize",
            self.normalize,
            &reason("loudness is not normalised"),
        )?;
        let chunk = self.chunk_length_s.map_or_else(String::new, |s| s.to_string());
        check.supported(
            self.chunk_length_s.is_none(),
            "chunk_length_s",
            chunk,
            &reason("audio is not encoded in overlapping chunks"),
        )?;
        check.supported(
            self.audio_channels == 1,
            "audio_channels",
            self.audio_channels,
            &reason("the codec takes one channel (stereo MusicGen runs it once a channel)"),
        )
    }

    /// Width of a codebook entry.
    pub fn codebook_dim(&self) -> usize {
        self.codebook_dim.unwrap_or(self.hidden_size)
    }

    /// Samples of one frame: the product of the ratios.
    pub fn hop_length(&self) -> usize {
        self.upsampling_ratios.iter().product()
    }

    /// Frames a second as HF counts them: rounded up to a whole number.
    pub fn frame_rate(&self) -> usize {
        (self.sampling_rate as usize).div_ceil(self.hop_length())
    }

    /// Frames a second, exact; what a position's time is computed from.
    pub fn frames_per_second(&self) -> f64 {
        f64::from(self.sampling_rate) / self.hop_length() as f64
    }

    /// Frames that `samples` samples encode to. Every stride pads its input up to a multiple of itself, so the chain of
    /// divisions rounds up once over the whole hop.
    pub fn frames_for_samples(&self, samples: usize) -> usize {
        samples.div_ceil(self.hop_length())
    }

    /// Samples that `frames` frames decode to.
    pub fn samples_for_frames(&self, frames: usize) -> usize {
        frames * self.hop_length()
    }

    /// Bits of one code.
    pub fn codebook_bits(&self) -> usize {
        // ceil(log2(size)); sizes are powers of two of at least 2
        self.codebook_size.next_power_of_two().trailing_zeros() as usize
    }

    /// Channels at the bottleneck, which is also the LSTM's width: `num_filters` doubled once for each ratio.
    pub fn bottleneck_width(&self) -> usize {
        self.num_filters << self.upsampling_ratios.len().min(32)
    }

    /// Codebooks that the checkpoint holds: those of the highest bandwidth (HF `num_quantizers`).
    pub fn num_quantizers(&self) -> usize {
        let highest = self.target_bandwidths.last().copied().unwrap_or(0.0);
        let bits_a_second = (self.frame_rate() * self.codebook_bits()) as f64;
        // Python's `//` takes the remainder first, so a quotient that only rounds up to a whole number stays below it
        let bits = 1000.0 * highest;
        floor_to_count(((bits - bits % bits_a_second) / bits_a_second).round())
    }

    /// Codebooks used at `bandwidth` kb/s (HF `get_num_quantizers_for_bandwidth`): at least one, at most all.
    pub fn quantizers_for_bandwidth(&self, bandwidth: f64) -> usize {
        let bits_a_second = (self.codebook_bits() * self.frame_rate()) as f64;
        floor_to_count(bandwidth * 1000.0 / bits_a_second).clamp(1, self.num_quantizers())
    }

    /// Codebooks used when no bandwidth is asked for: those of the lowest one (HF `EncodecModel.encode`).
    pub fn default_quantizers(&self) -> usize {
        self.target_bandwidths.first().map_or(self.num_quantizers(), |&b| self.quantizers_for_bandwidth(b))
    }
}

/// A non-negative float rounded down to a count; NaN and negatives are 0.
fn floor_to_count(value: f64) -> usize {
    // float-to-integer `as` saturates: no value is misread, and `validate` bounds the result
    value.floor() as usize
}
