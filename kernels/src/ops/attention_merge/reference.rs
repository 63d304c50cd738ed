use super::Params;
use crate::HostSlot;

/// The definition, accumulating in f64.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [parts, y] = slots else { panic!("attention_merge has two slots") };
    let (parts, y): (&[f32], &mut [f32]) = (parts.read(), y.write());
    let [chunks, head_dim] = [p.chunks, p.head_dim].map(|n| n as usize);
    for head in 0..p.rows as usize * p.heads as usize {
        let at = |c: usize, i: usize| f64::from(parts[(head * chunks + c) * (head_dim + 2) + i]);
        let top = (0..chunks).map(|c| at(c, head_dim)).fold(f64::from(f32::MIN), f64::max);
        let weight = |c: usize| (at(c, head_dim) - top).exp();
        let total: f64 = (0..chunks).map(|c| weight(c) * at(c, head_dim + 1)).sum();
        for d in 0..head_dim {
            let sum: f64 = (0..chunks).map(|c| weight(c) * at(c, d)).sum();
            y[head * head_dim + d] = if total == 0.0 { 0.0 } else { (sum / total) as f32 };
        }
    }
}
