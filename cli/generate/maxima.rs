//! How strong features were recorded to be: what steering counts in.

use super::edits::{Along, Feature, Steer};
use super::saes::Saes;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::features::Maxima;
use auscult_analysis::record::{FileRecord, InputRecord, RunRecord};
use auscult_model::musicgen::Site;
use std::path::PathBuf;

/// Maxima of the features at some sites, and the files they are from.
pub struct Recorded(Vec<(PathBuf, Site, Maxima)>);

impl Recorded {
    /// Reads the files of statistics that a command line names.
    ///
    /// # Errors
    /// A file that holds none; two of one site.
    pub fn read(files: &[PathBuf], record: &mut RunRecord) -> Result<Self> {
        let mut all: Vec<(PathBuf, Site, Maxima)> = Vec::new();
        for path in files {
            let maxima = Maxima::read(path)?;
            let site: Site = maxima.site.parse()?;
            if let Some((other, ..)) = all.iter().find(|(_, of, _)| *of == site) {
                let message = format!(
                    "`--stats` is given for {site} twice: {} and {}, expected once",
                    other.display(),
                    path.display()
                );
                return Err(Failure::usage(message));
            }
            record.inputs.push(InputRecord { file: FileRecord::of(path)?, audio: None });
            all.push((path.clone(), site, maxima));
        }
        Ok(Self(all))
    }

    /// BETA of an edit: what was written, else the feature's maximum, else 1 where nothing was recorded.
    ///
    /// # Errors
    /// Statistics of other sites or another autoencoder; a feature that was active nowhere.
    pub fn beta(&self, steer: &Steer, saes: &Saes) -> Result<f32> {
        let (Along::Feature(Feature { hook, feature }), None) = (&steer.along, steer.beta) else {
            return Ok(steer.beta.unwrap_or(1.0));
        };
        let Some((path, _, maxima)) = self.0.iter().find(|(_, site, _)| *site == hook.site) else {
            if self.0.is_empty() {
                return Ok(1.0);
            }
            let sites: Vec<String> = self.0.iter().map(|(_, site, _)| site.to_string()).collect();
            let message = format!(
                "`--stats` holds maxima at {}, expected {}, or `@BETA` behind `{}:{feature}`",
                sites.join(", "),
                hook.site,
                hook.name
            );
            return Err(Failure::usage(message));
        };
        let features = saes.of(hook)?.sae.features();
        if maxima.values.len() != features {
            let message = format!(
                "{}: holds maxima of {} features, expected {features}, those of the autoencoder at {}",
                path.display(),
                maxima.values.len(),
                hook.site
            );
            return Err(Failure::refused(message));
        }
        match maxima.values[*feature] {
            max if max > 0.0 && (steer.alpha * max).is_finite() => Ok(max),
            max => {
                let message = format!(
                    "{}: the maximum of feature {feature} is {max}, expected one above 0, or `@BETA` behind it",
                    path.display()
                );
                Err(Failure::input(message))
            }
        }
    }
}
