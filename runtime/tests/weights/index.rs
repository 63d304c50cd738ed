//! Sharded checkpoints.

use crate::common::{assert_says, dir, le, noise, packed, put, refusal};
use auscult_runtime::weights::Weights;
use std::fs;
use std::path::Path;

const INDEX: &str = "model.safetensors.index.json";

fn index(dir: &Path, map: &str) {
    put(dir, INDEX, format!(r#"{{"metadata":{{"total_size":64}},"weight_map":{{{map}}}}}"#).as_bytes());
}

/// Two shards whose names do not sort as their tensors do; returns the two tensors' values.
fn shards(dir: &Path) -> (Vec<f32>, Vec<f32>) {
    let (a, b) = (noise(1, 6), noise(2, 5));
    put(dir, "model-00002.safetensors", &packed(&[("a", "F32", &[2, 3], &le(&a)), ("c", "U8", &[1], &[9])]));
    put(dir, "model-00001.safetensors", &packed(&[("b", "F32", &[5], &le(&b))]));
    (a, b)
}

const GOOD: &str =
    r#""a":"model-00002.safetensors","b":"model-00001.safetensors","c":"model-00002.safetensors""#;

#[test]
fn two_shards_open_as_one_checkpoint() {
    let dir = dir();
    let (a, b) = shards(dir.path());
    index(dir.path(), GOOD);
    for path in [dir.path().to_path_buf(), dir.path().join(INDEX)] {
        let weights = Weights::open(&path).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["b", "a", "c"], "in the order of the files");
        assert_eq!(weights.get("a").unwrap().to_f32().unwrap(), a);
        assert_eq!(weights.get("b").unwrap().to_f32().unwrap(), b);
        assert_eq!(weights.get("a").unwrap().file(), dir.path().join("model-00002.safetensors"));
        assert_eq!(weights.total_bytes(), 24 + 20 + 1);
        assert_eq!(weights.path(), dir.path().join(INDEX));
        let files: Vec<_> = weights.files().iter().map(|f| (f.path.clone(), f.bytes)).collect();
        let want = ["model-00001.safetensors", "model-00002.safetensors"].map(|name| {
            let path = dir.path().join(name);
            (path.clone(), fs::metadata(path).unwrap().len())
        });
        assert_eq!(files, want);
    }
}

#[test]
fn a_single_file_goes_before_an_index() {
    let dir = dir();
    shards(dir.path());
    index(dir.path(), GOOD);
    put(dir.path(), "model.safetensors", &packed(&[("only", "U8", &[1], &[3])]));
    assert_eq!(Weights::open(dir.path()).unwrap().names().collect::<Vec<_>>(), ["only"]);
}

#[test]
fn an_index_and_shards_that_disagree() {
    let dir = dir();
    shards(dir.path());
    let in_index = format!("weights: {}", dir.path().join(INDEX).display());
    let in_shard = format!("weights: {}", dir.path().join("model-00002.safetensors").display());
    let cases = [
        (
            "a shard that is not there",
            GOOD.replace("00001", "00003"),
            &in_index,
            vec!["tensor `b`", "no shard `model-00003.safetensors`"],
        ),
        (
            "a tensor that is in no shard",
            format!(r#"{GOOD},"d":"model-00002.safetensors","e":"model-00002.safetensors""#),
            &in_shard,
            vec!["tensor `d`", "no such tensor in this shard (and 1 more)", INDEX],
        ),
        (
            "a tensor mapped to the wrong shard",
            GOOD.replace(r#""c":"model-00002"#, r#""c":"model-00001"#),
            &format!("weights: {}", dir.path().join("model-00001.safetensors").display()),
            vec!["tensor `c`", "no such tensor in this shard"],
        ),
        (
            "a tensor that the index lacks",
            GOOD.replace(r#","c":"model-00002.safetensors""#, ""),
            &in_shard,
            vec!["tensor `c`", "does not map to this shard", INDEX],
        ),
    ];
    for (why, map, place, says) in cases {
        index(dir.path(), &map);
        let text = refusal(dir.path());
        println!("{why}: {text}");
        assert!(text.starts_with(place), "{why}: {text}");
        assert_says(&text, &says);
    }
}

#[test]
fn shards_stay_below_the_index() {
    let outer = dir();
    let inner = outer.path().join("model");
    fs::create_dir_all(inner.join("parts")).unwrap();
    let file = packed(&[("a", "U8", &[1], &[4])]);
    let outside = put(outer.path(), "secret.safetensors", &file);
    let absolute = outside.display().to_string();
    let windows = [r"..\\secret.safetensors", r"C:secret.safetensors", r"\\\\host\\secret.safetensors"];
    for shard in ["../secret.safetensors", "parts/../../secret.safetensors", "", ".", &absolute]
        .into_iter()
        .chain(windows)
    {
        index(&inner, &format!(r#""a":"{shard}""#));
        let text = refusal(&inner);
        assert_says(
            &text,
            &[INDEX, "tensor `a`: found shard `", "expected a path of a `.safetensors` file below the index"],
        );
    }
    index(&inner, r#""a":"pytorch_model.bin""#);
    assert_says(&refusal(&inner), &["found shard `pytorch_model.bin`", "`.safetensors` file"]);

    put(&inner, "parts/a.safetensors", &file);
    index(&inner, r#""a":"parts/a.safetensors""#);
    assert_eq!(Weights::open(&inner).unwrap().get("a").unwrap().bytes, [4], "a directory below is allowed");
}

#[test]
fn broken_indices() {
    let dir = dir();
    shards(dir.path());
    let cases = [
        ("empty", "", "invalid index: EOF"),
        ("not JSON", "weight_map", "invalid index: expected value"),
        ("not an object", "[]", "invalid index: invalid type: sequence"),
        ("no map", r#"{"metadata":{}}"#, "no `weight_map`"),
        ("an empty map", r#"{"weight_map":{}}"#, "an empty `weight_map`"),
        (
            "two maps",
            r#"{"weight_map":{"a":"x.safetensors"},"weight_map":{}}"#,
            "key `weight_map` occurs twice",
        ),
        (
            "a tensor twice",
            r#"{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}"#,
            "key `a` occurs twice",
        ),
        ("a map to numbers", r#"{"weight_map":{"a":1}}"#, "invalid index: invalid type: integer"),
    ];
    for (why, text, says) in cases {
        put(dir.path(), INDEX, text.as_bytes());
        let text = refusal(dir.path());
        println!("{why}: {text}");
        assert_says(&text, &[INDEX, says]);
    }
    fs::remove_file(dir.path().join(INDEX)).unwrap();
    fs::create_dir(dir.path().join(INDEX)).unwrap();
    assert_says(&refusal(dir.path()), &["found a directory, expected a regular file"]);
}

#[test]
fn a_broken_shard_is_named() {
    let dir = dir();
    shards(dir.path());
    index(dir.path(), GOOD);
    put(dir.path(), "model-00001.safetensors", b"");
    assert_says(&refusal(dir.path()), &["model-00001.safetensors: found an empty file"]);
}
