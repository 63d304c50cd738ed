use super::Params;
use crate::{
    HostSlot,
    gemm::{Narrow, Store, product, row_mut, view, view_mut},
    math::{exp, vectorised},
};
use faer::{MatMut, MatRef, prelude::ReborrowMut};
use half::{bf16, f16};
use rayon::prelude::*;

/// Queries of a task: enough to pay for packing the keys, few enough to waste little above the diagonal.
const QUERIES: usize = 64;

/// Keys of a tile: a tile of scores, 128 KiB, stays in the second cache.
const KEYS: usize = 512;

/// Values that a task widens or rounds.
const PART: usize = 1 << 14;

/// Partial results of a row, so that its loops vectorise in an order that does not depend on the processor.
const LANES: usize = 16;

/// Tasks of one head and [`QUERIES`] queries in parallel; keys in tiles, with a running maximum and sum.
pub(super) fn f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let [q, k, v, y] = slots else { panic!("attention has four slots") };
    attention(params, [q.read(), k.read(), v.read()], y.write());
}

/// As [`f32`], on widened copies; y is rounded at the end.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    narrow(params, slots, f16::from_f32);
}

/// As [`f32`], on widened copies; y is rounded at the end.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    narrow(params, slots, bf16::from_f32);
}

fn narrow<T: Narrow>(params: &[u8], slots: &mut [HostSlot<'_>], round: impl Fn(f32) -> T + Sync) {
    let [q, k, v, y] = slots else { panic!("attention has four slots") };
    let wide = [q, k, v].map(|slot| {
        let narrow: &[T] = slot.read();
        let mut wide = vec![0.0; narrow.len()];
        let parts = wide.par_chunks_mut(PART).zip(narrow.par_chunks(PART));
        parts.for_each(|(wide, narrow)| T::widen(narrow, wide));
        wide
    });
    let y: &mut [T] = y.write();
    let mut wide_y = vec![0.0; y.len()];
    attention(params, wide.each_ref().map(Vec::as_slice), &mut wide_y);
    y.par_chunks_mut(PART).zip(wide_y.par_chunks(PART)).for_each(|(y, wide_y)| {
        for (y, &wide_y) in y.iter_mut().zip(wide_y) {
            *y = round(wide_y);
        }
    });
}

fn attention(params: &[u8], [q, k, v]: [&[f32]; 3], y: &mut [f32]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [steps, heads, head_dim] = [p.steps, p.heads, p.head_dim].map(|n| n as usize);
    let width = heads * head_dim;
    if y.is_empty() {
        return;
    }
    y.par_chunks_exact_mut(steps * width).enumerate().for_each(|(b, y)| {
        let [q, k, v] = [q, k, v].map(|x| view(&x[b * steps * width..], steps, width, width));
        view_mut(y, steps, width, width).par_row_chunks_mut(QUERIES).enumerate().for_each(|(block, y)| {
            let first = block * QUERIES;
            y.par_col_chunks_mut(head_dim).enumerate().for_each(|(h, y)| {
                let q = q.subrows(first, y.nrows()).subcols(h * head_dim, head_dim);
                let (k, v) = (k.subcols(h * head_dim, head_dim), v.subcols(h * head_dim, head_dim));
                attend(&p, first, q, k, v, y);
            });
        });
    });
}

/// One head of a block of queries, the first of which is at position `first`.
fn attend(
    p: &Params,
    first: usize,
    q: MatRef<'_, f32>,
    k: MatRef<'_, f32>,
    v: MatRef<'_, f32>,
    mut y: MatMut<'_, f32>,
) {
    let queries = q.nrows();
    let keys = if p.causal == 1 { first + queries } else { k.nrows() };
    let mut scores = vec![0.0; queries * KEYS.min(keys)];
    let mut tops = [f32::NEG_INFINITY; QUERIES];
    let mut totals = [0.0_f32; QUERIES];
    for tile in (0..keys).step_by(KEYS) {
        let width = KEYS.min(keys - tile);
        let scores = &mut scores[..queries * width];
        product(
            view_mut(scores, queries, width, width),
            q,
            k.subrows(tile, width).transpose(),
            Store::Replace,
        );
        for (i, scores) in scores.chunks_exact_mut(width).enumerate() {
            let seen = if p.causal == 1 { (first + i + 1).saturating_sub(tile).min(width) } else { width };
            let (scores, unseen) = scores.split_at_mut(seen);
            unseen.fill(0.0);
            if seen == 0 {
                continue;
            }
            let top = tops[i].max(scaled_max(scores, p.scale));
            let total = exponentials(scores, p.scale, top);
            let shrink = (tops[i] - top).exp();
            tops[i] = top;
            totals[i] = totals[i].mul_add(shrink, total);
            // the first tile overwrites y, and NaN times 0 would stay NaN
            if tile > 0 {
                scale(row_mut(&mut y, i), shrink);
            }
        }
        let store = if tile == 0 { Store::Replace } else { Store::Add };
        product(y.rb_mut(), view(scores, queries, width, width), v.subrows(tile, width), store);
    }
    for (i, total) in totals[..queries].iter().enumerate() {
        scale(row_mut(&mut y, i), 1.0 / total);
    }
}

/// The largest of `scale * score`; NaN is passed over here and caught by the sum.
fn scaled_max(scores: &[f32], scale: f32) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            let mut lanes = [f32::NEG_INFINITY; LANES];
            let (whole, rest) = scores.as_chunks::<LANES>();
            for chunk in whole {
                for (lane, &score) in lanes.iter_mut().zip(chunk) {
                    *lane = lane.max(scale * score);
                }
            }
            for (lane, &score) in lanes.iter_mut().zip(rest) {
                *lane = lane.max(scale * score);
            }
            lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
        },
    )
}

/// Replaces every score by `e^(scale * score - top)` and returns their sum.
fn exponentials(scores: &mut [f32], scale: f32, top: f32) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            let mut lanes = [0.0_f32; LANES];
            let (whole, rest) = scores.as_chunks_mut::<LANES>();
            for chunk in whole {
                for (lane, score) in lanes.iter_mut().zip(chunk) {
                    *score = exp(scale * *score - top);
                    *lane += *score;
                }
            }
            for (lane, score) in lanes.iter_mut().zip(rest) {
                *score = exp(scale * *score - top);
                *lane += *score;
            }
            lanes.into_iter().sum()
        },
    )
}

fn scale(values: &mut [f32], factor: f32) {
    for v in values {
        *v *= factor;
    }
}
