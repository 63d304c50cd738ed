use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [values, threshold, keep] = slots else { panic!("sae_batch_top_k has three slots") };
    let (values, threshold, keep): (&mut [f32], &mut [f32], &[f32]) =
        (values.write(), threshold.write(), keep.read());
    let mut above: Vec<f32> = values.iter().copied().filter(|&v| v > 0.0).collect();
    above.sort_unstable_by(|a, b| b.total_cmp(a));
    let Some(&least) = above.get((p.most as usize).min(above.len()).wrapping_sub(1)) else { return };
    for value in values.iter_mut() {
        if *value > 0.0 && *value < least {
            *value = 0.0;
        }
    }
    let keep = f64::from(keep[0]);
    threshold[0] = (keep * f64::from(threshold[0]) + (1.0 - keep) * f64::from(least)) as f32;
}
