//! What a take is played with: nothing, the edits of the command line, or controls of them.

use super::activity::Activity;
use super::draws::{Draws, length};
use super::edits::{Along, Amount, EditArgs, Feature, Hook, Source};
use super::maxima::Recorded;
use super::saes::Saes;
use super::vectors;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::RunRecord;
use auscult_model::musicgen::generate::{Action, Intervention};
use auscult_model::musicgen::{Decoder, Site};
use auscult_model::sae::Sae;
use serde_json::{Value, json};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// What is done to a take, and what its record calls that.
#[derive(Clone)]
pub struct Variant {
    pub label: String,
    pub edits: Vec<Intervention>,
    pub told: Vec<Value>,
}

/// The edits of a command line, ready to be played.
pub struct Target {
    edits: Vec<Edit>,
    /// Columns they are done in, as far as the take goes.
    pub columns: Range<usize>,
}

/// One of them.
struct Edit {
    intervention: Intervention,
    told: Value,
    /// The feature along whose direction it goes.
    feature: Option<Origin>,
}

/// Where a feature is from.
#[derive(Clone)]
struct Origin {
    sae: Arc<Sae>,
    feature: usize,
}

/// Streams of random choices.
const FEATURES: u32 = 0;
const DIRECTIONS: u32 = 1;

impl Target {
    /// The edits, with what they need read from files. At one site features are looked at first, before anything is
    /// changed there; then come zeros, replaced and patched rows, and what is added.
    ///
    /// # Errors
    /// A site that there is not, or one that is no part of the stream; files that do not fit; a time that is no part of
    /// the take.
    pub fn of(args: &EditArgs, decoder: &Decoder, frames: usize, record: &mut RunRecord) -> Result<Self> {
        let saes = Saes::open(args, decoder, record)?;
        let columns = columns(args, decoder.frames_per_second(), frames)?;
        let maker = Maker { args, decoder, saes, columns: columns.clone(), frames };
        let mut edits = Vec::new();
        for of in &args.ablate {
            edits.push(maker.on_feature(of, "ablate", Action::Ablate, json!({}))?);
        }
        for Amount { of, amount } in &args.scale {
            edits.push(maker.on_feature(of, "scale", Action::Scale(*amount), json!({ "amount": amount }))?);
        }
        for Amount { of, amount } in &args.set {
            edits.push(maker.on_feature(of, "set", Action::Set(*amount), json!({ "amount": amount }))?);
        }
        for hook in &args.zero {
            edits.push(maker.along(hook, "zero", Action::Zero, Arc::new([]), json!({}))?);
        }
        for rows in &args.replace {
            let width = maker.width(&rows.hook)?;
            let read = vectors::vector(&rows.file, width)?;
            record.inputs.extend(read.files);
            edits.push(maker.along(
                &rows.hook,
                "replace",
                Action::Replace,
                read.values,
                named(&rows.file),
            )?);
        }
        for rows in &args.patch {
            let width = maker.width(&rows.hook)?;
            let read = vectors::rows(&rows.file, &rows.hook, width)?;
            record.inputs.extend(read.files);
            let mut more = named(&rows.file);
            more["positions"] = (read.values.len() / width).into();
            edits.push(maker.along(&rows.hook, "patch", Action::Patch, read.values, more)?);
        }
        let maxima = Recorded::read(&args.stats, record)?;
        for steer in &args.steer {
            let beta = maxima.beta(steer, &maker.saes)?;
            let action = Action::Steer(steer.alpha * beta);
            let mut more = json!({ "alpha": steer.alpha, "beta": beta });
            edits.push(match &steer.along {
                // no activation is looked at, so the autoencoder stays off the device
                Along::Feature(of) => {
                    let on = maker.on_feature(of, "steer", action, more)?;
                    Edit { intervention: Intervention { feature: None, ..on.intervention }, ..on }
                }
                Along::File { hook, file } => {
                    let read = vectors::vector(file, maker.width(hook)?)?;
                    record.inputs.extend(read.files);
                    extend(&mut more, named(file));
                    more["direction"] = "file".into();
                    more["norm"] = norm(&read.values).into();
                    maker.along(hook, "steer", action, read.values, more)?
                }
            });
        }
        Ok(Self { edits, columns })
    }

    /// The sites whose features are named, with their autoencoders, each once.
    pub fn looked_at(&self) -> Vec<(Site, Arc<Sae>)> {
        let mut found: Vec<(Site, Arc<Sae>)> = Vec::new();
        for edit in &self.edits {
            let Some(Origin { sae, .. }) = &edit.feature else { continue };
            let site = edit.intervention.site;
            if !found.iter().any(|(s, of)| *s == site && Arc::ptr_eq(of, sae)) {
                found.push((site, sae.clone()));
            }
        }
        found
    }

    /// The edits themselves.
    pub fn plain(&self, label: &str) -> Variant {
        Variant {
            label: label.into(),
            edits: self.edits.iter().map(|edit| edit.intervention.clone()).collect(),
            told: self.edits.iter().map(|edit| edit.told.clone()).collect(),
        }
    }

    /// Refuses edits that have no controls.
    pub fn check_controls(&self) -> Result<()> {
        let without = self.edits.iter().find(|edit| edit.told.get("norm").is_none());
        match (without, self.edits.is_empty()) {
            (None, false) => Ok(()),
            (Some(edit), _) => {
                let message = format!(
                    "`--controls` with `--{}`, expected only edits along a direction, which controls can replace",
                    edit.told["action"].as_str().unwrap_or_default()
                );
                Err(Failure::usage(message))
            }
            (None, true) => Err(Failure::usage("`--controls` without an edit, expected at least one")),
        }
    }

    /// A baseline, the edits, and so many controls of either kind. Every control replaces each feature by another that
    /// fires and peaks alike, or each direction by a random one of the same norm; edits along vectors of files have controls
    /// of the second kind only.
    ///
    /// # Errors
    /// More controls than there are features.
    pub fn with_controls(&self, controls: usize, seed: u64, activities: &[Activity]) -> Result<Vec<Variant>> {
        let baseline = Variant { label: "baseline".into(), edits: Vec::new(), told: Vec::new() };
        let mut variants = vec![baseline, self.plain("target")];
        if self.edits.iter().all(|edit| edit.feature.is_some()) {
            variants.extend(self.feature_controls(controls, seed, activities)?);
        }
        for control in 0..controls {
            let edits = self.edits.iter().enumerate();
            let edits = edits.map(|(number, edit)| {
                let stream = [DIRECTIONS, word(number) << 16 | word(control)];
                let d = &edit.intervention.direction;
                let direction: Arc<[f32]> = Draws::new(seed, stream).direction(d.len(), norm(d)).into();
                let mut told = edit.told.clone();
                told["direction"] = "random".into();
                told["norm"] = norm(&direction).into();
                (Intervention { direction, ..edit.intervention.clone() }, told)
            });
            let (edits, told) = edits.unzip();
            variants.push(Variant { label: format!("direction-control-{control}"), edits, told });
        }
        Ok(variants)
    }

    fn feature_controls(&self, controls: usize, seed: u64, activities: &[Activity]) -> Result<Vec<Variant>> {
        let blank = |control| Variant {
            label: format!("feature-control-{control}"),
            edits: Vec::new(),
            told: Vec::new(),
        };
        let mut variants: Vec<Variant> = (0..controls).map(blank).collect();
        let mut taken: Vec<(Site, usize)> = Vec::new();
        let features = || self.edits.iter().filter_map(|edit| Some((edit, edit.feature.as_ref()?)));
        taken.extend(features().map(|(edit, origin)| (edit.intervention.site, origin.feature)));
        for (number, (edit, origin)) in features().enumerate() {
            let site = edit.intervention.site;
            let activity = activities.iter().find(|a| a.is_of(site, &origin.sae));
            let activity = activity.expect("there is one for all that are looked at");
            let taken_here = |feature: &usize| taken.contains(&(site, *feature));
            let pool = activity.alike(origin.feature, controls, taken_here);
            if pool.len() < controls {
                let message = format!(
                    "`--controls` is {controls}, expected at most {}: the other features of the autoencoder at {site}",
                    pool.len()
                );
                return Err(Failure::usage(message));
            }
            let chosen = Draws::new(seed, [FEATURES, word(number)]).choose(pool, controls);
            for (variant, feature) in variants.iter_mut().zip(chosen) {
                taken.push((site, feature));
                let direction: Arc<[f32]> = origin.sae.direction(feature)?.into();
                let mut told = edit.told.clone();
                extend(
                    &mut told,
                    json!({
                        "feature": feature, "in_place_of": origin.feature, "norm": norm(&direction),
                        "matched_on": activity.tell(&[origin.feature, feature]),
                    }),
                );
                let of = edit.intervention.feature.as_ref().map(|(sae, _)| (sae.clone(), feature));
                variant.edits.push(Intervention { direction, feature: of, ..edit.intervention.clone() });
                variant.told.push(told);
            }
        }
        Ok(variants)
    }
}

/// Makes edits.
struct Maker<'a> {
    args: &'a EditArgs,
    decoder: &'a Decoder,
    saes: Saes,
    columns: Range<usize>,
    frames: usize,
}

impl Maker<'_> {
    /// The stream's width at a hook.
    fn width(&self, hook: &Hook) -> Result<usize> {
        let config = self.decoder.config();
        let site = hook.site.within(config.num_hidden_layers)?;
        if site == Site::Logits {
            let message =
                format!("`{}` cannot be edited, expected a site of the residual stream's width", hook.name);
            return Err(Failure::usage(message));
        }
        Ok(site.width(config))
    }

    fn on_feature(&self, of: &Feature, name: &str, action: Action, more: Value) -> Result<Edit> {
        self.width(&of.hook)?;
        let opened = self.saes.of(&of.hook)?;
        let made = Intervention::on_feature(of.hook.site, &opened.sae, of.feature, action)?;
        let mut told = json!({
            "action": name, "hook": of.hook.name, "site": of.hook.site.to_string(), "feature": of.feature,
            "sae": PathBuf::from(&opened.dir), "direction": "feature", "norm": norm(&made.direction),
        });
        extend(&mut told, more);
        let feature = Some(Origin { sae: opened.sae.clone(), feature: of.feature });
        Ok(self.placed(made, told, feature))
    }

    fn along(
        &self,
        hook: &Hook,
        name: &str,
        action: Action,
        direction: Arc<[f32]>,
        more: Value,
    ) -> Result<Edit> {
        self.width(hook)?;
        let made = Intervention::along(hook.site, direction, action);
        let mut told = json!({ "action": name, "hook": hook.name, "site": hook.site.to_string() });
        extend(&mut told, more);
        Ok(self.placed(made, told, None))
    }

    /// The edit, kept to the rows and columns that were asked for.
    fn placed(&self, made: Intervention, mut told: Value, feature: Option<Origin>) -> Edit {
        let end = self.columns.end.min(self.frames + 1);
        extend(
            &mut told,
            json!({ "rows": self.args.edit_rows.to_string(), "positions_edited": [self.columns.start, end] }),
        );
        let intervention =
            Intervention { columns: self.columns.clone(), halves: self.args.edit_rows.0, ..made };
        Edit { intervention, told, feature }
    }
}

/// The positions whose time lies in the window: position `s` lies at `(s - 1)` frames.
fn columns(args: &EditArgs, rate: f64, frames: usize) -> Result<Range<usize>> {
    let Some(span) = args.edit_window else { return Ok(0..usize::MAX) };
    // beyond what fits, beyond every take
    let position = |seconds: f64| 1 + (seconds * rate).round() as usize;
    let start = span.from.map_or(0, position);
    let end = span.to.map_or(usize::MAX, position);
    if start > frames {
        let message = format!(
            "`--edit-window` begins at {} s, expected less than the take's {} s",
            span.from.unwrap_or(0.0),
            frames as f64 / rate
        );
        return Err(Failure::usage(message));
    }
    if start >= end {
        let message = format!("`--edit-window` holds no frame, expected at least {} s", 1.0 / rate);
        return Err(Failure::usage(message));
    }
    Ok(start..end)
}

/// A file as records name it.
fn named(source: &Source) -> Value {
    json!({ "file": source.path, "part": source.part })
}

fn extend(value: &mut Value, more: Value) {
    if let (Some(fields), Value::Object(more)) = (value.as_object_mut(), more) {
        fields.extend(more);
    }
}

fn norm(values: &[f32]) -> f64 {
    length(&values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>())
}

/// A small count as a word of a stream.
fn word(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
