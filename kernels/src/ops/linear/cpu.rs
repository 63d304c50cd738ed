use super::{Activation, Params};
use crate::{
    HostSlot,
    gemm::{Narrow, Store, matmul_narrow_then, matmul_then, view, view_mut},
    math::{elu, gelu, vectorised},
};
use faer::{MatMut, MatRef};
use half::{bf16, f16};

/// The product in tiles; bias, activation and residual while a tile is in cache.
pub(super) fn f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear(params, slots, |p, y, x, weight: &[f32], finish| {
        let [cols, outs] = [p.cols, p.outs].map(|n| n as usize);
        matmul_then(y, x, view(weight, outs, cols, cols), Store::Replace, finish);
    });
}

/// As [`f32`], the weight widened in panels.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear(params, slots, narrow::<f16>);
}

/// As [`f32`], the weight widened in panels.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear(params, slots, narrow::<bf16>);
}

/// What completes a part of a row: the row, its first out, the sums.
type Finish<'a> = &'a (dyn Fn(usize, usize, &mut [f32]) + Sync);

fn narrow<W: Narrow>(_: &Params, y: MatMut<'_, f32>, x: MatRef<'_, f32>, weight: &[W], finish: Finish<'_>) {
    matmul_narrow_then(y, x, weight, finish);
}

fn linear<W: bytemuck::Pod>(
    params: &[u8],
    slots: &mut [HostSlot<'_>],
    multiply: impl Fn(&Params, MatMut<'_, f32>, MatRef<'_, f32>, &[W], Finish<'_>),
) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, weight, bias, residual, y] = slots else { panic!("linear has five slots") };
    let (bias, residual): (&[f32], &[f32]) = (bias.read(), residual.read());
    let [rows, cols, outs, first, stride] =
        [p.rows, p.cols, p.outs, p.out_first, p.out_stride].map(|n| n as usize);
    if rows == 0 || outs == 0 {
        return;
    }
    let y = view_mut(&mut y.write()[first..], rows, outs, stride);
    let x = view(x.read(), rows, cols, cols);
    let activation = Activation::from_code(p.activation);
    multiply(&p, y, x, weight.read(), &|row, out, values| {
        let bias = (p.has_bias == 1).then(|| &bias[out..][..values.len()]);
        let residual = (p.has_residual == 1).then(|| &residual[row * stride + first + out..][..values.len()]);
        finish(activation, values, bias, residual);
    });
}

/// Bias, activation and residual on part of a row.
pub(in crate::ops) fn finish(
    activation: Activation,
    values: &mut [f32],
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
) {
    vectorised(
        #[inline(always)]
        || {
            if let Some(bias) = bias {
                for (v, bias) in values.iter_mut().zip(bias) {
                    *v += bias;
                }
            }
            match activation {
                Activation::None => {}
                Activation::Gelu => values.iter_mut().for_each(|v| *v = gelu(*v)),
                // `max` would turn NaN into 0
                Activation::Relu => values.iter_mut().for_each(|v| *v = if *v < 0.0 { 0.0 } else { *v }),
                Activation::Elu => values.iter_mut().for_each(|v| *v = elu(*v)),
            }
            if let Some(residual) = residual {
                for (v, residual) in values.iter_mut().zip(residual) {
                    *v += residual;
                }
            }
        },
    );
}
