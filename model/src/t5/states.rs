//! States of a text.

use crate::error::{ModelError, Result};

/// One vector for each token of a text, f32 `[tokens, width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TextStates {
    width: usize,
    values: Vec<f32>,
}

impl TextStates {
    /// `values` row by row.
    ///
    /// # Errors
    /// A width of 0, or values that are not whole rows of it.
    pub fn new(width: usize, values: Vec<f32>) -> Result<Self> {
        if width == 0 || !values.len().is_multiple_of(width) {
            return Err(ModelError::Text(format!("{} values, expected rows of {width}", values.len())));
        }
        Ok(Self { width, values })
    }

    /// Length of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of vectors.
    pub fn tokens(&self) -> usize {
        self.values.len() / self.width
    }

    /// All vectors, one after another.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All vectors, one after another.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// The mean vector, each sum in f64; zeros for no tokens.
    pub fn mean(&self) -> Vec<f32> {
        let mut sums = vec![0.0_f64; self.width];
        for row in self.values.chunks_exact(self.width) {
            sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
        }
        let count = self.tokens().max(1) as f64;
        sums.into_iter().map(|sum| (sum / count) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_tokens() {
        let states = TextStates::new(2, vec![1.0, 10.0, 2.0, -4.0, 6.0, 0.0]).expect("whole rows");
        assert_eq!((states.tokens(), states.mean()), (3, vec![3.0, 2.0]));
        assert_eq!(TextStates::new(2, vec![]).expect("no rows").mean(), [0.0, 0.0]);
    }

    #[test]
    fn broken_rows_are_refused() {
        let text = |width| TextStates::new(width, vec![0.0; 5]).expect_err("refused").to_string();
        assert_eq!(text(2), "text: 5 values, expected rows of 2");
        assert_eq!(text(0), "text: 5 values, expected rows of 0");
    }
}
