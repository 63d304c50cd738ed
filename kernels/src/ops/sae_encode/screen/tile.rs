//! Products of whole numbers of 8 bits, of a few rows and a few features.
//!
//! `vpmaddubsw` multiplies bytes without a sign by bytes with one and adds up two neighbours in 16 bits. x is stored 128 higher
//! than it is, so each sum of a [`GROUP`] is too large by 128 times the weights in it, which is where it starts below 0.
//! Sums of 16 bits wrap: what comes out is right whatever happened on the way, if the sum itself fits, and that is what
//! [`super::levels`] sees to.

use pulp::x86::V3;
use std::arch::x86_64::__m256i;

/// Rows and features of a tile: 12 sums of 8 features each.
pub(super) const ROWS: usize = 6;
pub(super) const FEATURES: usize = 16;
/// Features of a vector.
pub(super) const HALF: usize = FEATURES / 2;
/// Columns of a word, of whose products two are added up in each half.
pub(super) const WORD: usize = 4;
/// Words whose products are added up in 16 bits.
pub(super) const GROUP: usize = 8;
/// Columns of a group.
pub(super) const COLUMNS: usize = GROUP * WORD;
/// What x is stored higher by, in every byte of a word.
const MIDDLE: i32 = i32::from_ne_bytes([0x80; 4]);

/// Tiles that so many features are in.
pub(super) fn tiles(features: usize) -> usize {
    features.div_ceil(FEATURES)
}

/// A group of columns of a few rows.
pub(super) type RowWords = [[i32; ROWS]; GROUP];

/// A group of columns of a few features, at the start of a line of cache, so that no vector lies in two.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct FeatureWords {
    pub words: [[i32; FEATURES]; GROUP],
    /// Where sums start, two in a word.
    starts: [i32; FEATURES],
}

impl FeatureWords {
    /// Takes in a group of columns of features that are one after another, so many columns each.
    #[inline(always)]
    pub fn set(&mut self, simd: V3, whole: &[i8], columns: usize, group: usize) {
        let middle = simd.avx._mm256_set1_epi32(MIDDLE);
        for half in 0..2 {
            let mut features = [simd.avx._mm256_setzero_si256(); HALF];
            for (at, feature) in features.iter_mut().enumerate() {
                let first = (half * HALF + at) * columns + group * COLUMNS;
                let bytes: [i8; COLUMNS] = whole[first..first + COLUMNS].try_into().expect("a group");
                *feature = pulp::cast(bytes);
            }
            let mut start = simd.avx._mm256_setzero_si256();
            for (words, column) in self.words.iter_mut().zip(transposed(simd, features)) {
                let words: &mut [i32; HALF] = &mut words.as_chunks_mut().0[half];
                *words = pulp::cast(column);
                let product = simd.avx2._mm256_maddubs_epi16(middle, column);
                start = simd.avx2._mm256_sub_epi16(start, product);
            }
            let starts: &mut [i32; HALF] = &mut self.starts.as_chunks_mut().0[half];
            *starts = pulp::cast(start);
        }
    }
}

/// Eight rows of eight words as eight columns.
#[inline(always)]
fn transposed(simd: V3, rows: [__m256i; 8]) -> [__m256i; 8] {
    let zero = [simd.avx._mm256_setzero_si256(); 8];
    let (mut pairs, mut fours, mut columns) = (zero, zero, zero);
    for at in [0, 2, 4, 6] {
        pairs[at] = simd.avx2._mm256_unpacklo_epi32(rows[at], rows[at + 1]);
        pairs[at + 1] = simd.avx2._mm256_unpackhi_epi32(rows[at], rows[at + 1]);
    }
    for at in [0, 4] {
        for half in 0..2 {
            fours[at + 2 * half] = simd.avx2._mm256_unpacklo_epi64(pairs[at + half], pairs[at + half + 2]);
            fours[at + 2 * half + 1] =
                simd.avx2._mm256_unpackhi_epi64(pairs[at + half], pairs[at + half + 2]);
        }
    }
    for at in 0..4 {
        // 0x20: the low halves of both, 0x31: the high halves
        columns[at] = simd.avx2._mm256_permute2x128_si256::<0x20>(fours[at], fours[at + 4]);
        columns[at + 4] = simd.avx2._mm256_permute2x128_si256::<0x31>(fours[at], fours[at + 4]);
    }
    columns
}

/// Bytes of a row, as they are in [`RowWords`].
pub(super) fn raised(word: i32) -> i32 {
    word ^ MIDDLE
}

#[inline(always)]
fn vectors(words: &[i32; FEATURES]) -> [__m256i; 2] {
    let (low, high) = words.split_at(HALF);
    [low, high].map(|half| {
        let half: [i32; HALF] = half.try_into().expect("half of a tile");
        pulp::cast(half)
    })
}

/// Sets `products` to those of a few rows and a few features.
#[inline(always)]
pub(super) fn multiply(
    simd: V3,
    x: &[RowWords],
    weight: &[FeatureWords],
    products: &mut [[i32; FEATURES]; ROWS],
) {
    let ones = simd.avx._mm256_set1_epi16(1);
    let mut sums = [[simd.avx._mm256_setzero_si256(); 2]; ROWS];
    for (x, weight) in x.iter().zip(weight) {
        let mut parts = [vectors(&weight.starts); ROWS];
        // two words a round, so that counting rounds costs half as much
        let words = x.as_chunks::<2>().0.iter().zip(weight.words.as_chunks::<2>().0);
        for (x, weight) in words {
            parts = add_word(simd, parts, &x[0], &weight[0]);
            parts = add_word(simd, parts, &x[1], &weight[1]);
        }
        for (sum, part) in sums.as_flattened_mut().iter_mut().zip(parts.as_flattened()) {
            *sum = simd.avx2._mm256_add_epi32(*sum, simd.avx2._mm256_madd_epi16(*part, ones));
        }
    }
    let halves = products.as_flattened_mut().as_chunks_mut::<{ HALF }>().0;
    halves.iter_mut().zip(sums.as_flattened()).for_each(|(half, &sum)| *half = pulp::cast(sum));
}

/// Adds the products of a word of a few rows and a few features.
#[inline(always)]
fn add_word(
    simd: V3,
    mut parts: [[__m256i; 2]; ROWS],
    x: &[i32; ROWS],
    weight: &[i32; FEATURES],
) -> [[__m256i; 2]; ROWS] {
    let weight = vectors(weight);
    for (parts, &x) in parts.iter_mut().zip(x) {
        let x = simd.avx._mm256_set1_epi32(x);
        for (part, weight) in parts.iter_mut().zip(weight) {
            *part = simd.avx2._mm256_add_epi16(*part, simd.avx2._mm256_maddubs_epi16(x, weight));
        }
    }
    parts
}
