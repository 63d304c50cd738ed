//! One folder an op.

pub mod add;
pub mod attention;
pub mod capture;
pub mod conv1d;
pub mod conv_transpose1d;
pub mod delay_apply;
pub mod delay_revert;
pub mod embed_sum;
pub mod fill;
pub mod layer_norm;
pub mod linear;
pub mod linear_half;
pub mod linear_half_capture;
pub mod lstm;
pub mod rvq_decode;
pub mod rvq_encode;
pub mod scale;

use crate::KernelInfo;

/// Every kernel. A kernel that is not listed does not exist.
pub static REGISTRY: &[&KernelInfo] = &[
    &add::INFO,
    &attention::F32,
    &attention::F16,
    &attention::BF16,
    &capture::F32,
    &capture::F16,
    &capture::BF16,
    &conv1d::INFO,
    &conv_transpose1d::INFO,
    &delay_apply::INFO,
    &delay_revert::INFO,
    &embed_sum::INFO,
    &fill::INFO,
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
    &lstm::INFO,
    &rvq_decode::INFO,
    &rvq_encode::INFO,
    &scale::INFO,
];
