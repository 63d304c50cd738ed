//! The model's own cross-entropy of the codes that it is fed.

use super::config::MusicgenDecoderConfig;
use super::sites::Site;
use super::teacher_forced::TeacherForced;
use crate::codes::Codes;
use crate::error::Result;
use rayon::prelude::*;

/// How badly codes were predicted: a sum over codes of `-ln p(code)`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CrossEntropy {
    /// In nats.
    pub sum: f64,
    /// Codes that were predicted.
    pub codes: usize,
}

impl CrossEntropy {
    /// Nats a code; `None` where no code was predicted.
    pub fn mean(&self) -> Option<f64> {
        (self.codes > 0).then(|| self.sum / self.codes as f64)
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { sum: self.sum + other.sum, codes: self.codes + other.codes }
    }

    /// Of one clip's codes, from its logits `[frames + 1, codebooks * vocabulary]`.
    ///
    /// The logits at position `s` predict code `s - delay(q)` of codebook `q`. Of the last position nothing is predicted: what
    /// would be its code of the first codebook is past the clip, and audiocraft's `compute_predictions` leaves the position out
    /// for the others too.
    ///
    /// # Panics
    /// Another number of logits.
    pub fn of(config: &MusicgenDecoderConfig, codes: &Codes, logits: &[f32]) -> Self {
        let (frames, codebooks, vocab) = (codes.frames(), config.num_codebooks, config.vocab_size);
        assert_eq!(logits.len(), (frames + 1) * codebooks * vocab, "logits of every position");
        let delays = config.delays();
        let of_position = |s: usize| {
            let predicted = delays.iter().enumerate().filter_map(|(q, delay)| {
                let frame = s.checked_sub(*delay)?;
                let scores = &logits[(s * codebooks + q) * vocab..][..vocab];
                Some(surprise(scores, codes.values()[q * frames + frame] as usize))
            });
            predicted.fold(Self::default(), |so_far, sum| so_far.and(Self { sum, codes: 1 }))
        };
        let positions: Vec<Self> = (0..frames).into_par_iter().map(of_position).collect();
        positions.into_iter().fold(Self::default(), Self::and)
    }
}

/// `-ln softmax(scores)[code]`.
fn surprise(scores: &[f32], code: usize) -> f64 {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|&score| f64::from(score - most).exp()).sum();
    sum.ln() - f64::from(scores[code] - most)
}

impl TeacherForced {
    /// The cross-entropy of each clip's codes in the last run, of a pass that captures [`Site::Logits`] as f32.
    ///
    /// # Errors
    /// As [`Self::output`].
    ///
    /// # Panics
    /// Other codes than those that were run.
    pub fn cross_entropy(&self, codes: &[Codes]) -> Result<Vec<CrossEntropy>> {
        let logits = self.output_f32(&Site::Logits.to_string())?;
        let clips = logits.chunks_exact(logits.len() / self.batch);
        Ok(codes
            .iter()
            .zip(clips)
            .map(|(codes, logits)| CrossEntropy::of(&self.config, codes, logits))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> MusicgenDecoderConfig {
        MusicgenDecoderConfig { num_codebooks: 2, vocab_size: 3, ..MusicgenDecoderConfig::default() }
    }

    #[test]
    fn even_scores_cost_the_logarithm_of_the_vocabulary() {
        let codes = Codes::new(2, 4, vec![0, 1, 2, 0, 1, 1, 0, 2]).unwrap();
        let found = CrossEntropy::of(&config(), &codes, &[7.5; 5 * 6]);
        // 4 of the first codebook, 3 of the second, which lags by one
        assert_eq!(found.codes, 7);
        assert!((found.mean().unwrap() - 3f64.ln()).abs() < 1e-12);
        assert_eq!(CrossEntropy::default().mean(), None);
    }

    #[test]
    fn every_code_is_looked_for_at_its_own_position() {
        let codes = Codes::new(2, 2, vec![0, 2, 1, 0]).unwrap();
        // position 0 predicts code 0 of the first codebook; position 1 its code 1, and code 0 of the second
        let mut logits = vec![0.0f32; 3 * 6];
        for (position, codebook, code) in [(0, 0, 0), (1, 0, 2), (1, 1, 1)] {
            logits[position * 6 + codebook * 3 + code] = 2.0;
        }
        let found = CrossEntropy::of(&config(), &codes, &logits);
        let each = (1.0 + 2.0 * (-2.0f64).exp()).ln();
        assert_eq!(found.codes, 3);
        assert!((found.sum - 3.0 * each).abs() < 1e-6, "{found:?}, {each} each");
        // what nothing is predicted from does not count
        logits[2 * 6..].fill(9.0);
        logits[3..6].fill(-4.0);
        logits[4] = 5.0;
        assert_eq!(CrossEntropy::of(&config(), &codes, &logits), found);
    }

    #[test]
    fn large_scores_do_not_overflow() {
        assert_eq!(surprise(&[1e30, 0.0, -1e30], 0), 0.0);
        assert!((surprise(&[500.0, 499.0], 1) - (1.0 + (1.0 + (-1f64).exp()).ln())).abs() < 1e-9);
    }
}
