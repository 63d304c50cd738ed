//! Which program wrote an autoencoder's directory.

use super::fields::Fields;
use super::gemma_scope::PARAMS_FILE;
use super::llama_scope::HYPERPARAMS_FILE;
use super::save::{CFG_FILE, WEIGHTS_FILE};
use super::sparsify::SPARSIFY_FILE;
use super::{Sae, gemma_scope, llama_scope, saelens, sparsify};
use crate::config::read_json;
use crate::device::present;
use crate::error::{ModelError, Result};
use auscult_runtime::weights::{Loader, Weights};
use std::path::{Path, PathBuf};

/// What SAELens may write beside them.
const SPARSITY_FILE: &str = "sparsity.safetensors";
/// What dictionary_learning writes.
const PICKLED_FILE: &str = "ae.pt";
/// What a directory must hold.
const LAYOUT: &str = "expected a directory with cfg.json and sae_weights.safetensors (SAELens) or sae.safetensors (sparsify), \
                      with params.npz (Gemma Scope), or with hyperparams.json (Llama Scope)";

impl Sae {
    /// Reads an autoencoder from the directory that SAELens 5 or 6 (`cfg.json`, `sae_weights.safetensors`), EleutherAI's
    /// sparsify (`cfg.json`, `sae.safetensors`), Gemma Scope (`params.npz`, which may be named itself) or Llama Scope
    /// (`hyperparams.json`, `checkpoints/final.safetensors`) wrote. Weights stored as F16 or BF16 are widened; arithmetic is
    /// f32 whatever `dtype` says.
    ///
    /// What other programs fold into the weights before they encode is folded here where it was not: the factor of
    /// `expected_average_only_in` (from `activation_scaler.json`), `rescale_acts_by_decoder_norm`, the lengths of a data set.
    ///
    /// # Errors
    /// A directory that holds no such files, a pickle, a file that breaks its format, a field that is impossible or whose
    /// meaning is not known here, tensors that do not fit the configuration, values that are not finite.
    pub fn open(dir: &Path) -> Result<Self> {
        let (cfg, hyperparams, params) =
            (dir.join(CFG_FILE), dir.join(HYPERPARAMS_FILE), dir.join(PARAMS_FILE));
        let is_params = dir.extension().is_some_and(|e| e == "npz") && dir.is_file();
        if !dir.is_dir() && !is_params {
            return Err(ModelError::file(dir, no_directory(dir)));
        }
        let (mut sae, origin) = if is_params {
            (gemma_scope::read(dir)?, dir.to_path_buf())
        } else if cfg.is_file() {
            (configured(&cfg, dir)?, cfg)
        } else if hyperparams.is_file() {
            let Some(weights) = llama_scope::weights_file(dir) else {
                return Err(ModelError::file(dir, format!("has no weights; {LAYOUT}")));
            };
            let json = read_json(&hyperparams)?;
            let sae = llama_scope::read(&Fields::of(&hyperparams, &json)?, &finite(&weights)?, dir)?;
            (sae, hyperparams)
        } else if params.is_file() {
            (gemma_scope::read(&params)?, params)
        } else if dir.join(PICKLED_FILE).is_file() {
            return Err(ModelError::file(&dir.join(PICKLED_FILE), PICKLED));
        } else {
            return Err(ModelError::file(dir, format!("has no {CFG_FILE}; {LAYOUT}")));
        };
        sae.origin = Some(origin);
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

/// Why a pickle is refused.
const PICKLED: &str = "is a pickle, which could run code and is not read here; `auscult model convert` makes a directory of \
                       it that is";

fn no_directory(path: &Path) -> String {
    let pickled = path.extension().is_some_and(|e| e == "pt" || e == "pth" || e == "bin");
    match (path.exists(), pickled) {
        (false, _) => format!("does not exist; {LAYOUT}"),
        (true, true) => PICKLED.into(),
        (true, false) => format!("is a file; {LAYOUT}"),
    }
}

/// An autoencoder with a `cfg.json`: the weights' name says whose.
fn configured(cfg: &Path, dir: &Path) -> Result<Sae> {
    let json = read_json(cfg)?;
    let fields = Fields::of(cfg, &json)?;
    let files: [PathBuf; 2] = [dir.join(WEIGHTS_FILE), dir.join(SPARSIFY_FILE)];
    match files.each_ref().map(|file| file.exists()) {
        [true, false] => saelens::read(&fields, &finite(&files[0])?, dir),
        [false, true] => sparsify::read(&fields, &finite(&files[1])?, dir),
        [true, true] => {
            let message = format!("has {WEIGHTS_FILE} and {SPARSIFY_FILE}, expected one of them");
            Err(ModelError::file(dir, message))
        }
        [false, false] => Err(ModelError::file(dir, format!("has no weights; {LAYOUT}"))),
    }
}

fn finite(file: &Path) -> Result<Weights> {
    let weights = Weights::open(file)?;
    weights.check_finite()?;
    Ok(weights)
}
