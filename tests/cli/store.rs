//! `store`: what it says of stores whole, damaged and exported.

use crate::support::{floats, folder, index, json_file, names, resid, run, tensor, tree};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

crate::trials!(
    info_counts_what_is_there,
    verify_names_the_file_that_was_changed,
    exports_are_numpy_files,
    folders_that_are_no_stores,
);

fn capture(dir: &Path, options: &str) {
    run(
        dir,
        &format!("capture FIX/flac_s16.flac FIX/mono_32k.mp3 --model MODEL --window 1 --out s {options}"),
    )
    .ok();
}

fn info_counts_what_is_there() {
    let dir = folder();
    capture(dir.path(), "--hooks hook_layers.1,logits --dtype bf16");
    let info = run(dir.path(), "store info s --json").ok().json();
    let expected = json!({ "state": "finished", "clips": 4, "partial_clips": 1, "tracks": 2, "positions": 3 * 51 + 14, "shards": 1 });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&info[key], value, "{key}");
    }
    assert_eq!(info["meta"], json_file(&dir.path().join("s/store.json")));
    let files = tree(&dir.path().join("s"));
    assert_eq!(
        (&info["files"], &info["bytes"]),
        (&json!(files.len()), &json!(files.values().map(Vec::len).sum::<usize>()))
    );
    let text = run(dir.path(), "store info s").ok().stdout;
    for part in
        ["finished", "hook_layers.1 = layers.1.resid_post [167 x 128] bf16", "4 (1 partial) of 2 tracks"]
    {
        assert!(text.contains(part), "expected `{part}` in\n{text}");
    }
}

fn verify_names_the_file_that_was_changed() {
    let dir = folder();
    capture(dir.path(), "--hooks embed");
    let store = dir.path().join("s");
    run(dir.path(), "store verify s").ok();
    for name in
        ["embed/00000.safetensors", "codes/00000.safetensors", "index.jsonl", "store.json", "run.json"]
    {
        let path = store.join(name);
        let whole = fs::read(&path).expect("a file of the store");
        for (at, what) in [(0, "first"), (whole.len() / 2, "middle"), (whole.len() - 1, "last")] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).expect("it can be written");
            let ran = run(dir.path(), "store verify s --json").exits(4, &[name, "SHA-256"]);
            assert!(!ran.json()["problems"].as_array().expect("a list").is_empty(), "{what} byte of {name}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).expect("it can be written");
        run(dir.path(), "store verify s").exits(4, &[name]);
        fs::remove_file(&path).expect("it can be deleted");
        let code = if name == "store.json" { 3 } else { 4 };
        run(dir.path(), "store verify s").exits(code, &[name]);
        fs::write(&path, &whole).expect("it can be written");
        run(dir.path(), "store verify s").ok();
    }
    fs::write(store.join("embed/stray.txt"), "what is this").expect("a new file");
    run(dir.path(), "store verify s").exits(4, &["embed/stray.txt"]);
    fs::remove_file(store.join("embed/stray.txt")).expect("just written");
    let sums = fs::read_to_string(store.join("SHA256SUMS")).expect("it is there");
    fs::write(store.join("SHA256SUMS"), sums.replacen('a', "b", 1)).expect("it can be written");
    run(dir.path(), "store verify s").exits(4, &["SHA-256"]);
    fs::remove_file(store.join("SHA256SUMS")).expect("it can be deleted");
    run(dir.path(), "store verify s").exits(4, &["unfinished"]);
}

/// Type, shape and data of a file in NumPy's format 1.0.
fn npy(path: &Path) -> (String, Vec<usize>, Vec<u8>) {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((10 + length) % 64, 0, "data begins at a multiple of 64");
    let header = std::str::from_utf8(&bytes[10..10 + length]).expect("ASCII");
    assert!(header.ends_with('\n') && header.contains("'fortran_order': False"), "{header}");
    let between = |before: &str, after: char| {
        let at = header.find(before).unwrap_or_else(|| panic!("`{before}` in {header}")) + before.len();
        header[at..].split(after).next().expect("a part").to_string()
    };
    let shape = between("'shape': (", ')');
    let shape = shape.split(',').map(|extent| extent.trim().parse().expect("a number")).collect();
    (between("'descr': '", '\''), shape, bytes[10 + length..].to_vec())
}

fn exports_are_numpy_files() {
    for (dtype, descr, numpy) in
        [("f32", "<f4", "float32"), ("f16", "<f2", "float16"), ("bf16", "<f4", "float32")]
    {
        let dir = folder();
        capture(dir.path(), &format!("--hooks hook_layers.2,logits --dtype {dtype}"));
        let report = run(dir.path(), "store export s --npy --out npy --json").ok().json();
        assert_eq!((&report["clips"], &report["files"]), (&json!(4), &json!(8)));
        let (store, out) = (dir.path().join("s"), dir.path().join("npy"));
        let text = fs::read_to_string(out.join("activation_index.jsonl")).expect("written last");
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(rows.len(), 4);
        for (row, clip) in rows.iter().zip(index(&store)) {
            assert_eq!((&row["clip_id"], &row["dtype"]), (&clip["clip_id"], &json!(numpy)));
            for (hook, width) in [("hook_layers.2", 128), ("logits", 256)] {
                let number =
                    |key: &str| usize::try_from(clip[key].as_u64().expect("a number")).expect("small");
                let (positions, start) = (number("positions"), number("row_start"));
                let path = out.join(row["residual_paths"][hook].as_str().expect("a path"));
                let (found, shape, data) = npy(&path);
                assert_eq!((found.as_str(), shape), (descr, vec![positions, width]), "{}", path.display());
                let all = resid(&store, hook).2;
                let size = if dtype == "f32" { 4 } else { 2 };
                let stored = &all[start * width * size..(start + positions) * width * size];
                match dtype {
                    // the upper half of a float: widened with zeros
                    "bf16" => {
                        let wide: Vec<u8> = stored.chunks_exact(2).flat_map(|b| [0, 0, b[0], b[1]]).collect();
                        assert!(data == wide, "{}", path.display());
                        assert!(floats(&data).iter().all(|value| value.is_finite()));
                    }
                    _ => assert!(data == stored, "{}", path.display()),
                }
            }
        }
        let record = json_file(&out.join("run.json"));
        assert_eq!(record["details"]["exported"]["files"], 8);
        let before = tree(&out);
        run(dir.path(), "store export s --npy --out npy").exits(2, &["npy", "not empty"]);
        assert_eq!(tree(&out), before);
    }
}

fn folders_that_are_no_stores() {
    let dir = folder();
    for command in ["info", "verify", "export"] {
        let rest = if command == "export" { "--npy --out out" } else { "" };
        run(dir.path(), &format!("store {command} absent {rest}")).exits(3, &["absent", "store.json"]);
        run(dir.path(), &format!("store {command} MODEL {rest}")).exits(3, &["store.json"]);
        assert!(names(dir.path()).is_empty(), "{command}: {:?}", names(dir.path()));
    }
    capture(dir.path(), "--hooks embed");
    let path = dir.path().join("s/store.json");
    let text = fs::read_to_string(&path).expect("it is there");
    fs::write(&path, text.replace("\"format\": 1", "\"format\": 2")).expect("it can be written");
    run(dir.path(), "store info s").exits(3, &["`format`", "is 2, expected 1"]);
    // a code beyond the codebook is told apart from a changed byte: here the hashes are right
    let (_, shape, _) = tensor(&dir.path().join("s/codes/00000.safetensors"), "codes/flac_s16@0-32000");
    assert_eq!(shape, [4, 50]);
}
