//! What scores say of the site that an autoencoder's file names.

use auscult_model::musicgen::{At, Site};
use auscult_model::sae::Sae;
use serde::Serialize;

use super::score::SiteScore;

/// An FVU from which on an autoencoder fits nowhere. At 1 it is no better than the mean of the rows; what is a hair below only
/// gets the mean right.
pub const NO_FIT: f64 = 0.99;

/// How messages begin about what a file names.
const FILE: &str = "the file says";

/// The site that an autoencoder's file names, or where it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Declared {
    /// Who says so, as messages have it.
    #[serde(skip)]
    pub by: &'static str,
    /// As it is written there.
    pub hook: String,
    /// What it means; `None` where it is no site of any decoder.
    pub site: Option<String>,
}

impl Declared {
    /// A site that an autoencoder is to be used at.
    pub fn used_at(site: Site) -> Self {
        Self { by: "it is used at", hook: label(site), site: Some(site.to_string()) }
    }

    /// What the file says; of one that names a layer alone, the output of that layer.
    pub fn of(sae: &Sae) -> Option<Self> {
        if let Some(hook) = sae.hook() {
            let site = hook.parse::<Site>().ok().map(|site| site.to_string());
            return Some(Self { by: FILE, hook: hook.to_string(), site });
        }
        let layer = sae.settings().metadata.layer?;
        let site = Site::Layer(layer, At::ResidPost).to_string();
        Some(Self { by: FILE, hook: format!("hook_layer {layer}"), site: Some(site) })
    }

    /// The site, where it is one.
    pub fn at(&self) -> Option<Site> {
        self.site.as_deref().and_then(|site| site.parse().ok())
    }
}

/// What the scores say.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It fits the site that its file names best.
    Fits,
    /// Its file names no site.
    Unnamed,
    /// It fits another site better.
    Elsewhere {
        /// Names both, with their FVUs.
        message: String,
    },
    /// In a first look: the rows hardly differ, as in silence, so that no FVU is good, yet what there is is met.
    Unclear {
        /// Names the best there is.
        message: String,
    },
    /// It fits none.
    Nowhere {
        /// Names the best there is.
        message: String,
    },
}

impl Verdict {
    /// Why the autoencoder is to be refused, if it is.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Fits | Self::Unnamed | Self::Unclear { .. } => None,
            Self::Elsewhere { message } | Self::Nowhere { message } => Some(message),
        }
    }
}

/// A site as published files name it.
pub fn label(site: Site) -> String {
    match site {
        Site::Layer(layer, At::ResidPost) => format!("hook_layers.{layer}"),
        other => other.to_string(),
    }
}

/// Holds scores against what is declared: the best of `scores`, and what follows.
///
/// # Panics
/// No scores.
pub fn judge<'a>(declared: Option<&Declared>, scores: &'a [SiteScore]) -> (&'a SiteScore, Verdict) {
    let best = scores.iter().min_by(|a, b| a.fit().total_cmp(&b.fit())).expect("at least one site is scored");
    let verdict = match declared {
        _ if best.fit() >= NO_FIT => Verdict::Nowhere { message: nowhere(best, scores.len()) },
        None => Verdict::Unnamed,
        Some(declared) if declared.at().map(Site::origin) == Some(best.at().origin()) => Verdict::Fits,
        Some(declared) => Verdict::Elsewhere { message: elsewhere(declared, best, scores) },
    };
    (best, verdict)
}

fn nowhere(best: &SiteScore, sites: usize) -> String {
    let best_fit = match best.fvu {
        Some(fvu) => format!("FVU {fvu:.4} at {}", label(best.at())),
        None => format!("the rows at {} do not differ", label(best.at())),
    };
    format!(
        "fits none of {sites} sites: the best is {best_fit}, where 1 is what the mean of the rows alone reaches; expected an \
         autoencoder of this model, with its weights the right way round"
    )
}

fn elsewhere(declared: &Declared, best: &SiteScore, scores: &[SiteScore]) -> String {
    let Declared { by, hook, .. } = declared;
    let found = format!("the best is {} (FVU {:.4})", label(best.at()), best.fit());
    let Some(site) = declared.at() else {
        return format!("{by} {hook}, which is no site of this model, {found}");
    };
    let own = scores.iter().find(|score| score.at().origin() == site.origin());
    let own = match own {
        Some(score) => format!("FVU {:.4}", score.fit()),
        None => "which this model has not".to_string(),
    };
    format!("{by} {hook} ({own}), {found}{}", hint(site, best.at()))
}

/// What the two are to each other, where that tells the mistake.
fn hint(declared: Site, best: Site) -> String {
    let behind = |site: Site| match site.origin() {
        Site::Embed => Some(0),
        Site::Layer(layer, At::ResidPost) => Some(layer + 1),
        _ => None,
    };
    let (Some(said), Some(is)) = (behind(declared), behind(best)) else { return String::new() };
    match declared {
        Site::Layer(0, At::ResidPost) if is == 0 => {
            ": the hook stood before the layer and not behind it".to_string()
        }
        Site::Layer(layer, At::ResidPost) if is + 1 == said => format!(
            ": paper layers count from 1 and `hook_layers.N` from 0 (`paper:{layer}` is {}), or the hook stood before the layer \
             and not behind it",
            label(best)
        ),
        Site::Layer(layer, At::ResidPost) if said + 1 == is => format!(
            ": `hook_layers.N` counts from 0 already, `paper:{}` is {} and `paper:{}` {}",
            layer + 1,
            label(declared),
            layer + 2,
            label(best)
        ),
        Site::Layer(layer, At::ResidPre) if said + 1 == is => {
            format!(": it is what layer {layer} leaves, not what it receives")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(fvus: &[f64]) -> Vec<SiteScore> {
        let score = |(site, &fvu): (Site, &f64)| SiteScore {
            site: site.to_string(),
            also: Vec::new(),
            rows: 9,
            fvu: Some(fvu),
            explained_variance: Some(1.0 - fvu),
            missed_power: Some(fvu / 2.0),
            l0: Some(3.0),
            dead: 0.5,
            cross_entropy: None,
        };
        super::super::candidates(fvus.len() - 1).zip(fvus).map(score).collect()
    }

    fn declared(hook: &str) -> Declared {
        let site = hook.parse::<Site>().ok().map(|site| site.to_string());
        Declared { by: FILE, hook: hook.to_string(), site }
    }

    fn message(hook: &str, fvus: &[f64]) -> String {
        let (_, verdict) = judge(Some(&declared(hook)), &scores(fvus));
        verdict.refusal().expect("refused").to_string()
    }

    #[test]
    fn the_site_that_is_named_and_best_fits() {
        let scores = scores(&[0.9, 0.5, 0.1, 0.3]);
        for hook in ["hook_layers.1", "paper:2", "layers.1.resid_post", "layers.2.resid_pre"] {
            let (best, verdict) = judge(Some(&declared(hook)), &scores);
            assert_eq!((best.site.as_str(), verdict), ("layers.1.resid_post", Verdict::Fits), "{hook}");
        }
        assert_eq!(judge(None, &scores).1, Verdict::Unnamed);
    }

    #[test]
    fn another_site_is_named_with_both_scores_and_the_likely_mistake() {
        assert_eq!(
            message("hook_layers.2", &[0.9, 0.5, 0.1, 0.3]),
            "the file says hook_layers.2 (FVU 0.3000), the best is hook_layers.1 (FVU 0.1000): paper layers count from 1 and \
             `hook_layers.N` from 0 (`paper:2` is hook_layers.1), or the hook stood before the layer and not behind it"
        );
        assert_eq!(
            message("hook_layers.0", &[0.9, 0.5, 0.1, 0.3]),
            "the file says hook_layers.0 (FVU 0.5000), the best is hook_layers.1 (FVU 0.1000): `hook_layers.N` counts from 0 \
             already, `paper:1` is hook_layers.0 and `paper:2` hook_layers.1"
        );
        assert!(
            message("hook_layers.0", &[0.1, 0.5])
                .contains("the best is embed (FVU 0.1000): the hook stood before")
        );
        assert!(
            message("layers.1.resid_pre", &[0.9, 0.5, 0.1])
                .ends_with("what layer 1 leaves, not what it receives")
        );
        assert!(message("embed", &[0.9, 0.5, 0.1]).ends_with("the best is hook_layers.1 (FVU 0.1000)"));
        let far = message("hook_layers.7", &[0.9, 0.5, 0.1]);
        assert!(far.contains("hook_layers.7 (which this model has not), the best is hook_layers.1"), "{far}");
        let foreign = message("blocks.1.hook_mlp", &[0.9, 0.5, 0.1]);
        assert!(
            foreign.contains("blocks.1.hook_mlp, which is no site of this model, the best is"),
            "{foreign}"
        );
    }

    #[test]
    fn what_is_no_better_than_the_mean_fits_nowhere() {
        for fvus in [&[1.2, 1.0, 3.0][..], &[f64::NAN, 0.995]] {
            let found = message("hook_layers.0", fvus);
            assert!(found.starts_with("fits none of") && found.contains("at hook_layers.0"), "{found}");
        }
        let (_, verdict) = judge(None, &scores(&[1.5, 2.0]));
        assert!(verdict.refusal().is_some(), "without a name too");
    }
}
