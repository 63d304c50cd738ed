use super::{Activation, Params};
use crate::HostSlot;
use bytemuck::Pod;
use half::{bf16, f16};

/// The definition in f16.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_half(params, slots, f16::to_f64, f16::from_f64);
}

/// The definition from f16 into f32.
pub(in crate::ops) fn f16_f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_half(params, slots, f16::to_f64, |v| v as f32);
}

/// The definition in bf16.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_half(params, slots, bf16::to_f64, bf16::from_f64);
}

/// The definition from bf16 into f32.
pub(in crate::ops) fn bf16_f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_half(params, slots, bf16::to_f64, |v| v as f32);
}

fn linear_half<H: Pod, Y: Pod>(
    params: &[u8],
    slots: &mut [HostSlot<'_>],
    widen: impl Fn(H) -> f64,
    round: impl Fn(f64) -> Y,
) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, weight, bias, residual, y] = slots else { panic!("linear_half has five slots") };
    let wide = |slot: &HostSlot<'_>| -> Vec<f64> { slot.read::<H>().iter().map(|&v| widen(v)).collect() };
    let (x, weight) = (wide(x), wide(weight));
    let (bias, residual, y): (&[f32], &[f32], &mut [Y]) = (bias.read(), residual.read(), y.write());
    let cols = p.cols as usize;
    for r in 0..p.rows as usize {
        for o in 0..p.outs as usize {
            let mut sum = 0.0;
            for c in 0..cols {
                sum += x[r * cols + c] * weight[o * cols + c];
            }
            if p.has_bias == 1 {
                sum += f64::from(bias[o]);
            }
            sum = match Activation::from_code(p.activation) {
                Activation::None => sum,
                Activation::Gelu => 0.5 * sum * (1.0 + libm::erf(sum / std::f64::consts::SQRT_2)),
                Activation::Relu => sum.max(0.0),
                Activation::Elu if sum > 0.0 => sum,
                Activation::Elu => sum.exp_m1(),
            };
            let at = r * p.out_stride as usize + p.out_first as usize + o;
            if p.has_residual == 1 {
                sum += f64::from(residual[at]);
            }
            y[at] = round(sum);
        }
    }
}
