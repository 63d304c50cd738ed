//! Rows as whole numbers, and how much of them that leaves out.

use super::tile::{COLUMNS, GROUP, ROWS, RowWords, WORD, raised};
use crate::math::ask;
use pulp::x86::V3;
use rayon::prelude::*;
use std::arch::x86_64::__m256;

/// The largest whole number in a row of weight: two products with a byte of x that add up stay within 16 bits.
pub(super) const MOST_WEIGHT: f32 = 64.0;
/// The same in a row of x: a byte.
const MOST_X: f32 = 127.0;
/// What those of x that are added up in 16 bits may come to: 64 times it is within 32,767. Each may be rounded up by a half.
const MOST_SUM: f32 = 511.0 - 0.5 * (COLUMNS / 2) as f32;
/// Numbers are multiplied by this at most, so that what they are divided by is no number below the smallest.
const MOST_SCALE: f32 = 1e17;
/// Numbers of a vector.
const LANES: usize = 8;

/// A row in steps of `unit`.
#[derive(Clone, Copy, Default)]
pub(super) struct Levels {
    pub unit: f32,
    /// The length of the whole numbers, in units.
    pub whole: f32,
    /// The length of what is left of the row without them, at most.
    pub rest: f32,
}

impl Levels {
    /// Divides a row by a unit, so that its largest number is `most` at most, and `sum` is [`MOST_SUM`].
    #[inline(always)]
    pub fn of(simd: V3, row: &[f32], largest: f32, most: f32, sum: f32, whole: &mut [i8]) -> Self {
        let scale = (most / largest).min(MOST_SUM / sum).min(MOST_SCALE);
        let mut squares = [[simd.avx._mm256_setzero_ps(); 2]; COLUMNS / LANES];
        let (rows, last) = row.as_chunks::<COLUMNS>();
        let (places, padding) = whole.as_chunks_mut::<COLUMNS>().0.split_at_mut(rows.len());
        places
            .iter_mut()
            .zip(rows)
            .for_each(|(place, row)| *place = divide_some(simd, row, scale, &mut squares));
        if let Some(place) = padding.first_mut() {
            let mut row = [0.0; COLUMNS];
            row[..last.len()].copy_from_slice(last);
            *place = divide_some(simd, &row, scale, &mut squares);
        }
        let length = |part: usize| {
            let lanes = squares.iter().flat_map(|squares| pulp::cast::<_, [f32; LANES]>(squares[part]));
            lanes.sum::<f32>().sqrt() * 1.0001
        };
        Self {
            unit: 1.0 / scale,
            whole: length(0),
            // and what rounding of the numbers, at most 127, may have hidden
            rest: length(1) + 2e-5 * (row.len() as f32).sqrt(),
        }
    }
}

/// Some numbers times `scale` as whole numbers; to `squares` are added those of the whole numbers and of what is left without them.
#[inline(always)]
fn divide_some(
    simd: V3,
    row: &[f32; COLUMNS],
    scale: f32,
    squares: &mut [[__m256; 2]; COLUMNS / LANES],
) -> [i8; COLUMNS] {
    let (avx, avx2) = (simd.avx, simd.avx2);
    let scale = avx._mm256_set1_ps(scale);
    let rows: [__m256; COLUMNS / LANES] = pulp::cast(*row);
    let mut wholes = [avx._mm256_setzero_si256(); COLUMNS / LANES];
    for ((whole, row), [whole_squares, rest_squares]) in wholes.iter_mut().zip(rows).zip(squares) {
        let v = avx._mm256_mul_ps(row, scale);
        *whole = avx._mm256_cvtps_epi32(v);
        let near = avx._mm256_cvtepi32_ps(*whole);
        let rest = avx._mm256_sub_ps(v, near);
        *whole_squares = simd.fma._mm256_fmadd_ps(near, near, *whole_squares);
        *rest_squares = simd.fma._mm256_fmadd_ps(rest, rest, *rest_squares);
    }
    let [a, b, c, d] = wholes;
    let packed = avx2._mm256_packs_epi16(avx2._mm256_packs_epi32(a, b), avx2._mm256_packs_epi32(c, d));
    // of each, its first four are in the low half and its last four in the high half
    let order = pulp::cast([0_i32, 4, 1, 5, 2, 6, 3, 7]);
    pulp::cast(avx2._mm256_permutevar8x32_epi32(packed, order))
}

/// The size of a row's largest number; not finite where one of them is not.
///
/// By whole numbers, of which that of what is not a number is the largest.
#[inline(always)]
pub(super) fn largest(row: &[f32]) -> f32 {
    f32::from_bits(row.iter().map(|v| v.abs().to_bits()).fold(0, u32::max))
}

/// The size of a row's largest number, not finite where one of them is not; and the row's product with another. On the way, asks
/// for the row that comes `next`.
#[inline(always)]
pub(super) fn largest_and_product(row: &[f32], other: &[f32], next: &[f32]) -> (f32, f32) {
    // as in [`largest`]
    let (mut most, mut sums) = ([0_u32; COLUMNS], [0.0_f32; COLUMNS]);
    let (chunks, rest) = row.as_chunks::<COLUMNS>();
    let (others, other_rest) = other.as_chunks::<COLUMNS>();
    for (at, (chunk, other)) in chunks.iter().zip(others).enumerate() {
        const LINE: usize = 64;
        (0..size_of_val(chunk)).step_by(LINE).for_each(|line| ask(next, at * size_of_val(chunk) + line));
        for lane in 0..COLUMNS {
            most[lane] = most[lane].max(chunk[lane].abs().to_bits());
            sums[lane] = chunk[lane].mul_add(other[lane], sums[lane]);
        }
    }
    for (lane, (v, other)) in rest.iter().zip(other_rest).enumerate() {
        most[lane] = most[lane].max(v.abs().to_bits());
        sums[lane] = v.mul_add(*other, sums[lane]);
    }
    (f32::from_bits(most.into_iter().fold(0, u32::max)), sums.into_iter().sum())
}

/// Whether bounds hold for a row whose largest number this is.
pub(super) fn is_sane(largest: f32) -> bool {
    largest == 0.0 || (1e-12..1e26).contains(&largest)
}

/// What bounds a row's products.
#[derive(Clone, Copy, Default)]
pub(super) struct RowBound {
    pub unit: f32,
    /// The length of the row in units, and of what whole numbers leave of it, at most.
    pub length: f32,
    pub rest: f32,
    /// Of the middle, what the row is without.
    pub share: f32,
}

/// x without its share of a middle as whole numbers.
pub(super) struct Rows {
    /// Numbers near the mean of each column.
    pub middle: Vec<f32>,
    /// [`ROWS`] rows after another: their words.
    pub words: Vec<RowWords>,
    /// Groups of a row.
    pub groups: usize,
    pub bounds: Vec<RowBound>,
    /// The largest number of rows whose bounds hold.
    pub largest: f32,
    /// Whether bounds hold for a row.
    pub sane: Vec<bool>,
}

impl Rows {
    pub fn new(simd: V3, x: &[f32], width: usize) -> Self {
        let middle = middle(x, width);
        let groups = width.div_ceil(COLUMNS);
        let count = (x.len() / width).div_ceil(ROWS);
        let mut words = vec![[[0; ROWS]; GROUP]; count * groups];
        let of_rows = |(words, x): (&mut [RowWords], &[f32])| -> Vec<(RowBound, f32)> {
            let (mut near, mut whole) = (vec![0.0; width], vec![0; groups * COLUMNS]);
            let mut place = |(at, x): (usize, &[f32])| {
                let largest = simd.vectorize(
                    #[inline(always)]
                    || largest(x),
                );
                if !is_sane(largest) {
                    return (RowBound::default(), largest);
                }
                let bound = simd.vectorize(
                    #[inline(always)]
                    || divide(simd, x, &middle, &mut near, &mut whole),
                );
                let whole: &[i32] = bytemuck::cast_slice(&whole);
                words.as_flattened_mut().iter_mut().zip(whole).for_each(|(words, &w)| words[at] = raised(w));
                (bound, largest)
            };
            x.chunks_exact(width).enumerate().map(&mut place).collect()
        };
        let measured: Vec<Vec<(RowBound, f32)>> =
            words.par_chunks_mut(groups).zip(x.par_chunks(ROWS * width)).map(of_rows).collect();
        let (bounds, sizes): (Vec<RowBound>, Vec<f32>) = measured.into_iter().flatten().unzip();
        let sane: Vec<bool> = sizes.iter().copied().map(is_sane).collect();
        let largest = sizes.into_iter().filter(|&size| is_sane(size)).fold(0.0, f32::max);
        Self { middle, words, groups, bounds, largest, sane }
    }
}

/// A row without its share of the middle as whole numbers.
#[inline(always)]
fn divide(simd: V3, x: &[f32], middle: &[f32], near: &mut [f32], whole: &mut [i8]) -> RowBound {
    let [mut squares, mut middle_squares, mut product] = [0.0; 3];
    for (&x, &m) in x.iter().zip(middle) {
        let (x, m) = (f64::from(x), f64::from(m));
        squares += x * x;
        middle_squares += m * m;
        product += x * m;
    }
    // of all multiples of the middle the nearest, so that rows of any size are shorter without it; but none of a middle near 0
    let share = if middle_squares > 1e-12 * squares { (product / middle_squares) as f32 } else { 0.0 };
    near.iter_mut().zip(x.iter().zip(middle)).for_each(|(near, (&x, &m))| *near = (-share).mul_add(m, x));
    let levels = Levels::of(simd, near, largest(near), MOST_X, largest_sum(near), whole);
    let rounding = (x.len() as f64 + 40.0) * 2.0_f64.powi(-24);
    let lengths = squares.sqrt() + f64::from(share).abs() * middle_squares.sqrt();
    let slack = (rounding * lengths / f64::from(levels.unit)) as f32;
    let (unit, rest) = (levels.unit, levels.rest + slack);
    RowBound { unit, length: levels.whole + rest, rest, share }
}

/// The mean of some of the rows whose bounds hold.
fn middle(x: &[f32], width: usize) -> Vec<f32> {
    const MOST_ROWS: usize = 256;
    let step = (x.len() / width).div_ceil(MOST_ROWS);
    let (mut sums, mut count) = (vec![0.0_f64; width], 0.0_f64);
    for row in x.chunks_exact(width).step_by(step).filter(|row| is_sane(largest(row))) {
        sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
        count += 1.0;
    }
    sums.into_iter().map(|sum| (sum / count.max(1.0)) as f32).collect()
}

/// The largest of the sums of sizes of those numbers whose products are added up in 16 bits.
fn largest_sum(row: &[f32]) -> f32 {
    let of_group = |group: &[f32]| {
        let mut sums = [0.0; 2];
        for word in group.chunks(WORD) {
            for (at, v) in word.iter().enumerate() {
                sums[at / (WORD / 2)] += v.abs();
            }
        }
        sums[0].max(sums[1])
    };
    row.chunks(COLUMNS).map(of_group).fold(0.0, f32::max)
}
