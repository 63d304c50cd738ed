//! Texts that takes are told by: from words to the states that the decoder attends to.

use super::args::Args;
use crate::context::Context;
use crate::failure::Failure;
use crate::text::{Named, lines, tokens, told};
use anyhow::Result;
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
    let named = words(args, record)?;
    if named.is_empty() {
        return Ok(vec![Prompt::default()]);
    }
    let tokenizer = Tokenizer::open(&args.model)?;
    record.models.push(FileRecord::of(tokenizer.file())?);
    let tokens = tokens(&tokenizer, &named)?;
    let spinner = context.bar(1, "{spinner} encoding text {elapsed}");
    spinner.enable_steady_tick(Duration::from_millis(100));
    // the encoder leaves the device before anything plays
    let encoder = TextEncoder::open(&args.model, backend.clone())?;
    let slices: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let texts = encoder.texts_of(&slices, args.text_pad)?;
    spinner.finish_and_clear();
    let prompt =
        |((_, words), text): (Named, Text)| Prompt { words: Some(words), text: Some(Arc::new(text)) };
    Ok(named.into_iter().zip(texts).map(prompt).collect())
}

/// The texts as they were written, none of them empty.
fn words(args: &Args, record: &mut RunRecord) -> Result<Vec<Named>> {
    let Some(file) = &args.prompts else {
        return told("--text", &args.text);
    };
    let words = lines(file)?;
    if let Some((name, _)) = words.iter().find(|(_, line)| line.trim().is_empty()) {
        return Err(Failure::input(format!("{name} is empty, expected a prompt on every line")));
    }
    record.inputs.push(InputRecord { file: FileRecord::of(file)?, audio: None });
    Ok(words)
}
