//! Small autoencoders that are really trained: on rows of one place they do better than on those of any other.

use crate::support::run;
use auscult_model::sae::Sae;
use std::path::Path;

/// Trains on the store `s`: one at its only hook, into `out`, or with `--hooks LIST` one at each, into folders of `out`.
pub fn train(at: &Path, more: &str, out: &str) {
    let train = "sae train --store s --k 12 --batch 64 --steps 400 --lr 0.003 --threads 1";
    let features = if more.contains("--features") { "" } else { "--features 96" };
    run(at, &format!("{train} {features} {more} --out {out}")).ok();
}

/// Trains one at the store's only hook; `hook` is what its file then says.
pub fn trained(at: &Path, more: &str, out: &str, hook: Option<&str>) -> Sae {
    let raw = format!("{out}-trained");
    train(at, more, &raw);
    let sae = renamed(&Sae::open(&at.join(raw)).expect("it was written"), hook);
    sae.save(&at.join(out)).expect("it can be written");
    sae
}

/// The same weights under another name, and nothing else known of the training.
pub fn renamed(sae: &Sae, hook: Option<&str>) -> Sae {
    Sae::new(sae.parts(), sae.k(), hook.map(String::from)).expect("the parts fit together")
}
