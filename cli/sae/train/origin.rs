//! What the rows of a run are made of, so that it is not taken up with others.

use super::source::Place;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::difference;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The field that is the user's, and may change.
const NAME: &str = "name";

/// Where rows come from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// What the user calls it.
    pub name: String,
    /// What tells it from others, by content.
    pub marks: Map<String, Value>,
}

impl Origin {
    /// As checkpoints of a place hold it.
    pub fn at(&self, place: &Place) -> Map<String, Value> {
        let mut fields =
            Map::from_iter([(NAME.to_string(), json!(self.name)), ("hook".to_string(), json!(place.hook))]);
        fields.extend(self.marks.clone());
        fields
    }
}

/// Refuses to take up a run, whose checkpoint holds `stored`, with the rows of `given`.
pub(super) fn check(
    checkpoint: &Path,
    given: &Map<String, Value>,
    stored: &Map<String, Value>,
) -> Result<()> {
    let named = |fields: &Map<String, Value>| {
        fields.get(NAME).and_then(Value::as_str).unwrap_or("nothing that has a name").to_string()
    };
    let unnamed = |fields: &Map<String, Value>| {
        Value::Object(
            fields.iter().filter(|(key, _)| *key != NAME).map(|(k, v)| (k.clone(), v.clone())).collect(),
        )
    };
    match difference(&unnamed(given), &unnamed(stored)) {
        None => Ok(()),
        Some((field, found, expected)) => Err(Failure::refused(format!(
            "{}: the run reads {}, which `--resume` cannot exchange for {}: `{field}` is {found}, expected {expected}",
            checkpoint.display(),
            named(stored),
            named(given)
        ))),
    }
}
