use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, positions, history] = slots else { panic!("capture_step has three slots") };
    let (x, positions, history): (&[f32], &[u32], &mut [f32]) = (x.read(), positions.read(), history.write());
    let (cols, columns) = (p.cols as usize, p.columns as usize);
    for r in 0..p.rows as usize {
        let column = positions[r] as usize % columns;
        for c in 0..cols {
            history[(r * columns + column) * cols + c] = x[r * cols + c];
        }
    }
}
