use super::{Activation, Params};
use crate::{
    HostSlot,
    gemm::{Narrow, matmul_narrow_then, view, view_mut},
    ops::linear::finish,
};
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

fn linear_half<H: Narrow, Y: bytemuck::Pod + Send>(
    params: &[u8],
    slots: &mut [HostSlot<'_>],
    round: impl Fn(&mut [Y], &[f32]) + Sync,
) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, weight, bias, residual, y] = slots else { panic!("linear_half has five slots") };
    let (x, weight): (&[H], &[H]) = (x.read(), weight.read());
    let (bias, residual, y): (&[f32], &[f32], &mut [Y]) = (bias.read(), residual.read(), y.write());
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
        let rows_of_y = y[first_row * stride..][..part * stride].par_chunks_mut(stride);
        rows_of_y.zip(sums.par_chunks(outs)).for_each(|(y, sums)| round(&mut y[first..][..outs], sums));
    }
}
