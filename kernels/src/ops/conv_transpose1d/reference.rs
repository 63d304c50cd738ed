use super::Params;
use crate::HostSlot;

/// The definition. Accumulates in f64 so that it is closer to the truth than any kernel.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, weight, bias, y] = slots else { panic!("conv_transpose1d has four slots") };
    let (x, weight, bias, y): (&[f32], &[f32], &[f32], &mut [f32]) =
        (x.read(), weight.read(), bias.read(), y.write());
    let (in_steps, out_steps, taps) = (p.in_steps as usize, p.out_steps as usize, p.taps as usize);
    let (ins, outs, stride) = (p.in_channels as usize, p.out_channels as usize, p.stride as usize);
    let x: Vec<f64> = x.iter().map(|&v| activated(p.input_activation, f64::from(v))).collect();
    for b in 0..p.batch as usize {
        for t in 0..out_steps {
            let raw = t + p.trim_left as usize;
            let (j, phase) = (raw / stride, raw % stride);
            for o in 0..outs {
                let mut sum = if p.has_bias == 1 { f64::from(bias[o]) } else { 0.0 };
                for i in 0..taps {
                    // step j - (taps - 1) + i of x
                    let Some(step) = (j + i + 1).checked_sub(taps).filter(|&step| step < in_steps) else {
                        continue;
                    };
                    for c in 0..ins {
                        let w = f64::from(weight[((phase * outs + o) * taps + i) * ins + c]);
                        sum += x[(b * in_steps + step) * ins + c] * w;
                    }
                }
                y[(b * out_steps + t) * outs + o] = activated(p.output_activation, sum) as f32;
            }
        }
    }
}

fn activated(activation: u32, v: f64) -> f64 {
    if activation == 1 && v < 0.0 { v.exp_m1() } else { v }
}
