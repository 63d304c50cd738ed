//! The places in the text encoder that can be captured or edited, and their names.

use crate::error::{ModelError, Result};
use auscult_runtime::nearest;
use std::fmt;
use std::str::FromStr;

/// A place in the text encoder. Ordered as values pass through; written `embed`, `blocks.3.resid_post`, `final_norm`.
/// All are f32 `[batch * steps, d_model]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TextSite {
    /// The tokens' embeddings.
    Embed,
    /// The stream as block `.0`, counted from 0, leaves it.
    Block(usize),
    /// Behind the last norm: the states that a decoder reads.
    FinalNorm,
}

impl TextSite {
    /// Every site of an encoder of `blocks` blocks, in order.
    pub fn all(blocks: usize) -> impl Iterator<Item = Self> {
        let blocks = (0..blocks).map(Self::Block);
        std::iter::once(Self::Embed).chain(blocks).chain(std::iter::once(Self::FinalNorm))
    }

    /// The site, if an encoder of `blocks` blocks has it.
    ///
    /// # Errors
    /// Names the blocks there are.
    pub fn within(self, blocks: usize) -> Result<Self> {
        match self {
            Self::Block(b) if b >= blocks => Err(ModelError::Site {
                name: self.to_string(),
                expected: format!("blocks 0 to {}", blocks.saturating_sub(1)),
            }),
            site => Ok(site),
        }
    }
}

impl fmt::Display for TextSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embed => f.write_str("embed"),
            Self::Block(b) => write!(f, "blocks.{b}.resid_post"),
            Self::FinalNorm => f.write_str("final_norm"),
        }
    }
}

impl FromStr for TextSite {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self> {
        let block = || name.strip_prefix("blocks.")?.strip_suffix(".resid_post")?.parse().ok();
        match name {
            "embed" => Ok(Self::Embed),
            "final_norm" => Ok(Self::FinalNorm),
            _ => block().map(Self::Block).ok_or_else(|| {
                let names = ["embed", "blocks.0.resid_post", "final_norm"];
                let expected = format!("one like {}", nearest(name, names.into_iter()));
                ModelError::Site { name: name.into(), expected }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_site_is_read_back_from_its_name() {
        let sites: Vec<_> = TextSite::all(3).collect();
        assert_eq!(sites.len(), 5);
        assert!(sites.is_sorted());
        for site in sites {
            assert_eq!(site.to_string().parse::<TextSite>().expect("its own name"), site);
        }
    }

    #[test]
    fn unknown_sites_are_refused() {
        let text = |name: &str| name.parse::<TextSite>().expect_err("refused").to_string();
        assert_eq!(
            text("blocks.2.resid_pots"),
            "site `blocks.2.resid_pots` does not exist, expected one like `blocks.0.resid_post`, `embed`, `final_norm`"
        );
        assert_eq!(
            TextSite::Block(3).within(3).expect_err("refused").to_string(),
            "site `blocks.3.resid_post` does not exist, expected blocks 0 to 2"
        );
    }
}
