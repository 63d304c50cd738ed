//! What a capture needs of a model, and MusicGen as such a model.

use std::path::Path;
use std::sync::Arc;

use auscult_audio::Clip;
use auscult_kernels::DType;
use auscult_model::Codes;
use auscult_model::encodec::Encodec;
use auscult_model::musicgen::generate::Text;
use auscult_model::musicgen::{Decoder, DecoderOptions, Fetching, Posemb, TeacherForced, parse_sites};
use auscult_model::{ModelError, largest_batch};
use auscult_runtime::{Backend, DeviceError, DeviceInfo, Edit, Edits};

use super::saes::{HookSae, Reading};
use crate::alignment::{Look, first_look};
use crate::error::{AnalysisError, Result};
use crate::store::{Hook, SaeMeta, SaeRows, StoreDtype};
use crate::time;

/// The numbers of a model that cutting and storing need.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Samples a second that it takes, in Hz.
    pub sample_rate: u32,
    /// Samples of one frame.
    pub hop_length: usize,
    /// Frames a second.
    pub frame_rate: f64,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Codebooks of the codes it is fed.
    pub codebooks: usize,
    /// Codes of one codebook.
    pub codebook_size: usize,
    /// Frames of the longest clip it takes.
    pub longest_frames: usize,
}

/// A model whose activations can be captured. Clips of one call are all of one length.
pub trait Model {
    /// A batch that it was started on.
    type Running;

    /// Its numbers.
    fn spec(&self) -> &ModelSpec;

    /// The hooks whose rows [`finish`](Self::finish) returns.
    fn hooks(&self) -> &[Hook];

    /// Codes of clips: `ceil(samples / hop)` frames each.
    ///
    /// # Errors
    /// Failures of the device.
    fn encode(&mut self, clips: &[&[f32]]) -> Result<Vec<Codes>>;

    /// The autoencoders whose features [`finish`](Self::finish) returns.
    fn saes(&self) -> Vec<&SaeMeta> {
        Vec::new()
    }

    /// Whether [`finish`](Self::finish) returns rows; where not, features are all that is wanted.
    fn shows_rows(&self) -> bool {
        true
    }

    /// Begins to run clips. Other batches may be encoded and started before this one is finished.
    ///
    /// # Errors
    /// Failures of the device.
    fn start(&mut self, codes: &[Codes]) -> Result<Self::Running>;

    /// Whether a device is busy with it, so that something is gained by finishing it late.
    fn is_running(&self, running: &Self::Running) -> bool;

    /// What the clips that were started showed; `codes` are theirs.
    ///
    /// # Errors
    /// Failures of the device.
    fn finish(&mut self, codes: &[Codes], running: Self::Running) -> Result<Shown>;

    /// Runs clips.
    ///
    /// # Errors
    /// Failures of the device.
    fn forward(&mut self, codes: &[Codes]) -> Result<Shown> {
        let running = self.start(codes)?;
        self.finish(codes, running)
    }

    /// How many clips of `samples` samples to run together when the user leaves it open; the same on each call.
    fn auto_batch(&self, samples: usize) -> usize;
}

/// What a model showed of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// For each hook its rows as little-endian bytes, [clips, frames + 1, width]; none where they are not wanted.
    pub rows: Vec<Vec<u8>>,
    /// For each autoencoder the features of each clip.
    pub features: Vec<Vec<SaeRows>>,
}

/// What a run keeps of the hooks' rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The rows, and what autoencoders make of them.
    Rows,
    /// What autoencoders make of them.
    Features,
}

/// MusicGen with its codec, fed the codes of the audio, without text or with one text for all clips.
pub struct MusicgenCapture {
    codec: Encodec,
    decoder: Decoder,
    spec: ModelSpec,
    hooks: Vec<Hook>,
    dtype: StoreDtype,
    limits: Limits,
    device: DeviceInfo,
    text: Option<Arc<Text>>,
    saes: Vec<HookSae>,
    keep: Keep,
    /// The pass that was run last, by clips and frames. Only one: each holds the activations of its batch.
    pass: Option<((usize, usize), TeacherForced)>,
    /// How often autoencoders were given more places.
    widened: usize,
}

/// A pass that was run, with what it showed on its way to the host.
pub struct Running {
    /// What the autoencoders had been given when it was run.
    widened: usize,
    features: Vec<Reading>,
    rows: Vec<Fetching>,
}

/// What bounds a batch.
#[derive(Clone, Copy, Debug)]
struct Limits {
    accelerator: bool,
    max_binding: usize,
    /// Bytes of the widest activation of one position.
    position_bytes: usize,
}

/// Positions that keep a processor's matrix product busy; more only cost memory.
const CPU_POSITIONS: usize = 1024;
/// The most clips of a batch on a processor.
const CPU_CLIPS: usize = 4;
/// Positions that keep the largest accelerators busy.
const ACCELERATOR_POSITIONS: usize = 32 * 1024;
/// The most clips of a batch on an accelerator.
const ACCELERATOR_CLIPS: usize = 64;

impl Limits {
    fn batch(self, positions: usize) -> usize {
        let (target, most) = match self.accelerator {
            false => (CPU_POSITIONS, CPU_CLIPS),
            // half of a binding: room for what lies beside the widest activation
            true => {
                (ACCELERATOR_POSITIONS.min(self.max_binding / 2 / self.position_bytes), ACCELERATOR_CLIPS)
            }
        };
        (target / positions).clamp(1, most)
    }
}

impl MusicgenCapture {
    /// Opens a MusicGen checkpoint to capture `sites` (a list such as `hook_layers.{1,5},embed`) as `dtype`.
    ///
    /// # Errors
    /// [`AnalysisError::Model`]: the checkpoint, an unknown site (naming the nearest), the device.
    pub fn open(
        dir: &Path,
        backend: Arc<dyn Backend>,
        options: &DecoderOptions,
        sites: &str,
        dtype: StoreDtype,
    ) -> Result<Self> {
        let decoder = Decoder::open(dir, backend.clone(), options)?;
        let config = decoder.config();
        let hook = |named: auscult_model::musicgen::NamedSite| Hook {
            hook: named.label,
            site: named.site.to_string(),
            width: named.site.width(config),
        };
        let sites = parse_sites(sites, config.num_hidden_layers)?;
        sites.iter().try_for_each(|named| decoder.site(named.site).map(drop))?;
        let hooks: Vec<Hook> = sites.into_iter().map(hook).collect();
        let codec = Encodec::open(dir, backend.clone())?;
        let spec = ModelSpec {
            sample_rate: codec.config().sampling_rate,
            hop_length: codec.config().hop_length(),
            frame_rate: decoder.frames_per_second(),
            d_model: config.hidden_size,
            codebooks: config.num_codebooks,
            codebook_size: config.vocab_size,
            longest_frames: decoder.trained_frames(),
        };
        let limits = Limits {
            accelerator: backend.info().accelerator,
            max_binding: backend.info().max_binding,
            position_bytes: 4 * config.ffn_dim.max(3 * config.hidden_size),
        };
        let device = backend.info().clone();
        Ok(Self {
            codec,
            decoder,
            spec,
            hooks,
            dtype,
            limits,
            device,
            text: None,
            saes: Vec::new(),
            keep: Keep::Rows,
            pass: None,
            widened: 0,
        })
    }

    /// Conditions every clip on a text.
    #[must_use]
    pub fn with_text(self, text: Text) -> Self {
        Self { text: Some(Arc::new(text)), pass: None, ..self }
    }

    /// Computes positions otherwise from now on: in another way, and from another number on than 0 for the first row.
    pub fn set_positions(&mut self, posemb: Posemb, first: isize) {
        self.pass = None;
        self.decoder.set_positions(posemb, first);
    }

    /// Has autoencoders read the hooks, each one of [`Model::hooks`]. With [`Keep::Features`] rows that no autoencoder on
    /// the host reads stay on the device.
    ///
    /// # Panics
    /// If an autoencoder's hook is none of the model's, or of another width.
    #[must_use]
    pub fn with_saes(self, saes: Vec<HookSae>, keep: Keep) -> Self {
        for sae in &saes {
            let meta = sae.meta();
            let fits =
                |hook: &Hook| hook.hook == meta.hook && hook.site == meta.site && hook.width == meta.width;
            assert!(self.hooks.iter().any(fits), "`{}` reads no hook of the model", meta.name);
        }
        Self { saes, keep, pass: None, ..self }
    }

    /// Holds every autoencoder against the stream of the first clips, before anything is captured: one pass over the leading
    /// clips that are of one length, in the order of [`Model::saes`].
    ///
    /// # Errors
    /// No clips; those of [`first_look`].
    pub fn look_at_saes(&mut self, clips: &[Clip]) -> Result<Vec<Look>> {
        let alike = clips.chunk_by(|a, b| a.samples.len() == b.samples.len()).next().unwrap_or_default();
        let samples: Vec<&[f32]> = alike.iter().map(|clip| clip.samples.as_slice()).collect();
        let codes = self.encode(&samples)?;
        let mut saes = Vec::with_capacity(self.saes.len());
        for sae in &self.saes {
            saes.push((sae.sae(), sae.meta().site.parse()?));
        }
        first_look(&self.decoder, &codes, self.text.as_deref(), &saes)
    }

    /// The decoder.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    fn pass(&mut self, clips: usize, frames: usize) -> Result<&TeacherForced> {
        if self.pass.as_ref().is_none_or(|(shape, _)| *shape != (clips, frames)) {
            // the old one's memory goes before the new one's comes
            self.pass = None;
            let pass = self.make_pass(clips, frames).map_err(|error| match error {
                ModelError::Device(source @ DeviceError::OutOfMemory { .. }) => {
                    let fits = largest_batch(clips, &source, |clips| self.make_pass(clips, frames).is_ok());
                    AnalysisError::Batch { clips, frames, fits, source }
                }
                other => other.into(),
            })?;
            self.pass = Some(((clips, frames), pass));
        }
        Ok(&self.pass.as_ref().expect("made above").1)
    }

    fn make_pass(&self, clips: usize, frames: usize) -> Result<TeacherForced, ModelError> {
        let mut edits = Edits::new();
        for hook in &self.hooks {
            if self.keep == Keep::Rows {
                edits.capture(&hook.site, self.dtype.dtype());
            }
            let into = self.host_output(&hook.site);
            if into != hook.site
                && self.saes.iter().any(|sae| !sae.is_fused() && sae.meta().site == hook.site)
            {
                edits.push(&hook.site, Edit::Capture { into, dtype: DType::F32 });
            }
        }
        let tokens = self.text.as_ref().map_or(0, |text| text.tokens());
        let skip = self.decoder.prefix_positions(tokens);
        self.saes.iter().for_each(|sae| sae.edit(&mut edits, clips, skip));
        match &self.text {
            None => self.decoder.teacher_forced(clips, frames, edits),
            Some(text) => self.decoder.teacher_forced_with_text(clips, frames, text.tokens(), edits),
        }
    }

    /// The output that holds a site's rows in f32, for autoencoders on the host: the one that is stored, where it can be.
    fn host_output(&self, site: &str) -> String {
        match (self.keep, self.dtype) {
            (Keep::Rows, StoreDtype::F32) => site.to_string(),
            _ => format!("{site}.f32"),
        }
    }

    /// The codec.
    pub fn codec(&self) -> &Encodec {
        &self.codec
    }

    /// Which kernels the decoder runs for a batch, and how they are launched, one line each.
    ///
    /// # Errors
    /// As for a pass over that batch.
    pub fn explain(&mut self, clips: usize, frames: usize) -> Result<String> {
        let device = self.device.clone();
        Ok(auscult_runtime::explain(self.pass(clips, frames)?.graph(), &device))
    }
}

/// Codes of one channel as those of `channels` equal ones, the channels of a codebook side by side (HF
/// `MusicgenForConditionalGeneration.forward` repeats the codes of mono audio so for a stereo decoder).
fn repeat_channels(codes: &Codes, channels: usize) -> Result<Codes> {
    let (codebooks, frames) = (codes.codebooks(), codes.frames());
    let rows = codes.values().chunks(frames.max(1));
    let values = rows.flat_map(|row| std::iter::repeat_n(row, channels).flatten().copied()).collect();
    Ok(Codes::new(codebooks * channels, frames, values)?)
}

impl Model for MusicgenCapture {
    type Running = Running;

    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    fn encode(&mut self, clips: &[&[f32]]) -> Result<Vec<Codes>> {
        let mut encoded = self.codec.encode(clips);
        // a pass over a batch of another shape goes before anything is refused
        if matches!(encoded, Err(ModelError::Batch { .. })) && self.pass.take().is_some() {
            encoded = self.codec.encode(clips);
        }
        let codes = encoded.map_err(|error| match error {
            ModelError::Batch { clips, frames, fits, source } => {
                AnalysisError::Batch { clips, frames, fits, source }
            }
            other => other.into(),
        })?;
        match self.decoder.config().audio_channels {
            1 => Ok(codes),
            channels => codes.iter().map(|codes| repeat_channels(codes, channels)).collect(),
        }
    }

    fn saes(&self) -> Vec<&SaeMeta> {
        self.saes.iter().map(HookSae::meta).collect()
    }

    fn shows_rows(&self) -> bool {
        self.keep == Keep::Rows
    }

    fn start(&mut self, codes: &[Codes]) -> Result<Running> {
        let first = codes.first().ok_or_else(|| AnalysisError::usage("batch", 0, "at least one clip"))?;
        let text = self.text.clone();
        self.pass(codes.len(), first.frames())?;
        let (_, pass) = self.pass.as_ref().expect("made above");
        pass.run_with_texts(codes, &vec![text.as_deref(); codes.len()])?;
        let read = |sae: &HookSae| sae.start(pass, &self.host_output(&sae.meta().site));
        let hooks = if self.keep == Keep::Rows { self.hooks.as_slice() } else { &[] };
        Ok(Running {
            widened: self.widened,
            features: self.saes.iter().map(read).collect::<Result<_>>()?,
            rows: hooks.iter().map(|hook| Ok(pass.start_output(&hook.site)?)).collect::<Result<_>>()?,
        })
    }

    fn is_running(&self, running: &Running) -> bool {
        let mut outputs = running.features.iter().flat_map(Reading::outputs).chain(&running.rows);
        outputs.any(|output| !output.is_here())
    }

    fn finish(&mut self, codes: &[Codes], mut running: Running) -> Result<Shown> {
        loop {
            if running.widened != self.widened {
                // a batch before it filled its places; what this one had come from the same pass
                drop(running);
                running = self.start(codes)?;
            }
            let Running { features, rows, .. } = running;
            let read = self.saes.iter().zip(features).map(|(sae, reading)| sae.finish(codes.len(), reading));
            let read: Vec<Option<Vec<SaeRows>>> = read.collect::<Result<_>>()?;
            if read.iter().all(Option::is_some) {
                return Ok(Shown {
                    rows: rows.into_iter().map(|rows| Ok(rows.finish()?)).collect::<Result<_>>()?,
                    features: read.into_iter().flatten().collect(),
                });
            }
            // their memory goes before a larger pass's comes
            drop(rows);
            self.pass = None;
            let full = self.saes.iter_mut().zip(&read).filter(|(_, read)| read.is_none());
            full.for_each(|(sae, _)| sae.widen());
            self.widened += 1;
            running = self.start(codes)?;
        }
    }

    fn auto_batch(&self, samples: usize) -> usize {
        let columns = time::positions(time::frames(samples, self.spec.hop_length));
        let tokens = self.text.as_ref().map_or(0, |text| text.tokens());
        self.limits.batch(self.decoder.prefix_positions(tokens) + columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_fit_the_device() {
        let cpu = Limits { accelerator: false, max_binding: usize::MAX, position_bytes: 16 << 10 };
        let gpu = Limits { accelerator: true, ..cpu };
        let small = Limits { max_binding: 128 << 20, ..gpu };
        for (limits, positions, expected, reason) in [
            (cpu, 501, 2, "10 s on a processor"),
            (cpu, 1501, 1, "30 s on a processor"),
            (cpu, 2, 4, "shortest clips on a processor"),
            (gpu, 501, 64, "10 s on an accelerator"),
            (gpu, 1501, 21, "30 s on an accelerator"),
            (small, 501, 8, "10 s where bindings hold 128 MiB"),
            (Limits { max_binding: 1, ..small }, 501, 1, "never none"),
        ] {
            assert_eq!(limits.batch(positions), expected, "{reason}");
        }
    }

    #[test]
    fn channels_are_interleaved() {
        let codes = Codes::new(2, 3, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let stereo = repeat_channels(&codes, 2).unwrap();
        assert_eq!((stereo.codebooks(), stereo.frames()), (4, 3));
        assert_eq!(stereo.values(), [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6]);
    }
}
