use super::{Activation, Params};
use crate::math::ask;
use crate::{
    HostSlot,
    gemm::{Wide, row_mut, view_mut},
    ops::linear::finish,
};
use bytemuck::{Pod, Zeroable};
use faer::MatMut;
use faer::prelude::ReborrowMut;
use half::{bf16, f16};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Weights of a task: enough to pay for handing it out, few enough that the last ones end together.
const TASK_BYTES: usize = 256 << 10;

/// Outs that are summed together: with two rows, as many sums as hide the latency of a multiply-add.
const OUTS: usize = 4;

/// Up to this many rows, weights are used as they come, and the processor fetches them ahead by itself.
const FEW: usize = 4;

/// Columns of few rows that are multiplied at once: rows of a matrix lie one after another, and long pieces of them are
/// fetched ahead best.
const FEW_BLOCK: usize = 1024;

/// Outs whose weights are kept close for more rows than that.
const GROUP: usize = 2 * OUTS;

/// Columns that are summed before the next rows have their turn: the weights of a group stay in the first cache.
const BLOCK: usize = 512;

/// Values from one row of a block to the next: rows often lie a multiple of 4 KiB apart, and would then all fall on the
/// same places in cache.
const PITCH: usize = BLOCK + 16;

/// Rows that share one pass over the weights, at most.
const ROWS: usize = 32;

/// Values of the rows that share a pass, at most: they stay in the second cache.
const PASS: usize = 65_536;

/// A line of cache. A vector that lies in two of them takes twice as long to load.
#[repr(C, align(64))]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Line([f32; 16]);

/// Every value is one vector of partial sums over the columns in order, then the sum of its lanes: the same however many
/// rows there are. Weights come from memory once for up to [`ROWS`] rows.
pub(super) fn f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_rows::<f32>(params, slots);
}

/// As [`f32`], the weights widened block by block.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_rows::<f16>(params, slots);
}

/// As [`f32`], the weights widened block by block.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    linear_rows::<bf16>(params, slots);
}

/// A weight type, as a source of f32.
trait Weight: Wide {
    /// Whether [`quick`](Self::quick) widens all of them.
    #[inline(always)]
    fn are_quick(_: &[Self]) -> bool {
        true
    }

    /// [`Wide::wide`] in fewer instructions.
    #[inline(always)]
    fn quick(self) -> f32 {
        self.wide()
    }
}

impl Weight for f32 {}

impl Weight for bf16 {}

impl Weight for f16 {
    #[inline(always)]
    fn are_quick(values: &[Self]) -> bool {
        let mut largest = 0;
        for value in values {
            // without the sign
            largest = largest.max(value.to_bits() << 1);
        }
        // infinity and NaN have no exponent to carry over
        largest < 0x7c00 << 1
    }

    #[inline(always)]
    fn quick(self) -> f32 {
        // the exponents of f16 and f32 are 127 - 15 apart; a product, unlike a sum of bits, normalises subnormals
        const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
        // copies of the sign fill the upper half, and all but one are cut off
        let wide = (i32::from(self.to_bits().cast_signed()) << 13).cast_unsigned() & 0x8fff_e000;
        f32::from_bits(wide) * REBIAS
    }
}

/// Widens `from` into the beginning of `room`.
#[inline(always)]
fn widen<W: Weight>(from: &[W], room: &mut [f32]) {
    if W::are_quick(from) {
        room.iter_mut().zip(from).for_each(|(to, from)| *to = from.quick());
    } else {
        room.iter_mut().zip(from).for_each(|(to, from)| *to = from.wide());
    }
}

fn linear_rows<W: Weight>(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, a, b, c, bias, residual, y] = slots else { panic!("linear_rows has seven slots") };
    let (x, weights) = (x.read::<f32>(), [a.read::<W>(), b.read(), c.read()]);
    let (bias, residual): (&[f32], &[f32]) = (bias.read(), residual.read());
    let [rows, cols, made, first, stride] =
        [p.rows, p.cols, p.made(), p.out_first, p.out_stride].map(|n| n as usize);
    if rows == 0 || made == 0 {
        return;
    }
    let activation = Activation::from_code(p.activation);
    let packed = if rows > FEW { pack(x, rows, cols) } else { Vec::new() };
    let packed: &[f32] = bytemuck::cast_slice(&packed);
    let task_outs =
        (TASK_BYTES / (cols * size_of::<W>()).max(1)).next_multiple_of(GROUP).clamp(GROUP, 1 << 12);
    let y = view_mut(&mut y.write()[first..], rows, made, stride);
    y.par_col_chunks_mut(task_outs).enumerate().for_each(|(task, mut y)| {
        let first_out = task * task_outs;
        pulp::Arch::new().dispatch(Task { x, packed, weights, p: &p, first_out, y: y.rb_mut() });
        for row in 0..rows {
            let values = row_mut(&mut y, row);
            let bias = (p.has_bias == 1).then(|| &bias[first_out..][..values.len()]);
            let residual =
                (p.has_residual == 1).then(|| &residual[row * stride + first + first_out..][..values.len()]);
            finish(activation, values, bias, residual);
        }
    });
}

/// The rows of x block by block, [`PITCH`] apart, with zeros behind the last column.
fn pack(x: &[f32], rows: usize, cols: usize) -> Vec<Line> {
    let mut packed = vec![Line::zeroed(); cols.div_ceil(BLOCK) * rows * PITCH / 16];
    let values: &mut [f32] = bytemuck::cast_slice_mut(&mut packed);
    for (i, to) in values.chunks_exact_mut(PITCH).enumerate() {
        let at = i / rows * BLOCK;
        let block = BLOCK.min(cols - at);
        to[..block].copy_from_slice(&x[i % rows * cols + at..][..block]);
    }
    packed
}

/// Products with some of the outs.
struct Task<'a, W> {
    x: &'a [f32],
    packed: &'a [f32],
    weights: [&'a [W]; 3],
    p: &'a Params,
    first_out: usize,
    y: MatMut<'a, f32>,
}

impl<'a, W: Weight> Task<'a, W> {
    /// The weights of out number `out` of all.
    #[inline(always)]
    fn weight(&self, out: usize) -> &'a [W] {
        let [cols, outs, outs_b] = [self.p.cols, self.p.outs, self.p.outs_b].map(|n| n as usize);
        let (weight, row) = match out {
            _ if out < outs => (0, out),
            _ if out < outs + outs_b => (1, out - outs),
            _ => (2, out - outs - outs_b),
        };
        &self.weights[weight][row * cols..][..cols]
    }

    /// `block` columns from `at` on of the `made` outs from `out` on.
    #[inline(always)]
    fn block(&self, (out, made): (usize, usize), (at, block): (usize, usize)) -> [&'a [W]; GROUP] {
        let mut weights: [&[W]; GROUP] = [&[]; GROUP];
        for (n, weight) in weights[..made].iter_mut().enumerate() {
            *weight = &self.weight(self.first_out + out + n)[at..][..block];
        }
        weights
    }

    /// What is multiplied next, to be brought from memory meanwhile: as much as now, of as many as `widest` outs.
    #[inline(always)]
    fn after(
        &self,
        (out, made): (usize, usize),
        (at, block): (usize, usize),
        widest: usize,
    ) -> [&'a [W]; GROUP] {
        let (outs, cols) = (self.y.ncols(), self.p.cols as usize);
        if at + block < cols {
            self.block((out, made), (at + block, block.min(cols - at - block)))
        } else if out + made < outs {
            self.block((out + made, widest.min(outs - out - made)), (0, BLOCK.max(block).min(cols)))
        } else {
            [&[]; GROUP]
        }
    }

    /// All outs for at most [`FEW`] rows.
    #[inline(always)]
    fn few<S: Simd>(&mut self, simd: S, sums: &mut [[S::f32s; GROUP]]) {
        let (outs, cols) = (self.y.ncols(), self.p.cols as usize);
        for out in (0..outs).step_by(OUTS) {
            let made = OUTS.min(outs - out);
            sums.fill([simd.splat_f32s(0.0); GROUP]);
            for at in (0..cols).step_by(FEW_BLOCK) {
                let block = FEW_BLOCK.min(cols - at);
                let weights = self.block((out, made), (at, block));
                let next = self.after((out, made), (at, block), OUTS);
                let (x, weights) = (&self.x[at..], &weights[..made]);
                let mut before = [[simd.splat_f32s(0.0); GROUP]; FEW];
                before[..sums.len()].copy_from_slice(sums);
                multiply(simd, x, cols, weights, Some(next), sums);
                // asked when they have come from memory
                let mut quick = true;
                for weights in weights {
                    quick &= W::are_quick(weights);
                }
                if !quick {
                    sums.copy_from_slice(&before[..sums.len()]);
                    let wide = weights.iter().flat_map(|w| w.iter().map(|w| w.wide()));
                    let wide: Vec<f32> = wide.collect();
                    let mut parts: [&[f32]; GROUP] = [&[]; GROUP];
                    parts.iter_mut().zip(wide.chunks(block)).for_each(|(part, wide)| *part = wide);
                    multiply(simd, x, cols, &parts[..made], None, sums);
                }
            }
            self.put(simd, (0, out), made, sums);
        }
    }

    /// All outs for the rows from `first` on.
    #[inline(always)]
    fn many<S: Simd>(&mut self, simd: S, first: usize, room: &mut [f32], sums: &mut [[S::f32s; GROUP]]) {
        let (rows, outs, cols) = (self.p.rows as usize, self.y.ncols(), self.p.cols as usize);
        for out in (0..outs).step_by(GROUP) {
            let made = GROUP.min(outs - out);
            sums.fill([simd.splat_f32s(0.0); GROUP]);
            for at in (0..cols).step_by(BLOCK) {
                let block = BLOCK.min(cols - at);
                let weights = self.block((out, made), (at, block));
                let mut wide: [&[f32]; GROUP] = [&[]; GROUP];
                for ((wide, weight), room) in
                    wide[..made].iter_mut().zip(weights).zip(room.chunks_exact_mut(PITCH))
                {
                    widen(weight, room);
                    *wide = &room[..block];
                }
                let next = self.after((out, made), (at, block), GROUP);
                let pairs = sums.len().div_ceil(2);
                let share = (BLOCK * size_of::<W>() / size_of::<Line>() * GROUP).div_ceil(pairs);
                for (pair, sums) in sums.chunks_mut(2).enumerate() {
                    for line in pair * share..(pair + 1) * share {
                        ask(next[line % GROUP], line / GROUP * size_of::<Line>());
                    }
                    let x = &self.packed[(at / BLOCK * rows + first + 2 * pair) * PITCH..];
                    multiply(simd, x, PITCH, &wide[..made], None, sums);
                }
            }
            self.put(simd, (first, out), made, sums);
        }
    }

    /// The sums of lanes are the products.
    #[inline(always)]
    fn put<S: Simd>(
        &mut self,
        simd: S,
        (first, out): (usize, usize),
        made: usize,
        sums: &[[S::f32s; GROUP]],
    ) {
        for (r, sums) in sums.iter().enumerate() {
            let y = &mut row_mut(&mut self.y, first + r)[out..][..made];
            for (y, &sum) in y.iter_mut().zip(sums) {
                *y = simd.reduce_sum_f32s(sum);
            }
        }
    }
}

impl<W: Weight> WithSimd for Task<'_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let rows = self.y.nrows();
        if rows <= FEW {
            let sums = &mut [[simd.splat_f32s(0.0); GROUP]; FEW];
            return self.few(simd, &mut sums[..rows]);
        }
        let room = &mut [Line::zeroed(); GROUP * PITCH / 16];
        let room: &mut [f32] = bytemuck::cast_slice_mut(room);
        let sums = &mut [[simd.splat_f32s(0.0); GROUP]; ROWS];
        let pass = (PASS / (self.p.cols as usize).max(1)).clamp(8, ROWS);
        for first in (0..rows).step_by(pass) {
            self.many(simd, first, room, &mut sums[..pass.min(rows - first)]);
        }
    }
}

/// Adds to `sums` the products of as many rows, which start `pitch` apart in `x`, with the weights `w` of some outs;
/// meanwhile `next`, if there is one, is brought from memory.
#[inline(always)]
fn multiply<S: Simd, W: Weight>(
    simd: S,
    x: &[f32],
    pitch: usize,
    w: &[&[W]],
    next: Option<[&[W]; GROUP]>,
    sums: &mut [[S::f32s; GROUP]],
) {
    let (fours, ones) = w.as_chunks::<OUTS>();
    for (pair, sums) in sums.chunks_mut(2).enumerate() {
        let of = |r: usize| &x[(2 * pair + r) * pitch..][..w[0].len()];
        for (i, &w) in fours.iter().enumerate() {
            let next = match next {
                Some(next) if pair == 0 => Some(std::array::from_fn(|n| next[i * OUTS + n])),
                _ => None,
            };
            match sums {
                [a, b] => by_lanes(simd, [of(0), of(1)], w, next, [a, b], i * OUTS),
                [a] => by_lanes(simd, [of(0)], w, next, [a], i * OUTS),
                _ => unreachable!("chunks of one or two"),
            }
        }
        for (i, &w) in (fours.len() * OUTS..).zip(ones) {
            match sums {
                [a, b] => by_lanes(simd, [of(0), of(1)], [w], None, [a, b], i),
                [a] => by_lanes(simd, [of(0)], [w], None, [a], i),
                _ => unreachable!("chunks of one or two"),
            }
        }
    }
}

/// [`products`] with as many columns at a time as a vector has lanes, so that what is widened stays in registers.
#[inline(always)]
fn by_lanes<S: Simd, W: Weight, const M: usize, const N: usize>(
    simd: S,
    x: [&[f32]; M],
    w: [&[W]; N],
    next: Option<[&[W]; N]>,
    all: [&mut [S::f32s; GROUP]; M],
    first: usize,
) {
    match S::F32_LANES {
        16 => products::<S, W, M, N, 16>(simd, x, w, next, all, first),
        _ => products::<S, W, M, N, 8>(simd, x, w, next, all, first),
    }
}

/// Adds the products of `M` rows with the weights of `N` outs to their partial sums, column by column in order.
#[inline(always)]
fn products<S: Simd, W: Weight, const M: usize, const N: usize, const LANES: usize>(
    simd: S,
    x: [&[f32]; M],
    w: [&[W]; N],
    next: Option<[&[W]; N]>,
    all: [&mut [S::f32s; GROUP]; M],
    first: usize,
) {
    let before = |m: usize| std::array::from_fn(|n| all[m][first + n]);
    let mut sums: [[S::f32s; N]; M] = std::array::from_fn(before);
    let whole = w[0].len() / LANES;
    let x_pieces = x.map(|x| &x.as_chunks::<LANES>().0[..whole]);
    let w_pieces = w.map(|w| &w.as_chunks::<LANES>().0[..whole]);
    match next {
        // one loop where there is nothing to ask for: to stop at every line would slow many rows down
        None => columns(simd, x_pieces, w_pieces, 0..whole, &mut sums),
        Some(next) => {
            let line = size_of::<Line>() / size_of::<[W; LANES]>();
            for begin in (0..whole).step_by(line) {
                for next in next {
                    ask(next, begin * size_of::<[W; LANES]>());
                }
                columns(simd, x_pieces, w_pieces, begin..(begin + line).min(whole), &mut sums);
            }
        }
    }
    if whole * LANES < w[0].len() {
        // zeros behind the last column change no sum
        let mut x_rest = [[0.0; LANES]; M];
        for (to, x) in x_rest.iter_mut().zip(x) {
            to.iter_mut().zip(&x[whole * LANES..]).for_each(|(to, &x)| *to = x);
        }
        for n in 0..N {
            let mut w_rest = [0.0; LANES];
            w_rest.iter_mut().zip(&w[n][whole * LANES..]).for_each(|(to, w)| *to = w.quick());
            for m in 0..M {
                add(simd, &x_rest[m], &w_rest, &mut sums[m][n]);
            }
        }
    }
    for (all, sums) in all.into_iter().zip(&sums) {
        all[first..first + N].copy_from_slice(sums);
    }
}

/// Adds the products of some pieces of columns to partial sums.
#[inline(always)]
fn columns<S: Simd, W: Weight, const M: usize, const N: usize, const LANES: usize>(
    simd: S,
    x: [&[[f32; LANES]]; M],
    w: [&[[W; LANES]]; N],
    pieces: Range<usize>,
    sums: &mut [[S::f32s; N]; M],
) {
    for at in pieces {
        for n in 0..N {
            let w = w[n][at].map(W::quick);
            for m in 0..M {
                add(simd, &x[m][at], &w, &mut sums[m][n]);
            }
        }
    }
}

/// Adds the products of some columns to partial sums, vector by vector.
#[inline(always)]
fn add<S: Simd>(simd: S, x: &[f32], w: &[f32], sum: &mut S::f32s) {
    for (&x, &w) in S::as_simd_f32s(x).0.iter().zip(S::as_simd_f32s(w).0) {
        *sum = simd.mul_add_f32s(x, w, *sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, HostFn, TensorDesc};

    #[test]
    fn infinite_weights_reach_their_outs_and_no_other() {
        let (rows, cols, outs) = (2, FEW_BLOCK + 37, OUTS + 3);
        let x: Vec<f32> = crate::noise("x", rows * cols).collect();
        let mut w: Vec<f16> = crate::noise("w", outs * cols).map(f16::from_f32).collect();
        w[cols + 5] = f16::INFINITY;
        w[2 * cols + FEW_BLOCK + 20] = f16::NEG_INFINITY;
        w[4 * cols - 1] = f16::NAN;
        let op = super::super::LinearRows { activation: Activation::None };
        let weight = TensorDesc { dtype: DType::F16, shape: [outs, cols].into_iter().collect() };
        let plan = op.plan(&TensorDesc::f32([rows, cols]), &weight, [None; 2], None, None).expect("fits");
        let run = |run: HostFn| {
            let mut y = vec![0.0_f32; rows * outs];
            run(
                &plan.params,
                &mut [
                    HostSlot::Read(bytemuck::cast_slice(&x)),
                    HostSlot::Read(bytemuck::cast_slice(&w)),
                    HostSlot::Read(&[]),
                    HostSlot::Read(&[]),
                    HostSlot::Read(&[]),
                    HostSlot::Read(&[]),
                    HostSlot::Write(bytemuck::cast_slice_mut(&mut y)),
                ],
            );
            y
        };
        let (got, want) = (run(super::f16), run(plan.kernel.reference));
        for (at, (got, want)) in got.into_iter().zip(want).enumerate() {
            let same = got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() < 1e-4;
            assert!(same, "row {}, out {}: {got}, expected {want}", at / outs, at % outs);
            assert_eq!(want.is_finite(), ![1, 2, 3].contains(&(at % outs)), "{at}: {want}");
        }
    }

    #[test]
    fn every_f16_is_widened_exactly() {
        for first in (0..=u16::MAX).step_by(16) {
            let from: Vec<f16> = (first..=first + 15).map(f16::from_bits).collect();
            let mut room = [0.0; 16];
            widen(&from, &mut room);
            for (from, to) in from.iter().zip(room) {
                let same = to.to_bits() == from.to_f32().to_bits() || (to.is_nan() && from.is_nan());
                assert!(same, "{:#06x}: {to}", from.to_bits());
            }
        }
    }
}
