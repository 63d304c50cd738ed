use super::{Params, STATS};
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [indices, values, w_dec, error, penalty, grads, stats] = slots else {
        panic!("sae_feature_grad has seven slots")
    };
    let (indices, values, w_dec): (&[u32], &[f32], &[f32]) = (indices.read(), values.read(), w_dec.read());
    let (error, penalty): (&[f32], &[f32]) = (error.read(), penalty.read());
    let (grads, stats): (&mut [f32], &mut [f32]) = (grads.write(), stats.write());
    let (k, width) = (p.k as usize, p.width as usize);
    for r in 0..p.rows as usize {
        let error = &error[r * width..][..width];
        let (mut sum, mut active) = (0.0_f64, 0);
        for at in r * k..(r + 1) * k {
            grads[at] = 0.0;
            if values[at] > 0.0 {
                let direction = &w_dec[indices[at] as usize * width..][..width];
                let dot: f64 = error.iter().zip(direction).map(|(&e, &d)| f64::from(e) * f64::from(d)).sum();
                grads[at] = (dot + f64::from(penalty[0])) as f32;
                sum += f64::from(values[at]);
                active += 1;
            }
        }
        let square: f64 = error.iter().map(|&e| f64::from(e) * f64::from(e)).sum();
        stats[r * STATS..][..STATS].copy_from_slice(&[square as f32, sum as f32, active as f32]);
    }
}
