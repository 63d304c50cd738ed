use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [indices, values, threshold, y] = slots else { panic!("sae_add_threshold has four slots") };
    let (indices, values, threshold): (&[u32], &[f32], &[f32]) =
        (indices.read(), values.read(), threshold.read());
    let y: &mut [f32] = y.write();
    for at in 0..p.rows as usize * p.k as usize {
        let above = values[at] > 0.0 && indices[at] < p.features;
        y[at] = if above { values[at] + threshold[indices[at] as usize] } else { values[at] };
    }
}
