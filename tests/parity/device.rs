//! What executors promise besides right results, the wgpu executor above all: order, few submissions, nothing made twice, errors that say
//! what is wrong.

use crate::probe::{BROKEN, Extras, expected, plan};
use auscult_runtime::gpu::{adapters, best_accelerator};
use auscult_runtime::weights::HostBytes;
use auscult_runtime::{Backend, Buffer, Contents, CpuBackend, DeviceError, Span, WgpuBackend};
use libtest_mimic::Failed;
use std::time::Duration;

/// Says what is broken, if anything is.
pub type Check = fn(&WgpuBackend) -> Result<(), Failed>;

/// A check of any executor.
pub type SharedCheck = fn(&dyn Backend) -> Result<(), Failed>;

/// Checks of what every device promises.
pub const SHARED: &[(&str, SharedCheck)] = &[
    ("bytes cross at every alignment", bytes_cross),
    ("long uploads cross in parts", long_uploads_cross),
    ("copies at every alignment", copies),
    ("what is asked for first is seen by what follows", order),
    ("left-out slots are neither read nor written", left_out_slots),
    ("an empty grid is skipped", empty_grid),
    ("threads share a device", threads),
];

/// Checks that need an adapter.
pub const CHECKS: &[(&str, Check)] = &[
    #[cfg(target_os = "linux")]
    ("uploads need no second copy on the host", crate::child::uploads_are_bounded),
    ("a thousand launches keep their own parameters", many_launches),
    ("a replay makes nothing new", replay),
    ("dropped memory takes its bind groups along", dropped_memory),
    ("bad bindings are errors", bad_bindings),
    ("a plan that cannot be cut is an error", cannot_be_cut),
    ("a broken shader is an error that passes", broken_shader),
    ("too much memory is an error", too_much_memory),
    ("a closed device is an error", closed_device),
    ("launches are timed", timing),
    ("adapters are described and numbered", descriptions),
];

/// Fails with `what` unless `is`.
pub fn ensure(is: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if is { Ok(()) } else { Err(what().into()) }
}

/// Fails unless both are the same.
pub fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Result<(), Failed> {
    ensure(got == want, || format!("{what}: got {got:?}, want {want:?}"))
}

/// Values that have little in common.
pub fn ramp(n: usize) -> Vec<u32> {
    (1..).map(|i: u32| i.wrapping_mul(0x9e37_79b9)).take(n).collect()
}

/// A buffer of these values.
pub fn words(backend: &dyn Backend, values: &[u32]) -> Result<Buffer, DeviceError> {
    backend.alloc(Contents::Host(HostBytes::from_vec(bytemuck::cast_slice(values).to_vec())))
}

/// The values of a buffer.
pub fn read(backend: &dyn Backend, buffer: &Buffer) -> Result<Vec<u32>, DeviceError> {
    Ok(bytemuck::pod_collect_to_vec(&backend.download(&buffer.span())?))
}

/// Launches `to = 3 * from + add`.
pub fn launch(backend: &dyn Backend, from: &Buffer, to: &Buffer, add: u32) -> Result<(), DeviceError> {
    let slots = [Some(from.span()), None, Some(to.span()), None];
    backend.dispatch(&plan(from.bytes() / 4, add, Extras::None), &slots)
}

fn bytes_cross(gpu: &dyn Backend) -> Result<(), Failed> {
    for length in [0, 1, 2, 3, 4, 5, 15, 16, 17, 1023, 4097] {
        let mut model: Vec<u8> = (0..length).map(|i| (i * 7 + 13) as u8).collect();
        let buffer = gpu.alloc(Contents::Host(HostBytes::from_vec(model.clone())))?;
        equal("length", buffer.bytes(), length)?;
        for (offset, bytes) in
            [(0, length), (1, 1), (3, 2), (2, 5), (5, 7), (length / 2, length - length / 2)]
        {
            if offset + bytes > length {
                continue;
            }
            let what = format!("{bytes} bytes at {offset} of {length}");
            let new: Vec<u8> = (0..bytes).map(|i| (i * 5 + offset + 101) as u8).collect();
            let span = buffer.span().slice(offset, bytes)?;
            gpu.upload(&span, &new)?;
            model[offset..offset + bytes].copy_from_slice(&new);
            equal(&what, gpu.download(&span)?, new)?;
            equal(&what, gpu.download(&buffer.span())?, model.clone())?;
        }
    }
    Ok(())
}

/// More than two of the parts that go across at once, and an odd end.
fn long_uploads_cross(gpu: &dyn Backend) -> Result<(), Failed> {
    let bytes: Vec<u8> = bytemuck::cast_slice(&ramp(20 << 20))[..(75 << 20) + 3].to_vec();
    let host = HostBytes::from_vec(bytes);
    let buffer = gpu.alloc(Contents::Host(host.clone()))?;
    let back = gpu.download(&buffer.span())?;
    ensure(back == *host, || "the bytes of an allocation differ".into())?;
    let other: Vec<u8> = host.iter().map(|byte| !byte).collect();
    gpu.upload(&buffer.span(), &other)?;
    ensure(gpu.download(&buffer.span())? == other, || "the bytes of an upload differ".into())
}

fn copies(gpu: &dyn Backend) -> Result<(), Failed> {
    let source: Vec<u8> = (0..=255).collect();
    let from = gpu.alloc(Contents::Host(HostBytes::from_vec(source.clone())))?;
    let ranges =
        [(0, 0, 101), (4, 8, 16), (4, 90, 11), (3, 8, 4), (8, 5, 4), (1, 2, 3), (8, 12, 6), (0, 0, 0)];
    for (from_at, to_at, bytes) in ranges {
        let mut model = vec![0xee; 101];
        let to = gpu.alloc(Contents::Host(HostBytes::from_vec(model.clone())))?;
        gpu.copy(&from.span().slice(from_at, bytes)?, &to.span().slice(to_at, bytes)?)?;
        model[to_at..to_at + bytes].copy_from_slice(&source[from_at..from_at + bytes]);
        equal(&format!("{bytes} bytes from {from_at} to {to_at}"), gpu.download(&to.span())?, model)?;
    }
    let halves = (from.span().slice(0, 8)?, from.span().slice(8, 8)?);
    equal("one buffer", gpu.copy(&halves.0, &halves.1).is_err(), true)?;
    let shorter = gpu.alloc(Contents::Undefined(4))?;
    equal("two lengths", gpu.copy(&halves.0, &shorter.span()).is_err(), true)
}

fn order(gpu: &dyn Backend) -> Result<(), Failed> {
    let first = ramp(1000);
    let second: Vec<u32> = first.iter().map(|v| !v).collect();
    let x = words(gpu, &first)?;
    let [a, b, c] = [4000; 3].map(|bytes| gpu.alloc(Contents::Undefined(bytes)));
    let (a, b, c) = (a?, b?, c?);
    launch(gpu, &x, &a, 1)?;
    gpu.copy(&a.span(), &c.span())?;
    // must not reach the launch above, and must reach the one below
    gpu.upload(&x.span(), bytemuck::cast_slice(&second))?;
    launch(gpu, &x, &b, 2)?;
    launch(gpu, &b, &a, 3)?;
    let by = |values: &[u32], add| values.iter().map(|&v| expected(v, add, 0)).collect::<Vec<u32>>();
    equal("the copy between", read(gpu, &c)?, by(&first, 1))?;
    equal("after the upload", read(gpu, &b)?, by(&second, 2))?;
    equal("the chain", read(gpu, &a)?, by(&by(&second, 2), 3))
}

fn many_launches(gpu: &WgpuBackend) -> Result<(), Failed> {
    let mut model = ramp(65);
    let buffers = [words(gpu, &model)?, gpu.alloc(Contents::Undefined(4 * 65))?];
    let before = gpu.counters();
    for step in 0..1000 {
        launch(gpu, &buffers[step % 2], &buffers[(step + 1) % 2], step as u32)?;
        model.iter_mut().for_each(|v| *v = expected(*v, step as u32, 0));
    }
    equal("values", read(gpu, &buffers[0])?, model)?;
    let after = gpu.counters();
    ensure(after.launches - before.launches >= 1000, || "launches were not counted".into())?;
    // other tests submit meanwhile, but not hundreds of times
    let submissions = after.submissions - before.submissions;
    ensure(submissions < 200, || format!("{submissions} submissions for 1000 launches"))
}

fn left_out_slots(gpu: &dyn Backend) -> Result<(), Failed> {
    let values = ramp(100);
    let x = words(gpu, &values)?;
    let bias = words(gpu, &ramp(200)[100..])?;
    let twin = words(gpu, &[7; 100])?;
    let y = gpu.alloc(Contents::Undefined(400))?;
    launch(gpu, &x, &y, 5)?;
    let plain: Vec<u32> = values.iter().map(|&v| expected(v, 5, 0)).collect();
    equal("neither", read(gpu, &y)?, plain.clone())?;
    gpu.dispatch(&plan(100, 5, Extras::Twin), &[Some(x.span()), None, Some(y.span()), Some(twin.span())])?;
    equal("twin", read(gpu, &twin)?, plain)?;
    gpu.dispatch(&plan(100, 5, Extras::Bias), &[Some(x.span()), Some(bias.span()), Some(y.span()), None])?;
    let biased = values.iter().zip(&ramp(200)[100..]).map(|(&v, &b)| expected(v, 5, b)).collect();
    equal("bias", read(gpu, &y)?, biased)
}

/// On a device of its own, whose counters nobody else moves.
fn own_device(gpu: &WgpuBackend) -> Result<WgpuBackend, Failed> {
    let index = gpu.info().id.trim_start_matches("wgpu:").parse()?;
    Ok(WgpuBackend::new(Some(index))?)
}

fn replay(gpu: &WgpuBackend) -> Result<(), Failed> {
    let gpu = &own_device(gpu)?;
    let buffers =
        [words(gpu, &ramp(64))?, gpu.alloc(Contents::Undefined(256))?, gpu.alloc(Contents::Undefined(256))?];
    let graph = || -> Result<(), Failed> {
        for i in 0..300 {
            launch(gpu, &buffers[i % 3], &buffers[(i + 1) % 3], 1)?;
        }
        Ok(gpu.wait()?)
    };
    graph()?;
    let first = gpu.counters();
    equal("pipelines", first.pipelines, 1)?;
    equal("bind groups", first.groups_made, 3)?;
    equal("submissions", first.submissions, 1)?;
    graph()?;
    let second = gpu.counters();
    equal("pipelines of a replay", second.pipelines, first.pipelines)?;
    equal("bind groups of a replay", second.groups_made, first.groups_made)?;
    equal("launches", second.launches, 600)?;
    equal("submissions", second.submissions, 2)
}

fn dropped_memory(gpu: &WgpuBackend) -> Result<(), Failed> {
    let gpu = &own_device(gpu)?;
    let x = words(gpu, &ramp(64))?;
    for _ in 0..20 {
        let y = gpu.alloc(Contents::Undefined(256))?;
        launch(gpu, &x, &y, 1)?;
        // dropped while it is recorded
    }
    gpu.wait()?;
    let y = gpu.alloc(Contents::Undefined(256))?;
    launch(gpu, &x, &y, 4)?;
    equal("values", read(gpu, &y)?, ramp(64).iter().map(|&v| expected(v, 4, 0)).collect())?;
    let counters = gpu.counters();
    equal("groups made", counters.groups_made, 21)?;
    equal("groups kept", counters.groups_kept, 1)
}

fn empty_grid(gpu: &dyn Backend) -> Result<(), Failed> {
    let x = words(gpu, &ramp(8))?;
    let y = words(gpu, &[9; 8])?;
    let mut nothing = plan(8, 0, Extras::None);
    nothing.params = plan(0, 0, Extras::None).params;
    gpu.dispatch(&nothing, &[Some(x.span()), None, Some(y.span()), None])?;
    equal("y", read(gpu, &y)?, vec![9; 8])?;
    let none = gpu.alloc(Contents::Undefined(0))?;
    gpu.dispatch(&plan(0, 0, Extras::None), &[Some(none.span()), None, Some(none.span()), None])
        .map_or_else(
            |error| {
                equal("one empty buffer twice", error.to_string().contains("bound to another slot too"), true)
            },
            |()| Err("a buffer was read and written".into()),
        )?;
    let other = gpu.alloc(Contents::Undefined(0))?;
    gpu.dispatch(&plan(0, 0, Extras::None), &[Some(none.span()), None, Some(other.span()), None])?;
    Ok(())
}

fn threads(gpu: &dyn Backend) -> Result<(), Failed> {
    let work = |seed: u32| -> Result<(), Failed> {
        let values: Vec<u32> = ramp(333).iter().map(|v| v ^ seed).collect();
        let x = words(gpu, &values)?;
        for add in 0..40 {
            let y = gpu.alloc(Contents::Undefined(4 * 333))?;
            launch(gpu, &x, &y, add)?;
            let want = values.iter().map(|&v| expected(v, add, 0)).collect();
            equal(&format!("thread {seed}, launch {add}"), read(gpu, &y)?, want)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..4).map(|seed| scope.spawn(move || work(seed))).collect();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| Failed::from("a thread panicked"))?)
    })
}

fn bad_bindings(gpu: &WgpuBackend) -> Result<(), Failed> {
    let x = words(gpu, &ramp(100))?;
    let y = gpu.alloc(Contents::Undefined(400))?;
    let fails = |what: &str, x: Span, y: Span, parts: &[&str]| -> Result<(), Failed> {
        let result = gpu.dispatch(&plan(10, 0, Extras::None), &[Some(x), None, Some(y), None]);
        let message = result.map_or_else(|error| error.to_string(), |()| "no error".into());
        ensure(parts.iter().all(|part| message.contains(part)), || format!("{what}: {message}"))
    };
    let part = |buffer: &Buffer, at| Span { buffer: buffer.clone(), offset: at, bytes: 40 };
    let align = gpu.info().binding_align.to_string();
    fails(
        "misaligned",
        part(&x, 4),
        part(&y, 0),
        &["probe_u32", "`x`", "starts at byte 4", "multiple of", &align],
    )?;
    fails(
        "beyond the end",
        part(&x, 384),
        part(&y, 0),
        &["probe_u32", "40 bytes at 384", "within 400 bytes"],
    )?;
    let longer = Span { bytes: 44, ..part(&x, 0) };
    fails("length", longer, part(&y, 0), &["`x`", "44 bytes", "expected 40"])?;
    let cpu = CpuBackend::new(None)?;
    let foreign = words(&cpu, &ramp(10))?;
    fails("of the host", part(&foreign, 0), part(&y, 0), &["another device"])?;
    let foreign = words(&own_device(gpu)?, &ramp(10))?;
    fails("of another device of the same adapter", part(&foreign, 0), part(&y, 0), &["another device"])
}

fn cannot_be_cut(gpu: &WgpuBackend) -> Result<(), Failed> {
    let x = words(gpu, &ramp(100))?;
    let y = gpu.alloc(Contents::Undefined(400))?;
    let message = match launch(&gpu.with_max_binding(256), &x, &y, 1) {
        Err(error @ DeviceError::Shape(_)) => error.to_string(),
        other => return Err(format!("expected a shape error, got {other:?}").into()),
    };
    let parts = ["probe_u32", "`x`", "400 bytes in one binding", "at most 256"];
    ensure(parts.iter().all(|part| message.contains(part)), || message.clone())
}

fn broken_shader(gpu: &WgpuBackend) -> Result<(), Failed> {
    let x = words(gpu, &ramp(10))?;
    let y = gpu.alloc(Contents::Undefined(40))?;
    let mut broken = plan(10, 1, Extras::None);
    broken.kernel = &BROKEN;
    for _ in 0..2 {
        let result = gpu.dispatch(&broken, &[Some(x.span()), None, Some(y.span()), None]);
        let message = result.map_or_else(|error| error.to_string(), |()| "no error".into());
        let said =
            message.contains(&gpu.info().id) && message.contains("probe_u32: ") && !message.contains('\n');
        ensure(said, || message)?;
    }
    launch(gpu, &x, &y, 1)?;
    equal("y", read(gpu, &y)?, ramp(10).iter().map(|&v| expected(v, 1, 0)).collect())
}

fn too_much_memory(gpu: &WgpuBackend) -> Result<(), Failed> {
    let adapter = adapters().into_iter().find(|a| format!("wgpu:{}", a.index) == gpu.info().id);
    let limit = usize::try_from(adapter.ok_or("the adapter is gone")?.max_buffer)?;
    for asked in [limit + 1, usize::MAX - 3, usize::MAX] {
        let message = match gpu.alloc(Contents::Undefined(asked)) {
            Err(error @ DeviceError::OutOfMemory { .. }) => error.to_string(),
            other => return Err(format!("{asked} bytes: got {other:?}").into()),
        };
        let said = message.contains(&asked.to_string()) && message.contains(&limit.to_string());
        ensure(said, || message)?;
    }
    equal("life after", read(gpu, &words(gpu, &[5])?)?, vec![5])
}

fn closed_device(gpu: &WgpuBackend) -> Result<(), Failed> {
    let gpu = own_device(gpu)?;
    let x = words(&gpu, &ramp(10))?;
    let y = gpu.alloc(Contents::Undefined(40))?;
    launch(&gpu, &x, &y, 1)?;
    gpu.close();
    let results = [
        ("launch", launch(&gpu, &x, &y, 1)),
        ("download", gpu.download(&y.span()).map(drop)),
        ("upload", gpu.upload(&y.span(), &[0; 40])),
        ("copy", gpu.copy(&x.span(), &y.span())),
        ("alloc", gpu.alloc(Contents::Undefined(4)).map(drop)),
        ("wait", gpu.wait()),
    ];
    for (what, result) in results {
        let failed = matches!(&result, Err(DeviceError::Failed { what, .. }) if what.contains("closed"));
        ensure(failed, || format!("{what}: got {result:?}"))?;
    }
    Ok(())
}

fn timing(gpu: &WgpuBackend) -> Result<(), Failed> {
    let gpu = &own_device(gpu)?;
    let x = words(gpu, &ramp(100_000))?;
    let y = gpu.alloc(Contents::Undefined(400_000))?;
    let timed = gpu.time(&mut || (0..20).try_for_each(|add| launch(gpu, &x, &y, add)))?;
    let index: usize = gpu.info().id.trim_start_matches("wgpu:").parse()?;
    let has_timestamps = adapters()[index].features.contains(&"timestamp-query");
    equal("device time", timed.device.is_some(), has_timestamps)?;
    if let Some(device) = timed.device {
        let sensible = device > Duration::ZERO && device <= timed.wall;
        ensure(sensible, || format!("{device:?} on the device of {:?}", timed.wall))?;
    }
    let nested = gpu.time(&mut || gpu.time(&mut || Ok(())).map(drop));
    ensure(nested.is_err(), || "a timing within a timing".into())?;
    let failed =
        gpu.time(&mut || Err(DeviceError::Failed { device: "none".into(), what: "on purpose".into() }));
    ensure(failed.is_err(), || "the work's error was lost".into())?;
    // neither leaves a timing under way
    gpu.time(&mut || Ok(()))?;
    Ok(())
}

fn descriptions(gpu: &WgpuBackend) -> Result<(), Failed> {
    let all = adapters();
    for (index, adapter) in all.iter().enumerate() {
        equal("number", adapter.index, index)?;
        equal("accelerator", adapter.accelerator, adapter.kind != "software")?;
        ensure(!adapter.name.is_empty() && adapter.max_binding > 0, || format!("{adapter:?}"))?;
    }
    let this = all.iter().find(|a| format!("wgpu:{}", a.index) == gpu.info().id).ok_or("not listed")?;
    equal("name", &this.name, &gpu.info().name)?;
    if let Some(best) = best_accelerator(&all) {
        ensure(all[best].accelerator, || "the best accelerator is software".into())?;
        equal("what is opened by default", gpu.info().id.clone(), format!("wgpu:{best}"))?;
    }
    let beyond = all.len() + 7;
    let message =
        WgpuBackend::new(Some(beyond)).map_or_else(|error| error.to_string(), |_| "no error".into());
    let said = message.contains(&format!("wgpu:{beyond}")) && message.contains(&this.name);
    ensure(said, || message)
}
