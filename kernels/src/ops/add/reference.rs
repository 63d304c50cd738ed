use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, v, y] = slots else { panic!("add has three slots") };
    let (x, v, y): (&[f32], &[f32], &mut [f32]) = (x.read(), v.read(), y.write());
    let cols = p.cols as usize;
    for r in 0..p.rows as usize {
        for c in 0..cols {
            let at = r * cols + c;
            let v = v[if p.v_rows == 1 { at } else { c }];
            let sum = f64::from(x[at]) + f64::from(p.alpha) * f64::from(v);
            y[at] = if p.alpha == 0.0 { x[at] } else { sum as f32 };
        }
    }
}
