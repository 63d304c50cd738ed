//! The places in MusicGen's decoder that can be captured or edited, and their names.

use crate::error::{ModelError, Result};
use auscult_runtime::nearest;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A place within one decoder layer, in the order values pass through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// The residual stream as the layer receives it.
    ResidPre,
    /// What self-attention adds to the stream (behind its output projection).
    SelfAttnOut,
    /// The stream between self-attention and cross-attention.
    ResidMid,
    /// What cross-attention adds; exactly zero without text.
    CrossAttnOut,
    /// What the feed-forward block adds.
    MlpOut,
    /// The stream as the layer leaves it.
    ResidPost,
}

impl At {
    const ALL: [Self; 6] = [
        Self::ResidPre,
        Self::SelfAttnOut,
        Self::ResidMid,
        Self::CrossAttnOut,
        Self::MlpOut,
        Self::ResidPost,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::ResidPre => "resid_pre",
            Self::SelfAttnOut => "self_attn_out",
            Self::ResidMid => "resid_mid",
            Self::CrossAttnOut => "cross_attn_out",
            Self::MlpOut => "mlp_out",
            Self::ResidPost => "resid_post",
        }
    }
}

/// A place in the decoder. Ordered as values pass through; written `layers.7.resid_post`, `embed`, `final_norm`, `logits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// Embeddings plus positions, `[rows, hidden]`.
    Embed,
    /// Within layer `.0`, counted from 0, `[rows, hidden]`.
    Layer(usize, At),
    /// Behind the last layer norm, `[rows, hidden]`.
    FinalNorm,
    /// Scores of every codebook's codes, `[rows, codebooks * vocabulary]`.
    Logits,
}

impl Site {
    /// Every site of a decoder of so many layers, in order.
    pub fn all(layers: usize) -> impl Iterator<Item = Self> {
        let within = (0..layers).flat_map(|layer| At::ALL.map(|at| Self::Layer(layer, at)));
        std::iter::once(Self::Embed).chain(within).chain([Self::FinalNorm, Self::Logits])
    }

    /// The first site that shows the value which this one shows: a layer receives the stream as the one before it left it, the
    /// first one the embeddings. Another site only where an edit stands between the two.
    #[must_use]
    pub fn origin(self) -> Self {
        match self {
            Self::Layer(0, At::ResidPre) => Self::Embed,
            Self::Layer(layer, At::ResidPre) => Self::Layer(layer - 1, At::ResidPost),
            other => other,
        }
    }

    /// Elements of one row.
    pub fn width(self, config: &super::config::MusicgenDecoderConfig) -> usize {
        match self {
            Self::Logits => config.num_codebooks * config.vocab_size,
            Self::Embed | Self::Layer(..) | Self::FinalNorm => config.hidden_size,
        }
    }

    /// The site, if a decoder of `layers` layers has it.
    ///
    /// # Errors
    /// Names the layers there are.
    pub fn within(self, layers: usize) -> Result<Self> {
        match self {
            Self::Layer(layer, _) if layer >= layers => Err(ModelError::Site {
                name: self.to_string(),
                expected: format!("a layer in 0..={}", layers.saturating_sub(1)),
            }),
            _ => Ok(self),
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embed => f.write_str("embed"),
            Self::Layer(layer, at) => write!(f, "layers.{layer}.{}", at.name()),
            Self::FinalNorm => f.write_str("final_norm"),
            Self::Logits => f.write_str("logits"),
        }
    }
}

impl FromStr for Site {
    type Err = ModelError;

    /// Reads a canonical name or an alias: `hook_layers.N` is the output of layer N counted from 0 (the name published
    /// autoencoders carry), `paper:M` that of layer M counted from 1, `blocks.N.hook_resid_pre` and `blocks.N.hook_resid_post`
    /// are TransformerLens' names for what layer N, counted from 0, receives and leaves.
    fn from_str(name: &str) -> Result<Self> {
        let unknown = |expected: String| ModelError::Site { name: name.into(), expected };
        if let Some(layer) = name.strip_prefix("hook_layers.") {
            let layer =
                number(layer).ok_or_else(|| unknown("`hook_layers.N`, N a layer counted from 0".into()))?;
            return Ok(Self::Layer(layer, At::ResidPost));
        }
        if let Some(layer) = name.strip_prefix("paper:") {
            let layer = number(layer).and_then(|layer| layer.checked_sub(1));
            let layer = layer.ok_or_else(|| unknown("`paper:M`, M a layer counted from 1".into()))?;
            return Ok(Self::Layer(layer, At::ResidPost));
        }
        if let Some(rest) = name.strip_prefix("blocks.") {
            let parts = rest.split_once('.').and_then(|(layer, hook)| Some((number(layer)?, hook)));
            return match parts {
                Some((layer, "hook_resid_pre")) => Ok(Self::Layer(layer, At::ResidPre)),
                Some((layer, "hook_resid_post")) => Ok(Self::Layer(layer, At::ResidPost)),
                _ => Err(unknown(
                    "of TransformerLens' names `blocks.N.hook_resid_pre` or `blocks.N.hook_resid_post`, N a layer counted from \
                     0: the stream that it receives and leaves, which is `layers.N.resid_pre` and `layers.N.resid_post` here"
                        .into(),
                )),
            };
        }
        if let Some(site) =
            [Self::Embed, Self::FinalNorm, Self::Logits].into_iter().find(|s| s.to_string() == name)
        {
            return Ok(site);
        }
        let parts = name.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
        if let Some((layer, at)) = parts
            && let (Some(layer), Some(at)) = (number(layer), At::ALL.into_iter().find(|a| a.name() == at))
        {
            return Ok(Self::Layer(layer, at));
        }
        let layer = parts.and_then(|(layer, _)| number(layer)).unwrap_or(0);
        let mut known: Vec<String> = At::ALL.map(|at| Self::Layer(layer, at).to_string()).to_vec();
        known.extend(["embed", "final_norm", "logits"].map(String::from));
        known.push(format!("hook_layers.{layer}"));
        Err(unknown(format!("a site; nearest: {}", nearest(name, known.iter().map(String::as_str)))))
    }
}

/// A layer's number: decimal digits without sign.
fn number(digits: &str) -> Option<usize> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// A site under the name that its results carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSite {
    /// As the user wrote it; `paper:M` becomes `hook_layers.(M - 1)`, so that names stay valid as file names.
    pub label: String,
    /// What it means.
    pub site: Site,
}

/// The error of a layer that is not there, by the name that was written.
fn as_written(error: ModelError, name: &str, site: Site) -> ModelError {
    match error {
        ModelError::Site { name: own, expected } if own != name => {
            ModelError::Site { name: name.into(), expected: format!("{expected} (it is `{site}`)") }
        }
        other => other,
    }
}

/// Reads a list of sites: names separated by commas, with alternatives in braces, as in `hook_layers.{1,5,11},embed`.
///
/// # Errors
/// An empty list, unbalanced braces, an unknown site (naming the nearest ones), a layer that a decoder of `layers` layers
/// has not, or one site twice.
pub fn parse_sites(list: &str, layers: usize) -> Result<Vec<NamedSite>> {
    let mut named = Vec::new();
    let mut seen = BTreeSet::new();
    for name in expand(list)? {
        let site = name.parse::<Site>()?;
        let site = site.within(layers).map_err(|e| as_written(e, &name, site))?;
        if !seen.insert(site) {
            let found = format!("`{name}`, a site that is named already");
            return Err(ModelError::Argument { argument: "hooks", found, expected: "each site once".into() });
        }
        let label = match (name.starts_with("paper:"), site) {
            (true, Site::Layer(layer, _)) => format!("hook_layers.{layer}"),
            _ => name,
        };
        named.push(NamedSite { label, site });
    }
    Ok(named)
}

/// Splits at commas outside braces, and writes every alternative out.
fn expand(list: &str) -> Result<Vec<String>> {
    let bad = |expected: &str| ModelError::Site { name: list.into(), expected: expected.into() };
    let mut names = Vec::new();
    let mut rest = list.trim();
    if rest.is_empty() {
        return Err(bad("at least one site"));
    }
    loop {
        let end = rest.find([',', '{']).unwrap_or(rest.len());
        let prefix = rest[..end].trim();
        if !rest[end..].starts_with('{') {
            names.push(prefix.to_string());
            rest = &rest[end..];
        } else {
            let (inside, behind) = rest[end + 1..].split_once('}').ok_or_else(|| bad("a closing `}`"))?;
            let suffix = &behind[..behind.find(',').unwrap_or(behind.len())];
            if inside.contains('{') || suffix.contains(['{', '}']) {
                return Err(bad("one pair of braces a name"));
            }
            names.extend(inside.split(',').map(|part| format!("{prefix}{}{}", part.trim(), suffix.trim())));
            rest = &behind[suffix.len()..];
        }
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None => return Ok(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_in_order() {
        let sites: Vec<Site> = Site::all(3).collect();
        assert_eq!(sites.len(), 1 + 3 * 6 + 2);
        assert!(sites.is_sorted());
        for site in sites {
            assert_eq!(site.to_string().parse::<Site>().unwrap(), site);
        }
    }

    #[test]
    fn a_layer_receives_what_the_one_before_it_left() {
        let origin = |name: &str| name.parse::<Site>().unwrap().origin().to_string();
        assert_eq!(origin("layers.0.resid_pre"), "embed");
        assert_eq!(origin("layers.3.resid_pre"), "layers.2.resid_post");
        for own in ["embed", "layers.0.resid_mid", "layers.2.resid_post", "final_norm"] {
            assert_eq!(origin(own), own);
        }
    }

    #[test]
    fn aliases_name_layer_outputs() {
        let post = |layer| Site::Layer(layer, At::ResidPost);
        assert_eq!("hook_layers.11".parse::<Site>().unwrap(), post(11));
        assert_eq!("paper:12".parse::<Site>().unwrap(), post(11));
        assert_eq!("blocks.11.hook_resid_post".parse::<Site>().unwrap(), post(11));
        assert_eq!("blocks.3.hook_resid_pre".parse::<Site>().unwrap(), Site::Layer(3, At::ResidPre));
        let named = parse_sites("hook_layers.{1,5}, paper:{3} ,layers.{0,2}.resid_mid,embed", 6).unwrap();
        let labels: Vec<_> = named.iter().map(|n| n.label.as_str()).collect();
        let want = [
            "hook_layers.1",
            "hook_layers.5",
            "hook_layers.2",
            "layers.0.resid_mid",
            "layers.2.resid_mid",
            "embed",
        ];
        assert_eq!(labels, want);
    }

    #[test]
    fn refusals_say_what_there_is() {
        let text = |list: &str| parse_sites(list, 24).unwrap_err().to_string();
        assert_eq!(
            text("layers.24.resid_post"),
            "site `layers.24.resid_post` does not exist, expected a layer in 0..=23"
        );
        assert_eq!(
            text("layer.3.resid_post"),
            "site `layer.3.resid_post` does not exist, expected a site; nearest: `layers.0.resid_post`, \
             `layers.0.resid_pre`, `layers.0.resid_mid`"
        );
        assert!(text("layers.3.resid_pots").contains("nearest: `layers.3.resid_post`"));
        assert!(text("paper:0").contains("counted from 1"));
        let other = "site `blocks.3.hook_mlp_out` does not exist, expected of TransformerLens' names `blocks.N.hook_resid_pre`";
        assert!(text("blocks.3.hook_mlp_out").starts_with(other));
        assert_eq!(
            text("blocks.24.hook_resid_post"),
            "site `blocks.24.hook_resid_post` does not exist, expected a layer in 0..=23 (it is `layers.24.resid_post`)"
        );
        assert!(text("hook_layers.+1").contains("counted from 0"));
        assert!(text("").contains("at least one site"));
        assert!(text("hook_layers.{1,2").contains("closing"));
        assert!(text("hook_layers.1,paper:2").contains("each site once"));
        assert!(text("embed,").contains("does not exist"));
    }
}
