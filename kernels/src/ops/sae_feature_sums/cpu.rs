use super::{HISTORY, Params, SUMS};
use crate::HostSlot;
use crate::gemm::dots;
use crate::math::add_rows;
use rayon::prelude::*;

/// Features that a thread takes at a time: few have entries.
const TOGETHER: usize = 32;

/// Features in parallel; the sums over entries in f32, in their order.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [starts, order, values, grads, x, error, history, sums] = slots else {
        panic!("sae_feature_sums has eight slots")
    };
    let (starts, order): (&[u32], &[[u32; 2]]) = (starts.read(), order.read());
    let (values, grads): (&[f32], &[f32]) = (values.read(), grads.read());
    let (x, error): (&[f32], &[f32]) = (x.read(), error.read());
    let (history, sums): (&mut [u32], &mut [f32]) = (history.write(), sums.write());
    let (rows, width) = (p.rows as usize, p.width as usize);
    let of_feature = |at: usize, gradient: &mut [f32], history: &mut [u32], sums: &mut [f32]| {
        let entries = &order[starts[at] as usize..starts[at + 1] as usize];
        let (mut squares, mut bias) = (0.0_f32, 0.0_f32);
        if let &[[entry, row]] = entries {
            // by far the most: no sum to be made
            let (value, grad) = (values[entry as usize], grads[entry as usize]);
            let [error, x] =
                [&error[row as usize * width..][..width], &x[row as usize % rows * width..][..width]];
            let ([e], [x]) = (dots([error], error), dots([x], x));
            bias = grad;
            squares = value * value * e + grad * grad * x + bias * bias;
        } else if !entries.is_empty() {
            let sum = |weights: &[f32], table: &[f32], period: usize, into: &mut [f32]| {
                let row = |row: u32| &table[row as usize % period * width..][..width];
                into.fill(0.0);
                add_rows(into, entries.iter().map(|&[entry, at]| (weights[entry as usize], row(at))));
                let [square] = dots([into], into);
                square
            };
            let decoder = sum(values, error, usize::MAX, gradient);
            let encoder = sum(grads, x, rows, gradient);
            bias = entries.iter().map(|&[e, _]| grads[e as usize]).sum();
            squares = decoder + encoder + bias * bias;
        }
        let first = entries.iter().filter(|[_, row]| *row < p.rows).count();
        let steps = history[0].saturating_add(1);
        history[0] = if entries.is_empty() { steps } else { 0 };
        history[1] = if first == 0 { history[1].saturating_add(1) } else { 0 };
        history[2] = history[2].wrapping_add(first as u32);
        sums.copy_from_slice(&[squares, bias, steps as f32, entries.len() as f32]);
    };
    let blocks = history.par_chunks_mut(TOGETHER * HISTORY).zip(sums.par_chunks_mut(TOGETHER * SUMS));
    blocks.enumerate().for_each(|(block, (history, sums))| {
        let mut gradient = vec![0.0_f32; width];
        let each = history.chunks_exact_mut(HISTORY).zip(sums.chunks_exact_mut(SUMS));
        for (f, (history, sums)) in each.enumerate() {
            of_feature(p.first as usize + block * TOGETHER + f, &mut gradient, history, sums);
        }
    });
}
