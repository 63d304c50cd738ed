//! Every kernel on every executor, held to its reference; launches cut in pieces, held to whole ones; and what the
//! wgpu executor promises besides.
//!
//! One test for each kernel, case and executor, made from the registry; where a kernel has several forms in WGSL or PTX,
//! one for each. Where there is no wgpu adapter its tests show as ignored, with the reason; `AUSCULT_REQUIRE_WGPU=1` makes
//! them failures. So it is with CUDA devices and `AUSCULT_REQUIRE_CUDA=1`, and with what a form of WGSL needs of an adapter
//! and `AUSCULT_REQUIRE_MATRICES=1`. With `AUSCULT_PTX_SOURCES=DIR` the interpreter of PTX takes the text of forms from
//! `DIR/<op>/<entry>.ptx` where that is a file.

mod alone;
mod cache;
mod child;
#[path = "../common/mod.rs"]
mod common;
mod comparator;
mod cuda;
mod device;
mod fused;
mod probe;
mod ptx_sim;

use auscult_kernels::{Access, Case, KernelInfo, REGISTRY, Wgsl};
use auscult_runtime::selftest::{self, Outputs, POISON, compare, run, run_reference};
use auscult_runtime::{Backend, CpuBackend, CudaBackend, WgpuBackend};
use common::executors::without;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

/// Outputs hold this before a second launch, whose outputs must have the same bits: nothing is left unwritten, read before it
/// is written, or left to chance.
const OTHER_POISON: u8 = 0xa5;
/// Pieces that a test cuts a launch into at most.
const PIECES: usize = 1024;
/// Longest slot in bytes of launches that are cut in two ways rather than one.
const SHORT: usize = 1 << 18;
/// Alignment that tests cut at: the strictest that WebGPU allows an adapter.
const ALIGN: usize = 256;

/// A case, with what its reference makes of it.
struct Judged {
    kernel: &'static KernelInfo,
    case: Case,
    want: OnceLock<Result<Outputs, String>>,
    /// The WGSL forms that take it, and what the wgpu executor makes of it by each.
    wgpu: Vec<(&'static Wgsl, OnceLock<Result<Outputs, String>>)>,
}

impl Judged {
    fn new(case: Case) -> Self {
        let kernel = case.plan.kernel;
        let taking = kernel.wgsl.iter().filter(|form| (form.takes)(&case.plan.params));
        let wgpu = taking.map(|form| (form, OnceLock::new())).collect();
        Self { kernel, case, want: OnceLock::new(), wgpu }
    }

    fn want(&self) -> Result<&Outputs, Failed> {
        let want = self.want.get_or_init(|| {
            let plan = &self.case.plan;
            run_reference(&self.case, &plan.pieces(usize::MAX, ALIGN).map_err(|e| e.to_string())?, POISON)
        });
        want.as_ref().map_err(|message| self.fail("reference", message))
    }

    /// By form number `form`, which is all that the executor runs; made by the first test that asks for it.
    fn wgpu(&self, gpu: &WgpuBackend, form: usize) -> Result<&Outputs, Failed> {
        let (_, got) = &self.wgpu[form];
        let got = got.get_or_init(|| run(gpu, &self.case, POISON));
        got.as_ref().map_err(|message| self.fail(&gpu.info().id, message))
    }

    fn fail(&self, executor: &str, message: &str) -> Failed {
        let (kernel, why, plan) = (self.kernel.name, self.case.why, &self.case.plan);
        format!("{kernel} on {executor}, case `{why}` ({plan}): {message}").into()
    }

    /// Limits to cut this launch at: the largest power of two that cuts it, and for short launches the smallest too.
    fn limits(&self) -> Vec<usize> {
        let plan = &self.case.plan;
        let longest = plan.slots.iter().flatten().map(|desc| desc.bytes()).max().unwrap_or(0);
        let cuts = |limit: &usize| plan.pieces(*limit, ALIGN).is_ok_and(|p| (2..=PIECES).contains(&p.len()));
        let mut limits: Vec<usize> =
            (4..40).map(|power| 1 << power).take_while(|&limit| limit < longest).filter(cuts).collect();
        let kept = if longest <= SHORT { 1 } else { 0 };
        if limits.len() > kept + 1 {
            limits.drain(kept..limits.len() - 1);
        }
        limits
    }
}

/// An executor, or why there is none.
type Executor<B> = Result<Arc<B>, String>;

/// The wgpu executor, or what to do without.
fn wgpu_or_skip(executor: &Executor<WgpuBackend>) -> Result<Arc<WgpuBackend>, Result<Completion, Failed>> {
    executor.clone().map_err(|why| without("wgpu", &why))
}

fn agrees(executor: &str, judged: &Judged, got: &Outputs) -> Result<(), Failed> {
    for ((slot, want), (_, got)) in judged.want()?.iter().zip(got) {
        let desc = judged.case.plan.slots[*slot].as_ref().expect("outputs are slots that the plan has");
        let name = judged.kernel.slots[*slot].name;
        compare(desc, got, want, &judged.case.tolerance)
            .map_err(|message| judged.fail(executor, &format!("`{name}`: {message}")))?;
    }
    Ok(())
}

/// Agrees with the reference, and does so again with the same bits.
fn parity(backend: &dyn Backend, judged: &Judged) -> Result<Completion, Failed> {
    let executor = backend.info().id.as_str();
    let fail = |message: String| judged.fail(executor, &message);
    let got = run(backend, &judged.case, POISON).map_err(fail)?;
    agrees(executor, judged, &got)?;
    let again = run(backend, &judged.case, OTHER_POISON).map_err(fail)?;
    same_bits(judged, &got, &again, "a second run, over another filling of the outputs,").map_err(fail)?;
    Ok(Completion::Completed)
}

/// The same on the wgpu executor, where a software adapter takes its time: a launch that can be cut is run again in
/// pieces only, by [`split`].
fn parity_wgpu(gpu: &WgpuBackend, judged: &Judged, form: usize) -> Result<Completion, Failed> {
    let executor = gpu.info().id.as_str();
    let got = judged.wgpu(gpu, form)?;
    agrees(executor, judged, got)?;
    if judged.limits().is_empty() {
        let fail = |message: String| judged.fail(executor, &message);
        let again = run(gpu, &judged.case, OTHER_POISON).map_err(fail)?;
        same_bits(judged, got, &again, "a second run, over another filling of the outputs,").map_err(fail)?;
    }
    Ok(Completion::Completed)
}

/// Cut as the executor cuts it, over another filling of the outputs: the same bits.
fn split(whole: &WgpuBackend, judged: &Judged, form: usize) -> Result<Completion, Failed> {
    let executor = whole.info().id.as_str();
    let expected = judged.wgpu(whole, form)?;
    for limit in judged.limits() {
        let fail = |message: String| judged.fail(executor, &format!("in pieces of {limit} bytes: {message}"));
        let before = whole.counters().launches;
        let got = run(&whole.with_max_binding(limit), &judged.case, OTHER_POISON).map_err(fail)?;
        if whole.counters().launches < before + 2 {
            return Err(fail("one launch, expected several".into()));
        }
        same_bits(judged, expected, &got, "in pieces").map_err(fail)?;
    }
    Ok(Completion::Completed)
}

fn split_reference(judged: &Judged) -> Result<Completion, Failed> {
    let want = judged.want()?;
    for limit in judged.limits() {
        let fail =
            |message: String| judged.fail("reference", &format!("in pieces of {limit} bytes: {message}"));
        let pieces = judged.case.plan.pieces(limit, ALIGN).map_err(|e| fail(e.to_string()))?;
        let got = run_reference(&judged.case, &pieces, POISON).map_err(fail)?;
        same_bits(judged, want, &got, "in pieces").map_err(fail)?;
    }
    Ok(Completion::Completed)
}

fn same_bits(judged: &Judged, first: &Outputs, second: &Outputs, what: &str) -> Result<(), String> {
    for ((slot, first), (_, second)) in first.iter().zip(second) {
        let desc = judged.case.plan.slots[*slot].as_ref().expect("outputs are slots that the plan has");
        selftest::same_bits(desc, second, first)
            .map_err(|message| format!("{what} differs: `{}`: {message}", judged.kernel.slots[*slot].name))?;
    }
    Ok(())
}

/// What a case is held to on the wgpu executor, by form number so and so.
type WgpuCheck = fn(&WgpuBackend, &Judged, usize) -> Result<Completion, Failed>;

/// A trial for every WGSL form that takes the case.
fn wgpu_trials(
    name: &str,
    wgpu: &Executor<WgpuBackend>,
    judged: &Arc<Judged>,
    check: WgpuCheck,
) -> Vec<Trial> {
    let several = judged.wgpu.len() > 1;
    let trial = |(number, (form, _)): (usize, &(&'static Wgsl, _))| {
        let form: &'static Wgsl = form;
        let name = if several { format!("{name}::{}", form.entry) } else { name.to_string() };
        let (judged, wgpu) = (Arc::clone(judged), wgpu.clone());
        Trial::ignorable_test(name, move || {
            let wgpu = match wgpu_or_skip(&wgpu) {
                Ok(wgpu) => wgpu,
                Err(skipped) => return skipped,
            };
            let device = wgpu.info().wgsl.ok_or("the wgpu executor runs WGSL")?;
            if form.needs.met_by(&device) {
                return check(&wgpu.only(form.entry), &judged, number);
            }
            let why = format!("{} lacks what the form needs: {:?}", wgpu.info().id, form.needs);
            without("matrices", &why)
        })
    };
    judged.wgpu.iter().enumerate().map(trial).collect()
}

/// The tests of one kernel.
fn trials(
    kernel: &'static KernelInfo,
    cpu: &Executor<CpuBackend>,
    wgpu: &Executor<WgpuBackend>,
    cuda: &Executor<CudaBackend>,
    ptx_sim: &ptx_sim::Forms,
) -> Vec<Trial> {
    let mut trials = Vec::new();
    let (mut can_split, mut is_split) = (false, false);
    for case in (kernel.cases)() {
        let judged = Arc::new(Judged::new(case));
        let name =
            |kind: &str, executor: &str| format!("{kind}::{}::{}::{executor}", kernel.name, judged.case.why);
        {
            let (judged, cpu) = (Arc::clone(&judged), cpu.clone());
            trials.push(Trial::ignorable_test(name("parity", "cpu"), move || parity(cpu?.as_ref(), &judged)));
        }
        trials.extend(wgpu_trials(&name("parity", "wgpu"), wgpu, &judged, parity_wgpu));
        trials.extend(cuda::parity_trials(&name("parity", "cuda"), cuda, &judged));
        trials.extend(ptx_sim.trials(&name("parity", "ptx_sim"), &judged));
        can_split |= !judged.case.plan.splits.is_empty();
        if judged.limits().is_empty() {
            continue;
        }
        is_split = true;
        {
            let judged = Arc::clone(&judged);
            trials.push(Trial::ignorable_test(name("split", "reference"), move || split_reference(&judged)));
        }
        trials.extend(wgpu_trials(&name("split", "wgpu"), wgpu, &judged, split));
    }
    if can_split {
        trials.push(Trial::test(format!("split::{}::some case can be cut", kernel.name), move || {
            let message = "its plans can be cut, but none of its cases is long enough to be";
            if is_split { Ok(()) } else { Err(message.into()) }
        }));
    }
    let written = kernel.slots.iter().any(|slot| slot.access != Access::Read);
    let cases = trials.len();
    trials.push(Trial::test(format!("parity::{}::has cases and outputs", kernel.name), move || {
        if written && cases > 0 { Ok(()) } else { Err("nothing to compare".into()) }
    }));
    trials
}

fn main() -> ExitCode {
    if let Some(done) = child::work().or_else(cuda::work) {
        return done.map_or_else(
            |message| {
                println!("{message}");
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        );
    }
    let arguments = Arguments::from_args();
    let cpu = CpuBackend::new(None).map(Arc::new).map_err(|error| error.to_string());
    let wgpu: Executor<WgpuBackend> = WgpuBackend::new(None).map(Arc::new).map_err(|error| error.to_string());
    if let Ok(wgpu) = &wgpu {
        let info = wgpu.info();
        let halves = if info.multiplies_halves() { "multiplies" } else { "does not multiply" };
        println!(
            "{}: {} ({}), {} bytes a binding, {halves} matrices of f16",
            info.id, info.name, info.driver, info.max_binding
        );
    }
    let cuda = CudaBackend::new(None).map(Arc::new).map_err(|error| error.to_string());
    if let Ok(cuda) = &cuda {
        println!("{}: {} ({})", cuda.info().id, cuda.info().name, cuda.info().driver);
    }
    let ptx_sim = ptx_sim::Forms::default();
    let mut trials: Vec<Trial> =
        REGISTRY.iter().flat_map(|kernel| self::trials(kernel, &cpu, &wgpu, &cuda, &ptx_sim)).collect();
    trials.extend(alone::trials(&cpu, &wgpu, &cuda, &ptx_sim));
    trials.extend(fused::trials(&cpu, &wgpu, &cuda, &ptx_sim));
    trials.extend(ptx_sim::trials());
    trials.extend(cuda::trials(&cuda));
    trials.extend(cache::trials(&cpu, &wgpu, &cuda));
    trials.extend(comparator::trials());
    for (name, check) in device::SHARED {
        let wgpu = wgpu.clone();
        trials.push(Trial::ignorable_test(format!("device::{name}::wgpu"), move || {
            match wgpu_or_skip(&wgpu) {
                Ok(wgpu) => check(&*wgpu).map(|()| Completion::Completed),
                Err(skipped) => skipped,
            }
        }));
    }
    for (name, check) in device::CHECKS {
        let wgpu = wgpu.clone();
        trials.push(Trial::ignorable_test(format!("device::{name}::wgpu"), move || {
            match wgpu_or_skip(&wgpu) {
                Ok(wgpu) => check(&wgpu).map(|()| Completion::Completed),
                Err(skipped) => skipped,
            }
        }));
    }
    trials.extend(child::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}
