use super::Params;
use crate::HostSlot;
use crate::ops::sae_feature_sums::HISTORY;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [bias, history, y] = slots else { panic!("sae_dead_bias has three slots") };
    let (bias, history, y): (&[f32], &[u32], &mut [f32]) = (bias.read(), history.read(), y.write());
    for f in 0..p.features as usize {
        y[f] = if history[f * HISTORY + 1] >= p.after { bias[f] } else { f32::NEG_INFINITY };
    }
}
