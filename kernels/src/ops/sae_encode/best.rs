//! The best features of a row, as the host forms keep them.

use crate::math::vectorised;

/// Values that are compared at a time.
const LANES: usize = 16;

/// A value and its feature as one number: larger for larger values and, of equals, for smaller features; of what is not a number
/// larger than of any number.
pub(in crate::ops) fn key(value: f32, feature: u32) -> u64 {
    let bits = if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() };
    // negative numbers, whose bits grow with their size, below all others
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(ordered) << 32 | u64::from(!feature)
}

/// The value and the feature of a key.
pub(in crate::ops) fn of_key(key: u64) -> (f32, u32) {
    let ordered = (key >> 32) as u32;
    let bits = if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered };
    (f32::from_bits(bits), !(key as u32))
}

/// The k best features of a row so far, and up to as many more: when there are so many, all but the best are dropped.
pub(in crate::ops) struct Best {
    k: usize,
    /// Keys, in no order.
    pub keys: Vec<u64>,
    /// What a value must pass; features come in order, so that an equal one comes too late.
    pub least: f32,
    /// Whether a value was not a number.
    pub spoilt: bool,
}

impl Best {
    pub fn new(k: usize) -> Self {
        Self::of(k, Vec::with_capacity(2 * k))
    }

    /// Of features that are chosen already.
    pub fn of(k: usize, keys: Vec<u64>) -> Self {
        Self { k, keys, least: 0.0, spoilt: false }
    }

    /// Of values below 0 too, all but negative infinity.
    pub fn of_any_sign(k: usize) -> Self {
        Self { least: f32::NEG_INFINITY, ..Self::new(k) }
    }

    /// Takes in the values of features from `first` on, once `bias` is added to them.
    pub fn offer(&mut self, values: &mut [f32], bias: &[f32], first: u32) {
        for (at, (values, bias)) in values.chunks_mut(LANES).zip(bias.chunks(LANES)).enumerate() {
            if self.passes(values, bias) {
                for (feature, &value) in (first + (at * LANES) as u32..).zip(&*values) {
                    self.spoilt |= value.is_nan();
                    if value > self.least || value.is_nan() {
                        self.keys.push(key(value, feature));
                    }
                }
                if self.keys.len() >= 2 * self.k {
                    self.shrink();
                }
            }
        }
    }

    /// Adds the bias; whether some value is above the least, or not a number.
    fn passes(&self, values: &mut [f32], bias: &[f32]) -> bool {
        vectorised(
            #[inline(always)]
            || {
                let mut passes = false;
                for (v, b) in values.iter_mut().zip(bias) {
                    *v += b;
                    passes |= (*v > self.least) | v.is_nan();
                }
                passes
            },
        )
    }

    /// Drops all but the k best, of which the last is what a value must pass.
    pub fn shrink(&mut self) {
        if self.keys.len() >= self.k {
            let (_, &mut last, _) = self.keys.select_nth_unstable_by(self.k - 1, |a, b| b.cmp(a));
            self.keys.truncate(self.k);
            self.least = of_key(last).0;
        }
    }

    /// Writes the k best of several parts of the features, in order; zeros behind them.
    pub fn write<'a>(parts: impl Iterator<Item = &'a Self>, indices: &mut [u32], values: &mut [f32]) {
        let mut keys: Vec<u64> = Vec::new();
        let mut spoilt = false;
        for part in parts {
            keys.extend(&part.keys);
            spoilt |= part.spoilt;
        }
        indices.fill(0);
        values.fill(if spoilt { f32::NAN } else { 0.0 });
        if !spoilt {
            keys.sort_unstable_by(|a, b| b.cmp(a));
            for ((index, value), &key) in indices.iter_mut().zip(values).zip(&keys) {
                (*value, *index) = of_key(key);
            }
        }
    }
}
