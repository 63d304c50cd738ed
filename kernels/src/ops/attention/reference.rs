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
    let [q, k, v, y] = slots else { panic!("attention has four slots") };
    let (q, k, v, y): (&[T], &[T], &[T], &mut [T]) = (q.read(), k.read(), v.read(), y.write());
    let [steps, heads, head_dim] = [p.steps, p.heads, p.head_dim].map(|n| n as usize);
    let at = |b: usize, s: usize, h: usize| ((b * steps + s) * heads + h) * head_dim;
    for b in 0..p.batch as usize {
        for h in 0..heads {
            for s in 0..steps {
                let seen = if p.causal == 1 { s + 1 } else { steps };
                let query = &q[at(b, s, h)..][..head_dim];
                let score = |t: usize| {
                    let key = &k[at(b, t, h)..][..head_dim];
                    let dot: f64 = query.iter().zip(key).map(|(&q, &k)| widen(q) * widen(k)).sum();
                    dot * f64::from(p.scale)
                };
                let scores: Vec<f64> = (0..seen).map(score).collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..head_dim {
                    let sum: f64 =
                        weights.iter().enumerate().map(|(t, w)| w * widen(v[at(b, t, h) + d])).sum();
                    y[at(b, s, h) + d] = round(sum / total);
                }
            }
        }
    }
}
