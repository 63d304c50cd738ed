//! How loud music is.

use ebur128::{EbuR128, Mode};

/// Integrated loudness in LUFS as ITU-R BS.1770-4 measures it, of interleaved samples; `None` where nothing passes the
/// gate, as in silence and in less than 0.4 s, and for a rate or a number of channels that cannot be measured.
pub fn integrated_loudness(samples: &[f32], channels: u16, rate: u32) -> Option<f64> {
    let mut meter = EbuR128::new(channels.into(), rate, Mode::I).ok()?;
    meter.add_frames_f32(samples).ok()?;
    meter.loudness_global().ok().filter(|loudness| loudness.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    fn tone(seconds: f64, channels: usize) -> Vec<f32> {
        let samples =
            (0..(seconds * 32_000.0) as usize).map(|i| (TAU * 997.0 * i as f64 / 32_000.0).sin() as f32);
        samples.flat_map(|x| vec![x; channels]).collect()
    }

    #[test]
    fn a_full_scale_tone_has_the_published_loudness() {
        // BS.1770-4: a 997 Hz sine at 0 dB FS in one front channel reads -3.01 LKFS
        let mono = integrated_loudness(&tone(3.0, 1), 1, 32_000).expect("loud enough");
        assert!((mono + 3.01).abs() < 0.02, "{mono}");
        let both = integrated_loudness(&tone(3.0, 2), 2, 32_000).expect("loud enough");
        assert!(both.abs() < 0.02, "{both}");
    }

    #[test]
    fn silence_has_none() {
        assert_eq!(integrated_loudness(&[0.0; 64_000], 1, 32_000), None);
        assert_eq!(integrated_loudness(&tone(0.2, 1), 1, 32_000), None);
        assert_eq!(integrated_loudness(&[], 1, 32_000), None);
    }
}
