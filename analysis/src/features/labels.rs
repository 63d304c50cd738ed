//! What a track is, as a person said: `track_id` and `label`, in a table or in JSON lines.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{AnalysisError, Result};

/// The classes of tracks.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels {
    names: Vec<String>,
    of_track: BTreeMap<String, usize>,
}

/// A class, and the tracks of a store that are in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassCount {
    /// Its label.
    pub label: String,
    /// Tracks.
    pub tracks: u32,
}

/// A row of JSON lines; other fields are not looked at.
#[derive(Deserialize)]
struct Row {
    track_id: String,
    label: String,
}

impl Labels {
    /// Reads `.jsonl` with `track_id` and `label`, or `.csv` with a header that names these two columns; other columns are
    /// not looked at. A cell of CSV may stand in quotation marks.
    ///
    /// # Errors
    /// [`AnalysisError::Input`] with the line: what is no row, a track with two labels, fewer than two classes.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| AnalysisError::input(path, "file", e, "a readable file in UTF-8"))?;
        // spreadsheets write a byte-order mark
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let rows = match path.extension().and_then(|e| e.to_str()) {
            Some("jsonl") => json_lines(path, text)?,
            Some("csv") => table(path, text)?,
            _ => {
                let expected = "a name that ends in .jsonl or .csv";
                return Err(AnalysisError::input(path, "name", path.display(), expected));
            }
        };
        let mut names: Vec<String> = rows.iter().map(|(_, row)| row.label.clone()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() < 2 {
            let found = format!("{} ({})", names.len(), names.join(", "));
            return Err(AnalysisError::input(path, "labels", found, "at least two different ones"));
        }
        let mut of_track = BTreeMap::new();
        for (line, Row { track_id, label }) in rows {
            let class = names.binary_search(&label).expect("all labels are among the names");
            if let Some(other) = of_track.insert(track_id.clone(), class)
                && other != class
            {
                let found = format!("`{label}` of `{track_id}`");
                let expected = format!("`{}`, as an earlier line says", names[other]);
                return Err(AnalysisError::input(path, format!("line {line}"), found, expected));
            }
        }
        Ok(Self { names, of_track })
    }

    /// How many classes there are.
    pub fn classes(&self) -> usize {
        self.names.len()
    }

    /// The label of a class.
    pub fn name(&self, class: usize) -> &str {
        &self.names[class]
    }

    /// The class of a track.
    pub fn class(&self, track_id: &str) -> Option<usize> {
        self.of_track.get(track_id).copied()
    }

    /// The tracks that have a label.
    pub fn tracks(&self) -> impl Iterator<Item = &str> {
        self.of_track.keys().map(String::as_str)
    }
}

fn json_lines(path: &Path, text: &str) -> Result<Vec<(usize, Row)>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            let row = serde_json::from_str(line).map_err(|e| {
                AnalysisError::input(
                    path,
                    format!("line {}", at + 1),
                    e,
                    "an object with `track_id` and `label`",
                )
            })?;
            Ok((at + 1, row))
        })
        .collect()
}

fn table(path: &Path, text: &str) -> Result<Vec<(usize, Row)>> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let header = lines.next().map_or(Vec::new(), |(_, line)| cells(line));
    let column = |name: &str| {
        header.iter().position(|cell| cell == name).ok_or_else(|| {
            AnalysisError::input(path, "columns", header.join(", "), format!("one called `{name}`"))
        })
    };
    let (track, label) = (column("track_id")?, column("label")?);
    lines
        .map(|(at, line)| {
            let cells = cells(line);
            match (cells.get(track), cells.get(label)) {
                (Some(track_id), Some(label)) => {
                    Ok((at + 1, Row { track_id: track_id.clone(), label: label.clone() }))
                }
                _ => {
                    let expected = format!("{}, as in the header", header.len());
                    Err(AnalysisError::input(path, format!("line {}: cells", at + 1), cells.len(), expected))
                }
            }
        })
        .collect()
}

/// The cells of a line of CSV; a quotation mark in quotation marks is doubled.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        let cell = cells.last_mut().expect("there is one from the start");
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            c => cell.push(c),
        }
    }
    cells.iter().map(|cell| cell.trim().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Labels, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Labels::read(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn tables_and_lines_say_the_same() {
        let lines = "{\"track_id\": \"a\", \"label\": \"sad\", \"by\": 1}\n\n{\"track_id\": \"b, c\", \"label\": \"glad\"}\n";
        let table = "label,other,track_id\nsad,,a\nglad,x,\"b, c\"\n";
        let labels = read("l.jsonl", lines).unwrap();
        assert_eq!(labels, read("l.csv", table).unwrap());
        assert_eq!(labels, read("l.csv", &format!("\u{feff}{table}")).unwrap());
        assert_eq!((labels.classes(), labels.name(0), labels.class("b, c")), (2, "glad", Some(0)));
        assert_eq!((labels.class("a"), labels.class("x")), (Some(1), None));
    }

    #[test]
    fn what_is_no_label_is_named() {
        let error = |name: &str, text: &str| read(name, text).unwrap_err();
        assert!(error("l.csv", "track_id,class\n").contains("one called `label`"));
        assert!(error("l.csv", "track_id,label\na,x\nb\n").contains("line 3: cells"));
        assert!(error("l.jsonl", "{\"track_id\": 1}").contains("line 1"));
        assert!(error("l.csv", "track_id,label\na,x\nb,x\n").contains("at least two"));
        assert!(error("l.csv", "track_id,label\na,x\na,y\n").contains("`x`, as an earlier line says"));
        assert!(error("l.txt", "").contains(".jsonl or .csv"));
    }
}
