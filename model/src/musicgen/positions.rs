//! Sinusoidal positions, as Hugging Face computes them and as audiocraft does in half precision.

use half::f16;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// How positions are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Posemb {
    /// In f32: HF `MusicgenSinusoidalPositionalEmbedding`. The default.
    #[default]
    F32,
    /// audiocraft with an f16 model and no autocast: every operation of `create_sin_embedding` rounds to f16.
    AudiocraftF16,
    /// audiocraft with an f16 model under CUDA autocast: the power, and what follows from it, is computed in f32; the
    /// exponents before it are rounded to f16.
    AudiocraftF16Autocast,
}

impl Posemb {
    /// Every mode, the default first.
    pub const ALL: [Self; 3] = [Self::F32, Self::AudiocraftF16, Self::AudiocraftF16Autocast];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::AudiocraftF16 => "audiocraft-f16",
            Self::AudiocraftF16Autocast => "audiocraft-f16-autocast",
        }
    }

    /// The table f32 `[positions, width]`: `cos` of every angle, then `sin`, not interleaved. `width` is even and at least 4.
    pub fn table(self, positions: usize, width: usize) -> Vec<f32> {
        self.rows(0..positions, width)
    }

    /// The table from position `first` on, which may lie before 0.
    pub fn table_from(self, first: isize, positions: usize, width: usize) -> Vec<f32> {
        let before = first.min(0).unsigned_abs().min(positions);
        // cosines of opposite angles are equal, sines opposite
        let mirrored = |p: usize| {
            let mut row = self.rows(p..p + 1, width);
            row[width / 2..].iter_mut().for_each(|v| *v = -*v);
            row
        };
        let from = first.unsigned_abs();
        let mut rows: Vec<f32> = (0..before).flat_map(|i| mirrored(from - i)).collect();
        let from = if first < 0 { 0 } else { from };
        rows.extend(self.rows(from..from + positions - before, width));
        rows
    }

    /// Rows of the table, f32 `[positions.len(), width]`.
    pub fn rows(self, positions: Range<usize>, width: usize) -> Vec<f32> {
        let half = width / 2;
        let angle = self.angles(half);
        let mut rows = Vec::with_capacity(positions.len() * width);
        for p in positions {
            rows.extend((0..half).map(|i| self.rounded(angle(p, i).cos())));
            rows.extend((0..half).map(|i| self.rounded(angle(p, i).sin())));
        }
        rows
    }

    /// Angle of position `p` at frequency `i`, in f64 but holding the value that the mode's arithmetic gives.
    fn angles(self, half: usize) -> Box<dyn Fn(usize, usize) -> f64> {
        match self {
            Self::F32 => {
                // torch: exp(arange(half) * -(ln(10000) / (half - 1))), the product rounded to f32, exp nearly exact
                let c = (10_000_f64.ln() / (half as f64 - 1.0)) as f32;
                let f: Vec<f32> = (0..half).map(|i| f64::from(i as f32 * -c).exp() as f32).collect();
                Box::new(move |p, i| f64::from(p as f32 * f[i]))
            }
            Self::AudiocraftF16 => {
                // arange(half) / (half - 1), 10000 ** that, positions / that: each rounded to f16; 10000 ** 1 is exact
                let period: Vec<f32> = exponents_f16(half)
                    .map(|e| f16::from_f64(10_000_f64.powf(f64::from(e.to_f32()))).to_f32())
                    .collect();
                Box::new(move |p, i| {
                    let position = f16::from_f64(p as f64).to_f32();
                    f64::from(f16::from_f32(position / period[i]).to_f32())
                })
            }
            Self::AudiocraftF16Autocast => {
                // autocast runs `pow` in f32 on the f16 exponents; positions stay f16 and are promoted by the division
                let period: Vec<f32> =
                    exponents_f16(half).map(|e| 10_000_f64.powf(f64::from(e.to_f32())) as f32).collect();
                Box::new(move |p, i| f64::from(f16::from_f64(p as f64).to_f32() / period[i]))
            }
        }
    }

    /// The sine or cosine in the mode's result type.
    fn rounded(self, value: f64) -> f32 {
        match self {
            Self::AudiocraftF16 => f16::from_f64(value).to_f32(),
            Self::F32 | Self::AudiocraftF16Autocast => value as f32,
        }
    }
}

/// `arange(half) / (half - 1)` in f16 arithmetic.
fn exponents_f16(half: usize) -> impl Iterator<Item = f16> {
    let last = f16::from_f64(half as f64 - 1.0).to_f32();
    (0..half).map(move |i| f16::from_f32(f16::from_f64(i as f64).to_f32() / last))
}

impl fmt::Display for Posemb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Posemb {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|mode| mode.name() == name).ok_or_else(|| {
            format!(
                "`{name}` is no way to compute positions, expected {}",
                Self::ALL.map(Self::name).join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_start_anywhere() {
        for way in Posemb::ALL {
            let width = 12;
            let usual = way.table(9, width);
            assert_eq!(way.table_from(0, 9, width), usual);
            assert_eq!(way.table_from(3, 6, width), usual[3 * width..]);
            let before = way.table_from(-2, 5, width);
            assert_eq!(before[2 * width..], usual[..3 * width]);
            for (row, opposite) in [(0, 2), (1, 1)] {
                let (row, opposite) = (&before[row * width..][..width], &usual[opposite * width..][..width]);
                assert_eq!(row[..width / 2], opposite[..width / 2], "cosines");
                let mirrored: Vec<f32> = opposite[width / 2..].iter().map(|v| -v).collect();
                assert_eq!(row[width / 2..], mirrored, "sines");
            }
            assert_eq!(way.table_from(-4, 2, width), way.table_from(-5, 4, width)[width..3 * width]);
        }
    }
}
