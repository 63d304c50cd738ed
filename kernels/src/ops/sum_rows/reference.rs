use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, y] = slots else { panic!("sum_rows has two slots") };
    let (x, y): (&[f32], &mut [f32]) = (x.read(), y.write());
    let mut sums = vec![0.0_f64; p.cols as usize];
    for r in 0..p.rows as usize {
        for (c, sum) in sums.iter_mut().enumerate() {
            *sum += f64::from(x[r * p.cols as usize + c]);
        }
    }
    for (y, sum) in y.iter_mut().zip(sums) {
        *y = (f64::from(p.factor) * sum) as f32;
    }
}
