//! Every kernel at its cases, on every device: `cargo bench --bench kernels -- [FILTER]`.
//!
//! The answer is checked once before it is timed. Inputs are noise, and rotated past the last cache. Each line gives shape,
//! device, the form that ran, time, bandwidth and arithmetic rate, with the share of what the device was measured to reach in the same run: by
//! a copy for bytes, by a square matrix product for arithmetic. Times are the device's own where it has a clock. `AUSCULT_BENCH_SOFTWARE=1` includes adapters that run on
//! the host's processor, which are no measure of a GPU.

use auscult_kernels::REGISTRY;
use auscult_runtime::selftest::{self, Ceiling, Measured, Rotation};
use auscult_runtime::{Backend, CpuBackend, CudaBackend, WgpuBackend, cuda, gpu};
use criterion::{BenchmarkId, Criterion, Throughput};
use std::cell::Cell;
use std::time::Duration;

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
            "{}: {} ({}): copies {:.1} GB/s, multiplies f32 matrices at {:.1} GFLOP/s, by f16 at {:.1}",
            info.id,
            info.name,
            info.driver,
            ceiling.bytes / 1e9,
            ceiling.flops / 1e9,
            ceiling.half_flops / 1e9
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
                    if let Err(message) = selftest::check(&*backend, &case) {
                        panic!("{} on {}: {}: {message}", kernel.name, info.id, case.why);
                    }
                    let memory = Rotation::new(&*backend, &case).expect("memory for a case");
                    bencher.iter_custom(|launches| {
                        let taken = memory.time(&*backend, launches).expect("a launch that was checked");
                        best.set(best.get().min(taken.as_secs_f64() / launches as f64));
                        taken
                    });
                });
                if best.get().is_finite() {
                    println!("{}", Measured::new(&*backend, &case, best.get(), &ceiling));
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
    for device in cuda::devices().unwrap_or_default() {
        match CudaBackend::new(Some(device.index)) {
            Ok(backend) => backends.push(Box::new(backend)),
            Err(error) => eprintln!("left out: {error}"),
        }
    }
    let software = std::env::var("AUSCULT_BENCH_SOFTWARE").is_ok_and(|value| value == "1");
    for adapter in gpu::adapters().iter().filter(|adapter| adapter.accelerator || software) {
        match WgpuBackend::new(Some(adapter.index)) {
            Ok(backend) => backends.push(Box::new(backend)),
            Err(error) => eprintln!("left out: {error}"),
        }
    }
    backends
}
