//! The clips of some audio, without a store: what a question is asked of, or what is learned from.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::thread;

use auscult_audio::{Clip, Windows};

use super::produce::{Item, Producer, check_windows};
use super::run::panicked;
use super::{Failure, ModelSpec};
use crate::error::{AnalysisError, Result};
use crate::input::Input;
use crate::record::InputRecord;

/// Clips that wait to be taken.
const PENDING: usize = 4;

/// What reading audio gives, in the order of the inputs.
#[derive(Debug)]
pub enum Heard<'a> {
    /// A clip.
    Clip {
        /// Its samples, and where they lie.
        clip: Clip,
        /// SHA-256 of the file that it was cut from.
        audio_sha256: String,
    },
    /// The input was read to its end, or as far as it is wanted.
    Read {
        /// Its number.
        input: usize,
        /// The file and how it was read.
        record: Box<InputRecord>,
    },
    /// The input is left out, or was cut short.
    Failed(&'a Failure),
}

/// Has `take` see every clip of inputs, at most `limit`, cut as a capture cuts them; `ahead` of them are read while it works.
/// Returns the inputs that could not be read.
///
/// # Errors
/// [`AnalysisError::Usage`] names an option; [`AnalysisError::Hash`] for a file that is not the manifest's;
/// [`AnalysisError::NothingCaptured`] where no input gave a clip; those of `take`, behind which nothing is read.
pub fn each_clip<E: From<AnalysisError>>(
    inputs: &[Input],
    windows: Windows,
    spec: &ModelSpec,
    limit: usize,
    ahead: usize,
    mut take: impl FnMut(Heard<'_>) -> Result<(), E>,
) -> Result<Vec<Failure>, E> {
    let longest = spec.longest_frames * spec.hop_length;
    check_windows(&windows, spec.sample_rate, longest)?;
    for (option, value) in [("--limit", limit), ("AUDIO", inputs.len())] {
        if value == 0 {
            return Err(AnalysisError::usage(option, 0, "at least 1").into());
        }
    }
    let (to, items) = sync_channel(ahead);
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
    let (mut clips, mut failed) = (0, Vec::new());
    thread::scope(|scope| {
        let read = scope.spawn(|| producer.run());
        let taken = items.into_iter().try_for_each(|item| match item {
            Item::Clip(clip) => {
                clips += 1;
                take(Heard::Clip { clip: clip.clip, audio_sha256: clip.audio_sha256 })
            }
            Item::Done { input, record } => take(Heard::Read { input, record }),
            Item::Failed(failure) => {
                let seen = take(Heard::Failed(&failure));
                failed.push(failure);
                seen
            }
        });
        // with nobody to listen the reading thread has ended, or does at its next clip
        let read = read.join().map_err(|panic| panicked("reading", &*panic)).flatten();
        taken?;
        Ok::<_, E>(read?)
    })?;
    match (clips, failed.first()) {
        (0, first) => {
            let first = first.map_or_else(|| "no clip is long enough".to_string(), |f| f.message.clone());
            Err(AnalysisError::NothingCaptured { inputs: inputs.len(), first, failed }.into())
        }
        _ => Ok(failed),
    }
}

/// The first clips of inputs, at most `limit`, cut as a capture cuts them, and the inputs that could not be read.
///
/// # Errors
/// As for [`each_clip`].
pub fn first_clips(
    inputs: &[Input],
    windows: Windows,
    spec: &ModelSpec,
    limit: usize,
) -> Result<(Vec<Clip>, Vec<Failure>)> {
    let mut clips = Vec::new();
    let failed = each_clip(inputs, windows, spec, limit, PENDING, |heard| {
        if let Heard::Clip { clip, .. } = heard {
            clips.push(clip);
        }
        Ok::<_, AnalysisError>(())
    })?;
    Ok((clips, failed))
}
