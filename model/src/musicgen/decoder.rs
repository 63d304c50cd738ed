//! A MusicGen decoder on a device, and its teacher-forced forward pass.

use super::config::{MusicgenConfig, MusicgenDecoderConfig};
use super::generate::Text;
use super::graph::{CODES, Forward, TEXT, TEXT_LENGTHS};
use super::positions::Posemb;
use super::sites::Site;
use super::weights::DecoderWeights;
use crate::codes::Codes;
use crate::config::{CONFIG_FILE, CheckpointConfig};
use crate::device::HostTensor;
use crate::error::{ModelError, Result};
use auscult_kernels::{DType, TensorDesc};
use auscult_runtime::weights::{Loader, Weights};
use auscult_runtime::{Backend, Edits, Graph, Program, Tensor};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// Storage and matrix precision of the decoder's linear weights. Sums, the residual stream, norms, softmax and logits are
/// f32 in every precision; what products read beside the weight is up to [`Activations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// f32 weights.
    #[default]
    F32,
    /// f16 weights.
    F16,
    /// bf16 weights.
    BF16,
}

impl Precision {
    const ALL: [Self; 3] = [Self::F32, Self::F16, Self::BF16];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| {
            format!("`{name}` is no precision, expected {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

/// What goes into matrix products and attention beside two-byte weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Activations {
    /// The weights' type on a device that multiplies it at its full rate, f32 on others.
    #[default]
    WhatIsFast,
    /// f32: a weight is widened as it is read. Never less accurate, and much slower on a GPU with matrix units.
    F32,
    /// The weights' type, anywhere.
    AsWeights,
}

/// How a decoder is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecoderOptions {
    /// Storage of linear weights.
    pub precision: Precision,
    /// What is multiplied with them.
    pub activations: Activations,
    /// How positions are computed.
    pub posemb: Posemb,
    /// Whether every weight of the checkpoint is checked for NaN and infinity first.
    pub check_finite: bool,
}

/// A MusicGen decoder on a device.
pub struct Decoder {
    config: MusicgenConfig,
    weights: DecoderWeights,
    factors: DType,
    posemb: Posemb,
    backend: Arc<dyn Backend>,
    /// Positions f32 `[longest so far, hidden]`.
    positions: Mutex<Option<Tensor>>,
}

impl Decoder {
    /// Opens the decoder of a MusicGen checkpoint in the layout of Hugging Face. Weights are mapped; those of a layer go
    /// to the device when a forward pass first reaches it.
    ///
    /// # Errors
    /// A configuration that is malformed or of a model that is not supported; weights that disagree with it, or that are
    /// not finite where that is checked.
    pub fn open(dir: &Path, backend: Arc<dyn Backend>, options: &DecoderOptions) -> Result<Self> {
        let file = dir.join(CONFIG_FILE);
        let config = match CheckpointConfig::load(dir)? {
            CheckpointConfig::Musicgen(config) => config,
            CheckpointConfig::MusicgenMelody(_) => {
                let reason = "checkpoints conditioned by a prefix are not supported yet, those with cross-attention are";
                return Err(ModelError::unsupported(&file, "model_type", "\"musicgen_melody\"", reason));
            }
            CheckpointConfig::Encodec(_) => {
                return Err(ModelError::config(&file, "model_type", "\"encodec\"", "\"musicgen\""));
            }
        };
        config.check_supported(&file)?;
        let checkpoint = Weights::open(dir)?;
        if options.check_finite {
            checkpoint.check_finite()?;
        }
        let loader = Loader::new(&checkpoint);
        let weights = DecoderWeights::load(&loader, &config.decoder, options.precision, backend.clone())?;
        let narrow = match options.activations {
            Activations::WhatIsFast => backend.info().multiplies(options.precision.dtype()),
            Activations::F32 => false,
            Activations::AsWeights => true,
        };
        let factors = if narrow { options.precision.dtype() } else { DType::F32 };
        Ok(Self { config, weights, factors, posemb: options.posemb, backend, positions: Mutex::new(None) })
    }

    /// The decoder's configuration.
    pub fn config(&self) -> &MusicgenDecoderConfig {
        &self.config.decoder
    }

    /// Frames of the longest clip that the model was trained on.
    pub fn trained_frames(&self) -> usize {
        self.config.trained_frames()
    }

    /// Frames a second.
    pub fn frames_per_second(&self) -> f64 {
        self.config.frames_per_second()
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    pub(crate) fn weights(&self) -> &DecoderWeights {
        &self.weights
    }

    /// What matrix products and attention over many positions read.
    pub(crate) fn factors(&self) -> DType {
        self.factors
    }

    /// A teacher-forced, unconditional forward pass over `batch` clips of `frames` frames, with edits at sites. It goes as
    /// deep as the deepest site that an edit names. Built once, run as often as wanted.
    ///
    /// Every captured output has `batch * (frames + 1)` rows, clip after clip. Position 0 of a clip holds only special
    /// tokens; position `s` holds code `(q, s - 1 - delay(q))` of codebook `q`.
    ///
    /// # Errors
    /// An unknown site (naming the nearest); no edit at all; a batch of 0; more frames than the model was trained on;
    /// memory.
    pub fn teacher_forced(&self, batch: usize, frames: usize, edits: Edits) -> Result<TeacherForced> {
        self.teacher_forced_with(batch, frames, None, edits)
    }

    /// As [`Self::teacher_forced`], with room for a text of up to `tokens` tokens for each clip.
    ///
    /// # Errors
    /// As [`Self::teacher_forced`]; no token; a decoder that takes no text.
    pub fn teacher_forced_with_text(
        &self,
        batch: usize,
        frames: usize,
        tokens: usize,
        edits: Edits,
    ) -> Result<TeacherForced> {
        if tokens == 0 {
            let expected = "at least one token".into();
            return Err(ModelError::Argument { argument: "tokens", found: "0".into(), expected });
        }
        self.teacher_forced_with(batch, frames, Some(tokens), edits)
    }

    fn teacher_forced_with(
        &self,
        batch: usize,
        frames: usize,
        tokens: Option<usize>,
        edits: Edits,
    ) -> Result<TeacherForced> {
        let argument = |argument, found: usize, expected: String| ModelError::Argument {
            argument,
            found: found.to_string(),
            expected,
        };
        if batch == 0 {
            return Err(argument("batch", 0, "at least one clip".into()));
        }
        if !(1..=self.trained_frames()).contains(&frames) {
            let expected = format!("1 to {}, the length the model was trained on", self.trained_frames());
            return Err(argument("frames", frames, expected));
        }
        let layers = self.config().num_hidden_layers;
        let mut deepest = None;
        let edits = edits.with_sites(|name| {
            let site = name.parse::<Site>()?.within(layers)?;
            deepest = deepest.max(Some(site));
            Ok::<_, ModelError>(site.to_string())
        })?;
        let deepest = deepest.ok_or_else(|| argument("edits", 0, "at least one site to capture".into()))?;
        let positions = self.positions(frames + 1)?;
        let forward = Forward {
            config: self.config(),
            weights: &self.weights,
            positions: &positions,
            batch,
            frames,
            tokens,
            deepest,
            factors: self.factors,
            caches: None,
        };
        let graph = forward.build(edits)?;
        let program = Program::new(self.backend.clone(), graph)?;
        let config = self.config();
        Ok(TeacherForced {
            program,
            batch,
            frames,
            tokens,
            width: config.hidden_size,
            codebooks: config.num_codebooks,
            entries: config.vocab_size,
        })
    }

    /// The first `steps` rows of the table of positions, on the device.
    pub(crate) fn positions(&self, steps: usize) -> Result<Tensor> {
        let width = self.config().hidden_size;
        let mut kept = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_none_or(|table| table.desc.shape[0] < steps) {
            let stored = self.weights.positions.as_ref();
            let table =
                match stored.filter(|table| self.posemb == Posemb::F32 && table.desc.shape[0] >= steps) {
                    Some(table) => table.clone(),
                    None => HostTensor::from_f32s([steps, width], self.posemb.table(steps, width)),
                };
            *kept = Some(table.upload(&*self.backend)?);
        }
        let table = kept.as_ref().expect("set above");
        Ok(Tensor { desc: TensorDesc::f32([steps, width]), span: table.span.slice(0, 4 * steps * width)? })
    }
}

/// A forward pass with its memory, ready to be run.
pub struct TeacherForced {
    program: Program,
    batch: usize,
    frames: usize,
    tokens: Option<usize>,
    width: usize,
    codebooks: usize,
    entries: usize,
}

impl TeacherForced {
    /// Runs `batch` clips of `frames` frames, without text.
    ///
    /// # Errors
    /// Another number of clips or frames, codes that the model has not; failures of the device.
    pub fn run(&self, codes: &[Codes]) -> Result<()> {
        self.run_with_texts(codes, &vec![None; codes.len()])
    }

    /// As [`Self::run`], each clip with its text or without.
    ///
    /// # Errors
    /// As [`Self::run`]; another number of texts than clips, a text longer than there is room for, or of another width.
    pub fn run_with_texts(&self, codes: &[Codes], texts: &[Option<&Text>]) -> Result<()> {
        if codes.len() != self.batch {
            return Err(ModelError::Codes(format!("{} clips, expected {}", codes.len(), self.batch)));
        }
        let mut values = Vec::with_capacity(self.batch * self.codebooks * self.frames);
        for clip in codes {
            clip.check(self.codebooks, self.entries)?;
            if clip.frames() != self.frames {
                return Err(ModelError::Codes(format!("{} frames, expected {}", clip.frames(), self.frames)));
            }
            values.extend_from_slice(clip.values());
        }
        let codes: (&str, &[u8]) = (CODES, bytemuck::cast_slice(&values));
        let bad = |found: String, expected: String| {
            Err(ModelError::Argument { argument: "texts", found, expected })
        };
        if texts.len() != self.batch {
            return bad(texts.len().to_string(), format!("{}, one a clip", self.batch));
        }
        let Some(tokens) = self.tokens else {
            return match texts.iter().all(Option::is_none) {
                true => Ok(self.program.run(&[codes])?),
                false => bad("a text".into(), "none: this pass has no room for text".into()),
            };
        };
        let mut states = vec![0.0_f32; self.batch * tokens * self.width];
        let mut lengths = vec![0_u32; self.batch];
        for (i, text) in texts.iter().enumerate() {
            let Some(text) = text else { continue };
            if text.tokens() > tokens || text.width() != self.width {
                let expected = format!("at most {tokens} tokens of width {}", self.width);
                return bad(format!("{} tokens of width {}", text.tokens(), text.width()), expected);
            }
            states[i * tokens * self.width..][..text.values().len()].copy_from_slice(text.values());
            lengths[i] = u32::try_from(text.tokens()).expect("bounded by the pass's tokens");
        }
        Ok(self.program.run(&[
            codes,
            (TEXT, bytemuck::cast_slice(&states)),
            (TEXT_LENGTHS, bytemuck::cast_slice(&lengths)),
        ])?)
    }

    /// Positions of one clip: its frames and the start column.
    pub fn positions(&self) -> usize {
        self.frames + 1
    }

    /// The steps, for printing.
    pub fn graph(&self) -> &Graph {
        self.program.graph()
    }

    /// Bytes of device memory held beside the weights.
    pub fn arena_bytes(&self) -> usize {
        self.program.arena_bytes()
    }

    /// Bytes of a captured output of the last run, `[batch * positions, width]` in the type it was captured in.
    ///
    /// # Errors
    /// An output that no edit captured into; failures of the device.
    pub fn output(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.program.output(name)?)
    }

    /// A captured f32 output of the last run.
    ///
    /// # Errors
    /// As [`Self::output`].
    pub fn output_f32(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.program.output_f32(name)?)
    }
}
