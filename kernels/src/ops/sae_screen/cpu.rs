use super::super::sae_encode::{
    Params,
    best::{Best, key, of_key},
};
use crate::{
    HostSlot,
    gemm::{Store, matmul_seq, row_mut, view, view_mut},
};
use half::{bf16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

/// Rows and features of a tile at most: its products take 288 KiB, which stay in the second cache.
const TILE_ROWS: usize = 256;
const TILE_FEATURES: usize = 288;
/// Features of a task at least: every task has to find its own least values.
const TASK_FEATURES: usize = 2048;

/// Tasks of rows and features in parallel; a task widens and multiplies tile by tile and goes through a tile while it is in
/// cache. Products of bf16 are exact in f32.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, weight, bias, indices, values] = slots else { panic!("sae_screen has five slots") };
    let (x, weight, bias): (&[bf16], &[bf16], &[f32]) = (x.read(), weight.read(), bias.read());
    let (indices, values): (&mut [u32], &mut [f32]) = (indices.write(), values.write());
    let [rows, width, features, k] = [p.rows, p.width, p.features, p.k].map(|n| n as usize);
    if rows == 0 || features == 0 {
        return;
    }
    let row_tasks = rows.div_ceil(TILE_ROWS);
    // equal parts, so that none is a sliver whose sums are in another order
    let first_row = |task: usize| task * rows / row_tasks;
    let wanted = (4 * rayon::current_num_threads()).div_ceil(row_tasks);
    let task_features = features.div_ceil(wanted).max(TASK_FEATURES).next_multiple_of(TILE_FEATURES);
    let feature_tasks = features.div_ceil(task_features);
    let task = |number: usize| -> Vec<Best> {
        let (row_task, first) = (number / feature_tasks, number % feature_tasks * task_features);
        let rows = first_row(row_task + 1) - first_row(row_task);
        let mut wide_x = vec![0.0; rows * width];
        x[first_row(row_task) * width..][..rows * width].convert_to_f32_slice(&mut wide_x);
        let mut best: Vec<Best> = (0..rows).map(|_| Best::of_any_sign(k)).collect();
        let mut products = vec![0.0; rows * TILE_FEATURES];
        let mut wide_weight = vec![0.0; TILE_FEATURES * width];
        let end = features.min(first + task_features);
        for first in (first..end).step_by(TILE_FEATURES) {
            let count = TILE_FEATURES.min(end - first);
            let wide_weight = &mut wide_weight[..count * width];
            weight[first * width..][..count * width].convert_to_f32_slice(wide_weight);
            let mut tile = view_mut(&mut products[..rows * count], rows, count, count);
            let (x, weight) = (view(&wide_x, rows, width, width), view(wide_weight, count, width, width));
            matmul_seq(tile.as_mut(), x, weight, Store::Replace);
            for (row, best) in best.iter_mut().enumerate() {
                let first_feature = p.first_feature + first as u32;
                best.offer(row_mut(&mut tile, row), &bias[first..][..count], first_feature);
            }
        }
        best
    };
    let found: Vec<Vec<Best>> = (0..row_tasks * feature_tasks).into_par_iter().map(task).collect();
    let mut places = indices.chunks_exact_mut(k).zip(values.chunks_exact_mut(k));
    for (row_task, tasks) in found.chunks(feature_tasks).enumerate() {
        for row in 0..first_row(row_task + 1) - first_row(row_task) {
            let (indices, values) = places.next().expect("a row of both for each of x");
            let mut keys: Vec<u64> = tasks.iter().flat_map(|task| task[row].keys.iter().copied()).collect();
            if p.first_feature > 0 {
                let taken = indices.iter().zip(&*values).filter(|(index, _)| **index != u32::MAX);
                keys.extend(taken.map(|(&feature, &value)| key(value, feature)));
            }
            keys.sort_unstable_by(|a, b| b.cmp(a));
            indices.fill(u32::MAX);
            values.fill(f32::NEG_INFINITY);
            for ((index, value), &key) in indices.iter_mut().zip(values).zip(&keys) {
                (*value, *index) = of_key(key);
            }
        }
    }
}
