//! From inputs to clips: the thread that hashes, decodes, resamples and cuts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use auscult_audio::{AudioError, Blame, Clip, ClipSource, LastClip, Stream, Strictness, Windows};

use super::{Event, Failure, Progress, Reason};
use crate::error::{AnalysisError, Result};
use crate::input::{Input, Range};
use crate::record::{AudioRecord, FileRecord, InputRecord};

/// What the reading thread sends on, in the order of the inputs.
pub(super) enum Item {
    Clip(Box<InputClip>),
    /// An input was read to its end, or as far as it is wanted.
    Done {
        input: usize,
        record: Box<InputRecord>,
    },
    Failed(Failure),
}

/// A clip and where it came from.
pub(super) struct InputClip {
    pub input: usize,
    pub ordinal: usize,
    pub audio_sha256: String,
    pub source_sample_rate: u32,
    pub clip: Clip,
}

/// What the reading thread works on.
pub(super) struct Producer<'a> {
    pub inputs: &'a [Input],
    pub windows: Windows,
    pub sample_rate: u32,
    /// Longest clip the model takes, in samples.
    pub longest: usize,
    /// The input to begin with, and how many of its clips to leave out.
    pub from: (usize, usize),
    /// Clips to give at most.
    pub limit: usize,
    pub progress: &'a dyn Progress,
    pub stop: &'a AtomicBool,
    pub to: SyncSender<Item>,
}

/// What the reading thread did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Read {
    pub hash: Duration,
    pub decode: Duration,
    pub resample: Duration,
    /// Whether it came to the end of the inputs, or to the last clip wanted.
    pub complete: bool,
}

/// Why reading an input ended early.
enum Ended {
    /// The input is at fault; the others go on.
    Failed(AudioError),
    /// The run is over: stopped, or nobody listens any more.
    Over,
    /// The run has failed.
    Fatal(AnalysisError),
}

impl Producer<'_> {
    /// Reads all inputs. An input's own faults are sent on; a hash that is not the promised one ends the run.
    pub fn run(mut self) -> Result<Read> {
        let mut times = Read::default();
        let (first, mut skip) = self.from;
        for index in first..self.inputs.len() {
            if self.limit == 0 {
                break;
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(times);
            }
            let before = self.limit;
            let item = match self.read(index, std::mem::take(&mut skip), &mut times) {
                Ok(record) => Item::Done { input: index, record: Box::new(record) },
                Err(Ended::Over) => return Ok(times),
                Err(Ended::Fatal(error)) => return Err(error),
                Err(Ended::Failed(error)) => {
                    let stored = before - self.limit + if index == first { self.from.1 } else { 0 };
                    let failure = self.failure(index, &error, stored);
                    self.progress.event(&Event::InputFailed(&failure));
                    Item::Failed(failure)
                }
            };
            if self.to.send(item).is_err() {
                return Ok(times);
            }
        }
        times.complete = true;
        Ok(times)
    }

    fn failure(&self, index: usize, error: &AudioError, clips: usize) -> Failure {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        // what decodes audio knows of no options
        if matches!(error, AudioError::ClipTooLong { .. }) {
            message += " with `--window`";
        }
        let reason = match error {
            AudioError::Panicked { .. } => Reason::Panicked,
            _ => Reason::BadInput,
        };
        let input = &self.inputs[index];
        Failure {
            input: index,
            track_id: input.track_id.clone(),
            audio_path: input.audio_path.clone(),
            reason,
            message,
            clips,
        }
    }

    /// The cuts of an input: the run's, or each of its ranges.
    fn cuts(&self, input: &Input) -> Vec<Windows> {
        let cut = |range: &Range| {
            let duration = range.end.map(|end| end - range.start);
            // without a window the range is one clip, and marked if the file ends before it
            Windows { window: self.windows.window.or(duration), start: range.start, duration, ..self.windows }
        };
        match input.ranges.as_slice() {
            [] => vec![self.windows],
            ranges => ranges.iter().map(cut).collect(),
        }
    }

    fn read(&mut self, index: usize, skip: usize, times: &mut Read) -> Result<InputRecord, Ended> {
        let input = &self.inputs[index];
        let started = Instant::now();
        let hashed = FileRecord::of(&input.path);
        times.hash += started.elapsed();
        // the decoder says better what is wrong with a file that cannot even be hashed
        let mut file = match hashed {
            Ok(file) => file,
            Err(error) => match Stream::open(&input.path, self.sample_rate, Strictness::Strict) {
                Err(better) => return Err(Ended::Failed(better)),
                Ok(_) => return Err(Ended::Fatal(error)),
            },
        };
        file.path.clone_from(&input.audio_path);
        if let Some(expected) = input.sha256.as_ref().filter(|expected| **expected != file.sha256) {
            return Err(Ended::Fatal(AnalysisError::Hash {
                path: input.path.clone(),
                found: file.sha256,
                expected: expected.clone(),
                origin: "the manifest".to_string(),
            }));
        }
        let (mut audio, mut ordinal) = (None, 0);
        for windows in self.cuts(input) {
            let started = Instant::now();
            let opened = Stream::open(&input.path, self.sample_rate, Strictness::Strict)
                .and_then(|stream| ClipSource::new(stream, &windows));
            times.decode += started.elapsed();
            let mut source = opened.map_err(ended)?.longest_clip(self.longest);
            if audio.is_none() {
                let (index, inputs) = (index, self.inputs.len());
                let seconds = source.info().seconds();
                let path = &input.audio_path;
                self.progress.event(&Event::InputStarted { index, inputs, path, seconds });
            }
            loop {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Ended::Over);
                }
                if self.limit == 0 {
                    break;
                }
                let (started, resampled) = (Instant::now(), source.resampling_time());
                let next = source.next();
                let resampling = source.resampling_time() - resampled;
                times.resample += resampling;
                times.decode += started.elapsed() - resampling;
                let Some(clip) = next.transpose().map_err(ended)? else { break };
                ordinal += 1;
                if ordinal <= skip {
                    continue;
                }
                self.limit -= 1;
                let item = Item::Clip(Box::new(InputClip {
                    input: index,
                    ordinal: ordinal - 1,
                    audio_sha256: file.sha256.clone(),
                    source_sample_rate: source.info().sample_rate,
                    clip,
                }));
                self.to.send(item).map_err(|_| Ended::Over)?;
            }
            audio = Some(audio_record(&source));
        }
        Ok(InputRecord { file, audio })
    }
}

fn audio_record(source: &ClipSource) -> AudioRecord {
    let (info, report) = (source.info(), source.report());
    AudioRecord {
        codec: info.codec.to_string(),
        container: info.container.to_string(),
        sample_rate: info.sample_rate,
        channels: info.channels,
        gapless: info.gapless.to_string(),
        resampler: source.describe_resampling(),
        frames: report.frames,
        corrupt_packets: report.corrupt_packets,
        checksum_matches: report.checksum_matches,
    }
}

/// Options that cannot be cut end the run; everything else is the file's own fault.
fn ended(error: AudioError) -> Ended {
    match (&error, error.blame()) {
        (AudioError::Window { .. }, Blame::Usage) => Ended::Fatal(error.into()),
        _ => Ended::Failed(error),
    }
}

/// The windows of a run, from its options in seconds, checked before anything is started.
///
/// # Errors
/// [`AnalysisError::Usage`] names the option: times that are not finite, negative or too short, a stride without a
/// window, a window of more than the model's positions.
pub(super) fn check_windows(windows: &Windows, sample_rate: u32, longest: usize) -> Result<()> {
    let rate = f64::from(sample_rate);
    let one = 0.5 / rate; // what still rounds to one sample
    let times = [
        ("--window", windows.window, one),
        ("--stride", windows.stride, one),
        ("--duration", windows.duration, one),
        ("--start", Some(windows.start), 0.0),
    ];
    for (option, seconds, least) in times {
        if let Some(seconds) = seconds.filter(|s| !(s.is_finite() && *s >= least)) {
            let expected =
                if least > 0.0 { "a time of one sample or more" } else { "a time of at least 0 s" };
            return Err(AnalysisError::usage(option, format!("{seconds} s"), expected));
        }
    }
    if windows.window.is_none() && windows.stride.is_some() {
        return Err(AnalysisError::usage("--stride", "given without `--window`", "a window to go with it"));
    }
    if windows.window.is_none() && windows.last == LastClip::Drop {
        return Err(AnalysisError::usage(
            "--drop-last",
            "given without `--window`",
            "a window to go with it",
        ));
    }
    let most = longest as f64 / rate;
    match windows.window {
        Some(seconds) if (seconds * rate).round() > longest as f64 => {
            let expected = format!("at most {most} s, the longest clip that the model was trained on");
            Err(AnalysisError::usage("--window", format!("{seconds} s"), expected))
        }
        _ => Ok(()),
    }
}
