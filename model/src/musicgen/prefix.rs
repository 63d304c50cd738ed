//! What stands in front of the columns of a MusicGen Melody: rows of chroma, then rows of text, at positions before theirs.
//!
//! HF `MusicgenMelodyForConditionalGeneration.forward` and `MusicgenMelodyDecoder.forward`. Rows of text are zero behind the
//! text's end and are attended to; without text one row of zeros stands for it. Without a melody the chroma is class 0
//! throughout, and so is that of guidance's unconditional half, whose text is zero.

use super::config::{MelodyConfig, MusicgenConfig, MusicgenDecoderConfig};
use super::generate::{Condition, Text};
use crate::device::{HostTensor, present};
use crate::error::Result;
use auscult_runtime::weights::Loader;

/// The layer from pitch classes to the decoder's width, and how many positions there are.
#[derive(Debug)]
pub(crate) struct Prefix {
    config: MelodyConfig,
    width: usize,
    /// A row for each class: `[num_chroma, width]`.
    classes: Vec<f32>,
}

impl Prefix {
    /// Takes the projection of a MusicGen Melody; none for a checkpoint with cross-attention.
    ///
    /// # Errors
    /// A projection that is missing or misshapen.
    pub fn load(all: &Loader<'_>, config: &MusicgenConfig) -> Result<Option<Self>> {
        let Some(melody) = config.melody else { return Ok(None) };
        let (width, classes) = (config.decoder.hidden_size, melody.num_chroma);
        let loader = all.prefix("audio_enc_to_dec_proj.");
        let views = config
            .has_chroma_projection()
            .then(|| (loader.take("weight", &[width, classes]), loader.take("bias", &[width])));
        loader.finish()?;
        let mut rows = vec![0.0; classes * width];
        match views {
            // of a one-hot row the product with the weight is a column of it
            Some((weight, bias)) => {
                let [weight, bias] = [weight, bias].map(|view| HostTensor::f32(present(&view)));
                let [weight, bias]: [Vec<f32>; 2] =
                    [weight?, bias?].map(|tensor| bytemuck::pod_collect_to_vec(&tensor.bytes));
                for (at, row) in rows.iter_mut().enumerate() {
                    let (class, i) = (at / width, at % width);
                    *row = weight[i * classes + class] + bias[i];
                }
            }
            None => (0..classes).for_each(|class| rows[class * width + class] = 1.0),
        }
        Ok(Some(Self { config: melody, width, classes: rows }))
    }

    /// Pitch classes.
    pub fn pitch_classes(&self) -> usize {
        self.config.num_chroma
    }

    /// Positions in front of a first column, with a text of so many tokens.
    pub fn positions(&self, tokens: usize) -> usize {
        self.config.chroma_length + tokens.max(1)
    }

    /// The rows `[positions, width]`, with room for `tokens` tokens; the melody from `seconds` on.
    pub fn rows(&self, condition: Condition<'_>, tokens: usize, seconds: f64) -> Vec<f32> {
        let frames = self.config.chroma_length;
        let classes: Vec<u8> = match condition.melody {
            Some(melody) => melody.from(seconds, frames).collect(),
            None => vec![0; frames],
        };
        let row = |class: u8| &self.classes[usize::from(class) * self.width..][..self.width];
        let mut rows: Vec<f32> = classes.into_iter().flat_map(row).copied().collect();
        rows.extend_from_slice(condition.text.map_or(&[], Text::values));
        rows.resize(self.positions(tokens) * self.width, 0.0);
        rows
    }

    /// The table that rows in front of columns are read from: a row of zeros, which columns read, then `rows`.
    pub fn table(&self, rows: impl Iterator<Item = Vec<f32>>) -> Vec<f32> {
        let mut table = vec![0.0; self.width];
        rows.for_each(|rows| table.extend(rows));
        table
    }
}

/// The ids of a pass over clips of `codes` u32 `[codebooks, frames]`, each behind `prefix` positions: u32
/// `[clips * (prefix + columns), codebooks + 1]`. A position of the prefix has no code, and the number of its row of the
/// table in the last place; a column has its codes along the delay pattern, and the row of zeros.
pub(crate) fn ids(
    config: &MusicgenDecoderConfig,
    clips: &[&[u32]],
    prefix: usize,
    columns: usize,
) -> Vec<u32> {
    let word = |n: usize| u32::try_from(n).expect("validate() bounds the vocabulary, positions are fewer");
    let (special, none) = (word(config.special_token()), word(config.special_token() + 1));
    let (codebooks, delays) = (config.num_codebooks, config.delays());
    let mut ids = Vec::with_capacity(clips.len() * (prefix + columns) * (codebooks + 1));
    for (i, codes) in clips.iter().enumerate() {
        let frames = codes.len() / codebooks;
        for position in 0..prefix {
            ids.resize(ids.len() + codebooks, none);
            ids.push(word(1 + i * prefix + position));
        }
        for column in 0..columns {
            let code = |q: usize| {
                let frame = column.checked_sub(1 + delays[q]).filter(|&t| t < frames);
                frame.map_or(special, |t| codes[q * frames + t])
            };
            ids.extend((0..codebooks).map(code));
            ids.push(0);
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_follow_the_prefix() {
        let config = MusicgenDecoderConfig {
            num_codebooks: 2,
            vocab_size: 9,
            hidden_size: 4,
            ..MusicgenDecoderConfig::default()
        };
        // two frames of two codebooks, the second one a step behind
        let (a, b) = ([1, 2, 3, 4], [5, 6, 7, 8]);
        let rows: Vec<Vec<u32>> = ids(&config, &[&a, &b], 2, 3).chunks(3).map(<[u32]>::to_vec).collect();
        let want = [
            [10, 10, 1],
            [10, 10, 2],
            [9, 9, 0],
            [1, 9, 0],
            [2, 3, 0],
            [10, 10, 3],
            [10, 10, 4],
            [9, 9, 0],
            [5, 9, 0],
            [6, 7, 0],
        ];
        assert_eq!(rows, want);
        assert_eq!(ids(&config, &[&[]], 1, 0), [10, 10, 1]);
    }
}
