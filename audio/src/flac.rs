//! Writing FLAC: 16 bits a sample, the same ones as in 16-bit WAV.

use std::io::{Error, Write};

use flacenc::bitsink::ByteSink;
use flacenc::component::BitRepr;
use flacenc::error::Verify;
use flacenc::source::MemSource;

use crate::AudioError;
use crate::wav::{Written, to_i16};

/// What STREAMINFO has room for.
const MAX_CHANNELS: u16 = 8;

/// Writes interleaved `samples` of 1 to 8 channels as one FLAC file. Values beyond full scale are limited, and counted.
///
/// # Errors
/// [`AudioError::WriteNonFinite`] names the first NaN or infinity; [`AudioError::Window`] for a rate or a number of channels
/// that the format has not, and where the last frame lacks channels; [`AudioError::Write`].
pub fn write<W: Write>(
    mut out: W,
    sample_rate: u32,
    channels: u16,
    samples: &[f32],
) -> Result<Written, AudioError> {
    if !crate::SAMPLE_RATES.contains(&sample_rate) {
        return Err(crate::window::usage("rate", format!("{sample_rate} Hz"), crate::RATE_RANGE));
    }
    if channels == 0 || channels > MAX_CHANNELS {
        return Err(crate::window::usage("channels", channels, "1..=8"));
    }
    let count = usize::from(channels);
    if !samples.len().is_multiple_of(count) {
        let expected = format!("a multiple of the {channels} channels");
        return Err(crate::window::usage("samples written", samples.len(), expected));
    }
    if let Some(i) = samples.iter().position(|x| !x.is_finite()) {
        return Err(AudioError::WriteNonFinite { index: i as u64, value: samples[i] });
    }
    let failed = |what: String| AudioError::Write(Error::other(what));
    let config = flacenc::config::Encoder::default();
    let config = config.into_verified().map_err(|(_, e)| failed(e.to_string()))?;
    let words: Vec<i32> = samples.iter().map(|&x| i32::from(to_i16(x))).collect();
    let rate = usize::try_from(sample_rate).expect("a rate fits");
    let source = MemSource::from_samples(&words, count, 16, rate);
    let stream = flacenc::encode_with_fixed_block_size(&config, source, config.block_size);
    let mut stream = stream.map_err(|e| failed(e.to_string()))?;
    // of equal blocks, the last does not count (RFC 9639, 8.2); readers take the file for one of varying blocks otherwise
    let sizes = stream.stream_info_mut().set_block_sizes(config.block_size, config.block_size);
    sizes.map_err(|e| failed(e.to_string()))?;
    let mut bytes = ByteSink::new();
    stream.write(&mut bytes).map_err(|e| failed(e.to_string()))?;
    out.write_all(bytes.as_slice())?;
    let clipped = samples.iter().filter(|x| x.abs() > 1.0).count() as u64;
    Ok(Written { frames: (samples.len() / count) as u64, clipped })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decoder, Strictness};

    fn read(bytes: &[u8]) -> (Vec<Vec<f32>>, Option<bool>) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.flac");
        std::fs::write(&path, bytes).expect("written");
        let mut decoder = Decoder::open(&path, Strictness::Strict).expect("our own file opens");
        let mut planes = vec![Vec::new(); decoder.info().channels];
        while let Some(block) = decoder.next_channels().expect("our own file decodes") {
            planes.iter_mut().zip(block).for_each(|(plane, block)| plane.extend_from_slice(block));
        }
        (planes, decoder.report().checksum_matches)
    }

    #[test]
    fn what_is_written_is_read_bit_for_bit() {
        // beyond one block of 4096, with a last one that is short, and lengths below a block
        for (frames, channels) in [(1, 1), (17, 2), (4096, 1), (9001, 1), (9001, 2)] {
            let mut state = 1_u32;
            let mut noise = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f32::from((state >> 16) as u16 as i16) / 32_768.0
            };
            let tone = |i: usize| (i as f32 * 0.05).sin() * 0.4;
            let samples: Vec<f32> =
                (0..frames * channels).map(|i| tone(i / channels) + 0.1 * noise()).collect();
            let mut bytes = Vec::new();
            let written = write(&mut bytes, 32_000, channels as u16, &samples).expect("it is written");
            assert_eq!((written.frames, written.clipped), (frames as u64, 0));
            let (planes, sum) = read(&bytes);
            assert_eq!((planes.len(), planes[0].len(), sum), (channels, frames, Some(true)));
            for (i, &x) in samples.iter().enumerate() {
                let got = planes[i % channels][i / channels];
                assert_eq!(got, f32::from(to_i16(x)) / 32_768.0, "{frames} frames, sample {i}");
            }
        }
    }

    #[test]
    fn values_beyond_full_scale_are_limited() {
        let mut bytes = Vec::new();
        let written = write(&mut bytes, 32_000, 1, &[1.5, -2.0, 0.25]).expect("it is written");
        assert_eq!(written.clipped, 2);
        assert_eq!(read(&bytes).0[0], [32_767.0 / 32_768.0, -1.0, 0.25]);
    }

    #[test]
    fn what_flac_cannot_hold_is_refused() {
        let refused = |channels, samples: &[f32]| write(Vec::new(), 32_000, channels, samples).unwrap_err();
        assert!(refused(1, &[0.0, f32::NAN]).to_string().contains("NaN"));
        assert!(refused(9, &[0.0; 9]).to_string().contains("1..=8"));
        assert!(refused(2, &[0.0; 3]).to_string().contains("2 channels"));
    }
}
