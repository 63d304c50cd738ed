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
/// Columns of a word, of whose products two are added up in each half.
pub(super) const WORD: usize = 4;
/// Words whose products are added up in 16 bits.
pub(super) const GROUP: usize = 8;
/// Columns of a group.
pub(super) const COLUMNS: usize = GROUP * WORD;
/// What x is stored higher by, in every byte of a word.
const MIDDLE: i32 = i32::from_ne_bytes([0x80; 4]);

/// A group of columns of a few rows.
pub(super) type RowWords = [[i32; ROWS]; GROUP];

/// A group of columns of a few features.
#[derive(Clone, Copy, Default)]
pub(super) struct FeatureWords {
    pub words: [[i32; FEATURES]; GROUP],
    /// Where sums start, two in a word.
    starts: [i32; FEATURES],
}

impl FeatureWords {
    /// Sets [`Self::starts`] for the words.
    #[inline(always)]
    pub fn start(&mut self, simd: V3) {
        let middle = simd.avx._mm256_set1_epi32(MIDDLE);
        let mut starts = [simd.avx._mm256_setzero_si256(); 2];
        for words in &self.words {
            for (start, word) in starts.iter_mut().zip(vectors(words)) {
                let product = simd.avx2._mm256_maddubs_epi16(middle, word);
                *start = simd.avx2._mm256_sub_epi16(*start, product);
            }
        }
        let starts: [[i32; FEATURES / 2]; 2] = starts.map(pulp::cast);
        self.starts.copy_from_slice(starts.as_flattened());
    }
}

/// Bytes of a row, as they are in [`RowWords`].
pub(super) fn raised(word: i32) -> i32 {
    word ^ MIDDLE
}

#[inline(always)]
fn vectors(words: &[i32; FEATURES]) -> [__m256i; 2] {
    let (low, high) = words.split_at(FEATURES / 2);
    [low, high].map(|half| {
        let half: [i32; FEATURES / 2] = half.try_into().expect("half of a tile");
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
    let avx2 = simd.avx2;
    let ones = simd.avx._mm256_set1_epi16(1);
    let mut sums = [[simd.avx._mm256_setzero_si256(); 2]; ROWS];
    for (x, weight) in x.iter().zip(weight) {
        let mut parts = [vectors(&weight.starts); ROWS];
        for (x, weight) in x.iter().zip(&weight.words) {
            let weight = vectors(weight);
            for (parts, &x) in parts.iter_mut().zip(x) {
                let x = simd.avx._mm256_set1_epi32(x);
                for (part, weight) in parts.iter_mut().zip(weight) {
                    *part = avx2._mm256_add_epi16(*part, avx2._mm256_maddubs_epi16(x, weight));
                }
            }
        }
        for (sum, part) in sums.as_flattened_mut().iter_mut().zip(parts.as_flattened()) {
            *sum = avx2._mm256_add_epi32(*sum, avx2._mm256_madd_epi16(*part, ones));
        }
    }
    let halves = products.as_flattened_mut().as_chunks_mut::<{ FEATURES / 2 }>().0;
    halves.iter_mut().zip(sums.as_flattened()).for_each(|(half, &sum)| *half = pulp::cast(sum));
}
