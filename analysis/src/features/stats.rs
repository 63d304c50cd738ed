//! How often each feature is active, and how strongly.

use super::{Codes, Labels, active, in_order, tracks};
use crate::error::Result;

/// When a feature counts as active in a clip or a track: two conventions of published work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Its largest value is above the bound.
    Any,
    /// Its mean over all positions is above the bound.
    Mean,
}

impl Rate {
    /// Its name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Mean => "mean",
        }
    }
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "any" => Ok(Self::Any),
            "mean" => Ok(Self::Mean),
            other => Err(format!("`{other}`, expected any or mean")),
        }
    }
}

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StatsOptions {
    /// The first position that is counted.
    pub from: usize,
    /// When a feature is active in a clip or a track.
    pub rate: Rate,
    /// The bound of `rate`; positions are active above 0 whatever it is.
    pub above: f32,
}

/// What is known of one feature.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureStats {
    /// Positions at which it is above 0.
    pub count: u64,
    /// Sum of its values.
    pub sum: f64,
    /// Its largest value; 0 where it never is active.
    pub max: f32,
    /// The number of the clip and the position of the first such value.
    pub at: Option<(usize, usize)>,
    /// Clips in which it is active.
    pub clips: u64,
    /// Tracks in which it is active.
    pub tracks: u64,
    /// Labelled tracks in which it is active, of each class.
    pub classes: Vec<u32>,
}

/// What is known of all features.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// Positions counted.
    pub rows: u64,
    /// Clips.
    pub clips: usize,
    /// Tracks.
    pub tracks: usize,
    /// Tracks of each class of the labels; none without labels.
    pub class_tracks: Vec<u32>,
    /// Each feature.
    pub features: Vec<FeatureStats>,
}

impl Stats {
    /// The share of positions, of clips and of tracks in which a feature is active.
    pub fn rates(&self, feature: usize) -> [f64; 3] {
        let stats = &self.features[feature];
        let share = |part: u64, all: u64| if all == 0 { 0.0 } else { part as f64 / all as f64 };
        let count = |n: usize| u64::try_from(n).expect("a count in memory fits 64 bits");
        [
            share(stats.count, self.rows),
            share(stats.clips, count(self.clips)),
            share(stats.tracks, count(self.tracks)),
        ]
    }

    /// The share of the tracks of each class in which a feature is active; none of a class without tracks.
    pub fn class_rates(&self, feature: usize) -> Vec<Option<f64>> {
        let rate =
            |(&active, &tracks): (&u32, &u32)| (tracks > 0).then(|| f64::from(active) / f64::from(tracks));
        self.features[feature].classes.iter().zip(&self.class_tracks).map(rate).collect()
    }

    /// The largest of a feature's class rates over their mean, and the first class that has it: 1 for a feature that is as
    /// common everywhere, the number of classes that have tracks for one that occurs in one alone. `None` where no labelled
    /// track has it.
    pub fn selectivity(&self, feature: usize) -> Option<(f64, usize)> {
        let rates = self.class_rates(feature);
        let classes = rates.iter().flatten().count();
        let mean = rates.iter().flatten().sum::<f64>() / classes as f64;
        let largest = rates.iter().flatten().copied().fold(0.0, f64::max);
        let class = rates.iter().position(|&rate| rate == Some(largest))?;
        (largest > 0.0).then(|| (largest / mean, class))
    }
}

/// What one track adds to a feature.
#[derive(Clone, Default)]
struct Part {
    stats: FeatureStats,
    clip_sum: f64,
    clip_max: f32,
}

/// Goes over all clips. `progress` is told the positions that were done.
///
/// # Errors
/// A clip that cannot be read.
pub fn stats(
    codes: &Codes<'_>,
    labels: Option<&Labels>,
    options: StatsOptions,
    mut progress: impl FnMut(usize),
) -> Result<Stats> {
    let classes = labels.map_or(0, Labels::classes);
    let features = codes.features();
    let empty = FeatureStats { classes: vec![0; classes], ..FeatureStats::default() };
    let tracks = tracks(codes.clips());
    let mut all = Stats {
        rows: 0,
        clips: codes.clips().len(),
        tracks: tracks.len(),
        class_tracks: vec![0; classes],
        features: vec![empty; features],
    };
    in_order(
        &tracks,
        |track| of_track(codes, track, options),
        |track, (rows, parts)| {
            all.rows += rows;
            let class = labels.and_then(|labels| labels.class(&codes.clips()[track[0]].track_id));
            if let Some(class) = class {
                all.class_tracks[class] += 1;
            }
            for (feature, part) in parts {
                let sum = &mut all.features[feature];
                if part.max > sum.max {
                    (sum.max, sum.at) = (part.max, part.at);
                }
                sum.count += part.count;
                sum.sum += part.sum;
                sum.clips += part.clips;
                sum.tracks += part.tracks;
                if let Some(class) = class.filter(|_| part.tracks > 0) {
                    sum.classes[class] += 1;
                }
            }
            progress(track.iter().map(|&clip| codes.clips()[clip].positions).sum());
        },
    )?;
    Ok(all)
}

/// Positions counted of a track, and what it adds to each feature that is active in it.
fn of_track(
    codes: &Codes<'_>,
    track: &[usize],
    options: StatsOptions,
) -> Result<(u64, Vec<(usize, FeatureStats)>)> {
    let counts = |sum: f64, max: f32, rows: usize| match options.rate {
        Rate::Any => max > options.above,
        Rate::Mean => sum / rows as f64 > f64::from(options.above),
    };
    let mut parts: Vec<Option<Box<Part>>> = vec![None; codes.features()];
    let mut track_rows = 0;
    for &number in track {
        let rows = codes.rows(&codes.clips()[number])?;
        let counted = rows.rows().saturating_sub(options.from);
        let mut touched = Vec::new();
        for (position, feature, value) in active(&rows, options.from) {
            let part = parts[feature].get_or_insert_default();
            if part.clip_max == 0.0 {
                touched.push(feature);
            }
            part.clip_max = part.clip_max.max(value);
            part.clip_sum += f64::from(value);
            part.stats.count += 1;
            if value > part.stats.max {
                (part.stats.max, part.stats.at) = (value, Some((number, position)));
            }
        }
        for feature in touched {
            let part = parts[feature].as_mut().expect("it was touched in this clip");
            part.stats.clips += u64::from(counts(part.clip_sum, part.clip_max, counted));
            part.stats.sum += part.clip_sum;
            (part.clip_sum, part.clip_max) = (0.0, 0.0);
        }
        track_rows += counted;
    }
    let of_feature = |(feature, part): (usize, Option<Box<Part>>)| {
        let mut stats = part?.stats;
        stats.tracks = u64::from(counts(stats.sum, stats.max, track_rows));
        Some((feature, stats))
    };
    let parts = parts.into_iter().enumerate().filter_map(of_feature).collect();
    Ok((u64::try_from(track_rows).expect("rows in memory fit 64 bits"), parts))
}
