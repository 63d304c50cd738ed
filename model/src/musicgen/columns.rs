//! A forward pass over columns as they are: no start column in front of them, and no delay pattern.

use super::decoder::{Decoder, argument};
use super::generate::{Condition, Text};
use super::graph::IDS;
use super::teacher_forced::TeacherForced;
use crate::error::{ModelError, Result};
use auscult_runtime::Edits;

/// What Hugging Face's `MusicgenForCausalLM.forward` computes of its `input_ids`, whatever they are. Music has the delay
/// pattern, and a [`TeacherForced`] pass puts it there; this one is for holding the two implementations against each other.
pub struct ColumnPass {
    pass: TeacherForced,
}

impl Decoder {
    /// A forward pass over `batch` rows of `columns` columns as they are given, with edits at sites and, where `tokens` is
    /// not 0, room for a text of so many tokens for each row.
    ///
    /// # Errors
    /// A MusicGen Melody, whose columns stand behind a prefix; no column, or more than the model was trained on; else as
    /// [`Self::teacher_forced`].
    pub fn column_pass(
        &self,
        batch: usize,
        columns: usize,
        tokens: usize,
        edits: Edits,
    ) -> Result<ColumnPass> {
        if self.takes_melody() {
            let (found, expected) = ("a MusicGen Melody".into(), "a decoder with cross-attention".into());
            return Err(ModelError::Argument { argument: "decoder", found, expected });
        }
        let most = self.trained_frames() + 1;
        if !(1..=most).contains(&columns) {
            return Err(argument("columns", columns, format!("1 to {most}")));
        }
        let pass = self.pass(batch, columns, true, (tokens > 0).then_some(tokens), edits)?;
        Ok(ColumnPass { pass })
    }
}

impl ColumnPass {
    /// Runs it over `ids` `[batch, columns, codebooks]`, codes or the special token, each row with its text or without.
    ///
    /// # Errors
    /// Another number of ids or texts, an id beyond the special token, a text longer than there is room for or of another
    /// width; failures of the device.
    pub fn run(&self, ids: &[u32], texts: &[Option<&Text>]) -> Result<()> {
        let (pass, config) = (&self.pass, &self.pass.config);
        let expected = pass.batch * pass.positions() * config.num_codebooks;
        if ids.len() != expected {
            let (rows, columns, codebooks) = (pass.batch, pass.positions(), config.num_codebooks);
            let expected = format!("{expected}: {rows} rows of {columns} columns of {codebooks} codebooks");
            return Err(argument("ids", ids.len(), expected));
        }
        let special = config.special_token();
        if let Some(&id) = ids.iter().find(|&&id| id as usize > special) {
            return Err(argument(
                "ids",
                id as usize,
                format!("codes below {special}, or the special {special}"),
            ));
        }
        let conditions: Vec<_> = texts.iter().map(|&text| Condition { text, melody: None }).collect();
        pass.check_all(&conditions)?;
        pass.run_beside((IDS, ids), &conditions)
    }

    /// A captured f32 output of the last run, `[batch * columns, width]`.
    ///
    /// # Errors
    /// An output that no edit captured into; failures of the device.
    pub fn output_f32(&self, name: &str) -> Result<Vec<f32>> {
        self.pass.output_f32(name)
    }
}
