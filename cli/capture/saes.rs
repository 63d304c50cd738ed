//! The autoencoders of a capture: opened, and each brought to the hook whose rows it reads.

use crate::context::Context;
use crate::failure::Failure;
use crate::sae::audio::note_posemb;
use crate::sae::files;
use anyhow::Result;
use auscult_analysis::AnalysisError;
use auscult_analysis::alignment::Verdict;
use auscult_analysis::capture::{HookSae, Model, MusicgenCapture, first_clips};
use auscult_analysis::input::Input;
use auscult_analysis::record::RunRecord;
use auscult_analysis::store::{Hook, sae_names};
use auscult_audio::Windows;
use auscult_model::ModelError;
use auscult_model::musicgen::{Posemb, Site};
use auscult_model::sae::{Sae, SaePrecision};
use auscult_runtime::Backend;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What `--sae` names.
pub struct Opened {
    dir: PathBuf,
    sae: Sae,
    /// The hook before the path, as it was written.
    named: Option<(String, Site)>,
}

/// Opens what the options name: a path, or a hook, `=` and a path.
pub fn open(options: &[String]) -> Result<Vec<Opened>> {
    let one = |option: &String| -> Result<Opened> {
        let hook = option.split_once('=').filter(|_| !Path::new(option).exists());
        let (named, dir) = match hook {
            Some((hook, dir)) => (Some((hook.to_string(), hook.parse::<Site>()?)), dir),
            None => (None, option.as_str()),
        };
        Ok(Opened { sae: Sae::open(Path::new(dir))?, dir: dir.into(), named })
    };
    options.iter().map(one).collect()
}

impl Opened {
    /// The site that it is to read, and its name as written; none where nothing says.
    fn site(&self) -> Result<Option<(String, Site)>> {
        match (&self.named, self.sae.hook()) {
            (Some(named), _) => Ok(Some(named.clone())),
            (None, None) => Ok(None),
            (None, Some(hook)) => match hook.parse::<Site>() {
                Ok(site) => Ok(Some((hook.to_string(), site))),
                Err(error) => Err(Failure::refused(format!(
                    "{}: its hook is not one of MusicGen: {error}; `--sae HOOK={0}` with `--allow-misaligned` names another",
                    self.dir.display()
                ))),
            },
        }
    }

    /// The hook among `hooks` that it is to read.
    fn hook<'a>(&self, hooks: &'a [Hook]) -> Result<&'a Hook> {
        let there = || hooks.iter().map(|hook| hook.hook.as_str()).collect::<Vec<_>>().join(", ");
        let Some((name, site)) = self.site()? else {
            return match hooks {
                [only] => Ok(only),
                _ => Err(Failure::usage(format!(
                    "{}: its files name no hook, expected `--sae HOOK={0}` with one of {}",
                    self.dir.display(),
                    there()
                ))),
            };
        };
        hooks.iter().find(|hook| hook.site == site.to_string()).ok_or_else(|| {
            let dir = self.dir.display();
            match self.named {
                Some(_) => Failure::usage(format!(
                    "`--sae {name}={dir}`: `{name}` is not among --hooks, expected one of {}",
                    there()
                )),
                None => Failure::refused(format!(
                    "{dir}: was trained at `{name}`, which is not among --hooks, expected one of {} (`hook_layers.N` counts \
                     layers from 0, `paper:M` from 1); `--sae HOOK={dir}` with `--allow-misaligned` has it read another",
                    there()
                )),
            }
        })
    }
}

/// The hooks that autoencoders name, each once, as a list for `--hooks`.
pub fn hooks(opened: &[Opened]) -> Result<String> {
    let mut named: Vec<(String, Site)> = Vec::new();
    for one in opened {
        let Some((name, site)) = one.site()? else {
            return Err(Failure::usage(format!(
                "{}: its files name no hook, expected --hooks or `--sae HOOK={0}`",
                one.dir.display()
            )));
        };
        if named.iter().all(|(_, other)| *other != site) {
            named.push((name, site));
        }
    }
    Ok(named.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(","))
}

/// Names the autoencoder whose own hook the model has not, where that is why it was not opened.
pub fn blame(opened: &[Opened], error: anyhow::Error) -> anyhow::Error {
    let site = match error.downcast_ref() {
        Some(AnalysisError::Model(ModelError::Site { name, .. })) => Some(name.as_str()),
        _ => None,
    };
    let one = opened.iter().find(|one| one.named.is_none() && site.is_some() && one.sae.hook() == site);
    match one {
        Some(one) => Failure::refused(format!(
            "{dir}: was trained at a hook that this model has not: {error}; `hook_layers.N` counts layers from 0, `paper:M` \
             from 1; `--sae HOOK={dir}` with `--allow-misaligned` has it read another",
            dir = one.dir.display()
        )),
        None => error,
    }
}

/// Tells of autoencoders that were trained with positions computed in another way.
pub fn note_positions(context: &Context, opened: &[Opened], used: Posemb) {
    opened.iter().for_each(|one| note_posemb(context, &one.dir, &one.sae, used.name()));
}

/// Brings each autoencoder to its hook, and notes in the record what was read of it, where it does not belong, and what those
/// on the device multiply in: `precision`.
///
/// # Errors
/// A hook that is not there; another width than the hook's; another hook than it was trained at, unless that is allowed.
pub fn at_hooks(
    opened: Vec<Opened>,
    hooks: &[Hook],
    allow_misaligned: bool,
    precision: SaePrecision,
    backend: &dyn Backend,
    record: &mut RunRecord,
) -> Result<Vec<HookSae>> {
    let paths: Vec<&Path> = opened.iter().map(|one| one.dir.as_path()).collect();
    let names = sae_names(&paths);
    let (mut misaligned, mut precisions): (Vec<Value>, Vec<Value>) = Default::default();
    let mut saes = Vec::with_capacity(opened.len());
    for (one, name) in opened.into_iter().zip(names) {
        let hook = one.hook(hooks)?;
        one.sae.check_width(&hook.hook, hook.width)?;
        if let Err(error) = one.sae.check_hook(hook.site.parse()?) {
            if !allow_misaligned {
                let message = format!("{error}; `--allow-misaligned` uses it anyway, and records it");
                return Err(Failure::refused(message));
            }
            misaligned.push(json!({ "sae": one.dir, "hook_name": one.sae.hook(), "used_at": hook.site }));
        }
        let files = files::files(&one.dir)?;
        let place = (hook.hook.clone(), hook.site.clone());
        let origin = (name, one.dir.display().to_string(), files::sha256(&files));
        let sae = HookSae::new(one.sae, origin, place, precision, backend)?;
        precisions.push(json!({ "sae": one.dir, "precision": sae.meta().precision }));
        saes.push(sae);
        record.inputs.extend(files);
    }
    if !precisions.is_empty() {
        record.details.insert("sae_precision".into(), precisions.into());
    }
    if !misaligned.is_empty() {
        record.details.insert("misaligned".into(), misaligned.into());
    }
    Ok(saes)
}

/// Clips that are looked at first, of as many files where there are.
const FIRST_CLIPS: usize = 2;

/// Holds each autoencoder against the stream of the first clips, and notes in the record how well it fits.
///
/// # Errors
/// One that fits another site better than its own, or none, unless that is allowed.
pub fn look(
    context: &Context,
    model: &mut MusicgenCapture,
    inputs: &[Input],
    windows: Windows,
    allow_misaligned: bool,
    record: &mut RunRecord,
) -> Result<()> {
    let paths: Vec<String> = model.saes().iter().map(|sae| sae.path.clone()).collect();
    if paths.is_empty() {
        return Ok(());
    }
    let first = &inputs[..inputs.len().min(FIRST_CLIPS)];
    let mut clips = Vec::new();
    for input in first {
        match first_clips(std::slice::from_ref(input), windows, model.spec(), FIRST_CLIPS / first.len()) {
            Ok((more, _)) => clips.extend(more),
            // the capture says so
            Err(AnalysisError::NothingCaptured { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if clips.is_empty() {
        return Ok(());
    }
    let looks = model.look_at_saes(&clips)?;
    for (path, look) in paths.iter().zip(&looks) {
        match look.verdict.refusal() {
            Some(why) if !allow_misaligned => {
                let message = format!(
                    "{path} at {}: {why}; `--allow-misaligned` uses it anyway, and records it",
                    look.site
                );
                return Err(Failure::refused(message));
            }
            Some(why) => context.note(&format!("misaligned: {path} at {}: {why}", look.site)),
            None => {}
        }
        if let Verdict::Unclear { message } = &look.verdict {
            context.note(&format!(
                "{path} at {}: the first clips hardly differ from row to row, and it {message}",
                look.site
            ));
        }
    }
    let noted = paths.iter().zip(&looks).map(|(path, look)| json!({ "sae": path, "look": look }));
    record.details.insert("alignment".into(), noted.collect());
    Ok(())
}
