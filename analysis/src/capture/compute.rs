//! From clips to activations: batches, cut so that they are the same in every run, and what the model makes of them.
//!
//! Where a device works by itself, one batch is in flight: its activations travel to the host while the device is busy with the
//! next one. Batches are handed over in order, and the one in flight before a run ends, however it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use auscult_model::Codes;

use super::produce::{InputClip, Item};
use super::{Batch, Event, Failure, Model, Progress, Shown};
use crate::error::{AnalysisError, Result};
use crate::input::Input;
use crate::record::InputRecord;
use crate::store::{ClipRow, NewClip, ShardRule, clip_id};
use crate::time;

/// What goes to the store.
pub(super) enum Work {
    Batch { clips: Vec<NewClip>, codes: Vec<Codes>, shown: Shown },
    Done { input: usize, record: Box<InputRecord> },
    Failed(Failure),
}

/// What the model's thread did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Computed {
    pub encode: Duration,
    pub lm: Duration,
    pub clips: usize,
    pub audio_seconds: f64,
    /// Whether all clips that came were computed.
    pub complete: bool,
}

/// The model's side of a run.
pub(super) struct Computer<'a, M: Model> {
    pub model: &'a mut M,
    pub inputs: &'a [Input],
    pub batch: Batch,
    pub rule: ShardRule,
    pub progress: &'a dyn Progress,
    pub to: SyncSender<Work>,
    pub done: Computed,
    pub in_flight: Option<Flight<M::Running>>,
}

/// A batch that the model was started on.
pub(super) struct Flight<R> {
    clips: Vec<NewClip>,
    codes: Vec<Codes>,
    /// The input that the last of its clips came from.
    input: usize,
    /// None where it had to make room, and is to be run again.
    running: Option<R>,
}

impl<M: Model> Computer<'_, M> {
    /// Computes what comes, until nothing does any more, the run is stopped, or nobody takes the results.
    ///
    /// A batch ends when it is full, when a clip of another length comes, and with its shard. All that follows from the
    /// clips since the shard's start, or since the end of a batch, which is where runs are taken up again.
    pub fn run(mut self, clips: Receiver<Item>, stop: &AtomicBool) -> Result<Computed> {
        let complete = self.compute(clips, stop);
        // what was computed before a failure is kept; the failure is what is told
        let taken = self.settle();
        self.done.complete = complete? & taken?;
        Ok(self.done)
    }

    /// As [`run`](Self::run), but for the batch in flight; whether all clips that came were computed.
    fn compute(&mut self, clips: Receiver<Item>, stop: &AtomicBool) -> Result<bool> {
        let mut pending: Vec<InputClip> = Vec::new();
        for item in clips {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let taken = match item {
                Item::Clip(clip) => self.add(*clip, &mut pending)?,
                // ahead of the clips that wait: records of inputs are kept by number, not by order
                Item::Done { input, record } => self.to.send(Work::Done { input, record }).is_ok(),
                Item::Failed(failure) => self.to.send(Work::Failed(failure)).is_ok(),
            };
            if !taken {
                return Ok(false);
            }
        }
        // the reading thread ends early when it is stopped or fails; what it left may be the start of a batch
        Ok(!stop.load(Ordering::Relaxed) && self.flush(&mut pending)?)
    }

    /// Takes a clip; false if nobody takes the results any more.
    fn add(&mut self, clip: InputClip, pending: &mut Vec<InputClip>) -> Result<bool> {
        let samples = clip.clip.samples.len();
        if pending.first().is_some_and(|first| first.clip.samples.len() != samples) && !self.flush(pending)? {
            return Ok(false);
        }
        pending.push(clip);
        let full = match self.batch {
            Batch::Auto => self.model.auto_batch(samples).max(1),
            Batch::Clips(clips) => clips,
        };
        let positions = time::positions(time::frames(samples, self.model.spec().hop_length));
        // counted for every clip, so it comes first
        let ends = self.rule.add(positions);
        match ends || pending.len() >= full {
            true => self.flush(pending),
            false => Ok(true),
        }
    }

    /// Starts a batch, and hands over the one before it; false if nobody takes the results any more.
    fn flush(&mut self, pending: &mut Vec<InputClip>) -> Result<bool> {
        let batch = std::mem::take(pending);
        let Some(last) = batch.last() else { return Ok(true) };
        let input = last.input;
        let samples: Vec<&[f32]> = batch.iter().map(|clip| clip.clip.samples.as_slice()).collect();
        let started = Instant::now();
        let codes = self.with_room(|model| model.encode(&samples))?;
        self.done.encode += started.elapsed();
        let frames = time::frames(samples[0].len(), self.model.spec().hop_length);
        self.check("codes", codes.len(), batch.len())?;
        for codes in &codes {
            self.check("frames", codes.frames(), frames)?;
        }
        let started = Instant::now();
        let running = self.with_room(|model| model.start(&codes))?;
        self.done.lm += started.elapsed();
        let is_running = self.model.is_running(&running);
        let clips = batch.into_iter().map(|clip| self.row(clip, frames)).collect();
        let flight = Flight { clips, codes, input, running: Some(running) };
        let taken = match self.in_flight.replace(flight) {
            Some(before) => self.hand_over(before)?,
            None => true,
        };
        Ok(taken && (is_running || self.settle()?))
    }

    /// Asks something of the model; if it has no memory for it, again without a batch in flight.
    fn with_room<T>(&mut self, ask: impl Fn(&mut M) -> Result<T>) -> Result<T> {
        match ask(self.model) {
            Err(AnalysisError::Batch { .. }) if self.in_flight.is_some() => {
                self.settle()?;
                ask(self.model)
            }
            answer => answer,
        }
    }

    /// Hands over the batch in flight; false if nobody takes the results any more.
    fn settle(&mut self) -> Result<bool> {
        self.in_flight.take().map_or(Ok(true), |flight| self.hand_over(flight))
    }

    /// Waits for a batch, and hands it over; false if nobody takes the results any more.
    fn hand_over(&mut self, flight: Flight<M::Running>) -> Result<bool> {
        let Flight { clips, codes, input, running } = flight;
        let started = Instant::now();
        let mut shown = match running {
            Some(running) => self.model.finish(&codes, running),
            None => self.model.forward(&codes),
        };
        if matches!(shown, Err(AnalysisError::Batch { .. }))
            && let Some(next) = &mut self.in_flight
        {
            // it makes room, and is run again
            next.running = None;
            shown = self.model.forward(&codes);
        }
        let shown = shown?;
        self.done.lm += started.elapsed();
        let hooks = if self.model.shows_rows() { self.model.hooks().len() } else { 0 };
        self.check("hooks", shown.rows.len(), hooks)?;
        for features in &shown.features {
            self.check("clips of an autoencoder", features.len(), clips.len())?;
        }
        self.done.clips += clips.len();
        self.done.audio_seconds +=
            clips.iter().map(|clip| clip.row.end_seconds - clip.row.start_seconds).sum::<f64>();
        let (clips_done, audio_seconds) = (self.done.clips, self.done.audio_seconds);
        self.progress.event(&Event::Computed { clips: clips_done, audio_seconds, input });
        Ok(self.to.send(Work::Batch { clips, codes, shown }).is_ok())
    }

    fn check(&self, what: &str, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        let (what, found, expected) = (format!("number of {what}"), found.to_string(), expected.to_string());
        Err(AnalysisError::Answer { what, found, expected })
    }

    fn row(&self, clip: InputClip, frames: usize) -> NewClip {
        let InputClip { input, ordinal, audio_sha256, source_sample_rate, clip } = clip;
        let Input { track_id, audio_path, .. } = &self.inputs[input];
        let row = ClipRow {
            clip_id: clip_id(track_id, clip.start_sample, clip.samples.len()),
            track_id: track_id.clone(),
            audio_path: audio_path.clone(),
            audio_sha256,
            start_seconds: clip.start_seconds,
            end_seconds: clip.end_seconds,
            frames,
            positions: time::positions(frames),
            shard: 0,
            row_start: 0,
            partial: clip.partial,
            source_sample_rate,
        };
        NewClip { input, ordinal, row }
    }
}
