//! A run on disk: weights, optimiser, counts, and the rows that wait.

use super::Trainer;
use super::buffer::{Mixing, MixingState};
use super::config::TrainConfig;
use super::sparse::Sparse;
use crate::error::{ModelError, Result};
use crate::sae::SaeParts;
use auscult_kernels::DType;
use auscult_runtime::Backend;
use auscult_runtime::safetensors_io::{TensorSpec, write_safetensors};
use auscult_runtime::weights::Weights;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file of a run that can be taken up.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";
/// The metadata's field that holds the [`Progress`].
const FIELD: &str = "training";
/// Tensor of the rows that wait.
const POOL: &str = "pool";

/// What all versions of [`Progress`] have.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

/// What of a run is not a tensor.
#[derive(Serialize, Deserialize)]
struct Progress {
    format: u32,
    config: TrainConfig,
    step: u64,
    counted: u64,
    silent: usize,
    capacity: usize,
    refills: u32,
    drawn: u64,
    source: Map<String, Value>,
}

/// Version of the format.
const FORMAT: u32 = 3;

impl Trainer {
    /// Writes everything that the next step depends on to a safetensors file, which appears whole or not at all: the weights, the
    /// optimiser's moments, the counts of activity, the rows that wait in `mixing`, and how far the run has come; with them `source`, what
    /// identifies the rows, as whoever brings them describes it.
    ///
    /// # Errors
    /// The device; the operating system's refusals.
    pub fn save(&self, file: &Path, mixing: &Mixing, source: &Map<String, Value>) -> Result<()> {
        let state = mixing.state();
        let tensors = self.engine.state()?;
        let progress = Progress {
            format: FORMAT,
            config: self.config.clone(),
            step: self.step,
            counted: self.counted,
            silent: self.engine.silent(),
            capacity: mixing.capacity(),
            refills: state.refills,
            drawn: state.drawn,
            source: source.clone(),
        };
        let json = serde_json::to_string(&progress).expect("numbers and names are JSON");
        let mut specs: Vec<TensorSpec> = tensors
            .iter()
            .map(|(name, desc, _)| TensorSpec::new(*name, desc.dtype, desc.shape.clone()))
            .collect();
        let rows = state.pool.len() / self.config.width;
        specs.push(TensorSpec::new(POOL, DType::F32, [rows, self.config.width]));
        write_safetensors(file, &[(FIELD.to_string(), json)], &specs, |i, out| match tensors.get(i) {
            Some((_, _, bytes)) => out.write_all(bytes),
            None => out.write_all(bytemuck::cast_slice(&state.pool)),
        })?;
        Ok(())
    }

    /// Takes up a run where [`save`](Self::save) left it: the trainer, and the rows that wait. The
    /// source of rows begins at [`Mixing::drawn`].
    ///
    /// # Errors
    /// A file that is no checkpoint of this version, tensors that do not fit its settings; the device.
    pub fn resume(backend: Arc<dyn Backend>, file: &Path) -> Result<(Self, Mixing)> {
        Checkpoint::open(file)?.resume(backend)
    }
}

/// A checkpoint that lies open.
pub struct Checkpoint {
    file: PathBuf,
    weights: Weights,
    progress: Progress,
}

impl Checkpoint {
    /// Opens a checkpoint; no tensor is read.
    ///
    /// # Errors
    /// A file that is no checkpoint of this version.
    pub fn open(file: &Path) -> Result<Self> {
        let weights = Weights::open(file)?;
        let no = |message: String| ModelError::file(file, message);
        let text = weights
            .metadata(FIELD)
            .ok_or_else(|| no(format!("has no metadata `{FIELD}`, expected a checkpoint of `sae train`")))?;
        let unreadable = |error| no(format!("metadata `{FIELD}` cannot be read: {error}"));
        // another version has other fields
        let Versioned { format } = serde_json::from_str(text).map_err(unreadable)?;
        if format != FORMAT {
            return Err(no(format!("is of format {format}, expected {FORMAT}")));
        }
        let progress: Progress = serde_json::from_str(text).map_err(unreadable)?;
        Ok(Self { file: file.to_path_buf(), weights, progress })
    }

    /// Steps that were made.
    pub fn steps_made(&self) -> u64 {
        self.progress.step
    }

    /// What identifies the rows, as it was given to [`Trainer::save`].
    pub fn source(&self) -> &Map<String, Value> {
        &self.progress.source
    }

    /// Takes the run up; see [`Trainer::resume`].
    ///
    /// # Errors
    /// Tensors that do not fit its settings; the device.
    pub fn resume(self, backend: Arc<dyn Backend>) -> Result<(Trainer, Mixing)> {
        let Self { file, weights, progress } = self;
        let no = |message: String| ModelError::file(&file, message);
        let config = progress.config;
        config.check()?;
        let (width, features) = (config.width, config.features);
        let blank = SaeParts {
            w_enc: vec![0.0; width * features],
            b_enc: vec![0.0; features],
            w_dec: vec![0.0; width * features],
            b_dec: vec![0.0; width],
        };
        let bytes = |name: &str, shape: &[usize], dtype: DType| -> Result<Vec<u8>> {
            let view = weights.get(name).ok_or_else(|| no(format!("has no tensor `{name}`")))?;
            if (view.dtype, view.shape) != (dtype, shape) {
                let found = format!("is {} {:?}, expected {dtype} {shape:?}", view.dtype, view.shape);
                return Err(no(format!("tensor `{name}` {found}")));
            }
            Ok(view.bytes.to_vec())
        };
        let mut engine = Sparse::new(backend, &config, &blank)?;
        engine.restore(progress.silent, |name, desc| bytes(name, &desc.shape, desc.dtype))?;
        let rows = weights.get(POOL).and_then(|view| view.shape.first().copied()).unwrap_or(0);
        let pool = bytemuck::pod_collect_to_vec(&bytes(POOL, &[rows, width], DType::F32)?);
        let state = MixingState { pool, refills: progress.refills, drawn: progress.drawn };
        let mixing = Mixing::restored(width, progress.capacity, config.seed, state);
        Ok((Trainer { config, engine, step: progress.step, counted: progress.counted }, mixing))
    }
}
