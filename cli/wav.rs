//! Writing an audio file that is whole or absent.

use anyhow::Result;
use auscult_audio::wav::{Encoding, WavWriter, Written};
use auscult_audio::{AudioError, flac};
use auscult_runtime::files::AtomicFile;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// Writes one channel of samples to `path`.
///
/// # Errors
/// The file cannot be written; the message names it.
pub fn write_wav(path: &Path, samples: &[f32], rate: u32, encoding: Encoding) -> Result<Written> {
    write_channels(path, samples, 1, rate, encoding)
}

/// Writes interleaved channels to `path`.
///
/// # Errors
/// The file cannot be written; the message names it.
pub fn write_channels(
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

/// Writes interleaved channels to `path` as FLAC of 16 bits.
///
/// # Errors
/// The file cannot be written; the message names it.
pub fn write_flac(path: &Path, samples: &[f32], channels: u16, rate: u32) -> Result<Written> {
    write(path, |out| flac::write(out, rate, channels, samples))
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
