use super::Params;
use crate::HostSlot;

/// The definition. Accumulates in f64 so that it is closer to the truth than any kernel.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, weight, bias, residual, y] = slots else { panic!("conv1d has five slots") };
    let (x, weight): (&[f32], &[f32]) = (x.read(), weight.read());
    let (bias, residual, y): (&[f32], &[f32], &mut [f32]) = (bias.read(), residual.read(), y.write());
    let (ins, outs, kernel) = (p.in_channels as usize, p.out_channels as usize, p.kernel as usize);
    let x: Vec<f64> = x.iter().map(|&v| activated(p.input_activation, f64::from(v))).collect();
    for b in 0..p.batch as usize {
        for t in 0..p.out_steps as usize {
            for o in 0..outs {
                let mut sum = if p.has_bias == 1 { f64::from(bias[o]) } else { 0.0 };
                for k in 0..kernel {
                    let Some(j) = source(&p, t * p.stride as usize + k * p.dilation as usize) else {
                        continue;
                    };
                    for c in 0..ins {
                        let w = f64::from(weight[(o * kernel + k) * ins + c]);
                        sum += x[(b * p.in_steps as usize + j) * ins + c] * w;
                    }
                }
                let at = (b * p.out_steps as usize + t) * outs + o;
                let rest = if p.has_residual == 1 { f64::from(residual[at]) } else { 0.0 };
                y[at] = (activated(p.output_activation, sum) + rest) as f32;
            }
        }
    }
}

/// Step of x that stands at step `i` of the padded input; none where that is zero.
fn source(p: &Params, i: usize) -> Option<usize> {
    let (j, steps) = (i as i64 - i64::from(p.pad_left), i64::from(p.in_steps));
    let last = i64::from(p.reflect_steps) - 1;
    let j = match p.pad_mode {
        1 if j < 0 => -j,
        1 if j > last => 2 * last - j,
        2 => j.clamp(0, steps - 1),
        _ => j,
    };
    usize::try_from(j).ok().filter(|_| j < steps)
}

fn activated(activation: u32, v: f64) -> f64 {
    if activation == 1 && v < 0.0 { v.exp_m1() } else { v }
}
