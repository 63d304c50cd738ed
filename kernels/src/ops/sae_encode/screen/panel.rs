//! Features as whole numbers, as many as are looked through at a time.

use super::levels::{Levels, MOST_WEIGHT, RowBound, Rows, is_sane, largest_and_product};
use super::tile::{COLUMNS, FEATURES, FeatureWords, tiles};
use pulp::x86::V3;

/// Sums of products that are at most this size stay within f32.
const MOST_PRODUCT: f32 = 1e30;

/// What bounds the products of a few features.
#[derive(Clone)]
pub(super) struct FeatureBounds {
    pub units: [f32; FEATURES],
    /// [`Levels::rest`].
    pub rests: [f32; FEATURES],
    /// Lengths in units at most.
    pub lengths: [f32; FEATURES],
    /// Products with the middle of x.
    pub middles: [f32; FEATURES],
    /// The bias, and what rounding of a sum with it may take away.
    pub biases: [f32; FEATURES],
    /// What rounding of a sum with the bias may come to, twice.
    pub roundings: [f32; FEATURES],
}

impl FeatureBounds {
    /// How far a product of whole numbers may be from that of a row and a feature, in units of both.
    #[inline(always)]
    pub fn error(&self, row: &RowBound, at: usize) -> f32 {
        row.length * self.rests[at] + row.rest * self.lengths[at]
    }
}

/// Tiles of features that are as far apart as there are panels, so that every panel is a sample of all.
pub(super) struct Panel {
    /// The number of the first tile, and how far on the next is.
    pub first: usize,
    pub step: usize,
    pub words: Vec<FeatureWords>,
    pub bounds: Vec<FeatureBounds>,
}

impl Panel {
    /// Of no features, with memory for some tiles.
    pub fn new(groups: usize, tiles: usize, step: usize) -> Self {
        Self { first: 0, step, words: vec![FeatureWords::default(); tiles * groups], bounds: Vec::new() }
    }

    /// Takes in other features, from tile `first` on; false where bounds do not hold.
    pub fn fill(&mut self, simd: V3, rows: &Rows, weight: &[f32], bias: &[f32], first: usize) -> bool {
        let (step, width) = (self.step, rows.middle.len());
        let count = tiles(bias.len()).saturating_sub(first).div_ceil(step);
        let mut whole = vec![0; FEATURES * rows.groups * COLUMNS];
        let of_tile = |(at, words): (usize, &mut [FeatureWords])| {
            let first = (first + at * step) * FEATURES;
            let end = bias.len().min(first + FEATURES);
            tile(simd, rows, &weight[first * width..end * width], &bias[first..end], words, &mut whole)
        };
        let words = self.words[..count * rows.groups].chunks_exact_mut(rows.groups);
        let bounds: Option<Vec<FeatureBounds>> = words.enumerate().map(of_tile).collect();
        self.first = first;
        self.bounds = bounds.unwrap_or_default();
        self.bounds.len() == count
    }
}

/// A few features; `whole` is memory for them as whole numbers.
fn tile(
    simd: V3,
    rows: &Rows,
    weight: &[f32],
    bias: &[f32],
    words: &mut [FeatureWords],
    whole: &mut [i8],
) -> Option<FeatureBounds> {
    let mut bounds = FeatureBounds {
        units: [0.0; FEATURES],
        rests: [0.0; FEATURES],
        lengths: [0.0; FEATURES],
        middles: [0.0; FEATURES],
        biases: [f32::NEG_INFINITY; FEATURES],
        roundings: [0.0; FEATURES],
    };
    let columns = rows.groups * COLUMNS;
    whole[bias.len() * columns..].fill(0);
    let features = weight.chunks_exact(rows.middle.len()).zip(bias).zip(whole.chunks_exact_mut(columns));
    for (at, ((row, &bias), whole)) in features.enumerate() {
        let next = &weight[(at + 1) * row.len()..];
        let (levels, largest) = simd.vectorize(
            #[inline(always)]
            || {
                let (largest, product) = largest_and_product(row, &rows.middle, next);
                bounds.middles[at] = product;
                (Levels::of(simd, row, largest, MOST_WEIGHT, 0.0, whole), largest)
            },
        );
        if !is_sane(largest) || bias.is_nan() || bias.abs().max(largest * rows.largest) > MOST_PRODUCT {
            return None;
        }
        bounds.units[at] = levels.unit;
        bounds.rests[at] = levels.rest;
        bounds.lengths[at] = levels.whole + levels.rest;
        bounds.biases[at] = bias + 5e-7 * bias.abs();
        bounds.roundings[at] = 1e-6 * bias.abs();
    }
    simd.vectorize(
        #[inline(always)]
        || words.iter_mut().enumerate().for_each(|(group, words)| words.set(simd, whole, columns, group)),
    );
    Some(bounds)
}
