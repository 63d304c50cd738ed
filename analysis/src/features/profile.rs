//! How features run in time: their mean over the clips, and what they do within one.

use super::{Codes, Course, Measures, active, classify, in_order, measure};
use crate::error::Result;

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProfileOptions {
    /// Equal parts of the longest clip's time, over which values are averaged; 1 or more.
    pub bins: usize,
    /// The first position that is counted, which lies at second 0.
    pub from: usize,
}

/// One feature in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The feature.
    pub feature: usize,
    /// Its mean in each part, over all clips that reach it.
    pub means: Vec<f64>,
    /// Clips in which it is active.
    pub clips: usize,
    /// Clips of each class, in the order of [`Course::ALL`].
    pub courses: [usize; Course::ALL.len()],
    /// The measures' means over the clips in which it is active; the period's over those that have one.
    pub measures: Measures,
}

impl Profile {
    /// The class of most of its clips, of equals the first of [`Course::ALL`], and their share; none where it is never active.
    pub fn course(&self) -> Option<(Course, f64)> {
        let most = *self.courses.iter().max()?;
        let at = self.courses.iter().position(|&clips| clips == most)?;
        (most > 0).then(|| (Course::ALL[at], most as f64 / self.clips as f64))
    }
}

/// Features in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Profiles {
    /// Seconds of a part.
    pub bin_seconds: f64,
    /// Clips that reach each part.
    pub clips: Vec<usize>,
    /// The features asked for, in that order.
    pub features: Vec<Profile>,
}

/// What a clip adds: for each place of the features asked for that is active, sums over the parts, and measures.
type Added = Vec<(usize, Vec<f64>, Measures)>;

/// Goes over all clips for the features `wanted`. `progress` is told the positions that were done.
///
/// # Errors
/// A clip that cannot be read.
pub fn profile(
    codes: &Codes<'_>,
    wanted: &[usize],
    options: ProfileOptions,
    mut progress: impl FnMut(usize),
) -> Result<Profiles> {
    let counted = |clip: usize| codes.clips()[clip].positions.saturating_sub(options.from);
    let longest = (0..codes.clips().len()).map(counted).max().unwrap_or(0).max(1);
    let bins = options.bins.min(longest);
    // the part of a position behind the first that is counted
    let bin = |at: usize| at * bins / longest;
    let mut places: Vec<Option<usize>> = vec![None; codes.features()];
    wanted.iter().enumerate().for_each(|(place, &feature)| places[feature] = Some(place));
    let mut rows = vec![0u64; bins];
    let mut reach = vec![0usize; bins];
    let empty = |&feature: &usize| Profile {
        feature,
        means: vec![0.0; bins],
        clips: 0,
        courses: [0; Course::ALL.len()],
        measures: Measures::default(),
    };
    let mut profiles: Vec<Profile> = wanted.iter().map(empty).collect();
    let mut periods = vec![0usize; wanted.len()];
    let clips: Vec<usize> = (0..codes.clips().len()).collect();
    in_order(
        &clips,
        |&clip| of_clip(codes, clip, &places, options.from, (bins, &bin)),
        |&clip, added: Added| {
            for at in 0..counted(clip) {
                rows[bin(at)] += 1;
            }
            reach
                .iter_mut()
                .take(counted(clip).checked_sub(1).map_or(0, |last| bin(last) + 1))
                .for_each(|n| *n += 1);
            for (place, sums, measures) in added {
                let profile = &mut profiles[place];
                profile.means.iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
                profile.clips += 1;
                profile.courses[classify(&measures) as usize] += 1;
                periods[place] += usize::from(measures.period > 0.0);
                let all = &mut profile.measures;
                all.spread += measures.spread;
                all.kurtosis += measures.kurtosis;
                all.peak += measures.peak;
                all.period += measures.period;
                all.arc += measures.arc;
                all.centre += measures.centre;
            }
            progress(codes.clips()[clip].positions);
        },
    )?;
    for (profile, periods) in profiles.iter_mut().zip(periods) {
        profile.means.iter_mut().zip(&rows).for_each(|(sum, &rows)| *sum /= rows.max(1) as f64);
        let all = &mut profile.measures;
        let clips = profile.clips.max(1) as f64;
        for sum in [&mut all.spread, &mut all.kurtosis, &mut all.peak, &mut all.arc, &mut all.centre] {
            *sum /= clips;
        }
        all.period /= periods.max(1) as f64;
    }
    let bin_seconds = longest as f64 / bins as f64 / codes.frame_rate();
    Ok(Profiles { bin_seconds, clips: reach, features: profiles })
}

fn of_clip(
    codes: &Codes<'_>,
    clip: usize,
    places: &[Option<usize>],
    from: usize,
    (bins, bin): (usize, &(impl Fn(usize) -> usize + Sync)),
) -> Result<Added> {
    let rows = codes.rows(&codes.clips()[clip])?;
    let positions = rows.rows().saturating_sub(from);
    let mut found: Vec<(usize, usize, f32)> = active(&rows, from)
        .filter_map(|(position, feature, value)| Some((places[feature]?, position - from, value)))
        .collect();
    found.sort_unstable_by_key(|&(place, at, _)| (place, at));
    let mut values = vec![0.0f32; positions];
    let of_feature = |group: &[(usize, usize, f32)]| {
        values.fill(0.0);
        let mut sums = vec![0.0; bins];
        for &(_, at, value) in group {
            values[at] = value;
            sums[bin(at)] += f64::from(value);
        }
        (group[0].0, sums, measure(&values, codes.frame_rate()))
    };
    Ok(found.chunk_by(|a, b| a.0 == b.0).map(of_feature).collect())
}
