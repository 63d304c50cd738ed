//! `auscult features`: how often features are active and how strongly, where they are strongest, what they do in time.

mod profile;
mod stats;
mod top;

use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::features::{FIRST_SOUND, Origin};
use auscult_analysis::record::{FileRecord, InputRecord, RunRecord};
use auscult_analysis::store::{INDEX_JSONL, SHA256SUMS, STORE_JSON, SaeMeta, StoreReader};
use auscult_runtime::CpuBackend;
use std::path::PathBuf;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Of every feature: how often it is active, its mean, its maximum (what `generate --stats` steers by), classes
    Stats(stats::Args),
    /// The clips in which features are largest, with the sound round the maximum
    Top(top::Args),
    /// Features over the time of clips: means, and whether they are static, periodic, events or arcs
    Profile(profile::Args),
}

pub fn run(context: &Context, command: &Command) -> Result<()> {
    // on as many threads as were asked for
    let processor = CpuBackend::new(context.global.threads)?;
    processor.pool().install(|| match command {
        Command::Stats(args) => stats::run(context, args),
        Command::Top(args) => top::run(context, args),
        Command::Profile(args) => profile::run(context, args),
    })
}

/// Which features of which store.
#[derive(clap::Args)]
pub struct From {
    /// A store that holds features: of `capture --sae`, or of `sae encode`
    #[arg(long)]
    store: PathBuf,
    /// The autoencoder's name in the store; the only one by default
    #[arg(long, value_name = "NAME")]
    sae: Option<String>,
    /// Count position 0 of a clip too, which holds no sound and is alike in all clips
    #[arg(long)]
    with_start: bool,
}

impl From {
    fn first_position(&self) -> usize {
        if self.with_start { 0 } else { FIRST_SOUND }
    }

    fn open(&self) -> Result<StoreReader> {
        Ok(StoreReader::open(&self.store)?)
    }

    /// The autoencoder that is meant.
    fn sae<'a>(&self, store: &'a StoreReader) -> Result<&'a SaeMeta> {
        let names = || store.meta().saes.iter().map(|sae| sae.name.as_str()).collect::<Vec<_>>().join(", ");
        match (&self.sae, store.meta().saes.as_slice()) {
            (Some(name), _) => Ok(store.sae(name)?),
            (None, [only]) => Ok(only),
            (None, []) => Err(Failure::input(format!(
                "{}: holds no features, expected a store of `capture --sae` or `sae encode --store`",
                self.store.display()
            ))),
            (None, _) => Err(Failure::usage(format!("`--sae` is not given, expected one of {}", names()))),
        }
    }

    /// Where answers come from.
    fn origin(&self, sae: &SaeMeta) -> Origin {
        Origin {
            store: self.store.display().to_string(),
            hook: sae.hook.clone(),
            site: sae.site.clone(),
            sae: sae.name.clone(),
            sae_sha256: sae.sha256.clone(),
        }
    }

    /// The files that stand for the store: its sums hold the hashes of everything else.
    fn record(&self, record: &mut RunRecord) -> Result<()> {
        for name in [STORE_JSON, INDEX_JSONL, SHA256SUMS] {
            record.inputs.push(InputRecord { file: FileRecord::of(self.store.join(name))?, audio: None });
        }
        Ok(())
    }
}

/// A feature that there is.
fn check_features(features: &[usize], sae: &SaeMeta) -> Result<()> {
    match features.iter().find(|&&feature| feature >= sae.features) {
        Some(feature) => Err(Failure::input(format!(
            "feature {feature} does not exist, expected less than {}, the features of `{}`",
            sae.features, sae.name
        ))),
        None => Ok(()),
    }
}

/// Each feature once, in the order of the command line.
fn once(features: &[usize]) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::with_capacity(features.len());
    features.iter().for_each(|feature| {
        if !kept.contains(feature) {
            kept.push(*feature);
        }
    });
    kept
}

fn bar(context: &Context, store: &StoreReader) -> indicatif::ProgressBar {
    let positions: usize = store.clips().iter().map(|clip| clip.positions).sum();
    context.bar(positions as u64, "{bar:30} position {pos} of {len} {per_sec} {eta}")
}
