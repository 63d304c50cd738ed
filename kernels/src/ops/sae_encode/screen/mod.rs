//! The search with few multiplications: products of whole numbers of 8 bits say which features may be among the k best,
//! products in f32 say which are.
//!
//! AVX2 multiplies and adds 32 pairs of bytes in the time of 8 pairs of f32, and sums of them have no rounding. Let a row of x be
//! `X + dx` and one of weight `W + dw`, where X and W are whole numbers of units. Then
//! `x w = X W + x dw + dx W`, of which by the inequality of Cauchy and Schwarz the second part is at most `|x| |dw|`
//! and the third `|dx| |W|`; these lengths are measured, not assumed. So a feature's value is at most `upper`.
//!
//! The k-th best value is first guessed, a little below what products of whole numbers say, and features whose upper is below
//! the guess are dropped. All others are computed in f32. If k of them reach the guess, it was right to drop the rest; if
//! they do not, the row is left to products in f32 of all features. So it is where too many features pass, because whole
//! numbers are too coarse for the row, as where one of its numbers hides all others.

mod found;
mod levels;
mod panel;
#[cfg(test)]
mod tests;
mod tile;

use super::best::Best;
use found::{Found, rank};
use levels::{RowBound, Rows};
use panel::{FeatureBounds, Panel};
use pulp::x86::V3;
use rayon::prelude::*;
use tile::{FEATURES, ROWS, RowWords, multiply};

/// Rows, columns and features for each place from which on this is faster than products in f32.
const LEAST_ROWS: usize = 32;
const LEAST_WIDTH: usize = 128;
const LEAST_FEATURES: usize = 16;
/// Columns at most: so many squares add up with an error that lengths allow for.
const MOST_WIDTH: usize = 16_384;
/// Tiles of features of a panel.
const PANEL: usize = 64;
/// Groups of rows of a task: their words stay in the second cache while a panel goes by.
const TASK_GROUPS: usize = 4;

/// What the values of a few rows and features are at most.
struct Uppers {
    values: [[f32; FEATURES]; ROWS],
    /// A bit for each that is as large as its row's least.
    passes: [[u8; 2]; 8],
}

impl Uppers {
    #[inline(always)]
    fn bound(
        &mut self,
        simd: V3,
        products: &[[i32; FEATURES]; ROWS],
        rows: &[RowBound],
        features: &FeatureBounds,
        found: &[Found],
    ) {
        self.passes = Default::default();
        let rows = self.values.iter_mut().zip(&mut self.passes).zip(products).zip(rows.iter().zip(found));
        for (((values, passes), products), (row, found)) in rows {
            for at in 0..FEATURES {
                let (unit, error) = (row.unit * features.units[at], features.error(row, at));
                let base = row.share * features.middles[at] + features.biases[at];
                values[at] = (products[at] as f32 + error) * unit + base;
            }
            let least = simd.avx._mm256_set1_ps(found.least);
            for (passes, values) in passes.iter_mut().zip(values.as_chunks::<{ FEATURES / 2 }>().0) {
                // 13: greater or equal, which what is not a number is not
                let bits = simd.avx._mm256_cmp_ps::<13>(pulp::cast(*values), least);
                *passes = simd.avx._mm256_movemask_ps(bits) as u8;
            }
        }
    }
}

/// What is the same for every panel.
struct Screen<'a> {
    simd: V3,
    k: usize,
    width: usize,
    bias: &'a [f32],
    rows: Rows,
}

impl Screen<'_> {
    /// Finds what may be among the best of every row in a panel, before which `seen` features were looked through.
    fn look_through(&self, panel: &Panel, seen: usize, found: &mut [Found]) {
        let words = self.rows.words.par_chunks(TASK_GROUPS * self.rows.groups);
        let bounds = self.rows.bounds.par_chunks(TASK_GROUPS * ROWS);
        let tasks = found.par_chunks_mut(TASK_GROUPS * ROWS).zip(words.zip(bounds));
        tasks.for_each(|(found, (words, bounds))| self.task(words, bounds, panel, seen, found));
    }

    /// [`Self::look_through`] for a few groups of rows.
    fn task(
        &self,
        words: &[RowWords],
        rows: &[RowBound],
        panel: &Panel,
        mut seen: usize,
        found: &mut [Found],
    ) {
        let (simd, groups) = (self.simd, self.rows.groups);
        let mut products = [[0; FEATURES]; ROWS];
        let mut uppers = Uppers { values: [[0.0; FEATURES]; ROWS], passes: [[0; 2]; 8] };
        // errors of many columns hardly ever add up: they are as the root of their number
        let likely = 1.0 + 4.0 / (self.width as f32).sqrt();
        for (tile, (features, bounds)) in panel.words.chunks_exact(groups).zip(&panel.bounds).enumerate() {
            let first_feature = (panel.first + tile * panel.step) * FEATURES;
            seen += FEATURES.min(self.bias.len() - first_feature);
            let rank = rank(self.k, seen, self.bias.len());
            let few = words.chunks_exact(groups).zip(rows.chunks(ROWS)).zip(found.chunks_mut(ROWS));
            for ((words, rows), found) in few {
                simd.vectorize(
                    #[inline(always)]
                    || {
                        multiply(simd, words, features, &mut products);
                        uppers.bound(simd, &products, rows, bounds, found);
                    },
                );
                let mut passes = u128::from_le_bytes(pulp::cast(uppers.passes));
                while passes != 0 {
                    let at = passes.trailing_zeros() as usize;
                    passes &= passes - 1;
                    let (row, at) = (at / FEATURES, at % FEATURES);
                    let upper = uppers.values[row][at];
                    let doubt = bounds.error(&rows[row], at) * (rows[row].unit * bounds.units[at]);
                    let lower = upper - likely * doubt - bounds.roundings[at];
                    found[row].push((first_feature + at) as u32, upper, lower, rank);
                }
            }
        }
    }
}

/// Whether products of whole numbers are worth their trouble, on a processor that has the instructions and does not multiply
/// f32 as fast.
pub(super) fn pays(rows: usize, width: usize, features: usize, k: usize) -> bool {
    rows >= LEAST_ROWS
        && width >= LEAST_WIDTH
        && features >= LEAST_FEATURES * k
        && V3::try_new().is_some()
        && !std::is_x86_feature_detected!("avx512f")
}

/// The best features of every row; `None` for rows whose values are not finite, too large or too small, and for those for which
/// whole numbers are too coarse; for no row at all where that is so of a feature, or of most rows.
pub(super) fn search(
    k: usize,
    width: usize,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
) -> Option<Vec<Option<Best>>> {
    let simd = V3::try_new()?;
    if width > MOST_WIDTH {
        return None;
    }
    let screen = Screen { simd, k, width, bias, rows: Rows::new(simd, x, width) };
    let mut found: Vec<Found> = (0..x.len() / width).map(|_| Found::new(k)).collect();
    found
        .iter_mut()
        .zip(&screen.rows.sane)
        .filter(|(_, sane)| !**sane)
        .for_each(|(found, _)| found.give_up());
    let tiles = bias.len().div_ceil(FEATURES);
    let panels = tiles.div_ceil(PANEL);
    let [mut panel, mut next] =
        [(); 2].map(|()| Panel::new(screen.rows.groups, tiles.div_ceil(panels), panels));
    let fill = |panel: &mut Panel, first: usize| panel.fill(simd, &screen.rows, weight, bias, first);
    let (mut sane, mut seen) = (fill(&mut panel, 0), 0);
    for number in 1..=panels {
        if !sane {
            return None;
        }
        // the next one is made while this one is looked through
        (sane, ()) = rayon::join(
            || number == panels || fill(&mut next, number),
            || screen.look_through(&panel, seen, &mut found),
        );
        if number == panels {
            break;
        }
        seen += panel.bounds.len() * FEATURES;
        std::mem::swap(&mut panel, &mut next);
        // a product in f32 here costs five of those of many at once
        let most = 8 * k + seen / 5;
        found.iter_mut().filter(|found| found.candidates.len() > most).for_each(Found::give_up);
        if 2 * found.iter().filter(|found| found.is_given_up()).count() > found.len() {
            return None;
        }
    }
    Some(found::settle(found, k, width, x, weight, bias))
}
