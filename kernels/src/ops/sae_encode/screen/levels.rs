//! Rows as whole numbers, and how much of them that leaves out.

use super::tile::{COLUMNS, GROUP, ROWS, RowWords, WORD, raised};
use pulp::x86::V3;
use rayon::prelude::*;

/// The largest whole number in a row of weight: two products with a byte of x that add up stay within 16 bits.
pub(super) const MOST_WEIGHT: f32 = 64.0;
/// The same in a row of x: a byte.
const MOST_X: f32 = 127.0;
/// What those of x that are added up in 16 bits may come to: 64 times it is within 32,767. Each may be rounded up by a half.
const MOST_SUM: f32 = 511.0 - 0.5 * (COLUMNS / 2) as f32;
/// Numbers are multiplied by this at most, so that what they are divided by is no number below the smallest.
const MOST_SCALE: f32 = 1e17;
/// Lanes that sums are in.
const LANES: usize = 16;

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
    pub fn of(row: &[f32], largest: f32, most: f32, sum: f32, whole: &mut [i8]) -> Self {
        let scale = (most / largest).min(MOST_SUM / sum).min(MOST_SCALE);
        let (mut wholes, mut rests) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let mut divide = |row: &[f32; LANES], whole: &mut [i8; LANES]| {
            for lane in 0..LANES {
                let v = row[lane] * scale;
                // adding 1.5 * 2^23 leaves the nearest whole number in the low bits of the mantissa
                let raised = v + 12_582_912.0;
                let near = raised - 12_582_912.0;
                whole[lane] = raised.to_bits() as i8;
                wholes[lane] += near * near;
                rests[lane] += (v - near) * (v - near);
            }
        };
        let (rows, last) = row.as_chunks::<LANES>();
        let (places, padding) = whole.as_chunks_mut::<LANES>().0.split_at_mut(rows.len());
        places.iter_mut().zip(rows).for_each(|(place, row)| divide(row, place));
        padding.fill([0; LANES]);
        if let Some(place) = padding.first_mut() {
            let mut row = [0.0; LANES];
            row[..last.len()].copy_from_slice(last);
            divide(&row, place);
        }
        let length = |squares: [f32; LANES]| squares.iter().sum::<f32>().sqrt() * 1.0001;
        Self {
            unit: 1.0 / scale,
            whole: length(wholes),
            // and what rounding of the numbers, at most 127, may have hidden
            rest: length(rests) + 2e-5 * (row.len() as f32).sqrt(),
        }
    }
}

/// The size of a row's largest number; not finite where one of them is not.
#[inline(always)]
pub(super) fn largest(row: &[f32]) -> f32 {
    // as whole numbers, of which that of what is not a number is the largest
    let mut most = [0_u32; 2 * LANES];
    let (chunks, rest) = row.as_chunks::<{ 2 * LANES }>();
    for chunk in chunks {
        most.iter_mut().zip(chunk).for_each(|(most, v)| *most = (*most).max(v.abs().to_bits()));
    }
    f32::from_bits(most.into_iter().chain(rest.iter().map(|v| v.abs().to_bits())).fold(0, u32::max))
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
                    || divide(x, &middle, &mut near, &mut whole),
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
fn divide(x: &[f32], middle: &[f32], near: &mut [f32], whole: &mut [i8]) -> RowBound {
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
    let levels = Levels::of(near, largest(near), MOST_X, largest_sum(near), whole);
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
