//! The autoencoders of a run: opened, held against the sites they are used at, and recorded.

use super::edits::{EditArgs, Feature, Hook};
use crate::failure::Failure;
use crate::sae::files;
use anyhow::Result;
use auscult_analysis::record::RunRecord;
use auscult_model::musicgen::Decoder;
use auscult_model::sae::Sae;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// An autoencoder and where it is from.
pub struct Opened {
    pub dir: PathBuf,
    pub sae: Arc<Sae>,
}

/// All of them.
pub struct Saes(Vec<Opened>);

impl Saes {
    /// Opens the autoencoders that a command line names, and holds every feature that it names against them.
    ///
    /// # Errors
    /// One that does not open; a feature of none, or of another hook or width.
    pub fn open(args: &EditArgs, decoder: &Decoder, record: &mut RunRecord) -> Result<Self> {
        let config = decoder.config();
        let mut opened = Vec::new();
        for dir in &args.sae {
            let sae = Arc::new(Sae::open(dir)?);
            record.inputs.extend(files::files(dir)?);
            opened.push(Opened { dir: dir.clone(), sae });
        }
        let saes = Self(opened);
        let mut misaligned: Vec<Value> = Vec::new();
        for Feature { hook, feature } in args.features() {
            hook.site.within(config.num_hidden_layers)?;
            let Opened { dir, sae } = saes.of(hook)?;
            sae.check_width(hook.site, hook.site.width(config))?;
            if let Err(error) = sae.check_hook(hook.site) {
                if !args.allow_misaligned {
                    let message = format!("{error}; `--allow-misaligned` uses it anyway, and records it");
                    return Err(Failure::refused(message));
                }
                let used = json!({ "sae": dir, "hook_name": sae.hook(), "used_at": hook.site.to_string() });
                if !misaligned.contains(&used) {
                    misaligned.push(used);
                }
            }
            if *feature >= sae.features() {
                let message = format!(
                    "{}: feature {feature} of `{}` does not exist, expected less than {}, the features of the autoencoder",
                    dir.display(),
                    hook.name,
                    sae.features()
                );
                return Err(Failure::input(message));
            }
        }
        if !misaligned.is_empty() {
            record.details.insert("misaligned".into(), misaligned.into());
        }
        Ok(saes)
    }

    /// The autoencoder for a hook: the one that names it; where only one was given, that one.
    ///
    /// # Errors
    /// None, or several.
    pub fn of(&self, hook: &Hook) -> Result<&Opened> {
        let own: Vec<&Opened> =
            self.0.iter().filter(|opened| opened.sae.check_hook(hook.site).is_ok()).collect();
        match (own.as_slice(), self.0.as_slice()) {
            ([one], _) => Ok(*one),
            ([], [one]) => Ok(one),
            (_, []) => {
                let message =
                    format!("a feature of `{}` is named, expected its autoencoder with `--sae`", hook.name);
                Err(Failure::usage(message))
            }
            ([], _) => {
                let hooks: Vec<_> =
                    self.0.iter().map(|o| o.sae.hook().unwrap_or("unknown").to_string()).collect();
                let message = format!(
                    "no `--sae` is for `{}`: they are for {}, expected one that is",
                    hook.name,
                    hooks.join(", ")
                );
                Err(Failure::refused(message))
            }
            (several, _) => {
                let dirs: Vec<_> = several.iter().map(|o| o.dir.display().to_string()).collect();
                let message = format!(
                    "`--sae` is given {} times for `{}`: {}, expected once",
                    several.len(),
                    hook.name,
                    dirs.join(", ")
                );
                Err(Failure::usage(message))
            }
        }
    }
}
