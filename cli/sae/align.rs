//! `auscult sae align`: at which site an autoencoder was trained, by its arithmetic.

use super::audio::{AudioArgs, clips, trained_posemb, usual_window};
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::alignment::{
    Aligner, Batches, Declared, SiteScore, Verdict, candidates, code_cost, judge, label,
};
use auscult_analysis::capture::{Model, MusicgenCapture};
use auscult_analysis::store::StoreDtype;
use auscult_model::config::CheckpointConfig;
use auscult_model::musicgen::{DecoderOptions, Posemb, Site, parse_sites};
use auscult_model::sae::Sae;
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(clap::Args)]
pub struct AlignArgs {
    /// A MusicGen checkpoint directory
    #[arg(long)]
    model: PathBuf,
    /// A directory that SAELens, sparsify, Gemma Scope or Llama Scope wrote, or `params.npz`
    #[arg(long)]
    sae: PathBuf,
    #[command(flatten)]
    audio: AudioArgs,
    /// Seconds of a clip; by default as the autoencoder was trained where it says so, else 10
    #[arg(long, value_name = "SECONDS", conflicts_with = "windows")]
    window: Option<f64>,
    /// Lengths of clips to compare, in seconds, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    windows: Vec<f64>,
    /// Clips at most
    #[arg(long, value_name = "N", default_value_t = 4)]
    limit: usize,
    /// Sites to score beside the one that the file names; by default the stream before and behind every layer
    #[arg(long, value_name = "LIST")]
    sites: Option<String>,
    /// Numbers to compare that the model is told as the first position, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true, default_value = "0")]
    offsets: Vec<isize>,
    /// Ways to compute positions to compare, separated by commas: f32, audiocraft-f16, audiocraft-f16-autocast, or ALL; by default
    /// as the autoencoder was trained where it says so, else f32
    #[arg(long, value_name = "LIST")]
    posemb: Option<String>,
    /// Sites whose reconstruction the model is run with: the best N and the one that the file names, `all` or `none`
    #[arg(long, value_name = "N", default_value = "3")]
    ce: Costed,
}

/// At which sites the model is run with reconstructions.
#[derive(Clone, Copy)]
enum Costed {
    Best(usize),
    All,
}

impl FromStr for Costed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("all", _) => Ok(Self::All),
            ("none", _) => Ok(Self::Best(0)),
            (_, Ok(sites)) => Ok(Self::Best(sites)),
            _ => Err(format!("`{text}` is no number of sites, expected a number, `all` or `none`")),
        }
    }
}

/// How rows were made, and what an autoencoder makes of them.
#[derive(Serialize)]
struct Setting {
    window: f64,
    posemb: &'static str,
    offset: isize,
    clips: usize,
    sites: Vec<SiteScore>,
}

impl Setting {
    fn fit(&self) -> f64 {
        self.sites.iter().map(SiteScore::fit).fold(f64::INFINITY, f64::min)
    }

    fn name(&self) -> String {
        let Self { window, posemb, offset, clips, .. } = self;
        format!("{clips} clips of {window} s, positions {posemb} from {offset}")
    }
}

pub fn align(context: &Context, args: &AlignArgs) -> Result<()> {
    let sae = Sae::open(&args.sae)?;
    let inputs = args.audio.inputs()?;
    let usual = || Ok(vec![trained_posemb(&sae).unwrap_or_default()]);
    let ways = args.posemb.as_deref().map_or_else(usual, ways)?;
    let declared = Declared::of(&sae);
    let sites = sites(args, &sae, declared.as_ref())?;
    let backend = context.backend()?;
    let options = DecoderOptions { precision: context.precision(&*backend), ..DecoderOptions::default() };
    let names = sites.iter().map(Site::to_string).collect::<Vec<_>>().join(",");
    let mut model = MusicgenCapture::open(&args.model, backend, &options, &names, StoreDtype::F32)?;
    let spec = model.spec().clone();
    let windows = match args.windows.as_slice() {
        [] => vec![args.window.unwrap_or_else(|| usual_window(&sae, &spec))],
        windows => windows.to_vec(),
    };
    let mut aligner = Aligner::new(&sae, &mut model)?;
    let (mut settings, mut codes): (Vec<Setting>, Vec<Batches>) = (Vec::new(), Vec::new());
    let mut failed = Vec::new();
    let bar = context.bar(0, "{bar:30} {msg} {elapsed}");
    for &window in &windows {
        let (clips, unread) = clips(context, &inputs, &spec, window, args.limit)?;
        // the same files at every length
        failed = unread;
        bar.set_message("codes");
        let batches = aligner.encode(&clips)?;
        bar.inc_length((batches.len() * ways.len() * args.offsets.len()) as u64);
        for (&posemb, &offset) in ways.iter().flat_map(|way| args.offsets.iter().map(move |o| (way, o))) {
            aligner.model.set_positions(posemb, offset);
            bar.set_message(format!("{window} s, positions {posemb} from {offset}"));
            let sites = aligner.score(&batches, || bar.inc(1))?;
            settings.push(Setting { window, posemb: posemb.name(), offset, clips: clips.len(), sites });
            codes.push(batches.clone());
        }
    }
    let at = (0..settings.len())
        .min_by(|&a, &b| settings[a].fit().total_cmp(&settings[b].fit()))
        .expect("a window, a way and an offset");
    let best = &mut settings[at];
    aligner.model.set_positions(best.posemb.parse().expect("the name of a way"), best.offset);
    for index in costed(args.ce, &best.sites, declared.as_ref()) {
        let score = &mut best.sites[index];
        bar.set_message(format!("cross-entropy at {}", score.site));
        score.cross_entropy =
            Some(code_cost(aligner.model.decoder(), &mut aligner.encoder, score.at(), &codes[at])?);
    }
    bar.finish_and_clear();

    let (score, verdict) = judge(declared.as_ref(), &settings[at].sites);
    let text = describe(args, &sae, declared.as_ref(), &settings, at, score, &verdict);
    let json = json!({
        "sae": args.sae, "model": args.model, "declared": declared, "best": score.site, "best_setting": at,
        "verdict": verdict, "settings": settings, "failed": failed,
    });
    context.result(&text, &json);
    if let Some(why) = verdict.refusal() {
        return Err(Failure::refused(format!("{}: {why}", args.sae.display())));
    }
    // a file may name a hook and contradict it by its layer
    if let Some(site) = declared.and_then(|declared| declared.at()) {
        sae.check_hook(site)?;
    }
    Failure::of_inputs(&failed)
}

fn ways(list: &str) -> Result<Vec<Posemb>> {
    if list == "ALL" {
        return Ok(Posemb::ALL.to_vec());
    }
    let way = |name: &str| {
        name.trim().parse().map_err(|why: String| Failure::usage(format!("--posemb: {why}, or ALL")))
    };
    list.split(',').map(way).collect()
}

/// The sites to score, each value once, in the order of the stream.
fn sites(args: &AlignArgs, sae: &Sae, declared: Option<&Declared>) -> Result<Vec<Site>> {
    let (CheckpointConfig::Musicgen(config) | CheckpointConfig::MusicgenMelody(config)) =
        CheckpointConfig::load(&args.model)?
    else {
        return Err(Failure::input(format!("{}: is a codec, expected a MusicGen", args.model.display())));
    };
    sae.check_width(format_args!("the stream of {}", args.model.display()), config.decoder.hidden_size)?;
    let layers = config.decoder.num_hidden_layers;
    let mut sites: Vec<Site> = match &args.sites {
        None => candidates(layers).collect(),
        Some(list) => parse_sites(list, layers)?.into_iter().map(|named| named.site.origin()).collect(),
    };
    let own = declared.and_then(Declared::at).and_then(|site| site.within(layers).ok());
    sites.extend(own.map(Site::origin));
    sites.sort_unstable();
    sites.dedup();
    Ok(sites)
}

/// Numbers of the sites whose reconstruction the model is run with, in the order of the stream.
fn costed(wanted: Costed, scores: &[SiteScore], declared: Option<&Declared>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    if let Costed::Best(sites) = wanted {
        order.sort_by(|&a, &b| scores[a].fit().total_cmp(&scores[b].fit()));
        order.truncate(sites);
        let own = declared.and_then(Declared::at).map(Site::origin);
        let own = scores.iter().position(|score| sites > 0 && Some(score.at().origin()) == own);
        order.extend(own.filter(|own| !order.contains(own)));
        order.sort_unstable();
    }
    order
}

fn describe(
    args: &AlignArgs,
    sae: &Sae,
    declared: Option<&Declared>,
    settings: &[Setting],
    at: usize,
    best: &SiteScore,
    verdict: &Verdict,
) -> String {
    let setting = &settings[at];
    let named = declared.map_or("names no hook".to_string(), |declared| format!("says {}", declared.hook));
    let mut text = format!(
        "{}: {} x {} features; the file {named}\n{}, {} rows a site\n\n",
        args.sae.display(),
        sae.width(),
        sae.features(),
        setting.name(),
        best.rows
    );
    text += &table(&setting.sites, declared.and_then(Declared::at), best);
    if let Some(cost) = setting.sites.iter().find_map(|score| score.cross_entropy) {
        text += &format!(
            "cross-entropy of the model as it is: {:.4} nats a code, {} codes\n",
            cost.clean, cost.codes
        );
    }
    if settings.len() > 1 {
        text += "\nbest site of every setting:\n";
        for setting in settings {
            let (best, _) = judge(None, &setting.sites);
            text += &format!("  {:<60} {:<22} FVU {:.4}\n", setting.name(), label(best.at()), best.fit());
        }
    }
    let end = match verdict {
        Verdict::Fits => "which the file names",
        Verdict::Unnamed => "where it was trained, as far as these sites go",
        Verdict::Elsewhere { .. } => "which the file does not name",
        Verdict::Unclear { .. } | Verdict::Nowhere { .. } => "which is no fit",
    };
    text + &format!("\nbest: {} (FVU {:.4}), {end}", label(best.at()), best.fit())
}

/// A line for every site.
fn table(scores: &[SiteScore], declared: Option<Site>, best: &SiteScore) -> String {
    let name = |score: &SiteScore| {
        let mut name = score.site.clone();
        score.also.iter().for_each(|also| name += &format!(" = {also}"));
        name
    };
    let width = scores.iter().map(|score| name(score).len()).max().unwrap_or(0);
    let mut text = format!(
        "{:<width$}  {:>8} {:>8} {:>7} {:>7} {:>8} {:>8} {:>9}\n",
        "site", "FVU", "EV", "L0", "dead", "CE", "CE of 0", "recovered"
    );
    for score in scores {
        let percent = |share: Option<f64>| share.map_or("-".to_string(), |v| format!("{:.1} %", 100.0 * v));
        let number = |v: Option<f64>| v.map_or("-".to_string(), |v| format!("{v:.4}"));
        let cost = score.cross_entropy;
        text += &format!(
            "{:<width$}  {:>8} {:>8} {:>7} {:>7} {:>8} {:>8} {:>9}",
            name(score),
            number(score.fvu),
            percent(score.explained_variance),
            score.l0.map_or("-".to_string(), |l0| format!("{l0:.1}")),
            percent(Some(score.dead)),
            number(cost.map(|cost| cost.spliced)),
            number(cost.map(|cost| cost.zeroed)),
            percent(cost.and_then(|cost| cost.recovered)),
        );
        let marks = [
            (score.site == best.site, " best"),
            (declared.map(Site::origin) == Some(score.at().origin()), " named"),
        ];
        marks.iter().filter(|(is, _)| *is).for_each(|(_, mark)| text += mark);
        text.push('\n');
    }
    text
}
