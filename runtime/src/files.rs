//! Files that are either whole or absent, and their hashes.
//!
//! A file is written beside its destination under a hidden name, flushed, synced, renamed over the destination, and
//! the directory is synced; a failure anywhere leaves the destination as it was and removes the temporary. A kill
//! cannot remove it: [`remove_leftovers`] does, when the work is taken up again. This module knows nothing of what
//! the files hold.

use sha2::{Digest, Sha256};
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// Temporary files carry this prefix until they are renamed.
const TEMP_PREFIX: &str = ".auscult-";
/// And this suffix.
const TEMP_SUFFIX: &str = ".tmp";
/// Large enough that a system call costs nothing beside the copy.
const BUFFER: usize = 1 << 18;

/// Why a file could not be read, written or renamed. The text holds path, action and cause; there is no `source`.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {error}", path.display())]
    Io {
        /// The file (the destination, not its temporary).
        path: PathBuf,
        /// What was being done, as a verb: `read`, `write`, `rename`.
        action: &'static str,
        /// What the operating system said.
        error: io::Error,
    },
    /// The path names a directory, a device, a pipe or a socket.
    #[error("{}: found {found}, expected a regular file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// What lies there.
        found: &'static str,
    },
    /// The path ends in no file name.
    #[error("{}: found no file name in this path, expected one", path.display())]
    NoFileName {
        /// The path.
        path: PathBuf,
    },
    /// What the caller wrote is not what it had announced.
    #[error("{}: tensor `{tensor}`: found {found}, expected {expected}", path.display())]
    Layout {
        /// The file being written.
        path: PathBuf,
        /// The tensor, or `__metadata__`.
        tensor: String,
        /// What was written or asked for.
        found: String,
        /// What the header promises.
        expected: String,
    },
}

impl FileError {
    /// An operating system's error, with the path and the action it lacks.
    pub fn io(path: &Path, action: &'static str, error: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), action, error }
    }

    /// The operating system's kind of error, where it was one (`StorageFull`, `NotFound`, `PermissionDenied` ...).
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { error, .. } => Some(error.kind()),
            _ => None,
        }
    }

    /// The file concerned.
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. }
            | Self::NotRegular { path, .. }
            | Self::NoFileName { path }
            | Self::Layout { path, .. } => path,
        }
    }
}

/// What lies at a path that is no regular file.
fn kind_of(kind: fs::FileType) -> &'static str {
    match kind.is_dir() {
        true => "a directory",
        false => "a device, pipe or socket",
    }
}

/// Opens a regular file for reading; symbolic links are followed, anything but a regular file is refused before it is
/// opened, since opening a pipe would wait for its writer. Returns the file and its length in bytes.
///
/// # Errors
/// [`FileError::Io`] and [`FileError::NotRegular`].
pub fn open_regular(path: &Path) -> Result<(File, u64), FileError> {
    let failed = |error| FileError::io(path, "open", error);
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() {
        return Err(FileError::NotRegular { path: path.to_path_buf(), found: kind_of(kind) });
    }
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(FileError::NotRegular { path: path.to_path_buf(), found: kind_of(meta.file_type()) });
    }
    Ok((file, meta.len()))
}

/// The directory a path's file lies in; `.` for a bare name.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a rename in `dir` survive a power cut. Windows has no such call for directories.
fn sync_directory(dir: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(dir)?.sync_all() {
        // some network and FUSE filesystems refuse to sync a directory; there is nothing better to do there
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        result => result,
    }
}

/// A file being written that appears at its destination only on [`commit`](Self::commit); dropped before that, it
/// leaves nothing. Writes are buffered. A destination that is a symbolic link is replaced, not followed.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    // declared before `temp`, so that the file is closed before it is deleted, as Windows demands
    out: BufWriter<File>,
    temp: TempPath,
}

impl AtomicFile {
    /// Starts a file that will be called `path`. The mode will be 0666 less the umask, as for any new file.
    ///
    /// # Errors
    /// No file name, something other than a regular file at `path`, or the directory is missing or not writable.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        if path.file_name().is_none() {
            return Err(FileError::NoFileName { path: path.to_path_buf() });
        }
        // found now rather than at the rename, which may be hours away
        if let Ok(meta) = fs::metadata(path)
            && !meta.is_file()
        {
            return Err(FileError::NotRegular { path: path.to_path_buf(), found: kind_of(meta.file_type()) });
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMP_PREFIX).suffix(TEMP_SUFFIX);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let (file, temp) =
            builder.tempfile_in(directory(path)).map_err(|e| FileError::io(path, "create", e))?.into_parts();
        Ok(Self { path: path.to_path_buf(), out: BufWriter::with_capacity(BUFFER, file), temp })
    }

    /// The destination.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The buffered writer itself, for code that wants one; its errors lack the path, [`AtomicFile::error`] adds it.
    pub fn writer(&mut self) -> &mut BufWriter<File> {
        &mut self.out
    }

    /// A write error of this file, with its path.
    pub fn error(&self, error: io::Error) -> FileError {
        FileError::io(&self.path, "write", error)
    }

    /// Writes all of `bytes` at the current position.
    ///
    /// # Errors
    /// [`FileError::Io`], for instance a full disk.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.out.write_all(bytes).map_err(|e| self.error(e))
    }

    /// Flushes, syncs, renames over the destination, and syncs the directory.
    ///
    /// # Errors
    /// [`FileError::Io`]; the destination is then as it was before, except where only the directory's sync failed.
    pub fn commit(self) -> Result<(), FileError> {
        let Self { path, out, temp } = self;
        let file = out.into_inner().map_err(|e| FileError::io(&path, "write", e.into_error()))?;
        file.sync_data().map_err(|e| FileError::io(&path, "sync", e))?;
        drop(file);
        temp.persist(&path).map_err(|e| FileError::io(&path, "rename into place", e.error))?;
        sync_directory(directory(&path)).map_err(|e| FileError::io(&path, "sync the directory of", e))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.out.seek(to)
    }
}

/// Writes a file in one go: `fill` writes the content, and the file appears at `path` only when all of it is on disk.
///
/// # Errors
/// Whatever `fill` returns, and whatever [`AtomicFile`] does; nothing is left behind.
pub fn atomic_write<T>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>,
) -> Result<T, FileError> {
    let mut file = AtomicFile::create(path)?;
    let value = fill(file.writer()).map_err(|e| file.error(e))?;
    file.commit()?;
    Ok(value)
}

/// [`atomic_write`] of bytes already in memory.
///
/// # Errors
/// As [`AtomicFile`].
pub fn atomic_write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), FileError> {
    atomic_write(path, |out| out.write_all(bytes))
}

/// Locks a file for as long as it is open; whether no other process holds it.
///
/// # Errors
/// The operating system's, but for a filesystem without locks, as some of networks are: two writers are then the user's to avoid.
pub fn lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether a file of this name is one that a process left that was killed while it wrote.
pub fn is_leftover(name: &str) -> bool {
    name.starts_with(TEMP_PREFIX) && name.ends_with(TEMP_SUFFIX)
}

/// Deletes temporaries that a killed run left in `dir` (not in its subdirectories); returns how many. Only for a
/// directory that no other process is writing to.
///
/// # Errors
/// [`FileError::Io`] of the first entry that cannot be listed or deleted.
pub fn remove_leftovers(dir: impl AsRef<Path>) -> Result<usize, FileError> {
    let dir = dir.as_ref();
    let mut removed = 0;
    for entry in fs::read_dir(dir).map_err(|e| FileError::io(dir, "list", e))? {
        let entry = entry.map_err(|e| FileError::io(dir, "list", e))?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(is_leftover);
        if ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let path = entry.path();
            fs::remove_file(&path).map_err(|e| FileError::io(&path, "delete", e))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// SHA-256 of a file's content, as 64 lower-case hexadecimal digits; the file is streamed.
///
/// # Errors
/// As [`open_regular`], and read errors.
pub fn sha256_file(path: impl AsRef<Path>) -> Result<String, FileError> {
    let path = path.as_ref();
    let (mut file, _) = open_regular(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(n) => hash.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FileError::io(path, "read", error)),
        }
    }
}

/// SHA-256 of bytes in memory, as 64 lower-case hexadecimal digits.
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}
