use super::{
    Params,
    host::{finish, padded, share},
};
use crate::{
    HostSlot,
    gemm::{Store, dots, matmul_seq, view, view_mut},
    math::vectorised,
};

/// Windows of at most this many values (the first layer of a codec has 7) are multiplied without packing.
const SHORT_WINDOW: usize = 16;

/// Up to this many output channels (the last layer of a codec has 1), every output is a dot product.
const FEW_OUTS: usize = 3;

/// Output channels that [`short_windows`] sums at a time: four vectors of eight.
const LANES: usize = 32;

/// Blocks of output steps, each in three stages while it is in cache: pad and activate its input, multiply, finish.
///
/// With channels last, the window of an output step is contiguous (dilation 1), and windows are `stride * in_channels`
/// apart: a matrix of overlapping rows, which needs no copy. With dilation, every tap is a product of its own.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, weight, bias, residual, y] = slots else { panic!("conv1d has five slots") };
    let (x, weight): (&[f32], &[f32]) = (x.read(), weight.read());
    let (bias, residual, y): (&[f32], &[f32], &mut [f32]) = (bias.read(), residual.read(), y.write());
    if y.is_empty() {
        return;
    }
    let (ins, outs, stride) = (p.in_channels as usize, p.out_channels as usize, p.stride as usize);
    let (in_item, out_item) = (p.in_steps as usize * ins, p.out_steps as usize * outs);
    let reach = p.dilation as usize * (p.kernel as usize - 1) + 1;
    let lanes = short_window_lanes(&p, weight);
    let block = block_steps(&p);

    let blocks = y
        .chunks_mut(out_item)
        .enumerate()
        .flat_map(|(b, y)| y.chunks_mut(block * outs).enumerate().map(move |(i, y)| (b, i * block, y)));
    share(blocks, |scratch, (b, first, y)| {
        let steps = (y.len() / outs - 1) * stride + reach;
        let item = &x[b * in_item..(b + 1) * in_item];
        let span = (first * stride, steps, p.pad_left as usize);
        let windows = padded(scratch, item, ins, span, p.input_activation, |i| source(&p, i));
        product(&p, y, windows, weight, &lanes);
        let residual =
            if p.has_residual == 1 { &residual[b * out_item + first * outs..][..y.len()] } else { &[] };
        finish(y, outs, bias, p.output_activation, residual);
    });
}

/// Output steps of a block: a function of the shape alone, so that results do not depend on the number of threads.
fn block_steps(p: &Params) -> usize {
    // of input and output together: about a core's second-level cache, and enough to pay for packing the weights
    const BYTES: usize = 1 << 20;
    let step = 4 * (p.in_channels as usize * p.stride as usize + p.out_channels as usize);
    (BYTES / step).clamp(128, 2048)
}

/// `y = windows * weight^T` for one block.
fn product(p: &Params, y: &mut [f32], windows: &[f32], weight: &[f32], lanes: &[[f32; LANES]]) {
    let (ins, outs, kernel) = (p.in_channels as usize, p.out_channels as usize, p.kernel as usize);
    let (rows, apart) = (y.len() / outs, p.stride as usize * ins);
    if !lanes.is_empty() {
        short_windows(y, outs, windows, apart, lanes);
    } else if p.dilation == 1 && outs <= FEW_OUTS {
        for (t, y) in y.chunks_exact_mut(outs).enumerate() {
            let window = &windows[t * apart..t * apart + kernel * ins];
            for (y, w) in y.iter_mut().zip(weight.chunks_exact(kernel * ins)) {
                [*y] = dots([window], w);
            }
        }
    } else if p.dilation == 1 {
        let (x, w) =
            (view(windows, rows, kernel * ins, apart), view(weight, outs, kernel * ins, kernel * ins));
        matmul_seq(view_mut(y, rows, outs, outs), x, w, Store::Replace);
    } else {
        for k in 0..kernel {
            let store = if k == 0 { Store::Replace } else { Store::Add };
            let x = view(&windows[k * p.dilation as usize * ins..], rows, ins, apart);
            matmul_seq(
                view_mut(y, rows, outs, outs),
                x,
                view(&weight[k * ins..], outs, ins, kernel * ins),
                store,
            );
        }
    }
}

/// The weight as `[channel tile, window, LANES]` with zeros past the last channel, for windows short enough for
/// [`short_windows`]; otherwise empty.
fn short_window_lanes(p: &Params, weight: &[f32]) -> Vec<[f32; LANES]> {
    let (outs, window) = (p.out_channels as usize, p.kernel as usize * p.in_channels as usize);
    if window > SHORT_WINDOW || p.dilation != 1 {
        return Vec::new();
    }
    let mut lanes = vec![[0.0; LANES]; outs.div_ceil(LANES) * window];
    for (o, w) in weight.chunks_exact(window).enumerate() {
        for (d, &w) in w.iter().enumerate() {
            lanes[o / LANES * window + d][o % LANES] = w;
        }
    }
    lanes
}

/// Output channels in vectors, the window's values one by one: bound by writing y.
fn short_windows(y: &mut [f32], outs: usize, windows: &[f32], apart: usize, lanes: &[[f32; LANES]]) {
    let window = lanes.len() / outs.div_ceil(LANES);
    vectorised(
        #[inline(always)]
        || {
            for (t, y) in y.chunks_exact_mut(outs).enumerate() {
                let values = &windows[t * apart..t * apart + window];
                for (y, lanes) in y.chunks_mut(LANES).zip(lanes.chunks_exact(window)) {
                    let mut sums = [0.0_f32; LANES];
                    for (&v, w) in values.iter().zip(lanes) {
                        for (sum, &w) in sums.iter_mut().zip(w) {
                            *sum = v.mul_add(w, *sum);
                        }
                    }
                    if let Ok(y) = <&mut [f32; LANES]>::try_from(&mut *y) {
                        *y = sums;
                    } else {
                        y.copy_from_slice(&sums[..y.len()]);
                    }
                }
            }
        },
    );
}

/// Step of x that stands at step `i` of the padded input; none where that is zero.
fn source(p: &Params, i: usize) -> Option<usize> {
    let (steps, pad_left, last) = (p.in_steps as usize, p.pad_left as usize, p.reflect_steps as usize - 1);
    let step = match p.pad_mode {
        1 if i < pad_left => pad_left - i,
        1 if i - pad_left > last => (2 * last + pad_left).checked_sub(i)?,
        2 => i.saturating_sub(pad_left).min(steps - 1),
        _ => i.checked_sub(pad_left)?,
    };
    (step < steps).then_some(step)
}
