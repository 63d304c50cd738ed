use super::{Params, settled};
use crate::{
    HostSlot,
    gemm::{TILED_ROWS, dots},
    ops::sae_encode::{
        self,
        best::{Best, key},
    },
};
use bytemuck::Zeroable;
use rayon::prelude::*;

/// Rows in parallel; a value is a dot product in one order, whatever travels with it. Rows that are gone through whole are left to
/// the encoder in f32.
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
    let rows = x.par_chunks_exact(width).zip(found).zip(places).enumerate();
    let unsettled = rows.filter_map(|(row, ((x, (candidates, scores)), (indices, values)))| {
        let compute = |feature: u32| {
            let f = feature as usize;
            let [product] = dots([x], &weight[f * width..][..width]);
            product + bias[f]
        };
        let Some(pre) = settled(&p, [x, errors], candidates, scores, compute) else { return Some(row) };
        let above = pre.iter().filter(|(_, value)| *value > 0.0);
        let best = Best::of(k, above.map(|&(feature, value)| key(value, feature)).collect());
        Best::write([&best].into_iter(), indices, values);
        None
    });
    let unsettled: Vec<usize> = unsettled.collect();
    if unsettled.is_empty() {
        return;
    }
    let mut whole: Vec<f32> = unsettled.iter().flat_map(|row| &x[row * width..][..width]).copied().collect();
    let count = unsettled.len().max(TILED_ROWS);
    whole.resize(count * width, 0.0);
    let (mut found, mut found_values) = (vec![0_u32; count * k], vec![0.0_f32; count * k]);
    let encoder = sae_encode::Params {
        rows: count as u32,
        width: p.width,
        features: p.features,
        k: p.k,
        span: p.features,
        ..Zeroable::zeroed()
    };
    let read = [whole.as_slice(), weight, bias].map(bytemuck::cast_slice).map(HostSlot::Read);
    let written = [bytemuck::cast_slice_mut(&mut found), bytemuck::cast_slice_mut(&mut found_values)];
    let mut slots: Vec<HostSlot<'_>> = read.into_iter().chain(written.map(HostSlot::Write)).collect();
    let encode = sae_encode::INFO.cpu.unwrap_or(sae_encode::INFO.reference);
    encode(bytemuck::bytes_of(&encoder), &mut slots);
    for (i, row) in unsettled.into_iter().enumerate() {
        indices[row * k..][..k].copy_from_slice(&found[i * k..][..k]);
        values[row * k..][..k].copy_from_slice(&found_values[i * k..][..k]);
    }
}
