//! Capturing: audio in, activations out, into a store.
//!
//! Three threads: one reads and cuts audio, the caller's runs the model, one writes. A device begins with a batch while the
//! activations of the one before it travel to the host. Batches hold clips of one length,
//! in order, and never span shards; so they are the same whether a run was interrupted or not, and with them every bit
//! of the result. A file that cannot be read is left out and listed; a model that fails, a full disk or a wrong hash end
//! the run, and leave a store that can be taken up again.

mod clips;
mod compute;
mod model;
mod produce;
mod run;
mod saes;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use auscult_audio::{LastClip, Windows};
use serde::{Deserialize, Serialize};

pub use clips::{Heard, each_clip, first_clips};
pub use model::{Keep, Model, ModelSpec, MusicgenCapture, Running, Shown};
pub use run::capture;
pub use saes::HookSae;

use crate::error::{AnalysisError, Result};
use crate::input::{Input, inputs_meta};
use crate::record::{DeviceRecord, GIT_COMMIT, ModelRecord, RunRecord, VERSION};
use crate::store::{EngineMeta, FORMAT, Resumed, SHARD_ROWS, SaeSummary, StoreDtype, StoreMeta, WindowsMeta};

/// How many clips are computed together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Batch {
    /// What suits the device.
    #[default]
    Auto,
    /// So many, at least 1.
    Clips(usize),
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Clips(clips) => write!(f, "{clips}"),
        }
    }
}

impl FromStr for Batch {
    type Err = AnalysisError;

    fn from_str(text: &str) -> Result<Self> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(clips)) if clips > 0 => Ok(Self::Clips(clips)),
            _ => {
                Err(AnalysisError::usage("--batch", format!("`{text}`"), "`auto` or a number of at least 1"))
            }
        }
    }
}

/// What is to be captured.
#[derive(Clone, Debug)]
pub struct CaptureJob {
    /// Directory of the store.
    pub out: PathBuf,
    /// Whether an unfinished store there is gone on with.
    pub resume: bool,
    /// The audio, at least one.
    pub inputs: Vec<Input>,
    /// How it is cut; inputs with ranges of their own keep only window, stride and last clip of this.
    pub windows: Windows,
    /// Most clips stored.
    pub limit: Option<usize>,
    /// Element type stored. [`Model::finish`] must return it.
    pub dtype: StoreDtype,
    /// Clips computed together.
    pub batch: Batch,
    /// Positions of a shard; [`SHARD_ROWS`] unless there is a reason.
    pub shard_rows: usize,
    /// The model's files.
    pub model: ModelRecord,
    /// How positions are embedded, by the name on the command line.
    pub posemb: String,
    /// The text the model is conditioned on.
    pub text: Option<String>,
    /// The device.
    pub device: DeviceRecord,
    /// The decoder's precision, by the name on the command line.
    pub precision: String,
    /// The run's record, as begun by [`RunRecord::start`]; device, precision, model, inputs and results are added.
    pub record: RunRecord,
}

impl CaptureJob {
    /// A job with the defaults: whole files, no limit, f32, automatic batches.
    pub fn new(
        out: impl Into<PathBuf>,
        inputs: Vec<Input>,
        model: ModelRecord,
        device: DeviceRecord,
    ) -> Self {
        Self {
            out: out.into(),
            resume: false,
            inputs,
            windows: Windows::default(),
            limit: None,
            dtype: StoreDtype::F32,
            batch: Batch::Auto,
            shard_rows: SHARD_ROWS,
            model,
            posemb: "f32".to_string(),
            text: None,
            device,
            precision: "f32".to_string(),
            record: RunRecord::start(std::env::args().collect()),
        }
    }

    fn meta<M: Model>(&self, model: &M) -> StoreMeta {
        let spec = model.spec();
        StoreMeta {
            format: FORMAT,
            model: self.model.name.clone(),
            model_sha256: self.model.weights_sha256.clone(),
            config_sha256: self.model.config_sha256.clone(),
            sites: model.hooks().to_vec(),
            saes: model.saes().into_iter().cloned().collect(),
            sae_only: !model.shows_rows(),
            dtype: self.dtype,
            d_model: spec.d_model,
            frame_rate: spec.frame_rate,
            sample_rate: spec.sample_rate,
            hop_length: spec.hop_length,
            codebooks: spec.codebooks,
            codebook_size: spec.codebook_size,
            posemb: self.posemb.clone(),
            text: self.text.clone(),
            windows: WindowsMeta {
                window: self.windows.window,
                stride: self.windows.stride,
                start: self.windows.start,
                duration: self.windows.duration,
                drop_last: self.windows.last == LastClip::Drop,
            },
            limit: self.limit,
            inputs: inputs_meta(&self.inputs),
            shard_rows: self.shard_rows,
            engine: EngineMeta {
                name: "auscult".to_string(),
                version: VERSION.to_string(),
                git_commit: GIT_COMMIT.to_string(),
                device: self.device.id.clone(),
                device_name: self.device.name.clone(),
                precision: self.precision.clone(),
                batch: self.batch.to_string(),
            },
        }
    }
}

/// Why an input was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The file cannot be used.
    BadInput,
    /// Its decoder panicked.
    Panicked,
}

/// An input that was left out, or cut short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its number among the inputs.
    pub input: usize,
    /// The recording.
    pub track_id: String,
    /// The file as the user named it.
    pub audio_path: String,
    /// The kind of fault.
    pub reason: Reason,
    /// What was found and what was expected.
    pub message: String,
    /// Clips that lie before the fault, and are stored.
    pub clips: usize,
}

/// Something that happened, for whoever shows progress.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The store was there; it holds this already.
    Resumed(&'a Resumed),
    /// An input is being read.
    InputStarted {
        /// Its number, from 0.
        index: usize,
        /// How many there are.
        inputs: usize,
        /// The file as the user named it.
        path: &'a str,
        /// Its length in seconds, where the header says.
        seconds: Option<f64>,
    },
    /// An input is left out.
    InputFailed(&'a Failure),
    /// A batch was computed.
    Computed {
        /// Clips of this run so far.
        clips: usize,
        /// Their length, in seconds.
        audio_seconds: f64,
        /// The input that the last of them came from, from 0.
        input: usize,
    },
    /// A shard is safe on disk.
    ShardClosed {
        /// Clips in the store.
        clips: usize,
    },
}

/// Watches a run. Called from its threads; it must not block for long.
pub trait Progress: Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

/// Watches nothing.
impl Progress for () {
    fn event(&self, _: &Event<'_>) {}
}

impl<F: Fn(&Event<'_>) + Sync> Progress for F {
    fn event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The store is finished.
    Finished,
    /// It was finished before; nothing was done.
    AlreadyFinished,
    /// The run was asked to stop; the store can be taken up again.
    Stopped,
}

/// Seconds that each stage was busy. Reading, computing and writing overlap, so the sum may exceed the run's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stages {
    /// Hashing the audio files.
    pub hash: f64,
    /// Decoding and cutting.
    pub decode: f64,
    /// Resampling.
    pub resample: f64,
    /// Encoding to codes, behind whatever the device is still to do for the batch before.
    pub encode: f64,
    /// The decoder's forward pass, and bringing its activations to the host.
    pub lm: f64,
    /// Writing, syncing and hashing the store.
    pub write: f64,
}

/// What a run did.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The store.
    pub store: PathBuf,
    /// How it ended.
    pub outcome: Outcome,
    /// Clips in the store; 0 where it was finished before.
    pub clips: usize,
    /// Those of them that were there before this run.
    pub resumed_clips: usize,
    /// Rows at each hook.
    pub positions: usize,
    /// Length of the clips of this run, in seconds.
    pub audio_seconds: f64,
    /// Inputs left out or cut short, of earlier runs of this store too, in the order of the inputs.
    pub failed: Vec<Failure>,
    /// What autoencoders made of all rows stored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub saes: Vec<SaeSummary>,
    /// Where the time went.
    pub stages: Stages,
    /// How long the run took, in seconds.
    pub wall_seconds: f64,
}

impl Summary {
    /// Length of audio done in one second.
    pub fn audio_seconds_per_second(&self) -> f64 {
        match self.wall_seconds > 0.0 {
            true => self.audio_seconds / self.wall_seconds,
            false => 0.0,
        }
    }
}
