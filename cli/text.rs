//! `auscult t5`: text to the states that a decoder reads.

use crate::context::Context;
use crate::failure::Failure;
use anyhow::{Context as _, Result};
use auscult_analysis::record::{DeviceRecord, FileRecord, InputRecord, RunRecord};
use auscult_kernels::DType;
use auscult_model::config::CheckpointConfig;
use auscult_model::t5::{EncodedText, TextEncoder, Tokenizer};
use auscult_runtime::safetensors_io::{TensorSpec, write_safetensors};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub enum Command {
    /// Encode texts to a safetensors file: T5 states a token and mean-pooled, before and after the projection
    Encode {
        /// Texts, each a prompt
        #[arg(long, num_args = 1.., value_name = "STRING", required_unless_present = "file", conflicts_with = "file")]
        text: Vec<String>,
        /// A UTF-8 file with a prompt on every line
        #[arg(long)]
        file: Option<PathBuf>,
        /// A MusicGen checkpoint directory, with its tokenizer
        #[arg(long)]
        model: PathBuf,
        /// The file to write; `<OUT>.run.json` beside it records the run
        #[arg(long)]
        out: PathBuf,
        /// Say on stderr which kernels run on this device, and how they are launched
        #[arg(long)]
        explain: bool,
    },
}

pub fn run(context: &Context, command: &Command) -> Result<()> {
    let Command::Encode { text, file, model, out, explain } = command;
    let mut record = RunRecord::start(std::env::args().collect());
    let prompts = match file {
        Some(file) => {
            record.inputs.push(InputRecord { file: FileRecord::of(file)?, audio: None });
            lines(file)?
        }
        None => told("--text", text)?,
    };
    encode(context, &prompts, (model, out), *explain, record)
}

/// What a person would call the prompt, and the prompt.
pub type Named = (String, String);

/// The texts of an option, each with words.
///
/// # Errors
/// An empty one.
pub fn told(option: &str, texts: &[impl AsRef<str>]) -> Result<Vec<Named>> {
    let words = texts.iter().map(AsRef::as_ref);
    if words.clone().any(|text| text.trim().is_empty()) {
        return Err(Failure::usage(format!("`{option}` is empty, expected words")));
    }
    let name = |(i, text): (usize, &str)| (format!("prompt {i} of `{option}`"), text.to_string());
    Ok(words.enumerate().map(name).collect())
}

/// The lines of a file.
pub fn lines(file: &Path) -> Result<Vec<Named>> {
    let bad = |what: String| Failure::input(format!("{}: {what}", file.display()));
    let text = std::fs::read(file).map_err(|e| bad(format!("cannot be read: {e}")))?;
    let text = String::from_utf8(text).map_err(|e| bad(format!("is not UTF-8: {e}")))?;
    let name = |(i, line): (usize, &str)| (format!("{}: line {}", file.display(), i + 1), line.to_string());
    let lines: Vec<Named> = text.lines().enumerate().map(name).collect();
    if lines.is_empty() {
        return Err(bad("is empty, expected a prompt on every line".into()));
    }
    Ok(lines)
}

fn encode(
    context: &Context,
    prompts: &[Named],
    (model, out): (&Path, &Path),
    explain: bool,
    mut record: RunRecord,
) -> Result<()> {
    // a folder that is no checkpoint is told as such
    CheckpointConfig::load(model)?;
    let tokenizer = Tokenizer::open(model)?;
    let tokens = tokens(&tokenizer, prompts)?;
    let backend = context.backend()?;
    let ((encoded, widths), hashed) = context.open_hashed("encoding text", model, || {
        let encoder = TextEncoder::open(model, backend.clone())?;
        let slices: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        if explain {
            eprint!("{}", encoder.explain(&slices)?);
        }
        Ok((encoder.encode(&slices)?, [encoder.text_width(), encoder.width()]))
    })?;
    record.models = hashed.files;
    record.models.push(FileRecord::of(tokenizer.file())?);
    record.device = Some(DeviceRecord::from(backend.info()));
    record.precision = Some("f32".into());
    if let Some(threads) = context.global.threads {
        record.threads = threads.get();
    }

    let prompts: Vec<&str> = prompts.iter().map(|(_, text)| text.as_str()).collect();
    let total = tokens.iter().map(Vec::len).sum::<usize>();
    write(out, &prompts, &tokens, &encoded, widths)?;
    record.finish();
    let record = record.write_beside(out)?;
    let [text_width, width] = widths;
    let text = format!(
        "{}: {} prompts, {total} tokens, states of width {text_width}, projected to {width}",
        out.display(),
        prompts.len()
    );
    let each =
        prompts.iter().zip(&tokens).map(|(prompt, tokens)| json!({ "text": prompt, "tokens": tokens }));
    let json = json!({
        "out": out, "record": record, "tokens": total, "text_width": text_width, "width": width,
        "prompts": each.collect::<Vec<_>>(),
    });
    context.result(&text, &json);
    Ok(())
}

/// The tokens of every prompt.
pub fn tokens(tokenizer: &Tokenizer, prompts: &[Named]) -> Result<Vec<Vec<u32>>> {
    let one =
        |(name, text): &Named| tokenizer.prompt(text).with_context(|| format!("{name} cannot be encoded"));
    prompts.iter().map(one).collect()
}

/// The tensors of all prompts, one after another; `widths` are those of the states and of the projected states.
fn write(
    out: &Path,
    prompts: &[&str],
    tokens: &[Vec<u32>],
    encoded: &[EncodedText],
    [text_width, width]: [usize; 2],
) -> Result<()> {
    let total = tokens.iter().map(Vec::len).sum::<usize>();
    let count = prompts.len();
    let specs = [
        TensorSpec::new("tokens", DType::U32, [total]),
        TensorSpec::new("offsets", DType::U32, [count + 1]),
        TensorSpec::new("states", DType::F32, [total, text_width]),
        TensorSpec::new("projected", DType::F32, [total, width]),
        TensorSpec::new("mean", DType::F32, [count, text_width]),
        TensorSpec::new("mean_projected", DType::F32, [count, width]),
    ];
    let mut offsets = vec![0_u32];
    for tokens in tokens {
        let before = usize::try_from(*offsets.last().expect("begins with 0")).expect("32 bits fit");
        let end = u32::try_from(before + tokens.len());
        offsets.push(end.map_err(|_| Failure::input("more than 2^32 tokens, expected fewer prompts"))?);
    }
    let metadata = [("prompts".to_string(), json!(prompts).to_string())];
    write_safetensors(out, &metadata, &specs, |i, w| {
        let mut words = |words: &[u32]| words.iter().try_for_each(|word| w.write_all(&word.to_le_bytes()));
        match i {
            0 => return tokens.iter().try_for_each(|tokens| words(tokens)),
            1 => return words(&offsets),
            _ => {}
        }
        let mut floats =
            |values: &[f32]| values.iter().try_for_each(|value| w.write_all(&value.to_le_bytes()));
        match i {
            2 => encoded.iter().try_for_each(|text| floats(text.states.values())),
            3 => encoded.iter().try_for_each(|text| floats(text.projected.values())),
            4 => encoded.iter().try_for_each(|text| floats(&text.states.mean())),
            _ => encoded.iter().try_for_each(|text| floats(&text.projected.mean())),
        }
    })?;
    Ok(())
}
