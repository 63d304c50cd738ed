//! `auscult features profile`.

use super::{From, bar, check_features, once};
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::features::{Codes, Course, Profile, ProfileOptions, profile};
use auscult_runtime::files::atomic_write_bytes;
use serde_json::{Map, Value, json};
use std::num::NonZeroUsize;
use std::path::PathBuf;

#[derive(clap::Args)]
#[group(skip)]
#[command(group(clap::ArgGroup::new("wanted").required(true).args(["feature", "all"])))]
pub struct Args {
    #[command(flatten)]
    from: From,
    /// A feature, counted from 0; repeatable
    #[arg(long, value_name = "F", num_args = 1..)]
    feature: Vec<usize>,
    /// Every feature that is active somewhere
    #[arg(long)]
    all: bool,
    /// Parts of the longest clip's time that are averaged over
    #[arg(long, value_name = "N", default_value = "50")]
    bins: NonZeroUsize,
    /// A file to write: .jsonl, a row for each feature; without it only the summary is printed
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(context: &Context, args: &Args) -> Result<()> {
    if let Some(out) = &args.out
        && out.extension().is_none_or(|e| e != "jsonl")
    {
        return Err(Failure::usage(format!("`--out` is {}, expected a .jsonl file", out.display())));
    }
    let store = args.from.open()?;
    let sae = args.from.sae(&store)?;
    check_features(&args.feature, sae)?;
    let wanted = if args.all { (0..sae.features).collect() } else { once(&args.feature) };
    let codes = Codes::of_store(&store, &sae.name)?;
    let options = ProfileOptions { bins: args.bins.get(), from: args.from.first_position() };
    let bar = bar(context, &store);
    let found = profile(&codes, &wanted, options, |positions| bar.inc(positions as u64))?;
    bar.finish_and_clear();
    let told: Vec<&Profile> = found.features.iter().filter(|of| !args.all || of.clips > 0).collect();
    if let Some(out) = &args.out {
        let mut text = Vec::new();
        for of in &told {
            let mut row = row(of);
            row["bin_seconds"] = found.bin_seconds.into();
            row["means"] = json!(of.means);
            serde_json::to_writer(&mut text, &row).expect("rows have string keys and finite numbers");
            text.push(b'\n');
        }
        atomic_write_bytes(out, &text)?;
    }

    let count =
        |course: Course| told.iter().filter(|of| of.course().is_some_and(|(c, _)| c == course)).count();
    let classes: Vec<String> = Course::ALL.iter().map(|&c| format!("{} {}", count(c), c.name())).collect();
    let mut text = format!("{}: {} features: {}\n", sae.name, told.len(), classes.join(", "));
    if !args.all {
        for of in &told {
            text += &match of.course() {
                Some((course, share)) => format!(
                    "{:>8}  {} in {:.0} % of {} clips; spread {:.2}, kurtosis {:.1}, autocorrelation {:.2}, arc {:.2}\n",
                    of.feature,
                    course.name(),
                    100.0 * share,
                    of.clips,
                    of.measures.spread,
                    of.measures.kurtosis,
                    of.measures.peak,
                    of.measures.arc
                ),
                None => format!("{:>8}  active nowhere\n", of.feature),
            };
        }
    }
    let counts: Map<String, Value> =
        Course::ALL.iter().map(|&course| (course.name().to_string(), count(course).into())).collect();
    let mut json = json!({
        "out": args.out, "sae": sae.name, "hook": sae.hook, "features": told.len(), "classes": counts,
        "bin_seconds": found.bin_seconds, "clips": found.clips,
    });
    if !args.all {
        json["profiles"] = told.iter().map(|of| row(of)).collect();
    }
    context.result(&text, &json);
    Ok(())
}

fn row(of: &Profile) -> Value {
    let courses: Map<String, Value> =
        Course::ALL.iter().zip(of.courses).map(|(c, clips)| (c.name().to_string(), clips.into())).collect();
    let (course, share) = of.course().unzip();
    json!({
        "feature": of.feature, "class": course, "share": share, "clips": of.clips, "courses": courses,
        "measures": of.measures,
    })
}
