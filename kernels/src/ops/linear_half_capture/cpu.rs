use super::Params;
use crate::HostSlot;
use crate::gemm::Narrow;
use crate::ops::linear_half::cpu::{product, store};
use half::{bf16, f16, slice::HalfFloatSliceExt};

/// The product as it is without a capture; its sums are stored twice.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_half_capture::<f16>(params, slots, |to, from| to.convert_from_f32_slice(from));
}

/// As [`f16()`].
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_half_capture::<bf16>(params, slots, |to, from| to.convert_from_f32_slice(from));
}

fn linear_half_capture<H: Narrow>(
    params: &[u8],
    slots: &mut [HostSlot<'_>],
    round: impl Fn(&mut [H], &[f32]) + Sync,
) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [factors @ .., y, kept] = slots else { panic!("linear_half_capture has six slots") };
    let (y, kept) = (y.write(), kept.write());
    product::<H>(&p, factors, |first_row, sums| {
        store(&p, y, first_row, sums, <[f32]>::copy_from_slice);
        store(&p, kept, first_row, sums, &round);
    });
}
