//! `auscult doctor`: devices, limits, measured rates, and a self-test of every kernel on each device, or on the one that
//! `--device` names.

use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_kernels::{Case, REGISTRY};
use auscult_runtime::{Backend, CpuBackend, WgpuBackend, gpu, selftest};
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
    let adapters = if context.global.device == "cpu" { Vec::new() } else { gpu::adapters() };
    if every {
        backends.push(Arc::new(CpuBackend::new(context.global.threads)?));
        for adapter in &adapters {
            match WgpuBackend::new(Some(adapter.index)) {
                Ok(backend) => backends.push(Arc::new(backend)),
                Err(error) => {
                    devices
                        .push(json!({ "id": format!("wgpu:{}", adapter.index), "error": error.to_string() }));
                }
            }
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
        if !args.no_rates {
            device["copy_gb_per_s"] = json!(selftest::copy_rate(&**backend)? / 1e9);
            device["matrix_gflop_per_s"] = json!(selftest::matrix_rate(&**backend)? / 1e9);
        }
        if !args.no_self_test {
            let failed = self_test(&**backend, &mut device);
            broken += failed;
        }
        devices.push(device);
    }
    let best = || gpu::best_accelerator(&adapters).map_or("cpu".to_string(), |n| format!("wgpu:{n}"));
    let auto = every.then(best);
    let report = json!({ "auto": auto, "devices": devices });
    context.result(&describe(&report), &report);
    if broken > 0 {
        return Err(Failure::failed(format!("{broken} self-tests failed")));
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
        let failures: Vec<String> = cases
            .iter()
            .filter_map(|case| selftest::check(backend, case).err().map(|e| format!("{}: {e}", case.why)))
            .collect();
        broken += failures.len();
        kernels.insert(kernel.name.into(), json!({ "cases": cases.len(), "failures": failures }));
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
        if let (Some(copy), Some(matrix)) =
            (device["copy_gb_per_s"].as_f64(), device["matrix_gflop_per_s"].as_f64())
        {
            text += &format!(
                "    copies {copy:.1} GB/s (read and written), multiplies f32 matrices at {matrix:.1} GFLOP/s\n"
            );
        }
        let Some(kernels) = device["self_test"].as_object() else { continue };
        let mut cases = 0;
        let mut failures = 0;
        for (name, result) in kernels {
            cases += result["cases"].as_u64().unwrap_or(0);
            for failure in result["failures"].as_array().into_iter().flatten() {
                failures += 1;
                text += &format!("    FAILED {name}: {}\n", text_of(failure));
            }
        }
        text += &format!("    self-test: {} kernels, {cases} cases, {failures} failures\n", kernels.len());
    }
    if let Some(auto) = report["auto"].as_str() {
        text += &format!("auto picks {auto}");
    }
    text
}
