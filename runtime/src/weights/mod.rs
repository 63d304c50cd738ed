//! A model's weights: safetensors files, mapped into memory, strictly checked.
//!
//! [`Weights`] opens a checkpoint (one file, or shards with an index) and hands out tensors as [`WeightView`]s into the
//! maps; [`Loader`] holds what a model wants against what the files have. Nothing is read but headers until a tensor's
//! values are asked for. This module knows no model, and does not read pickle files.

mod error;
mod header;
mod index;
mod json;
mod loader;
mod mmap;
mod view;

pub use error::WeightsError;
pub use loader::{Account, Loader};
pub use mmap::{HostBytes, MappedFile};
pub use view::{WeightView, first_non_finite};

use crate::files::FileError;
use auscult_kernels::DType;
use error::Problem;
use header::Stored;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The weights of an unsharded checkpoint directory (HF `SAFE_WEIGHTS_NAME`).
const SINGLE: &str = "model.safetensors";
/// The index of a sharded one (HF `SAFE_WEIGHTS_INDEX_NAME`).
const INDEX: &str = "model.safetensors.index.json";
/// Ends the name of any index.
const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// An open checkpoint. Cloning is not offered: share it by reference or `Arc`; [`WeightView::host`] handles outlive it.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    files: Vec<WeightFile>,
    /// In the order of the files and of the bytes within.
    tensors: Vec<Tensor>,
    by_name: HashMap<String, usize>,
    metadata: Vec<(String, String)>,
}

/// One safetensors file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its length in bytes, header included.
    pub bytes: u64,
}

/// A tensor of any type of the format.
#[derive(Debug)]
struct Tensor {
    name: String,
    stored: Stored,
    shape: Vec<usize>,
    host: HostBytes,
    file: Arc<PathBuf>,
}

impl Tensor {
    fn view(&self) -> Option<WeightView<'_>> {
        let dtype = self.stored.dtype?;
        Some(WeightView::new(&self.name, dtype, &self.shape, &self.host, &self.file))
    }

    fn float_view(&self) -> Option<WeightView<'_>> {
        self.view().filter(|view| matches!(view.dtype, DType::F32 | DType::F16 | DType::BF16))
    }
}

impl Weights {
    /// Opens a checkpoint: a directory with `model.safetensors` (preferred) or `model.safetensors.index.json` and its
    /// shards, or one of those files under any name. Headers are read and checked in full, values are not.
    ///
    /// # Errors
    /// [`WeightsError`]: the path cannot be opened or holds no weights, a pickle file is in their place, a header or
    /// the index breaks its format, or index and shards disagree.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        let path = path.as_ref();
        let kind = fs::metadata(path).map_err(|e| FileError::io(path, "open", e))?;
        if kind.is_dir() && !has_suffix(path, ".safetensors") {
            return Self::open_directory(path);
        }
        if has_suffix(path, INDEX_SUFFIX) {
            return Self::open_sharded(path);
        }
        if is_pickle_name(path) {
            return Err(WeightsError::Pickle { file: path.to_path_buf() });
        }
        Self::open_single(path)
    }

    fn open_directory(dir: &Path) -> Result<Self, WeightsError> {
        // a dangling link counts as present, so that the error names it
        let present = |name| Some(dir.join(name)).filter(|path| path.symlink_metadata().is_ok());
        if let Some(single) = present(SINGLE) {
            return Self::open_single(&single);
        }
        if let Some(index) = present(INDEX) {
            return Self::open_sharded(&index);
        }
        let mut pickles = Vec::new();
        for entry in fs::read_dir(dir).map_err(|e| FileError::io(dir, "list", e))? {
            let path = entry.map_err(|e| FileError::io(dir, "list", e))?.path();
            if is_pickle_name(&path) {
                pickles.push(path);
            }
        }
        Err(match pickles.into_iter().min() {
            Some(file) => WeightsError::Pickle { file },
            None => WeightsError::NoWeights { dir: dir.to_path_buf() },
        })
    }

    fn open_single(path: &Path) -> Result<Self, WeightsError> {
        let mut weights = Self::empty(path);
        weights.add_file(path)?;
        Ok(weights)
    }

    fn open_sharded(index: &Path) -> Result<Self, WeightsError> {
        let shards = index::read(index)?;
        let dir = index.parent().unwrap_or(Path::new(""));
        let mut weights = Self::empty(index);
        for (shard, names) in shards {
            let path = dir.join(&shard);
            if let Err(error) = path.symlink_metadata()
                && error.kind() == std::io::ErrorKind::NotFound
            {
                let found = format!("no shard `{shard}`");
                let expected = format!("that file beside the index, with {} tensors", names.len());
                return Err(Problem::tensor(&names[0], found, expected).at(index));
            }
            let first = weights.tensors.len();
            weights.add_file(&path)?;
            check_shard(&weights.tensors[first..], &names, index).map_err(|problem| problem.at(&path))?;
        }
        Ok(weights)
    }

    fn empty(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            files: Vec::new(),
            tensors: Vec::new(),
            by_name: HashMap::new(),
            metadata: Vec::new(),
        }
    }

    fn add_file(&mut self, path: &Path) -> Result<(), WeightsError> {
        let mapped = MappedFile::open(path)?;
        if is_pickle(&mapped) {
            return Err(WeightsError::Pickle { file: path.to_path_buf() });
        }
        let header = header::parse(&mapped).map_err(|problem| problem.at(path))?;
        let bytes = u64::try_from(mapped.len()).expect("a file's length fits 64 bits");
        self.files.push(WeightFile { path: path.to_path_buf(), bytes });
        self.metadata.extend(header.metadata);
        let whole = HostBytes::from_mapped(Arc::new(mapped));
        let file = Arc::new(path.to_path_buf());
        for entry in header.tensors {
            let host = whole.slice(entry.bytes).expect("the header's check keeps tensors within the file");
            self.by_name.insert(entry.name.clone(), self.tensors.len());
            let (name, stored, shape) = (entry.name, entry.stored, entry.shape);
            self.tensors.push(Tensor { name, stored, shape, host, file: Arc::clone(&file) });
        }
        Ok(())
    }

    /// What was opened: the single file, or the index.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The safetensors files, in the order of their names; the index is not among them.
    pub fn files(&self) -> &[WeightFile] {
        &self.files
    }

    /// Bytes of all tensors together, headers not counted.
    pub fn total_bytes(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.host.len()).sum()
    }

    /// The tensor `name`; `None` if there is none, or if its element type is one that no kernel reads (`F64`, `BOOL`,
    /// 8-bit floats ...), which [`Loader`] reports as a wrong type when it is asked for.
    pub fn get(&self, name: &str) -> Option<WeightView<'_>> {
        self.tensor(name)?.view()
    }

    /// The value of the tensor `name`, where it has one element, of type F64, F32, F16 or BF16.
    pub fn scalar(&self, name: &str) -> Option<f64> {
        let tensor = self.tensor(name)?;
        if tensor.stored.name == "F64" {
            return Some(f64::from_le_bytes(tensor.host.as_ref().try_into().ok()?));
        }
        match tensor.float_view()?.to_f32().ok()?.as_slice() {
            [value] => Some(f64::from(*value)),
            _ => None,
        }
    }

    /// All tensors that [`get`](Self::get) returns, in the order in which they lie in the files.
    pub fn iter(&self) -> impl Iterator<Item = WeightView<'_>> {
        self.tensors.iter().filter_map(Tensor::view)
    }

    /// Names of all tensors, of unreadable types too, in the order in which they lie in the files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|tensor| tensor.name.as_str())
    }

    /// The value of a key of the files' `__metadata__`, the first file's first.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Reads every floating-point value and refuses NaN and infinities.
    ///
    /// # Errors
    /// [`WeightsError::NotFinite`] with the first such value in the order of the files.
    pub fn check_finite(&self) -> Result<(), WeightsError> {
        for view in self.iter() {
            if let Some((index, value)) = view.first_non_finite() {
                let (file, tensor) = (view.file().to_path_buf(), view.name.to_string());
                return Err(WeightsError::NotFinite { file, tensor, index, value });
            }
        }
        Ok(())
    }

    fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.by_name.get(name).map(|&at| &self.tensors[at])
    }
}

/// Holds a shard against what the index says of it. Since every name is mapped to one shard, equality here also means
/// that no two shards hold the same name.
fn check_shard(tensors: &[Tensor], names: &[String], index: &Path) -> Result<(), Problem> {
    let held: HashSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let listed: HashSet<&str> = names.iter().map(String::as_str).collect();
    let index = index.display();
    let absent: Vec<&str> = names.iter().map(String::as_str).filter(|name| !held.contains(name)).collect();
    if let [first, rest @ ..] = absent.as_slice() {
        let found = format!("no such tensor in this shard{}", and_more(rest.len()));
        return Err(Problem::tensor(first, found, format!("what `{index}` maps to it")));
    }
    let surplus: Vec<&str> =
        tensors.iter().map(|tensor| tensor.name.as_str()).filter(|name| !listed.contains(name)).collect();
    if let [first, rest @ ..] = surplus.as_slice() {
        let found = format!("a tensor that `{index}` does not map to this shard{}", and_more(rest.len()));
        return Err(Problem::tensor(first, found, "only what the index maps to it"));
    }
    Ok(())
}

fn and_more(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" (and {count} more)") }
}

fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().to_ascii_lowercase().ends_with(suffix))
}

fn is_pickle_name(path: &Path) -> bool {
    [".bin", ".pt", ".pth", ".th", ".pkl", ".ckpt"].iter().any(|suffix| has_suffix(path, suffix))
}

/// Whether a file is a zip archive, as torch saves since 1.6, or a bare pickle of protocol 2 to 5. A pickle opens with
/// 0x80 and the protocol; read as a header's length those bytes and the opcodes after them are beyond any limit.
fn is_pickle(file: &[u8]) -> bool {
    let beyond_any_header = file.get(4..8).is_some_and(|high| high.iter().any(|&byte| byte != 0));
    beyond_any_header && (file.starts_with(b"PK\x03\x04") || (file[0] == 0x80 && matches!(file[1], 2..=5)))
}
