//! Archives written by `torch.save`: a zip with one pickle that describes the tensors and one file for each storage.
//!
//! Layout (torch `serialization.py`, `_save`): everything lies under one folder; `data.pkl` is the pickle, `data/<key>`
//! holds the little-endian numbers of a storage, `byteorder` (since torch 2.1) says `little` or `big`. Archives without
//! that folder structure (TorchScript, the format before torch 1.6) are refused.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use auscult_runtime::files::{FileError, open_regular};
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{MAX_PICKLE_BYTES, Pickle, PickleError, TensorView, Value};
use crate::error::{ModelError, Result};
use crate::output::FillError;

/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;
/// Deflate cannot shrink data by more than this factor (zlib manual), so a larger claim is a lie.
pub(crate) const MAX_DEFLATE_RATIO: u64 = 1032;

/// An open `torch.save` archive: its values are in memory, its numbers are read when asked for.
#[derive(Debug)]
pub struct TorchFile {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
    /// The archive's folder with its slash.
    folder: String,
    length: u64,
    pickle: Pickle,
    /// Storages whose checksum has been verified.
    verified: HashSet<String>,
}

/// What is wrong with a file that could not be opened, without its path.
fn unreadable(error: &FileError) -> String {
    match error {
        FileError::Io { action, error, .. } => format!("cannot {action}: {error}, expected a readable file"),
        FileError::NotRegular { found, .. } => format!("is {found}, expected a regular file"),
        other => other.to_string(),
    }
}

impl TorchFile {
    /// Opens the archive and reads its pickle. No code of the file is run, whatever it holds.
    ///
    /// # Errors
    /// [`ModelError::Refused`] when the pickle asks for anything but tensor data; [`ModelError::File`] for other kinds
    /// of files and for damaged or unreadable ones.
    pub fn open(path: &Path) -> Result<Self> {
        let opened = open_regular(path);
        // an input that cannot be read is the input's fault; `ModelError::Write` would blame the destination
        let (mut file, length) = opened.map_err(|e| ModelError::file(path, unreadable(&e)))?;
        check_magic(path, &mut file)?;
        let mut archive = ZipArchive::new(BufReader::with_capacity(CHUNK, file))
            .map_err(|e| ModelError::file(path, format!("is a damaged zip archive: {e}")))?;
        let folder = find_folder(path, &archive)?;
        let inner = |name: &str| format!("{folder}{name}");
        if archive.index_for_name(&inner("constants.pkl")).is_some() {
            return Err(ModelError::file(
                path,
                "is a TorchScript archive, which holds code; expected a state dict",
            ));
        }
        if archive.index_for_name(&inner("byteorder")).is_some() {
            let order = read_small(path, &mut archive, &inner("byteorder"), 16)?;
            if order != b"little" {
                return Err(ModelError::file(path, "holds big-endian numbers, expected little-endian ones"));
            }
        }
        let bytes = read_small(path, &mut archive, &inner("data.pkl"), MAX_PICKLE_BYTES)?;
        let pickle = Pickle::read(&bytes).map_err(|e| match e {
            PickleError::Refused(global) => ModelError::Refused { file: path.to_path_buf(), global },
            PickleError::Malformed(what) => ModelError::file(path, format!("data.pkl: found {what}")),
        })?;
        Ok(Self { path: path.to_path_buf(), archive, folder, length, pickle, verified: HashSet::new() })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value that was saved.
    pub fn root(&self) -> Value<'_> {
        self.pickle.root()
    }

    /// Checks that the storage of `view` is in the archive and as long as the pickle says, without reading it.
    ///
    /// # Errors
    /// [`ModelError::File`] naming the storage.
    pub fn check(&mut self, view: &TensorView) -> Result<()> {
        self.find(view).map(|_| ())
    }

    /// Writes the elements of `view` in row-major order, as [`super::TorchDType::written_as`]. A contiguous view is
    /// streamed; for a strided one the part of its storage between its first and last element is held in memory. The
    /// archive's checksum of a storage is verified the first time that one of its tensors is copied.
    ///
    /// # Errors
    /// The archive is damaged, or `out` fails.
    pub fn copy(&mut self, view: &TensorView, out: &mut dyn Write) -> Result<(), FillError> {
        let (index, size) = self.find(view)?;
        if view.elements() == 0 {
            return Ok(());
        }
        let path = &self.path;
        let key = &view.storage.key;
        let damaged = |e: String| ModelError::file(path, format!("storage `data/{key}` is damaged: {e}"));
        let dtype = view.storage.dtype;
        let element = u64::try_from(dtype.size()).expect("an element has few bytes");
        let mut entry = self.archive.by_index(index).map_err(|e| damaged(e.to_string()))?;
        let mut skip = (&mut entry).take(view.offset * element);
        io::copy(&mut skip, &mut io::sink()).map_err(|e| damaged(e.to_string()))?;
        let span = view.span() * element;
        if view.is_contiguous() {
            let mut chunk = vec![0; CHUNK];
            let mut left = span;
            while left > 0 {
                let count = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
                entry.read_exact(&mut chunk[..count]).map_err(|e| damaged(e.to_string()))?;
                if dtype.is_verbatim() {
                    out.write_all(&chunk[..count]).map_err(FillError::Write)?;
                } else {
                    out.write_all(&dtype.convert(&chunk[..count])).map_err(FillError::Write)?;
                }
                left -= u64::try_from(count).expect("a chunk's length fits");
            }
        } else {
            let span =
                usize::try_from(span).map_err(|_| damaged(format!("{span} bytes do not fit memory")))?;
            let mut part = vec![0; span];
            entry.read_exact(&mut part).map_err(|e| damaged(e.to_string()))?;
            gather(view, &part, out).map_err(FillError::Write)?;
        }
        if self.verified.insert(key.clone()) {
            // the zip reader compares the checksum when it reaches the end
            let rest = io::copy(&mut entry, &mut io::sink()).map_err(|e| damaged(e.to_string()))?;
            let expected = size - view.offset * element - view.span() * element;
            if rest != expected {
                return Err(damaged(format!("it ends after {rest} bytes, expected {expected}")).into());
            }
        }
        Ok(())
    }

    /// Index and length in bytes of the file that holds the storage of `view`.
    fn find(&self, view: &TensorView) -> Result<(usize, u64)> {
        let storage = &view.storage;
        let fail =
            |what: String| ModelError::file(&self.path, format!("storage `data/{}` {what}", storage.key));
        let name = format!("{}data/{}", self.folder, storage.key);
        let Some(index) = self.archive.index_for_name(&name) else {
            return Err(fail("is missing".into()));
        };
        let data = self.archive.by_index_data(index).map_err(|e| fail(format!("is damaged: {e}")))?;
        let (size, method) = (data.size(), data.compression());
        let element = u64::try_from(storage.dtype.size()).expect("an element has few bytes");
        let limit = match method {
            CompressionMethod::Stored => self.length,
            _ => self.length.saturating_mul(MAX_DEFLATE_RATIO),
        };
        if storage.elements.checked_mul(element) != Some(size) || size > limit {
            return Err(fail(format!(
                "has {size} bytes, expected {} elements of {element} bytes in a file of {} bytes",
                storage.elements, self.length
            )));
        }
        Ok((index, size))
    }
}

/// Writes the elements of a strided view in row-major order; `part` starts at its first element.
fn gather(view: &TensorView, part: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let dtype = view.storage.dtype;
    let size = dtype.size();
    let mut index = vec![0u64; view.shape.len()];
    let mut row = Vec::new();
    loop {
        let at: u64 = index.iter().zip(&view.strides).map(|(&i, &stride)| i * stride).sum();
        let at = usize::try_from(at).expect("the view lies inside `part`") * size;
        row.extend_from_slice(&part[at..at + size]);
        if row.len() >= CHUNK {
            out.write_all(&dtype.convert(&row))?;
            row.clear();
        }
        // the next index, last axis fastest
        let Some(axis) = (0..index.len()).rev().find(|&axis| index[axis] + 1 < view.shape[axis]) else {
            return out.write_all(&dtype.convert(&row));
        };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

/// Refuses what is no zip archive, naming the kinds that are seen in its place.
fn check_magic(path: &Path, file: &mut File) -> Result<()> {
    let mut head = Vec::new();
    file.take(16).read_to_end(&mut head).map_err(ModelError::io("read", path))?;
    file.seek(SeekFrom::Start(0)).map_err(ModelError::io("read", path))?;
    let expected = "expected a zip archive written by torch.save";
    let found = match head.as_slice() {
        [b'P', b'K', 3, 4, ..] => return Ok(()),
        [] => "is empty",
        [0x80, 1..=5, 0x8a, 0x0a, ..] => {
            "is in torch's format before version 1.6; load and save it again with a newer torch"
        }
        [0x80, 1..=5, ..] => "is a bare pickle without tensors",
        [_, _, _, _, _, _, _, 0, b'{', ..] => "looks like a safetensors file, which needs no conversion",
        head if head.starts_with(b"version https:") => "is a Git LFS pointer; fetch the file itself",
        _ => "is no zip archive",
    };
    Err(ModelError::file(path, format!("{found}; {expected}")))
}

/// The folder that holds `data.pkl`.
fn find_folder(path: &Path, archive: &ZipArchive<BufReader<File>>) -> Result<String> {
    // the pickle of the archive itself lies one folder deep
    let one_deep = |folder: &str| folder.ends_with('/') && folder.matches('/').count() == 1;
    let mut folders = archive
        .file_names()
        .filter_map(|name| name.ok()?.strip_suffix("data.pkl").map(str::to_string))
        .filter(|folder| one_deep(folder));
    match (folders.next(), folders.next()) {
        (Some(folder), None) => Ok(folder),
        (None, _) => {
            Err(ModelError::file(path, "holds no data.pkl; expected an archive written by torch.save"))
        }
        (Some(_), Some(_)) => {
            Err(ModelError::file(path, "holds several data.pkl; expected an archive written by torch.save"))
        }
    }
}

/// Reads a small file of the archive whole, whatever length it claims.
fn read_small(
    path: &Path,
    archive: &mut ZipArchive<BufReader<File>>,
    name: &str,
    limit: usize,
) -> Result<Vec<u8>> {
    let damaged = |e: String| ModelError::file(path, format!("`{name}` is damaged: {e}"));
    let entry = archive.by_name(name).map_err(|e| damaged(e.to_string()))?;
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).expect("a limit fits 64 bits");
    entry.take(most + 1).read_to_end(&mut bytes).map_err(|e| damaged(e.to_string()))?;
    if bytes.len() > limit {
        return Err(ModelError::file(path, format!("`{name}` has more than {limit} bytes")));
    }
    Ok(bytes)
}
