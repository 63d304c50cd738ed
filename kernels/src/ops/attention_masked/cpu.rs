use super::Params;
use crate::{
    HostSlot,
    gemm::Narrow,
    math::{exp, vectorised},
};
use half::{bf16, f16};
use rayon::prelude::*;

/// Partial sums of a product, so that it vectorises in an order that does not depend on the processor.
const LANES: usize = 16;

/// Queries of a task.
const QUERIES: usize = 16;

/// Tasks of [`QUERIES`] queries of all heads in parallel; a query's scores at once.
pub(super) fn f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let [q, k, v, lengths, bias, y] = slots else { panic!("attention_masked has six slots") };
    attention(params, [q.read(), k.read(), v.read()], lengths.read(), bias.read(), y.write());
}

/// As [`f32`], on widened copies; y is rounded at the end.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    narrow(params, slots, f16::from_f32);
}

/// As [`f32`], on widened copies; y is rounded at the end.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    narrow(params, slots, bf16::from_f32);
}

fn narrow<T: Narrow>(params: &[u8], slots: &mut [HostSlot<'_>], round: impl Fn(f32) -> T) {
    let [q, k, v, lengths, bias, y] = slots else { panic!("attention_masked has six slots") };
    let wide = [q, k, v].map(|slot| {
        let narrow: &[T] = slot.read();
        let mut wide = vec![0.0; narrow.len()];
        T::widen(narrow, &mut wide);
        wide
    });
    let y: &mut [T] = y.write();
    let mut wide_y = vec![0.0; y.len()];
    attention(params, wide.each_ref().map(Vec::as_slice), lengths.read(), bias.read(), &mut wide_y);
    for (y, wide_y) in y.iter_mut().zip(wide_y) {
        *y = round(wide_y);
    }
}

/// What the queries of a head share: keys and values of one sequence, row by row.
struct Head<'a> {
    k: &'a [f32],
    v: &'a [f32],
    /// Values of a row.
    width: usize,
    /// The head's first column.
    first: usize,
    scale: f32,
}

fn attention(params: &[u8], [q, k, v]: [&[f32]; 3], lengths: &[u32], bias: &[f32], y: &mut [f32]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [q_steps, k_steps, heads, head_dim] = [p.q_steps, p.k_steps, p.heads, p.head_dim].map(|n| n as usize);
    let width = heads * head_dim;
    if y.is_empty() {
        return;
    }
    y.par_chunks_exact_mut(q_steps * width).enumerate().for_each(|(b, y)| {
        let keys = k_steps.min(lengths[b] as usize);
        let [k, v] = [k, v].map(|x| &x[b * k_steps * width..][..keys * width]);
        let q = &q[b * q_steps * width..][..q_steps * width];
        y.par_chunks_mut(QUERIES * width).enumerate().for_each(|(block, y)| {
            let mut weights = vec![0.0; keys];
            for (i, y) in y.chunks_exact_mut(head_dim).enumerate() {
                let (s, h) = (block * QUERIES + i / heads, i % heads);
                let head = Head { k, v, width, first: h * head_dim, scale: p.scale };
                let query = &q[s * width + head.first..][..head_dim];
                // without a bias: empty, and no key finds one
                let bias = bias.get((h * q_steps + s) * k_steps..).unwrap_or_default();
                vectorised(
                    #[inline(always)]
                    || head.attend(query, bias, &mut weights, y),
                );
            }
        });
    });
}

impl Head<'_> {
    /// One query; `weights` has a place for every key.
    #[inline(always)]
    fn attend(&self, query: &[f32], bias: &[f32], weights: &mut [f32], y: &mut [f32]) {
        y.fill(0.0);
        let at = |t: usize| t * self.width + self.first;
        let mut top = f32::NEG_INFINITY;
        for (t, score) in weights.iter_mut().enumerate() {
            let bias = bias.get(t).copied().unwrap_or(0.0);
            *score = self.scale.mul_add(dot(query, &self.k[at(t)..][..query.len()]), bias);
            top = top.max(*score);
        }
        let mut total = 0.0_f32;
        for (t, weight) in weights.iter_mut().enumerate() {
            *weight = exp(*weight - top);
            total += *weight;
            for (y, &v) in y.iter_mut().zip(&self.v[at(t)..]) {
                *y = weight.mul_add(v, *y);
            }
        }
        if !weights.is_empty() {
            y.iter_mut().for_each(|y| *y /= total);
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (mut lanes, mut rest) = ([0.0_f32; LANES], 0.0_f32);
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for (lane, (&a, &b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane = a.mul_add(b, *lane);
        }
    }
    for (&a, &b) in a_rest.iter().zip(b_rest) {
        rest = a.mul_add(b, rest);
    }
    lanes.into_iter().sum::<f32>() + rest
}
