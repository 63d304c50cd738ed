//! `auscult doctor`: devices, limits, measured rates, and a self-test of every kernel on each device, or on the one that
//! `--device` names.

use crate::context::{Context, auto};
use crate::failure::Failure;
use anyhow::Result;
use auscult_kernels::{Case, REGISTRY};
use auscult_runtime::selftest::{self, Ceiling};
use auscult_runtime::{Backend, CpuBackend, CudaBackend, DeviceError, WgpuBackend, cuda, gpu};
use serde_json::{Value, json};
use std::sync::Arc;

/// Cases that cost more arithmetic or move more bytes than this are left to the test suite.
const SELF_TEST_FLOPS: u64 = 20_000_000;
const SELF_TEST_BYTES: u64 = 4_000_000;

#[derive(clap::Args)]
pub struct Args {
    /// Skip the self-test of the kernels
    #[arg(long)]
    no_self_test: bool,
    /// Skip the measurement of rates
    #[arg(long)]
    no_rates: bool,
}

pub fn run(context: &Context, args: &Args) -> Result<()> {
    let mut devices = Vec::new();
    let mut backends: Vec<Arc<dyn Backend>> = Vec::new();
    let every = context.global.device == "auto";
    // drivers are left alone where only the processor is asked about
    let only_processor = context.global.device == "cpu";
    let adapters = if only_processor { Vec::new() } else { gpu::adapters() };
    let cards = if only_processor { Ok(Vec::new()) } else { cuda::devices() };
    if every {
        backends.push(Arc::new(CpuBackend::new(context.global.threads)?));
        if let Err(error) = &cards {
            devices.push(json!({ "id": "cuda", "error": error.to_string() }));
        }
        let mut add = |id: String, opened: Result<Arc<dyn Backend>, DeviceError>| match opened {
            Ok(backend) => backends.push(backend),
            Err(error) => devices.push(json!({ "id": id, "error": error.to_string() })),
        };
        for card in cards.iter().flatten() {
            let opened = CudaBackend::new(Some(card.index));
            add(format!("cuda:{}", card.index), opened.map(|backend| Arc::new(backend) as _));
        }
        for adapter in &adapters {
            let opened = WgpuBackend::new(Some(adapter.index));
            add(format!("wgpu:{}", adapter.index), opened.map(|backend| Arc::new(backend) as _));
        }
    } else {
        backends.push(context.backend()?);
    }
    let mut broken = 0;
    for backend in &backends {
        let info = backend.info();
        context.note(&format!("looking at {}: {}", info.id, info.name));
        let mut device = json!({
            "id": info.id,
            "name": info.name,
            "driver": info.driver,
            "accelerator": info.accelerator,
            "max_binding": if info.max_binding == usize::MAX { Value::Null } else { json!(info.max_binding) },
            "binding_align": info.binding_align,
        });
        if let Some(adapter) = adapters.iter().find(|a| format!("wgpu:{}", a.index) == info.id) {
            device["adapter"] = serde_json::to_value(adapter)?;
        }
        if let Some(card) = cards.iter().flatten().find(|card| format!("cuda:{}", card.index) == info.id) {
            device["cuda"] = serde_json::to_value(card)?;
        }
        if !args.no_rates {
            match Ceiling::measure(&**backend) {
                Ok(ceiling) => {
                    device["copy_gb_per_s"] = json!(ceiling.bytes / 1e9);
                    device["matrix_gflop_per_s"] = json!(ceiling.flops / 1e9);
                    device["matrix_f16_gflop_per_s"] = json!(ceiling.half_flops / 1e9);
                }
                Err(error) => {
                    broken += 1;
                    device["rates_error"] = json!(error.to_string());
                }
            }
        }
        if !args.no_self_test {
            let failed = self_test(&**backend, &mut device);
            broken += failed;
        }
        devices.push(device);
    }
    let auto = every.then(|| auto().to_string());
    let report = json!({ "auto": auto, "devices": devices });
    context.result(&describe(&report), &report);
    if broken > 0 {
        return Err(Failure::failed(format!("{broken} checks failed")));
    }
    Ok(())
}

/// Runs every small case of every kernel against its f64 reference; returns how many failed.
fn self_test(backend: &dyn Backend, device: &mut Value) -> usize {
    let mut kernels = serde_json::Map::new();
    let mut broken = 0;
    for kernel in REGISTRY {
        let small =
            |case: &Case| case.plan.cost.flops <= SELF_TEST_FLOPS && case.plan.cost.bytes <= SELF_TEST_BYTES;
        let cases: Vec<Case> = (kernel.cases)().into_iter().filter(small).collect();
        let mut failures = Vec::new();
        let mut worst = 0.0_f64;
        for case in &cases {
            match selftest::check(backend, case) {
                Ok(off) => worst = worst.max(off),
                Err(message) => failures.push(format!("{}: {message}", case.why)),
            }
        }
        broken += failures.len();
        let result = json!({ "cases": cases.len(), "worst_error": worst, "failures": failures });
        kernels.insert(kernel.name.into(), result);
    }
    device["self_test"] = kernels.into();
    broken
}

fn describe(report: &Value) -> String {
    let text_of = |v: &Value| v.as_str().unwrap_or_default().to_string();
    let mut text = String::new();
    for device in report["devices"].as_array().into_iter().flatten() {
        text += &text_of(&device["id"]);
        if !device["error"].is_null() {
            text += &format!("  cannot be opened: {}\n", text_of(&device["error"]));
            continue;
        }
        text += &format!("  {} ({})\n", text_of(&device["name"]), text_of(&device["driver"]));
        match device["max_binding"].as_u64() {
            Some(bytes) => {
                text += &format!("    binds at most {bytes} bytes, aligned to {}\n", device["binding_align"])
            }
            None => text += "    binds any length\n",
        }
        if let Some(features) = device["adapter"]["features"].as_array() {
            let names: Vec<String> = features.iter().map(text_of).collect();
            text += &format!("    features: {}\n", names.join(", "));
        }
        if let (Some(total), Some(multiprocessors)) =
            (device["cuda"]["memory_total"].as_u64(), device["cuda"]["multiprocessors"].as_u64())
        {
            let free = device["cuda"]["memory_free"].as_u64();
            let free = free.map_or("free ones unknown".into(), |free| format!("{free} of them free"));
            text += &format!("    {multiprocessors} multiprocessors, {total} bytes of memory, {free}\n");
        }
        if let (Some(copy), Some(matrix), Some(half)) = (
            device["copy_gb_per_s"].as_f64(),
            device["matrix_gflop_per_s"].as_f64(),
            device["matrix_f16_gflop_per_s"].as_f64(),
        ) {
            text += &format!(
                "    copies {copy:.1} GB/s (read and written), multiplies f32 matrices at {matrix:.1} GFLOP/s, by f16 at \
                 {half:.1}\n"
            );
        }
        if let Some(error) = device["rates_error"].as_str() {
            text += &format!("    FAILED rates: {error}\n");
        }
        let Some(kernels) = device["self_test"].as_object() else { continue };
        let (mut all, mut failed) = (0, 0);
        let width = kernels.keys().map(String::len).max().unwrap_or(0);
        for (name, result) in kernels {
            let cases = result["cases"].as_u64().unwrap_or(0);
            let failures: Vec<&Value> = result["failures"].as_array().into_iter().flatten().collect();
            all += cases;
            failed += failures.len();
            text += &match (failures.len(), result["worst_error"].as_f64().unwrap_or(f64::NAN)) {
                (0, 0.0) => format!("    {name:width$}  {cases:3} cases  exact\n"),
                (0, off) => format!("    {name:width$}  {cases:3} cases  off by at most {off:.1e}\n"),
                (count, _) => format!("    {name:width$}  {cases:3} cases  {count} FAILED\n"),
            };
            for failure in failures {
                text += &format!("    FAILED {name}: {}\n", text_of(failure));
            }
        }
        text += &format!("    self-test: {} kernels, {all} cases, {failed} failures\n", kernels.len());
    }
    if let Some(auto) = report["auto"].as_str() {
        text += &format!("auto picks {auto}");
    }
    text
}
