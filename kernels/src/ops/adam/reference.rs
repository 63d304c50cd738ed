use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [param, moments, grad, rates] = slots else { panic!("adam has four slots") };
    let (param, moments): (&mut [f32], &mut [f32]) = (param.write(), moments.write());
    let (grad, rates): (&[f32], &[f32]) = (grad.read(), rates.read());
    let elements = p.elements as usize;
    let [factor, step, root, _] = [0, 1, 2, 3].map(|i| f64::from(rates[i]));
    for i in 0..elements {
        let g = factor * f64::from(grad[i * p.stride as usize + p.column as usize]);
        let v = f64::from(p.keep2) * f64::from(moments[i]) + f64::from(p.fresh2) * g * g;
        moments[i] = v as f32;
        let mut m = g;
        if p.count == 2 {
            m = f64::from(p.keep1) * f64::from(moments[elements + i]) + f64::from(p.fresh1) * g;
            moments[elements + i] = m as f32;
        }
        param[i] = (f64::from(param[i]) - step * m / (root * v.sqrt() + f64::from(p.eps))) as f32;
    }
}
