//! How often and how strongly the features of an autoencoder fire in a baseline: what controls are matched on.

use anyhow::Result;
use auscult_model::ModelError;
use auscult_model::musicgen::generate::{Capture, Context, Event, Generator, GeneratorOptions, Halves, Take};
use auscult_model::musicgen::{Decoder, Site};
use auscult_model::sae::Sae;
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::Arc;

/// Features that controls are drawn from are the nearest ones: so many times the controls, and so many at least.
const POOL: (usize, usize) = (4, 16);

/// What is added to rates and peaks before their ratios are taken: half of what one position in a minute makes of a rate, and
/// no peak that matters.
const SMALL: f64 = 1.0 / 6000.0;

/// The features of one autoencoder at one site.
pub struct Activity {
    site: Site,
    sae: Arc<Sae>,
    /// The share of positions at which each feature is active.
    rates: Vec<f64>,
    /// The largest activation of each.
    peaks: Vec<f64>,
}

/// What to listen to.
pub struct Listen<'a> {
    /// Sites, with the autoencoders that read them.
    pub sites: &'a [(Site, Arc<Sae>)],
    /// Columns that count.
    pub columns: Range<usize>,
    /// The rows that count.
    pub half: Halves,
}

/// Plays a take without edits, and looks at what fires.
///
/// # Errors
/// As [`Generator::play`].
pub fn of_baseline(
    decoder: &Decoder,
    take: &Take,
    (window, context): (usize, Context),
    listen: &Listen<'_>,
) -> Result<Vec<Activity>> {
    let captures =
        listen.sites.iter().map(|(site, _)| Capture { label: site.to_string(), site: *site }).collect();
    let options = GeneratorOptions { slots: 1, window: Some(window), captures };
    let takes = std::slice::from_ref(take);
    let mut generator = Generator::new(decoder, takes, &options)?;
    let mut made = None;
    generator.play(takes, context, take.frames, &mut |event: Event<'_>| {
        if let Event::Finished { generated, .. } = event {
            made = Some(generated);
        }
        Ok::<_, ModelError>(())
    })?;
    let made = made.expect("a take that was played is finished");
    let half = match listen.half {
        Halves::Both => Halves::Conditional,
        half => half,
    };
    listen
        .sites
        .iter()
        .map(|(site, sae)| {
            let label = site.to_string();
            let rows = made.captured.iter().find(|c| c.label == label && c.half == half);
            let rows: Vec<f32> = bytemuck::pod_collect_to_vec(&rows.expect("it was asked for").rows);
            let width = sae.width();
            let end = listen.columns.end.min(rows.len() / width);
            Activity::of(*site, sae, &rows[listen.columns.start.min(end) * width..end * width])
        })
        .collect()
}

impl Activity {
    fn of(site: Site, sae: &Arc<Sae>, rows: &[f32]) -> Result<Self> {
        let encoded = sae.encode(rows)?;
        let mut counts = vec![0_usize; sae.features()];
        let mut peaks = vec![0.0_f64; sae.features()];
        for (&feature, &value) in encoded.indices.iter().zip(&encoded.values) {
            if value > 0.0 {
                counts[feature as usize] += 1;
                peaks[feature as usize] = peaks[feature as usize].max(f64::from(value));
            }
        }
        let positions = (rows.len() / sae.width()).max(1) as f64;
        let rates = counts.into_iter().map(|count| count as f64 / positions).collect();
        Ok(Self { site, sae: sae.clone(), rates, peaks })
    }

    /// Whether this is the activity of `sae` at `site`.
    pub fn is_of(&self, site: Site, sae: &Arc<Sae>) -> bool {
        self.site == site && Arc::ptr_eq(&self.sae, sae)
    }

    /// The features whose rate and peak are nearest to those of `feature`, by the sum of their log ratios: enough to draw
    /// `controls` of them from, and none for which `taken` holds.
    pub fn alike(&self, feature: usize, controls: usize, taken: impl Fn(&usize) -> bool) -> Vec<usize> {
        let ratio = |a: f64, b: f64| ((a + SMALL) / (b + SMALL)).ln().abs();
        let distance = |&other: &usize| {
            ratio(self.rates[other], self.rates[feature]) + ratio(self.peaks[other], self.peaks[feature])
        };
        let mut others: Vec<usize> = (0..self.rates.len()).filter(|other| !taken(other)).collect();
        others.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
        others.truncate((POOL.0 * controls).max(POOL.1));
        others
    }

    /// Rates and peaks of some features, for the record.
    pub fn tell(&self, features: &[usize]) -> Value {
        let each = features.iter().map(
            |&feature| json!({ "feature": feature, "rate": self.rates[feature], "peak": self.peaks[feature] }),
        );
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use auscult_model::sae::SaeParts;

    /// Features 0 to 3 read one value each, and nothing is subtracted.
    fn activity(rows: &[[f32; 4]]) -> Activity {
        let identity: Vec<f32> = (0..16).map(|i| f32::from(u8::from(i % 5 == 0))).collect();
        let parts =
            SaeParts { w_enc: identity.clone(), b_enc: vec![0.0; 4], w_dec: identity, b_dec: vec![0.0; 4] };
        let sae = Arc::new(Sae::new(parts, None, None).unwrap());
        Activity::of(Site::Embed, &sae, &rows.concat()).unwrap()
    }

    #[test]
    fn rates_and_peaks_are_counted() {
        let found = activity(&[[1.0, 0.0, -1.0, 0.5], [3.0, 0.0, 2.0, 0.0]]);
        assert_eq!(found.rates, [1.0, 0.0, 0.5, 0.5]);
        assert_eq!(found.peaks, [3.0, 0.0, 2.0, 0.5]);
    }

    #[test]
    fn the_nearest_come_first_and_taken_ones_never() {
        let found = activity(&[[1.0, 0.0, 0.9, 1.0], [1.0, 0.0, 1.1, 0.0]]);
        assert_eq!(found.alike(0, 1, |&other| other == 0), [2, 3, 1]);
        assert_eq!(found.alike(0, 1, |&other| other == 0 || other == 2), [3, 1]);
    }
}
