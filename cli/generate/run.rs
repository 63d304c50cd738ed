//! The run: from the command line to takes, and from takes to files.

use super::args::{Args, Sight, frames};
use super::output::{Target, Told};
use super::{memory, prompt};
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::{DeviceRecord, ModelRecord, RunRecord};
use auscult_audio::wav::Encoding;
use auscult_model::Codes;
use auscult_model::encodec::Encodec;
use auscult_model::musicgen::generate::{self, Event, Generator, GeneratorOptions, Take};
use auscult_model::musicgen::{Decoder, DecoderOptions};
use auscult_runtime::Backend;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Columns between two looks at what was made: long enough that looking costs nothing, short enough for a bar.
const BLOCK: usize = 50;

pub fn run(context: &Context, args: &Args) -> Result<()> {
    let mut record = RunRecord::start(std::env::args().collect());
    args.sampling()?;
    let target = Target::check(&args.out, args.single_file(), args.count.get())?;
    let backend = context.backend()?;
    let model = Model::open(context, args, backend.clone(), &mut record)?;
    let plan = Plan::of(args, &model, &mut record)?;
    let accelerator = backend.info().accelerator;
    let slots = memory::slots(
        &model.decoder,
        &plan.takes,
        plan.window,
        args.batch,
        model.audio_bytes(&plan),
        accelerator,
    )?;
    let options = GeneratorOptions { slots, window: Some(plan.window), captures: Vec::new() };
    let mut generator = Generator::new(&model.decoder, &plan.takes, &options)?;
    record.details.insert("slots".into(), slots.into());
    record.details.insert("memory_bytes".into(), generator.memory_bytes().into());
    target.create()?;
    let played = play(context, args, &model, &plan, &mut generator, &target)?;
    let rate = played.frames as f64 / played.seconds.max(1e-9);
    let speed = json!({
        "seconds": played.seconds,
        "frames_per_second": rate,
        "times_real_time": rate / model.decoder.frames_per_second(),
    });
    record.details.insert("playing".into(), speed.clone());
    record.details.insert("stopped".into(), played.stopped.into());
    let written = target.finish(&played.takes, record)?;
    tell(context, &played, &speed, &written);
    match played.stopped {
        false => Ok(()),
        true => Err(Failure::failed(format!("stopped; {} takes are whole", played.takes.len()))),
    }
}

/// What a checkpoint holds, on the device.
struct Model {
    decoder: Decoder,
    codec: Encodec,
}

impl Model {
    fn open(
        context: &Context,
        args: &Args,
        backend: Arc<dyn Backend>,
        record: &mut RunRecord,
    ) -> Result<Self> {
        let precision = context.precision(&*backend);
        record.seed = Some(args.seed);
        record.device = Some(DeviceRecord::from(backend.info()));
        record.precision = Some(precision.to_string());
        if let Some(threads) = context.global.threads {
            record.threads = threads.get();
        }
        let options = DecoderOptions { precision, ..DecoderOptions::default() };
        let spinner = context.bar(1, "{spinner} opening and hashing the model {elapsed}");
        spinner.enable_steady_tick(Duration::from_millis(100));
        // gigabytes are hashed beside what else there is to do; a model that does not open is the error to report
        let (model, hashed) = std::thread::scope(|scope| {
            let hashing = scope.spawn(|| ModelRecord::of(args.model.display().to_string(), &args.model));
            let model = (|| {
                let decoder = Decoder::open(&args.model, backend.clone(), &options)?;
                anyhow::Ok(Self { decoder, codec: Encodec::open(&args.model, backend.clone())? })
            })();
            (model, hashing.join().expect("hashing a file does not panic"))
        });
        spinner.finish_and_clear();
        let model = model?;
        record.models = hashed?.files;
        Ok(model)
    }

    /// Host memory for the audio of a take: decoded by channel, woven, and as bytes.
    fn audio_bytes(&self, plan: &Plan) -> usize {
        let samples = plan.frames.saturating_mul(self.codec.config().hop_length());
        samples.saturating_mul(3 * size_of::<f32>() * self.decoder.config().audio_channels)
    }
}

/// What is played.
struct Plan {
    takes: Vec<Take>,
    told: Vec<Told>,
    frames: usize,
    window: usize,
    context: generate::Context,
}

impl Plan {
    fn of(args: &Args, model: &Model, record: &mut RunRecord) -> Result<Self> {
        let (decoder, rate) = (&model.decoder, model.decoder.frames_per_second());
        let total = frames("--seconds", args.seconds, rate)?;
        let window = args.window.map(|window| frames("--window", window, rate)).transpose()?;
        let (window, context) = match args.context {
            Sight::Full => match window {
                Some(window) if window < total => {
                    let message = format!(
                        "`--window` is {window} frames, less than a take's {total}, expected none with `--context full`"
                    );
                    return Err(Failure::usage(message));
                }
                _ => (total, generate::Context::Full),
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
                (window, generate::Context::Stride(stride))
            }
        };
        let prompt = read_prompt(args, model, total, window, record)?.map(Arc::new);
        let mut takes = Vec::new();
        let mut told = Vec::new();
        for number in 0..args.count.get() {
            let row = u32::try_from(number).map_err(|_| {
                Failure::usage(format!("`--count` is {}, expected less than 2^32", args.count))
            })?;
            takes.push(Take {
                text: None,
                prompt: prompt.clone(),
                frames: total,
                seed: args.seed,
                row: if args.same_noise { 0 } else { row },
                sampling: args.sampling()?,
                edits: Vec::new(),
            });
            told.push(Told { label: "take".into(), text: None, edits: Vec::new() });
        }
        Ok(Self { takes, told, frames: total, window, context })
    }
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

/// What became of the takes.
struct Played {
    /// Records of those that were made, in order.
    takes: Vec<Value>,
    /// Frames made.
    frames: usize,
    seconds: f64,
    stopped: bool,
}

fn play(
    context: &Context,
    args: &Args,
    model: &Model,
    plan: &Plan,
    generator: &mut Generator<'_>,
    target: &Target,
) -> Result<Played> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    // a second handler in one process is refused; the first one then serves, which stops that run
    let _ = ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed));
    let encoding = if args.float { Encoding::Float32 } else { Encoding::Int16 };
    let given = |take: usize| plan.takes[take].prompt.as_ref().map_or(0, |prompt| prompt.frames());
    let mut made: Vec<usize> = vec![0; plan.takes.len()];
    let mut records: Vec<Option<Value>> = vec![None; plan.takes.len()];
    let all = (0..plan.takes.len()).map(|take| plan.takes[take].frames - given(take)).sum::<usize>();
    let bar = context.bar(all as u64, "{bar:30} frame {pos} of {len}, {elapsed}, about {eta} left  {msg}");
    let started = Instant::now();
    let mut writing = Duration::ZERO;
    let result = generator.play(&plan.takes, plan.context, BLOCK, &mut |event: Event<'_>| {
        if stop.load(Ordering::Relaxed) {
            return Err(Stopped.into());
        }
        match event {
            Event::Frames { take, done, .. } => {
                made[take] = done - given(take);
                show(&bar, made.iter().sum(), started, model.decoder.frames_per_second());
            }
            Event::Finished { take, generated } => {
                let before = Instant::now();
                let (of, told) = (&plan.takes[take], &plan.told[take]);
                records[take] =
                    Some(target.write_take(take, of, told, &generated, &model.codec, encoding)?);
                writing += before.elapsed();
            }
        }
        anyhow::Ok(())
    });
    bar.finish_and_clear();
    let stopped = match result {
        Ok(()) => false,
        Err(error) if error.is::<Stopped>() => true,
        Err(error) => return Err(error),
    };
    let seconds = (started.elapsed() - writing).as_secs_f64();
    Ok(Played { takes: records.into_iter().flatten().collect(), frames: made.iter().sum(), seconds, stopped })
}

/// Ctrl-C.
#[derive(Debug)]
struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stopped {}

fn show(bar: &ProgressBar, frames: usize, started: Instant, frames_per_second: f64) {
    let rate = frames as f64 / started.elapsed().as_secs_f64().max(1e-9);
    bar.set_position(frames as u64);
    bar.set_message(format!("{rate:.1} frames a second, {:.2} times real time", rate / frames_per_second));
}

fn tell(context: &Context, played: &Played, speed: &Value, written: &std::path::Path) {
    let mut text = String::new();
    for take in &played.takes {
        let loudness =
            take["loudness_lufs"].as_f64().map_or("too quiet to measure".into(), |l| format!("{l:.1} LUFS"));
        text += &format!(
            "{}: {:.2} s, {loudness}, peak {:.3}\n",
            take["file"].as_str().unwrap_or_default(),
            take["seconds"].as_f64().unwrap_or(f64::NAN),
            take["peak"].as_f64().unwrap_or(f64::NAN),
        );
    }
    text += &format!(
        "{}: {} frames in {:.1} s, {:.1} a second, {:.2} times real time",
        written.display(),
        played.frames,
        played.seconds,
        speed["frames_per_second"].as_f64().unwrap_or(f64::NAN),
        speed["times_real_time"].as_f64().unwrap_or(f64::NAN),
    );
    context.result(&text, &json!({ "record": written, "playing": speed, "takes": played.takes }));
}
