//! The run: from the command line to takes, and from takes to files.

use super::args::Args;
use super::live::Live;
use super::output::{Target, check_empty};
use super::plan::Plan;
use super::progress::{self, Progress};
use super::store::Capturing;
use super::text::prompts;
use crate::audio_file::Format;
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::{DeviceRecord, ModelRecord, RunRecord};
use auscult_audio::wav::Encoding;
use auscult_model::encodec::Encodec;
use auscult_model::musicgen::generate::{Event, Generator, Take};
use auscult_model::musicgen::{Decoder, DecoderOptions};
use auscult_runtime::Backend;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Columns between two looks at what was made: long enough that looking costs nothing, short enough for a bar.
const BLOCK: usize = 50;

pub fn run(context: &Context, args: &Args) -> Result<()> {
    let mut record = RunRecord::start(std::env::args().collect());
    args.sampling()?;
    if let Some(option) = args.edits.idle() {
        context.note(&format!("`{option}` changes nothing: there is no edit"));
    }
    if args.stream && context.global.json {
        return Err(Failure::usage(
            "`--stream` and `--json` both write to standard output, expected one of them",
        ));
    }
    let format = args.format()?;
    let target = Target::check(&args.out, args.single_file()?, args.resume)?;
    if let Some(store) = &args.capture {
        if !args.resume {
            check_empty("--capture", store, false)?;
        }
        if *store == args.out {
            return Err(Failure::usage("`--capture` and `--out` are one directory, expected two"));
        }
    }
    let backend = context.backend()?;
    let model = Model::open(context, args, backend.clone(), &mut record)?;
    let prompts = prompts(context, args, &backend, &mut record)?;
    // what controls add is counted when they are drawn
    target.check_takes(prompts.len().saturating_mul(args.count.get()))?;
    let plan = Plan::of(context, args, &model, &prompts, &mut record)?;
    target.check_takes(plan.takes.len())?;
    if args.stream && plan.takes.len() != 1 {
        let message = format!("`--stream` with {} takes, expected one", plan.takes.len());
        return Err(Failure::usage(message));
    }
    let told_apart =
        progress::describe(&plan, (format, args.float), model.decoder.frames_per_second(), &record);
    if args.resume && progress::finished(&target, &told_apart)? {
        let text = format!("{}: already finished", args.out.display());
        context.result(&text, &json!({ "outcome": "already_finished", "out": args.out }));
        return Ok(());
    }
    record.details.insert(progress::PLAN.into(), told_apart.clone());
    let slots = plan.slots(args, &model)?;
    let mut generator = Generator::new(&model.decoder, &plan.takes, &plan.options(slots))?;
    if args.explain {
        eprint!("{}", generator.explain(&plan.takes[0])?);
    }
    record.details.insert("slots".into(), slots.into());
    record.details.insert("memory_bytes".into(), generator.memory_bytes().into());
    target.create()?;
    let (mut progress, mut kept) = Progress::open(&target, &told_apart)?;
    let mut store = match &args.capture {
        Some(dir) => Capturing::begin(dir, &model, &plan, &record, args.resume)?,
        None => None,
    };
    if let Some(store) = &mut store {
        kept = store.only_kept(kept, |take| target.audio(take, format))?;
    }
    let resumed = kept.len();
    if resumed > 0 {
        context.note(&format!("resuming: {resumed} of {} takes are whole", plan.takes.len()));
        record.details.insert("resumed_takes".into(), resumed.into());
    }
    let encoding = if args.float { Encoding::Float32 } else { Encoding::Int16 };
    let channels = model.decoder.config().audio_channels;
    let live = args.stream.then(|| Live::begin(&model.codec, channels, plan.frames, encoding));
    let mut output = Output {
        target: &target,
        format,
        encoding,
        progress: &mut progress,
        store: store.as_mut(),
        live: live.transpose()?,
    };
    let played = play(context, &model, &plan, kept, &mut generator, &mut output)?;
    let rate = played.frames as f64 / played.seconds.max(1e-9);
    let speed = json!({
        "seconds": played.seconds,
        "frames_per_second": rate,
        "times_real_time": rate / model.decoder.frames_per_second(),
        "weights_read_as": generator.weight_types()?,
    });
    record.details.insert("playing".into(), speed.clone());
    record.details.insert("stopped".into(), played.stopped.into());
    if let Some(dir) = &args.capture {
        record.details.insert("store".into(), dir.display().to_string().into());
    }
    match store {
        Some(store) if played.stopped => store.suspend()?,
        Some(store) => store.finish(&record, &plan.told)?,
        None => {}
    }
    let written = target.finish(&played.takes, record)?;
    if !played.stopped {
        progress.finish()?;
    }
    tell(context, args.stream, &played, &speed, &written);
    if played.stopped {
        let more = if matches!(target, Target::Dir(_)) { "; `--resume` continues" } else { "" };
        return Err(Failure::failed(format!("stopped; {} takes are whole{more}", played.takes.len())));
    }
    Ok(())
}

/// What a checkpoint holds, on the device.
pub struct Model {
    pub decoder: Decoder,
    pub codec: Encodec,
    pub files: ModelRecord,
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
        let ((decoder, codec), files) = context.open_hashed("opening", &args.model, || {
            let decoder = Decoder::open(&args.model, backend.clone(), &options)?;
            Ok((decoder, Encodec::open(&args.model, backend.clone())?))
        })?;
        record.models.clone_from(&files.files);
        Ok(Self { decoder, codec, files })
    }
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

/// Where takes go.
struct Output<'a> {
    target: &'a Target,
    format: Format,
    encoding: Encoding,
    progress: &'a mut Progress,
    store: Option<&'a mut Capturing>,
    live: Option<Live<'a>>,
}

fn play(
    context: &Context,
    model: &Model,
    plan: &Plan,
    kept: BTreeMap<usize, Value>,
    generator: &mut Generator<'_>,
    output: &mut Output<'_>,
) -> Result<Played> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    // a second handler in one process is refused; the first one then serves, which stops that run
    let _ = ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed));
    let given = |take: usize| plan.takes[take].prompt.as_ref().map_or(0, |prompt| prompt.frames());
    let mut made: Vec<usize> = vec![0; plan.takes.len()];
    let left: Vec<usize> = (0..plan.takes.len()).filter(|take| !kept.contains_key(take)).collect();
    let takes: Vec<Take> = left.iter().map(|&take| plan.takes[take].clone()).collect();
    let mut records = kept;
    let all = left.iter().map(|&take| plan.takes[take].frames - given(take)).sum::<usize>();
    let bar = context.bar(all as u64, "{bar:30} frame {pos} of {len}, {elapsed}, about {eta} left  {msg}");
    let started = Instant::now();
    let mut writing = Duration::ZERO;
    let result = generator.play(&takes, plan.context, BLOCK, &mut |event: Event<'_>| {
        if stop.load(Ordering::Relaxed) {
            return Err(Stopped.into());
        }
        match event {
            Event::Frames { take, done, codes } => {
                let take = left[take];
                if let Some(live) = &mut output.live {
                    live.add(codes)?;
                }
                made[take] = done - given(take);
                show(&bar, made.iter().sum(), started, model.decoder.frames_per_second());
            }
            Event::Finished { take, generated } => {
                let (before, take) = (Instant::now(), left[take]);
                let (of, told) = (&plan.takes[take], &plan.told[take]);
                let form = (output.format, output.encoding);
                let record = output.target.write_take(take, of, told, &generated, &model.codec, form)?;
                if let Some(store) = &mut output.store {
                    let audio = output.target.audio(take, output.format);
                    store.add(take, &audio, generated)?;
                }
                output.progress.add(&record)?;
                records.insert(take, record);
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
    Ok(Played { takes: records.into_values().collect(), frames: made.iter().sum(), seconds, stopped })
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

fn tell(context: &Context, streamed: bool, played: &Played, speed: &Value, written: &std::path::Path) {
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
    if streamed {
        // standard output is the audio's
        return context.note(&text);
    }
    context.result(&text, &json!({ "record": written, "playing": speed, "takes": played.takes }));
}
