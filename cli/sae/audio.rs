//! Audio that an autoencoder is held against, or trained on.

use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::capture::{self, ModelSpec, first_clips};
use auscult_analysis::input::{Input, from_manifest, from_paths};
use auscult_audio::{Clip, Windows};
use auscult_model::musicgen::Posemb;
use auscult_model::sae::Sae;
use std::path::{Path, PathBuf};

/// Seconds of a clip where the autoencoder does not say what it was trained with: as the published ones.
const WINDOW: f64 = 10.0;

#[derive(clap::Args)]
pub struct AudioArgs {
    /// Audio files
    #[arg(conflicts_with = "manifest")]
    audio: Vec<PathBuf>,
    /// A manifest of audio: one JSON object a line, with at least `track_id` and `audio_path`
    #[arg(long, requires = "audio_root")]
    manifest: Option<PathBuf>,
    /// The directory that a manifest's paths are relative to
    #[arg(long, requires = "manifest")]
    audio_root: Option<PathBuf>,
}

impl AudioArgs {
    /// Whether any audio is named.
    pub fn given(&self) -> bool {
        self.manifest.is_some() || !self.audio.is_empty()
    }

    /// The manifest that names it.
    pub fn manifest(&self) -> Option<&Path> {
        self.manifest.as_deref()
    }

    /// The audio that is named.
    pub fn inputs(&self) -> Result<Vec<Input>> {
        match (&self.manifest, &self.audio_root) {
            (Some(manifest), Some(root)) => Ok(from_manifest(manifest, root)?),
            _ if self.audio.is_empty() => {
                Err(Failure::usage("AUDIO is empty, expected audio files, or --manifest with --audio-root"))
            }
            _ => Ok(from_paths(&self.audio)?),
        }
    }
}

/// Seconds of a clip: of what the autoencoder was trained with where it says so (`context_size`, in positions).
pub fn usual_window(sae: &Sae, spec: &ModelSpec) -> f64 {
    let context = sae.settings().metadata.other.get("context_size").and_then(|size| size.as_u64());
    let frames = context.map(|positions| positions.saturating_sub(1)).filter(|&frames| frames > 0);
    let longest = spec.longest_frames as f64 / spec.frame_rate;
    frames.map_or(WINDOW, |frames| frames as f64 / spec.frame_rate).min(longest)
}

/// How positions of the rows that the autoencoder was trained with were computed, where it says so (`posemb`).
pub fn trained_posemb(sae: &Sae) -> Option<Posemb> {
    sae.settings().metadata.other.get("posemb")?.as_str()?.parse().ok()
}

/// Tells of rows whose positions are computed in another way, `used`, than those that the autoencoder was trained with.
pub fn note_posemb(context: &Context, dir: &Path, sae: &Sae, used: &str) {
    if let Some(trained) = trained_posemb(sae).filter(|trained| trained.name() != used) {
        let dir = dir.display();
        context.note(&format!("{dir}: was trained with positions {trained}, those of these rows are {used}"));
    }
}

/// The first clips of a window's length, and the files that cannot be read, which are told of.
pub fn clips(
    context: &Context,
    inputs: &[Input],
    spec: &ModelSpec,
    window: f64,
    limit: usize,
) -> Result<(Vec<Clip>, Vec<capture::Failure>)> {
    let windows = Windows { window: Some(window), ..Windows::default() };
    let (clips, failed) = first_clips(inputs, windows, spec, limit)?;
    for failure in &failed {
        context.note(&format!("left out: {}: {}", failure.audio_path, failure.message));
    }
    Ok((clips, failed))
}
