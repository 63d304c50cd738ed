use super::Params;
use crate::HostSlot;

/// The definition, accumulating in f64.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, gamma, y] = slots else { panic!("rms_norm has three slots") };
    let (x, gamma, y): (&[f32], &[f32], &mut [f32]) = (x.read(), gamma.read(), y.write());
    let cols = p.cols as usize;
    for r in 0..p.rows as usize {
        let row = &x[r * cols..][..cols];
        let squares: f64 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        let root = (squares / cols as f64 + f64::from(p.eps)).sqrt();
        for c in 0..cols {
            y[r * cols + c] = (f64::from(row[c]) / root * f64::from(gamma[c])) as f32;
        }
    }
}
