//! EnCodec codes of one clip.

use crate::error::{ModelError, Result};

/// Whole numbers `[codebooks, frames]`, row-major: what EnCodec encodes a clip to and MusicGen reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes {
    codebooks: usize,
    frames: usize,
    values: Vec<u32>,
}

impl Codes {
    /// Codes from their rows.
    ///
    /// # Errors
    /// If `values` does not hold `codebooks * frames` numbers.
    pub fn new(codebooks: usize, frames: usize, values: Vec<u32>) -> Result<Self> {
        if codebooks.checked_mul(frames) == Some(values.len()) {
            return Ok(Self { codebooks, frames, values });
        }
        Err(ModelError::Codes(format!(
            "{} values, expected {codebooks} codebooks of {frames} frames",
            values.len()
        )))
    }

    /// Codes from values `[frames, codebooks]`, the order that quantisers write.
    pub(crate) fn from_frames(codebooks: usize, frames: usize, values: &[u32]) -> Self {
        let values =
            (0..codebooks).flat_map(|q| (0..frames).map(move |t| values[t * codebooks + q])).collect();
        Self { codebooks, frames, values }
    }

    /// The values as `[frames, codebooks]`.
    pub(crate) fn to_frames(&self) -> Vec<u32> {
        (0..self.frames)
            .flat_map(|t| (0..self.codebooks).map(move |q| self.values[q * self.frames + t]))
            .collect()
    }

    /// Number of codebooks.
    pub fn codebooks(&self) -> usize {
        self.codebooks
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// All values, one codebook after the other.
    pub fn values(&self) -> &[u32] {
        &self.values
    }

    /// Checks that every code is one of `entries` and that there are `codebooks` of them a frame.
    ///
    /// # Errors
    /// Names the first code that is not.
    pub fn check(&self, codebooks: usize, entries: usize) -> Result<()> {
        if self.codebooks != codebooks {
            return Err(ModelError::Codes(format!("{} codebooks, expected {codebooks}", self.codebooks)));
        }
        match self.values.iter().position(|&code| code as usize >= entries) {
            None => Ok(()),
            Some(at) => Err(ModelError::Codes(format!(
                "code {} in codebook {}, frame {}, expected less than {entries}",
                self.values[at],
                at / self.frames,
                at % self.frames
            ))),
        }
    }
}
