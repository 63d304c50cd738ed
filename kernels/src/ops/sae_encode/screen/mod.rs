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
mod line;
mod panel;
#[cfg(test)]
mod tests;
mod tile;

use super::best::Best;
use found::{Found, rank};
use levels::{RowBound, Rows};
use line::Line;
use panel::{FeatureBounds, Panel};
use pulp::x86::V3;
use std::sync::atomic::{AtomicUsize, Ordering};
use tile::{FEATURES, HALF, ROWS, RowWords, multiply, tiles};

/// Rows, columns and features for each place from which on this is faster than products in f32.
const LEAST_ROWS: usize = 32;
const LEAST_WIDTH: usize = 128;
const LEAST_FEATURES: usize = 16;
/// Columns at most: so many squares add up with an error that lengths allow for.
const MOST_WIDTH: usize = 16_384;
/// Tiles of features of a panel: at a thousand columns its words stay in the second cache while a block of rows goes by.
const PANEL: usize = 16;
/// Groups of rows of a block at most: they share what a tile costs to come from further away than the first cache.
const BLOCK_GROUPS: usize = 16;
/// Blocks for each thread where there are rows enough, so that none has to wait for a block that another is at.
const THREAD_BLOCKS: usize = 3;

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
            for (passes, values) in passes.iter_mut().zip(values.as_chunks::<HALF>().0) {
                // 13: greater or equal, which what is not a number is not
                let bits = simd.avx._mm256_cmp_ps::<13>(pulp::cast(*values), least);
                *passes = simd.avx._mm256_movemask_ps(bits) as u8;
            }
        }
    }
}

/// What is the same for every panel and every block of rows.
struct Screen<'a> {
    simd: V3,
    k: usize,
    width: usize,
    weight: &'a [f32],
    bias: &'a [f32],
    rows: Rows,
    panels: usize,
    /// Rows of a block.
    block: usize,
    /// Rows that are left to products in f32.
    given_up: AtomicUsize,
}

impl Screen<'_> {
    /// Features in the panels before one, at most.
    fn seen(&self, panel: usize) -> usize {
        let tiles = tiles(self.bias.len());
        let before = panel * (tiles / self.panels) + panel.min(tiles % self.panels);
        self.bias.len().min(before * FEATURES)
    }

    /// Makes a panel; false where bounds do not hold.
    fn fill(&self, number: usize, panel: &mut Panel) -> bool {
        panel.fill(self.simd, &self.rows, self.weight, self.bias, number)
    }

    /// Leads a block of rows past a panel; false once most rows are given up.
    fn look_through(&self, number: usize, panel: &Panel, block: usize, found: &mut [Found]) -> bool {
        let groups = self.rows.groups;
        let first = block * self.block;
        let words = &self.rows.words[first / ROWS * groups..][..found.len().div_ceil(ROWS) * groups];
        let bounds = &self.rows.bounds[first..][..found.len()];
        self.find(words, bounds, panel, self.seen(number), found);
        if number + 1 == self.panels {
            return true;
        }
        // a product in f32 here costs five of those of many at once
        let most = 8 * self.k + self.seen(number + 1) / 5;
        let lost = found.iter_mut().filter_map(|found| found.has_more_than(most).then(|| found.give_up()));
        self.is_worth_it(lost.count())
    }

    /// Whether most rows are not given up, with so many more that are.
    fn is_worth_it(&self, lost: usize) -> bool {
        2 * (self.given_up.fetch_add(lost, Ordering::Relaxed) + lost) <= self.rows.sane.len()
    }

    /// Finds what may be among the best of a few groups of rows in a panel, before which so many features were looked through.
    fn find(
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
    let rows = Rows::new(simd, x, width);
    let mut found: Vec<Found> = (0..x.len() / width).map(|_| Found::new(k)).collect();
    let unfit = found.iter_mut().zip(&rows.sane).filter(|(_, sane)| !**sane);
    let given_up = AtomicUsize::new(unfit.map(|(found, _)| found.give_up()).count());
    let panels = tiles(bias.len()).div_ceil(PANEL);
    let groups = found.len().div_ceil(ROWS).div_ceil(THREAD_BLOCKS * rayon::current_num_threads());
    let block = ROWS * groups.clamp(1, BLOCK_GROUPS);
    let screen = Screen { simd, k, width, weight, bias, rows, panels, block, given_up };
    if !screen.is_worth_it(0) {
        return None;
    }
    let empty = || Panel::new(screen.rows.groups, tiles(bias.len()).div_ceil(panels), panels);
    let line = Line::new(panels, empty, found.chunks_mut(block));
    line.run(
        |number, panel| screen.fill(number, panel),
        |number, panel, block, found| screen.look_through(number, panel, block, found),
    )
    .then(|| found::settle(found, k, width, x, weight, bias))
}
