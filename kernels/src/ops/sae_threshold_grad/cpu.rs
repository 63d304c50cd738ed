use super::Params;
use crate::HostSlot;
use crate::gemm::dots;
use rayon::prelude::*;

/// Features of a task: their pre-activations of a row are neighbours.
const TOGETHER: usize = 32;

/// Features in parallel, some at a time along the rows.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [pre, log_threshold, w_dec, error, penalty, grad] = slots else {
        panic!("sae_threshold_grad has six slots")
    };
    let (pre, logs, w_dec): (&[f32], &[f32], &[f32]) = (pre.read(), log_threshold.read(), w_dec.read());
    let (error, penalty, grad): (&[f32], &[f32], &mut [f32]) = (error.read(), penalty.read(), grad.write());
    let (features, width) = (p.features as usize, p.width as usize);
    grad.par_chunks_mut(TOGETHER).enumerate().for_each(|(task, grads)| {
        let first = task * TOGETHER;
        let thresholds: Vec<f32> = logs[first..][..grads.len()].iter().map(|log| log.exp()).collect();
        grads.fill(0.0);
        for r in 0..p.rows as usize {
            let pre = &pre[r * features + first..][..grads.len()];
            for (i, (&pre, &threshold)) in pre.iter().zip(&thresholds).enumerate() {
                if (pre - threshold).abs() < p.bandwidth / 2.0 {
                    let [dot] = dots([&error[r * width..][..width]], &w_dec[(first + i) * width..][..width]);
                    grads[i] += threshold * dot + penalty[0];
                }
            }
        }
        grads.iter_mut().zip(&thresholds).for_each(|(grad, threshold)| *grad *= -threshold / p.bandwidth);
    });
}
