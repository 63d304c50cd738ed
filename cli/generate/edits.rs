//! Edits as they are written on the command line: `HOOK:FEATURE`, `HOOK:FEATURE=X`, `HOOK=FILE`.

use auscult_model::musicgen::Site;
use auscult_model::musicgen::generate::Halves;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The flags that edit the stream.
#[derive(clap::Args)]
pub struct EditArgs {
    /// An autoencoder's directory; given again for the features of another hook
    #[arg(long, value_name = "DIR")]
    pub sae: Vec<PathBuf>,
    /// Use an autoencoder at a hook other than its own, and say so in the record
    #[arg(long)]
    pub allow_misaligned: bool,
    /// Take a feature out: x - f d; repeatable, as the other edits are
    #[arg(long, value_name = "HOOK:FEATURE")]
    pub ablate: Vec<Feature>,
    /// Multiply a feature: x + (X - 1) f d
    #[arg(long, value_name = "HOOK:FEATURE=X")]
    pub scale: Vec<Amount>,
    /// Hold a feature at a value: x + (X - f) d
    #[arg(long, value_name = "HOOK:FEATURE=X")]
    pub set: Vec<Amount>,
    /// Add ALPHA BETA d at every position, d being a feature's direction or a vector in a file; BETA is the feature's maximum
    /// in `--stats`, or 1 without it, unless given
    #[arg(long, value_name = "HOOK:FEATURE|FILE[#TENSOR]=ALPHA[@BETA]")]
    pub steer: Vec<Steer>,
    /// Statistics that `features stats` wrote as .json or .safetensors, whose maxima are the BETA of features that are
    /// steered; given again for another hook
    #[arg(long, value_name = "FILE")]
    pub stats: Vec<PathBuf>,
    /// Put zeros in place of a site
    #[arg(long, value_name = "HOOK")]
    pub zero: Vec<Hook>,
    /// Put one vector of the stream's width, such as a mean, in place of every row of a site
    #[arg(long, value_name = "HOOK=FILE[#TENSOR]")]
    pub replace: Vec<Rows>,
    /// Put the rows of another run in place of a site's, as far as they go: of a file, or of a store's clip
    #[arg(long, value_name = "HOOK=FILE[#TENSOR]|STORE[#CLIP]")]
    pub patch: Vec<Rows>,
    /// The rows that are edited: both, cond (those that see the text) or uncond
    #[arg(long, value_name = "both|cond|uncond", default_value = "both")]
    pub edit_rows: EditRows,
    /// The time that is edited, in seconds of the take; either end may be left out
    #[arg(long, value_name = "A..B", allow_hyphen_values = true)]
    pub edit_window: Option<Span>,
    /// Play a baseline, the edits, and so many controls of either kind, all with the same noise: random features that fire
    /// and peak alike, and random directions of the same norm
    #[arg(long, value_name = "N")]
    pub controls: Option<usize>,
}

impl EditArgs {
    /// Whether anything is edited.
    pub fn any(&self) -> bool {
        self.features().next().is_some()
            || !(self.steer.is_empty()
                && self.zero.is_empty()
                && self.replace.is_empty()
                && self.patch.is_empty())
    }

    /// The option that only matters to edits, where it was given and there are none.
    pub fn idle(&self) -> Option<&'static str> {
        let given = [
            ("--edit-rows", self.edit_rows.0 != Halves::Both),
            ("--edit-window", self.edit_window.is_some()),
            ("--sae", !self.sae.is_empty()),
            ("--stats", !self.stats.is_empty()),
        ];
        let idle = given.iter().find(|(_, is_given)| *is_given && !self.any());
        idle.map(|(option, _)| *option)
    }

    /// The features that are named, with their hooks.
    pub fn features(&self) -> impl Iterator<Item = &Feature> {
        let amounts = self.scale.iter().chain(&self.set).map(|amount| &amount.of);
        let steered = self.steer.iter().filter_map(|steer| match &steer.along {
            Along::Feature(feature) => Some(feature),
            Along::File { .. } => None,
        });
        self.ablate.iter().chain(amounts).chain(steered)
    }
}

/// A site, as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Hook {
    pub name: String,
    pub site: Site,
}

/// `HOOK:FEATURE`.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    pub hook: Hook,
    pub feature: usize,
}

/// `HOOK:FEATURE=X`.
#[derive(Clone, Debug, PartialEq)]
pub struct Amount {
    pub of: Feature,
    pub amount: f32,
}

/// What a stream is steered along.
#[derive(Clone, Debug, PartialEq)]
pub enum Along {
    /// A feature's direction.
    Feature(Feature),
    /// A vector in a file.
    File { hook: Hook, file: Source },
}

/// `HOOK:FEATURE=ALPHA[@BETA]`, `HOOK:FILE=ALPHA[@BETA]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Steer {
    pub along: Along,
    pub alpha: f32,
    /// As it was written.
    pub beta: Option<f32>,
}

/// `FILE[#PART]`: a file, or a directory, and which part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub path: PathBuf,
    pub part: Option<String>,
}

/// `HOOK=FILE[#PART]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    pub hook: Hook,
    pub file: Source,
}

/// Which rows are edited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EditRows(pub Halves);

/// Seconds from and to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    pub from: Option<f64>,
    pub to: Option<f64>,
}

impl FromStr for Hook {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(Self { name: name.into(), site: name.parse().map_err(|e| format!("{e}"))? })
    }
}

impl FromStr for Feature {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (hook, feature) = split(text)?;
        let feature = number(feature)
            .ok_or_else(|| format!("feature `{feature}`, expected its number, counted from 0"))?;
        Ok(Self { hook: hook.parse()?, feature })
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (of, amount) =
            text.rsplit_once('=').ok_or_else(|| format!("`{text}`, expected HOOK:FEATURE=X"))?;
        Ok(Self { of: of.parse()?, amount: finite(amount)? })
    }
}

impl FromStr for Steer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}`, expected HOOK:FEATURE=ALPHA[@BETA] or HOOK:FILE=ALPHA[@BETA]");
        let (of, amount) = text.rsplit_once('=').ok_or_else(expected)?;
        let (alpha, beta) = match amount.split_once('@') {
            Some((alpha, beta)) => (alpha, Some(beta)),
            None => (amount, None),
        };
        let (hook, along) = split(of)?;
        let along = match number(along) {
            Some(feature) => Along::Feature(Feature { hook: hook.parse()?, feature }),
            None if along.contains('.') || along.contains('/') => {
                Along::File { hook: hook.parse()?, file: along.parse()? }
            }
            None => {
                return Err(format!("`{along}`, expected a feature's number or a file `*.safetensors`"));
            }
        };
        let steer = Self { along, alpha: finite(alpha)?, beta: beta.map(finite).transpose()? };
        if !(steer.alpha * steer.beta.unwrap_or(1.0)).is_finite() {
            return Err(format!("`{amount}`, expected a finite product"));
        }
        Ok(steer)
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, part) = match text.split_once('#') {
            Some((path, part)) => (path, Some(part.to_string())),
            None => (text, None),
        };
        if path.is_empty() || part.as_deref() == Some("") {
            return Err(format!("`{text}`, expected a path, and a name behind `#` if there is one"));
        }
        Ok(Self { path: path.into(), part })
    }
}

impl FromStr for Rows {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (hook, file) =
            text.split_once('=').ok_or_else(|| format!("`{text}`, expected HOOK=FILE[#PART]"))?;
        Ok(Self { hook: hook.parse()?, file: file.parse()? })
    }
}

impl FromStr for EditRows {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "both" => Ok(Self(Halves::Both)),
            "cond" => Ok(Self(Halves::Conditional)),
            "uncond" => Ok(Self(Halves::Unconditional)),
            _ => Err(format!("`{text}`, expected both, cond or uncond")),
        }
    }
}

impl fmt::Display for EditRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Halves::Both => "both",
            Halves::Conditional => "cond",
            Halves::Unconditional => "uncond",
        })
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("`{text}`, expected A..B with seconds 0 <= A < B, either end may be left out");
        let (from, to) = text.split_once("..").ok_or_else(expected)?;
        let seconds = |text: &str| match text {
            "" => Ok(None),
            _ => {
                text.parse::<f64>().ok().filter(|s| s.is_finite() && *s >= 0.0).ok_or_else(expected).map(Some)
            }
        };
        let span = Self { from: seconds(from)?, to: seconds(to)? };
        match span {
            Self { from: None, to: None } => Err(expected()),
            Self { from: Some(from), to: Some(to) } if from >= to => Err(expected()),
            _ => Ok(span),
        }
    }
}

/// At the colon behind a hook, which `paper:M` has one of.
fn split(text: &str) -> Result<(&str, &str), String> {
    let hook = text.strip_prefix("paper:").map_or(0, |_| "paper:".len());
    let colon = text[hook..].find(':').ok_or_else(|| format!("`{text}`, expected HOOK:FEATURE"))?;
    Ok((&text[..hook + colon], &text[hook + colon + 1..]))
}

fn number(text: &str) -> Option<usize> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn finite(text: &str) -> Result<f32, String> {
    let value = text.parse::<f32>().ok().filter(|value| value.is_finite());
    value.ok_or_else(|| format!("`{text}`, expected a finite number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(name: &str) -> Hook {
        name.parse().expect("a site")
    }

    #[test]
    fn features_and_amounts_are_read() {
        let feature = Feature { hook: hook("hook_layers.3"), feature: 17 };
        assert_eq!("hook_layers.3:17".parse(), Ok(feature.clone()));
        assert_eq!("hook_layers.3:17=-0.5".parse(), Ok(Amount { of: feature.clone(), amount: -0.5 }));
        assert_eq!("paper:4:17".parse::<Feature>().map(|f| f.hook.site), Ok(feature.hook.site));
        let steer = Steer { along: Along::Feature(feature), alpha: 0.5, beta: Some(8.0) };
        assert_eq!("hook_layers.3:17=0.5@8".parse(), Ok(steer));
    }

    #[test]
    fn files_are_read() {
        let file =
            |path: &str, part: Option<&str>| Source { path: path.into(), part: part.map(String::from) };
        let along = Along::File { hook: hook("embed"), file: file("a=b/v.safetensors", Some("x")) };
        assert_eq!("embed:a=b/v.safetensors#x=-2".parse(), Ok(Steer { along, alpha: -2.0, beta: None }));
        let rows = Rows { hook: hook("paper:1"), file: file("store", Some("t@0-64")) };
        assert_eq!("paper:1=store#t@0-64".parse(), Ok(rows));
    }

    #[test]
    fn what_is_no_edit_is_refused() {
        for bad in ["", "hook_layers.3", "hook_layers.3:", "hook_layers.3:-1", "hook_layers.3:x", "layer.3:1"]
        {
            assert!(bad.parse::<Feature>().is_err(), "{bad}");
        }
        for bad in ["hook_layers.3:1", "hook_layers.3:1=", "hook_layers.3:1=NaN", "hook_layers.3:1=inf"] {
            assert!(bad.parse::<Amount>().is_err(), "{bad}");
        }
        for bad in ["embed:1=1@NaN", "embed:1=@2", "embed:vector=1", "embed:1=3e38@3e38", "embed:#x.y=1"] {
            assert!(bad.parse::<Steer>().is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_are_read() {
        assert_eq!("1..2.5".parse(), Ok(Span { from: Some(1.0), to: Some(2.5) }));
        assert_eq!("..2".parse(), Ok(Span { from: None, to: Some(2.0) }));
        assert_eq!("0..".parse(), Ok(Span { from: Some(0.0), to: None }));
        for bad in ["", "..", "2..1", "1..1", "-1..2", "NaN..2", "1..inf", "1-2"] {
            assert!(bad.parse::<Span>().unwrap_err().contains("A..B"), "{bad}");
        }
    }
}
