//! The two edges of decoding: the file system before it, foreign code inside it.

use std::any::Any;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::AudioError;

/// Opens a regular, non-empty file.
pub(crate) fn open_file(path: &Path) -> Result<File, AudioError> {
    let open = |source| AudioError::Open { path: path.to_owned(), source };
    // Before opening: opening a pipe would wait for a writer.
    let meta = std::fs::metadata(path).map_err(open)?;
    if !meta.is_file() {
        let found = if meta.is_dir() { "directory" } else { "pipe or device" };
        return Err(AudioError::NotAFile { path: path.to_owned(), found });
    }
    if meta.len() == 0 {
        return Err(AudioError::ZeroBytes { path: path.to_owned() });
    }
    File::open(path).map_err(open)
}

/// Runs one step of foreign code; a panic in it becomes an error of the file.
pub(crate) fn guarded<T>(
    path: &Path,
    doing: &'static str,
    step: impl FnOnce() -> T,
) -> Result<T, AudioError> {
    // What a panic leaves half changed is not used again: the error ends the stream.
    catch_unwind(AssertUnwindSafe(step)).map_err(|payload| AudioError::Panicked {
        path: path.to_owned(),
        doing,
        message: panic_message(&*payload),
    })
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
