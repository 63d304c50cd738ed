use super::Params;
use crate::HostSlot;
use rayon::prelude::*;

/// Rows in parallel, each threshold computed once.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [pre, log_threshold, indices, values] = slots else { panic!("sae_active has four slots") };
    let (pre, logs): (&[f32], &[f32]) = (pre.read(), log_threshold.read());
    let (indices, values): (&mut [u32], &mut [f32]) = (indices.write(), values.write());
    let features = p.features as usize;
    if features == 0 {
        return;
    }
    let thresholds: Vec<f32> = match p.has_threshold {
        1 => logs.iter().map(|log| log.exp()).collect(),
        _ => vec![0.0; features],
    };
    let places = indices.par_chunks_exact_mut(features).zip(values.par_chunks_exact_mut(features));
    pre.par_chunks_exact(features).zip(places).for_each(|(pre, (indices, values))| {
        let mut place = 0;
        for ((f, &value), &threshold) in (0..).zip(pre).zip(&thresholds) {
            // written in any case, and kept by going on
            (indices[place], values[place]) = (f, value);
            place += usize::from(value > threshold || value.is_nan());
        }
        indices[place..].fill(0);
        values[place..].fill(0.0);
    });
}
