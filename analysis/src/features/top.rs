//! Where features are strongest.

use super::{Codes, FIRST_SOUND, active, in_order};
use crate::error::Result;
use crate::store::ClipRow;

/// The largest value of a feature in a clip, the first of equals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Number of the clip.
    pub clip: usize,
    /// The position.
    pub position: usize,
    /// The value.
    pub value: f32,
}

/// The `count` clips in which each of `wanted` is largest, the largest first, of equals the earlier clip; fewer where it is
/// active in fewer. Positions before `from` do not count. `progress` is told the positions that were done.
///
/// # Errors
/// A clip that cannot be read.
pub fn top(
    codes: &Codes<'_>,
    wanted: &[usize],
    count: usize,
    from: usize,
    mut progress: impl FnMut(usize),
) -> Result<Vec<Vec<Peak>>> {
    // which of the wanted a feature is
    let mut places: Vec<Option<usize>> = vec![None; codes.features()];
    wanted.iter().enumerate().for_each(|(place, &feature)| places[feature] = Some(place));
    let clips: Vec<usize> = (0..codes.clips().len()).collect();
    let mut found: Vec<Vec<Peak>> = vec![Vec::new(); wanted.len()];
    in_order(
        &clips,
        |&clip| {
            let mut peaks: Vec<Option<Peak>> = vec![None; wanted.len()];
            for (position, feature, value) in active(&codes.rows(&codes.clips()[clip])?, from) {
                let Some(place) = places[feature] else { continue };
                if peaks[place].is_none_or(|peak| value > peak.value) {
                    peaks[place] = Some(Peak { clip, position, value });
                }
            }
            Ok(peaks)
        },
        |&clip, peaks| {
            for (found, peak) in found.iter_mut().zip(peaks) {
                let Some(peak) = peak else { continue };
                // clips come in order, so behind all that are as large
                let at = found.partition_point(|other| other.value >= peak.value);
                found.insert(at, peak);
                found.truncate(count);
            }
            progress(codes.clips()[clip].positions);
        },
    )?;
    Ok(found)
}

/// A part of a recording, in seconds from its start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Where it starts.
    pub start: f64,
    /// Where it ends.
    pub end: f64,
}

/// The `seconds` round a position, moved so as to lie within the clip; the whole clip where that is shorter.
pub fn span(clip: &ClipRow, position: usize, frame_rate: f64, seconds: f64) -> Span {
    let at = clip.start_seconds + position.saturating_sub(FIRST_SOUND) as f64 / frame_rate;
    let length = seconds.min(clip.end_seconds - clip.start_seconds);
    let start = (at - length / 2.0).min(clip.end_seconds - length).max(clip.start_seconds);
    Span { start, end: start + length }
}
