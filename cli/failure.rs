//! From errors to exit codes: 1 failed while running, 2 usage, 3 bad input, 4 refused by a check.

use auscult_analysis::AnalysisError;
use auscult_analysis::capture;
use auscult_audio::{AudioError, Blame};
use auscult_model::ModelError;
use auscult_runtime::DeviceError;
use auscult_runtime::files::FileError;
use auscult_runtime::weights::WeightsError;
use std::fmt;
use std::process::ExitCode;

/// A failure whose exit code the command decides.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit code.
    pub code: u8,
    /// What to print.
    pub message: String,
}

impl Failure {
    /// Work that failed.
    pub fn failed(message: impl Into<String>) -> anyhow::Error {
        Self { code: 1, message: message.into() }.into()
    }

    /// Inputs that failed make the process fail, behind what was made of the others.
    pub fn of_inputs(failed: &[capture::Failure]) -> anyhow::Result<()> {
        if failed.is_empty() {
            return Ok(());
        }
        let lines = failed.iter().map(|failure| format!("\n  {}: {}", failure.audio_path, failure.message));
        Err(Self::failed(format!("{} of the inputs failed:{}", failed.len(), lines.collect::<String>())))
    }

    /// A wrong command line.
    pub fn usage(message: impl Into<String>) -> anyhow::Error {
        Self { code: 2, message: message.into() }.into()
    }

    /// A check that refused.
    pub fn refused(message: impl Into<String>) -> anyhow::Error {
        Self { code: 4, message: message.into() }.into()
    }

    /// A wrong file.
    pub fn input(message: impl Into<String>) -> anyhow::Error {
        Self { code: 3, message: message.into() }.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Prints the error and each of its causes on a line of its own, and gives the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error}");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // a transparent wrapper repeats what it wraps
        if cause != said {
            eprintln!("  {cause}");
        }
        said = cause;
    }
    // where nothing at all came out, every file is named, as where some did
    if let Some(AnalysisError::NothingCaptured { failed, .. }) = error.downcast_ref()
        && failed.len() > 1
    {
        failed.iter().for_each(|failure| eprintln!("  {}: {}", failure.audio_path, failure.message));
    }
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(of_cause).unwrap_or(1)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(failure.code);
    }
    if let Some(analysis) = cause.downcast_ref::<AnalysisError>() {
        return Some(analysis.category().exit_code());
    }
    if let Some(audio) = cause.downcast_ref::<AudioError>() {
        return Some(match audio.blame() {
            Blame::Input => 3,
            Blame::Usage => 2,
            Blame::Output => 1,
        });
    }
    if let Some(model) = cause.downcast_ref::<ModelError>() {
        return of_model(model);
    }
    if cause.is::<WeightsError>() {
        return Some(3);
    }
    if let Some(device) = cause.downcast_ref::<DeviceError>() {
        return Some(if matches!(device, DeviceError::Unavailable { .. }) { 2 } else { 1 });
    }
    cause.is::<FileError>().then_some(1)
}

fn of_model(error: &ModelError) -> Option<u8> {
    match error {
        ModelError::Site { .. } | ModelError::Argument { .. } => Some(2),
        ModelError::Write(_)
        | ModelError::Graph(_)
        | ModelError::Run(_)
        | ModelError::Device(_)
        | ModelError::Batch { .. } => Some(1),
        ModelError::Refused { .. } | ModelError::Misfit { .. } => Some(4),
        // what is neither read nor opened is being written
        ModelError::Io { action, .. } if !["read", "open"].contains(action) => Some(1),
        _ => Some(3),
    }
}
