//! A teacher-forced forward pass of a decoder: codes in, what its sites showed out.

use super::config::MusicgenDecoderConfig;
use super::decoder::NO_MELODY;
use super::generate::{Condition, Text};
use super::graph::{CODES, IDS, PREFIX, TEXT, TEXT_LENGTHS};
use super::prefix::{self, Prefix};
use crate::codes::Codes;
use crate::error::{ModelError, Result};
use auscult_runtime::{Download, Graph, Program};
use std::ops::Range;
use std::sync::Arc;

/// A forward pass with its memory, ready to be run.
pub struct TeacherForced {
    pub(super) program: Program,
    pub(super) batch: usize,
    pub(super) frames: usize,
    /// Tokens that there is room for; `None` without text.
    pub(super) tokens: Option<usize>,
    pub(super) front: Option<Front>,
    pub(super) config: MusicgenDecoderConfig,
}

/// What stands in front of the columns of a pass.
pub(super) struct Front {
    pub prefix: Arc<Prefix>,
    pub positions: usize,
    /// Tokens that there is room for.
    pub tokens: usize,
}

impl TeacherForced {
    /// Runs `batch` clips of `frames` frames, unconditionally.
    ///
    /// # Errors
    /// Another number of clips or frames, codes that the model has not; failures of the device.
    pub fn run(&self, codes: &[Codes]) -> Result<()> {
        self.run_conditioned(codes, &vec![Condition::default(); codes.len()])
    }

    /// As [`Self::run`], each clip with its text or without.
    ///
    /// # Errors
    /// As [`Self::run`]; another number of texts than clips, a text longer than there is room for, or of another width.
    pub fn run_with_texts(&self, codes: &[Codes], texts: &[Option<&Text>]) -> Result<()> {
        let conditions: Vec<_> = texts.iter().map(|&text| Condition { text, melody: None }).collect();
        self.run_conditioned(codes, &conditions)
    }

    /// As [`Self::run`], each clip with what it is conditioned by.
    ///
    /// # Errors
    /// As [`Self::run`]; another number of conditions than clips, a text longer than there is room for or of another width, a
    /// melody that the decoder does not take.
    pub fn run_conditioned(&self, codes: &[Codes], conditions: &[Condition<'_>]) -> Result<()> {
        if codes.len() != self.batch {
            return Err(ModelError::Codes(format!("{} clips, expected {}", codes.len(), self.batch)));
        }
        for clip in codes {
            clip.check(self.config.num_codebooks, self.config.vocab_size)?;
            if clip.frames() != self.frames {
                return Err(ModelError::Codes(format!("{} frames, expected {}", clip.frames(), self.frames)));
            }
        }
        self.check_all(conditions)?;
        match &self.front {
            Some(front) => self.run_behind(front, codes, conditions),
            None => {
                let values: Vec<u32> = codes.iter().flat_map(|clip| clip.values()).copied().collect();
                self.run_beside((CODES, &values), conditions)
            }
        }
    }

    /// That the conditions are one a clip, and such as the pass has room for.
    pub(super) fn check_all(&self, conditions: &[Condition<'_>]) -> Result<()> {
        if conditions.len() != self.batch {
            let (found, expected) = (conditions.len().to_string(), format!("{}, one a clip", self.batch));
            return Err(ModelError::Argument { argument: "texts", found, expected });
        }
        conditions.iter().try_for_each(|condition| self.check(*condition))
    }

    fn check(&self, condition: Condition<'_>) -> Result<()> {
        let bad = |argument, found: String, expected: String| {
            Err(ModelError::Argument { argument, found, expected })
        };
        let room = self.front.as_ref().map(|front| front.tokens).or(self.tokens);
        match (condition.text, room) {
            (Some(_), None) => {
                return bad("texts", "a text".into(), "none: this pass has no room for text".into());
            }
            (Some(text), Some(tokens))
                if text.tokens() > tokens || text.width() != self.config.hidden_size =>
            {
                let expected = format!("at most {tokens} tokens of width {}", self.config.hidden_size);
                return bad("texts", format!("{} tokens of width {}", text.tokens(), text.width()), expected);
            }
            _ => {}
        }
        match (condition.melody, &self.front) {
            (Some(melody), Some(front)) => melody.check(front.prefix.pitch_classes()),
            (Some(_), None) => bad("melody", "given".into(), NO_MELODY.into()),
            (None, _) => Ok(()),
        }
    }

    /// With cross-attention, or without text.
    pub(super) fn run_beside(
        &self,
        (input, values): (&str, &[u32]),
        conditions: &[Condition<'_>],
    ) -> Result<()> {
        let codes: (&str, &[u8]) = (input, bytemuck::cast_slice(values));
        let Some(tokens) = self.tokens else { return Ok(self.program.run(&[codes])?) };
        let room = tokens * self.config.hidden_size;
        let mut states = vec![0.0_f32; self.batch * room];
        let mut lengths = vec![0_u32; self.batch];
        for (i, condition) in conditions.iter().enumerate() {
            let Some(text) = condition.text else { continue };
            states[i * room..][..text.values().len()].copy_from_slice(text.values());
            lengths[i] = u32::try_from(text.tokens()).expect("bounded by the pass's tokens");
        }
        Ok(self.program.run(&[
            codes,
            (TEXT, bytemuck::cast_slice(&states)),
            (TEXT_LENGTHS, bytemuck::cast_slice(&lengths)),
        ])?)
    }

    /// Behind what conditions them.
    fn run_behind(&self, front: &Front, codes: &[Codes], conditions: &[Condition<'_>]) -> Result<()> {
        let clips: Vec<&[u32]> = codes.iter().map(Codes::values).collect();
        let ids = prefix::ids(&self.config, &clips, front.positions, self.frames + 1);
        let rows = conditions.iter().map(|condition| front.prefix.rows(*condition, front.tokens, 0.0));
        let table = front.prefix.table(rows);
        Ok(self.program.run(&[(IDS, bytemuck::cast_slice(&ids)), (PREFIX, bytemuck::cast_slice(&table))])?)
    }

    /// Positions of one clip: its frames and the start column.
    pub fn positions(&self) -> usize {
        self.frames + 1
    }

    /// Positions in front of those of one clip: what conditions a MusicGen Melody.
    pub fn prefix_positions(&self) -> usize {
        self.front.as_ref().map_or(0, |front| front.positions)
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
        self.start_output(name)?.finish()
    }

    /// Begins to fetch what [`Self::output`] returns. The pass may be run again, or dropped, before it is here.
    ///
    /// # Errors
    /// As [`Self::output`].
    pub fn start_output(&self, name: &str) -> Result<Fetching> {
        let in_front = self.prefix_positions();
        let rows = (in_front > 0).then(|| Rows {
            clips: self.batch,
            kept: in_front..in_front + self.positions(),
            all: in_front + self.positions(),
        });
        Ok(Fetching { download: self.program.start_output(name)?, rows })
    }

    /// Begins to fetch what [`Self::inserted_output`] returns, as [`Self::start_output`] does.
    ///
    /// # Errors
    /// As [`Self::inserted_output`].
    pub fn start_inserted_output(&self, name: &str) -> Result<Fetching> {
        Ok(Fetching { download: self.program.start_output(name)?, rows: None })
    }

    /// Bytes of an output of the last run that an inserted op names, whatever it counts.
    ///
    /// # Errors
    /// An output that no insert names; failures of the device.
    pub fn inserted_output(&self, name: &str) -> Result<Vec<u8>> {
        self.start_inserted_output(name)?.finish()
    }

    /// Bytes of the rows in front of those of [`Self::output`], `[batch * prefix positions, width]`.
    ///
    /// # Errors
    /// As [`Self::output`].
    pub fn prefix_output(&self, name: &str) -> Result<Vec<u8>> {
        let (clips, kept) = (self.batch, 0..self.prefix_positions());
        let all = self.prefix_positions() + self.positions();
        Ok(Rows { clips, kept, all }.of(&self.program.output(name)?))
    }

    /// A captured f32 output of the last run.
    ///
    /// # Errors
    /// As [`Self::output`].
    pub fn output_f32(&self, name: &str) -> Result<Vec<f32>> {
        Ok(bytemuck::pod_collect_to_vec(&self.output(name)?))
    }
}

/// An output of a pass, on its way to the host.
#[derive(Debug)]
pub struct Fetching {
    download: Download,
    /// What is kept of it; everything without.
    rows: Option<Rows>,
}

impl Fetching {
    /// Whether it is on the host already, so that nothing is gained by waiting.
    pub fn is_here(&self) -> bool {
        self.download.is_here()
    }

    /// The bytes, as soon as they are here.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn finish(self) -> Result<Vec<u8>> {
        let bytes = self.download.finish()?;
        Ok(match self.rows {
            None => bytes,
            Some(rows) => rows.of(&bytes),
        })
    }
}

/// Some positions of every clip.
#[derive(Debug)]
struct Rows {
    clips: usize,
    kept: Range<usize>,
    /// Positions of a clip.
    all: usize,
}

impl Rows {
    fn of(&self, bytes: &[u8]) -> Vec<u8> {
        let clip = bytes.len() / self.clips;
        let row = clip / self.all;
        let kept = self.kept.start * row..self.kept.end * row;
        bytes.chunks(clip).flat_map(|clip| &clip[kept.clone()]).copied().collect()
    }
}
