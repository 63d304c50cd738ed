//! Autoencoders that read hooks while the model runs.
//!
//! An autoencoder encodes on the device, beside the site: its features come back, and sums that say how well they stand for the
//! rows, but no rows. Where it sets no limit to its features, a pass gives each row so many places; a row that fills them has
//! the pass made again with more. What a device cannot encode reads the rows on the host.

use auscult_model::ModelError;
use auscult_model::musicgen::{Fetching, TeacherForced};
use auscult_model::sae::{DeviceSae, Sae, SaeOutputs, SaePrecision};
use auscult_runtime::{Backend, Edits};

use crate::error::{AnalysisError, Result};
use crate::store::{Fit, SaeMeta, SaeRows};

/// An autoencoder and the hook that it reads.
#[derive(Debug)]
pub struct HookSae {
    meta: SaeMeta,
    sae: Sae,
    /// On the device; none for one that the host encodes.
    fused: Option<DeviceSae>,
}

/// What the features of a pass are made of, on its way to the host.
pub(super) enum Reading {
    /// Rows that the host encodes.
    Rows(Fetching),
    Codes {
        positions: usize,
        /// Indices and values.
        codes: [Fetching; 2],
        /// Squared errors, sums and squares by column.
        sums: Box<[Fetching; 3]>,
    },
}

impl Reading {
    pub fn outputs(&self) -> impl Iterator<Item = &Fetching> {
        let (one, more) = match self {
            Self::Rows(rows) => (std::slice::from_ref(rows), [].as_slice()),
            Self::Codes { codes, sums, .. } => (codes.as_slice(), sums.as_slice()),
        };
        one.iter().chain(more)
    }
}

impl HookSae {
    /// An autoencoder as a store will hold it: called `name` there, read from `path`, whose files hash to `sha256`, at
    /// `hook`, whose site is `site`. What encodes on the device multiplies in `precision` where it can, all else in f32.
    ///
    /// # Errors
    /// A weight beyond the range of the precision; failures of the device.
    pub fn new(
        sae: Sae,
        (name, path, sha256): (String, String, String),
        (hook, site): (String, String),
        precision: SaePrecision,
        backend: &dyn Backend,
    ) -> Result<Self> {
        let mut choices = [precision, SaePrecision::F32].into_iter();
        let info = backend.info();
        let known = choices.find(|precision| sae.decodes_on(info) && sae.encodes_on(info, *precision));
        let fused = known.map(|precision| sae.on_device(backend, precision)).transpose()?;
        let meta = SaeMeta {
            name,
            path,
            sha256,
            hook,
            site,
            width: sae.width(),
            features: sae.features(),
            k: sae.k(),
            architecture: sae.settings().activation.architecture().to_string(),
            precision: fused.as_ref().map(DeviceSae::precision).unwrap_or_default().to_string(),
        };
        Ok(Self { meta, sae, fused })
    }

    /// What the store says of it.
    pub fn meta(&self) -> &SaeMeta {
        &self.meta
    }

    /// The autoencoder.
    pub fn sae(&self) -> &Sae {
        &self.sae
    }

    /// Whether its rows stay on the device.
    pub fn is_fused(&self) -> bool {
        self.fused.is_some()
    }

    fn outputs(&self) -> SaeOutputs {
        SaeOutputs::of(&self.meta.name)
    }

    /// What it adds to a pass over `clips` clips, with `skip` rows in front of those of each.
    pub(super) fn edit(&self, edits: &mut Edits, clips: usize, skip: usize) {
        if let Some(fused) = &self.fused {
            edits.insert(&self.meta.site, fused.inserts(&self.outputs(), clips, skip));
        }
    }

    /// Makes room for rows with more active features than a pass had places for, or leaves them to the host.
    pub(super) fn widen(&mut self) {
        self.fused = self.fused.take().and_then(|fused| fused.widened());
    }

    /// Begins to fetch what the features of a pass that has run are made of: where the host encodes, the rows, f32 [clips, positions,
    /// width], of the output `rows`.
    pub(super) fn start(&self, pass: &TeacherForced, rows: &str) -> Result<Reading> {
        if !self.is_fused() {
            return Ok(Reading::Rows(pass.start_output(rows)?));
        }
        let outputs = self.outputs();
        let columns = [&outputs.squared_error, &outputs.sum, &outputs.squares];
        let [error, sum, squares] = columns.map(|name| pass.start_inserted_output(name));
        let [indices, values] = [&outputs.indices, &outputs.values].map(|name| pass.start_output(name));
        Ok(Reading::Codes {
            positions: pass.positions(),
            codes: [indices?, values?],
            sums: Box::new([error?, sum?, squares?]),
        })
    }

    /// The features of each clip. None where a row may have more than the pass had places for.
    ///
    /// # Panics
    /// If places were added since it was started.
    pub(super) fn finish(&self, clips: usize, reading: Reading) -> Result<Option<Vec<SaeRows>>> {
        match reading {
            Reading::Codes { positions, codes, sums } => self.finish_fused(clips, positions, codes, *sums),
            Reading::Rows(rows) => {
                let rows: Vec<f32> = bytemuck::pod_collect_to_vec(&rows.finish()?);
                rows.chunks_exact(rows.len() / clips).map(|clip| self.encode(clip).map(Some)).collect()
            }
        }
    }

    /// The features of a clip's rows [positions, width], on the host.
    ///
    /// # Errors
    /// [`AnalysisError::Answer`] for rows that hold what is not finite, or nothing to scale.
    pub fn encode(&self, rows: &[f32]) -> Result<SaeRows> {
        let of_rows = |error| match error {
            ModelError::Argument { found, expected, .. } => {
                let what = format!("rows of `{}` for `{}`", self.meta.hook, self.meta.name);
                AnalysisError::Answer { what, found, expected }
            }
            other => other.into(),
        };
        let features = self.sae.encode(rows).map_err(of_rows)?;
        let decoded = self.sae.reconstruct(rows, &features)?;
        Ok(SaeRows { features, fit: Fit::of(rows, &decoded, self.meta.width) })
    }

    fn finish_fused(
        &self,
        clips: usize,
        positions: usize,
        [indices, values]: [Fetching; 2],
        sums: [Fetching; 3],
    ) -> Result<Option<Vec<SaeRows>>> {
        let fused = self.fused.as_ref().expect("places are as they were when the pass was run");
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&values.finish()?);
        if fused.overflows(&values) {
            return Ok(None);
        }
        let indices: Vec<u32> = bytemuck::pod_collect_to_vec(&indices.finish()?);
        let sums = sums.map(|sums| -> Result<Vec<f32>> { Ok(bytemuck::pod_collect_to_vec(&sums.finish()?)) });
        let [error, sum, squares] = sums;
        let (error, sum, squares) = (error?, sum?, squares?);
        let (k, width) = (fused.k(), self.meta.width);
        let places = positions * k;
        let of_clip = |clip: usize| {
            let (columns, places) = (clip * width..(clip + 1) * width, clip * places..(clip + 1) * places);
            let fit = self.fit(positions, &error[columns.clone()], &sum[columns.clone()], &squares[columns]);
            let features = fused.sparse_rows(indices[places.clone()].to_vec(), values[places].to_vec());
            SaeRows { features, fit }
        };
        Ok(Some((0..clips).map(of_clip).collect()))
    }

    /// From sums over the columns of a clip: of the squared error, and of `d = x - b_dec` and its square.
    fn fit(&self, rows: usize, error: &[f32], sum: &[f32], squares: &[f32]) -> Fit {
        let count = rows as f64;
        let mut fit = Fit {
            rows: rows as u64,
            error: error.iter().map(|&e| f64::from(e)).sum(),
            squares: 0.0,
            sum: Vec::with_capacity(sum.len()),
        };
        for ((&d, &dd), &b) in sum.iter().zip(squares).zip(self.sae.b_dec()) {
            let (d, dd, b) = (f64::from(d), f64::from(dd), f64::from(b));
            fit.sum.push(d + count * b);
            // (d + b)^2 = d^2 + 2 b d + b^2
            fit.squares += dd + 2.0 * b * d + count * b * b;
        }
        fit
    }
}
