use super::Params;
use crate::HostSlot;
use crate::ops::sae_feature_sums::SUMS;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [sums, bias_grad, schedule, rates] = slots else { panic!("sae_clip has four slots") };
    let (sums, bias_grad): (&[f32], &[f32]) = (sums.read(), bias_grad.read());
    let (schedule, rates): (&[f32], &mut [f32]) = (schedule.read(), rates.write());
    let features: f64 = (0..p.features as usize).map(|f| f64::from(sums[f * SUMS])).sum();
    let bias: f64 = bias_grad.iter().map(|&g| f64::from(g) * f64::from(g)).sum();
    let scale = f64::from(p.scale);
    let norm = scale * (features + bias).sqrt();
    let most = f64::from(p.max_norm) / (norm + 1e-6);
    rates[0] = if p.max_norm > 0.0 && most < 1.0 { scale * most } else { scale } as f32;
    rates[1] = schedule[0];
    rates[2] = schedule[1];
    rates[3] = norm as f32;
}
