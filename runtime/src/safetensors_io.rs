//! Writing safetensors files: of known shapes in one go, or row by row with the row count known at the end.
//!
//! The layout is that of the safetensors format: eight bytes of header length (little-endian), a JSON header padded
//! with spaces to a multiple of eight, then the tensors without gaps. Files are atomic and synced, as in
//! [`crate::files`]. Reading is the work of [`crate::weights`].

use crate::files::{AtomicFile, FileError};
use auscult_kernels::DType;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// Readers refuse a longer header (safetensors `MAX_HEADER_SIZE`).
pub const MAX_HEADER: usize = 100_000_000;
/// The data starts at a multiple of this.
const HEADER_ALIGN: usize = 8;
/// Bytes of the header's length, a u64.
const LENGTH_FIELD: usize = size_of::<u64>();
/// The header's reserved key.
const METADATA: &str = "__metadata__";

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the file; unique.
    pub name: String,
    /// Element type; elements are little-endian.
    pub dtype: DType,
    /// Extents, slowest first; row-major.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor called `name`.
    pub fn new(name: impl Into<String>, dtype: DType, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), dtype, shape: shape.into() }
    }

    /// Bytes of the tensor, or `None` if that exceeds `usize`.
    pub fn bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.dtype.size(), |bytes, &extent| bytes.checked_mul(extent))
    }
}

fn layout(path: &Path, tensor: &str, found: impl Into<String>, expected: impl Into<String>) -> FileError {
    FileError::Layout {
        path: path.to_path_buf(),
        tensor: tensor.to_string(),
        found: found.into(),
        expected: expected.into(),
    }
}

/// The header as JSON, for tensors lying one after another; names and metadata keys must be unique.
fn header(path: &Path, metadata: &[(String, String)], tensors: &[&TensorSpec]) -> Result<Vec<u8>, FileError> {
    let mut root = Map::new();
    if !metadata.is_empty() {
        let mut entries = Map::new();
        for (key, value) in metadata {
            if entries.insert(key.clone(), value.clone().into()).is_some() {
                return Err(layout(path, METADATA, format!("key `{key}` twice"), "unique keys"));
            }
        }
        root.insert(METADATA.to_string(), Value::Object(entries));
    }
    let mut names = HashSet::from([METADATA]);
    let mut begin = 0usize;
    for tensor in tensors {
        let name = tensor.name.as_str();
        if !names.insert(name) {
            return Err(layout(
                path,
                name,
                "the name twice or reserved",
                "unique names other than `__metadata__`",
            ));
        }
        let end = tensor.bytes().and_then(|bytes| begin.checked_add(bytes)).ok_or_else(|| {
            layout(path, name, format!("shape {:?}", tensor.shape), "fewer bytes than an address can count")
        })?;
        root.insert(
            tensor.name.clone(),
            json!({ "dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [begin, end] }),
        );
        begin = end;
    }
    let text = Value::Object(root).to_string().into_bytes();
    if text.len() > MAX_HEADER - HEADER_ALIGN {
        let expected = format!("at most {}", MAX_HEADER - HEADER_ALIGN);
        return Err(layout(path, METADATA, format!("a header of {} bytes", text.len()), expected));
    }
    Ok(text)
}

/// Length field, JSON and spaces up to `room` bytes of header.
fn put_header(file: &mut AtomicFile, json: &[u8], room: usize) -> Result<(), FileError> {
    let length = u64::try_from(room).expect("a header length fits 64 bits");
    file.put(&length.to_le_bytes())?;
    file.put(json)?;
    file.put(&vec![b' '; room - json.len()])
}

/// Counts what `fill` writes, and drops what exceeds the tensor: the count then tells.
struct Counted<'a> {
    out: &'a mut dyn Write,
    written: usize,
    limit: usize,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.limit.saturating_sub(self.written).min(bytes.len());
        let accepted = if room > 0 { self.out.write(&bytes[..room])? } else { bytes.len() };
        self.written = self.written.saturating_add(accepted);
        Ok(accepted)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes a safetensors file. `fill(i, out)` writes the little-endian bytes of `tensors[i]`, exactly as many as its
/// shape says; it is called in the order of the file, which is `tensors` sorted (stably) by falling element size, so
/// that every tensor is aligned to its element.
///
/// # Errors
/// [`FileError::Layout`] for repeated names, sizes beyond `usize`, or a `fill` that wrote too little or too much;
/// [`FileError::Io`] from the system or from `fill`. Nothing is left behind.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    metadata: &[(String, String)],
    tensors: &[TensorSpec],
    mut fill: impl FnMut(usize, &mut dyn Write) -> io::Result<()>,
) -> Result<(), FileError> {
    let path = path.as_ref();
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(tensors[i].dtype.size()));
    let sorted: Vec<&TensorSpec> = order.iter().map(|&i| &tensors[i]).collect();
    let json = header(path, metadata, &sorted)?;

    let mut file = AtomicFile::create(path)?;
    put_header(&mut file, &json, json.len().next_multiple_of(HEADER_ALIGN))?;
    for i in order {
        let tensor = &tensors[i];
        let limit = tensor.bytes().expect("header() refused sizes beyond usize");
        let mut out = Counted { out: file.writer(), written: 0, limit };
        let result = fill(i, &mut out);
        let written = out.written;
        result.map_err(|e| file.error(e))?;
        if written != limit {
            let expected = format!("{limit} ({} {:?})", tensor.dtype, tensor.shape);
            return Err(layout(path, &tensor.name, format!("{written} bytes written"), expected));
        }
    }
    file.commit()
}

/// A safetensors file of one tensor [rows, ...row_shape] that grows by rows until [`finish`](Self::finish). The header
/// is given room for any row count beforehand and padded with spaces. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct GrowingTensorFile {
    file: AtomicFile,
    name: String,
    dtype: DType,
    row_shape: Vec<usize>,
    metadata: Vec<(String, String)>,
    row_bytes: usize,
    room: usize,
    rows: usize,
}

impl GrowingTensorFile {
    /// Starts the file `path` with one tensor `name` of rows shaped `row_shape`.
    ///
    /// # Errors
    /// [`FileError::Layout`] for an empty or oversized row or repeated metadata keys; else as [`AtomicFile::create`].
    pub fn create(
        path: impl AsRef<Path>,
        metadata: &[(String, String)],
        name: impl Into<String>,
        dtype: DType,
        row_shape: &[usize],
    ) -> Result<Self, FileError> {
        let path = path.as_ref();
        let row = TensorSpec::new(name, dtype, row_shape);
        let row_bytes = match row.bytes() {
            Some(bytes) if bytes > 0 => bytes,
            _ => {
                let found = format!("rows of shape {row_shape:?}");
                return Err(layout(
                    path,
                    &row.name,
                    found,
                    "at least one element a row, and fewer than an address can count",
                ));
            }
        };
        // the longest header: as many rows as could ever be counted
        let widest = Self::spec(&row.name, dtype, row_shape, usize::MAX / row_bytes);
        let room = header(path, metadata, &[&widest])?.len().next_multiple_of(HEADER_ALIGN);
        let mut file = AtomicFile::create(path)?;
        put_header(&mut file, b"", room)?;
        Ok(Self {
            file,
            name: row.name,
            dtype,
            row_shape: row_shape.to_vec(),
            metadata: metadata.to_vec(),
            row_bytes,
            room,
            rows: 0,
        })
    }

    fn spec(name: &str, dtype: DType, row_shape: &[usize], rows: usize) -> TensorSpec {
        let mut shape = vec![rows];
        shape.extend_from_slice(row_shape);
        TensorSpec::new(name, dtype, shape)
    }

    /// Where the rows begin in the file.
    fn data_start(&self) -> u64 {
        u64::try_from(LENGTH_FIELD + self.room).expect("a header length fits 64 bits")
    }

    /// Rows written so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The destination.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Adds whole rows of little-endian elements.
    ///
    /// # Errors
    /// [`FileError::Layout`] if `bytes` is no whole number of rows; [`FileError::Io`]. After an error the file cannot
    /// be finished meaningfully and should be dropped.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        if !bytes.len().is_multiple_of(self.row_bytes) {
            let expected =
                format!("whole rows of {} bytes ({} {:?})", self.row_bytes, self.dtype, self.row_shape);
            return Err(layout(self.path(), &self.name, format!("{} bytes", bytes.len()), expected));
        }
        self.file.put(bytes)?;
        self.rows += bytes.len() / self.row_bytes;
        Ok(())
    }

    /// Writes the header for `rows` rows, syncs, and renames the file into place.
    ///
    /// # Errors
    /// [`FileError::Layout`] if `rows` is not the number of rows appended; [`FileError::Io`].
    pub fn finish(mut self, rows: usize) -> Result<(), FileError> {
        if rows != self.rows {
            return Err(layout(
                self.path(),
                &self.name,
                format!("rows appended: {}", self.rows),
                format!("{rows}"),
            ));
        }
        // a write that failed halfway leaves bytes that belong to no row
        let expected =
            self.data_start() + u64::try_from(rows * self.row_bytes).expect("a file's length fits 64 bits");
        let found = self.file.seek(SeekFrom::End(0)).map_err(|e| self.file.error(e))?;
        if found != expected {
            return Err(layout(
                self.path(),
                &self.name,
                format!("a file of {found} bytes"),
                format!("{expected}"),
            ));
        }
        let spec = Self::spec(&self.name, self.dtype, &self.row_shape, rows);
        let json = header(self.path(), &self.metadata, &[&spec])?;
        self.file.seek(SeekFrom::Start(0)).map_err(|e| self.file.error(e))?;
        put_header(&mut self.file, &json, self.room)?;
        self.file.commit()
    }
}
