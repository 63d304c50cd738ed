//! `auscult model`: what a checkpoint holds, a random one, conversion of audiocraft's.

use crate::context::Context;
use anyhow::Result;
use auscult_analysis::record::{FileRecord, RunRecord};
use auscult_kernels::DType;
use auscult_model::config::CheckpointConfig;
use auscult_model::convert::{ConvertKind, ConvertRequest, convert};
use auscult_model::init::{InitOptions, Preset, init_checkpoint};
use auscult_model::inspect::{Part, inspect};
use auscult_model::musicgen::Site;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub enum Command {
    /// What a checkpoint holds: sizes, tensors, types, files
    Info {
        /// A checkpoint directory
        path: PathBuf,
        /// List every tensor
        #[arg(long)]
        tensors: bool,
        /// Check every weight for NaN and infinity
        #[arg(long)]
        check_finite: bool,
    },
    /// Write a random checkpoint in the layout of Hugging Face
    Init {
        /// tiny, small, medium or large
        #[arg(long)]
        preset: Preset,
        /// Chooses the weights
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Type of the weights: f32, f16 or bf16
        #[arg(long, default_value = "f32", value_parser = storage)]
        dtype: DType,
        /// The directory to write
        #[arg(long)]
        out: PathBuf,
    },
    /// Convert a pickled checkpoint (audiocraft's, torch's, or an autoencoder of dictionary_learning or OpenAI) to
    /// safetensors; no code in it is run
    Convert {
        /// `state_dict.bin`, `ae.pt`, another torch archive, or a directory that holds one
        input: PathBuf,
        /// The codec: `compression_state_dict.bin`, or a checkpoint directory
        #[arg(long)]
        codec: Option<PathBuf>,
        /// The text encoder: a checkpoint directory
        #[arg(long)]
        text_encoder: Option<PathBuf>,
        /// The site that an autoencoder was trained at, where its file does not say: hook_layers.11, layers.3.mlp_out
        #[arg(long)]
        hook: Option<String>,
        /// The directory to write
        #[arg(long)]
        out: PathBuf,
    },
}

/// Reads the name of a two- or four-byte float type.
pub fn storage(name: &str) -> Result<DType, String> {
    match name {
        "f32" => Ok(DType::F32),
        "f16" => Ok(DType::F16),
        "bf16" => Ok(DType::BF16),
        _ => Err(format!("`{name}` is no storage type, expected f32, f16 or bf16")),
    }
}

pub fn run(context: &Context, command: &Command) -> Result<()> {
    match command {
        Command::Info { path, tensors, check_finite } => info(context, path, *tensors, *check_finite),
        Command::Init { preset, seed, dtype, out } => init(context, *preset, *seed, *dtype, out),
        Command::Convert { input, codec, text_encoder, hook, out } => {
            if let Some(hook) = hook {
                hook.parse::<Site>()?;
            }
            let request = ConvertRequest {
                input,
                codec: codec.as_deref(),
                text_encoder: text_encoder.as_deref(),
                hook: hook.as_deref(),
                out,
            };
            convert_checkpoint(context, &request)
        }
    }
}

fn info(context: &Context, path: &Path, list: bool, check_finite: bool) -> Result<()> {
    let report = inspect(path, check_finite)?;
    let mut text = format!("{}: {}\n", path.display(), report.config.model_type());
    text += &describe(&report.config);
    for Part { name, tensors, values, bytes } in &report.parts {
        text += &format!("{name:<16} {tensors:>5} tensors  {values:>13} values  {bytes:>14} bytes\n");
    }
    text += &format!("types            {}\n", report.types.join(", "));
    if let Some(exact) = report.decoder_f16_exact {
        let word = if exact { "yes: f16 storage loses nothing" } else { "no" };
        text += &format!("f16-exact        {word}\n");
    }
    for file in &report.files {
        text += &format!("file             {} ({} bytes)\n", file.path.display(), file.bytes);
    }
    if list {
        for tensor in &report.tensors {
            text += &format!("{}  {} {:?}\n", tensor.name, tensor.dtype, tensor.shape);
        }
    }
    let parts: Vec<_> = report
        .parts
        .iter()
        .map(|p| json!({ "name": p.name, "tensors": p.tensors, "values": p.values, "bytes": p.bytes }))
        .collect();
    let tensors: Vec<_> = report
        .tensors
        .iter()
        .map(|t| json!({ "name": t.name, "dtype": t.dtype.name(), "shape": t.shape }))
        .collect();
    let files: Vec<_> = report.files.iter().map(|f| json!({ "path": f.path, "bytes": f.bytes })).collect();
    let mut json = json!({
        "path": path,
        "model_type": report.config.model_type(),
        "config": summary(&report.config),
        "parts": parts,
        "types": report.types,
        "decoder_f16_exact": report.decoder_f16_exact,
        "files": files,
    });
    if list {
        json["tensors"] = tensors.into();
    }
    context.result(&text, &json);
    Ok(())
}

/// The numbers that matter, as a JSON object.
fn summary(config: &CheckpointConfig) -> serde_json::Value {
    let codec = config.audio_encoder();
    let codec = json!({
        "sampling_rate": codec.sampling_rate,
        "hop_length": codec.hop_length(),
        "frames_per_second": codec.frames_per_second(),
        "codebooks": codec.num_quantizers(),
        "codebook_size": codec.codebook_size,
        "causal": codec.use_causal_conv,
    });
    match config {
        CheckpointConfig::Encodec(_) => json!({ "codec": codec }),
        CheckpointConfig::Musicgen(c) | CheckpointConfig::MusicgenMelody(c) => json!({
            "decoder": {
                "hidden_size": c.decoder.hidden_size,
                "layers": c.decoder.num_hidden_layers,
                "heads": c.decoder.num_attention_heads,
                "head_dim": c.decoder.head_dim(),
                "ffn_dim": c.decoder.ffn_dim,
                "codebooks": c.decoder.num_codebooks,
                "vocab_size": c.decoder.vocab_size,
                "audio_channels": c.decoder.audio_channels,
                "trained_frames": c.trained_frames(),
            },
            "codec": codec,
        }),
    }
}

fn describe(config: &CheckpointConfig) -> String {
    let mut text = String::new();
    if let CheckpointConfig::Musicgen(c) | CheckpointConfig::MusicgenMelody(c) = config {
        let d = &c.decoder;
        text += &format!(
            "decoder          {} layers of width {}, {} heads of {}, feed-forward {}, {} codebooks of {}\n",
            d.num_hidden_layers,
            d.hidden_size,
            d.num_attention_heads,
            d.head_dim(),
            d.ffn_dim,
            d.num_codebooks,
            d.vocab_size
        );
        text += &format!(
            "sites            layers.0..={}.<resid_pre | self_attn_out | resid_mid | cross_attn_out | mlp_out | \
             resid_post>, embed, final_norm, logits\n",
            d.num_hidden_layers - 1
        );
    }
    let c = config.audio_encoder();
    text += &format!(
        "codec            {} Hz, {} samples a frame, {} frames a second, {} codebooks of {}{}\n",
        c.sampling_rate,
        c.hop_length(),
        c.frames_per_second(),
        c.num_quantizers(),
        c.codebook_size,
        if c.use_causal_conv { ", causal" } else { "" }
    );
    text
}

fn init(context: &Context, preset: Preset, seed: u64, dtype: DType, out: &Path) -> Result<()> {
    let mut record = RunRecord::start(std::env::args().collect());
    record.seed = Some(seed);
    let bar = context.bar(1, "{bar:30} {bytes} of {total_bytes} {eta}");
    let options = InitOptions { seed, dtype, ..InitOptions::default() };
    let report = init_checkpoint(&preset.config(), options, out, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    record_checkpoint(record, out, &report.files)?;
    let text = format!(
        "{}: random {} checkpoint, seed {seed}: {} tensors, {} values",
        out.display(),
        preset.name(),
        report.tensors,
        report.values
    );
    let json = json!({
        "out": out, "preset": preset.name(), "seed": seed, "tensors": report.tensors, "values": report.values,
        "files": report.files,
    });
    context.result(&text, &json);
    Ok(())
}

/// Writes `run.json` beside a checkpoint that was written, with the hash of each of its files.
fn record_checkpoint(mut record: RunRecord, out: &Path, files: &[PathBuf]) -> Result<()> {
    record.models = files.iter().map(FileRecord::of).collect::<Result<_, _>>()?;
    record.finish();
    record.write(out)?;
    Ok(())
}

fn convert_checkpoint(context: &Context, request: &ConvertRequest<'_>) -> Result<()> {
    let mut record = RunRecord::start(std::env::args().collect());
    let bar = context.bar(1, "{bar:30} {bytes} of {total_bytes} {eta}");
    let report = convert(request, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    record.details.insert("dropped".to_string(), json!(report.dropped));
    record.details.insert("notes".to_string(), json!(report.notes));
    record_checkpoint(record, request.out, &report.files)?;
    let kind = match report.kind {
        ConvertKind::Musicgen => "musicgen",
        ConvertKind::Encodec => "encodec",
        ConvertKind::Autoencoder => "autoencoder",
        ConvertKind::StateDict => "state dict",
    };
    let mut text =
        format!("{}: {kind}, {} tensors, {} bytes\n", request.out.display(), report.tensors, report.bytes);
    report.notes.iter().for_each(|note| text += &format!("note: {note}\n"));
    if !report.dropped.is_empty() {
        text += &format!("left out: {}\n", report.dropped.join(", "));
    }
    let json = json!({
        "out": request.out, "kind": kind, "tensors": report.tensors, "bytes": report.bytes, "dropped": report.dropped,
        "notes": report.notes, "files": report.files,
    });
    context.result(&text, &json);
    Ok(())
}
