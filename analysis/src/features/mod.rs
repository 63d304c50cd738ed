//! Questions asked of the features that a store holds: how often each is active and how strongly, where it is strongest, and
//! what it does in time.
//!
//! Everything goes over the store once, clip after clip; memory holds a few numbers a feature and the clips that are being
//! read, however many rows there are. Answers do not depend on the number of threads.

mod file;
mod labels;
mod profile;
mod series;
mod stats;
#[cfg(test)]
mod tests;
mod top;

use rayon::prelude::*;

use auscult_model::sae::SparseRows;

pub use file::{MAXIMA, Maxima, Origin, StatsFile, StatsRow, write_stats};
pub use labels::{ClassCount, Labels};
pub use profile::{Profile, ProfileOptions, Profiles, profile};
pub use series::{Course, Measures, classify, measure};
pub use stats::{FeatureStats, Rate, Stats, StatsOptions, stats};
pub use top::{Peak, Span, span, top};

use crate::error::{AnalysisError, Result};
use crate::store::{ClipRow, StoreReader};

/// The first position that holds sound: position 0 is the same in every clip.
pub const FIRST_SOUND: usize = 1;

/// Reads the features of a clip.
type Read<'a> = dyn Fn(&ClipRow) -> Result<SparseRows> + Sync + 'a;

/// The features of the clips of a store, of one autoencoder.
pub struct Codes<'a> {
    clips: &'a [ClipRow],
    features: usize,
    frame_rate: f64,
    read: Box<Read<'a>>,
}

impl<'a> Codes<'a> {
    /// Those that `sae` found in the clips of a store.
    ///
    /// # Errors
    /// [`AnalysisError::Store`] if the store holds none of that name.
    pub fn of_store(store: &'a StoreReader, sae: &'a str) -> Result<Self> {
        let features = store.sae(sae)?.features;
        let read = Box::new(move |clip: &ClipRow| store.features(sae, &clip.clip_id));
        Ok(Self { clips: store.clips(), features, frame_rate: store.meta().frame_rate, read })
    }

    /// Those that `read` gives for each of `clips`: one row a position, of `features` features, `frame_rate` a second.
    pub fn new(
        clips: &'a [ClipRow],
        features: usize,
        frame_rate: f64,
        read: impl Fn(&ClipRow) -> Result<SparseRows> + Sync + 'a,
    ) -> Self {
        Self { clips, features, frame_rate, read: Box::new(read) }
    }

    /// The clips, in order.
    pub fn clips(&self) -> &'a [ClipRow] {
        self.clips
    }

    /// Features there are.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Positions a second.
    pub fn frame_rate(&self) -> f64 {
        self.frame_rate
    }

    /// Where a position lies in its recording, in seconds; position 0 lies at the clip's start.
    pub fn seconds(&self, clip: &ClipRow, position: usize) -> f64 {
        clip.start_seconds + position.saturating_sub(FIRST_SOUND) as f64 / self.frame_rate
    }

    /// The rows of a clip, one a position, held against the index and the number of features.
    fn rows(&self, clip: &ClipRow) -> Result<SparseRows> {
        let rows = (self.read)(clip)?;
        let bad = |what: &str, found: String, expected: String| AnalysisError::Answer {
            what: format!("{what} of clip `{}`", clip.clip_id),
            found,
            expected,
        };
        if rows.rows() != clip.positions {
            let expected = format!("{}, as the index says", clip.positions);
            return Err(bad("rows of features", rows.rows().to_string(), expected));
        }
        match rows.indices.iter().find(|&&feature| feature as usize >= self.features) {
            Some(feature) => {
                let expected = format!("less than {}, the features of the autoencoder", self.features);
                Err(bad("a feature", feature.to_string(), expected))
            }
            None => Ok(rows),
        }
    }
}

/// The active features of rows from position `from` on: position, feature, value.
fn active(rows: &SparseRows, from: usize) -> impl Iterator<Item = (usize, usize, f32)> + '_ {
    let places = rows.indices.chunks_exact(rows.k).zip(rows.values.chunks_exact(rows.k));
    places.enumerate().skip(from).flat_map(|(position, (features, values))| {
        let of_row = features.iter().zip(values).filter(|(_, value)| **value > 0.0);
        of_row.map(move |(&feature, &value)| (position, feature as usize, value))
    })
}

/// Does `work` on items side by side, some at a time, and hands the results to `take` in order.
fn in_order<I: Sync, T: Send>(
    items: &[I],
    work: impl Fn(&I) -> Result<T> + Sync,
    mut take: impl FnMut(&I, T),
) -> Result<()> {
    /// Results that a thread may be ahead by.
    const AHEAD: usize = 4;
    for block in items.chunks(AHEAD * rayon::current_num_threads()) {
        let done: Vec<T> = block.par_iter().map(&work).collect::<Result<_>>()?;
        block.iter().zip(done).for_each(|(item, done)| take(item, done));
    }
    Ok(())
}

/// Numbers of the clips of each track, tracks in the order of their first clips.
fn tracks(clips: &[ClipRow]) -> Vec<Vec<usize>> {
    let mut numbers = std::collections::HashMap::new();
    let mut tracks: Vec<Vec<usize>> = Vec::new();
    for (at, clip) in clips.iter().enumerate() {
        let number = *numbers.entry(clip.track_id.as_str()).or_insert_with(|| {
            tracks.push(Vec::new());
            tracks.len() - 1
        });
        tracks[number].push(at);
    }
    tracks
}
