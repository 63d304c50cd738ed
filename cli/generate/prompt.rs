//! Audio that takes continue: from a file to the codes of every channel.

use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::{AudioRecord, FileRecord, InputRecord};
use auscult_audio::{Decoder, Resampler, Strictness};
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
    let (planes, audio) = planes(path, rate, channels, most)?;
    let of_planes = planes.iter().map(|plane| Ok(codec.encode(&[plane])?.remove(0)));
    let mut codes = of_planes.collect::<Result<Vec<_>>>()?;
    codes.resize(channels, codes[0].clone());
    Ok((Codes::interleaved(&codes)?, InputRecord { file: FileRecord::of(path)?, audio: Some(audio) }))
}

/// The first `most` samples at `rate` Hz of one channel, the mean of the file's, or of two; and how they were read.
pub fn planes(path: &Path, rate: u32, channels: usize, most: usize) -> Result<(Vec<Vec<f32>>, AudioRecord)> {
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
