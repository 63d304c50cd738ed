use super::{Activation, Params};
use crate::{
    HostSlot,
    gemm::{Narrow, dots},
    ops::linear::finish,
};
use half::{bf16, f16};
use rayon::prelude::*;

/// Outs of a task.
const TASK: usize = 32;

/// Every weight is read once, dot by dot.
pub(super) fn f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_rows(params, slots, |from: &[f32], to| to.copy_from_slice(from));
}

/// As [`f32`], the weights widened row by row.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_rows(params, slots, f16::widen);
}

/// As [`f32`], the weights widened row by row.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_rows(params, slots, bf16::widen);
}

fn linear_rows<W: bytemuck::Pod + Sync>(
    params: &[u8],
    slots: &mut [HostSlot<'_>],
    widen: impl Fn(&[W], &mut [f32]) + Sync,
) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, a, b, c, bias, residual, y] = slots else { panic!("linear_rows has seven slots") };
    let (x, a, b, c): (&[f32], &[W], &[W], &[W]) = (x.read(), a.read(), b.read(), c.read());
    let (bias, residual): (&[f32], &[f32]) = (bias.read(), residual.read());
    let [cols, outs, outs_b, made, first, stride] =
        [p.cols, p.outs, p.outs_b, p.made(), p.out_first, p.out_stride].map(|n| n as usize);
    if p.rows == 0 || made == 0 {
        return;
    }
    let weight = |o: usize| {
        let (weight, row) = match o {
            _ if o < outs => (a, o),
            _ if o < outs + outs_b => (b, o - outs),
            _ => (c, o - outs - outs_b),
        };
        &weight[row * cols..][..cols]
    };
    let activation = Activation::from_code(p.activation);
    let rows: Vec<&mut [f32]> =
        y.write().chunks_mut(stride).map(|row| &mut row[first..first + made]).collect();
    let mut tasks: Vec<Vec<&mut [f32]>> = (0..made.div_ceil(TASK)).map(|_| Vec::new()).collect();
    for row in rows {
        tasks.iter_mut().zip(row.chunks_mut(TASK)).for_each(|(task, part)| task.push(part));
    }
    tasks.into_par_iter().enumerate().for_each(|(task, mut parts)| {
        let from = task * TASK;
        let mut wide = vec![0.0; cols];
        for o in 0..parts[0].len() {
            widen(weight(from + o), &mut wide);
            for (r, part) in parts.iter_mut().enumerate() {
                [part[o]] = dots([&x[r * cols..][..cols]], &wide);
            }
        }
        for (r, part) in parts.iter_mut().enumerate() {
            let n = part.len();
            let bias = (p.has_bias == 1).then(|| &bias[from..][..n]);
            let residual = (p.has_residual == 1).then(|| &residual[r * stride + first + from..][..n]);
            finish(activation, part, bias, residual);
        }
    });
}
