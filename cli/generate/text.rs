//! Texts that takes are told by: from words to the states that the decoder attends to.

use super::args::Args;
use crate::context::Context;
use crate::failure::Failure;
use crate::text::lines;
use anyhow::{Context as _, Result};
use auscult_analysis::record::{FileRecord, InputRecord, RunRecord};
use auscult_model::musicgen::generate::Text;
use auscult_model::t5::{TextEncoder, Tokenizer};
use auscult_runtime::Backend;
use std::sync::Arc;
use std::time::Duration;

/// What takes of one kind are told.
#[derive(Clone, Default)]
pub struct Prompt {
    /// The words; none where nothing is told.
    pub words: Option<String>,
    /// What the decoder sees of them.
    pub text: Option<Arc<Text>>,
}

/// The prompts of a command line, encoded; a single silent one where there are none.
///
/// # Errors
/// A text without words, or beyond the tokenizer's limit; a checkpoint without a text encoder or tokenizer.
pub fn prompts(
    context: &Context,
    args: &Args,
    backend: &Arc<dyn Backend>,
    record: &mut RunRecord,
) -> Result<Vec<Prompt>> {
    let words = words(args, record)?;
    if words.is_empty() {
        return Ok(vec![Prompt::default()]);
    }
    let tokenizer = Tokenizer::open(&args.model)?;
    record.models.push(FileRecord::of(tokenizer.file())?);
    let tokens = words.iter().enumerate().map(|(number, words)| {
        tokenizer.encode(words).with_context(|| format!("prompt {number} cannot be encoded"))
    });
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    let spinner = context.bar(1, "{spinner} encoding text {elapsed}");
    spinner.enable_steady_tick(Duration::from_millis(100));
    // the encoder leaves the device before anything plays
    let encoder = TextEncoder::open(&args.model, backend.clone())?;
    let texts = encoder.texts_of(&tokens.iter().map(Vec::as_slice).collect::<Vec<_>>(), args.text_pad)?;
    spinner.finish_and_clear();
    let prompt = |(words, text)| Prompt { words: Some(words), text: Some(Arc::new(text)) };
    Ok(words.into_iter().zip(texts).map(prompt).collect())
}

/// The texts as they were written, none of them empty.
fn words(args: &Args, record: &mut RunRecord) -> Result<Vec<String>> {
    let Some(file) = &args.prompts else {
        if args.text.iter().any(|text| text.trim().is_empty()) {
            let message = "`--text` is empty, expected words; without `--text` the music is told nothing";
            return Err(Failure::usage(message));
        }
        return Ok(args.text.clone());
    };
    let words = lines(file)?;
    if let Some(at) = words.iter().position(|line| line.trim().is_empty()) {
        let message =
            format!("{}: line {} is empty, expected a prompt on every line", file.display(), at + 1);
        return Err(Failure::input(message));
    }
    record.inputs.push(InputRecord { file: FileRecord::of(file)?, audio: None });
    Ok(words)
}
