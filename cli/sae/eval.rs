//! `auscult sae eval`: how good an autoencoder is at its own site.

use super::audio::{AudioArgs, clips, note_posemb, trained_posemb, usual_window};
use super::bar;
use super::encode::{Checked, hook_of, of_file};
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::AnalysisError;
use auscult_analysis::alignment::{Aligner, SiteScore, SiteSums, code_cost};
use auscult_analysis::capture::{self, Model, MusicgenCapture};
use auscult_analysis::store::{StoreDtype, StoreReader};
use auscult_model::musicgen::{DecoderOptions, Site};
use auscult_model::sae::{Duplicates, Encoder, Sae, SaePrecision};
use auscult_runtime::files::atomic_write_bytes;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// How far from 1 the length of a direction of unit length may be: what f32 leaves of a division, and half precision on disk.
const UNIT: f32 = 2e-3;

#[derive(clap::Args)]
#[group(skip)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["store", "model"])))]
pub struct EvalArgs {
    /// A directory that SAELens, sparsify, Gemma Scope or Llama Scope wrote, or `params.npz`
    #[arg(long)]
    sae: PathBuf,
    /// A store with rows of the autoencoder's hook
    #[arg(long)]
    store: Option<PathBuf>,
    /// A MusicGen checkpoint directory: scores audio, and what reconstructions cost the model
    #[arg(long)]
    model: Option<PathBuf>,
    #[command(flatten)]
    audio: AudioArgs,
    /// Where the rows come from; by default the hook that the autoencoder names
    #[arg(long)]
    hook: Option<String>,
    /// Seconds of a clip; by default as the autoencoder was trained where it says so, else 10
    #[arg(long, value_name = "SECONDS", requires = "model")]
    window: Option<f64>,
    /// Clips at most; all by default
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Cosine of two features' directions above which they are duplicates, opposite ones too
    #[arg(long, value_name = "COSINE", default_value_t = 0.9)]
    duplicates: f32,
    /// Pairs of duplicates to list
    #[arg(long, value_name = "N", default_value_t = 10)]
    pairs: usize,
    /// Score rows of another hook than the autoencoder names; the result says so
    #[arg(long)]
    allow_misaligned: bool,
    /// A JSON file to write beside what is printed
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn eval(context: &Context, args: &EvalArgs) -> Result<()> {
    if args.window.is_some() && args.model.is_none() {
        context.note("--window has no effect with --store");
    }
    if args.limit == Some(0) {
        return Err(Failure::usage("--limit is 0, expected at least 1"));
    }
    let sae = Sae::open(&args.sae)?;
    let mut checked = Checked { sae: &sae, allow: args.allow_misaligned, misaligned: None };
    let Scored { hook, posemb, score, failed } = match (&args.store, &args.model) {
        (Some(store), _) if args.audio.given() => {
            return Err(Failure::usage(format!(
                "AUDIO is given beside --store {}, expected one of them",
                store.display()
            )));
        }
        (Some(store), _) => of_store(context, args, store, &mut checked)?,
        (None, Some(model)) => of_model(context, args, model, &mut checked)?,
        (None, None) => unreachable!("clap asks for one of them"),
    };
    let misaligned = checked.misaligned;
    let duplicates = sae.duplicates(args.duplicates, args.pairs)?;
    let norms = Norms::of(&sae.decoder_norms());
    let pairs: Vec<Value> = duplicates.top.iter().map(|p| json!([p.first, p.second, p.cosine])).collect();
    let json = json!({
        "sae": args.sae, "store": args.store, "model": args.model, "hook": hook, "d_in": sae.width(),
        "d_sae": sae.features(), "k": sae.k(), "posemb": posemb, "rows": score.rows, "fvu": score.fvu,
        "explained_variance": score.explained_variance, "l0": score.l0, "dead": score.dead,
        "cross_entropy": score.cross_entropy,
        "decoder_norms": { "min": norms.least, "mean": norms.mean, "max": norms.most, "unit": norms.unit() },
        "duplicates": {
            "cosine": args.duplicates, "pairs": duplicates.pairs, "features": duplicates.features, "top": pairs,
        },
        "misaligned": misaligned.as_ref().map_or(Value::Bool(false), |why| Value::String(why.clone())),
        "failed": failed,
    });
    if let Some(out) = &args.out {
        let mut text = serde_json::to_string_pretty(&json)?;
        text.push('\n');
        atomic_write_bytes(out, text.as_bytes())?;
    }
    let text = describe(args, &sae, &hook, &score, &norms, &duplicates, misaligned.as_deref());
    context.result(&text, &json);
    Failure::of_inputs(&failed)
}

/// What came of the rows of a hook.
struct Scored {
    hook: String,
    /// How positions were computed.
    posemb: String,
    score: SiteScore,
    /// Audio that was left out, or cut short.
    failed: Vec<capture::Failure>,
}

fn of_store(context: &Context, args: &EvalArgs, store: &Path, checked: &mut Checked<'_>) -> Result<Scored> {
    let sae = checked.sae;
    let reader = StoreReader::open(store)?;
    let name = hook_of(&reader, sae, args.hook.as_deref())?;
    let hook = reader.hook(&name)?;
    sae.check_width(format!("{name} of {}", store.display()), hook.width)?;
    let site: Site = hook.site.parse()?;
    checked.check(site)?;
    let posemb = reader.meta().posemb.clone();
    note_posemb(context, &args.sae, sae, &posemb);
    let clips = &reader.clips()[..args.limit.unwrap_or(usize::MAX).min(reader.clips().len())];
    let mut encoder = Encoder::new(sae, SaePrecision::F32, &context.backend()?)?;
    let mut sums = SiteSums::new(site, sae);
    let bar = bar(context, clips.iter().map(|clip| clip.positions).sum());
    for clip in clips {
        let rows = reader.rows(&name, &clip.clip_id)?;
        sums.add(&mut encoder, &rows).map_err(|error| match error {
            AnalysisError::Model(error) => of_file(error, store),
            other => other.into(),
        })?;
        bar.inc(clip.positions as u64);
    }
    bar.finish_and_clear();
    Ok(Scored { hook: name, posemb, score: sums.score(0), failed: Vec::new() })
}

fn of_model(context: &Context, args: &EvalArgs, dir: &Path, checked: &mut Checked<'_>) -> Result<Scored> {
    let sae = checked.sae;
    let Some(hook) = args.hook.as_deref().or(sae.hook()) else {
        return Err(Failure::usage("--hook is not given, and the autoencoder names none, expected a site"));
    };
    let site: Site = hook.parse()?;
    checked.check(site)?;
    let inputs = args.audio.inputs()?;
    let backend = context.backend()?;
    let posemb = trained_posemb(sae).unwrap_or_default();
    let options =
        DecoderOptions { precision: context.precision(&*backend), posemb, ..DecoderOptions::default() };
    let mut model = MusicgenCapture::open(dir, backend, &options, hook, StoreDtype::F32)?;
    sae.check_width(site, model.hooks()[0].width)?;
    let spec = model.spec().clone();
    let window = args.window.unwrap_or_else(|| usual_window(sae, &spec));
    let (clips, failed) = clips(context, &inputs, &spec, window, args.limit.unwrap_or(usize::MAX))?;
    let mut aligner = Aligner::new(sae, &mut model)?;
    let batches = aligner.encode(&clips)?;
    let bar = context.bar(batches.len() as u64, "{bar:30} batch {pos} of {len} {eta}");
    let mut score = aligner.score(&batches, || bar.inc(1))?.remove(0);
    bar.set_message("cross-entropy");
    score.cross_entropy = Some(code_cost(aligner.model.decoder(), &mut aligner.encoder, site, &batches)?);
    bar.finish_and_clear();
    Ok(Scored { hook: hook.to_string(), posemb: posemb.to_string(), score, failed })
}

/// Lengths of the decoder's directions.
struct Norms {
    /// Whether all are 1, but for those of features that write nothing.
    unit: bool,
    least: f32,
    mean: f64,
    most: f32,
}

impl Norms {
    fn of(norms: &[f32]) -> Self {
        Self {
            unit: norms.iter().all(|&norm| norm == 0.0 || (norm - 1.0).abs() <= UNIT),
            least: norms.iter().copied().fold(f32::INFINITY, f32::min),
            mean: norms.iter().map(|&n| f64::from(n)).sum::<f64>() / norms.len() as f64,
            most: norms.iter().copied().fold(0.0, f32::max),
        }
    }

    fn unit(&self) -> bool {
        self.unit
    }
}

fn describe(
    args: &EvalArgs,
    sae: &Sae,
    hook: &str,
    score: &SiteScore,
    norms: &Norms,
    duplicates: &Duplicates,
    misaligned: Option<&str>,
) -> String {
    let number = |v: Option<f64>| v.map_or("none: the rows do not differ".to_string(), |v| format!("{v:.4}"));
    let mut text = format!(
        "{}: {} x {} features, {} rows of {hook}\n",
        args.sae.display(),
        sae.width(),
        sae.features(),
        score.rows
    );
    if let Some(why) = misaligned {
        text += &format!("misaligned   {why}\n");
    }
    text += &format!("FVU          {}\n", number(score.fvu));
    text += &format!("explained    {}\n", number(score.explained_variance));
    text += &format!("L0           {} features active a row\n", number(score.l0));
    text += &format!("dead         {:.2} % of the features, in these rows\n", 100.0 * score.dead);
    if let Some(cost) = score.cross_entropy {
        let recovered = cost.recovered.map_or("-".to_string(), |v| format!("{:.2} %", 100.0 * v));
        text += &format!(
            "CE           {:.4} nats a code, {:.4} with reconstructions, {:.4} with zeros: {recovered} recovered\n",
            cost.clean, cost.spliced, cost.zeroed
        );
    }
    let unit = match norms.unit() {
        true => "",
        false => ": not of unit length, so activations do not count in lengths of what they write",
    };
    text += &format!(
        "decoder      lengths of directions {:.4} to {:.4}, mean {:.4}{unit}\n",
        norms.least, norms.most, norms.mean
    );
    text += &format!(
        "duplicates   {} pairs of {} features with a cosine beyond {}",
        duplicates.pairs, duplicates.features, args.duplicates
    );
    for pair in &duplicates.top {
        text += &format!("\n             {} and {}: {:.4}", pair.first, pair.second, pair.cosine);
    }
    text
}
