use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [pre, log_threshold, w_dec, error, penalty, grad] = slots else {
        panic!("sae_threshold_grad has six slots")
    };
    let (pre, logs, w_dec): (&[f32], &[f32], &[f32]) = (pre.read(), log_threshold.read(), w_dec.read());
    let (error, penalty, grad): (&[f32], &[f32], &mut [f32]) = (error.read(), penalty.read(), grad.write());
    let (features, width) = (p.features as usize, p.width as usize);
    for f in 0..features {
        let threshold = logs[f].exp();
        let mut sum = 0.0_f64;
        for r in 0..p.rows as usize {
            if (pre[r * features + f] - threshold).abs() < p.bandwidth / 2.0 {
                let error = error[r * width..][..width].iter();
                let dot: f64 =
                    error.zip(&w_dec[f * width..]).map(|(&e, &w)| f64::from(e) * f64::from(w)).sum();
                sum += f64::from(threshold) * dot + f64::from(penalty[0]);
            }
        }
        grad[f] = (-f64::from(threshold) / f64::from(p.bandwidth) * sum) as f32;
    }
}
