use super::Params;
use crate::HostSlot;

/// The definition, without rounding.
pub(super) fn f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    capture(params, slots, |v| v);
}

/// The definition for binary16; the rounding is that of the `half` crate.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    capture(params, slots, half::f16::from_f32);
}

/// The definition for bfloat16; the rounding is that of the `half` crate.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    capture(params, slots, half::bf16::from_f32);
}

fn capture<T: bytemuck::Pod>(params: &[u8], slots: &mut [HostSlot<'_>], round: impl Fn(f32) -> T) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, rows_index, y] = slots else { panic!("capture has three slots") };
    let (x, rows_index, y): (&[f32], &[u32], &mut [T]) = (x.read(), rows_index.read(), y.write());
    let cols = p.cols as usize;
    for i in 0..p.kept as usize {
        let row = if p.has_index == 1 { rows_index[i].min(p.rows - 1) as usize } else { i };
        for c in 0..cols {
            y[i * cols + c] = round(x[row * cols + c]);
        }
    }
}
