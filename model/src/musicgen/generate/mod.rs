//! Music out: takes played side by side, column by column, with interventions inside the loop.
//!
//! [`Generator::play`] is what callers want; it knows nothing of files, tokens or audio.

mod begin;
mod condition;
mod generator;
mod interventions;
mod pages;
mod play;
mod prefill;
mod sampling;
pub(crate) mod state;
mod step;

pub use condition::{Condition, Melody};
pub use generator::{Capture, Generator, GeneratorOptions};
pub(crate) use interventions::upload;
pub use interventions::{Action, Halves, Intervention};
pub use play::{Captured, Context, Event, Generated, Take, WindowRecord};
pub use sampling::Sampling;

/// Text as the decoder attends to it: projected states, row after row.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    values: Vec<f32>,
    width: usize,
}

impl Text {
    /// Projected states f32 `[tokens, width]`. Rows of zeros at the end are attended to like others: that is how audiocraft
    /// pads.
    ///
    /// # Errors
    /// No token, a length that is no multiple of the width, or a value that is not finite.
    pub fn new(values: Vec<f32>, width: usize) -> crate::Result<Self> {
        let bad = |found: String, expected: &str| {
            Err(crate::ModelError::Argument { argument: "text", found, expected: expected.into() })
        };
        if values.is_empty() || width == 0 || !values.len().is_multiple_of(width) {
            return bad(format!("{} values", values.len()), "one row of the decoder's width or more");
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return bad(format!("{} at {at}", values[at]), "finite values");
        }
        Ok(Self { values, width })
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.values.len() / self.width
    }

    /// Width of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The rows, one after another.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}
