//! Music out, against stored outputs of Hugging Face transformers and against itself, on every executor.
//!
//! Forward passes with text, sequences chosen step by step, what is captured on the way, batches, interventions. Missing
//! adapters show as ignored, with the reason; `AUSCULT_REQUIRE_WGPU=1` makes them failures.

#[path = "../common/mod.rs"]
mod common;
mod itself;
mod melody;
mod reference;
mod text;

use auscult_model::musicgen::generate::{
    Captured, Context, Event, Generated, Generator, GeneratorOptions, Take,
};
use auscult_model::musicgen::{Decoder, DecoderOptions};
use auscult_model::{ModelError, musicgen::generate::Capture};
use auscult_runtime::{Backend, CpuBackend, CudaBackend, PtxSim, WgpuBackend};
use common::checkpoint::{Layout, write_checkpoint};
use common::compare::Tolerance;
use common::generation::Generation;
use common::golden::Kind;
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::sync::Arc;

type Check = Result<(), Failed>;

/// A check by its name.
type Named = (&'static str, fn(&Executor) -> Check);

/// An executor under test, and what it is held to.
#[derive(Clone)]
struct Executor {
    name: &'static str,
    backend: Arc<dyn Backend>,
    tolerance: Tolerance,
    /// Whether it is an interpreter, or may be a software driver: it plays the beginnings of some sequences.
    slow: bool,
}

fn executors() -> Vec<Executor> {
    let of = |name, backend, tolerance, slow| Executor { name, backend, tolerance, slow };
    let cpu = Arc::new(CpuBackend::new(None).expect("the host has a processor"));
    let mut all = vec![of("cpu", cpu, Tolerance::CPU_F32, false)];
    if let Ok(gpu) = WgpuBackend::new(None) {
        let slow = !gpu.info().accelerator;
        all.push(of("wgpu", Arc::new(gpu), Tolerance::GPU_F32, slow));
    }
    let sim = Arc::new(PtxSim::new().expect("the host gives threads"));
    all.push(of("ptx_sim", sim, Tolerance::GPU_F32, true));
    if let Ok(gpu) = CudaBackend::new(None) {
        all.push(of("cuda", Arc::new(gpu), Tolerance::GPU_F32, false));
    }
    all
}

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let executors = executors();
    let mut trials = Vec::new();
    for executor in &executors {
        let name = executor.name;
        let mut add = |label: String, check: Box<dyn FnOnce(&Executor) -> Check + Send>| {
            let executor = executor.clone();
            trials.push(Trial::test(format!("{name}::{label}"), move || check(&executor)));
        };
        for case in Generation::all_of(Kind::Musicgen).into_iter().map(|g| g.case.name) {
            let one = case.clone();
            add(format!("{case}::forward"), Box::new(move |e| reference::forwards(e, &one)));
            for run in Generation::committed(&case).sequences().iter().map(|run| run.name.to_string()) {
                if executor.slow && !reference::CHOSEN.contains(&&*run) {
                    continue;
                }
                let case = case.clone();
                add(format!("{case}::{run}"), Box::new(move |e| reference::sequence(e, &case, &run)));
            }
        }
        for case in Generation::all_of(Kind::Musicgen).into_iter().map(|g| g.case.name) {
            let label = format!("{case}::from strings");
            add(label, Box::new(move |e| text::from_strings(e, &case)));
        }
        for case in Generation::all_of(Kind::Melody).into_iter().map(|g| g.case.name) {
            let one = case.clone();
            add(format!("{case}::forward"), Box::new(move |e| melody::forwards(e, &one)));
            for run in Generation::committed(&case).sequences().iter().map(|run| run.name.to_string()) {
                if executor.slow && !melody::CHOSEN.contains(&&*run) {
                    continue;
                }
                let case = case.clone();
                add(format!("{case}::{run}"), Box::new(move |e| reference::sequence(e, &case, &run)));
            }
        }
        for (label, check) in itself::CHECKS.iter().chain(melody::CHECKS) {
            add((*label).to_string(), Box::new(check));
        }
    }
    for name in ["wgpu", "cuda"] {
        if executors.iter().all(|executor| executor.name != name) {
            let required = std::env::var_os(format!("AUSCULT_REQUIRE_{}", name.to_uppercase())).is_some();
            let why = format!("{name} (needs a device)");
            let missing = Trial::test(why, move || Err(format!("no device of {name}").into()));
            trials.push(missing.with_ignored_flag(!required));
        }
    }
    libtest_mimic::run(&args, trials).exit_code()
}

/// A decoder of a case's weights.
fn decoder(executor: &Executor, generation: &Generation) -> Result<Decoder, Failed> {
    decoder_from(executor, generation, &Layout::default(), &DecoderOptions::default())
}

/// A decoder of a case's weights in a checkpoint of this layout.
fn decoder_from(
    executor: &Executor,
    generation: &Generation,
    layout: &Layout,
    options: &DecoderOptions,
) -> Result<Decoder, Failed> {
    let dir = tempfile::tempdir()?;
    write_checkpoint(&generation.model(), dir.path(), layout);
    Ok(Decoder::open(dir.path(), executor.backend.clone(), options)?)
}

/// Plays takes, and returns them in their order.
fn play(
    decoder: &Decoder,
    takes: &[Take],
    options: &GeneratorOptions,
    context: Context,
) -> Result<Vec<Generated>, ModelError> {
    let mut made: Vec<Option<Generated>> = vec![None; takes.len()];
    Generator::new(decoder, takes, options)?.play(takes, context, 50, &mut |event| {
        if let Event::Finished { take, generated } = event {
            made[take] = Some(generated);
        }
        Ok::<_, ModelError>(())
    })?;
    Ok(made.into_iter().map(|one| one.expect("every take is finished")).collect())
}

/// Captures of sites under their own names.
fn captures(sites: &[String]) -> Result<Vec<Capture>, ModelError> {
    let capture = |site: &String| Ok(Capture { label: site.clone(), site: site.parse()? });
    sites.iter().map(capture).collect()
}

fn values(captured: &Captured) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(&captured.rows)
}
