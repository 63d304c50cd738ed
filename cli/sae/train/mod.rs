//! `auscult sae train`: autoencoders from rows of a file, of a store, or of audio as the model hears it.

mod checkpoints;
mod live;
mod origin;
mod output;
mod plot;
mod source;

use super::audio::AudioArgs;
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::{DeviceRecord, RunRecord};
use auscult_model::ModelError;
use auscult_model::musicgen::Posemb;
use auscult_model::sae::train::{Mixing, Mode, Record, TrainConfig, Trainer};
use auscult_runtime::Backend;
use checkpoints::Left;
use output::{Lock, Output, check_free};
use serde_json::{Map, Value, json};
use source::{Feed, Place};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(clap::Args)]
#[group(skip)]
#[command(group(clap::ArgGroup::new("rows").required(true).args(["input", "store", "model"])))]
pub struct TrainArgs {
    /// Rows of activations: .npy, or a tensor of a safetensors file; the last axis is a row
    #[arg(long)]
    input: Option<PathBuf>,
    /// The tensor of --input; `resid` or the only one by default
    #[arg(long, requires = "input")]
    tensor: Option<String>,
    /// A store, whose clips are read in the order of its index
    #[arg(long)]
    store: Option<PathBuf>,
    /// A MusicGen checkpoint directory, which hears the audio while the autoencoders are trained
    #[arg(long, requires = "hooks")]
    model: Option<PathBuf>,
    #[command(flatten)]
    audio: AudioArgs,
    /// Cut audio into clips of so many seconds; without it a file is one clip
    #[arg(long, value_name = "SECONDS", requires = "model")]
    window: Option<f64>,
    /// How positions are computed: f32, audiocraft-f16 or audiocraft-f16-autocast
    #[arg(long, value_name = "MODE", default_value = "f32", requires = "model")]
    posemb: Posemb,
    /// Sites, with an autoencoder for each; of a store its only one by default. Of rows of a file, the site they come from
    #[arg(long, visible_alias = "hook", value_name = "LIST")]
    hooks: Option<String>,
    /// saelens-5.3.2, topk, batchtopk, jumprelu or relu
    #[arg(long, default_value = "topk")]
    mode: Mode,
    /// Features of an autoencoder
    #[arg(long, value_name = "N", conflicts_with = "expansion")]
    features: Option<usize>,
    /// Features of an autoencoder for every value of a row
    #[arg(long, value_name = "N", default_value_t = 32)]
    expansion: usize,
    /// Active features of a row
    #[arg(long, value_name = "N")]
    k: Option<usize>,
    /// Rows of a step
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Steps
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    steps: u64,
    /// Rate of learning, which falls to 0 over the last steps
    #[arg(long, value_name = "X")]
    lr: Option<f64>,
    /// Last steps in which the rate falls; a fifth by default
    #[arg(long, value_name = "N")]
    lr_decay: Option<u64>,
    /// Factor of the penalty: of the sum of activations, in jumprelu of the number of active features
    #[arg(long, value_name = "X")]
    l1: Option<f64>,
    /// First steps in which that factor rises; a twentieth by default
    #[arg(long, value_name = "N")]
    l1_warmup: Option<u64>,
    /// How much of the first moment Adam keeps
    #[arg(long, value_name = "X")]
    beta1: Option<f64>,
    /// Silent features of a row that explain what is left, in topk; 0 for none, half of a row's values by default
    #[arg(long, value_name = "N")]
    aux_k: Option<usize>,
    /// Factor of the auxiliary loss of silent features, in topk; 1/32 by default
    #[arg(long, visible_alias = "auxk-coef", value_name = "X")]
    aux_k_coef: Option<f32>,
    /// Steps without activity after which a feature counts as dead
    #[arg(long, value_name = "N")]
    dead_after: Option<u32>,
    /// Seed of the first weights and of the order of rows
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Rows that are shuffled together
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    buffer: usize,
    /// Steps from one line of the log to the next
    #[arg(long, value_name = "N", default_value_t = 100)]
    log_every: u64,
    /// Steps from one checkpoint to the next
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    checkpoint_every: u64,
    /// Go on with an unfinished run; its settings are those of its checkpoint, whatever is given
    #[arg(long)]
    resume: bool,
    /// The directory to write; where there are several sites, one below it for each
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// An autoencoder in training, and where it goes.
struct Run {
    place: Place,
    /// What its rows are made of, as its checkpoints hold it.
    source: Map<String, Value>,
    trainer: Trainer,
    mixing: Mixing,
    output: Output,
    last: Option<Record>,
}

pub fn train(context: &Context, args: &TrainArgs) -> Result<()> {
    for (name, value) in [("--log-every", args.log_every), ("--checkpoint-every", args.checkpoint_every)] {
        if value == 0 {
            return Err(Failure::usage(format!("{name} is 0, expected at least 1")));
        }
    }
    if args.audio.given() && args.model.is_none() {
        return Err(Failure::usage("AUDIO is given without --model, expected the model that hears it"));
    }
    let mut record = RunRecord::start(std::env::args().collect());
    let backend = context.backend()?;
    let mut feed = Feed::open(context, args, backend.clone(), &mut record)?;
    record.seed = Some(args.seed);
    record.device = Some(DeviceRecord::from(backend.info()));
    if let Some(threads) = context.global.threads {
        record.threads = threads.get();
    }
    let dirs = directories(args, feed.places());
    let is_fresh = !args.resume || matches!(Left::of(&dirs), Left::Nothing);
    if is_fresh {
        dirs.iter().try_for_each(|dir| check_free(dir))?;
    }
    let locks: Vec<Lock> = dirs.iter().map(|dir| Lock::take(dir)).collect::<Result<_>>()?;
    // asked only now: whoever held the lock may have finished meanwhile
    match Left::of(&dirs) {
        Left::Finished if args.resume => {
            checkpoints::remove_all(dirs.iter().map(PathBuf::as_path))?;
            let text = format!("{}: was finished already", args.out.display());
            context.result(&text, &json!({ "autoencoders": [], "failed": feed.failed() }));
            return Failure::of_inputs(feed.failed());
        }
        _ if is_fresh => dirs.iter().try_for_each(|dir| check_free(dir))?,
        _ => {}
    }
    let mut runs = if is_fresh {
        if args.resume {
            context.note(&format!("{}: has no checkpoint, so the run starts over", args.out.display()));
        }
        begin(context, args, &backend, &dirs, &mut feed)?
    } else {
        checkpoints::resume(context, feed.places().to_vec(), &dirs, &backend, &mut feed)?
    };
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    // a second handler in one process is refused; the first one then serves, which stops that run
    let _ = ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed));
    let stopped = advance(context, args, &mut runs, &mut feed, &stop)?;
    if stopped {
        let made = runs.first().map_or(0, |run| run.trainer.steps_made());
        checkpoints::save(&runs)?;
        return Err(Failure::failed(format!("stopped behind step {made}; `--resume` continues")));
    }
    let mut summaries = Vec::new();
    for run in &mut runs {
        run.output.finish(&run.place, &run.trainer, &record)?;
        summaries.push(json!({
            "out": run.output.dir(), "hook": run.place.hook, "mode": run.trainer.config().mode.name(),
            "features": run.trainer.config().features, "steps": run.trainer.steps_made(), "last": run.last,
        }));
    }
    // only now is none of them wanted any more
    checkpoints::remove_all(runs.iter().map(|run| run.output.dir()))?;
    drop(locks);
    let text: Vec<String> = runs.iter().map(describe).collect();
    context.result(&text.join("\n"), &json!({ "autoencoders": summaries, "failed": feed.failed() }));
    Failure::of_inputs(feed.failed())
}

/// Where the autoencoder of each place goes.
fn directories(args: &TrainArgs, places: &[Place]) -> Vec<PathBuf> {
    let directory = |place: &Place| match (&place.hook, places.len()) {
        (Some(hook), 2..) => args.out.join(hook),
        _ => args.out.clone(),
    };
    places.iter().map(directory).collect()
}

/// Fresh runs.
fn begin(
    context: &Context,
    args: &TrainArgs,
    backend: &Arc<dyn Backend>,
    dirs: &[PathBuf],
    feed: &mut Feed,
) -> Result<Vec<Run>> {
    let places = feed.places().to_vec();
    note_unused(context, args);
    let configs: Vec<TrainConfig> = places.iter().map(|place| config(args, place.width)).collect();
    for config in &configs {
        config.check().map_err(|error| Failure::usage(error.to_string()))?;
    }
    let mut mixings: Vec<Mixing> = Vec::new();
    for config in &configs {
        let capacity = args.buffer.min(feed.rows()).max(config.batch);
        mixings.push(Mixing::new(config.width, capacity, config.seed));
    }
    fill(&mut mixings.iter_mut().collect::<Vec<_>>(), configs[0].batch, feed)?;
    let mut runs = Vec::new();
    for (((place, config), mixing), dir) in places.into_iter().zip(configs).zip(mixings).zip(dirs) {
        let trainer = Trainer::new(backend.clone(), config, mixing.pool())?;
        let output = Output::new(dir)?;
        let source = feed.origin().at(&place, &backend.info().id);
        runs.push(Run { place, source, trainer, mixing, output, last: None });
    }
    Ok(runs)
}

/// Whether a mode has a penalty on activations.
fn has_penalty(mode: Mode) -> bool {
    !matches!(mode, Mode::TopK | Mode::BatchTopK)
}

/// Tells of what is given that the mode has no use for.
fn note_unused(context: &Context, args: &TrainArgs) {
    let (penalty, top_k) = (has_penalty(args.mode), args.mode == Mode::TopK);
    for (name, is_given, has_use) in [
        ("--l1", args.l1.is_some(), penalty),
        ("--l1-warmup", args.l1_warmup.is_some(), penalty),
        ("--aux-k", args.aux_k.is_some(), top_k),
        ("--aux-k-coef", args.aux_k_coef.is_some(), top_k),
        ("--k", args.k.is_some(), !matches!(args.mode, Mode::JumpRelu | Mode::Relu)),
    ] {
        if is_given && !has_use {
            context.note(&format!("{name} has no effect with --mode {}", args.mode));
        }
    }
}

/// The mode's numbers, with those that were given.
fn config(args: &TrainArgs, width: usize) -> TrainConfig {
    let features = args.features.unwrap_or(args.expansion * width);
    let base = TrainConfig::new(args.mode, width, features, args.steps);
    let k = match args.mode {
        Mode::JumpRelu | Mode::Relu => base.k.min(features),
        _ => args.k.unwrap_or(base.k),
    };
    let aux_k = match args.mode {
        Mode::TopK => args.aux_k.unwrap_or(base.aux_k.min(features)),
        _ => 0,
    };
    TrainConfig {
        k,
        batch: args.batch.unwrap_or(base.batch),
        seed: args.seed,
        lr: args.lr.unwrap_or(base.lr),
        lr_decay: args.lr_decay.unwrap_or(base.lr_decay),
        l1: args.l1.filter(|_| has_penalty(args.mode)).unwrap_or(base.l1),
        l1_warmup: args.l1_warmup.filter(|_| has_penalty(args.mode)).unwrap_or(base.l1_warmup),
        beta1: args.beta1.unwrap_or(base.beta1),
        dead_after: args.dead_after.unwrap_or(base.dead_after),
        aux_weight: args.aux_k_coef.filter(|_| args.mode == Mode::TopK).unwrap_or(base.aux_weight),
        aux_k,
        ..base
    }
}

/// Fills pools that are at one point of one feed.
fn fill(mixings: &mut [&mut Mixing], batch: usize, feed: &mut Feed) -> Result<()> {
    let missing = mixings.first().map_or(0, |mixing| mixing.missing(batch));
    if missing == 0 {
        return Ok(());
    }
    let drawn = feed.draw(missing)?;
    for (mixing, rows) in mixings.iter_mut().zip(drawn) {
        mixing.fill(batch, |_, into| {
            into.extend_from_slice(&rows);
            Ok::<_, anyhow::Error>(())
        })?;
    }
    Ok(())
}

/// Makes all steps; whether it was asked to stop before.
fn advance(
    context: &Context,
    args: &TrainArgs,
    runs: &mut [Run],
    feed: &mut Feed,
    stop: &AtomicBool,
) -> Result<bool> {
    let Some(first) = runs.first() else { return Ok(false) };
    let (steps, batch) = (first.trainer.config().steps, first.trainer.config().batch);
    let bar = context.bar(steps, "{bar:30} step {pos} of {len} {per_sec} {eta}  {msg}");
    bar.set_position(first.trainer.steps_made());
    bar.reset_eta();
    for step in first.trainer.steps_made()..steps {
        if stop.load(Ordering::Relaxed) {
            bar.finish_and_clear();
            return Ok(true);
        }
        fill(&mut runs.iter_mut().map(|run| &mut run.mixing).collect::<Vec<_>>(), batch, feed)?;
        let is_logged = step.is_multiple_of(args.log_every) || step + 1 == steps;
        for run in runs.iter_mut() {
            let rows = run.mixing.batch(batch, |_, _| Ok::<_, anyhow::Error>(()))?;
            if is_logged {
                let record = run.trainer.step_recorded(&rows).map_err(diverged)?;
                run.output.log(&record)?;
                bar.set_message(format!(
                    "loss {:.4}, FVU {:.4}, L0 {:.1}",
                    record.loss, record.fvu, record.l0
                ));
                run.last = Some(record);
            } else {
                run.trainer.step(&rows)?;
            }
        }
        if (step + 1).is_multiple_of(args.checkpoint_every) && step + 1 < steps {
            checkpoints::save(runs)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(false)
}

/// A loss that is no number is a failure of the run, not of the command line.
fn diverged(error: ModelError) -> anyhow::Error {
    match error {
        ModelError::Argument { argument: "loss", .. } => Failure::failed(error.to_string()),
        other => other.into(),
    }
}

fn describe(run: &Run) -> String {
    let config = run.trainer.config();
    let hook = run.place.hook.as_deref().map_or(String::new(), |hook| format!(" at {hook}"));
    let last = run.last.map_or(String::new(), |last| {
        format!("; loss {:.4}, FVU {:.4}, L0 {:.1}, {} dead", last.loss, last.fvu, last.l0, last.dead)
    });
    format!(
        "{}: {} of {} x {} features{hook}, {} steps of {} rows{last}",
        run.output.dir().display(),
        config.mode,
        config.width,
        config.features,
        run.trainer.steps_made(),
        config.batch
    )
}

/// A file of bad rows, by its name.
fn not_finite(name: &Path, value: f32, row: usize, column: usize) -> anyhow::Error {
    Failure::input(format!(
        "{}: {value} in row {row}, column {column}, expected finite values",
        name.display()
    ))
}
