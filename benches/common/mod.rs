//! What the benches of whole models share: the command line, the checkpoint, the clock.

use auscult_model::init::{Preset, init};
use auscult_model::musicgen::{Decoder, DecoderOptions, Precision};
use auscult_model::sae::SaePrecision;
use auscult_runtime::selftest::Ceiling;
use auscult_runtime::{Backend, CpuBackend, CudaBackend, WgpuBackend};
use serde_json::{Value, json};
use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Errors are printed, whatever they are.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a bench is run with.
pub struct Options {
    /// What the device reaches with kernels of its own, in this run.
    pub ceiling: Ceiling,
    /// A checkpoint.
    pub model: PathBuf,
    /// The device.
    pub backend: Arc<dyn Backend>,
    /// Runs that are timed.
    pub repeat: usize,
    /// Of audio.
    pub seconds: usize,
    /// Clips or takes at a time, one number after another.
    pub batches: Vec<usize>,
    /// Of the decoder.
    pub precision: Precision,
    /// Features of the autoencoders that are measured beside it; 0 for none.
    pub features: usize,
    /// What those multiply in, one after another.
    pub sae_precisions: Vec<SaePrecision>,
}

impl Options {
    /// Reads the command line; writes a random checkpoint of musicgen-small's dimensions (2.4 GB) below the target directory
    /// where none is named and none is there. `batches` are those measured where the command line names none.
    pub fn read(batches: &[usize]) -> Result<Self> {
        let mut model = None;
        let (mut device, mut threads, mut repeat, mut seconds) = ("cpu".to_string(), None, 5, 10);
        let mut batches = batches.to_vec();
        let mut precision = Precision::F32;
        let mut features = 0;
        let mut sae_precisions = vec![SaePrecision::F32];
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                // cargo's own
                "--bench" => {}
                "--model" => model = Some(PathBuf::from(value()?)),
                "--device" => device = value()?,
                "--threads" => threads = Some(value()?.parse::<NonZeroUsize>()?),
                "--repeat" => repeat = value()?.parse()?,
                "--seconds" => seconds = value()?.parse()?,
                "--clips" | "--takes" => {
                    batches = value()?.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?
                }
                "--precision" => precision = value()?.parse()?,
                "--features" => features = value()?.parse()?,
                "--sae-precision" => {
                    let named = |name: &str| match name {
                        "f32" => Ok(SaePrecision::F32),
                        "bf16" => Ok(SaePrecision::Bf16),
                        _ => Err(format!("--sae-precision is {name}, expected f32 or bf16")),
                    };
                    sae_precisions = value()?.split(',').map(named).collect::<std::result::Result<_, _>>()?;
                }
                _ => return Err(format!("unknown argument {arg}").into()),
            }
        }
        let backend: Arc<dyn Backend> = match device.split_once(':') {
            None if device == "cpu" => Arc::new(CpuBackend::new(threads)?),
            None if device == "wgpu" => Arc::new(WgpuBackend::new(None)?),
            Some(("wgpu", number)) => Arc::new(WgpuBackend::new(Some(number.parse()?))?),
            None if device == "cuda" => Arc::new(CudaBackend::new(None)?),
            Some(("cuda", number)) => Arc::new(CudaBackend::new(Some(number.parse()?))?),
            _ => return Err(format!("unknown device {device}").into()),
        };
        let model = match model {
            Some(model) => model,
            None => {
                let dir = scratch().join("musicgen-small");
                if !dir.join("config.json").is_file() {
                    eprintln!("writing a random checkpoint to {}", dir.display());
                    init(Preset::Small, 0, &dir)?;
                }
                dir
            }
        };
        let ceiling = Ceiling::measure(&*backend)?;
        Ok(Self { ceiling, model, backend, repeat, seconds, batches, precision, features, sae_precisions })
    }

    /// What stands in front of every measurement.
    pub fn about(&self) -> Value {
        let info = self.backend.info();
        json!({
            "device": info.id,
            "name": info.name,
            "driver": info.driver,
            "model": self.model,
            "autoencoder_features": self.features,
            "autoencoder_precisions": self.sae_precisions.iter().map(|p| p.name()).collect::<Vec<_>>(),
            "copy_gb_per_s": round(self.ceiling.bytes / 1e9),
            "matrix_gflop_per_s": round(self.ceiling.flops / 1e9),
            "matrix_f16_gflop_per_s": round(self.ceiling.half_flops / 1e9),
        })
    }

    /// The decoder.
    pub fn open(&self) -> Result<Decoder> {
        let decoder = DecoderOptions { precision: self.precision, ..DecoderOptions::default() };
        Ok(Decoder::open(&self.model, self.backend.clone(), &decoder)?)
    }
}

/// Best and median seconds of `repeat` runs after one that is not counted.
pub fn time(repeat: usize, mut job: impl FnMut() -> Result<()>) -> Result<(f64, f64)> {
    job()?;
    let mut taken = Vec::new();
    for _ in 0..repeat.max(1) {
        let started = Instant::now();
        job()?;
        taken.push(started.elapsed().as_secs_f64());
    }
    taken.sort_by(f64::total_cmp);
    Ok((taken[0], taken[taken.len() / 2]))
}

/// Where checkpoints and stores go: cargo's folder, or the system's where the program was carried elsewhere.
pub fn scratch() -> PathBuf {
    let cargos = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    if cargos.is_dir() { cargos } else { std::env::temp_dir() }
}

/// To four places.
pub fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
