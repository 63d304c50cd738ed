//! The encoder of a sparse autoencoder at real sizes, in f32 and in bf16, beside its floor: the same matrix product alone.
//!
//! `cargo bench --bench sae -- [--device cpu|wgpu:N|cuda:N] [--threads N] [--repeat N] [--rows N] [--width N] [--features N]
//! [--k N] [--only JOB]`
//!
//! Lines are JSON, as those of `benches/peers/torch_sae.py`, which times a linear layer and a top-k in torch. `floor_s` is the
//! product's arithmetic at the rate of a square matrix product that is measured in the same run.

use auscult_kernels::ops::capture::Capture;
use auscult_kernels::ops::linear::{Activation, Linear};
use auscult_kernels::ops::sae_encode::SaeEncode;
use auscult_kernels::ops::sae_rescore::{SaeRescore, errors};
use auscult_kernels::ops::sae_screen::{SaeScreen, screened};
use auscult_kernels::{Access, DType, Plan, TensorDesc, noise};
use auscult_runtime::selftest::Ceiling;
use auscult_runtime::{Backend, Contents, CpuBackend, CudaBackend, Span, WgpuBackend};
use half::bf16;
use serde_json::json;
use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Options {
    backend: Arc<dyn Backend>,
    repeat: usize,
    rows: usize,
    width: usize,
    features: usize,
    k: usize,
    only: Option<String>,
}

impl Options {
    fn read() -> Result<Self> {
        let (mut device, mut threads, mut only) = ("cpu".to_string(), None, None);
        let [mut repeat, mut rows, mut width, mut features, mut k] = [5, 512, 1024, 32_768, 100];
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                // cargo's own
                "--bench" => {}
                "--device" => device = value()?,
                "--threads" => threads = Some(value()?.parse()?),
                "--repeat" => repeat = value()?.parse()?,
                "--rows" => rows = value()?.parse()?,
                "--width" => width = value()?.parse()?,
                "--features" => features = value()?.parse()?,
                "--k" => k = value()?.parse()?,
                "--only" => only = Some(value()?),
                _ => return Err(format!("unknown argument {arg}").into()),
            }
        }
        let backend: Arc<dyn Backend> = match device.split_once(':') {
            None if device == "cpu" => Arc::new(CpuBackend::new(threads)?),
            Some(("wgpu", number)) => Arc::new(WgpuBackend::new(Some(number.parse()?))?),
            Some(("cuda", number)) => Arc::new(CudaBackend::new(Some(number.parse()?))?),
            _ => return Err(format!("unknown device {device}").into()),
        };
        Ok(Self { backend, repeat, rows, width, features, k, only })
    }
}

/// Launches with memory of their own: noise where they read, but for what one before them wrote and what follows from other noise.
struct Job<'a> {
    backend: &'a dyn Backend,
    steps: Vec<(Plan, Vec<Option<Span>>)>,
}

/// A launch, and the names of its slots; a name stands for the same memory in all launches of a job.
type Step = (Plan, &'static [&'static str]);

impl<'a> Job<'a> {
    fn new(backend: &'a dyn Backend, width: usize, plans: Vec<Step>) -> Result<Self> {
        let mut known: HashMap<&str, Span> = HashMap::new();
        let mut steps = Vec::new();
        for (plan, names) in plans {
            let mut spans = Vec::new();
            for ((slot, desc), name) in plan.kernel.slots.iter().zip(&plan.slots).zip(names) {
                let Some(desc) = desc else {
                    spans.push(None);
                    continue;
                };
                if !known.contains_key(name) {
                    let span = backend.alloc(Contents::Undefined(desc.bytes()))?.span();
                    let noise = |of, n| -> Vec<f32> { noise(&format!("sae/{of}"), n).collect() };
                    let values = match (*name, &plan.slots[1]) {
                        // the weight that is screened is the other one, rounded
                        ("narrow", _) => noise("weight", desc.elements()),
                        ("errors", Some(weight)) => errors(&noise("weight", weight.elements()), width),
                        _ => noise(name, desc.elements()),
                    };
                    match (slot.access, desc.dtype) {
                        (Access::Read, DType::BF16) => {
                            let narrow: Vec<bf16> = values.into_iter().map(bf16::from_f32).collect();
                            backend.upload(&span, bytemuck::cast_slice(&narrow))?;
                        }
                        (Access::Read, _) => backend.upload(&span, bytemuck::cast_slice(&values))?,
                        _ => {}
                    }
                    known.insert(name, span);
                }
                spans.push(known.get(name).cloned());
            }
            steps.push((plan, spans));
        }
        Ok(Self { backend, steps })
    }

    fn run(&self) -> Result<()> {
        for (plan, spans) in &self.steps {
            self.backend.dispatch(plan, spans)?;
        }
        Ok(self.backend.wait()?)
    }

    /// Seconds of `repeat` runs after one that is not counted, the best first.
    fn times(&self, repeat: usize) -> Result<Vec<f64>> {
        self.run()?;
        let mut taken = Vec::new();
        for _ in 0..repeat.max(1) {
            let started = Instant::now();
            self.run()?;
            taken.push(started.elapsed().as_secs_f64());
        }
        taken.sort_by(f64::total_cmp);
        Ok(taken)
    }
}

fn main() -> Result<()> {
    let Options { backend, repeat, rows, width, features, k, only } = Options::read()?;
    let ceiling = Ceiling::measure(&*backend)?;
    let info = backend.info();
    let round = |seconds: f64| (seconds * 1e4).round() / 1e4;
    println!(
        "{}",
        json!({ "device": info.id, "name": info.name, "driver": info.driver,
            "matrix_gflop_per_s": round(ceiling.flops / 1e9) })
    );
    let (x, weight) = (TensorDesc::f32([rows, width]), TensorDesc::f32([features, width]));
    let bias = TensorDesc::f32([features]);
    let linear = Linear { activation: Activation::None };
    let narrow = |desc: &TensorDesc| TensorDesc::new(DType::BF16, desc.shape.clone());
    let screen = SaeScreen { k: screened(k, features) };
    let (found, scores) = (TensorDesc::u32([rows, screen.k]), TensorDesc::f32([rows, screen.k]));
    let round_step: Step = (Capture { dtype: DType::BF16 }.plan(&x, None)?, &["x", "", "rounded"]);
    let screen_step: Step = (
        screen.plan(&narrow(&x), &narrow(&weight), &bias)?,
        &["rounded", "narrow", "bias", "candidates", "scores"],
    );
    let rescore_step: Step = (
        SaeRescore { k }.plan(&x, &weight, &bias, &TensorDesc::f32([width + features]), &found, &scores)?,
        &["x", "weight", "bias", "errors", "candidates", "scores", "indices", "values"],
    );
    let jobs: [(&str, Vec<Step>); 4] = [
        (
            "encode",
            vec![(SaeEncode { k }.plan(&x, &weight, &bias)?, &["x", "weight", "bias", "indices", "values"])],
        ),
        ("encode bf16", vec![round_step, screen_step.clone(), rescore_step]),
        ("screen bf16 alone", vec![screen_step]),
        (
            "product alone",
            vec![(linear.plan(&x, &weight, Some(&bias), None)?, &["x", "weight", "bias", "", "y"])],
        ),
    ];
    let flops = 2.0 * (rows * width * features) as f64;
    let wanted = |job: &str| only.as_deref().is_none_or(|only| only == job);
    for (job, steps) in jobs.into_iter().filter(|(job, _)| wanted(job)) {
        let times = Job::new(&*backend, width, steps)?.times(repeat)?;
        println!(
            "{}",
            json!({ "job": job, "rows": rows, "width": width, "features": features, "k": k,
                "best_s": round(times[0]), "median_s": round(times[times.len() / 2]),
                "floor_s": round(flops / ceiling.flops), "rows_per_s": (rows as f64 / times[0]).round() })
        );
    }
    Ok(())
}
