use super::Params;
use crate::HostSlot;
use half::{bf16, f16};

/// The definition, accumulating in f64.
pub(super) fn f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    attention::<f32>(params, slots, f64::from);
}

/// The definition for f16.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    attention(params, slots, f16::to_f64);
}

/// The definition for bf16.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    attention(params, slots, bf16::to_f64);
}

fn attention<T: bytemuck::Pod>(params: &[u8], slots: &mut [HostSlot<'_>], widen: impl Fn(T) -> f64) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [q, k_cache, v_cache, pages, positions, y] = slots else { panic!("attention_cache has six slots") };
    let (q, k_cache, v_cache): (&[f32], &[T], &[T]) = (q.read(), k_cache.read(), v_cache.read());
    let (pages, positions, y): (&[u32], &[u32], &mut [f32]) = (pages.read(), positions.read(), y.write());
    let [heads, head_dim, q_cols, page_steps, pages_per_row, chunk, chunks] =
        [p.heads, p.head_dim, p.q_cols, p.page_steps, p.pages_per_row, p.chunk, p.chunks].map(|n| n as usize);
    for r in 0..p.rows as usize {
        let pages = &pages[r * pages_per_row..][..pages_per_row];
        let there = pages.iter().take_while(|&&page| page < p.pages_held).count();
        let keys = (positions[r] as usize + p.extra as usize).min(there * page_steps);
        for h in 0..heads {
            let query = &q[r * q_cols + h * head_dim..][..head_dim];
            let at = |t: usize| {
                let place = pages[t / page_steps] as usize * page_steps + t % page_steps;
                (place * heads + h) * head_dim
            };
            for c in 0..chunks {
                let part = (c * chunk).min(keys)..((c + 1) * chunk).min(keys);
                let score = |t: usize| {
                    let key = &k_cache[at(t)..][..head_dim];
                    let dot: f64 = query.iter().zip(key).map(|(&q, &k)| f64::from(q) * widen(k)).sum();
                    dot * f64::from(p.scale)
                };
                let scores: Vec<f64> = part.clone().map(score).collect();
                let top = scores.iter().copied().fold(f64::from(f32::MIN), f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
                let total: f64 = weights.iter().sum();
                let sum = |d: usize| -> f64 {
                    weights.iter().zip(part.clone()).map(|(w, t)| w * widen(v_cache[at(t) + d])).sum()
                };
                if chunks > 1 {
                    let y = &mut y[((r * heads + h) * chunks + c) * (head_dim + 2)..][..head_dim + 2];
                    for (d, y) in y[..head_dim].iter_mut().enumerate() {
                        *y = sum(d) as f32;
                    }
                    y[head_dim] = top as f32;
                    y[head_dim + 1] = total as f32;
                } else {
                    for d in 0..head_dim {
                        y[(r * heads + h) * head_dim + d] =
                            if part.is_empty() { 0.0 } else { (sum(d) / total) as f32 };
                    }
                }
            }
        }
    }
}
