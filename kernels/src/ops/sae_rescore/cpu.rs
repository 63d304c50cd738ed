use super::{Params, near_ties};
use crate::{
    HostSlot,
    gemm::dots,
    ops::sae_encode::best::{Best, key},
};
use rayon::prelude::*;

/// Rows in parallel; a value is a dot product in one order, whatever travels with it.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, weight, bias, errors, candidates, scores, indices, values] = slots else {
        panic!("sae_rescore has eight slots")
    };
    let (x, weight, bias): (&[f32], &[f32], &[f32]) = (x.read(), weight.read(), bias.read());
    let (errors, candidates, scores): (&[f32], &[u32], &[f32]) =
        (errors.read(), candidates.read(), scores.read());
    let (indices, values): (&mut [u32], &mut [f32]) = (indices.write(), values.write());
    let [width, screened, k] = [p.width, p.screened, p.k].map(|n| n as usize);
    let places = indices.par_chunks_exact_mut(k).zip(values.par_chunks_exact_mut(k));
    let found = candidates.par_chunks_exact(screened).zip(scores.par_chunks_exact(screened));
    let rows = x.par_chunks_exact(width).zip(found);
    rows.zip(places).for_each(|((x, (candidates, scores)), (indices, values))| {
        let mut best = Best::of(k, Vec::with_capacity(screened));
        let mut offer = |feature: u32, value: f32| {
            best.spoilt |= value.is_nan();
            if value > 0.0 {
                best.keys.push(key(value, feature));
            }
        };
        let computed = |feature: u32| {
            let f = feature as usize;
            let [product] = dots([x], &weight[f * width..][..width]);
            product + bias[f]
        };
        match near_ties(&p, x, errors, scores) {
            None => (0..p.features).for_each(|feature| offer(feature, computed(feature))),
            Some((low, high)) => {
                let there = candidates.iter().zip(scores).filter(|(feature, _)| **feature < p.features);
                for (&feature, &score) in there.filter(|(_, score)| f64::from(**score) >= low) {
                    offer(feature, if f64::from(score) > high { score } else { computed(feature) });
                }
            }
        }
        Best::write([&best].into_iter(), indices, values);
    });
}
