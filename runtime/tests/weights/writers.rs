//! Safetensors files that this program writes, read back by the format's own crate.

use crate::common::{assert_says, dir, le, listing, noise};
use auscult_kernels::DType;
use auscult_runtime::files::FileError;
use auscult_runtime::safetensors_io::{GrowingTensorFile, TensorSpec, write_safetensors};
use auscult_runtime::weights::Weights;
use safetensors::SafeTensors;
use std::io::{self, ErrorKind};
use std::{fs, path::Path};

type Metadata = Vec<(String, String)>;

fn meta(entries: &[(&str, &str)]) -> Metadata {
    entries.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

#[test]
fn mixed_types_are_aligned_and_read_back() {
    let dir = dir();
    let path = dir.path().join("mixed.safetensors");
    let specs = [
        TensorSpec::new("bytes", DType::U8, [3]),
        TensorSpec::new("a \"quoted\" ünïcode name", DType::F32, [2, 3]),
        TensorSpec::new("halves", DType::F16, [5]),
        TensorSpec::new("scalar", DType::I64, []),
        TensorSpec::new("empty", DType::BF16, [0, 7]),
        TensorSpec::new("codes", DType::U16, [1, 1]),
        TensorSpec::new("rows", DType::I32, [1]),
        TensorSpec::new("ids", DType::U32, [1]),
    ];
    // every byte of tensor i is i + 1, so that no two tensors look alike
    let content = |i: usize| vec![u8::try_from(i).unwrap() + 1; specs[i].bytes().unwrap()];
    let metadata = meta(&[("format", "pt"), ("note", "tab\t and \"quotes\"")]);
    write_safetensors(&path, &metadata, &specs, |i, out| out.write_all(&content(i))).unwrap();

    let bytes = fs::read(&path).unwrap();
    let theirs = SafeTensors::deserialize(&bytes).unwrap();
    let ours = Weights::open(&path).unwrap();
    assert_eq!(theirs.len(), specs.len());
    for (i, spec) in specs.iter().enumerate() {
        let tensor = theirs.tensor(&spec.name).unwrap();
        assert_eq!(
            (tensor.dtype().to_string().as_str(), tensor.shape()),
            (spec.dtype.name(), &spec.shape[..])
        );
        assert_eq!(tensor.data(), content(i), "{}", spec.name);
        let view = ours.get(&spec.name).unwrap();
        assert_eq!((view.dtype, view.shape, view.bytes), (spec.dtype, &spec.shape[..], &content(i)[..]));
        assert!(view.host().is_aligned_to(spec.dtype.size()), "{} is misaligned", spec.name);
    }
    assert_eq!(ours.metadata("note"), Some("tab\t and \"quotes\""));
    assert_eq!(ours.metadata("absent"), None);
    assert_eq!(listing(dir.path()), ["mixed.safetensors"]);
}

#[test]
fn a_file_without_tensors_is_valid() {
    let dir = dir();
    let path = dir.path().join("none.safetensors");
    write_safetensors(&path, &[], &[], |_, _| panic!("there is nothing to fill")).unwrap();
    assert_eq!(SafeTensors::deserialize(&fs::read(&path).unwrap()).unwrap().len(), 0);
    assert_eq!(Weights::open(&path).unwrap().names().count(), 0);
}

#[test]
fn fill_must_keep_its_promise() {
    let dir = dir();
    let path = dir.path().join("x.safetensors");
    let specs = [TensorSpec::new("w", DType::F32, [2, 3])];
    for (n, why) in
        [(0, "nothing"), (23, "one byte short"), (25, "one byte over"), (1 << 20, "over by a buffer")]
    {
        let error = write_safetensors(&path, &[], &specs, |_, out| out.write_all(&vec![1; n])).unwrap_err();
        let found = format!("found {n} bytes written, expected 24 (F32 [2, 3])");
        assert_says(&error.to_string(), &["x.safetensors", "tensor `w`", &found]);
        assert_eq!(listing(dir.path()), [""; 0], "{why}");
    }
    let full = |_: usize, _: &mut dyn io::Write| Err(io::Error::from(ErrorKind::StorageFull));
    let error = write_safetensors(&path, &[], &specs, full).unwrap_err();
    assert_eq!(error.io_kind(), Some(ErrorKind::StorageFull));
    assert_says(&error.to_string(), &["x.safetensors", "no storage space"]);
    assert_eq!(listing(dir.path()), [""; 0]);
}

#[test]
fn impossible_headers_are_refused_before_anything_is_written() {
    let dir = dir();
    let path = dir.path().join("x.safetensors");
    let one = |name: &str, shape: &[usize]| TensorSpec::new(name, DType::F32, shape);
    let cases: [(&str, Vec<TensorSpec>, Metadata, &str); 5] = [
        ("twin names", vec![one("w", &[1]), one("w", &[2])], vec![], "tensor `w`: found the name twice"),
        ("the reserved name", vec![one("__metadata__", &[1])], vec![], "other than `__metadata__`"),
        ("twin keys", vec![], meta(&[("k", "1"), ("k", "2")]), "key `k` twice"),
        ("one tensor too large", vec![one("w", &[usize::MAX, 2])], vec![], "tensor `w`: found shape"),
        (
            "two tensors too large together",
            vec![one("v", &[usize::MAX / 4]), one("w", &[usize::MAX / 4])],
            vec![],
            "tensor `w`: found shape",
        ),
    ];
    for (why, specs, metadata, says) in cases {
        let error = write_safetensors(&path, &metadata, &specs, |_, _| panic!("{why}")).unwrap_err();
        assert_says(&error.to_string(), &["x.safetensors", says]);
        assert_eq!(listing(dir.path()), [""; 0], "{why}");
    }
}

fn read_rows(path: &Path) -> (Vec<usize>, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(header % 8, 0, "data start at a multiple of eight");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("resid").unwrap();
    (tensor.shape().to_vec(), tensor.data().to_vec())
}

#[test]
fn a_growing_file_gets_its_row_count_at_the_end() {
    let dir = dir();
    for (chunks, why) in [
        (vec![], "no rows"),
        (vec![1], "one row"),
        (vec![2, 0, 5, 1], "an empty chunk"),
        (vec![40_000], "past the buffer"),
    ] {
        let path = dir.path().join("00000.safetensors");
        let rows: usize = chunks.iter().sum();
        let content = le(&noise(11, rows * 3));
        let metadata = meta(&[("site", "layers.7.resid_post")]);
        let mut file = GrowingTensorFile::create(&path, &metadata, "resid", DType::F32, &[3]).unwrap();
        let mut at = 0;
        for chunk in chunks {
            file.append(&content[at..at + chunk * 12]).unwrap();
            at += chunk * 12;
        }
        assert_eq!(file.rows(), rows);
        assert_eq!(file.path(), path);
        file.finish(rows).unwrap();
        assert_eq!(read_rows(&path), (vec![rows, 3], content), "{why}");
        assert_eq!(Weights::open(&path).unwrap().metadata("site"), Some("layers.7.resid_post"));
        assert_eq!(listing(dir.path()), ["00000.safetensors"]);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_growing_file_refuses_parts_of_rows_and_wrong_counts() {
    let dir = dir();
    let path = dir.path().join("s.safetensors");
    let open = || GrowingTensorFile::create(&path, &[], "resid", DType::F16, &[5]).unwrap();
    let mut file = open();
    file.append(&[1; 10]).unwrap();
    let text = file.append(&[1; 15]).unwrap_err().to_string();
    assert_says(
        &text,
        &["s.safetensors", "`resid`", "found 15 bytes, expected whole rows of 10 bytes (F16 [5])"],
    );
    let text = file.finish(2).unwrap_err().to_string();
    assert_says(&text, &["s.safetensors", "`resid`", "found rows appended: 1, expected 2"]);
    drop(open());
    assert_eq!(listing(dir.path()), [""; 0], "neither failure nor drop leaves a file");

    for (shape, why) in [(&[0usize][..], "empty rows"), (&[usize::MAX, 2], "rows beyond memory")] {
        let error = GrowingTensorFile::create(&path, &[], "resid", DType::F16, shape).unwrap_err();
        assert!(matches!(error, FileError::Layout { .. }), "{why}: {error}");
    }
}
