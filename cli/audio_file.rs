//! Audio files: read as the channels that a model hears, written whole or not at all.

use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::AudioRecord;
use auscult_audio::wav::{Encoding, WavWriter, Written};
use auscult_audio::{AudioError, Decoder, Resampler, Strictness, flac};
use auscult_runtime::files::AtomicFile;
use std::fmt;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::str::FromStr;

/// Writes one channel of samples to `path`.
///
/// # Errors
/// The file cannot be written; the message names it.
pub fn write_wav(path: &Path, samples: &[f32], rate: u32, encoding: Encoding) -> Result<Written> {
    write_channels(path, samples, 1, rate, encoding)
}

/// The first `most` samples at `rate` Hz of one channel, the mean of the file's, or of two; and how they were read.
pub fn read_planes(
    path: &Path,
    rate: u32,
    channels: usize,
    most: usize,
) -> Result<(Vec<Vec<f32>>, AudioRecord)> {
    let mut decoder = Decoder::open(path, Strictness::Strict)?;
    let info = decoder.info().clone();
    let kept = if info.channels == 2 && channels == 2 { 2 } else { 1 };
    let resampler = || Resampler::new(info.sample_rate, rate);
    let mut resamplers = (0..kept).map(|_| resampler()).collect::<Result<Vec<_>, _>>()?;
    let mut planes = vec![Vec::new(); kept];
    let mut mono = Vec::new();
    while planes[0].len() < most {
        if kept == 1 {
            mono.clear();
            if !decoder.next_mono(&mut mono)? {
                break;
            }
            resamplers[0].push(&mono, &mut planes[0])?;
        } else if let Some(block) = decoder.next_channels()? {
            for ((resampler, plane), samples) in resamplers.iter_mut().zip(&mut planes).zip(block) {
                resampler.push(samples, plane)?;
            }
        } else {
            break;
        }
    }
    for (resampler, plane) in resamplers.iter_mut().zip(&mut planes) {
        resampler.finish(plane)?;
        plane.truncate(most);
    }
    let report = decoder.report();
    let record = AudioRecord {
        codec: info.codec.to_string(),
        container: info.container.to_string(),
        sample_rate: info.sample_rate,
        channels: info.channels,
        gapless: info.gapless.to_string(),
        resampler: resamplers[0].describe(),
        frames: report.frames,
        corrupt_packets: report.corrupt_packets,
        checksum_matches: report.checksum_matches,
    };
    Ok((planes, record))
}

/// What audio is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Wav,
    Flac,
}

impl Format {
    /// What the name of a file asks for; `None` of one that asks for nothing.
    ///
    /// # Errors
    /// A name that asks for what is not written.
    pub fn named(option: &str, path: &Path) -> Result<Option<Self>> {
        let Some(extension) = path.extension().and_then(|extension| extension.to_str()) else {
            return Ok(None);
        };
        let extension = extension.to_ascii_lowercase();
        if let Ok(format) = extension.parse() {
            return Ok(Some(format));
        }
        if !NOT_WRITTEN.contains(&extension.as_str()) {
            return Ok(None);
        }
        let message = format!(
            "`{option}` is {}, and {extension} is not written; expected a name that ends in .wav or .flac",
            path.display()
        );
        Err(Failure::usage(message))
    }
}

/// Endings of names that people expect other audio behind.
const NOT_WRITTEN: [&str; 9] = ["mp3", "ogg", "opus", "m4a", "aac", "aif", "aiff", "wma", "webm"];

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wav => "wav",
            Self::Flac => "flac",
        })
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "wav" => Ok(Self::Wav),
            "flac" => Ok(Self::Flac),
            _ => Err(format!("`{text}`, expected wav or flac")),
        }
    }
}

/// Writes channels, samples in -1..1 at `rate` Hz each, to `path`; `encoding` is that of WAV, flac has 16 bits.
///
/// # Errors
/// The file cannot be written; the message names it.
pub fn write_audio(
    path: &Path,
    planes: Vec<Vec<f32>>,
    rate: u32,
    (format, encoding): (Format, Encoding),
) -> Result<Audio> {
    let channels = u16::try_from(planes.len()).expect("a model has one channel or two");
    let samples = weave(planes);
    let written = match format {
        Format::Wav => write_channels(path, &samples, channels, rate, encoding)?,
        Format::Flac => write(path, |out| flac::write(out, rate, channels, &samples))?,
    };
    Ok(Audio { samples, channels, written })
}

/// What was written.
pub struct Audio {
    /// Samples of the channels, alternating.
    pub samples: Vec<f32>,
    pub channels: u16,
    pub written: Written,
}

/// Samples of the channels, alternating.
pub fn weave(mut planes: Vec<Vec<f32>>) -> Vec<f32> {
    if planes.len() == 1 {
        return planes.remove(0);
    }
    let samples = planes.iter().map(Vec::len).min().unwrap_or(0);
    (0..samples).flat_map(|i| planes.iter().map(move |plane| plane[i])).collect()
}

fn write_channels(
    path: &Path,
    samples: &[f32],
    channels: u16,
    rate: u32,
    encoding: Encoding,
) -> Result<Written> {
    write(path, |out| {
        let mut wav = WavWriter::new(out, rate, channels, encoding)?;
        wav.write(samples)?;
        wav.finish()
    })
}

fn write(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<Written, AudioError>,
) -> Result<Written> {
    let mut file = AtomicFile::create(path)?;
    // an error of the writer does not know the file
    let written = match write(file.writer()) {
        Err(AudioError::Write(error)) => return Err(file.error(error).into()),
        other => other?,
    };
    file.commit()?;
    Ok(written)
}
