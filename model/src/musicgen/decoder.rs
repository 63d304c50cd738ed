//! A MusicGen decoder on a device.

use super::config::{MusicgenConfig, MusicgenDecoderConfig};
use super::generate::Condition;
use super::graph::Forward;
use super::positions::Posemb;
use super::prefix::Prefix;
use super::sites::{At, Site};
use super::teacher_forced::{Front, TeacherForced};
use super::weights::{Conditioning, DecoderWeights};
use crate::config::{CONFIG_FILE, CheckpointConfig};
use crate::device::HostTensor;
use crate::error::{ModelError, Result};
use auscult_kernels::{DType, TensorDesc};
use auscult_runtime::weights::{Loader, Weights};
use auscult_runtime::{Backend, Edits, Program, Tensor};
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

/// What is expected of who hands a melody to another model.
pub(crate) const NO_MELODY: &str = "none: this checkpoint is no MusicGen Melody";

/// A MusicGen decoder on a device.
pub struct Decoder {
    config: MusicgenConfig,
    weights: DecoderWeights,
    /// What conditions it, where it has no cross-attention.
    prefix: Option<Arc<Prefix>>,
    factors: DType,
    posemb: Posemb,
    /// Position of the first row.
    first_position: isize,
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
            CheckpointConfig::Musicgen(config) | CheckpointConfig::MusicgenMelody(config) => config,
            CheckpointConfig::Encodec(_) => {
                let expected = "\"musicgen\" or \"musicgen_melody\"";
                return Err(ModelError::config(&file, "model_type", "\"encodec\"", expected));
            }
        };
        config.check_supported(&file)?;
        let checkpoint = Weights::open(dir)?;
        if options.check_finite {
            checkpoint.check_finite()?;
        }
        let loader = Loader::new(&checkpoint);
        let prefix = Prefix::load(&loader, &config)?.map(Arc::new);
        let conditioning = match prefix {
            Some(_) => Conditioning::Prefix,
            None => Conditioning::CrossAttention,
        };
        let weights =
            DecoderWeights::load(&loader, &config.decoder, conditioning, options.precision, backend.clone())?;
        let narrow = match options.activations {
            Activations::WhatIsFast => backend.info().multiplies(options.precision.dtype()),
            Activations::F32 => false,
            Activations::AsWeights => true,
        };
        let factors = if narrow { options.precision.dtype() } else { DType::F32 };
        let (posemb, positions) = (options.posemb, Mutex::new(None));
        Ok(Self { config, weights, prefix, factors, posemb, first_position: 0, backend, positions })
    }

    /// Computes positions otherwise in passes that are built from now on: in another way, and from another number on than 0
    /// for the first row. Passes that are there keep theirs.
    pub fn set_positions(&mut self, posemb: Posemb, first: isize) {
        (self.posemb, self.first_position) = (posemb, first);
        *self.positions.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
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

    /// Whether it follows melodies: whether its text and a melody stand in front of the columns, and no layer has
    /// cross-attention.
    pub fn takes_melody(&self) -> bool {
        self.prefix.is_some()
    }

    /// Positions in front of the first column, with a text of so many tokens (0 without text): none but with a decoder
    /// that [takes melodies](Self::takes_melody).
    pub fn prefix_positions(&self, tokens: usize) -> usize {
        self.prefix.as_ref().map_or(0, |prefix| prefix.positions(tokens))
    }

    pub(crate) fn prefix(&self) -> Option<&Arc<Prefix>> {
        self.prefix.as_ref()
    }

    /// The site, if the decoder has it.
    ///
    /// # Errors
    /// Says what there is.
    pub fn site(&self, site: Site) -> Result<Site> {
        let site = site.within(self.config().num_hidden_layers)?;
        match site {
            Site::Layer(_, At::CrossAttnOut) if self.takes_melody() => Err(ModelError::Site {
                name: site.to_string(),
                expected: "a site of a decoder without cross-attention, whose text is a prefix".into(),
            }),
            _ => Ok(site),
        }
    }

    /// Refuses a condition that the decoder cannot be given.
    pub(crate) fn check(&self, condition: Condition<'_>) -> Result<()> {
        let width = self.config().hidden_size;
        if let Some(text) = condition.text.filter(|text| text.width() != width) {
            return Err(ModelError::Argument {
                argument: "text",
                found: format!("rows of {}", text.width()),
                expected: format!("rows of {width}"),
            });
        }
        match (condition.melody, &self.prefix) {
            (None, _) => Ok(()),
            (Some(melody), Some(prefix)) => melody.check(prefix.pitch_classes()),
            (Some(_), None) => Err(ModelError::Argument {
                argument: "melody",
                found: "given".into(),
                expected: NO_MELODY.into(),
            }),
        }
    }

    /// The device it runs on.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Bytes of device memory that its weights take once all of them were used.
    pub fn weight_bytes(&self) -> usize {
        self.weights.device_bytes()
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
    /// tokens; position `s` holds code `(q, s - 1 - delay(q))` of codebook `q`. What a MusicGen Melody has in front of
    /// position 0 is not among them, and is at [`TeacherForced::prefix_output`].
    ///
    /// # Errors
    /// An unknown site (naming the nearest); no edit at all; a batch of 0; more frames than the model was trained on;
    /// memory.
    pub fn teacher_forced(&self, batch: usize, frames: usize, edits: Edits) -> Result<TeacherForced> {
        self.teacher_forced_with(batch, frames, None, edits)
    }

    /// As [`Self::teacher_forced`], with room for a text of up to `tokens` tokens for each clip. A decoder that takes
    /// melodies attends to zeros behind a shorter text, as Hugging Face's does.
    ///
    /// # Errors
    /// As [`Self::teacher_forced`]; no token.
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
        if !(1..=self.trained_frames()).contains(&frames) {
            let expected = format!("1 to {}, the length the model was trained on", self.trained_frames());
            return Err(argument("frames", frames, expected));
        }
        self.pass(batch, frames + 1, false, tokens, edits)
    }

    /// A pass over `columns` columns, which are `as_given` or made of codes.
    pub(super) fn pass(
        &self,
        batch: usize,
        columns: usize,
        as_given: bool,
        tokens: Option<usize>,
        edits: Edits,
    ) -> Result<TeacherForced> {
        if batch == 0 {
            return Err(argument("batch", 0, "at least one clip".into()));
        }
        let mut deepest = None;
        let edits = edits.with_sites(|name| {
            let site = self.site(name.parse()?)?;
            deepest = deepest.max(Some(site));
            Ok::<_, ModelError>(site.to_string())
        })?;
        let deepest = deepest.ok_or_else(|| argument("edits", 0, "at least one site to capture".into()))?;
        let front = self.prefix.clone().map(|prefix| {
            let tokens = tokens.unwrap_or(1);
            Front { positions: prefix.positions(tokens), tokens, prefix }
        });
        let in_front = front.as_ref().map_or(0, |front| front.positions);
        let positions = self.positions(in_front + columns)?;
        let forward = Forward {
            config: self.config(),
            weights: &self.weights,
            positions: &positions,
            batch,
            prefix: in_front,
            columns,
            as_given,
            tokens: tokens.filter(|_| front.is_none()),
            deepest,
            factors: self.factors,
            caches: None,
        };
        let graph = forward.build(edits)?;
        let program = Program::new(self.backend.clone(), graph)?;
        let (frames, config) = (columns - 1, self.config().clone());
        Ok(TeacherForced { program, batch, frames, tokens, front, config })
    }

    /// The first `steps` rows of the table of positions, on the device.
    pub(crate) fn positions(&self, steps: usize) -> Result<Tensor> {
        let width = self.config().hidden_size;
        let mut kept = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_none_or(|table| table.desc.shape[0] < steps) {
            let stored = self.weights.positions.as_ref();
            let usual = self.posemb == Posemb::F32 && self.first_position == 0;
            let table = match stored.filter(|table| usual && table.desc.shape[0] >= steps) {
                Some(table) => table.clone(),
                None => {
                    let rows = self.posemb.table_from(self.first_position, steps, width);
                    HostTensor::from_f32s([steps, width], rows)
                }
            };
            *kept = Some(table.upload(&*self.backend)?);
        }
        let table = kept.as_ref().expect("set above");
        Ok(Tensor { desc: TensorDesc::f32([steps, width]), span: table.span.slice(0, 4 * steps * width)? })
    }
}

/// An argument that cannot be.
pub(super) fn argument(argument: &'static str, found: usize, expected: String) -> ModelError {
    ModelError::Argument { argument, found: found.to_string(), expected }
}
