//! Every kernel at its cases, on every device: `cargo bench --bench kernels -- [FILTER]`.
//!
//! The answer is checked once before it is timed. Inputs are noise, and rotated past the last cache. Each line gives shape,
//! device, time, bandwidth and arithmetic rate, with the share of what the device was measured to reach in the same run: by
//! a copy for bytes, by a square matrix product for arithmetic. `AUSCULT_BENCH_SOFTWARE=1` includes adapters that run on
//! the host's processor, which are no measure of a GPU.

use auscult_kernels::{Access, Case, DType, Plan, REGISTRY, TensorDesc};
use auscult_runtime::{Backend, Contents, CpuBackend, DeviceError, Span, WgpuBackend, gpu, selftest};
use criterion::{BenchmarkId, Criterion, Throughput};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Inputs are rotated until so many bytes lie between two uses of one copy.
const BEYOND_CACHES: usize = 96 << 20;
/// Cases cheaper than this measure launching, not the kernel; the tests run them.
const WORTH_TIMING: u64 = 1 << 20;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    for backend in backends() {
        let ceiling = Ceiling::measure(&*backend).expect("a device that copies and multiplies");
        let info = backend.info();
        println!(
            "{}: {} ({}): copies {:.1} GB/s, multiplies f32 matrices at {:.1} GFLOP/s",
            info.id,
            info.name,
            info.driver,
            ceiling.bytes / 1e9,
            ceiling.flops / 1e9
        );
        for kernel in REGISTRY {
            let mut group = criterion.benchmark_group(kernel.name);
            for case in (kernel.cases)() {
                if case.plan.cost.bytes + case.plan.cost.flops < WORTH_TIMING {
                    continue;
                }
                group.throughput(Throughput::Bytes(case.plan.cost.bytes));
                let best = Cell::new(f64::INFINITY);
                let id = BenchmarkId::new(format!("{} {}", info.id, info.name), case.why);
                group.bench_function(id, |bencher| {
                    let memory = Rotation::new(&*backend, &case).expect("memory for a case");
                    bencher.iter_custom(|launches| {
                        let taken = memory
                            .launch(&*backend, &case.plan, launches)
                            .expect("a launch that was checked");
                        best.set(best.get().min(taken.as_secs_f64() / launches as f64));
                        taken
                    });
                });
                if best.get().is_finite() {
                    println!("{}", line(&*backend, &case, best.get(), &ceiling));
                }
            }
            group.finish();
        }
    }
    criterion.final_summary();
}

fn backends() -> Vec<Box<dyn Backend>> {
    let mut backends: Vec<Box<dyn Backend>> =
        vec![Box::new(CpuBackend::new(None).expect("the host has a processor"))];
    let software = std::env::var("AUSCULT_BENCH_SOFTWARE").is_ok_and(|value| value == "1");
    for adapter in gpu::adapters().iter().filter(|adapter| adapter.accelerator || software) {
        match WgpuBackend::new(Some(adapter.index)) {
            Ok(backend) => backends.push(Box::new(backend)),
            Err(error) => eprintln!("left out: {error}"),
        }
    }
    backends
}

/// What the device reaches, measured with its own kernels in this run.
struct Ceiling {
    bytes: f64,
    flops: f64,
}

impl Ceiling {
    fn measure(backend: &dyn Backend) -> Result<Self, DeviceError> {
        Ok(Self { bytes: selftest::copy_rate(backend)?, flops: selftest::matrix_rate(backend)? })
    }
}

/// Copies of a case's slots, used one after another.
struct Rotation {
    sets: Vec<Vec<Option<Span>>>,
}

impl Rotation {
    fn new(backend: &dyn Backend, case: &Case) -> Result<Self, DeviceError> {
        if let Err(message) = selftest::check(backend, case) {
            panic!("{} on {}: {}: {message}", case.plan.kernel.name, backend.info().id, case.why);
        }
        let bytes: usize = case.plan.slots.iter().flatten().map(TensorDesc::bytes).sum();
        let sets = BEYOND_CACHES.div_ceil(bytes.max(1)).clamp(1, 32);
        let mut rotation = Self { sets: Vec::new() };
        for _ in 0..sets {
            let mut spans = Vec::new();
            for (i, (slot, desc)) in case.plan.kernel.slots.iter().zip(&case.plan.slots).enumerate() {
                let Some(desc) = desc else {
                    spans.push(None);
                    continue;
                };
                let buffer = backend.alloc(Contents::Undefined(desc.bytes()))?;
                if slot.access != Access::Write {
                    backend.upload(&buffer.span(), &case.input(i))?;
                }
                spans.push(Some(buffer.span()));
            }
            rotation.sets.push(spans);
        }
        Ok(rotation)
    }

    fn launch(&self, backend: &dyn Backend, plan: &Plan, launches: u64) -> Result<Duration, DeviceError> {
        backend.wait()?;
        let started = Instant::now();
        for (_, spans) in (0..launches).zip(self.sets.iter().cycle()) {
            backend.dispatch(plan, spans)?;
        }
        backend.wait()?;
        Ok(started.elapsed())
    }
}

fn line(backend: &dyn Backend, case: &Case, seconds: f64, ceiling: &Ceiling) -> String {
    let cost = case.plan.cost;
    let (bytes, flops) = (cost.bytes as f64 / seconds, cost.flops as f64 / seconds);
    let shapes: Vec<String> = case
        .plan
        .kernel
        .slots
        .iter()
        .zip(&case.plan.slots)
        .filter_map(|(slot, desc)| desc.as_ref().map(|desc| format!("{} {:?}", slot.name, desc.shape)))
        .collect();
    // whole numbers are moved, not computed with
    let computes = case.plan.slots.iter().flatten().any(|desc| desc.dtype == DType::F32) && cost.flops > 0;
    let rate = if computes {
        format!(
            " | {:.1} GFLOP/s ({:.0} % of {:.0})",
            flops / 1e9,
            100.0 * flops / ceiling.flops,
            ceiling.flops / 1e9
        )
    } else {
        String::new()
    };
    format!(
        "{}  {} | {} {} | {:.1} us | {:.1} GB/s ({:.0} % of {:.0}){rate}",
        case.plan.kernel.name,
        shapes.join("  "),
        backend.info().id,
        backend.info().name,
        seconds * 1e6,
        bytes / 1e9,
        100.0 * bytes / ceiling.bytes,
        ceiling.bytes / 1e9
    )
}
