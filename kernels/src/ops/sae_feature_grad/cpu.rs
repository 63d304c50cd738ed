use super::{Params, STATS};
use crate::HostSlot;
use crate::gemm::dots;
use rayon::prelude::*;

/// Rows in parallel.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [indices, values, w_dec, error, penalty, grads, stats] = slots else {
        panic!("sae_feature_grad has seven slots")
    };
    let (indices, values, w_dec): (&[u32], &[f32], &[f32]) = (indices.read(), values.read(), w_dec.read());
    let (error, penalty): (&[f32], &[f32]) = (error.read(), penalty.read());
    let (grads, stats): (&mut [f32], &mut [f32]) = (grads.write(), stats.write());
    let (k, width) = (p.k as usize, p.width as usize);
    let of_row = |r: usize, grads: &mut [f32], stats: &mut [f32]| {
        let error = &error[r * width..][..width];
        let (mut sum, mut active) = (0.0_f32, 0.0_f32);
        let places = indices[r * k..][..k].iter().zip(&values[r * k..][..k]);
        for ((&index, &value), grad) in places.zip(grads) {
            *grad = 0.0;
            if value > 0.0 {
                let [product] = dots([error], &w_dec[index as usize * width..][..width]);
                *grad = product + penalty[0];
                sum += value;
                active += 1.0;
            }
        }
        let [square] = dots([error], error);
        stats.copy_from_slice(&[square, sum, active]);
    };
    let stats = stats.par_chunks_exact_mut(STATS).enumerate();
    if k == 0 {
        stats.for_each(|(r, stats)| of_row(r, &mut [], stats));
    } else {
        stats.zip(grads.par_chunks_exact_mut(k)).for_each(|((r, stats), grads)| of_row(r, grads, stats));
    }
}
