//! Manifests: JSON lines, one recording each.
//!
//! A row has `track_id` and `audio_path`, relative to the audio root. It may have `sha256` (or `audio_sha256`), and say
//! which parts to read: `windows`, a list of `{"start_seconds": 0, "end_seconds": 10}`, or `start` and `duration` in
//! seconds. Other fields are left alone, so that manifests of other programs can be used as they are; in particular
//! `duration_seconds` is a recording's length, not a part of it.

use std::collections::HashMap;
use std::path::{Component, Path};

use serde_json::{Map, Value};

use super::{Input, Range};
use crate::error::{AnalysisError, Result};

/// A row and where it stands, for messages.
struct Row<'a> {
    path: &'a Path,
    line: usize,
    fields: Map<String, Value>,
}

impl Row<'_> {
    fn bad(&self, field: &str, found: impl ToString, expected: impl Into<String>) -> AnalysisError {
        AnalysisError::Manifest {
            path: self.path.to_path_buf(),
            line: self.line,
            field: field.to_string(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    /// A field that is there and not null.
    fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<&str> {
        match self.field(name) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            other => {
                let found = other.map_or("absent".to_string(), Value::to_string);
                Err(self.bad(name, found, "a string that is not empty"))
            }
        }
    }

    fn seconds(&self, name: &str, value: Option<&Value>) -> Result<Option<f64>> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
        match value.as_f64() {
            Some(seconds) if seconds.is_finite() && seconds >= 0.0 => Ok(Some(seconds)),
            _ => Err(self.bad(name, value, "a time in seconds of at least 0")),
        }
    }

    fn range(&self, name: &str, start: f64, end: Option<f64>) -> Result<Range> {
        match end {
            Some(end) if end <= start => {
                Err(self.bad(name, format!("{start} s to {end} s"), "an end after the start"))
            }
            end => Ok(Range { start, end }),
        }
    }

    fn ranges(&self) -> Result<Vec<Range>> {
        if let Some(windows) = self.field("windows") {
            let expected = "a list of one or more `{\"start_seconds\": .., \"end_seconds\": ..}`";
            let list = windows.as_array().filter(|list| !list.is_empty());
            let list = list.ok_or_else(|| self.bad("windows", windows, expected))?;
            let mut ranges = Vec::with_capacity(list.len());
            for (at, window) in list.iter().enumerate() {
                let name = format!("windows[{at}]");
                let start = self.seconds(&format!("{name}.start_seconds"), window.get("start_seconds"))?;
                let end = self.seconds(&format!("{name}.end_seconds"), window.get("end_seconds"))?;
                let (Some(start), Some(end)) = (start, end) else {
                    return Err(self.bad(&name, window, expected));
                };
                let range = self.range(&name, start, Some(end))?;
                if ranges.contains(&range) {
                    return Err(self.bad(&name, window, "each window once"));
                }
                ranges.push(range);
            }
            return Ok(ranges);
        }
        let start = self.seconds("start", self.field("start"))?;
        let duration = self.seconds("duration", self.field("duration"))?;
        if start.is_none() && duration.is_none() {
            return Ok(Vec::new());
        }
        let start = start.unwrap_or(0.0);
        Ok(vec![self.range("duration", start, duration.map(|duration| start + duration))?])
    }

    fn hash(&self) -> Result<Option<String>> {
        let Some(name) = ["sha256", "audio_sha256"].into_iter().find(|name| self.field(name).is_some())
        else {
            return Ok(None);
        };
        let hash = self.text(name)?.to_ascii_lowercase();
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(self.bad(name, format!("`{hash}`"), "64 hexadecimal digits"));
        }
        Ok(Some(hash))
    }

    /// A name that can be a directory: no control characters, no empty, `.` or `..` parts.
    fn track(&self) -> Result<String> {
        let track = self.text("track_id")?;
        let plain = |part: &str| !matches!(part, "" | "." | "..");
        if track.chars().any(char::is_control) || !track.split(['/', '\\']).all(plain) {
            let expected = "a name without control characters whose parts are not empty, `.` or `..`";
            return Err(self.bad("track_id", Value::from(track), expected));
        }
        Ok(track.to_string())
    }
}

/// Reads a manifest whose audio lies below `audio_root`.
///
/// # Errors
/// [`AnalysisError::Input`] for a manifest or root that cannot be read; [`AnalysisError::Manifest`] for rows that are no
/// JSON objects, lack a field or hold a bad one, name a track twice, or a path that leads out of the root, be it by `..`
/// or by a symbolic link. That a file is missing is found when it is read.
pub fn from_manifest(manifest: impl AsRef<Path>, audio_root: impl AsRef<Path>) -> Result<Vec<Input>> {
    let (path, root) = (manifest.as_ref(), audio_root.as_ref());
    let text = std::fs::read_to_string(path)
        .map_err(|e| AnalysisError::input(path, "manifest", e, "a readable file of JSON lines in UTF-8"))?;
    let real_root = root
        .canonicalize()
        .ok()
        .filter(|root| root.is_dir())
        .ok_or_else(|| AnalysisError::input(root, "--audio-root", "no directory", "a directory"))?;
    let mut inputs = Vec::new();
    let mut lines = HashMap::new();
    for (at, text) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        if text.trim().is_empty() {
            continue;
        }
        let empty = Row { path, line: at + 1, fields: Map::new() };
        let fields = match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(empty.bad("row", "no object", "a JSON object")),
            Err(error) => return Err(empty.bad("row", format!("broken ({error})"), "a JSON object")),
        };
        let row = Row { fields, ..empty };
        let track_id = row.track()?;
        if let Some(first) = lines.insert(track_id.clone(), row.line) {
            let expected = format!("each track once; line {first} has it too");
            return Err(row.bad("track_id", Value::from(track_id), expected));
        }
        let audio_path = row.text("audio_path")?.to_string();
        let relative = Path::new(&audio_path);
        let below =
            relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !below {
            let expected = "a path relative to the audio root, without `..`";
            return Err(row.bad("audio_path", Value::from(audio_path), expected));
        }
        let file = root.join(relative);
        if let Ok(real) = file.canonicalize()
            && !real.starts_with(&real_root)
        {
            let found = format!("{} (a link to {})", Value::from(audio_path), real.display());
            return Err(row.bad("audio_path", found, "a file below the audio root"));
        }
        let (sha256, ranges) = (row.hash()?, row.ranges()?);
        inputs.push(Input { track_id, audio_path, path: file, sha256, ranges });
    }
    if inputs.is_empty() {
        return Err(AnalysisError::input(path, "manifest", "without rows", "at least one row"));
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Input>> {
        let dir = tempfile::tempdir().unwrap();
        let manifest = dir.path().join("m.jsonl");
        std::fs::write(&manifest, text).unwrap();
        from_manifest(manifest, dir.path())
    }

    #[test]
    fn rows_of_other_programs_are_read_unchanged() {
        // a row as published MusicGen experiments write it: prefix and generation windows are not capture windows, and
        // `duration_seconds` is the length of the recording
        let row = r#"{"audio_path":"00/7400.low.mp3","duration_seconds":146.1,"generation_window":{"end_seconds":40,"start_seconds":10},"instrument_tags":["piano"],"license":"CC","prefix_window":{"end_seconds":10,"start_seconds":0},"source_dataset":"MTG-Jamendo","source_url":"https://x","tags":[],"track_id":"track_0007400"}"#;
        let inputs = read(&format!("{row}\n\n")).unwrap();
        assert_eq!(inputs.len(), 1);
        assert_eq!(
            (inputs[0].track_id.as_str(), inputs[0].audio_path.as_str()),
            ("track_0007400", "00/7400.low.mp3")
        );
        assert_eq!((&inputs[0].sha256, inputs[0].ranges.len()), (&None, 0));
        assert!(inputs[0].path.ends_with("00/7400.low.mp3"));
    }

    #[test]
    fn hashes_and_ranges_are_read() {
        let hash = "AB".repeat(32);
        let text = format!(
            "{}\n{}\n",
            format_args!(
                r#"{{"track_id":"a","audio_path":"a.wav","sha256":"{hash}","windows":[{{"start_seconds":1,"end_seconds":2.5}},{{"start_seconds":0,"end_seconds":1}}]}}"#
            ),
            r#"{"track_id":"b/c","audio_path":"./b.wav","start":2,"duration":3,"sha256":null}"#
        );
        let inputs = read(&text).unwrap();
        assert_eq!(inputs[0].sha256.as_deref(), Some("ab".repeat(32).as_str()));
        let range = |start, end| Range { start, end: Some(end) };
        assert_eq!(inputs[0].ranges, [range(1.0, 2.5), range(0.0, 1.0)]);
        assert_eq!(inputs[1].ranges, [range(2.0, 5.0)]);
    }

    #[test]
    fn bad_rows_name_line_and_field() {
        for (row, field, reason) in [
            ("[1]", "row", "no object"),
            ("{", "row", "no JSON"),
            (r#"{"audio_path":"a"}"#, "track_id", "absent"),
            (r#"{"track_id":"","audio_path":"a"}"#, "track_id", "empty"),
            (r#"{"track_id":7,"audio_path":"a"}"#, "track_id", "a number"),
            (r#"{"track_id":"../x","audio_path":"a"}"#, "track_id", "leads up"),
            (r#"{"track_id":"x\u0000","audio_path":"a"}"#, "track_id", "control character"),
            (r#"{"track_id":"first","audio_path":"a"}"#, "track_id", "named before"),
            (r#"{"track_id":"a"}"#, "audio_path", "absent"),
            (r#"{"track_id":"a","audio_path":"/etc/passwd"}"#, "audio_path", "absolute"),
            (r#"{"track_id":"a","audio_path":"x/../../y"}"#, "audio_path", "leads up"),
            (r#"{"track_id":"a","audio_path":"a","sha256":"12"}"#, "sha256", "short hash"),
            (r#"{"track_id":"a","audio_path":"a","start":-1}"#, "start", "negative"),
            (r#"{"track_id":"a","audio_path":"a","duration":0}"#, "duration", "nothing left"),
            (r#"{"track_id":"a","audio_path":"a","windows":[]}"#, "windows", "no windows"),
            (r#"{"track_id":"a","audio_path":"a","windows":[{"start_seconds":1}]}"#, "windows[0]", "no end"),
            (
                r#"{"track_id":"a","audio_path":"a","windows":[{"start_seconds":2,"end_seconds":1}]}"#,
                "windows[0]",
                "backwards",
            ),
        ] {
            let text = format!("{}\n{row}\n", r#"{"track_id":"first","audio_path":"f.wav"}"#);
            let error = read(&text).expect_err(reason);
            assert_eq!(error.category(), crate::Category::BadInput, "{reason}");
            let text = error.to_string();
            assert!(text.contains("line 2") && text.contains(&format!("`{field}`")), "{reason}: {text}");
        }
        assert!(read("\n").unwrap_err().to_string().contains("without rows"));
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_the_root_are_refused() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = outside.path().join("s.wav");
        std::fs::write(&secret, b"x").unwrap();
        std::os::unix::fs::symlink(&secret, dir.path().join("file.wav")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("in.wav"), b"x").unwrap();
        std::os::unix::fs::symlink("in.wav", dir.path().join("inner.wav")).unwrap();
        let manifest = outside.path().join("m.jsonl");
        let read = |audio: &str| {
            std::fs::write(&manifest, format!(r#"{{"track_id":"a","audio_path":"{audio}"}}"#)).unwrap();
            from_manifest(&manifest, dir.path())
        };
        for audio in ["file.wav", "sub/s.wav"] {
            assert!(read(audio).unwrap_err().to_string().contains("below the audio root"), "{audio}");
        }
        assert_eq!(read("inner.wav").unwrap().len(), 1);
        assert_eq!(read("missing.wav").unwrap().len(), 1, "found missing when it is read");
    }
}
