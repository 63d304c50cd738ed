//! A T5 encoder on a device.

use super::buckets::position_bias;
use super::config::T5Config;
use super::graph::{EMBEDDED, Forward, LENGTHS};
use super::sites::TextSite;
use super::states::TextStates;
use super::weights::T5Weights;
use crate::config::{CONFIG_FILE, CheckpointConfig};
use crate::device::HostTensor;
use crate::error::{ModelError, Result};
use crate::programs::{Programs, Shared};
use auscult_kernels::DType;
use auscult_runtime::weights::{Loader, Weights};
use auscult_runtime::{Backend, Edits, Program};
use std::path::Path;
use std::sync::Arc;

/// Prompts are padded to a multiple of this. It makes shapes repeat, and keeps every matrix product above the few rows for
/// which executors sum in another order, so that a prompt has the same bits alone and in a batch.
const STEP: usize = 8;

/// Padded tokens of one pass; longer lists of prompts are encoded in several, which changes no bit.
const PASS_ROWS: usize = 4096;

/// MusicGen's text encoder on a device.
pub struct T5Encoder {
    config: T5Config,
    weights: T5Weights,
    backend: Arc<dyn Backend>,
    /// By prompts and padded tokens of a prompt.
    programs: Programs<(usize, usize)>,
}

impl T5Encoder {
    /// Opens the text encoder of a MusicGen checkpoint in the layout of Hugging Face; the weights of its blocks go to the
    /// device.
    ///
    /// # Errors
    /// A configuration that is malformed, has no text encoder or one that is not supported; weights that disagree with it;
    /// memory.
    pub fn open(dir: &Path, backend: Arc<dyn Backend>) -> Result<Self> {
        let file = dir.join(CONFIG_FILE);
        let (config, feed_forward) = match CheckpointConfig::load(dir)? {
            CheckpointConfig::Musicgen(config) | CheckpointConfig::MusicgenMelody(config) => {
                let feed_forward = config.text_encoder.check_supported(&file, "text_encoder.")?;
                (config.text_encoder, feed_forward)
            }
            CheckpointConfig::Encodec(_) => {
                let expected = "\"musicgen\", which has a text encoder";
                return Err(ModelError::config(&file, "model_type", "\"encodec\"", expected));
            }
        };
        let checkpoint = Weights::open(dir)?;
        let loader = Loader::new(&checkpoint);
        let weights = T5Weights::load(&loader, &config, feed_forward, &*backend)?;
        Ok(Self { config, weights, backend, programs: Programs::new() })
    }

    /// The encoder's configuration.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// States of every prompt, behind the last norm. A prompt's states do not depend on the others.
    ///
    /// # Errors
    /// A prompt without tokens, a token that the embedding has not; failures of the device.
    pub fn encode(&self, prompts: &[&[u32]]) -> Result<Vec<TextStates>> {
        self.check(prompts)?;
        let mut states = Vec::with_capacity(prompts.len());
        let mut rest = prompts;
        while !rest.is_empty() {
            let (pass, after) = rest.split_at(one_pass(rest));
            let shape = padded(pass);
            let program = self.kept(shape)?;
            let program = program.lock();
            self.run(&program, pass, shape.1)?;
            states.extend(self.states(&program, &TextSite::FinalNorm.to_string(), pass, shape.1)?);
            rest = after;
        }
        Ok(states)
    }

    /// States of every prompt at every output that `edits` capture into, in the order of the sites, in one pass. Sites are
    /// those of [`TextSite`]; captures are f32.
    ///
    /// # Errors
    /// As [`Self::encode`]; an unknown site; an edit that does not fit; a capture in another type.
    pub fn encode_with(&self, prompts: &[&[u32]], edits: Edits) -> Result<Vec<(String, Vec<TextStates>)>> {
        self.check(prompts)?;
        let edits = edits.with_sites(|name| {
            let site = name.parse::<TextSite>()?.within(self.config.num_layers)?;
            Ok::<_, ModelError>(site.to_string())
        })?;
        let shape = padded(prompts);
        let program = self.program(shape, edits)?;
        self.run(&program, prompts, shape.1)?;
        let outputs = program.graph().outputs().map(str::to_string).collect::<Vec<_>>().into_iter();
        outputs
            .map(|name| {
                let states = self.states(&program, &name, prompts, shape.1)?;
                Ok((name, states))
            })
            .collect()
    }

    /// Which kernels encode prompts, and how they are launched: behind a line for each pass, its launches, one a line.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn explain(&self, prompts: &[&[u32]]) -> Result<String> {
        self.check(prompts)?;
        let mut told = String::new();
        let mut rest = prompts;
        while !rest.is_empty() {
            let (pass, after) = rest.split_at(one_pass(rest));
            let (batch, steps) = padded(pass);
            let program = self.kept((batch, steps))?;
            let launches = auscult_runtime::explain(program.lock().graph(), self.backend.info());
            told += &format!("the text encoder over {batch} prompts of {steps} tokens:\n{launches}");
            rest = after;
        }
        Ok(told)
    }

    /// The program that encodes prompts of a shape.
    fn kept(&self, shape: (usize, usize)) -> Result<Shared> {
        self.programs.get(shape, || {
            let mut edits = Edits::new();
            edits.capture(TextSite::FinalNorm, DType::F32);
            self.program(shape, edits)
        })
    }

    fn check(&self, prompts: &[&[u32]]) -> Result<()> {
        for (i, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() {
                return Err(ModelError::Text(format!("prompt {i} has no tokens, expected at least one")));
            }
            let vocabulary = self.config.vocab_size;
            if let Some(token) = prompt.iter().find(|&&token| token as usize >= vocabulary) {
                let message =
                    format!("prompt {i} has token {token}, expected less than {vocabulary} (`vocab_size`)");
                return Err(ModelError::Text(message));
            }
        }
        Ok(())
    }

    fn program(&self, (batch, steps): (usize, usize), edits: Edits) -> Result<Program> {
        let bias = position_bias(&self.config, &self.weights.position_table, steps);
        let bias = HostTensor::from_f32s([self.config.num_heads, steps, steps], bias);
        let bias = bias.upload(&*self.backend)?;
        let forward =
            Forward { config: &self.config, weights: &self.weights, position_bias: &bias, batch, steps };
        Ok(Program::new(self.backend.clone(), forward.build(edits)?)?)
    }

    fn run(&self, program: &Program, prompts: &[&[u32]], steps: usize) -> Result<()> {
        let mut embedded = Vec::with_capacity(prompts.len() * steps * self.config.d_model);
        for prompt in prompts {
            let padding = std::iter::repeat_n(0, steps - prompt.len());
            prompt.iter().copied().chain(padding).for_each(|token| self.weights.embed(token, &mut embedded));
        }
        let length = |prompt: &&[u32]| u32::try_from(prompt.len()).expect("plans count tokens in u32");
        let lengths: Vec<u32> = prompts.iter().map(length).collect();
        let inputs = [(EMBEDDED, bytemuck::cast_slice(&embedded)), (LENGTHS, bytemuck::cast_slice(&lengths))];
        Ok(program.run(&inputs)?)
    }

    /// An output's rows of the prompts' own tokens.
    fn states(
        &self,
        program: &Program,
        output: &str,
        prompts: &[&[u32]],
        steps: usize,
    ) -> Result<Vec<TextStates>> {
        let width = self.config.d_model;
        let all = program.output_f32(output)?;
        let rows = all.chunks_exact(steps * width);
        rows.zip(prompts)
            .map(|(rows, prompt)| TextStates::new(width, rows[..prompt.len() * width].to_vec()))
            .collect()
    }
}

/// Number of prompts, and tokens that each is padded to.
fn padded(prompts: &[&[u32]]) -> (usize, usize) {
    let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
    (prompts.len(), longest.max(1).next_multiple_of(STEP))
}

/// How many of the first prompts fit one pass; at least one.
fn one_pass(prompts: &[&[u32]]) -> usize {
    let mut steps = 0;
    let fits = |(i, prompt): &(usize, &&[u32])| {
        steps = steps.max(prompt.len().next_multiple_of(STEP));
        (i + 1) * steps <= PASS_ROWS
    };
    prompts.iter().enumerate().take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_hold_as_many_prompts_as_fit() {
        let (short, long, vast) = (vec![1; 3], vec![1; 1000], vec![1; 9000]);
        let prompts = |lengths: &[&Vec<u32>]| -> usize {
            one_pass(&lengths.iter().map(|prompt| prompt.as_slice()).collect::<Vec<_>>())
        };
        assert_eq!(prompts(&[&short; 600]), 512);
        assert_eq!(prompts(&[&short, &long, &long, &long, &long, &long]), 4);
        assert_eq!(prompts(&[&vast, &short]), 1);
        assert_eq!(prompts(&[&short, &vast]), 1);
        assert_eq!(prompts(&[&short]), 1);
    }

    #[test]
    fn prompts_are_padded_to_whole_steps() {
        assert_eq!(padded(&[&[1], &[1; 9]]), (2, 16));
        assert_eq!(padded(&[&[1; 8]]), (1, 8));
    }
}
