//! The first clips of some audio, without a store: what a question of a few clips is asked of.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::thread;

use auscult_audio::{Clip, Windows};

use super::produce::{Item, Producer, check_windows};
use super::run::panicked;
use super::{Failure, ModelSpec};
use crate::error::{AnalysisError, Result};
use crate::input::Input;

/// Clips that wait to be taken.
const PENDING: usize = 4;

/// The first clips of inputs, at most `limit`, cut as a capture cuts them, and the inputs that could not be read.
///
/// # Errors
/// [`AnalysisError::Usage`] names an option; [`AnalysisError::Hash`] for a file that is not the manifest's;
/// [`AnalysisError::NothingCaptured`] where no input gave a clip.
pub fn first_clips(
    inputs: &[Input],
    windows: Windows,
    spec: &ModelSpec,
    limit: usize,
) -> Result<(Vec<Clip>, Vec<Failure>)> {
    let longest = spec.longest_frames * spec.hop_length;
    check_windows(&windows, spec.sample_rate, longest)?;
    for (option, value) in [("--limit", limit), ("AUDIO", inputs.len())] {
        if value == 0 {
            return Err(AnalysisError::usage(option, 0, "at least 1"));
        }
    }
    let (to, items) = sync_channel(PENDING);
    let (stop, progress) = (AtomicBool::new(false), ());
    let producer = Producer {
        inputs,
        windows,
        sample_rate: spec.sample_rate,
        longest,
        from: (0, 0),
        limit,
        progress: &progress,
        stop: &stop,
        to,
    };
    let (mut clips, mut failed) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let read = scope.spawn(|| producer.run());
        for item in items {
            match item {
                Item::Clip(clip) => clips.push(clip.clip),
                Item::Failed(failure) => failed.push(failure),
                Item::Done { .. } => {}
            }
        }
        read.join().map_err(|panic| panicked("reading", &*panic)).flatten()
    })?;
    match (clips.is_empty(), failed.first()) {
        (true, first) => {
            let first = first.map_or_else(|| "no clip is long enough".to_string(), |f| f.message.clone());
            Err(AnalysisError::NothingCaptured { inputs: inputs.len(), first, failed })
        }
        (false, _) => Ok((clips, failed)),
    }
}
