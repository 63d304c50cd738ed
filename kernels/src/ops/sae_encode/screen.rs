//! The search with half the multiplications: products of whole numbers say which features may be among the k best, products in
//! f32 say which are.
//!
//! AVX2 multiplies and adds 16 pairs of 16-bit numbers in the time of 8 pairs of f32, and sums of them have no rounding. Rows of x
//! and of weight, scaled to a length of [`LENGTH`] and rounded, make products that are off by at most [`error`]: the
//! inequality of Cauchy and Schwarz, of what rounding to whole numbers leaves. A feature whose value is at most `upper` is dropped
//! where k others are at least as large as `least`, and `upper < least`: so what is left holds the k best, and is computed in f32.

use super::best::key;
use crate::gemm::dots;
use pulp::x86::V3;
use rayon::prelude::*;

/// Length that rows are scaled to: no part of a product of two leaves 32 bits, whatever rounding adds to them.
const LENGTH: f64 = 45_990.0;
/// Columns at most, up to which that is so.
const MOST_WIDTH: usize = 4096;
/// Rows and features of a tile: 12 sums of 8 features each.
const ROWS: usize = 6;
const FEATURES: usize = 16;
/// Features of a task at least, a multiple of a tile's.
const TASK_FEATURES: usize = 1024;
/// Sums of products of numbers of at most this size stay within f32.
const MOST_PRODUCT: f64 = 1e37;

/// How far a product of whole numbers may be from the scaled product of two rows of `width` numbers, and the product in f32
/// too, in any order: either row is off by 0.502 in each of its numbers, and the sum in f32 by `width * 2^-24` of `LENGTH^2`.
fn error(width: usize) -> f64 {
    let width = width as f64;
    (2.0 * LENGTH + 40.0) * 0.502 * width.sqrt() + (width + 40.0) * LENGTH * LENGTH * 2.0_f64.powi(-24)
}

/// The square of a row's length, and its largest number.
#[inline(always)]
fn measure(row: &[f32]) -> (f64, f32) {
    const LANES: usize = 16;
    let (mut squares, mut largest) = ([0.0_f64; LANES], [0.0_f32; LANES]);
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let (v, most) = (chunk[lane], largest[lane]);
            squares[lane] += f64::from(v) * f64::from(v);
            largest[lane] = if v.abs() > most { v.abs() } else { most };
        }
    }
    let rest_square: f64 = rest.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    let most = largest.iter().chain(rest).fold(0.0_f32, |most, v| most.max(v.abs()));
    (squares.iter().sum::<f64>() + rest_square, most)
}

/// A row as whole numbers, two in a word; what they are multiplied by, 0 for a row of zeros; and the square of its length.
#[inline(always)]
fn quantised(row: &[f32], words: &mut [i32]) -> (f32, f64) {
    let (square, largest) = measure(row);
    if square == 0.0 {
        words.fill(0);
        return (0.0, 0.0);
    }
    let scale = (LENGTH / square.sqrt()).min(32_766.0 / f64::from(largest)) as f32;
    // adding 1.5 * 2^23 leaves the nearest whole number in the low bits of the mantissa
    let whole = |v: f32| (v * scale + 12_582_912.0).to_bits() as u16;
    let numbers: &mut [u16] = bytemuck::cast_slice_mut(words);
    numbers[row.len()..].fill(0);
    numbers.iter_mut().zip(row).for_each(|(n, &v)| *n = whole(v));
    (1.0 / scale, square)
}

/// Whether bounds hold for a row of this square of its length.
fn is_sane(square: f64) -> bool {
    square == 0.0 || (1e-24..1e60).contains(&square)
}

/// A feature that may be among the best, and between which values its own is.
#[derive(Clone, Copy)]
struct Candidate {
    lower: f32,
    upper: f32,
    feature: u32,
}

/// The candidates of a row.
struct Candidates {
    found: Vec<Candidate>,
    /// k features are at least as large, or 0.
    least: f32,
}

impl Candidates {
    /// Drops what is below the k-th largest lower bound; what is left if nothing can be told apart by its bounds is computed.
    fn shrink(&mut self, k: usize, exact: impl Fn(u32) -> f32) {
        self.drop_below(k);
        if self.found.len() > 2 * k {
            for candidate in self.found.iter_mut().filter(|c| c.lower < c.upper) {
                let value = exact(candidate.feature);
                (candidate.lower, candidate.upper) = (value, value);
            }
            let order =
                |a: &Candidate, b: &Candidate| b.upper.total_cmp(&a.upper).then(a.feature.cmp(&b.feature));
            self.found.select_nth_unstable_by(k - 1, order);
            self.found.truncate(k);
            self.least = self.least.max(self.found[k - 1].lower);
        }
    }

    fn drop_below(&mut self, k: usize) {
        if self.found.len() > k {
            let (_, kth, _) = self.found.select_nth_unstable_by(k - 1, |a, b| b.lower.total_cmp(&a.lower));
            self.least = self.least.max(kth.lower);
            self.found.retain(|c| c.upper >= self.least);
        }
    }
}

/// x as whole numbers: groups of [`ROWS`] rows, of which a pair of columns lies together.
struct Rows {
    words: Vec<[i32; ROWS]>,
    scales: Vec<f32>,
    /// The largest square of a row's length.
    most: f64,
}

impl Rows {
    fn new(simd: V3, x: &[f32], width: usize) -> Option<Self> {
        let pairs = width.div_ceil(2);
        let groups = (x.len() / width).div_ceil(ROWS);
        let mut words = vec![[0; ROWS]; groups * pairs];
        let of_group = |(words, x): (&mut [[i32; ROWS]], &[f32])| -> Vec<(f32, f64)> {
            let mut row = vec![0; pairs];
            let mut place = |(at, x): (usize, &[f32])| {
                let measured = simd.vectorize(
                    #[inline(always)]
                    || quantised(x, &mut row),
                );
                words.iter_mut().zip(&row).for_each(|(words, &pair)| words[at] = pair);
                measured
            };
            x.chunks_exact(width).enumerate().map(&mut place).collect()
        };
        let measured: Vec<Vec<(f32, f64)>> =
            words.par_chunks_mut(pairs).zip(x.par_chunks(ROWS * width)).map(of_group).collect();
        let (scales, squares): (Vec<f32>, Vec<f64>) = measured.into_iter().flatten().unzip();
        let most = squares.iter().copied().fold(0.0, f64::max);
        squares.into_iter().all(is_sane).then_some(Self { words, scales, most })
    }
}

/// The products of a group of rows and a tile of features.
#[inline(always)]
fn multiply(simd: V3, x: &[[i32; ROWS]], weight: &[[i32; FEATURES]]) -> [[i32; FEATURES]; ROWS] {
    let avx2 = simd.avx2;
    let zero = simd.avx._mm256_setzero_si256();
    let mut sums = [[zero; 2]; ROWS];
    for (x, weight) in x.iter().zip(weight) {
        let (low, high) = weight.split_at(FEATURES / 2);
        let halves = [low, high].map(|half| {
            let half: [i32; FEATURES / 2] = half.try_into().expect("half of a tile");
            pulp::cast(half)
        });
        for (sums, &pair) in sums.iter_mut().zip(x) {
            let pair = simd.avx._mm256_set1_epi32(pair);
            for (sum, half) in sums.iter_mut().zip(halves) {
                *sum = avx2._mm256_add_epi32(*sum, avx2._mm256_madd_epi16(pair, half));
            }
        }
    }
    sums.map(pulp::cast)
}

/// What is the same for every task.
struct Search<'a> {
    simd: V3,
    k: usize,
    width: usize,
    x: &'a [f32],
    rows: Rows,
    weight: &'a [f32],
    bias: &'a [f32],
}

impl Search<'_> {
    /// The value of a feature in f32.
    fn exact(&self, row: usize, feature: u32) -> f32 {
        let feature = feature as usize;
        let weight = &self.weight[feature * self.width..][..self.width];
        let [product] = dots([&self.x[row * self.width..][..self.width]], weight);
        product + self.bias[feature]
    }

    /// The candidates of every row among the features from `first` up to `end`; `None` where bounds do not hold.
    fn task(&self, first: usize, end: usize) -> Option<Vec<Candidates>> {
        let (width, pairs, k) = (self.width, self.width.div_ceil(2), self.k);
        let count = self.rows.scales.len();
        let error = error(width) as f32;
        let mut all: Vec<Candidates> =
            (0..count).map(|_| Candidates { found: Vec::new(), least: 0.0 }).collect();
        let mut tile = vec![[0; FEATURES]; pairs];
        let mut row = vec![0; pairs];
        for first in (first..end).step_by(FEATURES) {
            let features = FEATURES.min(end - first);
            let (mut scales, mut bias) = ([0.0; FEATURES], [f32::NEG_INFINITY; FEATURES]);
            for at in 0..features {
                let weight = &self.weight[(first + at) * width..][..width];
                let square;
                (scales[at], square) = self.simd.vectorize(
                    #[inline(always)]
                    || quantised(weight, &mut row),
                );
                let sane = is_sane(square) && (self.rows.most * square).sqrt() < MOST_PRODUCT;
                if !sane || !self.bias[first + at].is_finite() {
                    return None;
                }
                tile.iter_mut().zip(&row).for_each(|(tile, &pair)| tile[at] = pair);
                // and what rounding of the last sums may add
                bias[at] = self.bias[first + at] + 5e-7 * self.bias[first + at].abs();
            }
            for (group, words) in self.rows.words.chunks_exact(pairs).enumerate() {
                let products = self.simd.vectorize(
                    #[inline(always)]
                    || multiply(self.simd, words, &tile),
                );
                let rows = (group * ROWS..count).zip(&products);
                for (row, products) in rows {
                    let (candidates, scale) = (&mut all[row], self.rows.scales[row]);
                    let (uppers, passes) = self.simd.vectorize(
                        #[inline(always)]
                        || {
                            let (mut uppers, mut passes) = ([0.0; FEATURES], false);
                            for at in 0..FEATURES {
                                uppers[at] = (products[at] as f32 + error) * (scale * scales[at]) + bias[at];
                                passes |= uppers[at] >= candidates.least;
                            }
                            (uppers, passes)
                        },
                    );
                    if !passes {
                        continue;
                    }
                    for at in (0..features).filter(|&at| uppers[at] >= candidates.least) {
                        let below = 2.0 * error * (scale * scales[at]) + 2e-6 * self.bias[first + at].abs();
                        candidates.found.push(Candidate {
                            lower: uppers[at] - below,
                            upper: uppers[at],
                            feature: (first + at) as u32,
                        });
                    }
                    if candidates.found.len() >= 4 * k + FEATURES {
                        candidates.shrink(k, |feature| self.exact(row, feature));
                    }
                }
            }
        }
        Some(all)
    }

    /// Keys of the best of a row, and of few more, out of the candidates of all tasks.
    fn finish(&self, row: usize, tasks: &[Vec<Candidates>]) -> Vec<u64> {
        let found = tasks.iter().flat_map(|task| task[row].found.iter().copied()).collect();
        let mut all = Candidates { found, least: 0.0 };
        all.drop_below(self.k);
        let exact = all.found.iter().map(|c| (self.exact(row, c.feature), c.feature));
        exact.filter(|(value, _)| *value > 0.0).map(|(value, feature)| key(value, feature)).collect()
    }
}

/// Keys of the best features of every row, and of few more, in no order; `None` where this processor has not the instructions
/// or multiplies f32 as fast, and where values are not finite, too large or too small.
pub(super) fn search(
    k: usize,
    width: usize,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
) -> Option<Vec<Vec<u64>>> {
    let simd = V3::try_new().filter(|_| !std::is_x86_feature_detected!("avx512f"))?;
    if width > MOST_WIDTH {
        return None;
    }
    let search = Search { simd, k, width, x, rows: Rows::new(simd, x, width)?, weight, bias };
    let wanted = 4 * rayon::current_num_threads();
    let task_features = bias.len().div_ceil(wanted).max(TASK_FEATURES).next_multiple_of(FEATURES);
    let firsts: Vec<usize> = (0..bias.len()).step_by(task_features).collect();
    let tasks: Option<Vec<Vec<Candidates>>> = firsts
        .into_par_iter()
        .map(|first| search.task(first, bias.len().min(first + task_features)))
        .collect();
    let tasks = tasks?;
    Some((0..x.len() / width).into_par_iter().map(|row| search.finish(row, &tasks)).collect())
}
