//! Scores of an autoencoder at many sites, from one forward pass over each batch of clips.

use auscult_audio::Clip;
use auscult_model::Codes;
use auscult_model::musicgen::{At, Site};
use auscult_model::sae::{Encoder, Sae, SaePrecision};
use serde::Serialize;

use super::cost::CodeCost;
use crate::capture::{Model, MusicgenCapture};
use crate::error::Result;
use crate::sae_stats::{FeatureCounts, Fit};

/// Clips of a batch at most: the rows of all sites are held on the host.
const MOST_CLIPS: usize = 8;

/// The sites at which the stream of a decoder of so many layers differs: before the first layer and behind each.
pub fn candidates(layers: usize) -> impl Iterator<Item = Site> {
    std::iter::once(Site::Embed).chain((0..layers).map(|layer| Site::Layer(layer, At::ResidPost)))
}

/// How well an autoencoder fits one site.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SiteScore {
    /// The site.
    pub site: String,
    /// Other names of the same value: what a layer leaves is what the next receives.
    pub also: Vec<String>,
    /// Rows scored.
    pub rows: u64,
    /// [`Fit::fvu`].
    pub fvu: Option<f64>,
    /// [`Fit::explained_variance`].
    pub explained_variance: Option<f64>,
    /// [`Fit::missed_power`].
    pub missed_power: Option<f64>,
    /// Features active in a row, on average.
    pub l0: Option<f64>,
    /// Share of the features that are active in no row.
    pub dead: f64,
    /// What the reconstruction costs the model, where that was asked for.
    pub cross_entropy: Option<CodeCost>,
}

impl SiteScore {
    /// The order of fits, the best first; rows that do not differ come last.
    pub fn fit(&self) -> f64 {
        self.fvu.filter(|fvu| !fvu.is_nan()).unwrap_or(f64::INFINITY)
    }

    /// The site, as [`Site`] reads it.
    ///
    /// # Panics
    /// A score that was not made by [`SiteSums`].
    pub fn at(&self) -> Site {
        self.site.parse().expect("the name of a site")
    }
}

/// Sums of one autoencoder over rows of one site.
#[derive(Clone, Debug)]
pub struct SiteSums {
    site: Site,
    fit: Fit,
    counts: FeatureCounts,
}

impl SiteSums {
    /// No rows yet.
    pub fn new(site: Site, sae: &Sae) -> Self {
        Self { site, fit: Fit::default(), counts: FeatureCounts::new(sae.features()) }
    }

    /// Adds rows `[rows, width]`.
    ///
    /// # Errors
    /// Rows that cannot be encoded; failures of the device.
    pub fn add(&mut self, encoder: &mut Encoder<'_>, rows: &[f32]) -> Result<()> {
        let (sae, codes) = (encoder.sae(), encoder.encode(rows)?);
        self.fit.add(&Fit::of(rows, &sae.reconstruct(rows, &codes)?, sae.width()));
        self.counts.add(&codes);
        Ok(())
    }

    /// What the sums say, for a decoder of so many layers.
    pub fn score(&self, layers: usize) -> SiteScore {
        let origin = self.site.origin();
        let same = |other: &Site| *other != self.site && other.origin() == origin;
        SiteScore {
            site: self.site.to_string(),
            also: Site::all(layers).filter(same).map(|site| site.to_string()).collect(),
            rows: self.fit.rows,
            fvu: self.fit.fvu(),
            explained_variance: self.fit.explained_variance(),
            missed_power: self.fit.missed_power(),
            l0: self.counts.l0(),
            dead: self.counts.dead_share(),
            cross_entropy: None,
        }
    }
}

/// Codes of clips, in batches of one length.
pub type Batches = Vec<Vec<Codes>>;

/// An autoencoder beside the model that it is held against; the model captures the sites that are scored.
pub struct Aligner<'a> {
    /// The autoencoder's encoder, on the model's device where it can be.
    pub encoder: Encoder<'a>,
    /// The model, opened to capture the sites, as f32.
    pub model: &'a mut MusicgenCapture,
}

impl<'a> Aligner<'a> {
    /// An autoencoder beside a model, which was opened to capture the sites, as f32.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn new(sae: &'a Sae, model: &'a mut MusicgenCapture) -> Result<Self> {
        Ok(Self { encoder: Encoder::new(sae, SaePrecision::F32, model.decoder().backend())?, model })
    }

    /// Codes of clips. A batch holds clips of one length that follow each other.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn encode(&mut self, clips: &[Clip]) -> Result<Batches> {
        let mut batches = Vec::new();
        for clips in clips.chunk_by(|a, b| a.samples.len() == b.samples.len()) {
            let together = self.model.auto_batch(clips[0].samples.len()).clamp(1, MOST_CLIPS);
            for batch in clips.chunks(together) {
                let samples: Vec<&[f32]> = batch.iter().map(|clip| clip.samples.as_slice()).collect();
                batches.push(self.model.encode(&samples)?);
            }
        }
        Ok(batches)
    }

    /// The autoencoder's scores at every site that the model captures, in that order. `done` is told of every batch.
    ///
    /// # Errors
    /// [`auscult_model::ModelError::Misfit`] for an autoencoder of another width; failures of the device; rows that cannot be encoded.
    pub fn score(&mut self, batches: &Batches, mut done: impl FnMut()) -> Result<Vec<SiteScore>> {
        let mut sums = Vec::new();
        let sae = self.encoder.sae();
        for hook in self.model.hooks() {
            sae.check_width(&hook.site, hook.width)?;
            sums.push(SiteSums::new(hook.site.parse()?, sae));
        }
        for codes in batches {
            for (sums, bytes) in sums.iter_mut().zip(self.model.forward(codes)?.rows) {
                sums.add(&mut self.encoder, &floats(&bytes))?;
            }
            done();
        }
        let layers = self.model.decoder().config().num_hidden_layers;
        Ok(sums.iter().map(|sums| sums.score(layers)).collect())
    }
}

/// Little-endian f32 values.
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
}
