use super::Params;
use crate::HostSlot;
use crate::gemm::dots;
use crate::math::{add_rows, vectorised};
use crate::ops::sae_feature_sums::SUMS;
use rayon::prelude::*;

/// Features that a thread takes at a time: few have entries.
const TOGETHER: usize = 32;

/// Features in parallel; the sums over entries in f32, in their order.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [table, moments, starts, order, coefs, inputs, sums, rates] = slots else {
        panic!("sae_adam_rows has eight slots")
    };
    let (table, moments): (&mut [f32], &mut [f32]) = (table.write(), moments.write());
    let (starts, order): (&[u32], &[[u32; 2]]) = (starts.read(), order.read());
    let (coefs, inputs): (&[f32], &[f32]) = (coefs.read(), inputs.read());
    let (sums, rates): (&[f32], &[f32]) = (sums.read(), rates.read());
    let (rows, width, count) = (p.rows as usize, p.width as usize, p.count as usize);
    if width == 0 {
        return;
    }
    let of_feature = |f: usize, gradient: &mut [f32], row: &mut [f32], moments: &mut [f32]| {
        let at = p.first as usize + f;
        let entries = &order[starts[at] as usize..starts[at + 1] as usize];
        if entries.is_empty() {
            return;
        }
        gradient.fill(0.0);
        let input = |row: u32| &inputs[row as usize % rows * width..][..width];
        add_rows(gradient, entries.iter().map(|&[entry, row]| (coefs[entry as usize], input(row))));
        let steps = f64::from(sums[f * SUMS + 2]);
        let keep = |log: f32| (steps * f64::from(log)).exp2() as f32;
        let (second, first) = moments.split_at_mut(width);
        step(&p, [keep(p.log_keep1), keep(p.log_keep2)], rates, gradient, row, second, first);
        let [square] = dots([row], row);
        if p.unit == 1 && square > 0.0 {
            let length = square.sqrt();
            row.iter_mut().for_each(|v| *v /= length);
        }
    };
    let blocks = table.par_chunks_mut(TOGETHER * width).zip(moments.par_chunks_mut(TOGETHER * count * width));
    blocks.enumerate().for_each(|(block, (table, moments))| {
        let mut gradient = vec![0.0_f32; width];
        let each = table.chunks_exact_mut(width).zip(moments.chunks_exact_mut(count * width));
        for (f, (row, moments)) in each.enumerate() {
            of_feature(block * TOGETHER + f, &mut gradient, row, moments);
        }
    });
}

/// The move of a row, of its gradient and moments; without a first moment `first` is empty.
fn step(
    p: &Params,
    [keep1, keep2]: [f32; 2],
    rates: &[f32],
    gradient: &mut [f32],
    row: &mut [f32],
    second: &mut [f32],
    first: &mut [f32],
) {
    vectorised(
        #[inline(always)]
        || {
            for (g, v) in gradient.iter_mut().zip(second.iter_mut()) {
                *g *= rates[0];
                *v = keep2 * *v + p.fresh2 * *g * *g;
            }
            for (g, m) in gradient.iter_mut().zip(first) {
                *m = keep1 * *m + p.fresh1 * *g;
                *g = *m;
            }
            for ((w, g), v) in row.iter_mut().zip(gradient).zip(second) {
                *w -= rates[1] * *g / (rates[2] * v.sqrt() + p.eps);
            }
        },
    );
}
