//! What is played: takes for every prompt, number and variant, and what a run will need for them.

use super::activity::{self, Listen};
use super::args::{Args, Sight, frames};
use super::edits::{Along, Feature, Steer};
use super::melody;
use super::memory::{self, Host};
use super::output::{Told, name};
use super::prompt;
use super::run::Model;
use super::text::Prompt;
use super::variants::{Target, Variant};
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::capture::Batch;
use auscult_analysis::record::RunRecord;
use auscult_model::Codes;
use auscult_model::musicgen::generate::{self, Capture, GeneratorOptions, Halves, Melody, Take};
use auscult_model::musicgen::{NamedSite, parse_sites};
use std::sync::Arc;

/// What is played.
pub struct Plan {
    pub takes: Vec<Take>,
    pub told: Vec<Told>,
    /// Frames of the longest take.
    pub frames: usize,
    /// Frames in sight at a time.
    pub window: usize,
    pub context: generate::Context,
    /// Sites whose rows are kept.
    pub hooks: Vec<NamedSite>,
}

impl Plan {
    /// Reads what the takes need from files, and draws their controls.
    ///
    /// # Errors
    /// Whatever of the command line does not fit the model, the files, or the rest of it.
    pub fn of(
        context: &Context,
        args: &Args,
        model: &Model,
        prompts: &[Prompt],
        record: &mut RunRecord,
    ) -> Result<Self> {
        let (decoder, rate) = (&model.decoder, model.decoder.frames_per_second());
        let of_prompt = |prompt: &Prompt| match prompt.seconds {
            Some(seconds) => frames("seconds", seconds, rate).map_err(|e| Failure::input(e.to_string())),
            None => frames("--seconds", args.seconds, rate),
        };
        let lengths = prompts.iter().map(of_prompt).collect::<Result<Vec<_>>>()?;
        let least = lengths.iter().copied().min().unwrap_or_default();
        let total = lengths.iter().copied().max().unwrap_or_default();
        let (window, sight) = sight(args, model, total)?;
        let hooks = match &args.hooks {
            Some(list) => parse_sites(list, decoder.config().num_hidden_layers)?,
            None => Vec::new(),
        };
        let mut plan =
            Self { takes: Vec::new(), told: Vec::new(), frames: total, window, context: sight, hooks };
        let target = Target::of(&args.edits, decoder, total, record)?;
        for (site, sae) in target.looked_at() {
            let steers = |steer: &Steer| matches!(&steer.along, Along::Feature(of) if of.hook.site == site);
            if args.edits.steer.iter().any(steers) && !sae.unit_directions() {
                context.note(&format!(
                    "the autoencoder's directions at {site} are not of length 1: ALPHA BETA d is as long as d makes it"
                ));
            }
        }
        for steer in
            args.edits.steer.iter().filter(|steer| steer.beta.is_none() && args.edits.stats.is_empty())
        {
            if let Along::Feature(Feature { hook, feature }) = &steer.along {
                context.note(&format!(
                    "BETA of {}:{feature} is 1: nothing says how strong it was recorded to be; `--stats FILE` or `@BETA` does",
                    hook.name
                ));
            }
        }
        let told = args.melody.is_some() || prompts.iter().any(|prompt| prompt.text.is_some());
        let guided = told && args.cfg != 1.0;
        if args.edits.any() && args.edits.edit_rows.0 == Halves::Unconditional && !guided {
            let message = "`--edit-rows` is uncond, expected both or cond: without text or a melody, and guidance, there are no such rows";
            return Err(Failure::usage(message));
        }
        let melody = read_melody(args, model, record)?.map(Arc::new);
        let prompt = read_prompt(args, model, least, window, record)?.map(Arc::new);
        let take = |(words, frames): (&Prompt, usize), row: u32| -> Result<Take> {
            Ok(Take {
                text: words.text.clone(),
                melody: melody.clone(),
                prompt: prompt.clone(),
                frames,
                seed: args.seed,
                row: if args.same_noise { 0 } else { row },
                sampling: args.sampling()?,
                edits: Vec::new(),
            })
        };
        let baseline = take((&prompts[0], lengths[0]), 0)?;
        let variants = plan.variants(context, args, model, &target, &baseline)?;
        let mut row = 0_u32;
        for (words, &frames) in prompts.iter().zip(&lengths) {
            for _ in 0..args.count.get() {
                let base = take((words, frames), row)?;
                for variant in &variants {
                    plan.takes.push(Take { edits: variant.edits.clone(), ..base.clone() });
                    let (label, edits) = (variant.label.clone(), variant.told.clone());
                    let melody = args.melody.as_deref().map(name);
                    plan.told.push(Told { label, text: words.words.clone(), melody, edits });
                }
                row = row.checked_add(1).ok_or_else(|| {
                    Failure::usage(format!("`--count` is {}, expected fewer than 2^32 takes", args.count))
                })?;
            }
        }
        Ok(plan)
    }

    /// What every take is played with.
    fn variants(
        &self,
        context: &Context,
        args: &Args,
        model: &Model,
        target: &Target,
        baseline: &Take,
    ) -> Result<Vec<Variant>> {
        let Some(controls) = args.edits.controls else {
            let label = if args.edits.any() { "edited" } else { "take" };
            return Ok(vec![target.plain(label)]);
        };
        target.check_controls()?;
        let looked_at = target.looked_at();
        if controls == 0 || looked_at.is_empty() {
            return target.with_controls(controls, args.seed, &[]);
        }
        // a take that does not fit is refused before it is played
        let one = std::slice::from_ref(baseline);
        let sites = looked_at.iter().map(|(site, _)| NamedSite { label: site.to_string(), site: *site });
        let host = self.host(model, &sites.collect::<Vec<_>>(), one);
        memory::slots(&model.decoder, one, self.window, Batch::Auto, host)?;
        context.note("playing a baseline: controls are matched on what fires in it");
        let listen =
            Listen { sites: &looked_at, columns: target.columns.clone(), half: args.edits.edit_rows.0 };
        let active = activity::of_baseline(&model.decoder, baseline, (self.window, self.context), &listen)?;
        target.with_controls(controls, args.seed, &active)
    }

    /// How many takes play side by side.
    ///
    /// # Errors
    /// Memory that not even one take fits.
    pub fn slots(&self, args: &Args, model: &Model) -> Result<usize> {
        let host = self.host(model, &self.hooks, &self.takes);
        memory::slots(&model.decoder, &self.takes, self.window, args.batch, host)
    }

    /// How the generator is made.
    pub fn options(&self, slots: usize) -> GeneratorOptions {
        let captures = self.hooks.iter().map(|hook| Capture { label: hook.label.clone(), site: hook.site });
        GeneratorOptions { slots, window: Some(self.window), captures: captures.collect() }
    }

    /// Host memory: audio, decoded by channel, woven, and as bytes, of the take that is written; captured rows of those
    /// that play.
    fn host(&self, model: &Model, hooks: &[NamedSite], takes: &[Take]) -> Host {
        let config = model.decoder.config();
        let samples = self.frames.saturating_mul(model.codec.config().hop_length());
        let audio = samples.saturating_mul(3 * size_of::<f32>() * config.audio_channels);
        let width: usize = hooks.iter().map(|hook| hook.site.width(config)).sum();
        let conditioned = |take: &Take| take.text.is_some() || take.melody.is_some();
        let guided = takes.iter().any(|take| conditioned(take) && take.sampling.guidance != 1.0);
        let row = size_of::<f32>() * width * if guided { 2 } else { 1 };
        Host { shared: audio, slot: row.saturating_mul(self.frames + 1) }
    }
}

/// Frames in sight at a time, and what becomes of takes that are longer.
fn sight(args: &Args, model: &Model, total: usize) -> Result<(usize, generate::Context)> {
    let (decoder, rate) = (&model.decoder, model.decoder.frames_per_second());
    let window = args.window.map(|window| frames("--window", window, rate)).transpose()?;
    match args.context {
        Sight::Full => match window {
            Some(window) if window < total => {
                let message = format!(
                    "`--window` is {window} frames, less than a take's {total}, expected none with `--context full`"
                );
                Err(Failure::usage(message))
            }
            _ => Ok((total, generate::Context::Full)),
        },
        Sight::Stride(stride) => {
            let window = window.unwrap_or(decoder.trained_frames());
            let stride = frames("--context", stride, rate)?;
            if total > window && stride >= window {
                let message = format!(
                    "`--context` moves on by {stride} frames, expected 1 to {}, less than a window",
                    window - 1
                );
                return Err(Failure::usage(message));
            }
            Ok((window, generate::Context::Stride(stride)))
        }
    }
}

/// What every take follows.
fn read_melody(args: &Args, model: &Model, record: &mut RunRecord) -> Result<Option<Melody>> {
    let Some(path) = &args.melody else { return Ok(None) };
    let (melody, input) = melody::load(path, &model.decoder, &args.model)?;
    record.inputs.push(input);
    Ok(Some(melody))
}

/// The prompt's codes, if they leave something to be played.
fn read_prompt(
    args: &Args,
    model: &Model,
    frames: usize,
    window: usize,
    record: &mut RunRecord,
) -> Result<Option<Codes>> {
    let Some(path) = &args.audio_prompt else { return Ok(None) };
    let channels = model.decoder.config().audio_channels;
    let (codes, input) = prompt::load(path, args.prompt_seconds, channels, &model.codec)?;
    record.inputs.push(input);
    let rate = model.decoder.frames_per_second();
    let found = codes.frames();
    let refuse = |most: usize, what: &str| {
        let message = format!(
            "the audio prompt {} has {found} frames ({} s), expected less than {most} ({} s), {what}; \
             `--prompt-seconds` shortens it",
            path.display(),
            found as f64 / rate,
            most as f64 / rate
        );
        Err(Failure::usage(message))
    };
    if found >= frames {
        return refuse(frames, "the length asked for with `--seconds`");
    }
    if found >= window {
        return refuse(window, "which are in sight at a time");
    }
    Ok(Some(codes))
}
