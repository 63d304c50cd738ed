use super::Params;
use crate::HostSlot;
use crate::ops::linear_half::reference;

/// The definition for binary16.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let [product @ .., kept] = slots else { panic!("linear_half_capture has six slots") };
    reference::f16_f32(params, product);
    capture(params, product, kept, half::f16::from_f32);
}

/// The definition for bfloat16.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let [product @ .., kept] = slots else { panic!("linear_half_capture has six slots") };
    reference::bf16_f32(params, product);
    capture(params, product, kept, half::bf16::from_f32);
}

fn capture<H: bytemuck::Pod>(
    params: &[u8],
    product: &[HostSlot<'_>],
    kept: &mut HostSlot<'_>,
    round: impl Fn(f32) -> H,
) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [.., y] = product else { panic!("linear_half has five slots") };
    let (y, kept): (&[f32], &mut [H]) = (y.read(), kept.write());
    for r in 0..p.rows as usize {
        for o in 0..p.outs as usize {
            let at = r * p.out_stride as usize + p.out_first as usize + o;
            kept[at] = round(y[at]);
        }
    }
}
