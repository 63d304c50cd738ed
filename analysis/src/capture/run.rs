//! The run itself: the three threads, and how it ends.

use std::any::Any;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::compute::{Computed, Computer, Work};
use super::produce::{Producer, Read, check_windows};
use super::{Batch, CaptureJob, Event, Failure, Model, Outcome, Progress, Stages, Summary};
use crate::error::{AnalysisError, Result};
use crate::store::{Opened, Resumed, SaeRows, ShardRule, StoreWriter};

/// Batches on their way to the store at a time; each holds its activations.
const PENDING_BATCHES: usize = 2;
/// Clips on their way to the model at a time, at least.
const PENDING_CLIPS: usize = 8;

/// Runs a job. When `stop` becomes true the run ends behind the current batch, and keeps all that was computed.
///
/// # Errors
/// [`AnalysisError::Usage`] before anything is started; those of [`StoreWriter::open`]; [`AnalysisError::Hash`] for a
/// file that is not the manifest's; [`AnalysisError::NothingCaptured`] when no input gave a clip, after which nothing is
/// left behind; failures of the model or the disk, after which the store can be taken up again if it holds anything.
pub fn capture<M: Model>(
    mut job: CaptureJob,
    model: &mut M,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Summary> {
    let started = Instant::now();
    let spec = model.spec().clone();
    let longest = spec.longest_frames * spec.hop_length;
    check_windows(&job.windows, spec.sample_rate, longest)?;
    check_counts(&job, model)?;
    let (writer, resumed) = match StoreWriter::open(&job.out, job.meta(model), job.resume)? {
        Opened::Writer(writer, resumed) => (*writer, resumed),
        Opened::Finished => return Ok(finished_before(&job.out, started)),
    };
    if resumed.clips > 0 {
        progress.event(&Event::Resumed(&resumed));
    }
    job.record.device = Some(job.device.clone());
    job.record.precision = Some(job.precision.clone());
    job.record.models = job.model.files.clone();

    let (to_model, clips) = sync_channel(PENDING_CLIPS.max(2 * most_clips(&job, model, longest)));
    let (to_writer, work) = sync_channel(PENDING_BATCHES);
    let producer = Producer {
        inputs: &job.inputs,
        windows: job.windows,
        sample_rate: spec.sample_rate,
        longest,
        from: resumed.at.unwrap_or_default(),
        limit: job.limit.map_or(usize::MAX, |limit| limit.saturating_sub(resumed.clips)),
        progress,
        stop,
        to: to_model,
    };
    let computer = Computer {
        model,
        inputs: &job.inputs,
        batch: job.batch,
        rule: ShardRule::new(job.shard_rows, resumed.open_rows),
        progress,
        to: to_writer,
        done: Computed::default(),
        in_flight: None,
    };
    let (read, computed, written) = thread::scope(|scope| {
        let read = scope.spawn(|| producer.run());
        let written = scope.spawn(|| write(writer, work, progress));
        let computed = computer.run(clips, stop);
        let read = read.join().map_err(|panic| panicked("reading", &*panic)).flatten();
        (read, computed, written.join().map_err(|panic| panicked("writing", &*panic)))
    });
    // a full disk shows up in the other threads too, as results that nobody takes
    let (writer, write_time) = written.flatten()?;
    let (read, computed) = match (read, computed) {
        (Ok(read), Ok(computed)) => (read, computed),
        (Err(error), _) | (_, Err(error)) => {
            // the first error is the one to tell; a store that cannot be kept is as if the run had been killed
            let _ = if writer.clips() == 0 { writer.abandon() } else { writer.suspend() };
            return Err(error);
        }
    };
    let ended = Ended { read, computed, write_time, resumed, started };
    settle(job, writer, ended)
}

fn check_counts<M: Model>(job: &CaptureJob, model: &M) -> Result<()> {
    let batch = match job.batch {
        Batch::Auto => None,
        Batch::Clips(clips) => Some(clips),
    };
    for (option, value, expected) in [
        ("--limit", job.limit, "at least 1"),
        ("--batch", batch, "`auto` or at least 1"),
        ("--hooks", Some(model.hooks().len()), "at least one site"),
        ("AUDIO", Some(job.inputs.len()), "at least one audio file"),
    ] {
        if value == Some(0) {
            return Err(AnalysisError::usage(option, 0, expected));
        }
    }
    Ok(())
}

/// Clips of the largest batch there can be, roughly: that of the windows.
fn most_clips<M: Model>(job: &CaptureJob, model: &M, longest: usize) -> usize {
    match (job.batch, job.windows.window) {
        (Batch::Clips(clips), _) => clips,
        (Batch::Auto, None) => model.auto_batch(longest),
        (Batch::Auto, Some(seconds)) => {
            // checked: at most `longest`
            let samples = (seconds * f64::from(model.spec().sample_rate)).round() as usize;
            model.auto_batch(samples.clamp(1, longest))
        }
    }
}

pub(super) fn panicked(stage: &'static str, panic: &(dyn Any + Send)) -> AnalysisError {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    AnalysisError::Panicked { stage, message: text.unwrap_or_else(|| "no message".to_string()) }
}

/// The writing thread.
fn write(
    mut writer: StoreWriter,
    work: Receiver<Work>,
    progress: &dyn Progress,
) -> Result<(StoreWriter, Duration)> {
    let mut busy = Duration::ZERO;
    for work in work {
        let started = Instant::now();
        match work {
            Work::Done { input, record } => writer.input_done(input, *record),
            Work::Failed(failure) => writer.input_failed(failure),
            Work::Batch { clips, codes, shown } => {
                let count = clips.len();
                let mut features: Vec<_> = shown.features.into_iter().map(Vec::into_iter).collect();
                for (at, (clip, codes)) in clips.into_iter().zip(&codes).enumerate() {
                    // rows of a batch lie clip after clip; the writer checks that a part is a clip's size
                    let part = |rows: &'_ Vec<u8>| -> std::ops::Range<usize> {
                        let bytes = rows.len() / count;
                        at * bytes..(at + 1) * bytes
                    };
                    let rows: Vec<&[u8]> = shown.rows.iter().map(|rows| &rows[part(rows)]).collect();
                    let features: Vec<SaeRows> = features.iter_mut().filter_map(Iterator::next).collect();
                    if writer.append(clip, codes, &rows, &features)? {
                        progress.event(&Event::ShardClosed { clips: writer.clips() });
                    }
                }
            }
        }
        busy += started.elapsed();
    }
    Ok((writer, busy))
}

/// What the threads left.
struct Ended {
    read: Read,
    computed: Computed,
    write_time: Duration,
    resumed: Resumed,
    started: Instant,
}

/// Finishes the store, or keeps it to be taken up again.
fn settle(mut job: CaptureJob, writer: StoreWriter, ended: Ended) -> Result<Summary> {
    let Ended { read, computed, write_time, resumed, started } = ended;
    let failed: Vec<Failure> = writer.failed().cloned().collect();
    let complete = read.complete && computed.complete;
    if complete && writer.clips() == 0 {
        let dropped = "its audio is shorter than the window, and dropped".to_string();
        let first = failed.first().map_or(dropped, |failure| failure.message.clone());
        writer.abandon()?;
        return Err(AnalysisError::NothingCaptured { inputs: job.inputs.len(), first, failed });
    }
    let mut summary = Summary {
        store: job.out.clone(),
        outcome: if complete { Outcome::Finished } else { Outcome::Stopped },
        clips: writer.clips(),
        resumed_clips: resumed.clips,
        positions: writer.positions(),
        audio_seconds: computed.audio_seconds,
        failed,
        saes: writer.summaries(),
        stages: Stages {
            hash: read.hash.as_secs_f64(),
            decode: read.decode.as_secs_f64(),
            resample: read.resample.as_secs_f64(),
            encode: computed.encode.as_secs_f64(),
            lm: computed.lm.as_secs_f64(),
            write: write_time.as_secs_f64(),
        },
        wall_seconds: started.elapsed().as_secs_f64(),
    };
    let closing = Instant::now();
    match complete {
        false => writer.suspend()?,
        true => {
            for (key, value) in [
                ("clips", json!(summary.clips)),
                ("positions", json!(summary.positions)),
                ("resumed_clips", json!(summary.resumed_clips)),
                ("audio_seconds", json!(summary.audio_seconds)),
                ("wall_seconds", json!(summary.wall_seconds)),
                ("stages", json!(summary.stages)),
            ] {
                job.record.details.insert(key.to_string(), value);
            }
            writer.finish(&mut job.record)?;
        }
    }
    summary.stages.write += closing.elapsed().as_secs_f64();
    summary.wall_seconds = started.elapsed().as_secs_f64();
    Ok(summary)
}

fn finished_before(store: &Path, started: Instant) -> Summary {
    Summary {
        store: store.to_path_buf(),
        outcome: Outcome::AlreadyFinished,
        clips: 0,
        resumed_clips: 0,
        positions: 0,
        audio_seconds: 0.0,
        failed: Vec::new(),
        saes: Vec::new(),
        stages: Stages::default(),
        wall_seconds: started.elapsed().as_secs_f64(),
    }
}
