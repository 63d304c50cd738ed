//! What a training run is told, and the schedules that follow from it.

use crate::error::{ModelError, Result};
use auscult_kernels::ops::adam::Adam;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Most features of a row that the encoder finds.
const MOST_KEPT: usize = 1024;

/// How an autoencoder is trained, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// What SAELens 5.3.2 does with `activation_fn: topk`: top-k, and an L1 penalty on what is kept.
    #[serde(rename = "saelens-5.3.2")]
    Saelens532,
    /// Top-k with the auxiliary loss of Gao et al., "Scaling and evaluating sparse autoencoders" (2024), for silent features.
    #[serde(rename = "topk")]
    TopK,
    /// The largest of a whole batch, k a row on average (Bussmann et al., "BatchTopK sparse autoencoders", 2024).
    #[serde(rename = "batchtopk")]
    BatchTopK,
    /// A threshold for every feature, trained by straight-through estimates (Rajamanoharan et al., "Jumping ahead", 2024).
    #[serde(rename = "jumprelu")]
    JumpRelu,
    /// ReLU with an L1 penalty.
    #[serde(rename = "relu")]
    Relu,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Saelens532, Self::TopK, Self::BatchTopK, Self::JumpRelu, Self::Relu];

    /// The name on command lines and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Saelens532 => "saelens-5.3.2",
            Self::TopK => "topk",
            Self::BatchTopK => "batchtopk",
            Self::JumpRelu => "jumprelu",
            Self::Relu => "relu",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mode {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == text).ok_or_else(|| ModelError::Argument {
            argument: "mode",
            found: format!("`{text}`"),
            expected: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// What a training run is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// How it is trained.
    pub mode: Mode,
    /// Length of a row.
    pub width: usize,
    /// Features of the autoencoder.
    pub features: usize,
    /// Features of a row that are active: at most, in `batchtopk` on average, then 1024 at most; of no meaning in `jumprelu` and `relu`.
    pub k: usize,
    /// Rows of a step.
    pub batch: usize,
    /// Steps of the run.
    pub steps: u64,
    /// Seed of the first weights, and of the order of rows where they are shuffled here.
    pub seed: u64,
    /// Rate of learning, until it falls.
    pub lr: f64,
    /// Last steps, in which the rate falls to 0 in a straight line.
    pub lr_decay: u64,
    /// Factor of the mean, over rows, of the sum of activations; in `jumprelu` of the mean number of active features.
    pub l1: f64,
    /// First steps, in which that factor rises from 0 in a straight line.
    pub l1_warmup: u64,
    /// How much of the first moment Adam keeps.
    pub beta1: f64,
    /// How much of the second moment Adam keeps.
    pub beta2: f64,
    /// What Adam adds to the root of the second moment.
    pub eps: f32,
    /// The longest gradient, over all parameters; a longer one is shortened. 0 for no limit.
    pub max_norm: f32,
    /// Features of a row that the auxiliary loss takes of the silent ones; 0 for none. `topk` alone.
    pub aux_k: usize,
    /// Factor of the auxiliary loss (`auxk_coef` of Gao et al.).
    pub aux_weight: f32,
    /// Steps without activity after which a feature is silent.
    pub dead_after: u32,
    /// Steps after which the counts of activity begin anew.
    pub window: u64,
    /// Width, in activation, of the neighbourhood of a threshold within which it is moved. `jumprelu` alone.
    pub bandwidth: f32,
}

impl TrainConfig {
    /// The usual numbers of a mode, with a fifth of the steps for the fall of the rate and a twentieth for the rise of the penalty.
    pub fn new(mode: Mode, width: usize, features: usize, steps: u64) -> Self {
        let saelens = Self {
            mode,
            width,
            features,
            k: 100,
            batch: 64,
            steps,
            seed: 42,
            lr: 3e-4,
            lr_decay: steps / 5,
            l1: 1e-3,
            l1_warmup: steps / 20,
            beta1: 0.0,
            beta2: 0.999,
            eps: 1e-8,
            max_norm: 1.0,
            aux_k: 0,
            aux_weight: 0.0,
            dead_after: 1000,
            window: 2000,
            bandwidth: 0.0,
        };
        match mode {
            Mode::Saelens532 => saelens,
            // half the width, and 1/32: Gao et al.
            Mode::TopK => Self {
                k: 64,
                batch: 1024,
                l1: 0.0,
                l1_warmup: 0,
                aux_k: (width / 2).clamp(1, MOST_KEPT),
                aux_weight: 1.0 / 32.0,
                ..saelens
            },
            Mode::BatchTopK => Self { k: 64, batch: 1024, l1: 0.0, l1_warmup: 0, ..saelens },
            Mode::JumpRelu => Self { batch: 1024, l1: 1e-2, bandwidth: 0.05, ..saelens },
            Mode::Relu => Self { batch: 1024, l1: 5e-2, ..saelens },
        }
    }

    /// Places that the active features of a row have: as many as can be active, but in `batchtopk` no more than the encoder finds.
    pub(super) fn places(&self) -> usize {
        match self.mode {
            Mode::Saelens532 | Mode::TopK => self.k,
            Mode::BatchTopK => self.features.min(MOST_KEPT),
            Mode::JumpRelu | Mode::Relu => self.features,
        }
    }

    /// Refuses what cannot be trained.
    ///
    /// # Errors
    /// [`ModelError::Argument`] names the setting.
    pub fn check(&self) -> Result<()> {
        let bad = |argument, found: String, expected: &str| {
            Err(ModelError::Argument { argument, found, expected: expected.into() })
        };
        let sizes =
            [("width", self.width), ("features", self.features), ("k", self.k), ("batch", self.batch)];
        for (name, size) in sizes {
            if size == 0 {
                return bad(name, "0".into(), "at least 1");
            }
        }
        if self.k > self.features {
            return bad("k", self.k.to_string(), &format!("at most {}, the features", self.features));
        }
        if self.steps == 0 {
            return bad("steps", "0".into(), "at least 1");
        }
        let is_kept = !matches!(self.mode, Mode::JumpRelu | Mode::Relu);
        for (name, size) in [("k", self.k), ("aux_k", self.aux_k)] {
            if is_kept && size > MOST_KEPT {
                return bad(name, size.to_string(), &format!("at most {MOST_KEPT}"));
            }
        }
        if self.aux_k > self.features {
            let expected = format!("at most {}, the features", self.features);
            return bad("aux_k", self.aux_k.to_string(), &expected);
        }
        if self.aux_k > 0 && !(self.aux_weight > 0.0 && self.aux_weight.is_finite()) {
            let expected = "a finite number above 0; `aux_k` 0 leaves the auxiliary loss out";
            return bad("aux_weight", self.aux_weight.to_string(), expected);
        }
        if self.lr_decay > self.steps {
            let expected = format!("at most {}, the steps", self.steps);
            return bad("lr_decay", self.lr_decay.to_string(), &expected);
        }
        let above_0 = |value: f64| value > 0.0 && value.is_finite();
        if !above_0(self.lr) {
            return bad("lr", self.lr.to_string(), "a finite number above 0");
        }
        if !(self.l1 >= 0.0 && self.l1.is_finite()) {
            return bad("l1", self.l1.to_string(), "a finite number, at least 0");
        }
        if self.mode == Mode::JumpRelu && !above_0(self.bandwidth.into()) {
            return bad("bandwidth", self.bandwidth.to_string(), "a finite number above 0");
        }
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return bad(name, beta.to_string(), "0 up to but not including 1");
            }
        }
        Ok(())
    }

    /// The rate of learning in a step, counted from 0: torch's `ConstantLR`, then `LinearLR` to 0.
    pub fn lr_at(&self, step: u64) -> f64 {
        let falls = self.steps - self.lr_decay;
        if step < falls || self.lr_decay == 0 {
            return self.lr;
        }
        let left = self.lr_decay.saturating_sub(step - falls);
        self.lr * left as f64 / self.lr_decay as f64
    }

    /// The factor of the penalty in a step, counted from 0, in which it is 0 where it rises (SAELens' `L1Scheduler`).
    pub fn l1_at(&self, step: u64) -> f64 {
        if step >= self.l1_warmup { self.l1 } else { self.l1 * step as f64 / self.l1_warmup as f64 }
    }

    /// The optimiser.
    pub(super) fn adam(&self) -> Adam {
        Adam { beta1: self.beta1, beta2: self.beta2, eps: self.eps }
    }

    /// Adam's step, and one over the root of its second moment's correction, in a step counted from 0.
    pub(super) fn schedule(&self, step: u64) -> [f32; 2] {
        let moves = step as f64 + 1.0;
        let first = 1.0 - self.beta1.powf(moves);
        let second = 1.0 - self.beta2.powf(moves);
        [(self.lr_at(step) / first) as f32, (1.0 / second.sqrt()) as f32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schedules() {
        let config = TrainConfig { lr_decay: 197_414, ..TrainConfig::new(Mode::Saelens532, 4, 8, 987_071) };
        assert_eq!(config.l1_warmup, 49_353);
        assert_eq!(config.l1_at(0), 0.0);
        assert_eq!(config.l1_at(1), 1e-3 / 49_353.0);
        assert_eq!(config.l1_at(49_353), 1e-3);
        assert_eq!([config.lr_at(0), config.lr_at(789_657)], [3e-4, 3e-4]);
        assert_eq!(config.lr_at(789_657 + 98_707), 1.5e-4);
        assert_eq!(config.lr_at(987_071), 0.0);
    }

    #[test]
    fn what_cannot_be_trained_is_named() {
        let good = TrainConfig::new(Mode::TopK, 8, 128, 10);
        assert!(good.check().is_ok());
        let text = |config: TrainConfig| config.check().expect_err("refused").to_string();
        for (config, want) in [
            (TrainConfig { k: 129, ..good.clone() }, "`k` is 129, expected at most 128, the features"),
            (TrainConfig { batch: 0, ..good.clone() }, "`batch` is 0, expected at least 1"),
            (TrainConfig { lr: -1.0, ..good.clone() }, "`lr` is -1, expected a finite number above 0"),
            (
                TrainConfig { lr_decay: 11, ..good.clone() },
                "`lr_decay` is 11, expected at most 10, the steps",
            ),
            (
                TrainConfig { aux_weight: -0.5, ..good.clone() },
                "`aux_weight` is -0.5, expected a finite number above 0",
            ),
            (
                TrainConfig { beta2: 1.0, ..good.clone() },
                "`beta2` is 1, expected 0 up to but not including 1",
            ),
        ] {
            assert!(text(config).contains(want), "{want}");
        }
        assert!("top-k".parse::<Mode>().expect_err("refused").to_string().contains("saelens-5.3.2, topk"));
        assert!(Mode::ALL.iter().all(|mode| mode.name().parse::<Mode>().ok() == Some(*mode)));
    }
}
