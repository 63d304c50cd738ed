//! Which takes of a run are whole, so that one that was stopped or killed is gone on with.

use super::output::{Target, describe_take};
use super::plan::Plan;
use crate::audio_file::Format;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::journal::Journal;
use auscult_analysis::record::{RUN_JSON, RunRecord, VERSION, difference};
use auscult_runtime::files::{FileError, remove_leftovers, sha256_bytes};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Lies in the directory of a run that is not finished.
pub const JOURNAL: &str = "takes.journal.jsonl";

/// Where `run.json` keeps what tells runs apart.
pub const PLAN: &str = "plan";

/// A line of the journal.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// What tells runs apart: the first line.
    Plan(Value),
    /// The record of a take whose files are whole.
    Take(Value),
}

/// The journal of a run that writes into a directory; of a single file there is nothing to go on with.
pub struct Progress(Option<Journal<Line>>);

impl Progress {
    /// The records of the takes that an unfinished run of the same `plan` in `dir` has made, by number, where all of a
    /// take's files are there.
    ///
    /// # Errors
    /// A run of another plan, or one that another process is at; the disk.
    pub fn open(target: &Target, plan: &Value) -> Result<(Self, BTreeMap<usize, Value>)> {
        let Target::Dir(dir) = target else { return Ok((Self(None), BTreeMap::new())) };
        let (mut journal, lines) = Journal::open(dir.join(JOURNAL))?;
        remove_leftovers(dir)?;
        let mut takes = BTreeMap::new();
        let mut lines = lines.into_iter();
        match lines.next() {
            None => journal.append(&Line::Plan(plan.clone()))?,
            Some(Line::Plan(stored)) => check_same(dir, JOURNAL, plan, &stored)?,
            Some(Line::Take(_)) => {
                let path = dir.join(JOURNAL);
                let message = format!("{}: the first line is a take, expected a plan", path.display());
                return Err(Failure::input(message));
            }
        }
        for line in lines {
            let Line::Take(record) = line else { continue };
            let number = record["take"].as_u64().and_then(|number| usize::try_from(number).ok());
            let there = |file: &str| record[file].as_str().is_some_and(|file| dir.join(file).is_file());
            if let Some(number) = number.filter(|_| there("file") && there("codes")) {
                takes.insert(number, record);
            }
        }
        Ok((Self(Some(journal)), takes))
    }

    /// Notes a take whose files are whole.
    pub fn add(&mut self, record: &Value) -> Result<()> {
        if let Some(journal) = &mut self.0 {
            journal.append(&Line::Take(record.clone()))?;
        }
        Ok(())
    }

    /// The run is whole.
    pub fn finish(self) -> Result<()> {
        self.0.map_or(Ok(()), Journal::delete)?;
        Ok(())
    }
}

/// Whether a run in `dir` is finished already.
///
/// # Errors
/// One of another plan; a directory that holds no run.
pub fn finished(target: &Target, plan: &Value) -> Result<bool> {
    let Target::Dir(dir) = target else { return Ok(false) };
    let path = dir.join(RUN_JSON);
    if dir.join(JOURNAL).exists() || !path.exists() {
        return Ok(false);
    }
    let text = std::fs::read(&path).map_err(|e| FileError::io(&path, "read", e))?;
    let record: Value = serde_json::from_slice(&text)
        .map_err(|e| Failure::input(format!("{}: {e}, expected the record of a run", path.display())))?;
    check_same(dir, RUN_JSON, plan, &record["details"][PLAN])?;
    Ok(true)
}

fn check_same(dir: &Path, file: &str, plan: &Value, stored: &Value) -> Result<()> {
    let Some((field, found, expected)) = difference(plan, stored) else { return Ok(()) };
    let message = format!(
        "`--resume` of {}: `{field}` is {found}, expected {expected} (`{file}`, of the run that was started)",
        dir.display()
    );
    Err(Failure::usage(message))
}

/// What tells runs apart: whatever changes a bit of what a run writes, but for the device's batch, which does not.
pub fn describe(plan: &Plan, form: (Format, bool), frames_per_second: f64, record: &RunRecord) -> Value {
    let takes = plan.takes.iter().zip(&plan.told);
    let takes: String =
        takes.map(|(take, told)| format!("{}\n", describe_take(take, told, frames_per_second))).collect();
    json!({
        "version": VERSION,
        "models": record.models.iter().map(|file| &file.sha256).collect::<Vec<_>>(),
        "inputs": record.inputs.iter().map(|input| &input.file.sha256).collect::<Vec<_>>(),
        "device": record.device.as_ref().map(|device| &device.name),
        "precision": record.precision,
        "seed": record.seed,
        "format": form.0.to_string(),
        "float": form.1,
        "hooks": plan.hooks.iter().map(|hook| hook.label.as_str()).collect::<Vec<_>>(),
        "window_frames": plan.window,
        "context": format!("{:?}", plan.context),
        "takes": plan.takes.len(),
        "takes_sha256": sha256_bytes(takes.as_bytes()),
    })
}
