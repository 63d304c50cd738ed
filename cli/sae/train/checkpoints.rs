//! The checkpoints of several autoencoders as a set: whenever a run is killed, all have one of the same step.
//!
//! New ones are written under another name, beside those of the step before. When the last of them is on disk they take
//! their places, one after another. So a kill before that leaves all the old ones, and a kill behind it all the new ones, some
//! under the other name; [`settle`] finds which.

use super::Run;
use super::origin;
use super::output::{Output, is_finished, remove};
use super::source::{Feed, Place};
use crate::context::Context;
use crate::failure::Failure;
use anyhow::{Context as _, Result};
use auscult_model::sae::train::{CHECKPOINT_FILE, Checkpoint};
use auscult_runtime::Backend;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A checkpoint until those of all autoencoders are on disk.
pub(super) const NEXT_FILE: &str = "checkpoint.next.safetensors";

/// Writes the checkpoints of all.
pub(super) fn save(runs: &[Run]) -> Result<()> {
    for run in runs {
        run.trainer.save(&run.output.dir().join(NEXT_FILE), &run.mixing, &run.source)?;
    }
    runs.iter().try_for_each(|run| put_in_place(run.output.dir()))
}

fn put_in_place(dir: &Path) -> Result<()> {
    let (from, to) = (dir.join(NEXT_FILE), dir.join(CHECKPOINT_FILE));
    fs::rename(&from, &to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

/// Removes the checkpoints of directories that hold their autoencoders.
pub(super) fn remove_all<'a>(mut dirs: impl Iterator<Item = &'a Path>) -> Result<()> {
    dirs.try_for_each(|dir| [CHECKPOINT_FILE, NEXT_FILE].iter().try_for_each(|name| remove(&dir.join(name))))
}

/// What a run left, as far as `--resume` asks.
pub(super) enum Left {
    /// No checkpoint: nothing, or what was killed before the first.
    Nothing,
    /// All autoencoders, and the checkpoints of some or none: what is killed as it ends leaves some.
    Finished,
    /// Checkpoints.
    Unfinished,
}

impl Left {
    pub fn of(dirs: &[PathBuf]) -> Self {
        let with = |name: &str| dirs.iter().filter(|dir| dir.join(name).exists()).count();
        let (checkpoints, next) = (with(CHECKPOINT_FILE), with(NEXT_FILE));
        if checkpoints < dirs.len() && dirs.iter().all(|dir| is_finished(dir)) {
            Self::Finished
        } else if checkpoints + next == 0 && !dirs.iter().any(|dir| is_finished(dir)) {
            Self::Nothing
        } else {
            Self::Unfinished
        }
    }
}

/// What a directory has: steps of the checkpoint, and of the one that was to take its place.
struct Found<'a> {
    dir: &'a Path,
    checkpoint: Option<u64>,
    next: Option<u64>,
}

impl<'a> Found<'a> {
    fn of(dir: &'a Path) -> Result<Self> {
        let steps = |name: &str| -> Result<Option<u64>> {
            let file = dir.join(name);
            Ok(if file.exists() { Some(Checkpoint::open(&file)?.steps_made()) } else { None })
        };
        let found = Self { dir, checkpoint: steps(CHECKPOINT_FILE)?, next: steps(NEXT_FILE)? };
        if found.steps().next().is_none() {
            return Err(Failure::input(format!(
                "{}: is not there, expected the checkpoint of an unfinished run",
                dir.join(CHECKPOINT_FILE).display()
            )));
        }
        Ok(found)
    }

    fn steps(&self) -> impl Iterator<Item = u64> {
        self.checkpoint.into_iter().chain(self.next)
    }
}

/// Leaves every directory with the checkpoint of the last step of which all have one.
fn settle(dirs: &[PathBuf]) -> Result<()> {
    let found: Vec<Found<'_>> = dirs.iter().map(|dir| Found::of(dir)).collect::<Result<_>>()?;
    let in_all = |step: &u64| found.iter().all(|there| there.steps().any(|other| other == *step));
    let Some(step) = found.iter().flat_map(Found::steps).filter(in_all).max() else {
        let list = |there: &Found<'_>| {
            let steps: Vec<String> = there.steps().map(|step| step.to_string()).collect();
            format!("{} {}", there.dir.display(), steps.join(" and "))
        };
        return Err(Failure::input(format!(
            "the checkpoints are of different steps, expected one step that all have: {}",
            found.iter().map(list).collect::<Vec<_>>().join(", ")
        )));
    };
    for there in &found {
        match (there.checkpoint, there.next) {
            (checkpoint, Some(_)) if checkpoint != Some(step) => put_in_place(there.dir)?,
            (_, Some(_)) => remove(&there.dir.join(NEXT_FILE))?,
            (_, None) => {}
        }
    }
    Ok(())
}

/// The runs that were left in directories, one for each place.
pub(super) fn resume(
    context: &Context,
    places: Vec<Place>,
    dirs: &[PathBuf],
    backend: &Arc<dyn Backend>,
    feed: &mut Feed,
) -> Result<Vec<Run>> {
    settle(dirs)?;
    let mut runs = Vec::new();
    for (place, dir) in places.into_iter().zip(dirs) {
        let file = dir.join(CHECKPOINT_FILE);
        let checkpoint = Checkpoint::open(&file)?;
        let source = feed.origin().at(&place, &backend.info().id);
        origin::check(&file, &source, checkpoint.source())?;
        if let Some(other) = origin::other_device(&source, checkpoint.source()) {
            context.note(&format!("{}: {other}", file.display()));
        }
        let (trainer, mixing) = checkpoint.resume(backend.clone())?;
        let width = trainer.config().width;
        if width != place.width {
            return Err(Failure::refused(format!(
                "{}: was trained on rows of {width}, expected {}, the width of {}",
                file.display(),
                place.width,
                feed.name()
            )));
        }
        let output = Output::resumed(dir, trainer.steps_made())?;
        runs.push(Run { place, source, trainer, mixing, output, last: None });
    }
    let at = |run: &Run| (run.trainer.steps_made(), run.mixing.drawn(), run.trainer.config().batch);
    if let [first, others @ ..] = runs.as_slice()
        && let Some(other) = others.iter().find(|run| at(run) != at(first))
    {
        return Err(Failure::input(format!(
            "{} and {}: the checkpoints are of different runs, expected those of one",
            first.output.dir().display(),
            other.output.dir().display()
        )));
    }
    feed.seek(runs.first().map_or(0, |run| run.mixing.drawn()))?;
    Ok(runs)
}
