//! The audio of a run: files named one by one, or the rows of a manifest.

mod manifest;

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};

use auscult_runtime::files::sha256_bytes;
use serde::Serialize;

pub use manifest::from_manifest;

use crate::error::{AnalysisError, Result};
use crate::store::InputsMeta;

/// A recording to be read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Input {
    /// Its name, unique among the inputs.
    pub track_id: String,
    /// The file as the user named it: what records say.
    pub audio_path: String,
    /// Where to read it.
    #[serde(skip)]
    pub path: PathBuf,
    /// SHA-256 that the file must have, if one is promised.
    pub sha256: Option<String>,
    /// The parts to read, each cut by itself; empty: what the run's options say.
    pub ranges: Vec<Range>,
}

/// A part of a recording, in seconds from its start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Range {
    /// Where it starts.
    pub start: f64,
    /// Where it ends; none: with the recording.
    pub end: Option<f64>,
}

/// What a store records of its inputs, so that a run is not taken up again with others.
pub fn inputs_meta(inputs: &[Input]) -> InputsMeta {
    let text = serde_json::to_vec(inputs).expect("inputs have string keys and finite numbers");
    InputsMeta { count: inputs.len(), sha256: sha256_bytes(&text) }
}

/// Files named one by one. A track is called as its path from the directory that all files share, without the
/// extension; files that only their extensions tell apart keep them.
///
/// # Errors
/// [`AnalysisError::Usage`] for no files, a file named twice, or a path that is not UTF-8.
pub fn from_paths(paths: &[PathBuf]) -> Result<Vec<Input>> {
    const OPTION: &str = "AUDIO";
    if paths.is_empty() {
        return Err(AnalysisError::usage(OPTION, "empty", "at least one audio file"));
    }
    let mut full = Vec::with_capacity(paths.len());
    let mut seen = HashSet::new();
    for path in paths {
        let shown = format!("`{}`", path.display());
        if path.to_str().is_none() {
            return Err(AnalysisError::usage(OPTION, shown, "a path in UTF-8"));
        }
        let parts =
            absolute(path).map_err(|e| AnalysisError::usage(OPTION, &shown, format!("a path ({e})")))?;
        if parts.is_empty() {
            return Err(AnalysisError::usage(OPTION, shown, "a file"));
        }
        if !seen.insert(parts.clone()) {
            return Err(AnalysisError::usage(OPTION, shown, "each file once"));
        }
        full.push(parts);
    }
    let shared = shared_directories(&full);
    let stem = |parts: &[String]| {
        let name = parts.join("/");
        let file = parts.last().map_or("", String::as_str);
        match Path::new(file).extension().and_then(|e| e.to_str()) {
            Some(extension) => name[..name.len() - extension.len() - 1].to_string(),
            None => name,
        }
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for parts in &full {
        *counts.entry(stem(&parts[shared..])).or_default() += 1;
    }
    let input = |(path, parts): (&PathBuf, &Vec<String>)| {
        let parts = &parts[shared..];
        let stem = stem(parts);
        let track_id = if counts[&stem] > 1 { parts.join("/") } else { stem };
        let audio_path = path.to_str().expect("checked above").to_string();
        Input { track_id, audio_path, path: path.clone(), sha256: None, ranges: Vec::new() }
    };
    let inputs: Vec<Input> = paths.iter().zip(&full).map(input).collect();
    // `a` beside `a.wav` and `a.mp3`: nothing left to tell them apart by
    let mut names = HashSet::new();
    match inputs.iter().find(|input| !names.insert(&input.track_id)) {
        None => Ok(inputs),
        Some(input) => Err(AnalysisError::usage(
            OPTION,
            format!("`{}`", input.audio_path),
            format!(
                "files of different names; `{}` is taken (a manifest names tracks as it likes)",
                input.track_id
            ),
        )),
    }
}

/// The names along an absolute path, `.` and `..` resolved without looking at the disk.
fn absolute(path: &Path) -> std::io::Result<Vec<String>> {
    let mut parts = Vec::new();
    for part in std::path::absolute(path)?.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(parts)
}

/// How many leading directories all paths share.
fn shared_directories(paths: &[Vec<String>]) -> usize {
    let Some((first, rest)) = paths.split_first() else { return 0 };
    let directories = |path: &[String]| path.len() - 1;
    rest.iter().fold(directories(first), |shared, path| {
        let same = first.iter().zip(path).take_while(|(a, b)| a == b).count();
        shared.min(same).min(directories(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(paths: &[&str]) -> Vec<String> {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        from_paths(&paths).unwrap().into_iter().map(|input| input.track_id).collect()
    }

    #[test]
    fn tracks_are_named_from_the_shared_directory() {
        for (paths, expected, reason) in [
            (vec!["m/a.wav"], vec!["a"], "one file is its stem"),
            (vec!["m/a.wav", "m/b.flac"], vec!["a", "b"], "one directory"),
            (vec!["m/x/a.wav", "m/y/a.wav"], vec!["x/a", "y/a"], "two directories"),
            (vec!["/m/x/a.wav", "/m/a.wav"], vec!["x/a", "a"], "a directory and its parent"),
            (vec!["m/a.wav", "m/a.mp3", "m/b.mp3"], vec!["a.wav", "a.mp3", "b"], "extensions tell apart"),
            (vec!["m/../m/a.b.wav", "./m/c"], vec!["a.b", "c"], "dots, and no extension"),
            (vec!["00/7400.low.mp3"], vec!["7400.low"], "only the last extension goes"),
        ] {
            assert_eq!(ids(&paths), expected, "{reason}");
        }
    }

    #[test]
    fn bad_lists_are_usage_errors() {
        for (paths, part) in [
            (vec![], "at least one"),
            (vec!["a.wav", "./a.wav"], "each file once"),
            (vec!["/"], "a file"),
            (vec!["a.wav", "a.mp3", "a.wav.flac"], "`a.wav` is taken"),
        ] {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            let error = from_paths(&paths).unwrap_err();
            assert_eq!(error.category(), crate::Category::Usage);
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn the_digest_sees_names_and_ranges_but_not_the_root() {
        let input = |track: &str, path: &str, end| Input {
            track_id: track.into(),
            audio_path: "a.wav".into(),
            path: path.into(),
            sha256: None,
            ranges: vec![Range { start: 0.0, end }],
        };
        let meta = inputs_meta(&[input("a", "/x/a.wav", None)]);
        assert_eq!(meta, inputs_meta(&[input("a", "/y/a.wav", None)]));
        assert_ne!(meta, inputs_meta(&[input("b", "/x/a.wav", None)]));
        assert_ne!(meta, inputs_meta(&[input("a", "/x/a.wav", Some(1.0))]));
    }
}
