//! Chroma: which of the twelve pitch classes is loudest, frame by frame, as MusicGen Melody is told of a melody.
//!
//! The definition is that of Hugging Face's `MusicgenMelodyFeatureExtractor`: the power spectrum of frames of
//! [`N_FFT`] samples under a periodic Hann window, [`HOP`] apart, the first one centred on the first sample and the
//! signal mirrored at both ends; summed by librosa's chroma filters (A4 = 440 Hz, one bump a semitone, octaves weighted
//! around the fifth), of which the largest counts. A signal shorter than a frame is put in the middle of one. Sums are in f64.
//!
//! Whether the signal is a mix or a single voice is up to the caller; nothing is separated here.

use crate::error::AudioError;
use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use std::f64::consts::TAU;
use std::sync::Arc;

/// Samples a second that the filters are made for.
pub const RATE: u32 = 32_000;
/// Samples of a frame.
pub const N_FFT: usize = 16_384;
/// Samples from one frame to the next.
pub const HOP: usize = 4_096;
/// Pitch classes: 0 is C.
pub const CLASSES: usize = 12;
/// Seconds that the extractor hears at most: what MusicGen Melody was trained on.
pub const LONGEST_SECONDS: usize = 30;

/// Bins of a spectrum.
const BINS: usize = N_FFT / 2 + 1;

/// The filters and the transform, made once.
pub struct Chroma {
    window: Vec<f64>,
    /// `[CLASSES, BINS]`, over the window's power.
    filters: Vec<f64>,
    fft: Arc<dyn RealToComplex<f64>>,
}

impl Default for Chroma {
    fn default() -> Self {
        Self::new()
    }
}

impl Chroma {
    /// The filters of MusicGen Melody.
    pub fn new() -> Self {
        let window: Vec<f64> =
            (0..N_FFT).map(|n| 0.5 - 0.5 * (TAU * n as f64 / N_FFT as f64).cos()).collect();
        let power: f64 = window.iter().map(|w| w * w).sum();
        let filters = filter_bank().iter().map(|weight| weight / power).collect();
        Self { window, filters, fft: RealFftPlanner::new().plan_fft_forward(N_FFT) }
    }

    /// Frames of chroma a second.
    pub fn frames_per_second() -> f64 {
        f64::from(RATE) / HOP as f64
    }

    /// The filtered power of each frame of a mono signal at [`RATE`].
    ///
    /// # Errors
    /// A sample that is not finite.
    pub fn energies(&self, samples: &[f32]) -> Result<Vec<[f64; CLASSES]>, AudioError> {
        if let Some(index) = samples.iter().position(|s| !s.is_finite()) {
            return Err(AudioError::ChromaNonFinite { index, value: samples[index] });
        }
        // zeros on both sides, the odd one behind
        let missing = N_FFT.saturating_sub(samples.len());
        let mut padded = vec![0.0; missing / 2];
        padded.extend(samples.iter().map(|&s| f64::from(s)));
        padded.resize(padded.len() + missing.div_ceil(2), 0.0);
        let mut frame = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let energies = (0..=padded.len() / HOP).map(|t| {
            for (n, (x, w)) in frame.iter_mut().zip(&self.window).enumerate() {
                *x = w * padded[mirrored(t * HOP + n, padded.len())];
            }
            self.fft
                .process_with_scratch(&mut frame, &mut spectrum, &mut scratch)
                .expect("the buffers were made by the transform itself");
            self.filtered(&spectrum)
        });
        Ok(energies.collect())
    }

    /// The class of each frame of a mono signal at [`RATE`]: its loudest, the smaller of equals.
    ///
    /// # Errors
    /// A sample that is not finite.
    pub fn classes(&self, samples: &[f32]) -> Result<Vec<u8>, AudioError> {
        let loudest = |energy: &[f64; CLASSES]| {
            let classes = (0_u8..).zip(energy);
            classes.fold((0, f64::NEG_INFINITY), |best, (c, &e)| if e > best.1 { (c, e) } else { best }).0
        };
        Ok(self.energies(samples)?.iter().map(loudest).collect())
    }

    fn filtered(&self, spectrum: &[Complex<f64>]) -> [f64; CLASSES] {
        let power: Vec<f64> = spectrum.iter().map(Complex::norm_sqr).collect();
        let sum = |class: usize| {
            let filter = &self.filters[class * BINS..][..BINS];
            filter.iter().zip(&power).map(|(weight, power)| weight * power).sum()
        };
        std::array::from_fn(sum)
    }
}

/// The sample that position `at` of the mirrored signal shows; position `N_FFT / 2` is sample 0. The signal is longer
/// than what it is mirrored by.
fn mirrored(at: usize, samples: usize) -> usize {
    let from_start = at.abs_diff(N_FFT / 2);
    let last = samples - 1;
    last - last.abs_diff(from_start)
}

/// librosa's chroma filters with Hugging Face's settings (`chroma_filter_bank`): `[CLASSES, BINS]`.
fn filter_bank() -> Vec<f64> {
    let classes = CLASSES as f64;
    // of every bin of the whole transform: semitones above A0 / 2, counted from the octave of 27.5 Hz
    let semitones = |bin: usize| {
        let frequency = f64::from(RATE) * bin as f64 / N_FFT as f64;
        classes * (frequency / (440.0 / 16.0)).log2()
    };
    // bin 0 has none: an octave and a half below bin 1
    let position = |bin: usize| if bin == 0 { semitones(1) - 1.5 * classes } else { semitones(bin) };
    let mut filters = vec![0.0; CLASSES * BINS];
    for bin in 0..BINS {
        let here = position(bin);
        let width = (position(bin + 1) - here).max(1.0);
        let bumps: [f64; CLASSES] = std::array::from_fn(|class| {
            // classes are counted from A there, from C here
            let from_a = ((class + 3) % CLASSES) as f64;
            let half = classes / 2.0;
            let distance = (here - from_a + half + 10.0 * classes).rem_euclid(classes) - half;
            (-0.5 * (2.0 * distance / width).powi(2)).exp()
        });
        let norm = bumps.iter().map(|bump| bump * bump).sum::<f64>().sqrt();
        // centred on the fifth octave, two octaves wide
        let octave = (-0.5 * ((here / classes - 5.0) / 2.0).powi(2)).exp();
        for (class, bump) in bumps.iter().enumerate() {
            filters[class * BINS + bin] = bump / norm * octave;
        }
    }
    filters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_mirrored_without_their_ends() {
        let around = |first: usize| (first..first + 4).map(|at| mirrored(at, N_FFT)).collect::<Vec<_>>();
        assert_eq!(around(N_FFT / 2 - 2), [2, 1, 0, 1]);
        let end = N_FFT / 2 + N_FFT - 2;
        assert_eq!(around(end), [N_FFT - 2, N_FFT - 1, N_FFT - 2, N_FFT - 3]);
    }

    #[test]
    fn broken_samples_are_refused() {
        let error = Chroma::new().classes(&[0.0, f32::NAN]).unwrap_err().to_string();
        assert_eq!(error, "chroma: sample 1 is NaN, expected a finite number");
    }
}
