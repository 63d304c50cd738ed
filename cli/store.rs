//! `auscult store`: look at a store, check it, export it.

use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::{FileRecord, InputRecord, RunRecord};
use auscult_analysis::store::{SHA256SUMS, StoreReader, StoreState, export_npy, info, verify};
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub enum Command {
    /// What a store holds
    Info {
        /// The store
        store: PathBuf,
    },
    /// Hash every file and hold every tensor against the index; exit code 4 where anything is wrong
    Verify {
        /// The store
        store: PathBuf,
    },
    /// Write activations in another format
    Export {
        /// The store
        store: PathBuf,
        /// NumPy files: `<out>/<track>/<hook>.residual.npy`
        #[arg(long, required = true)]
        npy: bool,
        /// The directory to write
        #[arg(long)]
        out: PathBuf,
    },
}

pub fn run(context: &Context, command: &Command) -> Result<()> {
    match command {
        Command::Info { store } => show(context, store),
        Command::Verify { store } => check(context, store),
        Command::Export { store, npy: _, out } => export(context, store, out),
    }
}

fn show(context: &Context, store: &Path) -> Result<()> {
    let info = info(store)?;
    let state = match info.state {
        StoreState::Finished => "finished".to_string(),
        StoreState::Unfinished { clips } => {
            format!("unfinished, {clips} clips safe on disk; `capture --resume` continues")
        }
    };
    let meta = &info.meta;
    let mut text = format!("{}: {state}\n", store.display());
    text += &format!("model     {} ({})\n", meta.model, meta.model_sha256);
    for site in &meta.sites {
        if meta.sae_only {
            text += &format!(
                "hook      {} = {} [{} x {}] not stored\n",
                site.hook, site.site, info.positions, site.width
            );
            continue;
        }
        text += &format!(
            "hook      {} = {} [{} x {}] {}\n",
            site.hook, site.site, info.positions, site.width, meta.dtype
        );
    }
    for sae in &meta.saes {
        let k = sae.k.map_or("any number".to_string(), |k| k.to_string());
        text += &format!(
            "features  {} of {} ({}, {k} of {} a row{})\n",
            sae.name,
            sae.hook,
            sae.architecture,
            sae.features,
            if sae.precision == "f32" {
                String::new()
            } else {
                format!(", by products in {}", sae.precision)
            }
        );
    }
    text += &format!(
        "clips     {} ({} partial) of {} tracks, {:.1} s\n",
        info.clips, info.partial_clips, info.tracks, info.audio_seconds
    );
    text +=
        &format!("size      {} bytes in {} files, {} shards a hook\n", info.bytes, info.files, info.shards);
    text += &format!("time      position s lies at (s - 1) / {} seconds of its clip", meta.frame_rate);
    context.result(&text, &serde_json::to_value(&info)?);
    Ok(())
}

fn check(context: &Context, store: &Path) -> Result<()> {
    let report = verify(store)?;
    let mut text = format!(
        "{}: {} files, {} bytes, {} clips",
        store.display(),
        report.files,
        report.bytes,
        report.clips
    );
    text += if report.is_sound() { ": sound" } else { ": NOT sound" };
    context.result(&text, &serde_json::to_value(&report)?);
    if report.is_sound() {
        return Ok(());
    }
    Err(Failure::refused(report.problems.join("\n  ")))
}

fn export(context: &Context, store: &Path, out: &Path) -> Result<()> {
    let mut record = RunRecord::start(std::env::args().collect());
    let reader = StoreReader::open(store)?;
    let bar = context.bar(reader.clips().len() as u64, "{bar:30} clip {pos} of {len} {eta}");
    let exported = export_npy(&reader, out, |clips| bar.set_position(clips as u64))?;
    bar.finish_and_clear();
    // the store's list of hashes stands for all of its files
    record.inputs.push(InputRecord { file: FileRecord::of(store.join(SHA256SUMS))?, audio: None });
    record.details.insert("exported".to_string(), serde_json::to_value(&exported)?);
    record.finish();
    record.write(out)?;
    let text = format!(
        "{}: {} files of {} clips, {} bytes",
        out.display(),
        exported.files,
        exported.clips,
        exported.bytes
    );
    context.result(&text, &serde_json::to_value(&exported)?);
    Ok(())
}
