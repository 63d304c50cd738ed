//! One folder an op.

pub mod adam;
pub mod add;
pub mod attention;
pub mod attention_cache;
pub mod attention_masked;
pub mod attention_merge;
pub mod cache_write;
pub mod capture;
pub mod capture_step;
pub mod column_sums;
pub mod conv1d;
pub mod conv_transpose1d;
pub mod delay_apply;
pub mod delay_revert;
pub mod delay_step;
pub mod edit_rows;
pub mod embed_sum;
pub mod fill;
pub mod gated_gelu;
pub mod layer_norm;
pub mod linear;
pub mod linear_half;
pub mod linear_half_capture;
pub mod linear_rows;
pub mod lstm;
pub mod rms_norm;
pub mod rvq_decode;
pub mod rvq_encode;
pub mod sae_active;
pub mod sae_adam_rows;
pub mod sae_add_threshold;
pub mod sae_batch_top_k;
pub mod sae_clip;
pub mod sae_dead_bias;
pub mod sae_decode;
pub mod sae_encode;
pub mod sae_feature_grad;
pub mod sae_feature_sums;
pub mod sae_group;
pub mod sae_merge;
pub mod sae_rescore;
pub mod sae_screen;
pub mod sae_threshold_grad;
pub mod sample;
pub mod scale;
pub mod sum_rows;

use crate::KernelInfo;

/// Every kernel. A kernel that is not listed does not exist.
pub static REGISTRY: &[&KernelInfo] = &[
    &adam::INFO,
    &add::INFO,
    &attention::F32,
    &attention::F16,
    &attention::BF16,
    &attention_masked::F32,
    &attention_masked::F16,
    &attention_masked::BF16,
    &attention_cache::F32,
    &attention_cache::F16,
    &attention_cache::BF16,
    &attention_merge::INFO,
    &cache_write::F32,
    &cache_write::F16,
    &cache_write::BF16,
    &capture::F32,
    &capture::F16,
    &capture::BF16,
    &capture_step::INFO,
    &column_sums::INFO,
    &conv1d::INFO,
    &conv_transpose1d::INFO,
    &delay_apply::INFO,
    &delay_revert::INFO,
    &delay_step::INFO,
    &edit_rows::INFO,
    &embed_sum::F32,
    &embed_sum::F16,
    &embed_sum::BF16,
    &fill::INFO,
    &gated_gelu::INFO,
    &layer_norm::F32,
    &layer_norm::F16,
    &layer_norm::BF16,
    &linear::F32,
    &linear::F16,
    &linear::BF16,
    &linear_half::F16,
    &linear_half::F16_F32,
    &linear_half::BF16,
    &linear_half::BF16_F32,
    &linear_half_capture::F16,
    &linear_half_capture::BF16,
    &linear_rows::F32,
    &linear_rows::F16,
    &linear_rows::BF16,
    &lstm::INFO,
    &rms_norm::INFO,
    &rvq_decode::INFO,
    &rvq_encode::INFO,
    &sae_active::INFO,
    &sae_adam_rows::INFO,
    &sae_add_threshold::INFO,
    &sae_batch_top_k::INFO,
    &sae_clip::INFO,
    &sae_dead_bias::INFO,
    &sae_decode::INFO,
    &sae_encode::INFO,
    &sae_feature_grad::INFO,
    &sae_feature_sums::INFO,
    &sae_group::INFO,
    &sae_merge::INFO,
    &sae_rescore::INFO,
    &sae_screen::INFO,
    &sae_threshold_grad::INFO,
    &sample::INFO,
    &scale::INFO,
    &sum_rows::INFO,
];
