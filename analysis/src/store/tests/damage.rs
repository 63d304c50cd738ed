//! `verify` finds whatever is done to a store.

use super::*;
use auscult_runtime::files::sha256_file;

fn finished(dir: &Path) {
    write_rest(open(dir, false).0, 0);
    assert!(verify(dir).unwrap().is_sound());
}

/// Makes `SHA256SUMS` agree with the files again, so that only their content can give damage away.
pub(super) fn seal(dir: &Path) {
    let names = super::super::verify::files_of(dir).unwrap();
    let line = |name: &String| format!("{}  {name}\n", sha256_file(dir.join(name)).unwrap());
    let text: String = names.iter().filter(|name| *name != SHA256SUMS).map(line).collect();
    fs::write(dir.join(SHA256SUMS), text).unwrap();
}

fn problems(dir: &Path) -> String {
    let report = verify(dir).unwrap();
    assert!(!report.is_sound());
    report.problems.join("\n")
}

#[test]
fn a_changed_byte_in_any_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    finished(dir.path());
    for name in super::super::verify::files_of(dir.path()).unwrap() {
        let path = dir.path().join(&name);
        let bytes = fs::read(&path).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            fs::write(&path, &changed).unwrap();
            let report = verify(dir.path()).unwrap();
            assert!(!report.is_sound(), "byte {at} of `{name}`");
        }
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let last_newline = name == SHA256SUMS;
        assert_eq!(verify(dir.path()).unwrap().is_sound(), last_newline, "`{name}` cut short");
        fs::write(&path, bytes).unwrap();
    }
    assert!(verify(dir.path()).unwrap().is_sound(), "restored");
}

#[test]
fn missing_and_surplus_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    finished(dir.path());
    for name in super::super::verify::files_of(dir.path()).unwrap() {
        let path = dir.path().join(&name);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        match name.as_str() {
            STORE_JSON => assert!(verify(dir.path()).unwrap_err().to_string().contains(STORE_JSON)),
            SHA256SUMS => assert!(problems(dir.path()).contains("unfinished")),
            name => {
                assert!(problems(dir.path()).contains(&format!("`{name}` is in `SHA256SUMS`, but not there")))
            }
        }
        fs::write(&path, bytes).unwrap();
    }
    for name in ["notes.txt", "logits/00004.safetensors", "logits/.auscult-x.tmp", "more/deep.bin"] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        assert!(problems(dir.path()).contains(&format!("`{name}` is there, but not in")), "{name}");
        fs::remove_file(&path).unwrap();
    }
    assert!(verify(dir.path()).unwrap().is_sound(), "restored");
}

#[test]
fn an_unfinished_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), false);
    append_range(&mut writer, 0..3);
    drop(writer);
    assert!(problems(dir.path()).contains("unfinished: it has no `SHA256SUMS`; 2 clips are safe"));
    let error = StoreReader::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("--resume"), "{error}");
}

#[test]
fn an_index_that_lies_is_found_even_with_right_hashes() {
    type Change = fn(&mut Vec<ClipRow>);
    let changes: [(Change, &str); 8] = [
        (|rows| rows.swap(0, 1), "begins at"),
        (|rows| drop(rows.pop()), "expected resid F32"),
        (|rows| rows[3].positions += 1, "has 10 positions, expected 9"),
        (|rows| rows[3].row_start += 1, "begins at shard 1, row 3, expected shard 1, row 2"),
        (|rows| rows[8].shard = 4, "begins at shard 4"),
        (|rows| rows[1].clip_id = rows[0].clip_id.clone(), "twice"),
        (|rows| rows[1].clip_id.push('x'), "lacks `codes/"),
        (
            |rows| {
                rows[1].frames += 1;
                rows[1].positions += 1;
            },
            "expected U16 [2, 6]",
        ),
    ];
    for (change, part) in changes {
        let dir = tempfile::tempdir().unwrap();
        finished(dir.path());
        let index = dir.path().join(INDEX_JSONL);
        let text = fs::read_to_string(&index).unwrap();
        let mut rows: Vec<ClipRow> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        change(&mut rows);
        let text: String = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
        fs::write(&index, text).unwrap();
        seal(dir.path());
        let found = problems(dir.path());
        assert!(found.contains(part), "{part}: {found}");
    }
}

#[test]
fn shards_of_another_shape_are_found_even_with_right_hashes() {
    let dir = tempfile::tempdir().unwrap();
    finished(dir.path());
    let shard = |hook: &str, n: usize| dir.path().join(shard_name(hook, n));
    let (first, second) = (fs::read(shard("logits", 0)).unwrap(), fs::read(shard("logits", 1)).unwrap());
    fs::write(shard("logits", 0), &second).unwrap();
    seal(dir.path());
    assert!(
        problems(dir.path())
            .contains("`logits/00000.safetensors` holds resid F32 [11, 7], expected resid F32 [10, 7]")
    );
    fs::write(shard("logits", 0), &first).unwrap();

    fs::write(shard("codes", 0), b"not a tensor file").unwrap();
    seal(dir.path());
    assert!(problems(dir.path()).contains("codes/00000.safetensors"));
}

#[test]
fn codes_out_of_range_are_found_even_with_right_hashes() {
    let dir = tempfile::tempdir().unwrap();
    finished(dir.path());
    let path = dir.path().join("codes/00001.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&17u16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    seal(dir.path());
    assert!(problems(dir.path()).contains("a code outside 0..17"));
}
