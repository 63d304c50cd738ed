//! The T5 text encoder's configuration: the encoder's fields of HF `configuration_t5.py` and their defaults.
//!
//! Only what the encoder reads is kept; decoder-side fields of a T5 file are ignored.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::Check;
use crate::error::Result;
use crate::t5::buckets::bucket;

/// T5's hyper-parameters. Absent fields take HF's defaults, which are those of `t5-small`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct T5Config {
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Width of one attention head.
    pub d_kv: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Activation of the feed-forward layer; `gated-` in front means a gated one.
    pub feed_forward_proj: String,
    /// Added to the mean square in RMS normalisation.
    pub layer_norm_epsilon: f64,
    /// Attention heads.
    pub num_heads: usize,
    /// Encoder blocks.
    pub num_layers: usize,
    /// Distance from which all relative positions share a bucket.
    pub relative_attention_max_distance: usize,
    /// Buckets of relative positions.
    pub relative_attention_num_buckets: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
}

impl Default for T5Config {
    fn default() -> Self {
        Self {
            d_ff: 2048,
            d_kv: 64,
            d_model: 512,
            feed_forward_proj: "relu".into(),
            layer_norm_epsilon: 1e-6,
            num_heads: 8,
            num_layers: 6,
            relative_attention_max_distance: 128,
            relative_attention_num_buckets: 32,
            vocab_size: 32_128,
        }
    }
}

impl T5Config {
    /// `t5-base`, MusicGen's text encoder.
    pub fn t5_base() -> Self {
        Self { d_ff: 3072, d_model: 768, num_heads: 12, num_layers: 12, ..Self::default() }
    }

    /// `t5-large`, AudioGen's text encoder.
    pub fn t5_large() -> Self {
        Self { d_ff: 4096, d_model: 1024, num_heads: 16, num_layers: 24, ..Self::default() }
    }

    /// Width of queries, keys and values: all heads together.
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.d_kv
    }

    /// The bucket of a key `relative` positions behind its query; negative is before it.
    pub fn position_bucket(&self, relative: i64) -> usize {
        let (buckets, distance) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        bucket(relative, buckets, distance)
    }

    /// Checks that the values can belong to some T5; `prefix` names the section in messages.
    ///
    /// # Errors
    /// Names the file, the field, the value and the allowed range.
    pub fn validate(&self, file: &Path, prefix: &str) -> Result<()> {
        let check = Check { file, prefix };
        for (field, value) in [
            ("d_ff", self.d_ff),
            ("d_kv", self.d_kv),
            ("d_model", self.d_model),
            ("num_heads", self.num_heads),
            ("num_layers", self.num_layers),
            ("relative_attention_max_distance", self.relative_attention_max_distance),
            ("relative_attention_num_buckets", self.relative_attention_num_buckets),
            ("vocab_size", self.vocab_size),
        ] {
            check.dim(field, value)?;
        }
        let buckets = self.relative_attention_num_buckets;
        // half of the buckets for each direction, half of those exact, the rest logarithmic up to the distance
        check.that(
            buckets >= 4 && buckets.is_multiple_of(2) && self.relative_attention_max_distance > buckets / 4,
            "relative_attention_num_buckets",
            buckets,
            || {
                format!(
                    "an even number of at least 4, a quarter of it below `relative_attention_max_distance` ({})",
                    self.relative_attention_max_distance
                )
            },
        )?;
        check.that(
            self.layer_norm_epsilon.is_finite() && self.layer_norm_epsilon > 0.0,
            "layer_norm_epsilon",
            self.layer_norm_epsilon,
            || "a positive number".into(),
        )
    }

    /// Refuses text encoders that this engine does not run; `prefix` names the section in messages.
    ///
    /// # Errors
    /// Names `feed_forward_proj` unless it is the ReLU of T5 v1.0 or the gated GELU of v1.1.
    pub fn check_supported(&self, file: &Path, prefix: &str) -> Result<FeedForward> {
        let kind = self.feed_forward();
        Check { file, prefix }.supported(
            kind.is_some(),
            "feed_forward_proj",
            format!("{:?}", self.feed_forward_proj),
            "only \"relu\" (T5 v1.0) and \"gated-gelu\" (v1.1) are supported",
        )?;
        Ok(kind.expect("checked above"))
    }

    /// The kind of feed-forward layer, if it is one that this engine runs.
    pub fn feed_forward(&self) -> Option<FeedForward> {
        match self.feed_forward_proj.as_str() {
            "relu" => Some(FeedForward::Relu),
            "gated-gelu" => Some(FeedForward::GatedGelu),
            _ => None,
        }
    }
}

/// Kinds of feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// `wo(relu(wi(x)))`: T5 v1.0.
    Relu,
    /// `wo(gelu_new(wi_0(x)) * wi_1(x))`: T5 v1.1.
    GatedGelu,
}
