use super::{MAX_HEAD_DIM, Params};
use crate::{
    HostSlot,
    gemm::Wide,
    math::{exp, vectorised},
};
use half::{bf16, f16};
use rayon::prelude::*;

/// Partial results of a sum, so that its loop vectorises in an order that does not depend on the processor.
const LANES: usize = 16;

/// A task for each chunk of a head.
pub(super) fn f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    attention::<f32>(params, slots);
}

/// As [`f32`]; keys and values are widened as they are read.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    attention::<f16>(params, slots);
}

/// As [`f32`]; keys and values are widened as they are read.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    attention::<bf16>(params, slots);
}

fn attention<T: Wide>(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [q, k_cache, v_cache, pages, positions, y] = slots else { panic!("attention_cache has six slots") };
    let (q, k_cache, v_cache): (&[f32], &[T], &[T]) = (q.read(), k_cache.read(), v_cache.read());
    let (pages, positions, y): (&[u32], &[u32], &mut [f32]) = (pages.read(), positions.read(), y.write());
    let [heads, head_dim, q_cols, page_steps, pages_per_row, chunk, chunks] =
        [p.heads, p.head_dim, p.q_cols, p.page_steps, p.pages_per_row, p.chunk, p.chunks].map(|n| n as usize);
    let width = heads * head_dim;
    let keys: Vec<usize> = (0..p.rows as usize)
        .map(|r| {
            let pages = &pages[r * pages_per_row..][..pages_per_row];
            let there = pages.iter().take_while(|&&page| page < p.pages_held).count();
            (positions[r] as usize + p.extra as usize).min(there * page_steps)
        })
        .collect();
    let item = if chunks > 1 { head_dim + 2 } else { head_dim };
    y.par_chunks_exact_mut(item).enumerate().for_each(|(number, y)| {
        let (r, h, c) = (number / chunks / heads, number / chunks % heads, number % chunks);
        let part = Part {
            query: &q[r * q_cols + h * head_dim..][..head_dim],
            pages: &pages[r * pages_per_row..][..pages_per_row],
            page_steps,
            first: (c * chunk).min(keys[r]),
            end: ((c + 1) * chunk).min(keys[r]),
            scale: p.scale,
        };
        let (k, v) = (k_cache.get(h * head_dim..).unwrap_or(&[]), v_cache.get(h * head_dim..).unwrap_or(&[]));
        let (sums, rest) = y.split_at_mut(head_dim);
        let (top, total) = if head_dim == 64 {
            part.attend::<T, 64>(k, v, width, sums)
        } else {
            part.attend::<T, 0>(k, v, width, sums)
        };
        match rest {
            [y_top, y_total] => (*y_top, *y_total) = (top, total),
            _ if part.first == part.end => {}
            _ => sums.iter_mut().for_each(|sum| *sum /= total),
        }
    });
}

/// One query and the keys of a chunk.
struct Part<'a> {
    query: &'a [f32],
    pages: &'a [u32],
    page_steps: usize,
    first: usize,
    end: usize,
    scale: f32,
}

impl Part<'_> {
    /// Where each run of keys in one page begins in the cache, in positions, and how long it is.
    fn runs(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut t = self.first;
        std::iter::from_fn(move || {
            let slot = t % self.page_steps;
            let count = (self.page_steps - slot).min(self.end - t);
            let page = *self.pages.get(t / self.page_steps).filter(|_| count > 0)?;
            t += count;
            Some((page as usize * self.page_steps + slot, count))
        })
    }

    /// Puts the weighted sum of values into `sums`; the largest score and the sum of weights. k and v begin with the
    /// head's columns of the first position; `HEAD_DIM` is that of the head, or 0 for any.
    fn attend<T: Wide, const HEAD_DIM: usize>(
        &self,
        k: &[T],
        v: &[T],
        width: usize,
        sums: &mut [f32],
    ) -> (f32, f32) {
        let mut scores = vec![0.0; self.end - self.first];
        vectorised(
            #[inline(always)]
            || {
                let head_dim = if HEAD_DIM > 0 { HEAD_DIM } else { self.query.len() };
                let query = &self.query[..head_dim];
                let mut left = scores.as_mut_slice();
                for (place, count) in self.runs() {
                    let (run, rest) = left.split_at_mut(count);
                    left = rest;
                    for (i, score) in run.iter_mut().enumerate() {
                        *score = self.scale * dot(query, &k[(place + i) * width..][..head_dim]);
                    }
                }
                let top = largest(&scores);
                let total = exponentials(&mut scores, top);
                // in registers where their number is known
                let mut wide = [0.0_f32; MAX_HEAD_DIM];
                let wide = &mut wide[..head_dim];
                let mut left = scores.as_slice();
                for (place, count) in self.runs() {
                    let (run, rest) = left.split_at(count);
                    left = rest;
                    for (i, &weight) in run.iter().enumerate() {
                        let value = &v[(place + i) * width..][..head_dim];
                        for (sum, &value) in wide.iter_mut().zip(value) {
                            *sum = value.wide().mul_add(weight, *sum);
                        }
                    }
                }
                sums.copy_from_slice(wide);
                (top, total)
            },
        )
    }
}

#[inline(always)]
fn dot<T: Wide>(query: &[f32], key: &[T]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (whole, rest) = query.as_chunks::<LANES>();
    let (key_whole, key_rest) = key.as_chunks::<LANES>();
    for (query, key) in whole.iter().zip(key_whole) {
        for ((lane, &q), &k) in lanes.iter_mut().zip(query).zip(key) {
            *lane = q.mul_add(k.wide(), *lane);
        }
    }
    for ((lane, &q), &k) in lanes.iter_mut().zip(rest).zip(key_rest) {
        *lane = q.mul_add(k.wide(), *lane);
    }
    halved(lanes)
}

/// The sum of all, halves onto halves, as vector units add.
#[inline(always)]
fn halved(lanes: [f32; LANES]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// The largest score; NaN is passed over here and caught by the sum.
#[inline(always)]
fn largest(scores: &[f32]) -> f32 {
    let mut lanes = [f32::MIN; LANES];
    let (whole, rest) = scores.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, &score) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(score);
        }
    }
    for (lane, &score) in lanes.iter_mut().zip(rest) {
        *lane = lane.max(score);
    }
    lanes.into_iter().fold(f32::MIN, f32::max)
}

/// Replaces every score by `e^(score - top)` and returns their sum.
#[inline(always)]
fn exponentials(scores: &mut [f32], top: f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (whole, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in whole {
        for (lane, score) in lanes.iter_mut().zip(chunk) {
            *score = exp(*score - top);
            *lane += *score;
        }
    }
    for (lane, score) in lanes.iter_mut().zip(rest) {
        *score = exp(*score - top);
        *lane += *score;
    }
    halved(lanes)
}
