//! `auscult demo`: the main job from nothing, with no downloads.

use crate::audio_file::write_wav;
use crate::capture::{self, capture_into_store};
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::input::from_paths;
use auscult_analysis::record::{DeviceRecord, ModelRecord, RunRecord};
use auscult_analysis::store::StoreReader;
use auscult_audio::synth::{Occurrence, render};
use auscult_audio::wav::Encoding;
use auscult_model::init::{Preset, init};
use auscult_runtime::files::atomic_write_bytes;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The piece's length in seconds: four windows, the last one short.
const SECONDS: f64 = 36.0;
/// Clips, in seconds: what published autoencoders were trained on.
const WINDOW: f64 = 10.0;
/// Chooses the piece and the weights.
const SEED: u64 = 7;
/// What marks a directory as this command's own, which it may then write anew.
const MARK: &str = "demo.json";
const HOOKS: &str = "embed,hook_layers.{0,1,2}";

#[derive(clap::Args)]
pub struct Args {
    /// The directory to write
    #[arg(long, default_value = "demo-out")]
    out: PathBuf,
}

pub fn run(context: &Context, args: &Args) -> Result<()> {
    let out = &args.out;
    let mut record = RunRecord::start(std::env::args().collect());
    prepare(out)?;
    let music = out.join("music.wav");
    let model = out.join("model");
    let store = out.join("store");

    let motif = compose(&music)?;
    context.note(&format!("rendered {SECONDS} s of music with a returning motif"));
    init(Preset::Tiny, SEED, &model)?;
    context.note("wrote a tiny MusicGen with random weights (nothing was downloaded)");

    let backend = context.backend()?;
    record.seed = Some(SEED);
    record.device = Some(DeviceRecord::from(backend.info()));
    record.precision = Some(context.precision(&*backend).to_string());
    record.models = ModelRecord::of("model", &model)?.files;
    let job = capture::Args {
        model: model.clone(),
        audio: vec![music.clone()],
        manifest: None,
        audio_root: None,
        hooks: Some(HOOKS.into()),
        sae: Vec::new(),
        sae_precision: None,
        sae_only: false,
        allow_misaligned: false,
        out: store.clone(),
        text: None,
        window: Some(WINDOW),
        stride: None,
        start: 0.0,
        duration: None,
        drop_last: false,
        dtype: auscult_analysis::store::StoreDtype::F32,
        posemb: auscult_model::musicgen::Posemb::F32,
        batch: auscult_analysis::capture::Batch::Auto,
        resume: false,
        limit: None,
        check_finite: true,
        explain: false,
        shard_rows: capture::SHARD_ROWS,
    };
    let summary = capture_into_store(context, &job, from_paths(&job.audio)?, backend)?;

    let reader = StoreReader::open(&store)?;
    let report = report(&reader, &motif)?;
    atomic_write_bytes(out.join(MARK), format!("{report:#}\n").as_bytes())?;
    record.finish();
    record.write(out)?;
    let text = tell(&music, &model, &store, &motif, &report) + &capture::describe(&summary);
    context.result(&text, &report);
    Ok(())
}

/// Makes the directory, or clears one that an earlier demo made. Anything else in its place is left alone.
fn prepare(out: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Failure::failed(format!("{}: {e}", out.display()));
    if out.join(MARK).is_file() {
        std::fs::remove_dir_all(out).map_err(failed)?;
    }
    std::fs::create_dir_all(out).map_err(failed)?;
    if let Some(entry) = std::fs::read_dir(out).map_err(failed)?.next() {
        let entry = entry.map_err(failed)?;
        let message = format!(
            "{} is no directory of an earlier demo, and not empty (it holds `{}`); choose another with --out",
            out.display(),
            entry.file_name().display()
        );
        return Err(Failure::usage(message));
    }
    // marked before anything is written, so that an interrupted demo can be run again
    atomic_write_bytes(out.join(MARK), b"{}\n")?;
    Ok(())
}

/// Renders the piece to a WAV file, and says where its motif sounds.
fn compose(path: &Path) -> Result<Vec<Occurrence>> {
    let piece = render(SECONDS, 44_100, SEED);
    write_wav(path, &piece.samples, piece.sample_rate, Encoding::Int16)?;
    Ok(piece.motif)
}

/// What was captured, per hook: rows, width and the root mean square of the activations.
fn report(store: &StoreReader, motif: &[Occurrence]) -> Result<Value> {
    let mut hooks = Vec::new();
    for site in &store.meta().sites {
        let (mut squares, mut values, mut rows) = (0.0, 0, 0);
        for clip in store.clips() {
            let row_values = store.rows(&site.hook, &clip.clip_id)?;
            squares += row_values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
            values += row_values.len();
            rows += clip.positions;
        }
        let rms = (squares / values as f64).sqrt();
        hooks.push(
            json!({ "hook": site.hook, "site": site.site, "rows": rows, "width": site.width, "rms": rms }),
        );
    }
    let motif: Vec<_> = motif
        .iter()
        .map(|m| json!({ "start": m.start_seconds, "end": m.end_seconds, "transposed": m.transposed }))
        .collect();
    let clips: Vec<_> = store
        .clips()
        .iter()
        .map(|c| json!({ "clip_id": c.clip_id, "start": c.start_seconds, "end": c.end_seconds, "positions": c.positions }))
        .collect();
    Ok(
        json!({ "music": "music.wav", "model": "model", "store": "store", "motif": motif, "clips": clips, "hooks": hooks }),
    )
}

fn tell(music: &Path, model: &Path, store: &Path, motif: &[Occurrence], report: &Value) -> String {
    let mut text = format!("music   {}\n", music.display());
    for m in motif {
        text += &format!(
            "        motif {:5.2} s to {:5.2} s, {:+} semitones\n",
            m.start_seconds, m.end_seconds, m.transposed
        );
    }
    text +=
        &format!("model   {} (tiny, random weights: it shows the way, it knows no music)\n", model.display());
    text += &format!("store   {}\n", store.display());
    for hook in report["hooks"].as_array().into_iter().flatten() {
        let rms = hook["rms"].as_f64().unwrap_or(f64::NAN);
        let name = hook["hook"].as_str().unwrap_or_default();
        text += &format!("        {name:<14} resid [{}, {}], rms {rms:.3}\n", hook["rows"], hook["width"]);
    }
    text
}
