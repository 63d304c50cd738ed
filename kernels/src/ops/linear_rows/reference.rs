use super::{Activation, Params};
use crate::HostSlot;
use half::{bf16, f16};

/// The definition with f32 weights.
pub(super) fn f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_rows::<f32>(params, slots, f64::from);
}

/// The definition with f16 weights.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_rows::<f16>(params, slots, f16::to_f64);
}

/// The definition with bf16 weights.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_rows::<bf16>(params, slots, bf16::to_f64);
}

fn linear_rows<W: bytemuck::Pod>(params: &[u8], slots: &mut [HostSlot<'_>], widen: impl Fn(W) -> f64) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, a, b, c, bias, residual, y] = slots else { panic!("linear_rows has seven slots") };
    let (x, a, b, c): (&[f32], &[W], &[W], &[W]) = (x.read(), a.read(), b.read(), c.read());
    let (bias, residual, y): (&[f32], &[f32], &mut [f32]) = (bias.read(), residual.read(), y.write());
    let (cols, outs, outs_b) = (p.cols as usize, p.outs as usize, p.outs_b as usize);
    let bias_of = |o: usize| if p.has_bias == 1 { f64::from(bias[o]) } else { 0.0 };
    for r in 0..p.rows as usize {
        for o in 0..p.made() as usize {
            let (weight, row) = if o < outs {
                (a, o)
            } else if o < outs + outs_b {
                (b, o - outs)
            } else {
                (c, o - outs - outs_b)
            };
            let mut sum = 0.0;
            for i in 0..cols {
                sum += f64::from(x[r * cols + i]) * widen(weight[row * cols + i]);
            }
            sum += bias_of(o);
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
            y[at] = sum as f32;
        }
    }
}
