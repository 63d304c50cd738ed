//! `auscult features stats`.

use super::{From, bar};
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::features::{Codes, Labels, Rate, StatsFile, StatsOptions, stats, write_stats};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    from: From,
    /// The least share of tracks in which a feature is active that passes
    #[arg(long, value_name = "R", default_value_t = 0.01)]
    min_rate: f64,
    /// The largest share
    #[arg(long, value_name = "R", default_value_t = 0.25)]
    max_rate: f64,
    /// A feature is active in a clip or a track where any of its values, or their mean, is above `--above`
    #[arg(long, value_name = "any|mean", default_value = "any")]
    rate: Rate,
    /// That bound; above 0 both conventions of `--rate` are the same
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    above: f32,
    /// What tracks are: `track_id` and `label`, as .jsonl or .csv; adds rates of classes and their selectivity
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// The file to write: .json, .csv or .safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn run(context: &Context, args: &Args) -> Result<()> {
    let rates = [args.min_rate, args.max_rate];
    if !(0.0 <= args.min_rate && args.min_rate <= args.max_rate && args.max_rate <= 1.0) {
        let [min, max] = rates;
        return Err(Failure::usage(format!(
            "`--min-rate` is {min} and `--max-rate` {max}, expected 0 <= min <= max <= 1"
        )));
    }
    if !(args.above.is_finite() && args.above >= 0.0) {
        return Err(Failure::usage(format!("`--above` is {}, expected a finite number from 0", args.above)));
    }
    let ending = args.out.extension().and_then(|e| e.to_str());
    if !matches!(ending, Some("json" | "csv" | "safetensors")) {
        let message =
            format!("`--out` is {}, expected a .json, .csv or .safetensors file", args.out.display());
        return Err(Failure::usage(message));
    }
    let store = args.from.open()?;
    let sae = args.from.sae(&store)?;
    let labels = args.labels.as_deref().map(Labels::read).transpose()?;
    let codes = Codes::of_store(&store, &sae.name)?;
    let options = StatsOptions { from: args.from.first_position(), rate: args.rate, above: args.above };
    let bar = bar(context, &store);
    let all = stats(&codes, labels.as_ref(), options, |positions| bar.inc(positions as u64))?;
    bar.finish_and_clear();
    let labelled: u32 = all.class_tracks.iter().sum();
    if let Some(labels) = &labels
        && labelled == 0
    {
        let message = format!(
            "{}: labels none of the {} tracks of the store, expected tracks such as `{}`",
            args.labels.as_deref().unwrap_or(&args.out).display(),
            all.tracks,
            store.clips().first().map_or(labels.tracks().next().unwrap_or_default(), |clip| &clip.track_id)
        );
        return Err(Failure::input(message));
    }
    if let Some(labels) = &labels {
        let there: BTreeSet<&str> = store.clips().iter().map(|clip| clip.track_id.as_str()).collect();
        let absent: Vec<&str> = labels.tracks().filter(|track| !there.contains(track)).collect();
        if let Some(first) = absent.first() {
            let text = format!("{} labelled tracks are not in the store, such as `{first}`", absent.len());
            context.note(&text);
        }
        if (labelled as usize) < all.tracks {
            let unlabelled = all.tracks - labelled as usize;
            context.note(&format!("{unlabelled} of the {} tracks of the store have no label", all.tracks));
        }
    }
    let file = StatsFile::new(&all, &codes, labels.as_ref(), options, rates, args.from.origin(sae));
    write_stats(&args.out, &file)?;

    let share = file.passing as f64 / file.features.max(1) as f64;
    let mut text = format!(
        "{}: {} features over {} positions, {} clips, {} tracks\n",
        args.out.display(),
        file.features,
        file.rows,
        file.clips,
        file.tracks
    );
    text += &format!(
        "passing   {} ({:.1} %) are active in {} to {} of the tracks\n",
        file.passing,
        100.0 * share,
        file.min_rate,
        file.max_rate
    );
    text += &format!("never     {} are active nowhere\n", file.never_active);
    if !file.classes.is_empty() {
        let classes: Vec<String> = file.classes.iter().map(|c| format!("{} {}", c.label, c.tracks)).collect();
        let selective = file.table.iter().filter(|row| row.selectivity.is_some_and(|s| s >= 2.0)).count();
        text += &format!("classes   {}\n", classes.join(", "));
        text += &format!("selective {selective} are at least twice as common in one class as on average\n");
    }
    let json = json!({
        "out": args.out, "hook": file.origin.hook, "sae": file.origin.sae, "features": file.features, "rows": file.rows,
        "clips": file.clips, "tracks": file.tracks, "rate": file.rate, "above": file.above, "min_rate": file.min_rate,
        "max_rate": file.max_rate, "passing": file.passing, "never_active": file.never_active, "classes": file.classes,
    });
    context.result(&text, &json);
    Ok(())
}
