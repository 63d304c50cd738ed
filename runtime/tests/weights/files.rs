//! Atomic files and hashes.

use crate::common::{assert_says, dir, listing};
use auscult_runtime::files::{
    AtomicFile, FileError, atomic_write, atomic_write_bytes, open_regular, remove_leftovers, sha256_bytes,
    sha256_file,
};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::Path;

#[test]
fn writes_replaces_and_returns_the_closures_value() {
    let dir = dir();
    let path = dir.path().join("out.json");
    let n = atomic_write(&path, |out| out.write_all(b"first").map(|()| 5)).unwrap();
    assert_eq!((n, fs::read(&path).unwrap()), (5, b"first".to_vec()));
    atomic_write_bytes(&path, b"2nd").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"2nd");
    assert_eq!(listing(dir.path()), ["out.json"]);
}

/// Full disk, told by the writer: the old file stays, nothing else is left, and the message has path and cause.
#[test]
fn a_failed_write_leaves_the_old_file_and_no_other() {
    let dir = dir();
    let path = dir.path().join("out.bin");
    fs::write(&path, b"old").unwrap();
    let error = atomic_write(&path, |out| {
        out.write_all(&[7; 1 << 20])?;
        Err::<(), _>(io::Error::from(ErrorKind::StorageFull))
    })
    .unwrap_err();
    assert_eq!(error.io_kind(), Some(ErrorKind::StorageFull));
    assert_eq!(error.path(), path);
    assert_says(&error.to_string(), &[&path.display().to_string(), "cannot write", "no storage space"]);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(listing(dir.path()), ["out.bin"]);
}

#[test]
fn a_handle_appears_on_commit_only() {
    let dir = dir();
    let path = dir.path().join("take.wav");
    let mut file = AtomicFile::create(&path).unwrap();
    file.put(b"????data").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(b"RIFF").unwrap();
    assert!(!path.exists(), "nothing under the final name before commit");
    assert_eq!(listing(dir.path()).len(), 1, "the temporary lies beside the destination");
    assert!(listing(dir.path())[0].starts_with('.'), "and is hidden");
    file.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"RIFFdata");

    let mut dropped = AtomicFile::create(dir.path().join("dropped")).unwrap();
    dropped.put(b"x").unwrap();
    drop(dropped);
    assert_eq!(listing(dir.path()), ["take.wav"]);
}

/// Not the 0600 of temporary files: whatever the umask gives a plain file.
#[cfg(unix)]
#[test]
fn the_mode_is_that_of_a_plain_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = dir();
    let (plain, ours) = (dir.path().join("plain"), dir.path().join("ours"));
    File::create(&plain).unwrap();
    atomic_write_bytes(&ours, b"x").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&ours), mode(&plain), "{:o} {:o}", mode(&ours), mode(&plain));
}

#[test]
fn destinations_that_cannot_be_written_are_refused_at_once() {
    let dir = dir();
    fs::create_dir(dir.path().join("taken")).unwrap();
    let error = AtomicFile::create(dir.path().join("taken")).unwrap_err();
    assert_says(&error.to_string(), &["taken", "found a directory, expected a regular file"]);
    let error = AtomicFile::create(dir.path().join("absent/out")).unwrap_err();
    assert_eq!(error.io_kind(), Some(ErrorKind::NotFound));
    assert_says(&error.to_string(), &["absent/out", "cannot create"]);
    assert!(matches!(AtomicFile::create(dir.path().join("..")).unwrap_err(), FileError::NoFileName { .. }));
    assert_eq!(listing(dir.path()), ["taken"]);
}

#[test]
fn leftovers_of_a_killed_run_are_removed_and_nothing_else() {
    let dir = dir();
    let file = AtomicFile::create(dir.path().join("shard")).unwrap();
    // a killed process runs no destructors
    std::mem::forget(file);
    fs::write(dir.path().join("kept"), b"x").unwrap();
    fs::write(dir.path().join(".auscult-notes"), b"x").unwrap();
    assert_eq!(listing(dir.path()).len(), 3);
    assert_eq!(remove_leftovers(dir.path()).unwrap(), 1);
    assert_eq!(listing(dir.path()), [".auscult-notes", "kept"]);
    assert_eq!(remove_leftovers(dir.path()).unwrap(), 0);
    assert_says(
        &remove_leftovers(dir.path().join("absent")).unwrap_err().to_string(),
        &["absent", "cannot list"],
    );
}

/// Known answers of FIPS 180-4's examples; a million letters span several buffers.
#[test]
fn hashes() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    let dir = dir();
    for (text, want) in [(vec![], empty), (b"abc".to_vec(), abc), (vec![b'a'; 1_000_000], million)] {
        assert_eq!(sha256_bytes(&text), want);
        let path = dir.path().join("text");
        fs::write(&path, &text).unwrap();
        assert_eq!(sha256_file(&path).unwrap(), want);
    }
    assert_says(&sha256_file(dir.path()).unwrap_err().to_string(), &["found a directory"]);
    assert_says(&sha256_file(dir.path().join("absent")).unwrap_err().to_string(), &["absent", "cannot open"]);
}

#[cfg(unix)]
#[test]
fn devices_are_not_opened() {
    let error = open_regular(Path::new("/dev/null")).unwrap_err();
    assert_says(&error.to_string(), &["/dev/null", "found a device, pipe or socket"]);
}
