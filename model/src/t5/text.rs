//! Texts to what a decoder attends to: the tokenizer, the encoder and the projection of one checkpoint.

use super::encoder::T5Encoder;
use super::projection::TextProjection;
use super::states::TextStates;
use super::tokenizer::Tokenizer;
use crate::error::{ModelError, Result};
use crate::musicgen::generate::Text;
use auscult_runtime::Backend;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// What becomes of the room that a short text leaves in a list of longer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TextPad {
    /// Nothing attends to it, as in Hugging Face transformers: a text does not depend on the others.
    #[default]
    Mask,
    /// It is filled with zeros that keep their share of the softmax, as in audiocraft: a text that is shorter than the
    /// longest of its list has less weight.
    Attend,
}

impl TextPad {
    const ALL: [Self; 2] = [Self::Mask, Self::Attend];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mask => "mask",
            Self::Attend => "attend",
        }
    }
}

impl fmt::Display for TextPad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TextPad {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|pad| pad.name() == name).ok_or_else(|| {
            format!("`{name}` is no way to pad, expected {}", Self::ALL.map(Self::name).join(" or "))
        })
    }
}

/// One text, encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedText {
    /// What the encoder makes of it, `[tokens, text width]`.
    pub states: TextStates,
    /// Those at the decoder's width, `[tokens, width]`.
    pub projected: TextStates,
}

/// All of a checkpoint that reads text.
pub struct TextEncoder {
    tokenizer: Tokenizer,
    encoder: T5Encoder,
    projection: TextProjection,
}

impl TextEncoder {
    /// Opens tokenizer, encoder and projection of a MusicGen checkpoint in the layout of Hugging Face.
    ///
    /// # Errors
    /// Those of [`Tokenizer::open`], [`T5Encoder::open`] and [`TextProjection::open`].
    pub fn open(dir: &Path, backend: Arc<dyn Backend>) -> Result<Self> {
        let tokenizer = Tokenizer::open(dir)?;
        let encoder = T5Encoder::open(dir, backend.clone())?;
        let projection = TextProjection::open(dir, backend)?;
        Ok(Self { tokenizer, encoder, projection })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Width of the encoder's states.
    pub fn text_width(&self) -> usize {
        self.projection.text_width()
    }

    /// Width of projected states: the decoder's.
    pub fn width(&self) -> usize {
        self.projection.width()
    }

    /// Encodes prompts of tokens, such as [`Tokenizer::prompt`] gives. A prompt's values do not depend on the others.
    ///
    /// # Errors
    /// Those of [`T5Encoder::encode`]; weights that give values that are not finite.
    pub fn encode(&self, prompts: &[&[u32]]) -> Result<Vec<EncodedText>> {
        let states = self.encoder.encode(prompts)?;
        let projected = self.projection.project(&states)?;
        let both = states.into_iter().zip(projected).enumerate();
        both.map(|(i, (states, projected))| {
            // NaN in a weight spreads; infinities do so too, or are lost in the norms
            if !projected.values().iter().all(|v| v.is_finite()) {
                let message = "states that are not finite, expected finite ones from finite weights";
                return Err(of_prompt(i, ModelError::Text(message.into())));
            }
            Ok(EncodedText { states, projected })
        })
        .collect()
    }

    /// Which kernels encode and project prompts, and how they are launched: behind a line for each graph, its launches, one a
    /// line.
    ///
    /// # Errors
    /// Those of [`T5Encoder::encode`].
    pub fn explain(&self, prompts: &[&[u32]]) -> Result<String> {
        let rows = prompts.iter().map(|prompt| prompt.len()).sum();
        Ok(self.encoder.explain(prompts)? + &self.projection.explain(rows)?)
    }

    /// What a decoder attends to for each text. With [`TextPad::Attend`] all are as long as the longest of them.
    ///
    /// # Errors
    /// A text that says nothing or has too many tokens, by its number from 0; failures of the device.
    pub fn texts<S: AsRef<str>>(&self, texts: &[S], pad: TextPad) -> Result<Vec<Text>> {
        let prompts: Vec<Vec<u32>> = texts
            .iter()
            .enumerate()
            .map(|(i, text)| self.tokenizer.prompt(text.as_ref()).map_err(|error| of_prompt(i, error)))
            .collect::<Result<_>>()?;
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        self.texts_of(&prompts, pad)
    }

    /// As [`Self::texts`], of prompts that are tokens already.
    ///
    /// # Errors
    /// Those of [`Self::encode`].
    pub fn texts_of(&self, prompts: &[&[u32]], pad: TextPad) -> Result<Vec<Text>> {
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let encoded = self.encode(prompts)?;
        let text = |text: EncodedText| {
            let rows = match pad {
                TextPad::Mask => text.projected.tokens(),
                TextPad::Attend => longest,
            };
            let mut values = text.projected.into_values();
            values.resize(rows * self.width(), 0.0);
            Text::new(values, self.width())
        };
        encoded.into_iter().map(text).collect()
    }
}

/// The error, of a prompt by its number from 0 if it is a prompt's.
fn of_prompt(i: usize, error: ModelError) -> ModelError {
    match error {
        ModelError::Text(message) => ModelError::Text(format!("prompt {i}: {message}")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_pad_are_read_back_from_their_names() {
        for pad in TextPad::ALL {
            assert_eq!(pad.to_string().parse(), Ok(pad));
        }
        assert_eq!(
            "masked".parse::<TextPad>(),
            Err("`masked` is no way to pad, expected mask or attend".to_string())
        );
    }
}
