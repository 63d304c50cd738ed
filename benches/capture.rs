//! The main job at real sizes: forward pass, codec, and capture end to end, each beside its floor.
//!
//! `cargo bench --bench capture -- [--model DIR] [--device cpu|wgpu:N|cuda:N] [--threads N] [--repeat N]
//! [--seconds S] [--clips N,N,...] [--precision f32|bf16|f16] [--features N] [--sae-precision f32,bf16]`
//!
//! `--features` measures the forward pass with a top-100 autoencoder of so many features at each of the five hooks too, which
//! multiplies in each of `--sae-precision` (f32), beside the pass without it.
//!
//! Without `--model` it writes a random checkpoint of musicgen-small's dimensions (2.4 GB) below the target directory
//! once. Lines are JSON, as those of `benches/peers/torch_cpu.py`, which times the same jobs in torch.

mod common;

use auscult_analysis::capture::{CaptureJob, MusicgenCapture, capture};
use auscult_analysis::input::from_paths;
use auscult_analysis::record::{DeviceRecord, ModelRecord};
use auscult_analysis::store::StoreDtype;
use auscult_audio::Windows;
use auscult_audio::synth::render;
use auscult_audio::wav::{Encoding, write};
use auscult_kernels::DType;
use auscult_model::Codes;
use auscult_model::encodec::Encodec;
use auscult_model::musicgen::{Decoder, DecoderOptions, Precision};
use auscult_model::sae::{Sae, SaeOutputs, SaeParts};
use auscult_runtime::{Edits, Step};
use common::{Options, Result, round, scratch, time};
use serde_json::{Value, json};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// The sites that published autoencoders of musicgen-small read.
const HOOKS: [&str; 5] =
    ["hook_layers.1", "hook_layers.5", "hook_layers.11", "hook_layers.17", "hook_layers.21"];

/// Features a row of published autoencoders of musicgen-small.
const SAE_K: usize = 100;

fn main() -> Result<()> {
    let options = Options::read(&[1])?;
    println!("{}", options.about());
    loading(&options)?;
    for &clips in &options.batches {
        codec(&options, clips)?;
        forward(&options, clips)?;
    }
    end_to_end(&options)?;
    options.batches.iter().try_for_each(|&clips| autoencoders(&options, clips))
}

/// Best seconds of `repeat` runs on the device's own clock, idle time between launches included; `None` if it has none.
fn device_time(options: &Options, mut job: impl FnMut() -> Result<()>) -> Result<Option<f64>> {
    let mut best: Option<f64> = None;
    for _ in 0..options.repeat.max(1) {
        let mut done = Ok(());
        let timed = options.backend.time(&mut || {
            done = job();
            Ok(())
        })?;
        done?;
        let seconds = timed.device.map(|taken| taken.as_secs_f64());
        best = seconds.map(|seconds| best.map_or(seconds, |best| best.min(seconds)));
    }
    Ok(best)
}

fn line(job: &str, seconds: (f64, f64), audio: f64, facts: Value) {
    let (best, median) = seconds;
    let mut line = json!({
        "job": job,
        "best_s": round(best),
        "median_s": round(median),
        "audio_s_per_s": round(audio / best),
    });
    for (key, value) in facts.as_object().into_iter().flatten() {
        line[key] = value.clone();
    }
    println!("{line}");
}

/// Opening is mapping: how long until the first kernel has run.
fn loading(options: &Options) -> Result<()> {
    let started = Instant::now();
    let decoder = options.open()?;
    let opened = started.elapsed().as_secs_f64();
    let mut edits = Edits::new();
    edits.capture("layers.0.resid_pre", DType::F32);
    let first = decoder.teacher_forced(1, 1, edits)?;
    let codebooks = decoder.config().num_codebooks;
    first.run(&[Codes::new(codebooks, 1, vec![0; codebooks])?])?;
    first.output("layers.0.resid_pre")?;
    let first_kernel = started.elapsed().as_secs_f64();
    println!("{}", json!({ "job": "load", "open_s": round(opened), "first_kernel_s": round(first_kernel) }));
    Ok(())
}

fn forward(options: &Options, clips: usize) -> Result<()> {
    let decoder = options.open()?;
    let config = decoder.config();
    let frames = options.seconds * 50;
    let codes = vec![some_codes(&decoder, frames)?; clips];
    let audio = (clips * options.seconds) as f64;
    let dtype = as_computed(options.precision);
    let most = if dtype == DType::F32 { options.ceiling.flops } else { options.ceiling.half_flops };
    for (job, sites) in
        [("forward to hook_layers.21, five hooks", HOOKS.to_vec()), ("forward to logits", vec!["logits"])]
    {
        let sites: Vec<_> =
            sites.into_iter().filter(|s| config.num_hidden_layers > 21 || !s.starts_with("hook")).collect();
        if sites.is_empty() {
            continue;
        }
        let mut edits = Edits::new();
        for site in &sites {
            edits.capture(site, dtype);
        }
        let pass = decoder.teacher_forced(clips, frames, edits)?;
        let flops: u64 = pass
            .graph()
            .steps()
            .iter()
            .map(|step| if let Step::Dispatch { plan, .. } = step { plan.cost.flops } else { 0 })
            .sum();
        let taken = time(options.repeat, || {
            pass.run(&codes)?;
            for site in &sites {
                pass.output(site)?;
            }
            Ok(())
        })?;
        let positions = (clips * (frames + 1)) as f64;
        let mut facts = json!({
            "precision": options.precision.name(),
            "clips": clips,
            "positions_per_s": round(positions / taken.0),
            "gflop": round(flops as f64 / 1e9),
            "gflop_per_s": round(flops as f64 / taken.0 / 1e9),
            "floor_s": round(flops as f64 / most),
            "arena_bytes": pass.arena_bytes(),
        });
        // without bringing the activations to the host
        if let Some(seconds) = device_time(options, || Ok(pass.run(&codes)?))? {
            facts["device_s"] = json!(seconds);
            facts["device_positions_per_s"] = json!(round(positions / seconds));
        }
        line(job, taken, audio, facts);
    }
    Ok(())
}

/// The type of stored rows that costs nothing: that of the decoder.
fn as_computed(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::F16 => DType::F16,
        Precision::BF16 => DType::BF16,
    }
}

fn some_codes(decoder: &Decoder, frames: usize) -> Result<Codes> {
    let config = decoder.config();
    let code = |i: usize| u32::try_from(i * 7919 % config.vocab_size).expect("codes fit in u32");
    let codes = (0..config.num_codebooks * frames).map(code).collect();
    Ok(Codes::new(config.num_codebooks, frames, codes)?)
}

/// The forward pass with an autoencoder at each of five hooks, whose features come to the host, beside the pass of a capture that
/// stores nothing: rows of the hooks stay on the device.
fn autoencoders(options: &Options, clips: usize) -> Result<()> {
    let decoder = options.open()?;
    let config = decoder.config();
    if options.features == 0 || config.num_hidden_layers <= 21 {
        return Ok(());
    }
    let (width, frames) = (config.hidden_size, options.seconds * 50);
    let codes = vec![some_codes(&decoder, frames)?; clips];
    let mut kept = Edits::new();
    for hook in HOOKS {
        kept.capture(hook, as_computed(options.precision));
    }
    let without = {
        let pass = decoder.teacher_forced(clips, frames, kept)?;
        time(options.repeat, || {
            pass.run(&codes)?;
            Ok(options.backend.wait()?)
        })?
    };
    let autoencoder = random_sae(width, options.features)?;
    for &precision in &options.sae_precisions {
        // one for all hooks: it reads and writes what five would
        let on_device = autoencoder.on_device(&*options.backend, precision)?;
        let mut encoded = Edits::new();
        for hook in HOOKS {
            encoded.insert(hook, on_device.inserts(&SaeOutputs::of(hook), clips, 0));
        }
        let pass = decoder.teacher_forced(clips, frames, encoded)?;
        let outputs: Vec<String> = pass.graph().outputs().map(String::from).collect();
        let with = time(options.repeat, || {
            pass.run(&codes)?;
            Ok(outputs.iter().try_for_each(|name| pass.inserted_output(name).map(drop))?)
        })?;
        let facts = json!({
            "precision": options.precision.name(),
            "sae_precision": precision.name(),
            "clips": clips,
            "features": options.features,
            "k": SAE_K,
            "positions_per_s": round((clips * (frames + 1)) as f64 / with.0),
            "without_s": round(without.0),
            "times_as_long": round(with.0 / without.0),
        });
        line("forward to hook_layers.21, five autoencoders", with, (clips * options.seconds) as f64, facts);
    }
    Ok(())
}

/// An autoencoder of noise.
fn random_sae(width: usize, features: usize) -> Result<Sae> {
    let noise = |seed: u32, count: usize| -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / 8_388_608.0 - 1.0) / 32.0
        };
        (0..count).map(|_| next()).collect()
    };
    let parts = SaeParts {
        w_enc: noise(1, width * features),
        b_enc: noise(2, features),
        w_dec: noise(3, width * features),
        b_dec: noise(4, width),
    };
    Ok(Sae::new(parts, Some(SAE_K), None)?)
}

fn codec(options: &Options, clips: usize) -> Result<()> {
    let codec = Encodec::open(&options.model, options.backend.clone())?;
    let audio = options.seconds as f64;
    let samples = render(audio, codec.config().sampling_rate, 1).samples;
    let clips: Vec<&[f32]> = vec![&samples; clips];
    let codes = codec.encode(&clips)?.remove(0);
    let mut encode = || {
        codec.encode(&clips)?;
        Ok(())
    };
    let taken = time(options.repeat, &mut encode)?;
    let on_device = device_time(options, encode)?;
    // 7.775 GFLOP a second of audio each way at the 32 kHz configuration, and 0.105 for the search of codes
    let facts = |gflop: f64, taken: (f64, f64)| {
        json!({
            "gflop": round(gflop),
            "gflop_per_s": round(gflop / taken.0),
            "floor_s": round(gflop * 1e9 / options.ceiling.flops),
        })
    };
    let encoded = clips.len() as f64 * audio;
    let mut encoding = facts((7.775 + 0.105) * encoded, taken);
    encoding["clips"] = json!(clips.len());
    encoding["audio_s"] = json!(encoded);
    if let Some(seconds) = on_device {
        encoding["device_s"] = json!(seconds);
    }
    line("EnCodec encode", taken, encoded, encoding);
    let taken = time(options.repeat, || {
        codec.decode(&codes)?;
        Ok(())
    })?;
    line("EnCodec decode", taken, audio, facts(7.775 * audio, taken));
    Ok(())
}

/// A WAV file through everything, into a store on disk.
fn end_to_end(options: &Options) -> Result<()> {
    let dir = tempfile::tempdir_in(scratch())?;
    let wav = dir.path().join("music.wav");
    let clips = 4;
    let piece = render((clips * options.seconds) as f64, 44_100, 1);
    write(std::fs::File::create(&wav)?, piece.sample_rate, &piece.samples, Encoding::Int16)?;
    let decoder = DecoderOptions { precision: options.precision, ..DecoderOptions::default() };
    let hooks =
        if options.open()?.config().num_hidden_layers > 21 { HOOKS.join(",") } else { "embed".to_string() };
    let mut model =
        MusicgenCapture::open(&options.model, options.backend.clone(), &decoder, &hooks, StoreDtype::F16)?;
    let record = ModelRecord::of("bench", &options.model)?;
    let device = DeviceRecord::from(options.backend.info());
    let job = CaptureJob {
        windows: Windows { window: Some(options.seconds as f64), ..Windows::default() },
        dtype: StoreDtype::F16,
        ..CaptureJob::new(dir.path().join("store"), from_paths(&[wav])?, record, device)
    };
    let summary = capture(job, &mut model, &(), &AtomicBool::new(false))?;
    let mut line = serde_json::to_value(summary.stages)?;
    line["job"] = json!("capture end to end, five hooks, f16 store");
    line["audio_s"] = json!(summary.audio_seconds);
    line["wall_s"] = json!(round(summary.wall_seconds));
    line["audio_s_per_s"] = json!(round(summary.audio_seconds_per_second()));
    println!("{line}");
    Ok(())
}
