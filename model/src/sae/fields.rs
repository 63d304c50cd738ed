//! Fields of a configuration that lie in different places in different versions.

use crate::error::{ModelError, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// The section that SAELens 6 moved everything to that is not needed to compute.
const METADATA: &str = "metadata";

/// A configuration being read. A field that is `null` counts as absent.
pub(super) struct Fields<'a> {
    pub file: &'a Path,
    json: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The fields of a file that holds an object.
    pub fn of(file: &'a Path, json: &'a Value) -> Result<Self> {
        match json {
            Value::Object(json) => Ok(Self { file, json }),
            other => Err(ModelError::file(file, format!("holds {other}, expected an object"))),
        }
    }

    /// Every field outside `metadata`.
    pub fn top(&self) -> &'a Map<String, Value> {
        self.json
    }

    /// Every field within `metadata`.
    pub fn metadata(&self) -> Option<&'a Map<String, Value>> {
        self.json.get(METADATA).and_then(Value::as_object)
    }

    /// An error of values as one of the file that they come from.
    pub fn blame(&self, error: ModelError) -> ModelError {
        match error {
            ModelError::Argument { argument, found, expected } => {
                ModelError::config(self.file, argument, found, expected)
            }
            other => other,
        }
    }

    /// The first of alternative names that is there, at the top or within `metadata`, and its path.
    pub fn find(&self, names: &[&str]) -> Option<(String, &'a Value)> {
        let at = |prefix: &str, map: &'a Map<String, Value>| {
            let found = names.iter().find_map(|&name| Some((name, map.get(name).filter(|v| !v.is_null())?)));
            found.map(|(name, value)| (format!("{prefix}{name}"), value))
        };
        at("", self.json).or_else(|| at("metadata.", self.metadata()?))
    }

    /// A whole number from 0.
    pub fn count(&self, names: &[&str]) -> Result<Option<usize>> {
        let Some((field, value)) = self.find(names) else { return Ok(None) };
        match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(count) => Ok(Some(count)),
            None => Err(ModelError::config(self.file, field, value, "a whole number")),
        }
    }

    /// A size that must be there: 1 or more.
    pub fn size(&self, name: &str) -> Result<usize> {
        let range = 1..=crate::config::MAX_DIM;
        match self.count(&[name])? {
            Some(size) if range.contains(&size) => Ok(size),
            Some(size) => Err(ModelError::config(self.file, name, size, format!("1 to {}", range.end()))),
            None => Err(ModelError::config(self.file, name, "absent", "a whole number")),
        }
    }

    /// A string.
    pub fn text(&self, names: &[&str]) -> Result<Option<&'a str>> {
        let Some((field, value)) = self.find(names) else { return Ok(None) };
        match value {
            Value::String(text) => Ok(Some(text)),
            other => Err(ModelError::config(self.file, field, other, "a string")),
        }
    }

    /// A truth value, `default` where it is absent.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.find(&[name]) {
            None => Ok(default),
            Some((_, Value::Bool(flag))) => Ok(*flag),
            Some((field, other)) => Err(ModelError::config(self.file, field, other, "true or false")),
        }
    }
}
