//! Which take plays where and when: slots that are filled again as they become free, and windows over long takes.

use super::generator::{Fetched, Generator, Window};
use super::interventions::{Halves, Intervention};
use super::sampling::Sampling;
use super::{Melody, Text};
use crate::codes::Codes;
use crate::error::{ModelError, Result};
use std::ops::Range;
use std::sync::Arc;

/// One piece of music to be made.
#[derive(Clone, Debug)]
pub struct Take {
    /// What it is told to be; unconditional without.
    pub text: Option<Arc<Text>>,
    /// What it follows, with decoders of MusicGen Melody. As windows move on over a long take, so does it; behind its end
    /// it begins again.
    pub melody: Option<Arc<Melody>>,
    /// Codes that it continues.
    pub prompt: Option<Arc<Codes>>,
    /// Frames of the whole, the prompt's included.
    pub frames: usize,
    /// Its noise, together with `row`.
    pub seed: u64,
    /// Its noise, together with `seed`: takes with both alike hear the same noise, whatever else is done to them.
    pub row: u32,
    /// How codes are chosen.
    pub sampling: Sampling,
    /// What is done to the stream.
    pub edits: Vec<Intervention>,
}

/// What a take longer than a window sees of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// When a window is full, so many frames slide out of it, as in audiocraft's `extend_stride`.
    Stride(usize),
    /// Everything; the generator's window must hold it.
    Full,
}

/// Frames that were made while the same frames were in sight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowRecord {
    /// Frames that it made.
    pub frames: Range<usize>,
    /// First frame in sight.
    pub sees_from: usize,
    /// Frames of the take's prompt in sight.
    pub prompt_frames: usize,
}

/// Rows of one site and one half of a take.
#[derive(Clone, Debug, PartialEq)]
pub struct Captured {
    /// Name of the capture.
    pub label: String,
    /// Which of the take's rows.
    pub half: Halves,
    /// f32 in the machine's order, `[frames + 1, width]`; row `s` holds position `s` of the take.
    pub rows: Vec<u8>,
}

/// A take that was made.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The codes, the prompt's included.
    pub codes: Codes,
    /// Which frames were made seeing what.
    pub windows: Vec<WindowRecord>,
    /// What was captured.
    pub captured: Vec<Captured>,
}

/// What happens while takes play.
#[derive(Debug)]
pub enum Event<'a> {
    /// A take has frames that will not change any more.
    Frames {
        /// Number of the take.
        take: usize,
        /// How many, from its beginning.
        done: usize,
        /// Codes `[codebooks, frames]` of all of them, one codebook after the other.
        codes: &'a Codes,
    },
    /// A take is made.
    Finished {
        /// Number of the take.
        take: usize,
        /// It.
        generated: Generated,
    },
}

/// A take on its way.
struct Playing {
    take: usize,
    slot: usize,
    /// Frames made in windows before, by codebook.
    codes: Vec<Vec<u32>>,
    windows: Vec<WindowRecord>,
    captured: Vec<Captured>,
    /// The window that plays.
    offset: usize,
    prompt: usize,
    frames: usize,
    /// First column whose captured rows are still on the device.
    fetched: usize,
}

impl Generator<'_> {
    /// Plays takes, at most `block` columns at a time; `on` is told what was made after every block.
    ///
    /// The takes are those that the generator was made for, or need no more room.
    ///
    /// # Errors
    /// A stride that is not between 1 and the window; scores that are not finite; failures of the device; those of `on`.
    pub fn play<E: From<ModelError>>(
        &mut self,
        takes: &[Take],
        context: Context,
        block: usize,
        on: &mut dyn FnMut(Event<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.check_context(takes, context)?;
        let mut waiting = 0..takes.len();
        let mut playing: Vec<Playing> = Vec::new();
        loop {
            while let Some(slot) = self.free_slot() {
                let Some(take) = waiting.next() else { break };
                playing.push(self.first_window(take, slot, &takes[take])?);
            }
            let Some(ahead) = self.columns_ahead() else { return Ok(()) };
            self.advance(ahead.min(block.max(1)))?;
            let fetched = self.fetch()?;
            let mut still = Vec::with_capacity(playing.len());
            for mut one in playing {
                let take = &takes[one.take];
                let done = self.keep(&fetched, &mut one, take);
                let frames = one.offset + one.ready(self, done);
                let codes = self.codes_so_far(&fetched, &one, frames)?;
                on(Event::Frames { take: one.take, done: frames, codes: &codes })?;
                if !done {
                    still.push(one);
                    continue;
                }
                self.stop(one.slot)?;
                match self.next_window(one, take, &codes, context)? {
                    Next::Window(one) => still.push(one),
                    Next::Done { take, generated } => on(Event::Finished { take, generated })?,
                }
            }
            playing = still;
        }
    }

    fn check_context(&self, takes: &[Take], context: Context) -> Result<()> {
        let longest = takes.iter().map(|take| take.frames).max().unwrap_or(0);
        let window = self.sizes.frames;
        match context {
            Context::Stride(stride) if longest > window && !(1..window).contains(&stride) => {
                Err(ModelError::Argument {
                    argument: "stride",
                    found: format!("{stride} frames"),
                    expected: format!("1 to {}, less than a window", window - 1),
                })
            }
            Context::Full if longest > window => Err(ModelError::Argument {
                argument: "frames",
                found: longest.to_string(),
                expected: format!("at most {window}, the generator's window"),
            }),
            _ => Ok(()),
        }
    }

    fn first_window(&mut self, number: usize, slot: usize, take: &Take) -> Result<Playing> {
        let codebooks = self.codebooks();
        let codes = match &take.prompt {
            Some(prompt) => prompt.values().chunks(prompt.frames()).map(<[u32]>::to_vec).collect(),
            None => vec![Vec::new(); codebooks],
        };
        let captured = self.captures.iter().flat_map(|capture| {
            let half = |half| Captured { label: capture.label.clone(), half, rows: Vec::new() };
            [Halves::Conditional, Halves::Unconditional].into_iter().take(self.sizes.halves).map(half)
        });
        let captured = captured.collect();
        let playing = Playing {
            take: number,
            slot,
            codes,
            windows: Vec::new(),
            captured,
            offset: 0,
            prompt: take.prompt.as_ref().map_or(0, |prompt| prompt.frames()),
            frames: take.frames.min(self.sizes.frames),
            fetched: 0,
        };
        self.begin_window(playing, take)
    }

    /// Starts the window that `one` describes, in its slot.
    fn begin_window(&mut self, mut one: Playing, take: &Take) -> Result<Playing> {
        let codes: Vec<u32> = one.codes.iter().flat_map(|q| q[one.offset..].iter().copied()).collect();
        let window =
            Window { take, codes: &codes, prompt: one.prompt, frames: one.frames, offset: one.offset };
        let (columns, captured) = self.start(one.slot, &window)?;
        // rows of `[halves, columns, width]`; what an earlier window captured of the same positions stands
        let kept = one.rows_kept(self);
        for (c, bytes) in captured.iter().enumerate() {
            let halves = self.sizes.halves;
            let width = bytes.len() / (halves * columns).max(1);
            for half in 0..halves {
                let rows = &bytes[half * columns * width..][..columns * width];
                let skip = kept.saturating_sub(one.offset).min(columns);
                one.captured[c * halves + half].rows.extend_from_slice(&rows[skip * width..]);
            }
        }
        one.fetched = columns;
        one.windows.push(WindowRecord {
            frames: one.offset + one.prompt..one.offset + one.frames,
            sees_from: one.offset,
            prompt_frames: take
                .prompt
                .as_ref()
                .map_or(0, |prompt| prompt.frames().saturating_sub(one.offset)),
        });
        Ok(one)
    }

    /// Keeps what the last block captured; whether the window is done.
    fn keep(&self, fetched: &Fetched, one: &mut Playing, take: &Take) -> bool {
        let (column, done) = self.progress(one.slot).expect("it plays");
        let halves = self.sizes.halves;
        // positions of the take: a column for every frame, and the first
        let end = column.min(take.frames + 1 - one.offset).min(one.frames + 1);
        let from = one.fetched.max(one.rows_kept(self).saturating_sub(one.offset));
        for c in 0..self.captures.len() {
            for half in 0..halves {
                for row in self.captured(fetched, c, (one.slot, half), from..end) {
                    one.captured[c * halves + half].rows.extend_from_slice(row);
                }
            }
        }
        one.fetched = column;
        done
    }

    /// The codes of the first `frames` frames of a take.
    fn codes_so_far(&self, fetched: &Fetched, one: &Playing, frames: usize) -> Result<Codes> {
        let all = self.codes(fetched, one.slot);
        let room = self.sizes.frames;
        let mut values = Vec::with_capacity(one.codes.len() * frames);
        for (q, before) in one.codes.iter().enumerate() {
            let now = &all[q * room..][..frames.saturating_sub(one.offset)];
            if let Some(t) = now.iter().position(|&code| code == u32::MAX) {
                let frame = one.offset + t;
                return Err(ModelError::Codes(format!(
                    "take {}: the scores of codebook {q} at frame {frame} are not finite",
                    one.take
                )));
            }
            values.extend_from_slice(&before[..one.offset.min(frames)]);
            values.extend_from_slice(now);
        }
        Codes::new(one.codes.len(), frames, values)
    }

    fn next_window(
        &mut self,
        mut one: Playing,
        take: &Take,
        codes: &Codes,
        context: Context,
    ) -> Result<Next> {
        one.codes = codes.values().chunks(codes.frames()).map(<[u32]>::to_vec).collect();
        let made = codes.frames();
        if made == take.frames {
            let generated = Generated { codes: codes.clone(), windows: one.windows, captured: one.captured };
            return Ok(Next::Done { take: one.take, generated });
        }
        let Context::Stride(stride) = context else {
            unreachable!("check_context() saw that one window holds every take");
        };
        one.offset += stride;
        one.prompt = made - one.offset;
        one.frames = (take.frames - one.offset).min(self.sizes.frames);
        Ok(Next::Window(self.begin_window(one, take)?))
    }
}

/// What follows a window.
enum Next {
    Window(Playing),
    Done { take: usize, generated: Generated },
}

impl Playing {
    /// Frames of the window that will not change any more.
    fn ready(&self, generator: &Generator<'_>, done: bool) -> usize {
        if done {
            return self.frames;
        }
        let (column, _) = generator.progress(self.slot).expect("it plays");
        column.saturating_sub(generator.lag()).clamp(self.prompt, self.frames)
    }

    /// Positions of the take whose rows were captured.
    fn rows_kept(&self, generator: &Generator<'_>) -> usize {
        let Some(first) = self.captured.first() else { return 0 };
        first.rows.len() / generator.row_bytes(0)
    }
}
