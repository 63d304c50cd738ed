use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [pre, log_threshold, indices, values] = slots else { panic!("sae_active has four slots") };
    let (pre, logs): (&[f32], &[f32]) = (pre.read(), log_threshold.read());
    let (indices, values): (&mut [u32], &mut [f32]) = (indices.write(), values.write());
    indices.fill(0);
    values.fill(0.0);
    let features = p.features as usize;
    for r in 0..p.rows as usize {
        let mut place = r * features;
        for f in 0..features {
            let threshold = if p.has_threshold == 1 { logs[f].exp() } else { 0.0 };
            let value = pre[r * features + f];
            if value > threshold || value.is_nan() {
                (indices[place], values[place]) = (f as u32, value);
                place += 1;
            }
        }
    }
}
