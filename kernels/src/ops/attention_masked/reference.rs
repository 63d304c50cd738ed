use super::Params;
use crate::HostSlot;
use half::{bf16, f16};

/// The definition, accumulating in f64.
pub(super) fn f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    attention::<f32>(params, slots, f64::from, |y| y as f32);
}

/// The definition for f16, rounding y once.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    attention(params, slots, f16::to_f64, f16::from_f64);
}

/// The definition for bf16, rounding y once.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    attention(params, slots, bf16::to_f64, bf16::from_f64);
}

fn attention<T: bytemuck::Pod>(
    params: &[u8],
    slots: &mut [HostSlot<'_>],
    widen: impl Fn(T) -> f64,
    round: impl Fn(f64) -> T,
) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [q, k, v, lengths, bias, y] = slots else { panic!("attention_masked has six slots") };
    let (q, k, v, y): (&[T], &[T], &[T], &mut [T]) = (q.read(), k.read(), v.read(), y.write());
    let (lengths, bias): (&[u32], &[f32]) = (lengths.read(), bias.read());
    let [q_steps, k_steps, heads, head_dim] = [p.q_steps, p.k_steps, p.heads, p.head_dim].map(|n| n as usize);
    for (b, &length) in lengths.iter().enumerate() {
        let keys = k_steps.min(length as usize);
        for h in 0..heads {
            let key_at = |t: usize| ((b * k_steps + t) * heads + h) * head_dim;
            for s in 0..q_steps {
                let query_at = ((b * q_steps + s) * heads + h) * head_dim;
                let score = |t: usize| {
                    let pairs = q[query_at..][..head_dim].iter().zip(&k[key_at(t)..][..head_dim]);
                    let dot: f64 = pairs.map(|(&q, &k)| widen(q) * widen(k)).sum();
                    let bias = if p.has_bias == 1 { bias[(h * q_steps + s) * k_steps + t] } else { 0.0 };
                    f64::from(p.scale) * dot + f64::from(bias)
                };
                let scores: Vec<f64> = (0..keys).map(score).collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..head_dim {
                    let terms = weights.iter().enumerate().map(|(t, w)| w * widen(v[key_at(t) + d]));
                    let sum: f64 = terms.sum();
                    y[query_at + d] = round(if keys == 0 { 0.0 } else { sum / total });
                }
            }
        }
    }
}
