//! EnCodec: audio to codes and back.

mod checkpoint;
pub mod config;
mod graph;
mod segments;
mod stream;
mod weights;

use crate::batch::{largest_batch, memory};
use crate::codes::Codes;
use crate::config::{CONFIG_FILE, CheckpointConfig};
use crate::error::{ModelError, Result};
use crate::programs::Programs;
use auscult_runtime::weights::{Loader, Weights};
use auscult_runtime::{Backend, Buffer, Contents, Graph, Program};
use config::EncodecConfig;
use graph::{CODES, INPUT, OUTPUT};
use segments::segments;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use weights::EncodecWeights;

pub use stream::AudioStream;

/// Longest activation of one segment, in bytes: below what every adapter binds (128 MiB), and enough for the 10 s clips
/// that most captures are cut into to go in one piece (82 MB at 32 kHz and 64 filters), which measures best.
const SEGMENT_BYTES: usize = 96 << 20;

/// Longest activation of the clips that an accelerator encodes at once, in bytes: a dozen clips of 10 s fill the largest
/// devices, and two such activations live at a time.
const BATCH_BYTES: usize = 1 << 30;

/// A codec on a device.
pub struct Encodec {
    config: EncodecConfig,
    weights: EncodecWeights,
    backend: Arc<dyn Backend>,
    programs: Programs<Part>,
    segment_frames: usize,
    batch_frames: usize,
    halo: Halo,
}

/// Frames that segments are run beyond what is kept of them.
#[derive(Clone, Copy, Debug)]
struct Halo {
    encoder: usize,
    decoder: usize,
}

/// The parts that programs are kept of, with the shape they are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    AudioToBottleneck { batch: usize, samples: usize },
    BottleneckToCodes { batch: usize, frames: usize },
    CodesToBottleneck { frames: usize },
    BottleneckToAudio { frames: usize },
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AudioToBottleneck { batch, samples } => {
                write!(f, "the codec's encoder up to its LSTM, over {batch} clips of {samples} samples")
            }
            Self::BottleneckToCodes { batch, frames } => {
                write!(f, "its LSTM and what follows, over {batch} clips of {frames} frames")
            }
            Self::CodesToBottleneck { frames } => {
                write!(f, "the codec's decoder up to its LSTM, over {frames} frames")
            }
            Self::BottleneckToAudio { frames } => write!(f, "what follows its LSTM, over {frames} frames"),
        }
    }
}

/// What the encoder yields for one clip.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoding {
    /// The codes.
    pub codes: Codes,
    /// What was quantised: f32 `[frames, hidden]`.
    pub latents: Vec<f32>,
}

impl Encodec {
    /// Opens the codec of a MusicGen checkpoint, or a checkpoint of EnCodec alone, in the layout of Hugging Face. It uses
    /// as many codebooks as the MusicGen around it reads of one channel; alone, those of the lowest bandwidth.
    ///
    /// # Errors
    /// A configuration that is malformed or of a codec that is not supported; weights that disagree with it; the device.
    pub fn open(dir: &Path, backend: Arc<dyn Backend>) -> Result<Self> {
        Self::open_with(dir, backend, None)
    }

    /// As [`Self::open`], with the first `codebooks` of the checkpoint's codebooks.
    ///
    /// # Errors
    /// As [`Self::open`]; a number of codebooks that the checkpoint has not.
    pub fn open_with(dir: &Path, backend: Arc<dyn Backend>, codebooks: Option<usize>) -> Result<Self> {
        let weights = Weights::open(dir)?;
        let all = Loader::new(&weights);
        match CheckpointConfig::load(dir)? {
            CheckpointConfig::Musicgen(config) | CheckpointConfig::MusicgenMelody(config) => {
                let codebooks = codebooks.unwrap_or(config.codebooks_per_channel());
                let file = dir.join(CONFIG_FILE);
                config.audio_encoder.check_supported(&file, "audio_encoder.")?;
                Self::load(&all.prefix("audio_encoder."), config.audio_encoder, codebooks, backend)
            }
            CheckpointConfig::Encodec(config) => {
                config.check_supported(&dir.join(CONFIG_FILE), "")?;
                let codebooks = codebooks.unwrap_or(config.default_quantizers());
                Self::load(&all, config, codebooks, backend)
            }
        }
    }

    fn load(
        loader: &Loader<'_>,
        config: EncodecConfig,
        codebooks: usize,
        backend: Arc<dyn Backend>,
    ) -> Result<Self> {
        let held = config.num_quantizers();
        if !(1..=held).contains(&codebooks) {
            return Err(ModelError::Argument {
                argument: "codebooks",
                found: codebooks.to_string(),
                expected: format!("1 to {held}, which the checkpoint holds"),
            });
        }
        let weights = EncodecWeights::load(loader, &config, codebooks, &*backend)?;
        let widest = 4 * config.num_filters * config.hop_length();
        let limit = SEGMENT_BYTES.min(backend.info().max_binding);
        let halo = Halo {
            encoder: segments::encoder_halo(&config, &weights.encoder),
            decoder: segments::decoder_halo(&config, &weights.decoder),
        };
        let segment_frames = (limit / widest).saturating_sub(2 * halo.encoder.max(halo.decoder)).max(1);
        // one after another where a processor's caches are what counts
        let batch_frames =
            if backend.info().accelerator { BATCH_BYTES.min(backend.info().max_binding) / widest } else { 0 };
        Ok(Self { config, weights, backend, programs: Programs::new(), segment_frames, batch_frames, halo })
    }

    /// The configuration.
    pub fn config(&self) -> &EncodecConfig {
        &self.config
    }

    /// Codebooks that [`Self::encode`] yields and [`Self::decode`] reads.
    pub fn codebooks(&self) -> usize {
        self.weights.codebooks.desc.shape[0]
    }

    /// Runs long audio in segments of at most `frames` frames instead of what fits; results stay the same.
    pub fn set_segment_frames(&mut self, frames: usize) {
        self.segment_frames = frames.max(1);
    }

    /// Runs so many clips through the encoder's convolutions at once as have at most `frames` frames together, at least
    /// one; results stay the same, bit for bit.
    pub fn set_batch_frames(&mut self, frames: usize) {
        self.batch_frames = frames;
    }

    /// Encodes clips of one length: mono samples at the codec's rate. Of `n` samples, `ceil(n / hop)` frames come.
    ///
    /// # Errors
    /// Clips that are empty, of different lengths, or hold a value that is not finite; failures of the device, as
    /// [`ModelError::Batch`] where it has no memory for so many clips.
    pub fn encode(&self, clips: &[&[f32]]) -> Result<Vec<Codes>> {
        Ok(self.encode_with_latents(clips)?.into_iter().map(|encoding| encoding.codes).collect())
    }

    /// As [`Self::encode`], with the latents that were quantised.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_with_latents(&self, clips: &[&[f32]]) -> Result<Vec<Encoding>> {
        let Some(first) = clips.first() else { return Ok(Vec::new()) };
        check_clips(clips)?;
        let (samples, frames) = (first.len(), self.config.frames_for_samples(first.len()));
        if let Ok(encoded) = memory(self.encode_checked(clips)) {
            return encoded;
        }
        // what is kept of other shapes goes before anything is refused
        self.programs.clear();
        memory(self.encode_checked(clips)).unwrap_or_else(|source| {
            let fits = largest_batch(clips.len(), &source, |clips| {
                self.programs.clear();
                self.reserve(clips, samples).is_ok()
            });
            self.programs.clear();
            Err(ModelError::Batch { clips: clips.len(), frames, fits, source })
        })
    }

    /// Clips whose convolutions are run at once, of those with so many frames.
    fn at_once(&self, frames: usize) -> usize {
        let longest = frames.min(self.segment_frames.saturating_add(2 * self.halo.encoder));
        (self.batch_frames / longest).max(1)
    }

    fn bottleneck(&self, clips: usize, frames: usize) -> Result<Buffer> {
        Ok(self.backend.alloc(Contents::Undefined(4 * clips * frames * self.config.bottleneck_width()))?)
    }

    /// Takes the memory that encoding a batch takes, in the same order.
    fn reserve(&self, clips: usize, samples: usize) -> Result<()> {
        let _bottleneck = self.bottleneck(clips, self.config.frames_for_samples(samples))?;
        self.encoding_parts(clips, samples).into_iter().try_for_each(|part| self.program(part).map(drop))
    }

    /// What encoding a batch runs, in order.
    fn encoding_parts(&self, clips: usize, samples: usize) -> Vec<Part> {
        let frames = self.config.frames_for_samples(samples);
        let (at_once, hop) = (self.at_once(frames), self.config.hop_length());
        let mut parts = Vec::new();
        for first in (0..clips).step_by(at_once) {
            let batch = at_once.min(clips - first);
            parts.extend(segments(frames, self.segment_frames, self.halo.encoder).iter().map(|s| {
                let end = ((s.run_first + s.run_frames) * hop).min(samples);
                Part::AudioToBottleneck { batch, samples: end - s.run_first * hop }
            }));
        }
        parts.push(Part::BottleneckToCodes { batch: clips, frames });
        parts
    }

    /// Which kernels encode a batch, and how they are launched: behind a line for each graph, its launches, one a line.
    ///
    /// # Errors
    /// Shapes that no kernel takes.
    pub fn explain_encode(&self, clips: usize, samples: usize) -> Result<String> {
        self.explain(self.encoding_parts(clips, samples.max(1)))
    }

    /// Which kernels decode a clip of so many frames, as [`Self::explain_encode`] says it.
    ///
    /// # Errors
    /// Shapes that no kernel takes.
    pub fn explain_decode(&self, frames: usize) -> Result<String> {
        let frames = frames.max(1);
        let local = self.decoding_segments(0..frames, frames);
        let local = local.into_iter().map(|(_, run)| Part::BottleneckToAudio { frames: run.len() });
        self.explain(std::iter::once(Part::CodesToBottleneck { frames }).chain(local))
    }

    fn explain(&self, parts: impl IntoIterator<Item = Part>) -> Result<String> {
        let mut told: Vec<(Part, usize)> = Vec::new();
        for part in parts {
            match told.iter_mut().find(|(there, _)| *there == part) {
                Some((_, times)) => *times += 1,
                None => told.push((part, 1)),
            }
        }
        let one = |(part, times): (Part, usize)| {
            let often = if times > 1 { format!(", {times} times") } else { String::new() };
            let launches = auscult_runtime::explain(&self.graph(part)?, self.backend.info());
            Ok(format!("{part}{often}:\n{launches}"))
        };
        told.into_iter().map(one).collect()
    }

    fn encode_checked(&self, clips: &[&[f32]]) -> Result<Vec<Encoding>> {
        let (batch, frames) = (clips.len(), self.config.frames_for_samples(clips[0].len()));
        let width = self.config.bottleneck_width();
        let bottleneck = self.bottleneck(batch, frames)?;
        let at_once = self.at_once(frames);
        for (i, clips) in clips.chunks(at_once).enumerate() {
            self.encode_local(clips, frames, &bottleneck, 4 * i * at_once * frames * width)?;
        }
        let program = self.program(Part::BottleneckToCodes { batch, frames })?;
        let program = program.lock();
        self.backend.copy(&bottleneck.span(), &program.input_tensor(INPUT)?.span)?;
        program.replay()?;
        let codes = program.output_u32(CODES)?;
        let latents = program.output_f32(OUTPUT)?;
        let (codebooks, hidden) = (self.codebooks(), self.config.hidden_size);
        let encoding = |i: usize| Encoding {
            codes: Codes::from_frames(
                codebooks,
                frames,
                &codes[i * frames * codebooks..][..frames * codebooks],
            ),
            latents: latents[i * frames * hidden..][..frames * hidden].to_vec(),
        };
        Ok((0..batch).map(encoding).collect())
    }

    /// Runs clips up to the LSTM, segment by segment, into `bottleneck` from byte `at` on, clip after clip.
    fn encode_local(&self, clips: &[&[f32]], frames: usize, bottleneck: &Buffer, at: usize) -> Result<()> {
        let (hop, row) = (self.config.hop_length(), 4 * self.config.bottleneck_width());
        let length = clips[0].len();
        for s in segments(frames, self.segment_frames, self.halo.encoder) {
            let run = s.run_first * hop..((s.run_first + s.run_frames) * hop).min(length);
            let samples = run.len();
            let program = self.program(Part::AudioToBottleneck { batch: clips.len(), samples })?;
            let program = program.lock();
            match clips {
                [clip] => program.run(&[(INPUT, bytemuck::cast_slice(&clip[run]))])?,
                _ => {
                    let together: Vec<f32> =
                        clips.iter().flat_map(|clip| &clip[run.clone()]).copied().collect();
                    program.run(&[(INPUT, bytemuck::cast_slice(&together))])?;
                }
            }
            let output = program.output_tensor(OUTPUT)?.span;
            for i in 0..clips.len() {
                let kept = output.slice((i * s.run_frames + s.first - s.run_first) * row, s.frames * row)?;
                let to = bottleneck.span().slice(at + (i * frames + s.first) * row, s.frames * row)?;
                self.backend.copy(&kept, &to)?;
            }
        }
        Ok(())
    }

    /// Encodes the channels of one clip, left first, each as mono: codes that are [`Codes::interleaved`].
    ///
    /// # Errors
    /// As [`Self::encode`]; no channel.
    pub fn encode_channels(&self, channels: &[&[f32]]) -> Result<Codes> {
        Codes::interleaved(&self.encode(channels)?)
    }

    /// Decodes the channels of one clip from codes that are [`Codes::interleaved`]: the mono samples of each, left first.
    /// There are as many channels as the codes have times the codec's codebooks.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_channels(&self, codes: &Codes) -> Result<Vec<Vec<f32>>> {
        let channels = codes.codebooks() / self.codebooks();
        if channels * self.codebooks() != codes.codebooks() || channels == 0 {
            return Err(ModelError::Codes(format!(
                "{} codebooks, expected a multiple of {}",
                codes.codebooks(),
                self.codebooks()
            )));
        }
        (0..channels).map(|channel| self.decode(&codes.channel(channel, channels)?)).collect()
    }

    /// Decodes one clip: mono samples at the codec's rate, `frames * hop` of them.
    ///
    /// # Errors
    /// Codes of another number of codebooks, or beyond them; no frames; failures of the device.
    pub fn decode(&self, codes: &Codes) -> Result<Vec<f32>> {
        codes.check(self.codebooks(), self.config.codebook_size)?;
        let frames = codes.frames();
        if frames == 0 {
            return Err(ModelError::Codes("no frames, expected at least one".into()));
        }
        let front = self.program(Part::CodesToBottleneck { frames })?;
        let front = front.lock();
        front.run(&[(INPUT, bytemuck::cast_slice(&codes.to_frames()))])?;
        let mut audio = Vec::with_capacity(frames * self.config.hop_length());
        self.decode_local(&front.output_tensor(OUTPUT)?.span, 0..frames, frames, &mut audio)?;
        Ok(audio)
    }

    fn program(&self, part: Part) -> Result<crate::programs::Shared> {
        self.programs.get(part, || Ok(Program::new(self.backend.clone(), self.graph(part)?)?))
    }

    fn graph(&self, part: Part) -> Result<Graph> {
        let (config, w) = (&self.config, &self.weights);
        Ok(match part {
            Part::AudioToBottleneck { batch, samples } => {
                graph::audio_to_bottleneck(config, &w.encoder, batch, samples)?
            }
            Part::BottleneckToCodes { batch, frames } => {
                graph::bottleneck_to_codes(config, &w.encoder, &w.codebooks, batch, frames)?
            }
            Part::CodesToBottleneck { frames } => {
                graph::codes_to_bottleneck(config, &w.decoder, &w.codebooks, frames)?
            }
            Part::BottleneckToAudio { frames } => graph::bottleneck_to_audio(config, &w.decoder, frames)?,
        })
    }
}

/// Refuses clips that are not of one length, or hold what is no audio.
fn check_clips(clips: &[&[f32]]) -> Result<()> {
    let samples = clips.first().map_or(0, |first| first.len());
    for (i, clip) in clips.iter().enumerate() {
        let bad = |found: String, expected: String| {
            Err(ModelError::Audio(format!("clip {i} has {found}, expected {expected}")))
        };
        if clip.is_empty() {
            return bad("no samples".into(), "at least one".into());
        }
        if clip.len() != samples {
            return bad(format!("{} samples", clip.len()), format!("{samples} as the first of its batch"));
        }
        if let Some(at) = clip.iter().position(|s| !s.is_finite()) {
            return bad(format!("{} at sample {at}", clip[at]), "finite samples".into());
        }
    }
    Ok(())
}
