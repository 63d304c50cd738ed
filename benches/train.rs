//! Training of a sparse autoencoder at real sizes: steps a second, beside their floor.
//!
//! `cargo bench --bench train -- [--device cpu|wgpu:N|cuda:N] [--threads N] [--steps N] [--batch N,N,...] [--width N]
//! [--features N] [--k N] [--mode MODE]`
//!
//! Lines are JSON, as those of `benches/peers/torch_train.py`, which makes the same steps in torch. `floor_s` is the encoder's
//! product at the rate of a square one, and the rows of active features, of both matrices and their moments, read and written once
//! at the rate of a copy; both rates are measured in the same run. `published_h` is what the 987,071 steps of the published
//! configuration would take, in hours, at its batch of 64.

use auscult_kernels::noise;
use auscult_model::sae::train::{Mode, TrainConfig, Trainer};
use auscult_runtime::selftest::Ceiling;
use auscult_runtime::{Backend, CpuBackend, CudaBackend, WgpuBackend};
use serde_json::json;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Steps of the published configuration.
const PUBLISHED: f64 = 987_071.0;

struct Options {
    backend: Arc<dyn Backend>,
    steps: usize,
    batches: Vec<usize>,
    width: usize,
    features: usize,
    k: usize,
    mode: Mode,
}

impl Options {
    fn read() -> Result<Self> {
        let (mut device, mut threads, mut batches) = ("cpu".to_string(), None, vec![64, 4096]);
        let [mut steps, mut width, mut features, mut k] = [10, 1024, 32_768, 100];
        let mut mode = Mode::Saelens532;
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                // cargo's own
                "--bench" => {}
                "--device" => device = value()?,
                "--threads" => threads = Some(value()?.parse()?),
                "--steps" => steps = value()?.parse()?,
                "--batch" => {
                    batches = value()?.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?;
                }
                "--width" => width = value()?.parse()?,
                "--features" => features = value()?.parse()?,
                "--k" => k = value()?.parse()?,
                "--mode" => mode = value()?.parse()?,
                _ => return Err(format!("unknown argument {arg}").into()),
            }
        }
        let backend: Arc<dyn Backend> = match device.split_once(':') {
            None if device == "cpu" => Arc::new(CpuBackend::new(threads)?),
            Some(("wgpu", number)) => Arc::new(WgpuBackend::new(Some(number.parse()?))?),
            Some(("cuda", number)) => Arc::new(CudaBackend::new(Some(number.parse()?))?),
            _ => return Err(format!("unknown device {device}").into()),
        };
        Ok(Self { backend, steps, batches, width, features, k, mode })
    }
}

fn main() -> Result<()> {
    let options = Options::read()?;
    let Options { backend, steps, width, features, k, mode, .. } = &options;
    let ceiling = Ceiling::measure(&**backend)?;
    let info = backend.info();
    let round = |value: f64| (value * 1e4).round() / 1e4;
    println!(
        "{}",
        json!({
            "device": info.id, "name": info.name, "driver": info.driver,
            "matrix_gflop_per_s": round(ceiling.flops / 1e9), "copy_gb_per_s": round(ceiling.bytes / 1e9),
        })
    );
    for &batch in &options.batches {
        let config = TrainConfig { k: *k, batch, ..TrainConfig::new(*mode, *width, *features, 1 << 20) };
        // a few batches, over and over: the features of one are not those of the next
        let batches: Vec<Vec<f32>> =
            (0..4).map(|i| noise(&format!("train/{i}"), batch * width).collect()).collect();
        let mut trainer = Trainer::new(backend.clone(), config, &batches[0])?;
        let mut active = 0.0;
        for rows in &batches {
            active = trainer.step_recorded(rows)?.l0;
        }
        let mut taken = Vec::new();
        for i in 0..(*steps).max(1) {
            let started = Instant::now();
            trainer.step(&batches[i % batches.len()])?;
            backend.wait()?;
            taken.push(started.elapsed().as_secs_f64());
        }
        taken.sort_by(f64::total_cmp);
        let (best, median) = (taken[0], taken[taken.len() / 2]);
        let (rows, width, features) = (batch as f64, *width as f64, *features as f64);
        let touched = features * (1.0 - (1.0 - active / features).powf(rows));
        let product = 2.0 * rows * width * features / ceiling.flops;
        // a copy's rate counts what it reads and what it writes
        let moved = touched * width * 4.0 * 8.0 / ceiling.bytes;
        let floor = product + moved;
        println!(
            "{}",
            json!({
                "job": "train step", "mode": mode.name(), "rows": batch, "width": width, "features": features, "k": k, "active": round(active),
                "best_s": round(best), "median_s": round(median), "steps_per_s": round(1.0 / median),
                "floor_s": round(floor), "of_floor": round(floor / best),
                "published_h": (batch == 64 && *mode == Mode::Saelens532).then(|| round(PUBLISHED * median / 3600.0)),
            })
        );
    }
    Ok(())
}
