//! Matrix products of the fast host forms: `y = x w^T`, row-major, parallel, with a step that finishes each row of a
//! tile while the tile is still in cache.
//!
//! Views are faer's `MatRef` and `MatMut`, made by [`view`] and [`view_mut`]; rows of a view that is only read may
//! overlap, which makes a convolution's windows a matrix without copying them.
//!
//! Up to [`FEW_ROWS`] rows, weights are streamed once and every element is a dot product in a fixed order. Above it,
//! tiles go to faer. Either way an element depends on its own row of `x`, its own row of `w` and `cols`, not on the
//! neighbours that travel with it; between the two ways the order of summation, hence the rounding, differs.

use crate::math::vectorised;
use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul as matmul_in_faer, prelude::ReborrowMut};
use half::{bf16, f16};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Up to this many rows of `x`, the weights are streamed.
pub(crate) const FEW_ROWS: usize = 4;

/// From this many rows on products are tiled. Who wants a row's sums to be the same in any company fills fewer up to it.
pub const TILED_ROWS: usize = 2 * FEW_ROWS;

/// Vectors of partial sums of a streamed dot product; four hide the latency of the multiply-add.
const CHAINS: usize = 4;

/// What a product does with the values that `y` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// Overwrites them without reading.
    Replace,
    /// Adds to them.
    Add,
}

/// `data` as a matrix of `rows` rows of `cols` values that start `stride` apart; rows may overlap.
#[inline]
pub(crate) fn view(data: &[f32], rows: usize, cols: usize, stride: usize) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice_with_stride(data, rows, cols, stride)
}

/// `data` as a matrix of `rows` rows of `cols` values that start `stride >= cols` apart.
#[inline]
pub(crate) fn view_mut(data: &mut [f32], rows: usize, cols: usize, stride: usize) -> MatMut<'_, f32> {
    // not `from_row_major_slice_with_stride_mut`, which in faer 0.24.4 swaps the strides
    MatMut::from_column_major_slice_with_stride_mut(data, cols, rows, stride).transpose_mut()
}

/// `y = x w^T` or `y += x w^T` on all threads, x `[rows, cols]`, w `[outs, cols]`, y `[rows, outs]`; then
/// `finish(row, first_out, values)` for parts of rows of `y` as they are complete.
///
/// Every element of `y` is in exactly one part; the parts of a row have no particular order.
pub(crate) fn matmul_then(
    y: MatMut<'_, f32>,
    x: MatRef<'_, f32>,
    w: MatRef<'_, f32>,
    store: Store,
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let (tile_rows, tile_outs) = tile(x.nrows(), w.nrows(), x.ncols());
    y.par_row_chunks_mut(tile_rows).enumerate().for_each(|(i, y)| {
        let first_row = i * tile_rows;
        let x = x.subrows(first_row, y.nrows());
        y.par_col_chunks_mut(tile_outs).enumerate().for_each(|(j, mut y)| {
            let first_out = j * tile_outs;
            let w = w.subrows(first_out, y.ncols());
            matmul_seq(y.rb_mut(), x, w, store);
            for row in 0..y.nrows() {
                finish(first_row + row, first_out, row_mut(&mut y, row));
            }
        });
    });
}

/// `y = x w^T` or `y += x w^T` on the calling thread, for callers that are parallel themselves.
pub(crate) fn matmul_seq(mut y: MatMut<'_, f32>, x: MatRef<'_, f32>, w: MatRef<'_, f32>, store: Store) {
    if x.nrows() <= FEW_ROWS {
        for out in 0..w.nrows() {
            stream(&mut y, x, row(w, out), out, store);
        }
        return;
    }
    product(y, x, w.transpose(), store);
}

/// `y = a b` or `y += a b` on the calling thread, for views of any strides: a `[rows, cols]`, b `[cols, outs]`.
pub(crate) fn product(y: MatMut<'_, f32>, a: MatRef<'_, f32>, b: MatRef<'_, f32>, store: Store) {
    let accum = match store {
        Store::Replace => Accum::Replace,
        Store::Add => Accum::Add,
    };
    // Par::Seq: faer's own threads meet at a lock, which stalls when several tasks of a pool multiply at once
    matmul_in_faer(y, accum, a, b, 1.0, Par::Seq);
}

/// Rows and outs of the tiles that a product is cut into, and hence its tasks.
///
/// A tile's rows pay for packing its part of `w`, its outs for packing its part of `x`; smaller ones are chosen only
/// where there would be too few to keep all threads busy until the end.
fn tile(rows: usize, outs: usize, cols: usize) -> (usize, usize) {
    if rows <= FEW_ROWS {
        // a task streams 256 KiB of weights
        return (FEW_ROWS, (65_536 / cols.max(1)).clamp(1, outs.max(1)));
    }
    let wanted = 4 * rayon::current_num_threads();
    // outs in multiples of 96, the tallest register tile of faer's AVX-512 kernel; the others divide it
    let sizes = [(256, 288), (256, 96), (64, 96)];
    let fine = |&(r, o): &(usize, usize)| rows.div_ceil(r) * outs.div_ceil(o) >= wanted;
    let (tile_rows, tile_outs) = sizes.into_iter().find(fine).unwrap_or((32, 96));
    // equal parts, so that the last one is not a sliver that faer would treat as a vector
    (rows.div_ceil(rows.div_ceil(tile_rows)), outs.div_ceil(outs.div_ceil(tile_outs).max(1)).max(1))
}

/// Row `i` as a slice.
#[inline(always)]
pub(crate) fn row(m: MatRef<'_, f32>, i: usize) -> &[f32] {
    m.row(i).try_as_row_major().expect("views are row-major").as_slice()
}

/// Row `i` as a mutable slice.
#[inline(always)]
pub(crate) fn row_mut<'a>(m: &'a mut MatMut<'_, f32>, i: usize) -> &'a mut [f32] {
    m.rb_mut().row_mut(i).try_as_row_major_mut().expect("views are row-major").as_slice_mut()
}

/// Element `out` of every row of `y`; two rows of `x` share a pass over `w`.
fn stream(y: &mut MatMut<'_, f32>, x: MatRef<'_, f32>, w: &[f32], out: usize, store: Store) {
    let mut put = |r: usize, v: f32| match store {
        Store::Replace => y[(r, out)] = v,
        Store::Add => y[(r, out)] += v,
    };
    let pairs = x.nrows() / 2;
    for r in (0..pairs).map(|pair| 2 * pair) {
        let [a, b] = dots([row(x, r), row(x, r + 1)], w);
        put(r, a);
        put(r + 1, b);
    }
    if x.nrows() % 2 == 1 {
        let [a] = dots([row(x, 2 * pairs)], w);
        put(2 * pairs, a);
    }
}

/// Dot products of `w` with `N` rows, each in the same order whatever `N` is.
pub(crate) fn dots<const N: usize>(x: [&[f32]; N], w: &[f32]) -> [f32; N] {
    pulp::Arch::new().dispatch(Dots { x: x.map(|x| &x[..w.len()]), w })
}

struct Dots<'a, const N: usize> {
    x: [&'a [f32]; N],
    w: &'a [f32],
}

impl<const N: usize> WithSimd for Dots<'_, N> {
    type Output = [f32; N];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f32; N] {
        let (w, w_rest) = S::as_simd_f32s(self.w);
        let x = self.x.map(|x| S::as_simd_f32s(x));
        let mut sums = [[simd.splat_f32s(0.0); CHAINS]; N];
        let (w_blocks, w_tail) = w.as_chunks::<CHAINS>();
        let x_blocks = x.map(|(x, _)| x.as_chunks::<CHAINS>().0);
        for (at, w) in w_blocks.iter().enumerate() {
            for (sums, x) in sums.iter_mut().zip(x_blocks) {
                for ((sum, &x), &w) in sums.iter_mut().zip(&x[at]).zip(w) {
                    *sum = simd.mul_add_f32s(x, w, *sum);
                }
            }
        }
        let mut totals = [0.0; N];
        for ((total, sums), (x, x_rest)) in totals.iter_mut().zip(&mut sums).zip(x) {
            let x_tail = x.as_chunks::<CHAINS>().1;
            for ((sum, &x), &w) in sums.iter_mut().zip(x_tail).zip(w_tail) {
                *sum = simd.mul_add_f32s(x, w, *sum);
            }
            let [a, b, c, d] = *sums;
            *total = simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
            for (&x, &w) in x_rest.iter().zip(w_rest) {
                *total += x * w;
            }
        }
        totals
    }
}

/// A number type of values that are multiplied in f32.
pub(crate) trait Wide: bytemuck::Pod + Send + Sync {
    /// The same number in f32, exactly, without branches.
    fn wide(self) -> f32;
}

impl Wide for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }
}

impl Wide for f16 {
    // in integers, since f16 instructions are not on every processor and a call for eight values is slow
    #[inline(always)]
    fn wide(self) -> f32 {
        // the exponents of f16 and f32 are 127 - 15 apart; a product, unlike a sum of bits, normalises subnormals
        const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
        let bits = u32::from(self.to_bits());
        let magnitude = (bits & 0x7fff) << 13;
        let finite = (f32::from_bits(magnitude) * REBIAS).to_bits();
        let top = if magnitude < 0x7c00 << 13 { 0 } else { 0x7f80_0000 };
        f32::from_bits((bits & 0x8000) << 16 | finite | top)
    }
}

impl Wide for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// A type that is widened to f32 before it is multiplied.
pub(crate) trait Narrow: Wide {
    /// Widens `from` into `to`, exactly.
    fn widen(from: &[Self], to: &mut [f32]) {
        vectorised(
            #[inline(always)]
            || {
                for (to, from) in to.iter_mut().zip(from) {
                    *to = from.wide();
                }
            },
        );
    }
}

impl Narrow for f16 {}

impl Narrow for bf16 {}

/// [`matmul_then`] with `w` narrow and contiguous, `[outs, cols]`: widened row by row for few rows of `x`, otherwise in
/// panels of at most 16 MiB.
pub(crate) fn matmul_narrow_then<W: Narrow>(
    mut y: MatMut<'_, f32>,
    x: MatRef<'_, f32>,
    w: &[W],
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let (outs, cols) = (y.ncols(), x.ncols());
    if x.nrows() <= FEW_ROWS {
        let (_, task_outs) = tile(x.nrows(), outs, cols);
        y.par_col_chunks_mut(task_outs).enumerate().for_each(|(j, mut y)| {
            let first_out = j * task_outs;
            let mut wide = vec![0.0; cols];
            for out in 0..y.ncols() {
                W::widen(&w[(first_out + out) * cols..][..cols], &mut wide);
                stream(&mut y, x, &wide, out, Store::Replace);
            }
            for row in 0..y.nrows() {
                finish(row, first_out, row_mut(&mut y, row));
            }
        });
        return;
    }
    let panel_outs = ((4 << 20) / cols.max(1)).clamp(1, outs.max(1));
    let mut wide = vec![0.0; panel_outs * cols];
    for first_out in (0..outs).step_by(panel_outs) {
        let panel = panel_outs.min(outs - first_out);
        let (from, to) = (&w[first_out * cols..][..panel * cols], &mut wide[..panel * cols]);
        to.par_chunks_mut(65_536).zip(from.par_chunks(65_536)).for_each(|(to, from)| W::widen(from, to));
        let y = y.rb_mut().subcols_mut(first_out, panel);
        matmul_then(y, x, view(&wide, panel, cols, cols), Store::Replace, |row, out, values| {
            finish(row, first_out + out, values);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise;

    fn matmul(y: MatMut<'_, f32>, x: MatRef<'_, f32>, w: MatRef<'_, f32>, store: Store) {
        matmul_then(y, x, w, store, |_, _, _| {});
    }

    fn matrix(key: &str, n: usize) -> Vec<f32> {
        noise(key, n).collect()
    }

    fn multiply(x: &[f32], w: &[f32], rows: usize, cols: usize, outs: usize) -> Vec<f32> {
        let mut y = vec![f32::NAN; rows * outs];
        let (x, w) = (view(x, rows, cols, cols), view(w, outs, cols, cols));
        matmul(view_mut(&mut y, rows, outs, outs), x, w, Store::Replace);
        y
    }

    /// Every size on both sides of a tile, a vector, the few rows and faer's block of 512 columns.
    const SIZES: [(usize, usize, usize); 12] = [
        (0, 3, 5),
        (3, 0, 5),
        (7, 0, 5),
        (1, 1, 1),
        (1, 33, 70),
        (2, 512, 3),
        (4, 513, 289),
        (5, 31, 1),
        (5, 700, 97),
        (64, 65, 33),
        (257, 129, 290),
        (513, 1030, 35),
    ];

    #[test]
    fn product_is_the_sum_over_columns() {
        for (rows, cols, outs) in SIZES {
            let (x, w) = (matrix("gemm/x", rows * cols), matrix("gemm/w", outs * cols));
            let y = multiply(&x, &w, rows, cols, outs);
            for (i, &got) in y.iter().enumerate() {
                let (x, w) = (&x[i / outs * cols..][..cols], &w[i % outs * cols..][..cols]);
                let want: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                // cols terms of at most 1, each step rounding a partial sum of size sqrt(cols)
                let tolerance = 1.2e-7 * cols as f64;
                let error = (f64::from(got) - want).abs();
                assert!(error <= tolerance, "{rows}x{cols}x{outs} at {i}: {got}, want {want}");
            }
        }
    }

    #[test]
    fn adds_to_what_is_there_and_reads_overlapping_rows() {
        for rows in [3, 40] {
            let (cols, outs, hop) = (24, 50, 7);
            let (x, w) = (matrix("gemm/hop/x", (rows - 1) * hop + cols), matrix("gemm/hop/w", outs * cols));
            let start = matrix("gemm/hop/y", rows * (outs + 2));
            let mut y = start.clone();
            matmul(
                view_mut(&mut y, rows, outs, outs + 2),
                view(&x, rows, cols, hop),
                view(&w, outs, cols, cols),
                Store::Add,
            );
            for (i, (&got, &was)) in y.iter().zip(&start).enumerate() {
                let (r, o) = (i / (outs + 2), i % (outs + 2));
                if o >= outs {
                    assert_eq!(got, was, "the gap between rows is not touched");
                    continue;
                }
                let products = (0..cols).map(|c| f64::from(x[r * hop + c]) * f64::from(w[o * cols + c]));
                let want = f64::from(was) + products.sum::<f64>();
                assert!((f64::from(got) - want).abs() <= 1e-5, "{rows} rows at {r}, {o}: {got}, want {want}");
            }
        }
    }

    #[test]
    fn an_element_does_not_depend_on_the_rows_beside_it() {
        for (cols, outs) in [(65, 33), (1030, 129), (1024, 1024)] {
            let (x, w) = (matrix("gemm/rows/x", 64 * cols), matrix("gemm/rows/w", outs * cols));
            let few = multiply(&x, &w, 4, cols, outs);
            let many = multiply(&x, &w, 64, cols, outs);
            for rows in [1, 2, 3] {
                assert!(
                    multiply(&x, &w, rows, cols, outs) == few[..rows * outs],
                    "{rows} of 4 rows, {cols}x{outs}"
                );
            }
            for rows in [5, 7, 31, 63] {
                assert!(
                    multiply(&x, &w, rows, cols, outs) == many[..rows * outs],
                    "{rows} of 64 rows, {cols}x{outs}"
                );
            }
        }
    }

    #[test]
    fn every_element_is_finished_once() {
        for (rows, cols, outs) in [(3, 8, 300), (300, 8, 700)] {
            let (x, w) = (matrix("gemm/once/x", rows * cols), matrix("gemm/once/w", outs * cols));
            let mut y = vec![f32::NAN; rows * outs];
            let (x, w) = (view(&x, rows, cols, cols), view(&w, outs, cols, cols));
            matmul_then(view_mut(&mut y, rows, outs, outs), x, w, Store::Replace, |row, first, values| {
                for (o, v) in values.iter_mut().enumerate() {
                    assert!(v.is_finite() && *v < 1e3, "the product is there, and unfinished");
                    *v = (row * outs + first + o + 1000) as f32;
                }
            });
            assert!(y.iter().enumerate().all(|(i, &v)| v == (i + 1000) as f32));
        }
    }

    #[test]
    fn every_narrow_value_is_widened_exactly() {
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let brains: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
        let mut wide = vec![0.0_f32; halves.len()];
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        f16::widen(&halves, &mut wide);
        for (h, &w) in halves.iter().zip(&wide) {
            assert!(same(h.to_f32(), w), "f16 {:#06x}: {w:e}", h.to_bits());
        }
        bf16::widen(&brains, &mut wide);
        for (b, &w) in brains.iter().zip(&wide) {
            assert!(same(b.to_f32(), w), "bf16 {:#06x}: {w:e}", b.to_bits());
        }
    }

    #[test]
    fn narrow_weights_are_widened_exactly() {
        for (rows, cols, outs) in [(3, 100, 40), (9, 100, 40), (6, 300_000, 20)] {
            let x = matrix("gemm/narrow/x", rows * cols);
            let w: Vec<f32> = matrix("gemm/narrow/w", outs * cols);
            let half: Vec<f16> = w.iter().map(|&v| f16::from_f32(v)).collect();
            let brain: Vec<bf16> = w.iter().map(|&v| bf16::from_f32(v)).collect();
            let mut got = vec![f32::NAN; rows * outs];
            let seen = view(&x, rows, cols, cols);
            matmul_narrow_then(view_mut(&mut got, rows, outs, outs), seen, &half, |_, _, _| {});
            let wide: Vec<f32> = half.iter().map(|v| v.to_f32()).collect();
            assert!(got == multiply(&x, &wide, rows, cols, outs), "f16 {rows}x{cols}x{outs}");
            matmul_narrow_then(view_mut(&mut got, rows, outs, outs), seen, &brain, |_, _, _| {});
            let wide: Vec<f32> = brain.iter().map(|v| v.to_f32()).collect();
            assert!(got == multiply(&x, &wide, rows, cols, outs), "bf16 {rows}x{cols}x{outs}");
        }
    }
}
