//! What every command shares: global flags, the device, how results and progress are shown.

use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::ModelRecord;
use auscult_model::musicgen::Precision;
use auscult_runtime::{Backend, CpuBackend, CudaBackend, WgpuBackend, cuda, gpu};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Flags of every command.
#[derive(Args, Debug)]
pub struct Global {
    /// Where to run: `auto`, `cpu`, `wgpu[:N]` or `cuda[:N]`; auto takes cuda, else another real
    /// GPU, else the processor
    #[arg(long, global = true, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// Storage and matrix precision of the decoder: f32, bf16 or f16; f16 by default on cuda, f32 elsewhere. Autoencoders of the
    /// k largest features multiply in f32 unless bf16 is asked for
    #[arg(long, global = true, value_name = "TYPE")]
    pub precision: Option<Precision>,
    /// Threads of the processor; all by default
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Print results as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results only: no progress, no notes
    #[arg(long, global = true)]
    pub quiet: bool,
}

/// What `auto` becomes.
pub enum Auto {
    /// A CUDA device, by number.
    Cuda(usize),
    /// An adapter, by number.
    Wgpu(usize),
    /// The processor.
    Cpu,
}

/// The first that there is of: a CUDA device, a real wgpu adapter, the processor.
pub fn auto() -> Auto {
    if let Ok(number) = cuda::best_device() {
        return Auto::Cuda(number);
    }
    gpu::best_accelerator(&gpu::adapters()).map_or(Auto::Cpu, Auto::Wgpu)
}

impl std::fmt::Display for Auto {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Wgpu(number) => write!(f, "wgpu:{number}"),
            Self::Cpu => f.write_str("cpu"),
        }
    }
}

/// The flags, with what follows from them.
pub struct Context {
    pub global: Global,
}

impl Context {
    pub fn new(global: Global) -> Self {
        Self { global }
    }

    /// Opens the device that was asked for, and says which one `auto` became.
    pub fn backend(&self) -> Result<Arc<dyn Backend>> {
        let wanted = self.global.device.as_str();
        let (kind, number) = match wanted.split_once(':') {
            None => (wanted, None),
            Some((kind, number)) => {
                let number = number.parse::<usize>().map_err(|_| self.unknown_device())?;
                (kind, Some(number))
            }
        };
        let backend: Arc<dyn Backend> = match (kind, number) {
            ("auto", None) => match auto() {
                Auto::Cuda(number) => Arc::new(CudaBackend::new(Some(number))?),
                Auto::Wgpu(number) => Arc::new(WgpuBackend::new(Some(number))?),
                Auto::Cpu => Arc::new(CpuBackend::new(self.global.threads)?),
            },
            ("cpu", None) => Arc::new(CpuBackend::new(self.global.threads)?),
            ("wgpu", number) => Arc::new(WgpuBackend::new(number)?),
            ("cuda", number) => Arc::new(CudaBackend::new(number)?),
            _ => return Err(self.unknown_device()),
        };
        let info = backend.info();
        self.note(&format!("device {}: {} ({})", info.id, info.name, info.driver));
        if info.wgsl.is_some() && !info.accelerator {
            self.note(
                "this adapter is software, for tests: Mesa's ends loops after 65,535 turns, so that large models come out \
                 wrong; `--device cpu` is exact, and faster",
            );
        }
        Ok(backend)
    }

    fn unknown_device(&self) -> anyhow::Error {
        let wanted = &self.global.device;
        Failure::usage(format!("device `{wanted}` is unknown, expected auto, cpu, wgpu[:N] or cuda[:N]"))
    }

    /// The precision asked for, or the device's default.
    pub fn precision(&self, backend: &dyn Backend) -> Precision {
        let default = if backend.info().id.starts_with("cuda") { Precision::F16 } else { Precision::F32 };
        self.global.precision.unwrap_or(default)
    }

    /// A remark on stderr.
    pub fn note(&self, text: &str) {
        if !self.global.quiet {
            eprintln!("{text}");
        }
    }

    /// A result on stdout: `text` for people, or `json` on one line.
    pub fn result(&self, text: &str, json: &Value) {
        if self.global.json {
            println!("{json}");
        } else {
            println!("{}", text.trim_end());
        }
    }

    /// A bar of `length` units on stderr, drawn only on a terminal.
    pub fn bar(&self, length: u64, template: &str) -> ProgressBar {
        let target =
            if self.global.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        bar.set_style(ProgressStyle::with_template(template).expect("templates are fixed in the source"));
        bar
    }

    /// What `open` makes of a checkpoint, and the record of its files. Gigabytes are hashed beside what else there is to
    /// do, of which `doing` tells; a model that does not open is the error to report.
    pub fn open_hashed<T>(
        &self,
        doing: &str,
        model: &Path,
        open: impl FnOnce() -> Result<T>,
    ) -> Result<(T, ModelRecord)> {
        let spinner = self.bar(1, &format!("{{spinner}} {doing} and hashing the model {{elapsed}}"));
        spinner.enable_steady_tick(Duration::from_millis(100));
        let (opened, hashed) = std::thread::scope(|scope| {
            let hashing = scope.spawn(|| ModelRecord::of(model.display().to_string(), model));
            (open(), hashing.join().expect("hashing a file does not panic"))
        });
        spinner.finish_and_clear();
        Ok((opened?, hashed?))
    }
}
