use super::{Params, best::Best, best::key};
use crate::{
    HostSlot,
    gemm::{Store, matmul_seq, row_mut, view, view_mut},
};
use rayon::prelude::*;

/// Rows and features of a tile at most: its products take 288 KiB, which stay in the second cache.
const TILE_ROWS: usize = 256;
const TILE_FEATURES: usize = 288;
/// Features of a task at least: every task has to find its own least values.
const TASK_FEATURES: usize = 2048;

/// Rows that are screened at a time: what is found of them takes tens of MiB.
#[cfg(target_arch = "x86_64")]
const SCREEN_ROWS: usize = 2048;

/// Part by part, each by as many threads as there are.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, weight, bias, indices, values] = slots else { panic!("sae_encode has five slots") };
    let (x, weight, bias): (&[f32], &[f32], &[f32]) = (x.read(), weight.read(), bias.read());
    let (indices, values): (&mut [u32], &mut [f32]) = (indices.write(), values.write());
    let [rows, width, features, k, span] = [p.rows, p.width, p.features, p.k, p.span].map(|n| n as usize);
    if rows == 0 || features == 0 {
        return;
    }
    let parts = p.parts() as usize;
    if parts == 1 {
        return encode(p, x, weight, bias, indices, values);
    }
    let (mut part_indices, mut part_values) = (vec![0; rows * k], vec![0.0; rows * k]);
    for part in 0..parts {
        let (first, end) = (part * span, features.min((part + 1) * span));
        let p = Params { features: (end - first) as u32, first_feature: first as u32, ..p };
        // a part behind the first goes on from what is there: nothing
        part_values.fill(0.0);
        let (weight, bias) = (&weight[first * width..end * width], &bias[first..end]);
        encode(p, x, weight, bias, &mut part_indices, &mut part_values);
        for row in 0..rows {
            let (from, to) = (row * k, (row * parts + part) * k);
            indices[to..to + k].copy_from_slice(&part_indices[from..from + k]);
            values[to..to + k].copy_from_slice(&part_values[from..from + k]);
        }
    }
}

/// By [`super::screen`] where it can, otherwise by products in f32.
fn encode(p: Params, x: &[f32], weight: &[f32], bias: &[f32], indices: &mut [u32], values: &mut [f32]) {
    let [rows, width, features, k] = [p.rows, p.width, p.features, p.k].map(|n| n as usize);
    #[cfg(target_arch = "x86_64")]
    if super::screen::pays(rows, width, features, k) {
        let places = indices.chunks_mut(SCREEN_ROWS * k).zip(values.chunks_mut(SCREEN_ROWS * k));
        for (x, (indices, values)) in x.chunks(SCREEN_ROWS * width).zip(places) {
            screened(p, x, weight, bias, indices, values);
        }
        return;
    }
    multiplied(p, x, weight, bias, indices, values);
}

/// By [`super::screen`], but for the rows that it leaves to products in f32.
#[cfg(target_arch = "x86_64")]
fn screened(p: Params, x: &[f32], weight: &[f32], bias: &[f32], indices: &mut [u32], values: &mut [f32]) {
    let [width, k] = [p.width, p.k].map(|n| n as usize);
    let Some(found) = super::screen::search(k, width, x, weight, bias) else {
        return multiplied(p, x, weight, bias, indices, values);
    };
    let left: Vec<usize> = (0..found.len()).filter(|&row| found[row].is_none()).collect();
    let places = indices.par_chunks_exact_mut(k).zip(values.par_chunks_exact_mut(k));
    places.zip(found).for_each(|((indices, values), best)| {
        if let Some(mut best) = best {
            best.keys.iter_mut().for_each(|key| *key -= u64::from(p.first_feature));
            let before = (p.first_feature > 0).then(|| left_before(indices, values, k));
            Best::write([&best].into_iter().chain(&before), indices, values);
        }
    });
    if left.is_empty() {
        return;
    }
    let x: Vec<f32> = left.iter().flat_map(|row| &x[row * width..][..width]).copied().collect();
    let mut some_indices: Vec<u32> = left.iter().flat_map(|row| &indices[row * k..][..k]).copied().collect();
    let mut some_values: Vec<f32> = left.iter().flat_map(|row| &values[row * k..][..k]).copied().collect();
    multiplied(p, &x, weight, bias, &mut some_indices, &mut some_values);
    for (at, row) in left.into_iter().enumerate() {
        indices[row * k..][..k].copy_from_slice(&some_indices[at * k..][..k]);
        values[row * k..][..k].copy_from_slice(&some_values[at * k..][..k]);
    }
}

/// Tasks of rows and features in parallel; a task multiplies tile by tile and goes through a tile while it is in cache.
fn multiplied(p: Params, x: &[f32], weight: &[f32], bias: &[f32], indices: &mut [u32], values: &mut [f32]) {
    let [width, features, k] = [p.width, p.features, p.k].map(|n| n as usize);
    let rows = x.len() / width;
    let row_tasks = rows.div_ceil(TILE_ROWS);
    // equal parts, so that none is a sliver whose sums are in another order
    let first_row = |task: usize| task * rows / row_tasks;
    let wanted = (4 * rayon::current_num_threads()).div_ceil(row_tasks);
    let task_features = features.div_ceil(wanted).max(TASK_FEATURES).next_multiple_of(TILE_FEATURES);
    let feature_tasks = features.div_ceil(task_features);
    let task = |number: usize| -> Vec<Best> {
        let (row_task, first) = (number / feature_tasks, number % feature_tasks * task_features);
        let rows = first_row(row_task + 1) - first_row(row_task);
        let x = view(&x[first_row(row_task) * width..], rows, width, width);
        let mut best: Vec<Best> = (0..rows).map(|_| Best::new(k)).collect();
        let mut products = vec![0.0; rows * TILE_FEATURES];
        let end = features.min(first + task_features);
        for first in (first..end).step_by(TILE_FEATURES) {
            let count = TILE_FEATURES.min(end - first);
            let mut tile = view_mut(&mut products[..rows * count], rows, count, count);
            let weight = view(&weight[first * width..], count, width, width);
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
            let before = (p.first_feature > 0).then(|| left_before(indices, values, k));
            Best::write(tasks.iter().map(|task| &task[row]).chain(&before), indices, values);
        }
    }
}

/// What a launch of the features before these left.
fn left_before(indices: &[u32], values: &[f32], k: usize) -> Best {
    let active = indices.iter().zip(values).filter(|(_, value)| **value > 0.0);
    let mut best = Best::of(k, active.map(|(&feature, &value)| key(value, feature)).collect());
    best.spoilt = values[0].is_nan();
    best
}
