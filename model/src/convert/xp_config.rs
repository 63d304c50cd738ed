//! The few values that are read from an audiocraft package's `xp.cfg`, a YAML text that OmegaConf printed.
//!
//! OmegaConf prints block style with two spaces and no anchors, so a line scan suffices: nested keys become dotted
//! paths, lists of plain values become their text, `${a.b}` refers to another path. This is no YAML parser; what it
//! does not understand it does not report, and every value used is checked by its reader.

use std::collections::HashMap;

/// Longest text that is scanned; real ones have some twenty kilobytes.
const MAX_BYTES: usize = 4 << 20;
/// References to references that are followed.
const MAX_HOPS: usize = 8;

/// Values by dotted path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XpConfig {
    values: HashMap<String, String>,
    lists: HashMap<String, Vec<String>>,
}

impl XpConfig {
    /// Scans `text`.
    pub fn scan(text: &str) -> Self {
        let mut found = Self::default();
        // indent and key of the sections around the current line
        let mut open: Vec<(usize, String)> = Vec::new();
        for line in text.get(..MAX_BYTES).unwrap_or(text).lines() {
            let content = line.trim_start_matches(' ');
            let indent = line.len() - content.len();
            if let Some(item) = content.strip_prefix("- ") {
                // OmegaConf indents items as far as their key, or no further
                open.retain(|(at, _)| *at <= indent);
                found.lists.entry(path(&open, None)).or_default().push(plain(item));
                continue;
            }
            let Some((key, value)) = content.split_once(':') else { continue };
            if content.starts_with('#') || key.contains(' ') {
                continue;
            }
            open.retain(|(at, _)| *at < indent);
            let value = value.trim();
            if let Some(items) = value.strip_prefix('[').and_then(|v| v.strip_suffix(']')) {
                let items = items.split(',').map(plain).filter(|item| !item.is_empty()).collect();
                found.lists.insert(path(&open, Some(key)), items);
            } else if !value.is_empty() {
                found.values.insert(path(&open, Some(key)), plain(value));
            }
            open.push((indent, key.to_string()));
        }
        found
    }

    /// The value at `path`, references followed; `None` when absent or null.
    pub fn get(&self, path: &str) -> Option<&str> {
        let mut value = self.values.get(path)?.as_str();
        for _ in 0..MAX_HOPS {
            match value.strip_prefix("${").and_then(|v| v.strip_suffix('}')) {
                Some(target) => value = self.values.get(target)?.as_str(),
                None => return (!matches!(value, "null" | "~")).then_some(value),
            }
        }
        None
    }

    /// The value at `path` as a number or another type that is written as plain text.
    pub fn parse<T: std::str::FromStr>(&self, path: &str) -> Option<T> {
        self.get(path)?.parse().ok()
    }

    /// The list of counts at `path`.
    pub fn counts(&self, path: &str) -> Option<Vec<usize>> {
        self.lists.get(path)?.iter().map(|item| item.parse().ok()).collect()
    }
}

fn path(open: &[(usize, String)], key: Option<&str>) -> String {
    let keys: Vec<&str> = open.iter().map(|(_, key)| key.as_str()).chain(key).collect();
    keys.join(".")
}

/// A scalar without its quotes.
fn plain(text: &str) -> String {
    text.trim().trim_matches(['\'', '"']).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
sample_rate: 32000
channels: 1
transformer_lm:
  dim: 1024
  activation: gelu
  norm_first: true
  qk_norm: null
seanet:
  causal: ${encodec.causal}
  pad_mode: 'constant'
  ratios:
  - 8
  - 5
  decoder:
    trim_right_ratio: 1.0
encodec:
  causal: false
codebooks_pattern:
  modeling: delay
  delay:
    delays: [0, 1, 2, 3]
  other: ${loop.a}
loop:
  a: ${loop.a}
";

    #[test]
    fn nested_keys_lists_and_references_are_found() {
        let config = XpConfig::scan(TEXT);
        assert_eq!(config.parse::<usize>("transformer_lm.dim"), Some(1024));
        assert_eq!(config.get("seanet.causal"), Some("false"));
        assert_eq!(config.get("seanet.pad_mode"), Some("constant"));
        assert_eq!(config.parse::<f64>("seanet.decoder.trim_right_ratio"), Some(1.0));
        assert_eq!(config.counts("seanet.ratios"), Some(vec![8, 5]));
        assert_eq!(config.counts("codebooks_pattern.delay.delays"), Some(vec![0, 1, 2, 3]));
        assert_eq!(config.get("codebooks_pattern.modeling"), Some("delay"));
    }

    #[test]
    fn absent_null_and_circular_values_are_none() {
        let config = XpConfig::scan(TEXT);
        assert_eq!(config.get("transformer_lm.qk_norm"), None);
        assert_eq!(config.get("transformer_lm.depth"), None);
        assert_eq!(config.get("loop.a"), None);
        assert_eq!(config.get("dim"), None, "a nested key is not one of the top level");
        assert_eq!(config.parse::<usize>("seanet.pad_mode"), None);
    }
}
