use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [a, b, y] = slots else { panic!("gated_gelu has three slots") };
    let (a, b, y): (&[f32], &[f32], &mut [f32]) = (a.read(), b.read(), y.write());
    for i in 0..p.elements as usize {
        let (a, b) = (f64::from(a[i]), f64::from(b[i]));
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (a + 0.044715 * a * a * a);
        y[i] = (0.5 * a * (1.0 + inner.tanh()) * b) as f32;
    }
}
