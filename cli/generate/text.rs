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
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// What takes of one kind are told.
#[derive(Clone, Default)]
pub struct Prompt {
    /// The words; none where nothing is told.
    pub words: Option<String>,
    /// What the decoder sees of them.
    pub text: Option<Arc<Text>>,
    /// Seconds of its takes, where they are its own.
    pub seconds: Option<f64>,
}

/// A prompt as it was written.
struct Written {
    /// What a person would call it.
    name: String,
    words: String,
    seconds: Option<f64>,
}

/// A line of a `.jsonl` file of prompts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    text: String,
    seconds: Option<f64>,
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
    let written = words(args, record)?;
    if written.is_empty() {
        return Ok(vec![Prompt::default()]);
    }
    let tokenizer = Tokenizer::open(&args.model)?;
    record.models.push(FileRecord::of(tokenizer.file())?);
    let named: Vec<Named> = written.iter().map(|one| (one.name.clone(), one.words.clone())).collect();
    let tokens = tokens(&tokenizer, &named)?;
    let spinner = context.bar(1, "{spinner} encoding text {elapsed}");
    spinner.enable_steady_tick(Duration::from_millis(100));
    // the encoder leaves the device before anything plays
    let encoder = TextEncoder::open(&args.model, backend.clone())?;
    let slices: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let texts = encoder.texts_of(&slices, args.text_pad)?;
    spinner.finish_and_clear();
    let prompt = |(one, text): (Written, Text)| Prompt {
        words: Some(one.words),
        text: Some(Arc::new(text)),
        seconds: one.seconds,
    };
    Ok(written.into_iter().zip(texts).map(prompt).collect())
}

/// The texts as they were written, none of them empty.
fn words(args: &Args, record: &mut RunRecord) -> Result<Vec<Written>> {
    let plain = |(name, words): Named| Written { name, words, seconds: None };
    let Some(file) = &args.prompts else {
        return Ok(told("--text", &args.text)?.into_iter().map(plain).collect());
    };
    let read = |(name, line): Named| match file.extension().is_some_and(|extension| extension == "jsonl") {
        true => match serde_json::from_str(&line) {
            Ok(Line { text, seconds }) => Ok(Written { name, words: text, seconds }),
            Err(e) => Err(Failure::input(format!(
                "{name}: {e}, expected an object with `text` and, where it is not `--seconds`, `seconds`"
            ))),
        },
        false => Ok(plain((name, line))),
    };
    let words = lines(file)?.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    if let Some(Written { name, .. }) = words.iter().find(|one| one.words.trim().is_empty()) {
        return Err(Failure::input(format!("{name} is empty, expected a prompt on every line")));
    }
    record.inputs.push(InputRecord { file: FileRecord::of(file)?, audio: None });
    Ok(words)
}
