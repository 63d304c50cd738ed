use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [y] = slots else { panic!("fill has one slot") };
    y.write::<f32>().fill(p.value);
}
