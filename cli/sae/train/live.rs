//! Rows of audio as the model hears it: codes are made once, the decoder runs at every pass.

use super::TrainArgs;
use super::origin::Origin;
use super::source::{Parts, Place};
use crate::context::Context;
use anyhow::Result;
use auscult_analysis::AnalysisError;
use auscult_analysis::capture::{Failure, Heard, Model, MusicgenCapture, each_clip};
use auscult_analysis::record::{FileRecord, InputRecord, RunRecord};
use auscult_analysis::store::{Hook, StoreDtype};
use auscult_analysis::time;
use auscult_audio::Windows;
use auscult_model::Codes;
use auscult_model::musicgen::DecoderOptions;
use auscult_runtime::Backend;
use auscult_runtime::files::sha256_bytes;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// A model, and the codes of all clips.
pub(super) struct Live {
    model: MusicgenCapture,
    /// Clips of one length each, as many as are computed together at most.
    groups: Vec<Vec<Codes>>,
    lengths: Vec<usize>,
}

/// What opening a model and its audio gives.
pub(super) struct Opened {
    pub live: Live,
    pub places: Vec<Place>,
    pub origin: Origin,
    /// Inputs that were left out, or cut short.
    pub failed: Vec<Failure>,
}

impl Live {
    /// Opens the model, reads the audio and makes its codes. Files that cannot be read are told of, and left out.
    pub fn open(
        context: &Context,
        args: &TrainArgs,
        (dir, hooks): (&Path, &str),
        backend: Arc<dyn Backend>,
        record: &mut RunRecord,
    ) -> Result<Opened> {
        let precision = context.precision(&*backend);
        let options = DecoderOptions { precision, posemb: args.posemb, ..DecoderOptions::default() };
        let inputs = args.audio.inputs()?;
        let (model, files) = context.open_hashed("opening", dir, || {
            Ok(MusicgenCapture::open(dir, backend, &options, hooks, StoreDtype::F32)?)
        })?;
        record.precision = Some(precision.to_string());
        let weights_sha256 = files.weights_sha256;
        record.models.extend(files.files);
        if let Some(manifest) = args.audio.manifest() {
            record.inputs.push(InputRecord { file: FileRecord::of(manifest)?, audio: None });
        }
        let name = Some(dir.display().to_string());
        let spec = model.spec().clone();
        let place = |hook: &Hook| {
            Place::new(Some(hook.hook.clone()), Some(&hook.site), name.clone(), hook.width)
                .of_clips(args.window, spec.sample_rate, spec.hop_length)
                .with_posemb(args.posemb.name())
        };
        let places = model.hooks().iter().map(place).collect();

        let windows = Windows { window: args.window, ..Windows::default() };
        let longest = spec.longest_frames * spec.hop_length;
        let samples = args.window.map_or(longest, |s| (s * f64::from(spec.sample_rate)).round() as usize);
        let ahead = 2 * model.auto_batch(samples.clamp(1, longest));
        let bar = context.bar(inputs.len() as u64, "{bar:30} file {pos} of {len} to codes {eta}");
        let mut live = Self { model, groups: Vec::new(), lengths: Vec::new() };
        let (mut waiting, mut cuts): (Vec<Vec<f32>>, String) = Default::default();
        let failed = each_clip(&inputs, windows, &spec, usize::MAX, ahead, |heard| {
            match heard {
                Heard::Clip { clip, audio_sha256 } => {
                    cuts += &format!("{audio_sha256} {} {}\n", clip.start_sample, clip.samples.len());
                    live.add(clip.samples, &mut waiting)?;
                }
                Heard::Read { record: read, .. } => {
                    record.inputs.push(*read);
                    bar.inc(1);
                }
                Heard::Failed(failure) => {
                    let text = format!("left out: {}: {}", failure.audio_path, failure.message);
                    bar.suspend(|| context.note(&text));
                    bar.inc(1);
                }
            }
            Ok::<_, AnalysisError>(())
        })?;
        live.flush(&mut waiting)?;
        bar.finish_and_clear();
        record.details.insert("failed".into(), serde_json::to_value(&failed)?);
        let marks = [
            ("kind", json!("audio")),
            ("model_sha256", json!(weights_sha256)),
            ("posemb", json!(args.posemb.name())),
            ("precision", json!(precision.to_string())),
            ("clips", json!(cuts.lines().count())),
            ("sha256", json!(sha256_bytes(cuts.as_bytes()))),
        ];
        let name = match (args.audio.manifest(), inputs.as_slice()) {
            (Some(manifest), _) => manifest.display().to_string(),
            (None, [first, others @ ..]) if !others.is_empty() => {
                format!("{} and {} more", first.audio_path, others.len())
            }
            (None, inputs) => inputs.iter().map(|input| input.audio_path.as_str()).collect(),
        };
        let marks = marks.map(|(key, value)| (key.to_string(), value)).into_iter().collect();
        Ok(Opened { live, places, origin: Origin { name, marks }, failed })
    }

    /// Takes a clip; those that are computed together are of one length.
    fn add(&mut self, samples: Vec<f32>, waiting: &mut Vec<Vec<f32>>) -> Result<(), AnalysisError> {
        if waiting.first().is_some_and(|first| first.len() != samples.len()) {
            self.flush(waiting)?;
        }
        let most = self.model.auto_batch(samples.len());
        waiting.push(samples);
        if waiting.len() >= most { self.flush(waiting) } else { Ok(()) }
    }

    /// Makes codes of the clips that wait.
    fn flush(&mut self, waiting: &mut Vec<Vec<f32>>) -> Result<(), AnalysisError> {
        let clips: Vec<&[f32]> = waiting.iter().map(Vec::as_slice).collect();
        if clips.is_empty() {
            return Ok(());
        }
        let codes = match self.model.encode(&clips) {
            // a device with less memory than such batches are made for
            Err(AnalysisError::Batch { fits: fits @ 1.., .. }) => {
                let parts: Result<Vec<_>, _> =
                    clips.chunks(fits).map(|part| self.model.encode(part)).collect();
                parts?.concat()
            }
            codes => codes?,
        };
        self.lengths.push(codes.iter().map(|codes| time::positions(codes.frames())).sum());
        self.groups.push(codes);
        waiting.clear();
        Ok(())
    }
}

impl Parts for Live {
    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn read(&mut self, part: usize) -> Result<Vec<Vec<f32>>> {
        let outputs = self.model.forward(&self.groups[part])?;
        Ok(outputs.rows.iter().map(|bytes| bytemuck::pod_collect_to_vec(bytes)).collect())
    }
}
