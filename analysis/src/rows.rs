//! Rows of activations from files of other programs: NumPy's `.npy` and safetensors.
//!
//! The last axis is a row, all others are counted through; values become f32. What a store of this program holds is read by
//! [`crate::store`].

use std::path::Path;

use auscult_runtime::npy::Npy;
use auscult_runtime::weights::Weights;

use crate::error::{AnalysisError, Result};
use crate::store::RESID;

/// Rows of one width.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Values of a row.
    pub width: usize,
    /// `[rows, width]`.
    pub values: Vec<f32>,
}

/// Reads a `.npy` file of `<f2`, `<f4` or `<f8`, or one tensor of a safetensors file (F32, F16, BF16): `tensor`, else
/// `resid`, else the only one there is.
///
/// # Errors
/// [`AnalysisError::Input`] or [`AnalysisError::Weights`] with file, what was found and what was expected.
pub fn read_rows(path: &Path, tensor: Option<&str>) -> Result<Rows> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("npy") if tensor.is_none() => read_npy(path),
        Some("npy") => Err(AnalysisError::usage("--tensor", "a .npy file", "a safetensors file")),
        Some("safetensors") => read_safetensors(path, tensor),
        _ => Err(AnalysisError::input(
            path,
            "name",
            path.display(),
            "a name that ends in .npy or .safetensors",
        )),
    }
}

fn rows_of(path: &Path, shape: &[usize], values: Vec<f32>) -> Result<Rows> {
    match shape.last() {
        Some(&width) if width > 0 => Ok(Rows { width, values }),
        _ => Err(AnalysisError::input(path, "shape", format!("{shape:?}"), "rows of at least one value")),
    }
}

fn read_safetensors(path: &Path, tensor: Option<&str>) -> Result<Rows> {
    let weights = Weights::open(path)?;
    let names: Vec<&str> = weights.names().collect();
    let name = match (tensor, names.as_slice()) {
        (Some(name), _) => name,
        (None, names) if names.contains(&RESID) => RESID,
        (None, [only]) => only,
        (None, names) => {
            let expected = format!("one, `{RESID}`, or one named by --tensor");
            return Err(AnalysisError::input(path, "tensors", names.join(", "), expected));
        }
    };
    match weights.get(name) {
        Some(view) => rows_of(path, view.shape, view.to_f32()?),
        None => Err(AnalysisError::input(
            path,
            "tensors",
            names.join(", "),
            format!("`{name}` as F32, F16 or BF16"),
        )),
    }
}

fn read_npy(path: &Path) -> Result<Rows> {
    let bytes =
        std::fs::read(path).map_err(|e| AnalysisError::input(path, "file", e, "a readable regular file"))?;
    let Npy { shape, values } =
        Npy::read(&bytes).map_err(|e| AnalysisError::input(path, e.field, e.found, e.expected))?;
    rows_of(path, &shape, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::npy_header;
    use half::f16;
    use std::fs;

    fn written(name: &str, header: Vec<u8>, data: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, [header, data.to_vec()].concat()).unwrap();
        (dir, path)
    }

    #[test]
    fn floats_of_every_size_are_rows() {
        let values = [1.5f32, -2.0, 0.25, 8.0, 3.0, -0.5];
        let f2: Vec<u8> = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        let f4: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let f8: Vec<u8> = values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect();
        for (descr, data) in [("<f2", f2), ("<f4", f4), ("<f8", f8)] {
            for (shape, width) in [(&[2, 3][..], 3), (&[1, 3, 2], 2), (&[6], 6)] {
                let (_dir, path) = written("x.npy", npy_header(descr, shape), &data);
                assert_eq!(read_rows(&path, None).unwrap(), Rows { width, values: values.to_vec() });
            }
        }
    }

    #[test]
    fn what_is_not_read_is_named() {
        let error = |name: &str, header: Vec<u8>, data: &[u8]| {
            let (_dir, path) = written(name, header, data);
            read_rows(&path, None).unwrap_err().to_string()
        };
        let header = |descr: &str| npy_header(descr, &[2, 3]);
        assert!(error("x.npy", header("<f4"), &[0; 20]).contains("(2, 3) of `<f4`"));
        assert!(error("x.npy", header(">f4"), &[0; 24]).contains("`>f4`"));
        assert!(error("x.npy", header("<i4"), &[0; 24]).contains("`<f8`"));
        assert!(error("x.npy", npy_header("<f4", &[2, 0]), &[]).contains("at least one value"));
        assert!(error("x.npy", b"\x93NUMPY\x09\0".to_vec(), &[]).contains("format 1, 2 or 3"));
        assert!(error("x.csv", Vec::new(), &[]).contains(".npy or .safetensors"));
    }
}
