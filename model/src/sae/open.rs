//! Which program wrote an autoencoder's directory.

use super::fields::Fields;
use super::save::{CFG_FILE, WEIGHTS_FILE};
use super::sparsify::SPARSIFY_FILE;
use super::{Sae, saelens, sparsify};
use crate::config::read_json;
use crate::device::present;
use crate::error::{ModelError, Result};
use auscult_runtime::weights::{Loader, Weights};
use std::path::Path;

/// What SAELens may write beside them.
const SPARSITY_FILE: &str = "sparsity.safetensors";
/// What a directory must hold.
const LAYOUT: &str =
    "expected a directory with cfg.json and sae_weights.safetensors (SAELens) or sae.safetensors (sparsify)";

impl Sae {
    /// Reads an autoencoder from the directory that SAELens 5 or 6 (`cfg.json`, `sae_weights.safetensors`) or EleutherAI's
    /// sparsify (`cfg.json`, `sae.safetensors`) wrote. Weights stored as F16 or BF16 are widened; arithmetic is f32 whatever
    /// `dtype` says.
    ///
    /// What SAELens folds into the weights before it saves for inference is folded here where it was not: the factor of
    /// `expected_average_only_in` (from `activation_scaler.json`), and `rescale_acts_by_decoder_norm`.
    ///
    /// # Errors
    /// A directory that holds no such files, a file that breaks its format, a field that is impossible or whose meaning
    /// is not known here, tensors that do not fit the configuration, values that are not finite.
    pub fn open(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            let what = if dir.exists() { "is a file" } else { "does not exist" };
            return Err(ModelError::file(dir, format!("{what}; {LAYOUT}")));
        }
        let cfg = dir.join(CFG_FILE);
        if !cfg.is_file() {
            return Err(ModelError::file(dir, format!("has no {CFG_FILE}; {LAYOUT}")));
        }
        let json = read_json(&cfg)?;
        let fields = Fields::of(&cfg, &json)?;
        let (ours, theirs) = (dir.join(WEIGHTS_FILE), dir.join(SPARSIFY_FILE));
        let mut sae = match (ours.exists(), theirs.exists()) {
            (true, false) => saelens::read(&fields, &finite(&ours)?, dir)?,
            (false, true) => sparsify::read(&fields, &finite(&theirs)?, dir)?,
            (true, true) => {
                let message = format!("has {WEIGHTS_FILE} and {SPARSIFY_FILE}, expected one of them");
                return Err(ModelError::file(dir, message));
            }
            (false, false) => return Err(ModelError::file(dir, format!("has no weights; {LAYOUT}"))),
        };
        sae.origin = Some(cfg);
        Ok(sae)
    }

    /// How often every feature was active in training, as SAELens writes it beside the weights: log10 of the share of rows,
    /// `[features]`. `None` where there is no such file.
    ///
    /// # Errors
    /// A file that breaks its format or holds another number of features.
    pub fn read_sparsity(&self, dir: &Path) -> Result<Option<Vec<f32>>> {
        let file = dir.join(SPARSITY_FILE);
        if !file.exists() {
            return Ok(None);
        }
        let weights = Weights::open(&file)?;
        let loader = Loader::new(&weights);
        let sparsity = loader.take("sparsity", &[self.features]);
        loader.finish()?;
        Ok(Some(present(&sparsity).to_f32()?))
    }
}

fn finite(file: &Path) -> Result<Weights> {
    let weights = Weights::open(file)?;
    weights.check_finite()?;
    Ok(weights)
}
