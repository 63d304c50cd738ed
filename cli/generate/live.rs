//! A take on standard output while it plays.

use crate::audio_file::weave;
use anyhow::Result;
use auscult_audio::wav::{Encoding, WavStream};
use auscult_model::Codes;
use auscult_model::encodec::{AudioStream, Encodec};
use std::io::Stdout;

/// Frames that are waited for before the next piece is decoded; a piece has a cost of its own.
const PIECE: usize = 100;

/// A WAV file that grows on standard output.
pub struct Live<'c> {
    out: WavStream<Stdout>,
    /// One for each channel.
    audio: Vec<AudioStream<'c>>,
    frames: usize,
    seen: usize,
}

impl<'c> Live<'c> {
    /// Starts the file of a take of so many frames.
    ///
    /// # Errors
    /// A length that no WAV file has; standard output.
    pub fn begin(codec: &'c Encodec, channels: usize, frames: usize, encoding: Encoding) -> Result<Self> {
        let samples = frames as u64 * codec.config().hop_length() as u64;
        let count = u16::try_from(channels).expect("a decoder has one channel or two");
        let out = WavStream::new(std::io::stdout(), codec.config().sampling_rate, count, encoding, samples)?;
        let audio = (0..channels).map(|_| codec.stream(frames)).collect();
        Ok(Self { out, audio, frames, seen: 0 })
    }

    /// Passes on what the first frames of the take, which will not change any more, add.
    ///
    /// # Errors
    /// The device; standard output, which somebody may have stopped to listen to.
    pub fn add(&mut self, codes: &Codes) -> Result<()> {
        let made = codes.frames();
        if made == 0 || (made < self.frames && made < self.seen + PIECE) {
            return Ok(());
        }
        self.seen = made;
        let channels = self.audio.len();
        let streams = self.audio.iter_mut().enumerate();
        let planes = streams.map(|(c, stream)| Ok(stream.push(&codes.channel(c, channels)?)?));
        let planes = planes.collect::<Result<Vec<_>>>()?;
        Ok(self.out.write(&weave(planes))?)
    }
}
