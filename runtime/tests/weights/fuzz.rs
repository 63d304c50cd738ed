//! No bytes make the reader panic, and what it accepts the format's own crate accepts, with the same tensors.

use crate::common::{dir, packed, put, raw};
use auscult_runtime::weights::Weights;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use safetensors::SafeTensors;
use std::cell::Cell;
use std::path::Path;

fn config(cases: u32, seed: u64) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() }
}

/// Opens `bytes` with both readers. Ours may refuse more (twin keys, unknown fields), never less.
fn compare(dir: &Path, bytes: &[u8]) -> bool {
    let Ok(ours) = Weights::open(put(dir, "x.safetensors", bytes)) else { return false };
    let theirs = SafeTensors::deserialize(bytes).expect("the format's crate accepts what we accept");
    assert_eq!(ours.names().count(), theirs.len());
    for view in ours.iter() {
        let tensor = theirs.tensor(view.name).expect("the same names");
        assert_eq!((view.shape, view.bytes), (tensor.shape(), tensor.data()));
        assert_eq!(view.dtype.name(), tensor.dtype().to_string());
    }
    let _ = ours.check_finite();
    true
}

/// A file with several types, an empty tensor and metadata.
fn valid() -> Vec<u8> {
    let tensors: [(&str, &str, &[usize], &[u8]); 5] = [
        ("decoder.w", "F32", &[2, 3], &[1; 24]),
        ("b", "F16", &[4], &[2; 8]),
        ("empty", "BF16", &[0, 5], &[]),
        ("codes", "I64", &[1, 2], &[3; 16]),
        ("mask", "BOOL", &[3], &[1; 3]),
    ];
    packed(&tensors)
}

#[test]
fn random_bytes() {
    let dir = dir();
    proptest!(config(400, 1), |(bytes in prop::collection::vec(any::<u8>(), 0..200))| {
        compare(dir.path(), &bytes);
        // the same bytes behind an honest length, so that they reach the JSON reader
        compare(dir.path(), &[&(bytes.len() as u64).to_le_bytes()[..], &bytes].concat());
    });
}

#[test]
fn random_bytes_as_an_index() {
    let dir = dir();
    put(dir.path(), "a.safetensors", &valid());
    proptest!(config(300, 2), |(text in r#"\{"weight_map":\{("[a-z.]{1,4}":"(\.\./|/)?[a-b]\.safetensors",?){0,3}\}\}?"#)| {
        let result = Weights::open(put(dir.path(), "model.safetensors.index.json", text.as_bytes()));
        prop_assert!(result.is_err(), "no such index lists what the shard holds: {text}");
    });
}

/// Bytes of a valid file replaced, inserted, removed.
#[test]
fn mutated_files() {
    let dir = dir();
    let valid = valid();
    assert!(compare(dir.path(), &valid));
    let edit = (
        any::<prop::sample::Index>(),
        0..3u8,
        prop_oneof![any::<u8>(), prop::sample::select(&b"0129[]{},:\"- \\"[..])],
    );
    let accepted = Cell::new(0);
    proptest!(config(1500, 3), |(edits in prop::collection::vec(edit, 1..4))| {
        let mut bytes = valid.clone();
        for (at, kind, byte) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        accepted.set(accepted.get() + u32::from(compare(dir.path(), &bytes)));
    });
    assert!(accepted.get() > 20, "some edits leave a valid file (a name, a value): {}", accepted.get());
}

/// Well-formed headers with arbitrary types, shapes and offsets, most nearly right: both readers agree both ways.
#[test]
fn layouts_are_judged_as_the_format_does() {
    let dir = dir();
    let dtypes = [
        "F32", "F16", "BF16", "U8", "U16", "U32", "I32", "I64", "BOOL", "F4", "F6_E2M3", "I8", "F8_E4M3",
        "F64",
    ];
    let bits = [32, 16, 16, 8, 16, 32, 32, 64, 8, 4, 6, 8, 8, 64];
    let tensor = (0..dtypes.len(), prop::collection::vec(0usize..5, 0..4), -1i64..=1, 0..12u8);
    let accepted = Cell::new(0);
    proptest!(config(1500, 4), |(tensors in prop::collection::vec(tensor, 0..5), tail in 0..24usize, reverse: bool)| {
        let mut end = 0i64;
        let mut entries: Vec<String> = tensors.iter().enumerate().map(|(i, (dtype, shape, slip, where_))| {
            let size = shape.iter().product::<usize>() * bits[*dtype] / 8;
            let mut offsets = [end, end + i64::try_from(size).unwrap()];
            // one in six tensors is off by one at its start or end, or altogether
            match where_ {
                0 => offsets[0] = (offsets[0] + slip).max(0),
                1 => offsets[1] = (offsets[1] + slip).max(0),
                2 => offsets = offsets.map(|at| (at + slip).max(0)),
                _ => {}
            }
            end = offsets[1];
            format!(r#""t{i}":{{"dtype":"{}","shape":{shape:?},"data_offsets":{offsets:?}}}"#, dtypes[*dtype])
        }).collect();
        if reverse {
            entries.reverse();
        }
        // half of the files have the length the header implies, the others are up to a dozen bytes off
        let data = if tail < 12 { end } else { (end + i64::try_from(tail).unwrap() - 18).max(0) };
        let bytes = raw(&format!("{{{}}}", entries.join(",")), &vec![0; usize::try_from(data).unwrap()]);
        let ours = compare(dir.path(), &bytes);
        prop_assert_eq!(ours, SafeTensors::deserialize(&bytes).is_ok());
        accepted.set(accepted.get() + u32::from(ours));
    });
    assert!(
        (200..1300).contains(&accepted.get()),
        "both verdicts are exercised: {} of 1500 accepted",
        accepted.get()
    );
}
