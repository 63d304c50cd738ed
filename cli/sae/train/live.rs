//! Rows of audio as the model hears it: codes are made once, the decoder runs at every pass.

use super::TrainArgs;
use super::source::{Parts, Place};
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::capture::{Model, MusicgenCapture};
use auscult_analysis::input::from_paths;
use auscult_analysis::record::{FileRecord, InputRecord, RunRecord};
use auscult_analysis::store::StoreDtype;
use auscult_analysis::time;
use auscult_audio::{ClipSource, Stream, Strictness, Windows};
use auscult_model::Codes;
use auscult_model::musicgen::DecoderOptions;
use auscult_runtime::Backend;
use std::sync::Arc;

/// A model, and the codes of all clips.
pub(super) struct Live {
    model: MusicgenCapture,
    /// Clips of one length each, as many as are computed together at most.
    groups: Vec<Vec<Codes>>,
    lengths: Vec<usize>,
}

impl Live {
    /// Opens the model, reads the audio and makes its codes.
    pub fn open(
        context: &Context,
        args: &TrainArgs,
        backend: Arc<dyn Backend>,
        record: &mut RunRecord,
    ) -> Result<(Self, Vec<Place>)> {
        let (Some(dir), Some(hooks)) = (&args.model, &args.hooks) else {
            unreachable!("clap asks for a source of rows, and for the hooks of a model")
        };
        let precision = context.precision(&*backend);
        let options = DecoderOptions { precision, posemb: args.posemb, ..DecoderOptions::default() };
        let inputs = from_paths(&args.audio)?;
        let (mut model, files) = context.open_hashed("opening", dir, || {
            Ok(MusicgenCapture::open(dir, backend, &options, hooks, StoreDtype::F32)?)
        })?;
        record.precision = Some(precision.to_string());
        record.models.extend(files.files);
        let windows = Windows { window: args.window, ..Windows::default() };
        let (rate, longest) =
            (model.spec().sample_rate, model.spec().longest_frames * model.spec().hop_length);
        let bar = context.bar(inputs.len() as u64, "{bar:30} file {pos} of {len} to codes {eta}");
        let (mut groups, mut lengths): (Vec<Vec<Codes>>, Vec<usize>) = (Vec::new(), Vec::new());
        for input in &inputs {
            record.inputs.push(InputRecord { file: FileRecord::of(&input.path)?, audio: None });
            let stream = Stream::open(&input.path, rate, Strictness::Strict)?;
            for clip in ClipSource::new(stream, &windows)?.longest_clip(longest) {
                let clip = clip?;
                let most = model.auto_batch(clip.samples.len());
                let codes = model.encode(&[&clip.samples])?;
                for codes in codes {
                    let rows = time::positions(codes.frames());
                    match groups.last_mut() {
                        Some(group) if group.len() < most && group[0].frames() == codes.frames() => {
                            group.push(codes);
                            *lengths.last_mut().expect("one for each group") += rows;
                        }
                        _ => {
                            groups.push(vec![codes]);
                            lengths.push(rows);
                        }
                    }
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        if groups.is_empty() {
            return Err(Failure::input("the audio holds no clip, expected at least one"));
        }
        let name = Some(dir.display().to_string());
        let place = |hook: &auscult_analysis::store::Hook| {
            Place::new(Some(hook.hook.clone()), Some(&hook.site), name.clone(), hook.width)
        };
        let places = model.hooks().iter().map(place).collect();
        Ok((Self { model, groups, lengths }, places))
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
