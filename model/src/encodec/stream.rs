//! Audio of codes that are still being made.

use super::graph::{INPUT, OUTPUT, padding};
use super::{Encodec, Part};
use crate::codes::Codes;
use crate::error::{ModelError, Result};
use auscult_runtime::Span;
use std::ops::Range;

/// Frames that the part up to the LSTM is run over are a multiple of this, so that shapes, and programs for them, are few.
const STEP: usize = 256;

/// Decodes the beginning of a clip while its end is not known yet. What comes out, piece after piece, is what
/// [`Encodec::decode`] makes of the whole.
pub struct AudioStream<'c> {
    codec: &'c Encodec,
    frames: usize,
    done: usize,
}

impl Encodec {
    /// A stream of the audio of a clip that will have `frames` frames.
    pub fn stream(&self, frames: usize) -> AudioStream<'_> {
        AudioStream { codec: self, frames, done: 0 }
    }

    /// Frames beyond a frame that its audio depends on: what the first convolution and those behind the LSTM look ahead.
    fn lookahead(&self) -> usize {
        padding(&self.config, &self.weights.decoder.first).1 + self.halo.decoder
    }

    /// Runs the part behind the LSTM over `kept`, from the bottleneck f32 `[frames, width]` of which `known` frames are right,
    /// and appends the samples.
    pub(super) fn decode_local(
        &self,
        bottleneck: &Span,
        kept: Range<usize>,
        known: usize,
        audio: &mut Vec<f32>,
    ) -> Result<()> {
        let (hop, row) = (self.config.hop_length(), 4 * self.config.bottleneck_width());
        for (kept, run) in self.decoding_segments(kept, known) {
            let program = self.program(Part::BottleneckToAudio { frames: run.len() })?;
            let program = program.lock();
            let from = bottleneck.slice(run.start * row, run.len() * row)?;
            self.backend.copy(&from, &program.input_tensor(INPUT)?.span)?;
            program.replay()?;
            let samples = program.output_f32(OUTPUT)?;
            audio.extend_from_slice(&samples[(kept.start - run.start) * hop..][..kept.len() * hop]);
        }
        Ok(())
    }

    /// The segments that the frames `kept` are decoded in, and those that are run for each where `known` frames are right.
    pub(super) fn decoding_segments(
        &self,
        kept: Range<usize>,
        known: usize,
    ) -> Vec<(Range<usize>, Range<usize>)> {
        let (longest, halo) = (self.segment_frames, self.halo.decoder);
        let segment = |first: usize| {
            let end = first + longest.min(kept.end - first);
            (first..end, first.saturating_sub(halo)..(end + halo).min(known))
        };
        kept.clone().step_by(longest).map(segment).collect()
    }
}

impl AudioStream<'_> {
    /// Frames whose audio has come out.
    pub fn done(&self) -> usize {
        self.done
    }

    /// The samples that do not depend on frames behind those of `codes`, which begin with the first frame of the clip, but
    /// for the samples that came out before.
    ///
    /// # Errors
    /// As [`Encodec::decode`]; more frames than the clip has.
    pub fn push(&mut self, codes: &Codes) -> Result<Vec<f32>> {
        let codec = self.codec;
        codes.check(codec.codebooks(), codec.config.codebook_size)?;
        let made = codes.frames();
        if made > self.frames {
            let message = format!("{made} frames, expected at most {}, the clip's", self.frames);
            return Err(ModelError::Codes(message));
        }
        let ends = made == self.frames;
        let ready = if ends { made } else { made.saturating_sub(codec.lookahead()) };
        let mut audio = Vec::new();
        if ready <= self.done {
            return Ok(audio);
        }
        // what stands for frames to come does not reach what is kept
        let frames = made.next_multiple_of(STEP).min(self.frames);
        let mut rows = codes.to_frames();
        rows.resize(frames * codec.codebooks(), 0);
        let front = codec.program(Part::CodesToBottleneck { frames })?;
        let front = front.lock();
        front.run(&[(INPUT, bytemuck::cast_slice(&rows))])?;
        let known = if ends { made } else { ready + codec.halo.decoder };
        codec.decode_local(&front.output_tensor(OUTPUT)?.span, self.done..ready, known, &mut audio)?;
        self.done = ready;
        Ok(audio)
    }
}
