use super::{Activation, Params};
use crate::{
    HostSlot,
    gemm::{Narrow, matmul_narrow_then, view, view_mut},
    ops::linear::finish,
};
use bytemuck::Pod;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

/// Rows that are widened, multiplied and rounded at a time, at most.
const ROWS: usize = 4096;

/// The product in f32 tiles of rows that are widened, then rounded, a part of x at a time.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_half::<f16, f16>(params, slots, |to, from| to.convert_from_f32_slice(from));
}

/// As [`f16()`], without the rounding.
pub(super) fn f16_f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_half::<f16, f32>(params, slots, <[f32]>::copy_from_slice);
}

/// As [`f16()`].
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_half::<bf16, bf16>(params, slots, |to, from| to.convert_from_f32_slice(from));
}

/// As [`f16()`], without the rounding.
pub(super) fn bf16_f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_half::<bf16, f32>(params, slots, <[f32]>::copy_from_slice);
}

fn linear_half<H: Narrow, Y: Pod + Send>(
    params: &[u8],
    slots: &mut [HostSlot<'_>],
    round: impl Fn(&mut [Y], &[f32]) + Sync,
) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [factors @ .., y] = slots else { panic!("linear_half has five slots") };
    let y = y.write();
    product::<H>(&p, factors, |first_row, sums| store(&p, y, first_row, sums, &round));
}

/// Hands `keep` the number of a row and the finished sums `[rows, outs]` from there on, part by part, of x, weight, bias and
/// residual.
pub(in crate::ops) fn product<H: Narrow>(
    p: &Params,
    factors: &[HostSlot<'_>],
    mut keep: impl FnMut(usize, &[f32]),
) {
    let [x, weight, bias, residual] = factors else { panic!("a product reads four slots") };
    let (x, weight): (&[H], &[H]) = (x.read(), weight.read());
    let (bias, residual): (&[f32], &[f32]) = (bias.read(), residual.read());
    let [rows, cols, outs, first, stride] =
        [p.rows, p.cols, p.outs, p.out_first, p.out_stride].map(|n| n as usize);
    if rows == 0 || outs == 0 {
        return;
    }
    let activation = Activation::from_code(p.activation);
    // equal parts: a last one of few rows would be summed in another order
    let part = rows.div_ceil(rows.div_ceil(ROWS));
    let mut wide = vec![0.0; part * cols];
    let mut sums = vec![0.0; part * outs];
    for first_row in (0..rows).step_by(part) {
        let part = part.min(rows - first_row);
        let (wide, sums) = (&mut wide[..part * cols], &mut sums[..part * outs]);
        let from = &x[first_row * cols..][..part * cols];
        wide.par_chunks_mut(65_536).zip(from.par_chunks(65_536)).for_each(|(to, from)| H::widen(from, to));
        let product = view_mut(sums, part, outs, outs);
        matmul_narrow_then(product, view(wide, part, cols, cols), weight, |row, out, values| {
            let at = (first_row + row) * stride + first + out;
            let bias = (p.has_bias == 1).then(|| &bias[out..][..values.len()]);
            let residual = (p.has_residual == 1).then(|| &residual[at..][..values.len()]);
            finish(activation, values, bias, residual);
        });
        keep(first_row, sums);
    }
}

/// Rounds finished sums `[rows, outs]` to where they lie in y, from row `first_row` on.
pub(in crate::ops) fn store<Y: Pod + Send>(
    p: &Params,
    y: &mut [Y],
    first_row: usize,
    sums: &[f32],
    round: impl Fn(&mut [Y], &[f32]) + Sync,
) {
    let [outs, first, stride] = [p.outs, p.out_first, p.out_stride].map(|n| n as usize);
    let rows_of_y = y[first_row * stride..].par_chunks_mut(stride);
    rows_of_y.zip(sums.par_chunks(outs)).for_each(|(y, sums)| round(&mut y[first..][..outs], sums));
}
