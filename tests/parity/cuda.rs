//! What the cuda executor promises besides right results. Where there is no device its checks show as ignored, with the
//! reason; `AUSCULT_REQUIRE_CUDA=1` makes them failures.

use crate::common::executors::without;
use crate::device::{SHARED, ensure, equal, launch, ramp, read, words};
use crate::probe::{BROKEN, Extras, STRAY, expected, plan};
use crate::{Executor, Judged, parity};
use auscult_kernels::Ptx;
use auscult_runtime::weights::HostBytes;
use auscult_runtime::{Backend, Buffer, Contents, CudaBackend, DeviceError, Launch, cuda};
use libtest_mimic::{Completion, Failed, Trial};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Says in a started process that it is to break its device.
const BREAK: &str = "AUSCULT_TEST_BREAK";

type Check = fn(&CudaBackend) -> Result<(), Failed>;

const CHECKS: &[(&str, Check)] = &[
    ("uploads run beside launches and stay in order", uploads_beside_launches),
    ("memory that was given back is used again in order", used_again),
    ("a recording is replayed as one", recording),
    ("a recording keeps its memory and may be dropped while it runs", dropped_recording),
    ("a module is compiled once", modules),
    ("only the form that was asked for runs", only_one_form),
    ("a broken source is an error with what the compiler says", broken_source),
    ("too much memory is an error that tells what is free", too_much_memory),
    ("work is timed", timing),
    ("devices are described and numbered", descriptions),
    ("a fault of a kernel ends the device's work and names it", fault),
];

/// The parity of a case by every form that takes it; one trial where no form does, which then says so.
pub fn parity_trials(name: &str, cuda: &Executor<CudaBackend>, judged: &Arc<Judged>) -> Vec<Trial> {
    let params = &judged.case.plan.params;
    let forms: Vec<&'static Ptx> =
        judged.case.plan.kernel.ptx.iter().filter(|ptx| (ptx.takes)(params)).collect();
    if forms.is_empty() {
        let judged = Arc::clone(judged);
        return vec![trial(name.into(), cuda, move |cuda| parity(&**cuda, &judged).map(drop))];
    }
    let several = forms.len() > 1;
    let trial = |form: &'static Ptx| {
        let name = if several { format!("{name}::{}", form.entry) } else { name.to_string() };
        let judged = Arc::clone(judged);
        form_trial(name, cuda, &[form], move |gpus| parity(&gpus[0], &judged).map(drop))
    };
    forms.into_iter().map(trial).collect()
}

/// A check on the device limited to each of some forms; it shows as ignored where one of them is for other devices.
pub fn form_trial(
    name: String,
    cuda: &Executor<CudaBackend>,
    forms: &[&'static Ptx],
    check: impl FnOnce(&[CudaBackend]) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let (cuda, forms) = (cuda.clone(), forms.to_vec());
    Trial::ignorable_test(name, move || {
        let cuda = match cuda {
            Ok(cuda) => cuda,
            Err(why) => return without("cuda", &why),
        };
        let device = cuda.info().ptx.ok_or("the cuda executor runs PTX")?;
        if let Some(form) = forms.iter().find(|form| !form.target.runs_on(device.capability)) {
            let (major, minor) = device.capability;
            let (entry, target) = (form.entry, form.target.name());
            return Ok(Completion::ignored_with(format!(
                "{entry} is for {target}, the device is sm_{major}{minor}"
            )));
        }
        let gpus: Vec<CudaBackend> = forms.iter().map(|form| cuda.only(form.entry)).collect();
        check(&gpus).map(|()| Completion::Completed)
    })
}

/// The checks of the executor itself.
pub fn trials(cuda: &Executor<CudaBackend>) -> Vec<Trial> {
    let shared = SHARED
        .iter()
        .map(|&(name, check)| trial(format!("device::{name}::cuda"), cuda, move |cuda| check(&**cuda)));
    let own = CHECKS
        .iter()
        .map(|&(name, check)| trial(format!("device::{name}::cuda"), cuda, move |cuda| check(cuda)));
    shared.chain(own).chain([Trial::test("device::no CUDA device is an error", no_device)]).collect()
}

/// A check that shows as ignored where there is no device.
pub fn trial(
    name: String,
    cuda: &Executor<CudaBackend>,
    check: impl FnOnce(&Arc<CudaBackend>) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let cuda = cuda.clone();
    Trial::ignorable_test(name, move || match cuda {
        Ok(cuda) => check(&cuda).map(|()| Completion::Completed),
        Err(why) => without("cuda", &why),
    })
}

/// Whether or not there is a driver: no panic, and an error that says what is missing.
fn no_device() -> Result<(), Failed> {
    let error = CudaBackend::new(Some(99)).err().ok_or("device 99 was opened")?;
    let there = cuda::devices();
    let told = match (&error, &there) {
        (DeviceError::Unavailable { id, why }, Ok(devices)) => {
            id == "cuda:99" && !devices.is_empty() && why.contains("no such device; there are cuda:0")
        }
        (DeviceError::Unavailable { id, why }, Err(DeviceError::Unavailable { why: also, .. })) => {
            id == "cuda" && why == also && why.contains("driver")
        }
        _ => false,
    };
    ensure(told, || format!("{error}; {there:?}"))?;
    let best = cuda::best_device();
    ensure(best.is_err() || there.is_ok(), || format!("{best:?}, though {there:?}"))
}

/// Large uploads to memory in use and to new memory, and launches over both, with nothing waited for.
fn uploads_beside_launches(gpu: &CudaBackend) -> Result<(), Failed> {
    let n = 3 << 20;
    let reused = gpu.alloc(Contents::Undefined(4 * n))?;
    let mut results = Vec::new();
    for round in 0..6_u32 {
        let values: Vec<u32> = ramp(n).iter().map(|v| v ^ round).collect();
        gpu.upload(&reused.span(), bytemuck::cast_slice(&values))?;
        let new = words(gpu, &values)?;
        let (from_reused, from_new) =
            (gpu.alloc(Contents::Undefined(4 * n))?, gpu.alloc(Contents::Undefined(4 * n))?);
        launch(gpu, &reused, &from_reused, round)?;
        launch(gpu, &new, &from_new, round + 100)?;
        results.push((round, from_reused, from_new));
    }
    for (round, from_reused, from_new) in results {
        let want = |add| ramp(n).iter().map(|v| expected(v ^ round, add, 0)).collect::<Vec<u32>>();
        let same = |buffer: &Buffer, add| -> Result<bool, Failed> { Ok(read(gpu, buffer)? == want(add)) };
        ensure(same(&from_reused, round)?, || format!("round {round}: the reused buffer"))?;
        ensure(same(&from_new, round + 100)?, || format!("round {round}: the new buffer"))?;
    }
    Ok(())
}

/// Buffers dropped while launches that read them are queued; their memory is filled anew at once.
fn used_again(gpu: &CudaBackend) -> Result<(), Failed> {
    let n = 1 << 20;
    let mut results = Vec::new();
    for round in 0..40_u32 {
        let values: Vec<u32> = ramp(n).iter().map(|v| v.wrapping_add(round)).collect();
        let x = words(gpu, &values)?;
        let between = gpu.alloc(Contents::Undefined(4 * n))?;
        let y = gpu.alloc(Contents::Undefined(4 * n))?;
        launch(gpu, &x, &between, round)?;
        launch(gpu, &between, &y, round)?;
        results.push(y);
    }
    for (round, y) in (0..).zip(&results) {
        let by = |v: &u32| expected(expected(v.wrapping_add(round), round, 0), round, 0);
        let want: Vec<u32> = ramp(n).iter().map(by).collect();
        ensure(read(gpu, y)? == want, || format!("round {round} differs"))?;
    }
    Ok(())
}

/// `b = 3 a + 1`, `c = 3 b + 2`, `a = 3 c + 3`.
fn chain(buffers: &[Buffer; 3]) -> Vec<auscult_kernels::Plan> {
    (1..4).map(|add| plan(buffers[0].bytes() / 4, add, Extras::None)).collect()
}

fn launches<'a>(plans: &'a [auscult_kernels::Plan], buffers: &[Buffer; 3]) -> Vec<Launch<'a>> {
    let slots = |i: usize| vec![Some(buffers[i].span()), None, Some(buffers[(i + 1) % 3].span()), None];
    plans.iter().enumerate().map(|(i, plan)| (plan, slots(i))).collect()
}

fn chained(v: u32) -> u32 {
    (1..4).fold(v, |v, add| expected(v, add, 0))
}

fn own_device(gpu: &CudaBackend) -> Result<CudaBackend, Failed> {
    Ok(CudaBackend::new(Some(gpu.info().id.trim_start_matches("cuda:").parse()?))?)
}

fn recording(gpu: &CudaBackend) -> Result<(), Failed> {
    let gpu = &own_device(gpu)?;
    let first = ramp(1000);
    let buffers =
        [words(gpu, &first)?, gpu.alloc(Contents::Undefined(4000))?, gpu.alloc(Contents::Undefined(4000))?];
    let plans = chain(&buffers);
    let recorded = gpu.record(&launches(&plans, &buffers))?.ok_or("the driver recorded nothing")?;
    equal("nothing ran yet", read(gpu, &buffers[0])?, first.clone())?;
    recorded.replay()?;
    recorded.replay()?;
    let twice = first.iter().map(|&v| chained(chained(v))).collect();
    equal("two replays", read(gpu, &buffers[0])?, twice)?;
    // uploads and launches between replays keep their places
    let second: Vec<u32> = first.iter().map(|v| !v).collect();
    gpu.upload(&buffers[0].span(), bytemuck::cast_slice(&second))?;
    recorded.replay()?;
    launch(gpu, &buffers[0], &buffers[1], 9)?;
    let want = second.iter().map(|&v| expected(chained(v), 9, 0)).collect();
    equal("an upload before, a launch after", read(gpu, &buffers[1])?, want)?;
    equal("replays", gpu.counters().replays, 3)?;
    equal("launches", gpu.counters().launches, 4)
}

fn dropped_recording(gpu: &CudaBackend) -> Result<(), Failed> {
    let n = 1 << 20;
    let outside = words(gpu, &ramp(n))?;
    let result = gpu.alloc(Contents::Undefined(4 * n))?;
    for _ in 0..10 {
        let buffers = [(); 3].map(|()| gpu.alloc(Contents::Undefined(4 * n)));
        let [a, b, c] = buffers;
        let buffers = [a?, b?, c?];
        let plans = chain(&buffers);
        let recorded = gpu.record(&launches(&plans, &buffers))?.ok_or("the driver recorded nothing")?;
        gpu.copy(&outside.span(), &buffers[0].span())?;
        let end = buffers[0].span();
        drop(buffers);
        recorded.replay()?;
        gpu.copy(&end, &result.span())?;
    }
    let want: Vec<u32> = ramp(n).iter().map(|&v| chained(v)).collect();
    ensure(read(gpu, &result)? == want, || "the last replay's result differs".into())
}

fn modules(gpu: &CudaBackend) -> Result<(), Failed> {
    let gpu = &own_device(gpu)?;
    let x = words(gpu, &ramp(64))?;
    let y = gpu.alloc(Contents::Undefined(256))?;
    (0..50).try_for_each(|add| launch(gpu, &x, &y, add))?;
    equal("modules", gpu.counters().modules, 1)?;
    equal("launches", gpu.counters().launches, 50)
}

fn only_one_form(gpu: &CudaBackend) -> Result<(), Failed> {
    let (x, y) = (words(gpu, &ramp(10))?, gpu.alloc(Contents::Undefined(40))?);
    let probe = plan(10, 1, Extras::None);
    launch(&gpu.only(probe.kernel.ptx[0].entry), &x, &y, 1)?;
    equal("by its name", read(gpu, &y)?, ramp(10).iter().map(|&v| expected(v, 1, 0)).collect())?;
    let other = gpu.only("no_such_form");
    let slots = [Some(x.span()), None, Some(y.span()), None];
    let refusals = [other.dispatch(&probe, &slots).err(), other.record(&[(&probe, slots.to_vec())]).err()];
    for error in refusals {
        let message = error.ok_or("another form ran")?.to_string();
        ensure(message.contains("no PTX form called `no_such_form`"), || message.clone())?;
    }
    Ok(())
}

fn broken_source(gpu: &CudaBackend) -> Result<(), Failed> {
    let x = words(gpu, &ramp(10))?;
    let y = gpu.alloc(Contents::Undefined(40))?;
    let mut broken = plan(10, 1, Extras::None);
    broken.kernel = &BROKEN;
    let result = gpu.dispatch(&broken, &[Some(x.span()), None, Some(y.span()), None]);
    let message = result.map_or_else(|error| error.to_string(), |()| "no error".into());
    let parts = [gpu.info().id.as_str(), "probe_u32: ", "sm_80", "line 4", "CUDA_ERROR_INVALID_PTX"];
    ensure(parts.iter().all(|part| message.contains(part)), || message.clone())?;
    launch(gpu, &x, &y, 1)?;
    equal("life after", read(gpu, &y)?, ramp(10).iter().map(|&v| expected(v, 1, 0)).collect())
}

fn too_much_memory(gpu: &CudaBackend) -> Result<(), Failed> {
    let (_, total) = gpu.free_and_total()?;
    for asked in [total + 1, usize::MAX - 300, usize::MAX] {
        let (message, had) = match gpu.alloc(Contents::Undefined(asked)) {
            Err(error @ DeviceError::OutOfMemory { free, .. }) => (error.to_string(), free),
            other => return Err(format!("{asked} bytes: got {other:?}").into()),
        };
        let said = message.contains(&asked.to_string()) && message.contains(&total.to_string());
        ensure(said && had.is_some_and(|free| free > 0 && free <= total), || message)?;
    }
    equal("life after", read(gpu, &words(gpu, &[5])?)?, vec![5])
}

fn timing(gpu: &CudaBackend) -> Result<(), Failed> {
    let n = 16 << 20;
    let x = gpu.alloc(Contents::Host(HostBytes::from_vec(vec![7; 4 * n])))?;
    let y = gpu.alloc(Contents::Undefined(4 * n))?;
    let time = |count: u32| gpu.time(&mut || (0..count).try_for_each(|add| launch(gpu, &x, &y, add)));
    time(1)?;
    let (few, many) = (time(10)?, time(100)?);
    let (few, wall, many) = (few.device, many.wall, many.device);
    let (Some(few), Some(many)) = (few, many) else { return Err("the device has no clock".into()) };
    ensure(few > Duration::ZERO && many <= wall, || format!("{few:?}, {many:?} of {wall:?}"))?;
    ensure(many > 3 * few, || format!("10 launches in {few:?}, 100 in {many:?}"))?;
    let failed =
        gpu.time(&mut || Err(DeviceError::Failed { device: "none".into(), what: "on purpose".into() }));
    ensure(failed.is_err(), || "the work's error was lost".into())
}

fn descriptions(gpu: &CudaBackend) -> Result<(), Failed> {
    let all = cuda::devices()?;
    for (index, device) in all.iter().enumerate() {
        equal("number", device.index, index)?;
        let sensible = !device.name.is_empty() && device.multiprocessors > 0 && device.memory_total > 1 << 30;
        ensure(sensible, || format!("{device:?}"))?;
        let free = device.memory_free.is_none_or(|free| free <= device.memory_total);
        ensure(free, || format!("{device:?}"))?;
    }
    let this = all.iter().find(|d| format!("cuda:{}", d.index) == gpu.info().id).ok_or("not listed")?;
    equal("name", &this.name, &gpu.info().name)?;
    ensure(gpu.info().driver.contains(&this.architecture()), || gpu.info().driver.clone())
}

/// In a process of its own: the device's context, which all in a process share, does not survive it.
fn fault(gpu: &CudaBackend) -> Result<(), Failed> {
    let child = Command::new(std::env::current_exe()?).env(BREAK, &gpu.info().id).output()?;
    let said = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    ensure(child.status.success(), || format!("{}: {said}", child.status))
}

/// What a started process does; `None` in the one that runs the tests.
pub fn work() -> Option<Result<(), String>> {
    let id = std::env::var(BREAK).ok()?;
    let index = id.trim_start_matches("cuda:").parse().map_err(|_| format!("no device `{id}`"));
    Some(index.and_then(|index| break_device(index).map_err(|error| format!("{error:?}"))))
}

fn break_device(index: usize) -> Result<(), Failed> {
    let gpu = CudaBackend::new(Some(index))?;
    let (x, y) = (words(&gpu, &ramp(64))?, gpu.alloc(Contents::Undefined(256))?);
    let mut stray = plan(64, 1, Extras::None);
    stray.kernel = &STRAY;
    gpu.dispatch(&stray, &[Some(x.span()), None, Some(y.span()), None])?;
    let first = gpu.download(&y.span()).err().ok_or("the fault was not noticed")?.to_string();
    let parts = ["cuda:", "CUDA_ERROR_ILLEGAL_ADDRESS", "probe_u32"];
    ensure(parts.iter().all(|part| first.contains(part)), || first.clone())?;
    let later = [
        ("launch", launch(&gpu, &x, &y, 1)),
        ("download", gpu.download(&y.span()).map(drop)),
        ("upload", gpu.upload(&y.span(), &[0; 256])),
        ("copy", gpu.copy(&x.span(), &y.span())),
        ("alloc", gpu.alloc(Contents::Undefined(4)).map(drop)),
        ("wait", gpu.wait()),
    ];
    for (what, result) in later {
        let message = result.map_or_else(|error| error.to_string(), |()| "no error".into());
        equal(what, message, first.clone())?;
    }
    Ok(())
}
