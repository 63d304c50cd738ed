use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, y] = slots else { panic!("scale has two slots") };
    for (y, &x) in y.write::<f32>().iter_mut().zip(x.read::<f32>()) {
        *y = if p.factor == 1.0 { x } else { p.factor * x };
    }
}
