//! How a code is chosen from the scores of a codebook.

use crate::error::{ModelError, Result};

/// Settings of one take. The defaults are audiocraft's: guidance 3, temperature 1, the 250 best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// What the difference between the scores with and without text is multiplied by; 1 leaves those with text.
    pub guidance: f32,
    /// What scores are divided by.
    pub temperature: f32,
    /// How many of the best codes are kept, and whatever ties with the last of them; 0 for all.
    pub top_k: u32,
    /// The share of probability that the kept codes hold at least; 0 or 1 for all.
    pub top_p: f32,
    /// Whether the best code is taken, the smaller one of equals, and nothing is drawn.
    pub greedy: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { guidance: 3.0, temperature: 1.0, top_k: 250, top_p: 0.0, greedy: false }
    }
}

/// Words of a take's settings, as `sample_u32` reads them.
pub(crate) const SETTINGS: usize = 12;

impl Sampling {
    /// Refuses settings that no scores could be sampled with.
    ///
    /// # Errors
    /// Names the setting, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        let that = |is: bool, argument, found: f32, expected: &str| match is {
            true => Ok(()),
            false => {
                Err(ModelError::Argument { argument, found: found.to_string(), expected: expected.into() })
            }
        };
        that(
            self.guidance.is_finite() && self.guidance >= 0.0,
            "guidance",
            self.guidance,
            "a number of at least 0",
        )?;
        that(
            self.temperature.is_finite() && self.temperature > 0.0,
            "temperature",
            self.temperature,
            "a number above 0",
        )?;
        that((0.0..=1.0).contains(&self.top_p), "top_p", self.top_p, "a number from 0 to 1")
    }

    /// The settings of one take: its noise is a function of `seed`, `row`, the column and the codebook alone. `offset` is what
    /// is added to a position, in 32 bits, to give the column.
    pub(crate) fn words(&self, seed: u64, row: u32, offset: u32) -> [u32; SETTINGS] {
        [
            seed as u32,
            (seed >> 32) as u32,
            row,
            offset,
            u32::from(self.greedy),
            self.guidance.to_bits(),
            self.temperature.to_bits(),
            self.top_k,
            self.top_p.to_bits(),
            0,
            0,
            0,
        ]
    }
}
