//! The executors that tests run on, and what becomes of a test whose executor is missing: it shows as ignored, with the
//! reason, and fails where `AUSCULT_REQUIRE_WGPU=1` or `AUSCULT_REQUIRE_CUDA=1` asks for it.

use super::compare::Tolerance;
use auscult_runtime::{Backend, CpuBackend, CudaBackend, DeviceError, PtxSim, WgpuBackend};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::process::ExitCode;
use std::sync::Arc;

/// An executor, by the name that its tests begin with.
#[derive(Clone)]
pub struct Executor {
    pub name: &'static str,
    pub backend: Arc<dyn Backend>,
}

impl Executor {
    /// What whole models are held to on it.
    pub fn tolerance(&self) -> Tolerance {
        if self.name == "cpu" { Tolerance::CPU_F32 } else { Tolerance::GPU_F32 }
    }

    /// Whether it is an interpreter or a software driver, which take their time.
    pub fn is_slow(&self) -> bool {
        self.name != "cpu" && !self.backend.info().accelerator
    }
}

/// The executors that there are.
pub struct Executors {
    /// The processor's first, then those of wgpu, the interpreter of PTX, and cuda.
    pub there: Vec<Executor>,
    /// Names of the others, with the reason.
    missing: Vec<(&'static str, String)>,
}

impl Executors {
    /// Opens the best device of each kind.
    pub fn open() -> Self {
        let mut all = Self { there: Vec::new(), missing: Vec::new() };
        all.add("cpu", CpuBackend::new(None));
        all.add("wgpu", WgpuBackend::new(None));
        all.add("ptx_sim", PtxSim::new());
        all.add("cuda", CudaBackend::new(None));
        all
    }

    fn add<B: Backend + 'static>(&mut self, name: &'static str, opened: Result<B, DeviceError>) {
        match opened {
            Ok(backend) => self.there.push(Executor { name, backend: Arc::new(backend) }),
            Err(error) => self.missing.push((name, error.to_string())),
        }
    }

    /// The processor's.
    pub fn cpu(&self) -> &Executor {
        &self.there[0]
    }

    /// A trial for each executor that is missing, among those of its name.
    pub fn missing(&self) -> impl Iterator<Item = Trial> {
        self.missing.iter().map(|(name, why)| {
            let (name, why) = (*name, why.clone());
            Trial::ignorable_test(format!("{name}::needs a device"), move || without(name, &why))
        })
    }
}

/// A check by its name, which panics where it fails.
pub type Check = (&'static str, fn(&Executor));

/// A test program: every check on every executor.
pub fn on_every_executor(checks: &[Check]) -> ExitCode {
    let args = Arguments::from_args();
    let executors = Executors::open();
    let mut trials: Vec<Trial> = executors.missing().collect();
    for executor in &executors.there {
        for &(name, check) in checks {
            let (executor, label) = (executor.clone(), format!("{}::{name}", executor.name));
            trials.push(Trial::test(label, move || {
                check(&executor);
                Ok(())
            }));
        }
    }
    libtest_mimic::run(&args, trials).exit_code()
}

/// Ends a test whose executor is missing.
pub fn without(name: &str, why: &str) -> Result<Completion, Failed> {
    if is_required(name) { Err(why.into()) } else { Ok(Completion::ignored_with(why)) }
}

/// Whether `AUSCULT_REQUIRE_<NAME>` is 1.
pub fn is_required(name: &str) -> bool {
    std::env::var(format!("AUSCULT_REQUIRE_{}", name.to_uppercase())).is_ok_and(|value| value == "1")
}
