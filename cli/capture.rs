//! `auscult capture`: activations of audio at chosen sites, and what autoencoders make of them, into a store.

mod saes;

use crate::context::Context;
use crate::failure::Failure;
use crate::text::told;
use anyhow::{Context as _, Result};
use auscult_analysis::capture::{
    Batch, CaptureJob, Event, Keep, Model, MusicgenCapture, Outcome, Summary, capture,
};
use auscult_analysis::input::{Input, from_manifest, from_paths};
use auscult_analysis::record::{DeviceRecord, FileRecord, InputRecord, RunRecord};
use auscult_analysis::store::{self, StoreDtype};
use auscult_analysis::time;
use auscult_audio::{LastClip, Windows};
use auscult_model::config::CheckpointConfig;
use auscult_model::musicgen::{DecoderOptions, Posemb, Precision};
use auscult_model::sae::SaePrecision;
use auscult_model::t5::{TextEncoder, TextPad, Tokenizer};
use auscult_runtime::Backend;
use indicatif::ProgressBar;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(clap::Args)]
pub struct Args {
    /// A MusicGen checkpoint directory
    #[arg(long)]
    pub model: PathBuf,
    /// Audio files
    #[arg(required_unless_present = "manifest", conflicts_with = "manifest")]
    pub audio: Vec<PathBuf>,
    /// A manifest of audio: one JSON object a line, with at least `track_id` and `audio_path`
    #[arg(long, requires = "audio_root")]
    pub manifest: Option<PathBuf>,
    /// The directory that a manifest's paths are relative to
    #[arg(long, requires = "manifest")]
    pub audio_root: Option<PathBuf>,
    /// Sites: hook_layers.{1,5}, layers.3.mlp_out, embed, ... (see `model info`); by default those that the autoencoders
    /// name
    #[arg(long, value_name = "LIST", required_unless_present = "sae")]
    pub hooks: Option<String>,
    /// An autoencoder whose features are stored too, and how well they stand for the rows: PATH at the hook that its files
    /// name, HOOK=PATH at another; again for each. Those of every kind without normalisation encode on the device, unless more
    /// features of a row are active than it keeps (1024); all others on the processor. What they multiply in: `--sae-precision`
    #[arg(long, value_name = "PATH")]
    pub sae: Vec<String>,
    /// What the products of autoencoders are of, f32 or bf16: the latter for top-k ones on the device alone, and what is too near
    /// the last place to tell once more in f32. By default bf16 with `--precision bf16`, else f32
    #[arg(long, value_name = "PRECISION", requires = "sae")]
    pub sae_precision: Option<SaePrecision>,
    /// Store features alone; the activations that they are of never leave the device where it encodes
    #[arg(long, requires = "sae")]
    pub sae_only: bool,
    /// Let autoencoders read other hooks than those they were trained at; `run.json` says so
    #[arg(long, requires = "sae")]
    pub allow_misaligned: bool,
    /// The directory to write
    #[arg(long, value_name = "STORE")]
    pub out: PathBuf,
    /// Condition every clip on this text; without it the model is told nothing
    #[arg(long, value_name = "STRING")]
    pub text: Option<String>,
    /// Cut audio into clips of so many seconds; without it a file is one clip
    #[arg(long, value_name = "SECONDS")]
    pub window: Option<f64>,
    /// From the start of one clip to that of the next; the window by default
    #[arg(long, value_name = "SECONDS", requires = "window")]
    pub stride: Option<f64>,
    /// Where to start in each file
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    pub start: f64,
    /// How much of each file to use
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<f64>,
    /// Leave out a last clip that is shorter than the window
    #[arg(long)]
    pub drop_last: bool,
    /// Type of the stored activations: f32, f16 or bf16
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub dtype: StoreDtype,
    /// How positions are computed: f32, audiocraft-f16 or audiocraft-f16-autocast
    #[arg(long, value_name = "MODE", default_value = "f32")]
    pub posemb: Posemb,
    /// Clips computed together: auto or a number
    #[arg(long, value_name = "N", default_value = "auto")]
    pub batch: Batch,
    /// Go on with an unfinished store
    #[arg(long)]
    pub resume: bool,
    /// Store at most so many clips
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Check every weight for NaN and infinity first
    #[arg(long)]
    pub check_finite: bool,
    /// Say on stderr which kernels the codec and the decoder's forward pass run on this device, and how they are launched
    #[arg(long)]
    pub explain: bool,
    /// Positions of a shard of the store, at least 1
    #[arg(long, value_name = "N", default_value_t = SHARD_ROWS, hide = true)]
    pub shard_rows: NonZeroUsize,
}

pub fn run(context: &Context, args: &Args) -> Result<()> {
    let inputs = match (&args.manifest, &args.audio_root) {
        (Some(manifest), Some(root)) => from_manifest(manifest, root)?,
        _ => from_paths(&args.audio)?,
    };
    let summary = capture_into_store(context, args, inputs, context.backend()?)?;
    finish(context, &summary)
}

/// Shards of the store unless a test wants small ones.
pub const SHARD_ROWS: NonZeroUsize = NonZeroUsize::new(store::SHARD_ROWS).expect("a shard has rows");

/// Runs a capture with a bar on stderr; Ctrl-C ends it at the next batch.
pub fn capture_into_store(
    context: &Context,
    args: &Args,
    inputs: Vec<Input>,
    backend: Arc<dyn Backend>,
) -> Result<Summary> {
    let precision = context.precision(&*backend);
    let options = DecoderOptions {
        precision,
        posemb: args.posemb,
        check_finite: args.check_finite,
        ..DecoderOptions::default()
    };
    let tokenizer = args.text.as_deref().map(|text| check_text(&args.model, text)).transpose()?;
    let saes = saes::open(&args.sae)?;
    saes::note_positions(context, &saes, args.posemb);
    let hooks = args.hooks.clone().map_or_else(|| saes::hooks(&saes), Ok)?;
    let opened =
        context.open_hashed("opening", &args.model, || open(args, &hooks, backend.clone(), &options));
    let (mut model, mut record) = opened.map_err(|error| saes::blame(&saes, error))?;
    let mut run = RunRecord::start(std::env::args().collect());
    let sae_precision = match (args.sae_precision, context.global.precision) {
        (Some(precision), _) => precision,
        (None, Some(Precision::BF16)) => SaePrecision::Bf16,
        (None, _) => SaePrecision::F32,
    };
    let saes =
        saes::at_hooks(saes, model.hooks(), args.allow_misaligned, sae_precision, &*backend, &mut run)?;
    model = model.with_saes(saes, if args.sae_only { Keep::Features } else { Keep::Rows });
    let windows = Windows {
        window: args.window,
        stride: args.stride,
        start: args.start,
        duration: args.duration,
        last: if args.drop_last { LastClip::Drop } else { LastClip::Keep },
    };
    saes::look(context, &mut model, &inputs, windows, args.allow_misaligned, &mut run)?;
    if let Some(file) = tokenizer {
        record.files.push(FileRecord::of(file)?);
    }
    if args.explain {
        explain(&mut model, args)?;
    }
    let device = DeviceRecord::from(backend.info());
    let mut job = CaptureJob {
        resume: args.resume,
        windows,
        limit: args.limit,
        dtype: args.dtype,
        batch: args.batch,
        shard_rows: args.shard_rows.get(),
        posemb: args.posemb.to_string(),
        text: args.text.clone(),
        precision: precision.to_string(),
        record: run,
        ..CaptureJob::new(&args.out, inputs, record, device)
    };
    if let Some(threads) = context.global.threads {
        job.record.threads = threads.get();
    }
    if let Some(manifest) = &args.manifest {
        job.record.inputs.push(InputRecord { file: FileRecord::of(manifest)?, audio: None });
    }
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    // a second handler in one process is refused; the first one then serves, which stops that run
    let _ = ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed));
    let bar = context
        .bar(job.inputs.len() as u64, "{bar:30} file {pos} of {len}, {elapsed}, about {eta} left  {msg}");
    let started = std::time::Instant::now();
    let result = capture(job, &mut model, &|event: &Event<'_>| show(context, &bar, started, event), &stop);
    bar.finish_and_clear();
    Ok(result?)
}

/// Refuses a text that the model's tokenizer cannot read, before anything large is opened; returns the tokenizer's file.
fn check_text(model: &Path, text: &str) -> Result<PathBuf> {
    // a folder that is no checkpoint is told as such
    CheckpointConfig::load(model)?;
    let tokenizer = Tokenizer::open(model)?;
    told("--text", &[text])?;
    tokenizer.prompt(text).context("`--text` cannot be encoded")?;
    Ok(tokenizer.file().to_path_buf())
}

/// Opens the model, and tells it the text; the text encoder is gone again behind it.
fn open(
    args: &Args,
    hooks: &str,
    backend: Arc<dyn Backend>,
    options: &DecoderOptions,
) -> Result<MusicgenCapture> {
    let model = MusicgenCapture::open(&args.model, backend.clone(), options, hooks, args.dtype)?;
    let Some(text) = &args.text else { return Ok(model) };
    let mut texts = TextEncoder::open(&args.model, backend)?.texts(&[text], TextPad::Mask)?;
    Ok(model.with_text(texts.remove(0)))
}

/// Of a full batch of whole windows; of the longest clip where there are no windows.
fn explain(model: &mut MusicgenCapture, args: &Args) -> Result<()> {
    let spec = model.spec().clone();
    let longest = spec.longest_frames * spec.hop_length;
    let samples =
        args.window.map_or(longest, |seconds| (seconds * f64::from(spec.sample_rate)).round() as usize);
    let samples = samples.clamp(1, longest);
    let clips = match args.batch {
        Batch::Auto => model.auto_batch(samples),
        Batch::Clips(clips) => clips,
    };
    let frames = time::frames(samples, spec.hop_length);
    eprint!("{}", model.codec().explain_encode(clips, samples)?);
    eprint!("the decoder over {clips} clips of {frames} frames:\n{}", model.explain(clips, frames)?);
    Ok(())
}

fn show(context: &Context, bar: &ProgressBar, started: std::time::Instant, event: &Event<'_>) {
    match event {
        Event::Resumed(resumed) => context.note(&format!("resuming behind clip {}", resumed.clips)),
        Event::InputFailed(failure) => {
            bar.suspend(|| context.note(&format!("left out: {}: {}", failure.audio_path, failure.message)));
        }
        Event::Computed { clips, audio_seconds, input } => {
            let rate = audio_seconds / started.elapsed().as_secs_f64().max(1e-9);
            bar.set_position(*input as u64);
            bar.set_message(format!("{clips} clips, {rate:.2} s of audio a second"));
        }
        Event::InputStarted { .. } | Event::ShardClosed { .. } => {}
    }
}

/// Prints a summary; inputs that failed, or a run that was stopped, make the process fail.
fn finish(context: &Context, summary: &Summary) -> Result<()> {
    context.result(&describe(summary), &serde_json::to_value(summary)?);
    Failure::of_inputs(&summary.failed)?;
    if summary.outcome == Outcome::Stopped {
        return Err(Failure::failed("stopped; `--resume` continues"));
    }
    Ok(())
}

/// A summary as text.
pub fn describe(summary: &Summary) -> String {
    let state = match summary.outcome {
        Outcome::Finished => "finished",
        Outcome::AlreadyFinished => "was finished already",
        Outcome::Stopped => "stopped",
    };
    let s = &summary.stages;
    let mut text = format!(
        "{}: {state}, {} clips, {} positions a hook\n{:.1} s of audio in {:.1} s ({:.2} s a second): hash {:.1}, decode {:.1}, \
         resample {:.1}, EnCodec {:.1}, decoder {:.1}, write {:.1}",
        summary.store.display(),
        summary.clips,
        summary.positions,
        summary.audio_seconds,
        summary.wall_seconds,
        summary.audio_seconds_per_second(),
        s.hash,
        s.decode,
        s.resample,
        s.encode,
        s.lm,
        s.write
    );
    for sae in &summary.saes {
        let of = |value: Option<f64>| value.map_or("none".to_string(), |value| format!("{value:.4}"));
        text += &format!(
            "\n{} at {}: FVU {}, explained variance {}, {:.2} features active a row, {} of {} never",
            sae.sae,
            sae.hook,
            of(sae.fvu),
            of(sae.explained_variance),
            sae.l0,
            sae.dead,
            sae.features
        );
    }
    text
}
