use super::Params;
use crate::{
    HostSlot,
    gemm::dots,
    ops::sae_encode::best::{Best, key},
};
use rayon::prelude::*;

/// Rows in parallel; a value is a dot product in one order, whatever travels with it.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, weight, bias, candidates, indices, values] = slots else { panic!("sae_rescore has six slots") };
    let (x, weight, bias): (&[f32], &[f32], &[f32]) = (x.read(), weight.read(), bias.read());
    let candidates: &[u32] = candidates.read();
    let (indices, values): (&mut [u32], &mut [f32]) = (indices.write(), values.write());
    let [width, screened, k] = [p.width, p.screened, p.k].map(|n| n as usize);
    let places = indices.par_chunks_exact_mut(k).zip(values.par_chunks_exact_mut(k));
    let rows = x.par_chunks_exact(width).zip(candidates.par_chunks_exact(screened));
    rows.zip(places).for_each(|((x, candidates), (indices, values))| {
        let mut best = Best::of(k, Vec::with_capacity(screened));
        for &feature in candidates.iter().filter(|&&feature| feature < p.features) {
            let f = feature as usize;
            let [product] = dots([x], &weight[f * width..][..width]);
            let value = product + bias[f];
            best.spoilt |= value.is_nan();
            if value > 0.0 {
                best.keys.push(key(value, feature));
            }
        }
        Best::write([&best].into_iter(), indices, values);
    });
}
