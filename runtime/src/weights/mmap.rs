//! Bytes on the host that are shared, not copied: parts of a mapped file, or of memory of our own.
//!
//! The only unsafe code of weight loading is here. A map shows the file as it is at each moment: a file that someone
//! truncates meanwhile kills the reader with a bus error, and one that someone rewrites changes under it. This program
//! never writes into a file that exists (see [`crate::files`]), so its own outputs are safe to map.

use super::error::{Problem, WeightsError};
use crate::files::{FileError, open_regular};
use memmap2::{Mmap, MmapOptions};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A regular file, mapped read-only in its whole length.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps a file; symbolic links are followed.
    ///
    /// # Errors
    /// [`WeightsError::File`] if it cannot be opened or mapped or is no regular file; [`WeightsError::Format`] if it is
    /// empty, or its length changes while it is being mapped.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        let path = path.as_ref();
        let (file, length) = open_regular(path)?;
        let bytes = match usize::try_from(length) {
            Ok(0) => return Err(Problem::file("an empty file", "a safetensors file").at(path)),
            Ok(bytes) => bytes,
            Err(_) => {
                let found = format!("a file of {length} bytes");
                return Err(Problem::file(found, "fewer bytes than an address can count").at(path));
            }
        };
        let map = map_read_only(&file, bytes).map_err(|e| FileError::io(path, "map", e))?;
        let after = file.metadata().map_err(|e| FileError::io(path, "map", e))?.len();
        if after != length {
            let found = format!("a file that changed from {length} to {after} bytes while being opened");
            return Err(Problem::file(found, "a file at rest").at(path));
        }
        Ok(Self { path: path.to_path_buf(), map })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// Maps the first `bytes` bytes of `file`.
#[allow(unsafe_code)]
fn map_read_only(file: &File, bytes: usize) -> io::Result<Mmap> {
    let mut options = MmapOptions::new();
    options.len(bytes);
    // SAFETY: the map is read-only, and `bytes` is the length that `open_regular` reported for this open regular file
    // (`MappedFile::open`, the only caller), so every page is backed. What remains is that nobody truncates or rewrites
    // the file while it is mapped: no process can enforce that against others; this one only ever replaces files by
    // renaming (`files.rs`), which leaves the mapped one intact.
    unsafe { options.map(file) }
}

/// Bytes on the host behind a counted reference: cloning is cheap, and the memory or the map lives as long as the last
/// clone. Read-only.
#[derive(Clone)]
pub struct HostBytes {
    owner: Owner,
    range: Range<usize>,
}

#[derive(Clone)]
enum Owner {
    Mapped(Arc<MappedFile>),
    Bytes(Arc<Vec<u8>>),
    Floats(Arc<Vec<f32>>),
}

impl HostBytes {
    /// A whole mapped file.
    pub fn from_mapped(file: Arc<MappedFile>) -> Self {
        let range = 0..file.len();
        Self { owner: Owner::Mapped(file), range }
    }

    /// Takes memory without copying it. Nothing is promised of its alignment.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Owner::Bytes(Arc::new(bytes)), range }
    }

    /// Takes floats without copying them; aligned to 4.
    pub fn from_f32s(values: Vec<f32>) -> Self {
        let range = 0..size_of_val(values.as_slice());
        Self { owner: Owner::Floats(Arc::new(values)), range }
    }

    /// A part of these bytes, sharing their memory; `None` if `range` (counted from the start of these) leaves them.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.range.len() {
            return None;
        }
        let range = self.range.start + range.start..self.range.start + range.end;
        Some(Self { owner: self.owner.clone(), range })
    }

    /// Whether the first byte's address is a multiple of `alignment` (not 0).
    pub fn is_aligned_to(&self, alignment: usize) -> bool {
        self.as_ptr().addr().is_multiple_of(alignment)
    }

    /// Whether the bytes lie in a mapped file rather than in memory of our own.
    pub fn is_mapped(&self) -> bool {
        matches!(self.owner, Owner::Mapped(_))
    }
}

impl Deref for HostBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.owner {
            Owner::Mapped(file) => file,
            Owner::Bytes(bytes) => bytes,
            Owner::Floats(values) => bytemuck::cast_slice(values),
        };
        &all[self.range.clone()]
    }
}

impl AsRef<[u8]> for HostBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for HostBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = match &self.owner {
            Owner::Mapped(file) => format!("{}", file.path().display()),
            Owner::Bytes(_) | Owner::Floats(_) => "memory".to_string(),
        };
        write!(f, "HostBytes({owner}, {:?})", self.range)
    }
}
