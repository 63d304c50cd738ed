//! What a feature does in the course of one clip: a few measures of its values, and the class that follows from them.

use serde::{Deserialize, Serialize};

/// Below this spread (standard deviation over mean) a feature is static.
const STATIC_SPREAD: f64 = 0.5;
/// From this autocorrelation on, at a lag where it peaks, a feature is periodic.
const PERIODIC_PEAK: f64 = 0.4;
/// The least seconds between two beats of a period: 300 a minute.
const LEAST_PERIOD: f64 = 0.2;
/// From this excess kurtosis on a feature is an event: one burst has more when it lasts less than an eighth of the clip.
const EVENT_KURTOSIS: f64 = 3.0;
/// From this share of the variance on, which one stretch at another level explains, a feature is an arc.
const ARC_SHARE: f64 = 0.5;
/// Parts of a clip between which stretches are sought.
const PARTS: usize = 32;

/// What a feature does in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Course {
    /// About the same throughout.
    Static,
    /// It comes back at an even distance.
    Periodic,
    /// A short burst, or few.
    Event,
    /// One stretch of the clip differs from the rest: a rise, a fall, a section.
    Arc,
    /// None of these.
    Irregular,
}

impl Course {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 5] = [Self::Static, Self::Periodic, Self::Event, Self::Arc, Self::Irregular];

    /// Its name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Periodic => "periodic",
            Self::Event => "event",
            Self::Arc => "arc",
            Self::Irregular => "irregular",
        }
    }
}

/// What is measured of a clip's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Standard deviation over mean.
    pub spread: f64,
    /// Excess kurtosis: 0 of a normal distribution.
    pub kurtosis: f64,
    /// The largest peak of the autocorrelation, at a lag of a fifth of a second to half of the clip; 0 without one.
    pub peak: f64,
    /// That lag, in seconds; 0 without one.
    pub period: f64,
    /// The largest share of the variance, between parts of the clip, that one stretch at a level of its own explains.
    pub arc: f64,
    /// Where the values lie: their centre of mass as a share of the clip.
    pub centre: f64,
}

/// Measures values at the positions of a clip, `frame_rate` a second. Values that are all 0 measure 0.
pub fn measure(values: &[f32], frame_rate: f64) -> Measures {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    if values.is_empty() || mean == 0.0 {
        return Measures::default();
    }
    let moment = |power: i32| values.iter().map(|&v| (f64::from(v) - mean).powi(power)).sum::<f64>() / n;
    let variance = moment(2);
    let centre = values.iter().enumerate().map(|(at, &v)| at as f64 * f64::from(v)).sum::<f64>()
        / (mean * n * (n - 1.0).max(1.0));
    let mut measures = Measures { spread: variance.sqrt() / mean, centre, ..Measures::default() };
    if variance > 0.0 {
        measures.kurtosis = moment(4) / (variance * variance) - 3.0;
        (measures.peak, measures.period) = period(values, mean, frame_rate);
        measures.arc = stretch(values);
    }
    measures
}

/// The class: the first rule that holds, in the order of [`Course::ALL`].
pub fn classify(measures: &Measures) -> Course {
    match measures {
        m if m.spread < STATIC_SPREAD => Course::Static,
        m if m.peak >= PERIODIC_PEAK => Course::Periodic,
        m if m.kurtosis >= EVENT_KURTOSIS => Course::Event,
        m if m.arc >= ARC_SHARE => Course::Arc,
        _ => Course::Irregular,
    }
}

/// The autocorrelation at a lag: the correlation of the values with themselves, of the positions that both have.
fn correlation(values: &[f64], lag: usize) -> f64 {
    let (one, other) = (&values[..values.len() - lag], &values[lag..]);
    let products: f64 = one.iter().zip(other).map(|(a, b)| a * b).sum();
    let squares = |part: &[f64]| part.iter().map(|v| v * v).sum::<f64>();
    let scale = (squares(one) * squares(other)).sqrt();
    if scale > 0.0 { products / scale } else { 0.0 }
}

/// The largest local peak of the autocorrelation, and its lag in seconds. A peak comes behind a dip to at most half of it, so
/// that the slopes of slow changes are none.
fn period(values: &[f32], mean: f64, frame_rate: f64) -> (f64, f64) {
    let centred: Vec<f64> = values.iter().map(|&v| f64::from(v) - mean).collect();
    let least = ((LEAST_PERIOD * frame_rate).ceil() as usize).max(2);
    let most = values.len() / 2;
    if most <= least {
        return (0.0, 0.0);
    }
    let correlations: Vec<f64> = (0..=most).map(|lag| correlation(&centred, lag)).collect();
    let mut best = (0.0, 0.0);
    let mut lowest = 1.0f64;
    for lag in 1..most {
        let [before, here, after] = [correlations[lag - 1], correlations[lag], correlations[lag + 1]];
        lowest = lowest.min(here);
        let peaks = here > before && here >= after && lowest <= here / 2.0;
        // multiples of a period peak alike, and the first is meant
        if lag >= least && peaks && here > best.0 + 0.01 {
            best = (here, lag as f64 / frame_rate);
        }
    }
    best
}

/// The share of the variance between the means of parts that the best one stretch of parts explains.
fn stretch(values: &[f32]) -> f64 {
    let parts = PARTS.min(values.len());
    let bounds = |part: usize| part * values.len() / parts..(part + 1) * values.len() / parts;
    let mean = |part: usize| {
        let part = &values[bounds(part)];
        part.iter().map(|&v| f64::from(v)).sum::<f64>() / part.len() as f64
    };
    let means: Vec<f64> = (0..parts).map(mean).collect();
    let count = parts as f64;
    let all = means.iter().sum::<f64>() / count;
    let total: f64 = means.iter().map(|m| (m - all).powi(2)).sum();
    if total <= 0.0 {
        return 0.0;
    }
    let mut most = 0.0f64;
    for from in 0..parts {
        let mut sum = 0.0;
        for to in from + 1..=parts {
            sum += means[to - 1];
            let inside = (to - from) as f64;
            if inside < count {
                // between the two levels: n_in n_out / n (mean_in - mean_out)^2
                let outside = count - inside;
                let gap = sum / inside - (all * count - sum) / outside;
                most = most.max(inside * outside / count * gap * gap);
            }
        }
    }
    most / total
}
