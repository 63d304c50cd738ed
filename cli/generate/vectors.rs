//! Directions and rows from files: a vector of the stream's width, or the rows of another run.

use super::edits::{Hook, Source};
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::{FileRecord, InputRecord};
use auscult_analysis::store::{INDEX_JSONL, SHA256SUMS, STORE_JSON, StoreReader};
use auscult_runtime::weights::{WeightView, Weights};
use std::sync::Arc;

/// What was read, and the files it is from.
pub struct Loaded {
    /// f32, row after row.
    pub values: Arc<[f32]>,
    pub files: Vec<InputRecord>,
}

/// A vector `[width]` or `[1, width]` of finite floats.
///
/// # Errors
/// A file that does not open, holds no such tensor, or several without a name to choose by.
pub fn vector(source: &Source, width: usize) -> Result<Loaded> {
    let file = Weights::open(&source.path)?;
    let view = tensor(&file, source)?;
    match view.shape {
        [found] | [1, found] if *found == width => {}
        shape => return Err(misshapen(source, &view, shape, &format!("[{width}], the width at the site"))),
    }
    loaded(source, &view)
}

/// Rows `[positions, width]` of another run: a tensor of a safetensors file, or a clip of a store.
///
/// # Errors
/// As [`vector`]; a store without the hook or the clip, or several clips and none named.
pub fn rows(source: &Source, hook: &Hook, width: usize) -> Result<Loaded> {
    if source.path.is_dir() {
        return of_store(source, hook, width);
    }
    let file = Weights::open(&source.path)?;
    let view = tensor(&file, source)?;
    match view.shape {
        [rows, found] if *found == width && *rows > 0 => {}
        shape => {
            let expected = format!("[positions, {width}], the width at the site");
            return Err(misshapen(source, &view, shape, &expected));
        }
    }
    loaded(source, &view)
}

fn of_store(source: &Source, hook: &Hook, width: usize) -> Result<Loaded> {
    let store = StoreReader::open(&source.path)?;
    let clip = match (&source.part, store.clips()) {
        (Some(clip), _) => store.clip(clip)?.clip_id.clone(),
        (None, [only]) => only.clip_id.clone(),
        (None, clips) => {
            let message = format!(
                "{}: holds {} clips, expected the name of one behind `#`, such as `{}`",
                source.path.display(),
                clips.len(),
                clips.first().map_or("track@0-32000", |clip| &clip.clip_id)
            );
            return Err(Failure::usage(message));
        }
    };
    let found = store.hook(&hook.site.to_string())?;
    if found.width != width {
        let message = format!(
            "{}: rows of `{}` have {} values, expected {width}, the width at the site",
            source.path.display(),
            found.hook,
            found.width
        );
        return Err(Failure::refused(message));
    }
    let values: Arc<[f32]> = store.rows(&found.hook, &clip)?.into();
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        let message = format!(
            "{}: clip `{clip}` holds {} at row {}, expected finite values",
            source.path.display(),
            values[at],
            at / width
        );
        return Err(Failure::input(message));
    }
    // its sums hold the hashes of everything else
    let files = [STORE_JSON, INDEX_JSONL, SHA256SUMS].into_iter();
    let files =
        files.map(|name| Ok(InputRecord { file: FileRecord::of(source.path.join(name))?, audio: None }));
    Ok(Loaded { values, files: files.collect::<Result<_>>()? })
}

/// The tensor that is named, or the only one.
fn tensor<'w>(file: &'w Weights, source: &Source) -> Result<WeightView<'w>> {
    let path = source.path.display();
    let names: Vec<&str> = file.names().collect();
    let name = match (&source.part, names.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => *only,
        (None, _) => {
            let message =
                format!("{path}: holds {} tensors, expected one, or the name of one behind `#`", names.len());
            return Err(Failure::input(message));
        }
    };
    file.get(name).ok_or_else(|| {
        Failure::input(format!("{path}: has no tensor `{name}`, expected one of {}", names.join(", ")))
    })
}

fn misshapen(source: &Source, view: &WeightView<'_>, shape: &[usize], expected: &str) -> anyhow::Error {
    let path = source.path.display();
    Failure::input(format!("{path}: tensor `{}` has shape {shape:?}, expected {expected}", view.name))
}

fn loaded(source: &Source, view: &WeightView<'_>) -> Result<Loaded> {
    let values = view.to_f32()?;
    if let Some((at, value)) = view.first_non_finite() {
        let path = source.path.display();
        let message = format!("{path}: tensor `{}` holds {value} at {at}, expected finite values", view.name);
        return Err(Failure::input(message));
    }
    let files = vec![InputRecord { file: FileRecord::of(&source.path)?, audio: None }];
    Ok(Loaded { values: values.into(), files })
}
