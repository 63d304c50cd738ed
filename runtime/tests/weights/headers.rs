//! Files that lie: each is refused, with file, tensor, what was found and what was expected.

use crate::common::{assert_says, dir, put, raw, refusal};
use auscult_runtime::weights::Weights;
use std::fs;

/// A header of one tensor `w` with the fields as given.
fn w(fields: &str) -> String {
    format!(r#"{{"w":{{{fields}}}}}"#)
}

/// A length field of any value, then `rest`.
fn length(length: u64, rest: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes(), rest].concat()
}

#[test]
fn lying_headers() {
    let f32s =
        |shape: &str, offsets: &str| w(&format!(r#""dtype":"F32","shape":{shape},"data_offsets":{offsets}"#));
    let two = |a: &str, b: &str| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{a}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{b}}}}}"#
        )
    };
    let good = f32s("[2]", "[0,8]");
    let cases: Vec<(&str, Vec<u8>, Vec<&str>)> = vec![
        ("no bytes", vec![], vec!["found an empty file"]),
        ("shorter than the length field", vec![0; 7], vec!["found a file of 7 bytes", "at least 8"]),
        ("header of nothing", vec![0; 8], vec!["invalid header: EOF"]),
        (
            "largest length",
            length(u64::MAX, b"{}"),
            vec!["a header of 18446744073709551615 bytes", "at most 100000000"],
        ),
        (
            "one past the limit",
            length(100_000_001, b"{}"),
            vec!["a header of 100000001 bytes", "at most 100000000"],
        ),
        ("longer than the file", length(1000, b"{}"), vec!["a header of 1000 bytes in a file of 10"]),
        ("not JSON", raw("hello!!!", &[]), vec!["invalid header: expected value"]),
        (
            "JSON of another kind",
            raw("[1,2,3]", &[]),
            vec!["invalid header: invalid type: sequence", "a JSON object"],
        ),
        ("JSON and more", raw(&format!("{good}x"), &[0; 8]), vec!["invalid header: trailing characters"]),
        (
            "padded with zero bytes",
            raw(&format!("{good}\0"), &[0; 8]),
            vec!["invalid header: trailing characters"],
        ),
        ("cut JSON", raw(&good[..good.len() - 1], &[0; 8]), vec!["invalid header: EOF"]),
        ("not UTF-8", length(6, b"{\"\xff\":1"), vec!["invalid header: invalid unicode"]),
        (
            "nested without end",
            raw(&format!(r#"{{"w":{}"#, "[".repeat(100_000)), &[]),
            vec!["invalid header"],
        ),
        ("nested shape", raw(&f32s("[[2]]", "[0,8]"), &[0; 8]), vec!["tensor `w`", "invalid type: sequence"]),
        (
            "tensor given as a list",
            raw(r#"{"w":["F32",[2],[0,8]]}"#, &[0; 8]),
            vec!["tensor `w`", "not an object"],
        ),
        ("tensor given as null", raw(r#"{"w":null}"#, &[]), vec!["tensor `w`", "not an object"]),
        (
            "a tensor twice",
            raw(&format!("{{{0},{0}}}", &good[1..good.len() - 1]), &[0; 8]),
            vec!["key `w` occurs twice"],
        ),
        (
            "a tensor twice, once in escapes",
            raw(
                &format!(
                    "{{{0},{1}}}",
                    &good[1..good.len() - 1],
                    good[1..good.len() - 1].replace("\"w\"", r#""\u0077""#)
                ),
                &[0; 8],
            ),
            vec!["key `w` occurs twice"],
        ),
        (
            "a field twice",
            raw(&w(r#""dtype":"U8","dtype":"F32","shape":[2],"data_offsets":[0,8]"#), &[0; 8]),
            vec!["tensor `w`", "duplicate field `dtype`"],
        ),
        (
            "a field too many",
            raw(&w(r#""dtype":"F32","shape":[2],"data_offsets":[0,8],"strides":[1]"#), &[0; 8]),
            vec!["tensor `w`", "unknown field `strides`"],
        ),
        (
            "a field too few",
            raw(&w(r#""dtype":"F32","data_offsets":[0,8]"#), &[0; 8]),
            vec!["tensor `w`", "missing field `shape`"],
        ),
        (
            "metadata twice",
            raw(r#"{"__metadata__":{"k":"1"},"__metadata__":{"k":"2"}}"#, &[]),
            vec!["key `__metadata__` occurs twice"],
        ),
        (
            "a metadata key twice",
            raw(r#"{"__metadata__":{"k":"1","k":"2"}}"#, &[]),
            vec!["`__metadata__`", "key `k` occurs twice"],
        ),
        (
            "metadata of numbers",
            raw(r#"{"__metadata__":{"k":1}}"#, &[]),
            vec!["`__metadata__`", "expected an object of strings"],
        ),
        (
            "negative extent",
            raw(&f32s("[-2]", "[0,8]"), &[0; 8]),
            vec!["tensor `w`", "invalid value: integer `-2`"],
        ),
        (
            "fractional extent",
            raw(&f32s("[2.0]", "[0,8]"), &[0; 8]),
            vec!["tensor `w`", "floating point `2.0`"],
        ),
        (
            "extent beyond 64 bits",
            raw(&f32s("[18446744073709551616]", "[0,8]"), &[0; 8]),
            vec!["tensor `w`", "invalid type"],
        ),
        ("three offsets", raw(&f32s("[2]", "[0,8,8]"), &[0; 8]), vec!["tensor `w`", "an invalid entry"]),
        ("one offset", raw(&f32s("[2]", "[0]"), &[0; 8]), vec!["tensor `w`", "invalid length 1"]),
        (
            "unknown type",
            raw(&w(r#""dtype":"F31","shape":[2],"data_offsets":[0,8]"#), &[0; 8]),
            vec!["tensor `w`: found dtype `F31`, expected one of F32, F16, BF16"],
        ),
        (
            "type in lower case",
            raw(&w(r#""dtype":"f32","shape":[2],"data_offsets":[0,8]"#), &[0; 8]),
            vec!["found dtype `f32`"],
        ),
        (
            "end before begin",
            raw(&f32s("[2]", "[8,0]"), &[0; 8]),
            vec!["data_offsets [8, 0] for F32 [2]", "expected 8 bytes"],
        ),
        (
            "too few bytes for the shape",
            raw(&f32s("[3]", "[0,8]"), &[0; 8]),
            vec!["data_offsets [0, 8] for F32 [3]", "expected 12 bytes"],
        ),
        (
            "too many bytes for the shape",
            raw(&f32s("[1]", "[0,8]"), &[0; 8]),
            vec!["data_offsets [0, 8] for F32 [1]", "expected 4 bytes"],
        ),
        (
            "extents overflow",
            raw(&f32s("[4294967296,4294967296,4]", "[0,0]"), &[]),
            vec!["tensor `w`", "a size that an address can count"],
        ),
        (
            "bytes overflow",
            raw(&f32s("[4611686018427387904]", "[0,0]"), &[]),
            vec!["tensor `w`", "a size that an address can count"],
        ),
        (
            "half a byte",
            raw(&w(r#""dtype":"F4","shape":[3],"data_offsets":[0,1]"#), &[0; 1]),
            vec!["tensor `w`", "a whole number of bytes"],
        ),
        (
            "overlap",
            raw(&two("[0,4]", "[2,6]"), &[0; 6]),
            vec!["tensor `b`", "[2, 6]", "start at 4, without overlap: there ends tensor `a`"],
        ),
        (
            "the same bytes twice",
            raw(&two("[0,4]", "[0,4]"), &[0; 4]),
            vec!["found data_offsets [0, 4]", "without overlap"],
        ),
        (
            "hole between",
            raw(&two("[0,4]", "[6,10]"), &[0; 10]),
            vec!["tensor `b`", "start at 4, without a hole: there ends tensor `a`"],
        ),
        (
            "hole before",
            raw(&two("[8,12]", "[4,8]"), &[0; 12]),
            vec!["tensor `b`", "start at 0, without a hole: there ends the header"],
        ),
        (
            "beyond the file",
            raw(&two("[0,4]", "[4,8]"), &[0; 7]),
            vec!["tensor `b`", "[4, 8]", "within the 7 bytes of data", "truncated?"],
        ),
        ("no data at all", raw(&good, &[]), vec!["tensor `w`", "within the 0 bytes of data"]),
        ("bytes after the last tensor", raw(&good, &[0; 9]), vec!["found a file of 71 bytes, expected 70"]),
        ("bytes after no tensor", raw("{}", &[0; 1]), vec!["found a file of 11 bytes, expected 10"]),
        (
            "a Git LFS pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n".to_vec(),
            vec!["found a Git LFS pointer"],
        ),
        (
            "a zip, as torch saves",
            b"PK\x03\x04\x00\x00\x08\x08\x00\x00\x00\x00".to_vec(),
            vec!["a pickle file", "`auscult model convert`"],
        ),
        (
            "a bare pickle",
            b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01K\x01s.".to_vec(),
            vec!["a pickle file", "`auscult model convert`"],
        ),
    ];
    let dir = dir();
    for (why, bytes, says) in cases {
        let path = put(dir.path(), "model.safetensors", &bytes);
        for text in [refusal(&path), refusal(dir.path())] {
            println!("{why}: {text}");
            assert!(text.starts_with(&format!("weights: {}: ", path.display())), "{why}: {text}");
            assert_says(&text, &says);
        }
    }
}

/// Truncated anywhere, a file is refused.
#[test]
fn every_truncation_is_refused() {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}"#;
    let whole = raw(header, &[5; 11]);
    let dir = dir();
    assert_eq!(Weights::open(put(dir.path(), "whole.safetensors", &whole)).unwrap().total_bytes(), 11);
    for n in 0..whole.len() {
        let path = put(dir.path(), "cut.safetensors", &whole[..n]);
        assert_says(&refusal(&path), &["cut.safetensors", "found", "expected"]);
    }
}

#[test]
fn unusual_but_valid_headers() {
    let one = r#"{"w":{"data_offsets":[0,8],"shape":[2],"dtype":"F32"}}"#;
    let cases = [
        ("padded behind with spaces", raw(&format!("{one}   "), &[0; 8]), 1),
        ("padded in front, as page-aligning writers do", raw(&format!("\n\t {one}"), &[0; 8]), 1),
        ("no tensors", raw("{}", &[]), 0),
        ("metadata only", raw(r#"{"__metadata__":{}}"#, &[]), 0),
        ("a scalar", raw(r#"{"w":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#, &[0; 4]), 1),
        (
            "empty tensors at one place",
            raw(
                r#"{"v":{"dtype":"F32","shape":[0],"data_offsets":[4,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"u":{"dtype":"F32","shape":[3,0],"data_offsets":[0,0]}}"#,
                &[0; 4],
            ),
            3,
        ),
        (
            "tensors listed out of order",
            raw(
                r#"{"v":{"dtype":"U8","shape":[1],"data_offsets":[4,5]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
                &[0; 5],
            ),
            2,
        ),
    ];
    let dir = dir();
    for (why, bytes, tensors) in cases {
        let weights =
            Weights::open(put(dir.path(), "x.safetensors", &bytes)).unwrap_or_else(|e| panic!("{why}: {e}"));
        assert_eq!(weights.names().count(), tensors, "{why}");
    }
}

#[test]
fn paths_that_hold_no_weights() {
    let dir = dir();
    let text = refusal(dir.path());
    assert_says(&text, &["neither `model.safetensors` nor `model.safetensors.index.json`"]);
    assert_says(&refusal(&dir.path().join("absent")), &["absent", "cannot open"]);

    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("model.safetensors")] {
        assert_says(&refusal(&path), &["model.safetensors: found a directory, expected a regular file"]);
    }
    fs::remove_dir(dir.path().join("model.safetensors")).unwrap();

    for name in ["pytorch_model.bin", "state_dict.PT", "sae.pth", "state.th", "model.ckpt", "weights.pkl"] {
        let path = put(dir.path(), name, b"whatever it holds");
        for text in [refusal(&path), refusal(dir.path())] {
            assert_says(&text, &[name, "a pickle file", "`auscult model convert`"]);
        }
        fs::remove_file(path).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_devices_refused() {
    use std::os::unix::fs::symlink;
    let dir = dir();
    let link = dir.path().join("model.safetensors");
    // the Hugging Face cache links names to blobs
    let blob = put(dir.path(), "blob", &raw("{}", &[]));
    symlink(&blob, &link).unwrap();
    assert_eq!(Weights::open(dir.path()).unwrap().names().count(), 0);
    fs::remove_file(&blob).unwrap();
    assert_says(&refusal(dir.path()), &["model.safetensors", "cannot open"]);
    fs::remove_file(&link).unwrap();
    symlink("/dev/zero", &link).unwrap();
    assert_says(&refusal(dir.path()), &["model.safetensors: found a device, pipe or socket"]);
}
