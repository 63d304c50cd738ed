//! Writing WAV: 16-bit or 32-bit float, sample by sample, to anything that writes and seeks.
//!
//! It does not dither, and it does not choose names or places: the caller hands over an open writer.

use std::io::{Seek, SeekFrom, Write};

use crate::AudioError;

/// How samples are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Signed 16-bit: `round(x * 32768)`, halves away from zero, limited to [-32768, 32767]; the inverse of how
    /// decoders read it (`s / 32768`), so 16-bit audio survives a round trip exactly.
    Int16,
    /// IEEE 32-bit float, stored as given.
    Float32,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Samples a channel.
    pub frames: u64,
    /// Samples beyond full scale (|x| > 1). In 16-bit output they were limited; in float output they stand.
    pub clipped: u64,
}

/// A WAV file being written. Call [`WavWriter::finish`]: the header's sizes are written there, and until then they say
/// that the file holds nothing.
///
/// The header is the plain one (format 1 or 3, no channel mask) for any number of channels: with a mask, readers take
/// a mono file for the left channel of a stereo pair.
pub struct WavWriter<W: Write + Seek> {
    out: W,
    /// Where the file begins in `out`.
    origin: u64,
    sample_rate: u32,
    channels: u16,
    encoding: Encoding,
    samples: u64,
    clipped: u64,
    bytes: Vec<u8>,
}

/// The most bytes of samples: RIFF sizes are u32, and count the header behind the first 8 bytes too.
const DATA_LIMIT: u64 = u32::MAX as u64 - 50;

impl Encoding {
    fn bytes(self) -> u16 {
        match self {
            Encoding::Int16 => 2,
            Encoding::Float32 => 4,
        }
    }
}

impl<W: Write + Seek> WavWriter<W> {
    /// Starts a file of `channels` interleaved channels (1..=64) at `sample_rate` Hz.
    ///
    /// # Errors
    /// [`AudioError::Write`] when the header cannot be written; [`AudioError::Window`] for a rate outside
    /// [`crate::SAMPLE_RATES`] or a number of channels outside 1..=64.
    pub fn new(mut out: W, sample_rate: u32, channels: u16, encoding: Encoding) -> Result<Self, AudioError> {
        check(sample_rate, channels)?;
        let origin = out.stream_position()?;
        let mut wav = WavWriter {
            out,
            origin,
            sample_rate,
            channels,
            encoding,
            samples: 0,
            clipped: 0,
            bytes: Vec::new(),
        };
        wav.write_header()?;
        Ok(wav)
    }

    /// Appends interleaved samples.
    ///
    /// # Errors
    /// [`AudioError::WriteNonFinite`] names the first NaN or infinity; [`AudioError::WriteTooLong`] past 4 GiB;
    /// [`AudioError::Write`] from the writer.
    pub fn write(&mut self, samples: &[f32]) -> Result<(), AudioError> {
        let found = (self.samples + samples.len() as u64) * u64::from(self.encoding.bytes());
        if found > DATA_LIMIT {
            return Err(AudioError::WriteTooLong { found, limit: DATA_LIMIT });
        }
        if let Some(i) = samples.iter().position(|x| !x.is_finite()) {
            return Err(AudioError::WriteNonFinite { index: self.samples + i as u64, value: samples[i] });
        }
        self.clipped += samples.iter().filter(|x| x.abs() > 1.0).count() as u64;
        self.samples += samples.len() as u64;
        self.bytes.clear();
        encode(self.encoding, samples, &mut self.bytes);
        self.out.write_all(&self.bytes)?;
        Ok(())
    }

    /// Writes the sizes into the header, leaves the position at the end, and flushes.
    ///
    /// # Errors
    /// [`AudioError::Write`]; [`AudioError::Window`] when the last frame lacks channels.
    pub fn finish(mut self) -> Result<Written, AudioError> {
        let channels = u64::from(self.channels);
        if !self.samples.is_multiple_of(channels) {
            let expected = format!("a multiple of the {channels} channels");
            return Err(crate::window::usage("samples written", self.samples, expected));
        }
        self.out.seek(SeekFrom::Start(self.origin))?;
        self.write_header()?;
        self.out.seek(SeekFrom::End(0))?;
        self.out.flush()?;
        Ok(Written { frames: self.samples / channels, clipped: self.clipped })
    }

    fn write_header(&mut self) -> Result<(), AudioError> {
        Ok(self.out.write_all(&header(self.sample_rate, self.channels, self.encoding, self.samples))?)
    }
}

/// RIFF/WAVE: `fmt `, for float also `fact` (which the format asks for when it is not PCM), and `data`, of so many samples
/// of all channels together, which were checked against [`DATA_LIMIT`].
fn header(sample_rate: u32, channels: u16, encoding: Encoding, samples: u64) -> Vec<u8> {
    let width = encoding.bytes();
    let frame = width * channels;
    let small = |n: u64| u32::try_from(n).expect("checked against DATA_LIMIT");
    let data = small(samples * u64::from(width));
    let (tag, fmt_size, fact): (u16, u32, bool) = match encoding {
        Encoding::Int16 => (1, 16, false),
        Encoding::Float32 => (3, 18, true),
    };
    let mut fields = Vec::with_capacity(58);
    fields.extend_from_slice(b"WAVEfmt ");
    fields.extend_from_slice(&fmt_size.to_le_bytes());
    fields.extend_from_slice(&tag.to_le_bytes());
    fields.extend_from_slice(&channels.to_le_bytes());
    fields.extend_from_slice(&sample_rate.to_le_bytes());
    fields.extend_from_slice(&(sample_rate * u32::from(frame)).to_le_bytes());
    fields.extend_from_slice(&frame.to_le_bytes());
    fields.extend_from_slice(&(width * 8).to_le_bytes());
    if fact {
        fields.extend_from_slice(&0u16.to_le_bytes());
        fields.extend_from_slice(b"fact");
        fields.extend_from_slice(&4u32.to_le_bytes());
        fields.extend_from_slice(&small(samples / u64::from(channels)).to_le_bytes());
    }
    fields.extend_from_slice(b"data");
    fields.extend_from_slice(&data.to_le_bytes());
    let mut header = b"RIFF".to_vec();
    header.extend_from_slice(&small(fields.len() as u64 + u64::from(data)).to_le_bytes());
    header.extend_from_slice(&fields);
    header
}

/// A whole WAV file's bytes come out as it becomes known, into something that does not seek: its length is said first.
pub struct WavStream<W: Write> {
    out: W,
    encoding: Encoding,
    /// Samples that are still to come.
    left: u64,
}

impl<W: Write> WavStream<W> {
    /// Starts a file of `frames` samples a channel.
    ///
    /// # Errors
    /// As [`WavWriter::new`]; [`AudioError::WriteTooLong`] past 4 GiB.
    pub fn new(
        mut out: W,
        sample_rate: u32,
        channels: u16,
        encoding: Encoding,
        frames: u64,
    ) -> Result<Self, AudioError> {
        check(sample_rate, channels)?;
        let samples = frames.saturating_mul(channels.into());
        let found = samples.saturating_mul(encoding.bytes().into());
        if found > DATA_LIMIT {
            return Err(AudioError::WriteTooLong { found, limit: DATA_LIMIT });
        }
        out.write_all(&header(sample_rate, channels, encoding, samples))?;
        Ok(Self { out, encoding, left: samples })
    }

    /// Passes interleaved samples on, and flushes.
    ///
    /// # Errors
    /// As [`WavWriter::write`]; [`AudioError::Window`] for more samples than were announced.
    pub fn write(&mut self, samples: &[f32]) -> Result<(), AudioError> {
        let count = samples.len() as u64;
        self.left = self.left.checked_sub(count).ok_or_else(|| {
            crate::window::usage("samples written", count, format!("at most {} more", self.left))
        })?;
        if let Some(i) = samples.iter().position(|x| !x.is_finite()) {
            return Err(AudioError::WriteNonFinite { index: i as u64, value: samples[i] });
        }
        let mut bytes = Vec::new();
        encode(self.encoding, samples, &mut bytes);
        self.out.write_all(&bytes)?;
        Ok(self.out.flush()?)
    }
}

fn check(sample_rate: u32, channels: u16) -> Result<(), AudioError> {
    if !crate::SAMPLE_RATES.contains(&sample_rate) {
        return Err(crate::window::usage("rate", format!("{sample_rate} Hz"), crate::RATE_RANGE));
    }
    if channels == 0 || usize::from(channels) > crate::MAX_CHANNELS {
        return Err(crate::window::usage("channels", channels, "1..=64"));
    }
    Ok(())
}

fn encode(encoding: Encoding, samples: &[f32], bytes: &mut Vec<u8>) {
    match encoding {
        Encoding::Int16 => bytes.extend(samples.iter().flat_map(|&x| to_i16(x).to_le_bytes())),
        Encoding::Float32 => bytes.extend(samples.iter().flat_map(|x| x.to_le_bytes())),
    }
}

/// `round(x * 32768)` limited to i16; `as` saturates, which is the limiting.
pub(crate) fn to_i16(x: f32) -> i16 {
    (f64::from(x) * 32768.0).round() as i16
}

/// Writes mono `samples` as one WAV file.
///
/// # Errors
/// As [`WavWriter::write`] and [`WavWriter::finish`].
pub fn write<W: Write + Seek>(
    out: W,
    sample_rate: u32,
    samples: &[f32],
    encoding: Encoding,
) -> Result<Written, AudioError> {
    let mut wav = WavWriter::new(out, sample_rate, 1, encoding)?;
    wav.write(samples)?;
    wav.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_gives_the_bytes_of_the_file() {
        let samples: Vec<f32> = (0..30).map(|i| (i as f32 * 0.3).sin()).collect();
        for encoding in [Encoding::Int16, Encoding::Float32] {
            let mut file = std::io::Cursor::new(Vec::new());
            let mut wav = WavWriter::new(&mut file, 32_000, 2, encoding).unwrap();
            wav.write(&samples).unwrap();
            wav.finish().unwrap();
            let mut bytes = Vec::new();
            let mut stream = WavStream::new(&mut bytes, 32_000, 2, encoding, 15).unwrap();
            stream.write(&samples[..8]).unwrap();
            stream.write(&samples[8..]).unwrap();
            assert!(stream.write(&samples[..1]).unwrap_err().to_string().contains("at most 0 more"));
            assert_eq!(bytes, file.into_inner());
        }
        assert!(WavStream::new(Vec::new(), 32_000, 1, Encoding::Int16, u64::MAX).is_err());
    }
}
