//! From a file to clips at a model's rate: decoder, resampler and cutter in one stream.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::window::Cutter;
use crate::{AudioError, Clip, DecodeReport, Decoder, Resampler, SourceInfo, Strictness, Windows};

/// A file decoded to mono and resampled, block after block.
pub struct Stream {
    decoder: Decoder,
    resampler: Resampler,
    mono: Vec<f32>,
    finished: bool,
    resampling: Duration,
}

impl Stream {
    /// Opens a file for output at `rate` Hz.
    ///
    /// # Errors
    /// As [`Decoder::open`] and [`Resampler::new`].
    pub fn open(path: impl AsRef<Path>, rate: u32, strictness: Strictness) -> Result<Self, AudioError> {
        let decoder = Decoder::open(path, strictness)?;
        let resampler = Resampler::new(decoder.info().sample_rate, rate)?;
        Ok(Stream { decoder, resampler, mono: Vec::new(), finished: false, resampling: Duration::ZERO })
    }

    /// What the file's header says.
    pub fn info(&self) -> &SourceInfo {
        self.decoder.info()
    }

    /// What decoding has found so far.
    pub fn report(&self) -> &DecodeReport {
        self.decoder.report()
    }

    /// The resampling, for records ([`Resampler::describe`]).
    pub fn describe_resampling(&self) -> String {
        self.resampler.describe()
    }

    /// Time spent resampling so far.
    pub fn resampling_time(&self) -> Duration {
        self.resampling
    }

    /// Output rate, in Hz.
    pub fn rate(&self) -> u32 {
        self.resampler.to()
    }

    /// Appends the next mono samples at the output rate to `out` (possibly none); false once all have been given.
    ///
    /// # Errors
    /// As [`Decoder::next_channels`] and [`Resampler::push`]; after an error the stream has ended.
    pub fn next_block(&mut self, out: &mut Vec<f32>) -> Result<bool, AudioError> {
        if self.finished {
            return Ok(false);
        }
        self.mono.clear();
        // Set first, so that an error ends the stream.
        self.finished = true;
        let more = self.decoder.next_mono(&mut self.mono)?;
        let started = Instant::now();
        if more {
            self.resampler.push(&self.mono, out)?;
            self.finished = false;
        } else {
            self.resampler.finish(out)?;
        }
        self.resampling += started.elapsed();
        Ok(true)
    }
}

/// The clips of a file, in order: an iterator that reads as far as the next clip needs. It holds at most one window
/// plus one block. After an error it yields nothing more.
pub struct ClipSource {
    stream: Stream,
    cutter: Cutter,
    block: Vec<f32>,
    /// Longest clip allowed, in samples.
    longest: Option<usize>,
    state: State,
    most_buffered: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// The stream has given all; at most one clip is left.
    Drained,
    Over,
}

impl ClipSource {
    /// The clips of `stream` as `windows` says.
    ///
    /// # Errors
    /// [`AudioError::Window`] for times that cannot be cut.
    pub fn new(stream: Stream, windows: &Windows) -> Result<Self, AudioError> {
        let cutter = Cutter::new(windows.cuts(stream.rate())?, stream.rate());
        Ok(ClipSource {
            stream,
            cutter,
            block: Vec::new(),
            longest: None,
            state: State::Reading,
            most_buffered: 0,
        })
    }

    /// Refuses clips of more than `samples` samples with [`AudioError::ClipTooLong`]. It is found while reading, before
    /// more than that is held: a two-hour file without a window costs no more memory than the longest clip.
    #[must_use]
    pub fn longest_clip(mut self, samples: usize) -> Self {
        self.longest = Some(samples);
        self
    }

    /// What the file's header says.
    pub fn info(&self) -> &SourceInfo {
        self.stream.info()
    }

    /// What decoding has found so far; complete once the iterator has ended (a `duration` that ends before the file
    /// leaves the rest unread).
    pub fn report(&self) -> &DecodeReport {
        self.stream.report()
    }

    /// The resampling, for records ([`Resampler::describe`]).
    pub fn describe_resampling(&self) -> String {
        self.stream.describe_resampling()
    }

    /// Time spent resampling so far.
    pub fn resampling_time(&self) -> Duration {
        self.stream.resampling_time()
    }

    /// The most samples at the output rate that were held at any time so far.
    pub fn most_buffered(&self) -> usize {
        self.most_buffered
    }

    fn read(&mut self) -> Result<Option<Clip>, AudioError> {
        let rate = f64::from(self.stream.rate());
        loop {
            if let Some(clip) = self.cutter.ready() {
                return Ok(Some(clip));
            }
            if self.cutter.done() || self.state != State::Reading {
                return Ok(None);
            }
            self.block.clear();
            if self.stream.next_block(&mut self.block)? {
                self.cutter.push(&self.block);
                self.most_buffered = self.most_buffered.max(self.cutter.held() + self.block.len());
            } else {
                self.state = State::Drained;
                let start = self.cutter.first();
                if self.cutter.position() <= start {
                    return Err(AudioError::PastTheEnd {
                        path: self.info().path.clone(),
                        start: start as f64 / rate,
                        length: self.cutter.position() as f64 / rate,
                    });
                }
                return Ok(self.cutter.finish());
            }
            if let Some(longest) = self.longest
                && self.cutter.pending_clip() > longest as u64
            {
                return Err(AudioError::ClipTooLong {
                    path: self.info().path.clone(),
                    longest: longest as f64 / rate,
                });
            }
        }
    }
}

impl Iterator for ClipSource {
    type Item = Result<Clip, AudioError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Over {
            return None;
        }
        let read = self.read();
        if !matches!(read, Ok(Some(_))) {
            self.state = State::Over;
        }
        read.transpose()
    }
}

/// The clips of a file at `rate` Hz, strictly read.
///
/// # Errors
/// As [`Stream::open`] and [`ClipSource::new`]; what is wrong further into the file comes from the iterator.
pub fn open(path: impl AsRef<Path>, rate: u32, windows: &Windows) -> Result<ClipSource, AudioError> {
    ClipSource::new(Stream::open(path, rate, Strictness::Strict)?, windows)
}

/// All of a file as mono samples at `rate` Hz, strictly read.
///
/// # Errors
/// As [`Stream::open`] and [`Stream::next_block`].
pub fn load(path: impl AsRef<Path>, rate: u32) -> Result<Vec<f32>, AudioError> {
    let mut stream = Stream::open(path, rate, Strictness::Strict)?;
    let mut samples = Vec::new();
    while stream.next_block(&mut samples)? {}
    Ok(samples)
}

/// What a file's header says, without decoding more than its first packet: codec, rate, channels, length.
///
/// # Errors
/// As [`Decoder::open`].
pub fn probe(path: impl AsRef<Path>) -> Result<SourceInfo, AudioError> {
    Ok(Decoder::open(path, Strictness::Strict)?.info().clone())
}
