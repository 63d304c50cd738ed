//! What the rows of a run are made of, so that it is not taken up with others.

use super::source::Place;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::difference;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The field that is the user's, and may change.
const NAME: &str = "name";
/// The device, which may change too.
const DEVICE: &str = "device";

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
    pub fn at(&self, place: &Place, device: &str) -> Map<String, Value> {
        let fields = [(NAME, json!(self.name)), (DEVICE, json!(device)), ("hook", json!(place.hook))];
        let mut fields = Map::from_iter(fields.map(|(key, value)| (key.to_string(), value)));
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
            fields
                .iter()
                .filter(|(key, _)| ![NAME, DEVICE].contains(&key.as_str()))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
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

/// What is to be said where a run goes on on another device than the one of its checkpoint.
pub(super) fn other_device(given: &Map<String, Value>, stored: &Map<String, Value>) -> Option<String> {
    let [given, stored] = [given, stored].map(|fields| fields.get(DEVICE).and_then(Value::as_str));
    let (given, stored) = (given?, stored?);
    let text = format!("goes on on {given}, where {stored} would have made other bits");
    (given != stored).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_device_is_told_of_and_other_rows_are_refused() {
        let origin = |sha256: &str| Origin {
            name: "x.npy".into(),
            marks: Map::from_iter([("sha256".to_string(), json!(sha256))]),
        };
        let place = Place::new(None, None, None, 3);
        let [here, there] = ["cpu", "wgpu:0"].map(|device| origin("a").at(&place, device));
        let file = Path::new("checkpoint.safetensors");
        check(file, &there, &here).expect("the same rows");
        assert_eq!(other_device(&here, &here), None);
        assert_eq!(
            other_device(&there, &here).as_deref(),
            Some("goes on on wgpu:0, where cpu would have made other bits")
        );
        // checkpoints of before say no device
        let silent = Map::from_iter(here.clone().into_iter().filter(|(key, _)| key != DEVICE));
        assert_eq!(other_device(&there, &silent), None);
        let refused = check(file, &origin("b").at(&place, "cpu"), &here).expect_err("refused").to_string();
        assert!(refused.contains("`sha256` is"), "{refused}");
    }
}
