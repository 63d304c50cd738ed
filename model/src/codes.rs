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

    /// Codes of the channels of a clip as decoders read them: of each codebook the channels' rows side by side, left first.
    ///
    /// # Errors
    /// No channel, or channels of different shapes.
    pub fn interleaved(channels: &[Self]) -> Result<Self> {
        let Some(first) = channels.first() else {
            return Err(ModelError::Codes("0 channels, expected at least one".into()));
        };
        let (codebooks, frames) = (first.codebooks, first.frames);
        if let Some(other) = channels.iter().find(|c| (c.codebooks, c.frames) != (codebooks, frames)) {
            let found = format!("a channel of {} codebooks of {} frames", other.codebooks, other.frames);
            return Err(ModelError::Codes(format!("{found}, expected {codebooks} of {frames} as the first")));
        }
        let rows =
            (0..codebooks).flat_map(|q| channels.iter().map(move |c| &c.values[q * frames..][..frames]));
        let values = rows.flatten().copied().collect();
        Ok(Self { codebooks: codebooks * channels.len(), frames, values })
    }

    /// The codes of one of `channels` channels: the inverse of [`Self::interleaved`].
    ///
    /// # Errors
    /// Codebooks that are not as many for each channel, or a channel that there is not.
    pub fn channel(&self, channel: usize, channels: usize) -> Result<Self> {
        if channel >= channels || !self.codebooks.is_multiple_of(channels) {
            let expected = format!("a multiple of {channels} codebooks, and a channel less than that");
            return Err(ModelError::Codes(format!(
                "channel {channel} of {} codebooks, expected {expected}",
                self.codebooks
            )));
        }
        let codebooks = self.codebooks / channels;
        let rows =
            (0..codebooks).map(|q| &self.values[(q * channels + channel) * self.frames..][..self.frames]);
        Ok(Self { codebooks, frames: self.frames, values: rows.flatten().copied().collect() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_side_by_side_codebook_by_codebook() {
        let channel = |values: [u32; 4]| Codes::new(2, 2, values.to_vec()).unwrap();
        let channels = [channel([1, 2, 3, 4]), channel([5, 6, 7, 8])];
        let both = Codes::interleaved(&channels).unwrap();
        assert_eq!((both.codebooks(), both.frames()), (4, 2));
        assert_eq!(both.values(), [1, 2, 5, 6, 3, 4, 7, 8]);
        assert_eq!([0, 1].map(|c| both.channel(c, 2).unwrap()), channels);
        assert_eq!(both.channel(0, 1).unwrap(), both);
    }

    #[test]
    fn refusals_say_what_was_found() {
        let of = |codebooks, frames| Codes::new(codebooks, frames, vec![0; codebooks * frames]).unwrap();
        let text = |result: Result<Codes>| result.unwrap_err().to_string();
        assert_eq!(text(Codes::interleaved(&[])), "codes: 0 channels, expected at least one");
        assert_eq!(
            text(Codes::interleaved(&[of(2, 3), of(2, 4)])),
            "codes: a channel of 2 codebooks of 4 frames, expected 2 of 3 as the first"
        );
        for (channel, channels) in [(2, 2), (0, 3)] {
            assert_eq!(
                text(of(4, 1).channel(channel, channels)),
                format!(
                    "codes: channel {channel} of 4 codebooks, expected a multiple of {channels} codebooks, and a channel \
                     less than that"
                )
            );
        }
    }
}
