use super::Params;
use crate::{
    HostSlot,
    gemm::{Store, matmul_seq, view, view_mut},
    ops::conv1d::host::{finish, padded, share},
};
use std::ops::Range;

/// Blocks of rows of `stride` raw steps, each in three stages while it is in cache: activate its input, multiply
/// straight into y, finish.
///
/// Rows that the trim cuts through, at most a few at either end, are made aside and copied in part.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, weight, bias, y] = slots else { panic!("conv_transpose1d has four slots") };
    let (x, weight, bias, y): (&[f32], &[f32], &[f32], &mut [f32]) =
        (x.read(), weight.read(), bias.read(), y.write());
    if y.is_empty() {
        return;
    }
    let (in_steps, ins, outs, taps) =
        (p.in_steps as usize, p.in_channels as usize, p.out_channels as usize, p.taps as usize);
    let (in_item, out_item) = (in_steps * ins, p.out_steps as usize * outs);
    let row = p.stride as usize * outs;
    let block = block_rows(&p);
    // y holds these of the raw values of an item, which are `row` a row
    let kept = p.trim_left as usize * outs..p.trim_left as usize * outs + out_item;
    let lead = taps - 1;

    let blocks = y.chunks_mut(out_item).enumerate().flat_map(|(b, mut y)| {
        let kept = kept.clone();
        (0..in_steps + lead).step_by(block).filter_map(move |first| {
            let rows = first..(first + block).min(in_steps + lead);
            let values = overlap(&(rows.start * row..rows.end * row), &kept);
            let part = y.split_off_mut(..values.len())?;
            (!part.is_empty()).then_some((b, rows, values.start, part))
        })
    });
    share(blocks, |scratch, (b, rows, start, y)| {
        let item = &x[b * in_item..(b + 1) * in_item];
        let source = |i: usize| i.checked_sub(lead).filter(|&step| step < in_steps);
        let span = (rows.start, rows.len() + lead, lead);
        let windows = padded(scratch, item, ins, span, p.input_activation, source);
        // windows of the rows in `part`, times the weight
        let product = |y: &mut [f32], part: Range<usize>| {
            let x = view(&windows[(part.start - rows.start) * ins..], part.len(), taps * ins, ins);
            let w = view(weight, row, taps * ins, taps * ins);
            matmul_seq(view_mut(y, part.len(), row, row), x, w, Store::Replace);
        };
        let end = start + y.len();
        let whole = start.div_ceil(row)..end / row;
        if whole.start < whole.end {
            product(&mut y[whole.start * row - start..whole.end * row - start], whole.clone());
        }
        for cut in rows.clone().filter(|j| !whole.contains(j)) {
            let values = overlap(&(cut * row..(cut + 1) * row), &(start..end));
            if !values.is_empty() {
                let mut aside = vec![0.0; row];
                product(&mut aside, cut..cut + 1);
                y[values.start - start..values.end - start]
                    .copy_from_slice(&aside[values.start - cut * row..values.end - cut * row]);
            }
        }
        finish(y, outs, bias, p.output_activation, &[]);
    });
}

/// Rows of a block: a function of the shape alone, so that results do not depend on the number of threads.
fn block_rows(p: &Params) -> usize {
    // of input and output together: about a core's second-level cache, and enough to pay for packing the weights
    const BYTES: usize = 1 << 20;
    let row = 4 * (p.in_channels as usize + p.stride as usize * p.out_channels as usize);
    (BYTES / row).clamp(128, 2048)
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}
