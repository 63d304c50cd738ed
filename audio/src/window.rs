//! Where a stream is cut into clips: sample positions from seconds, and the cutter that holds at most one window.
//!
//! It knows samples only; files, decoding and resampling are in [`crate::clip`].

use crate::AudioError;

/// What becomes of a last window that the audio does not fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastClip {
    /// Kept at its shorter length and marked partial.
    #[default]
    Keep,
    /// Dropped.
    Drop,
}

/// How a stream is cut. All times in seconds; each becomes `round(seconds * rate)` samples at the output rate.
///
/// The range cut is `[start, start + duration)`, ended by the audio's end if that comes first. Without a window it is
/// one clip. With one, clip `k` begins at `start + k * stride` and has `window` samples; cutting stops with the first
/// clip that reaches the end of the range, so each clip holds something that no clip before it held whole, and at most
/// one clip is partial. A stride above the window leaves gaps.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Windows {
    /// Length of a clip; none: the whole range is one clip.
    pub window: Option<f64>,
    /// From the start of one clip to the start of the next; none: the window.
    pub stride: Option<f64>,
    /// Where the range starts.
    pub start: f64,
    /// Length of the range; none: to the end.
    pub duration: Option<f64>,
    /// What becomes of a last window that is not full.
    pub last: LastClip,
}

/// One clip of audio.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// Time of its first sample from the start of the file: `start_sample / rate`.
    pub start_seconds: f64,
    /// Time one past its last sample: `(start_sample + samples.len()) / rate`.
    pub end_seconds: f64,
    /// Position of its first sample in the file at the output rate.
    pub start_sample: u64,
    /// Mono samples at the output rate; never empty.
    pub samples: Vec<f32>,
    /// Whether it is shorter than the window.
    pub partial: bool,
}

/// [`Windows`] in samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cuts {
    pub start: u64,
    /// One past the range; `u64::MAX` when it ends with the audio.
    pub end: u64,
    pub window: Option<u64>,
    pub stride: u64,
    pub last: LastClip,
}

pub(crate) fn usage(field: &'static str, found: impl ToString, expected: impl ToString) -> AudioError {
    AudioError::Window { field, found: found.to_string(), expected: expected.to_string() }
}

impl Windows {
    /// Checks the times and turns them into samples at `rate` Hz.
    ///
    /// # Errors
    /// [`AudioError::Window`] names the field: a time that is not finite or negative, or a window, stride or duration
    /// of less than one sample, or a stride without a window.
    pub(crate) fn cuts(&self, rate: u32) -> Result<Cuts, AudioError> {
        let start = samples("start", self.start, rate, 0)?;
        let window = self.window.map(|s| samples("window", s, rate, 1)).transpose()?;
        let stride = match (self.stride, window) {
            (Some(s), Some(_)) => samples("stride", s, rate, 1)?,
            (Some(s), None) => return Err(usage("stride", format!("{s} s"), "a window to go with it")),
            (None, window) => window.unwrap_or(u64::MAX),
        };
        let end = match self.duration {
            None => u64::MAX,
            Some(s) => {
                samples("duration", s, rate, 1)?;
                samples("start + duration", self.start + s, rate, 1)?
            }
        };
        Ok(Cuts { start, end, window, stride, last: self.last })
    }
}

/// `round(seconds * rate)`, refused below `least` samples.
fn samples(field: &'static str, seconds: f64, rate: u32, least: u64) -> Result<u64, AudioError> {
    // 2^53 samples: beyond it f64 no longer counts single samples.
    const MOST: f64 = 9_007_199_254_740_992.0;
    let exact = (seconds * f64::from(rate)).round();
    if !seconds.is_finite() || seconds < 0.0 || exact < least as f64 || exact > MOST {
        let expected = match least {
            0 => "a finite time of at least 0 s".to_owned(),
            _ => format!("a finite time of at least one sample (1/{rate} s)"),
        };
        return Err(usage(field, format!("{seconds} s"), expected));
    }
    Ok(exact as u64)
}

/// Cuts a stream that is pushed in blocks. It holds at most one window (or, with a window, what lies between two
/// strides) plus the block pushed last.
pub(crate) struct Cutter {
    cuts: Cuts,
    rate: u32,
    /// Samples from `held_from` on.
    held: Vec<f32>,
    held_from: u64,
    /// Start of the next clip.
    next: u64,
    /// One past the last sample of any clip so far.
    reached: u64,
    done: bool,
}

impl Cutter {
    pub fn new(cuts: Cuts, rate: u32) -> Self {
        let (held, next) = (Vec::new(), cuts.start);
        Cutter { cuts, rate, held, held_from: 0, next, reached: 0, done: false }
    }

    /// Start of the range.
    pub fn first(&self) -> u64 {
        self.cuts.start
    }

    /// How much of the next clip is there already.
    pub fn pending_clip(&self) -> u64 {
        let end = self.cuts.window.map_or(u64::MAX, |window| self.next.saturating_add(window));
        self.position().min(end).min(self.cuts.end).saturating_sub(self.next)
    }

    /// Samples held now.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether no further clip can come, whatever is pushed.
    pub fn done(&self) -> bool {
        self.done
    }

    /// Position one past the last sample pushed.
    pub fn position(&self) -> u64 {
        self.held_from + self.held.len() as u64
    }

    /// Takes the next block of the stream.
    pub fn push(&mut self, block: &[f32]) {
        let position = self.position();
        // Before the next clip nothing is wanted: skip without storing it.
        let skip = self.next.saturating_sub(position).min(block.len() as u64);
        if self.held.is_empty() {
            let (_, wanted) = block.split_at(index(skip));
            self.held_from = position + skip;
            self.held.extend_from_slice(wanted);
        } else {
            self.held.extend_from_slice(block);
        }
    }

    /// The next clip whose samples are all there.
    pub fn ready(&mut self) -> Option<Clip> {
        let end = match self.cuts.window {
            Some(window) => self.next.saturating_add(window).min(self.cuts.end),
            None => self.cuts.end,
        };
        if self.done || self.next >= self.cuts.end || self.position() < end {
            return None;
        }
        self.cut(end)
    }

    /// The last clip, once the stream has ended: what is left of the range, if anything.
    pub fn finish(&mut self) -> Option<Clip> {
        let end = self.cuts.end.min(self.position());
        if self.done || self.next >= end || self.reached >= end {
            self.done = true;
            return None;
        }
        let clip = self.cut(end);
        self.done = true;
        clip
    }

    fn cut(&mut self, end: u64) -> Option<Clip> {
        let start = self.next;
        let len = end - start;
        let partial = self.cuts.window.is_some_and(|window| len < window);
        let (from, len) = (index(start - self.held_from), index(len));
        self.next = start.saturating_add(self.cuts.stride);
        self.reached = end;
        self.done |= end >= self.cuts.end || self.cuts.window.is_none();
        let samples = if from == 0 && len == self.held.len() && self.next >= self.position() {
            // The whole of what is held, and none of it wanted again: a long clip is not copied.
            self.held_from += len as u64;
            std::mem::take(&mut self.held)
        } else {
            let samples = self.held[from..from + len].to_vec();
            let drop = index(self.next.min(self.position()) - self.held_from);
            self.held.drain(..drop);
            self.held_from += drop as u64;
            samples
        };
        if partial && self.cuts.last == LastClip::Drop {
            return None;
        }
        let seconds = |sample: u64| sample as f64 / f64::from(self.rate);
        Some(Clip {
            start_seconds: seconds(start),
            end_seconds: seconds(end),
            start_sample: start,
            samples,
            partial,
        })
    }
}

/// A distance inside the held samples, which fits the address space because the samples do.
fn index(n: u64) -> usize {
    usize::try_from(n).expect("a distance between samples in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts `len` samples (each its own position) at 10 Hz, pushed in blocks; gives (start, end, partial) and checks
    /// that every clip holds what it says.
    fn cut(windows: Windows, len: usize, block: usize) -> Vec<(u64, u64, bool)> {
        let mut cutter = Cutter::new(windows.cuts(10).unwrap(), 10);
        let stream: Vec<f32> = (0..len).map(|i| i as f32).collect();
        let mut clips = Vec::new();
        for block in stream.chunks(block) {
            cutter.push(block);
            clips.extend(std::iter::from_fn(|| cutter.ready()));
        }
        clips.extend(cutter.finish());
        clips
            .into_iter()
            .map(|clip| {
                let end = clip.start_sample + clip.samples.len() as u64;
                assert!(clip.samples.iter().zip(clip.start_sample..end).all(|(&x, i)| x == i as f32));
                assert_eq!(
                    (clip.start_seconds, clip.end_seconds),
                    (clip.start_sample as f64 / 10.0, end as f64 / 10.0)
                );
                (clip.start_sample, end, clip.partial)
            })
            .collect()
    }

    fn every(window: f64, stride: Option<f64>) -> Windows {
        Windows { window: Some(window), stride, ..Windows::default() }
    }

    #[test]
    fn clips_are_cut_as_documented() {
        let none = Windows::default();
        let drop = Windows { last: LastClip::Drop, ..every(10.0, None) };
        let from = |start, duration| Windows { start, duration, ..every(10.0, None) };
        for (windows, len, want, why) in [
            (none, 250, vec![(0, 250, false)], "no window: one clip"),
            (none, 1, vec![(0, 1, false)], "one sample"),
            (
                every(10.0, None),
                250,
                vec![(0, 100, false), (100, 200, false), (200, 250, true)],
                "10 s of 25 s",
            ),
            (drop, 250, vec![(0, 100, false), (100, 200, false)], "the last one dropped"),
            (drop, 99, vec![], "the only one dropped"),
            (every(10.0, None), 200, vec![(0, 100, false), (100, 200, false)], "an exact fit leaves nothing"),
            (every(10.0, None), 1, vec![(0, 1, true)], "one sample of a window"),
            (
                every(10.0, None),
                201,
                vec![(0, 100, false), (100, 200, false), (200, 201, true)],
                "one sample over",
            ),
            (
                every(10.0, Some(5.0)),
                200,
                vec![(0, 100, false), (50, 150, false), (100, 200, false)],
                "overlap: no partial clip of what a whole one already held",
            ),
            (
                every(10.0, Some(4.0)),
                190,
                vec![(0, 100, false), (40, 140, false), (80, 180, false), (120, 190, true)],
                "overlap: one partial clip, with the end in it",
            ),
            (
                every(10.0, Some(12.0)),
                250,
                vec![(0, 100, false), (120, 220, false), (240, 250, true)],
                "gaps",
            ),
            (every(10.0, Some(12.0)), 230, vec![(0, 100, false), (120, 220, false)], "the end lies in a gap"),
            (from(3.0, None), 250, vec![(30, 130, false), (130, 230, false), (230, 250, true)], "a start"),
            (
                from(3.0, Some(15.0)),
                250,
                vec![(30, 130, false), (130, 180, true)],
                "a duration inside the file",
            ),
            (from(3.0, Some(20.0)), 250, vec![(30, 130, false), (130, 230, false)], "a duration that fits"),
            (from(3.0, Some(99.0)), 120, vec![(30, 120, true)], "a duration beyond the file"),
            (
                Windows { start: 3.0, duration: Some(2.0), ..none },
                250,
                vec![(30, 50, false)],
                "a range without a window is whole",
            ),
            (from(24.9, None), 250, vec![(249, 250, true)], "the very last sample"),
            (
                every(0.06, None),
                3,
                vec![(0, 1, false), (1, 2, false), (2, 3, false)],
                "0.6 samples round to 1",
            ),
        ] {
            for block in [1, 7, 64, 1000] {
                assert_eq!(cut(windows, len, block), want, "{why}, blocks of {block}");
            }
        }
    }

    #[test]
    fn a_range_past_the_end_gives_nothing_and_knows_the_length() {
        let windows = Windows { start: 30.0, ..every(10.0, None) };
        let mut cutter = Cutter::new(windows.cuts(10).unwrap(), 10);
        cutter.push(&[0.0; 250]);
        assert_eq!((cutter.ready(), cutter.finish()), (None, None));
        assert_eq!((cutter.position(), cutter.first()), (250, 300));
    }

    #[test]
    fn two_hours_are_held_one_window_at_a_time() {
        let (rate, block) = (32_000, 1280);
        for (window, stride, most) in [
            (10.0, None, 10 * 32_000 + block),
            (10.0, Some(1.0), 10 * 32_000 + block),
            (1.0, Some(60.0), 32_000 + block),
            // A clip shorter than a block: the block itself.
            (0.01, None, 320 + block),
        ] {
            let mut cutter = Cutter::new(every(window, stride).cuts(rate).unwrap(), rate);
            let (mut held, mut clips) = (0, 0);
            for _ in 0..2 * 3600 * 32_000 / block {
                cutter.push(&vec![0.5; block]);
                held = held.max(cutter.held());
                clips += std::iter::from_fn(|| cutter.ready()).count();
            }
            assert!(held <= most, "window {window}, stride {stride:?}: {held} samples held, expected {most}");
            let step = stride.unwrap_or(window);
            assert_eq!(
                clips,
                ((7200.0 - window) / step + 1e-9) as usize + 1,
                "window {window}, stride {stride:?}"
            );
        }
    }

    #[test]
    fn times_that_cannot_be_cut_are_refused_by_name() {
        let base = Windows { window: Some(1.0), ..Windows::default() };
        for (windows, want) in [
            (
                Windows { window: Some(0.0), ..base },
                "`window` is 0 s, expected a finite time of at least one sample (1/10 s)",
            ),
            (
                Windows { window: Some(0.04), ..base },
                "`window` is 0.04 s, expected a finite time of at least one sample (1/10 s)",
            ),
            (
                Windows { stride: Some(-1.0), ..base },
                "`stride` is -1 s, expected a finite time of at least one sample (1/10 s)",
            ),
            (Windows { start: f64::NAN, ..base }, "`start` is NaN s, expected a finite time of at least 0 s"),
            (Windows { start: -0.5, ..base }, "`start` is -0.5 s, expected a finite time of at least 0 s"),
            (
                Windows { duration: Some(0.0), ..base },
                "`duration` is 0 s, expected a finite time of at least one sample (1/10 s)",
            ),
            (Windows { duration: Some(1e300), ..base }, "`duration` is 1"),
            (
                Windows { window: None, stride: Some(2.0), ..base },
                "`stride` is 2 s, expected a window to go with it",
            ),
        ] {
            let message = windows.cuts(10).unwrap_err().to_string();
            assert!(message.starts_with(want), "{message}");
        }
    }
}
