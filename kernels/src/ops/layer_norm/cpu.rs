use super::Params;
use crate::{HostSlot, math::vectorised};
use bytemuck::Pod;
use rayon::prelude::*;

/// Sums are kept in this many lanes, so that they vectorise and their order does not depend on the processor.
const LANES: usize = 16;

/// Leaves f32 as it is.
pub(super) fn f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    rows(params, slots, |v| v);
}

/// Rounds to binary16.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    rows(params, slots, half::f16::from_f32);
}

/// Rounds to bfloat16.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    rows(params, slots, half::bf16::from_f32);
}

/// Rows in parallel; two passes of f32 in [`LANES`] partial sums.
fn rows<T: Pod + Send>(params: &[u8], slots: &mut [HostSlot<'_>], round: impl Fn(f32) -> T + Sync) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, gamma, beta, y] = slots else { panic!("layer_norm has four slots") };
    let (x, gamma, beta, y): (&[f32], &[f32], &[f32], &mut [T]) =
        (x.read(), gamma.read(), beta.read(), y.write());
    let cols = p.cols as usize;
    if cols == 0 {
        return;
    }
    y.par_chunks_exact_mut(cols).zip(x.par_chunks_exact(cols)).for_each(|(y, x)| {
        vectorised(
            #[inline(always)]
            || {
                let n = cols as f32;
                let mean = sum(x, |v| v) / n;
                let var = sum(x, |v| (v - mean) * (v - mean)) / n;
                let scale = 1.0 / (var + p.eps).sqrt();
                for (((y, &x), &gamma), &beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
                    *y = round(((x - mean) * scale).mul_add(gamma, beta));
                }
            },
        );
    });
}

#[inline(always)]
fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let mut chunks = row.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += f(v);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += f(v);
    }
    lanes.iter().sum()
}
