//! Audio that takes continue: from a file to the codes of every channel.

use crate::audio_file::read_planes;
use crate::codec::codes_of;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::{FileRecord, InputRecord};
use auscult_model::Codes;
use auscult_model::encodec::Encodec;
use std::path::Path;

/// The prompt's codes, and where they are from. A model of one channel hears the mean of the file's; one of two hears
/// both, or what it hears of a file without two in either ear.
pub fn load(
    path: &Path,
    seconds: Option<f64>,
    channels: usize,
    codec: &Encodec,
) -> Result<(Codes, InputRecord)> {
    let rate = codec.config().sampling_rate;
    let most = match seconds {
        None => usize::MAX,
        Some(seconds) if seconds.is_finite() && seconds * f64::from(rate) >= 1.0 => {
            // beyond what fits, all of the file
            (seconds * f64::from(rate)).round() as usize
        }
        Some(seconds) => {
            let message = format!("`--prompt-seconds` is {seconds:?}, expected a number of seconds above 0");
            return Err(Failure::usage(message));
        }
    };
    let (planes, audio) = read_planes(path, rate, channels, most)?;
    let codes = codes_of(&planes, channels, codec)?;
    Ok((codes, InputRecord { file: FileRecord::of(path)?, audio: Some(audio) }))
}
