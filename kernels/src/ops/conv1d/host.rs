//! What the fast forms of convolution and transposed convolution share.

use crate::math::{elu, vectorised};
use rayon::prelude::*;
use std::{ops::Range, sync::Mutex};

/// Gives `items` in their order to one worker a thread; a worker keeps its scratch memory from item to item.
///
/// Nothing waits for another worker, so any number of threads will do.
pub(in crate::ops) fn share<T: Send>(
    items: impl Iterator<Item = T> + Send,
    work: impl Fn(&mut Vec<f32>, T) + Sync,
) {
    let items = Mutex::new(items);
    let next = || items.lock().expect("taking an item does not panic").next();
    (0..rayon::current_num_threads()).into_par_iter().with_max_len(1).for_each(|_| {
        let mut scratch = Vec::new();
        while let Some(item) = next() {
            work(&mut scratch, item);
        }
    });
}

/// Padded steps `first..first + steps` of one sequence `x` of rows of `channels` values, activated: taken from `x`
/// itself where it holds them as they are, otherwise gathered into `scratch`.
///
/// `source` maps a padded step to a step of x, and is j - `pad_left` for all that lie inside of x.
pub(in crate::ops) fn padded<'a>(
    scratch: &'a mut Vec<f32>,
    x: &'a [f32],
    channels: usize,
    (first, steps, pad_left): (usize, usize, usize),
    activation: u32,
    source: impl Fn(usize) -> Option<usize>,
) -> &'a [f32] {
    let inside = pad_left..pad_left + x.len() / channels;
    let end = first + steps;
    if activation == 0 && first >= inside.start && end <= inside.end {
        return &x[(first - pad_left) * channels..(end - pad_left) * channels];
    }
    scratch.clear();
    let (from, to) = (inside.start.clamp(first, end), inside.end.clamp(first, end));
    let edge = |scratch: &mut Vec<f32>, steps: Range<usize>| {
        for i in steps {
            match source(i) {
                Some(j) => append(scratch, &x[j * channels..(j + 1) * channels], activation),
                None => scratch.resize(scratch.len() + channels, 0.0),
            }
        }
    };
    edge(scratch, first..from);
    if from < to {
        append(scratch, &x[(from - pad_left) * channels..(to - pad_left) * channels], activation);
    }
    edge(scratch, to..end);
    scratch
}

/// Appends `values`, activated.
fn append(scratch: &mut Vec<f32>, values: &[f32], activation: u32) {
    if activation == 1 {
        vectorised(
            #[inline(always)]
            || scratch.extend(values.iter().map(|&v| elu(v))),
        );
    } else {
        scratch.extend_from_slice(values);
    }
}

/// `y = activation(y + bias) + residual` over rows of `channels` values; an empty bias or residual is left out.
pub(in crate::ops) fn finish(
    y: &mut [f32],
    channels: usize,
    bias: &[f32],
    activation: u32,
    residual: &[f32],
) {
    vectorised(
        #[inline(always)]
        || {
            if !bias.is_empty() {
                for row in y.chunks_exact_mut(channels) {
                    row.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
                }
            }
            if activation == 1 {
                y.iter_mut().for_each(|v| *v = elu(*v));
            }
            y.iter_mut().zip(residual).for_each(|(v, r)| *v += r);
        },
    );
}
