//! Rows of activations from files of other programs: NumPy's `.npy` and safetensors.
//!
//! The last axis is a row, all others are counted through; values become f32. What a store of this program holds is read by
//! [`crate::store`].

use std::path::Path;

use auscult_runtime::weights::Weights;
use half::f16;

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

/// Reads a `.npy` file of `<f2`, `<f4` or `<f8` in C order, or one tensor of a safetensors file (F32, F16, BF16): `tensor`, else
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
    let bad =
        |field: &str, found: String, expected: &str| Err(AnalysisError::input(path, field, found, expected));
    let Some((dict, data)) = npy_parts(&bytes) else {
        return bad("header", "no header of NumPy's".into(), "a .npy file of format 1, 2 or 3");
    };
    let field = |name: &str| {
        let (_, rest) = dict.split_once(&format!("'{name}':"))?;
        Some(rest.trim_start())
    };
    let order = field("fortran_order").unwrap_or_default();
    if !order.starts_with("False") {
        return bad("fortran_order", order.split(',').next().unwrap_or_default().into(), "False");
    }
    let extents = field("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
    let extents = extents.map_or("", |(inside, _)| inside);
    let shape: Option<Vec<usize>> =
        extents.split(',').map(str::trim).filter(|e| !e.is_empty()).map(|e| e.parse().ok()).collect();
    let descr =
        field("descr").and_then(|rest| rest.strip_prefix('\'')?.split('\'').next()).unwrap_or_default();
    let values: Vec<f32> = match descr {
        "<f2" => each(data, |b| f16::from_le_bytes(b).to_f32()),
        "<f4" => each(data, f32::from_le_bytes),
        "<f8" => each(data, |b| f64::from_le_bytes(b) as f32),
        other => return bad("descr", format!("`{other}`"), "`<f2`, `<f4` or `<f8`"),
    };
    let size = usize::from(descr.as_bytes()[2] - b'0');
    let whole = |shape: &[usize]| shape.iter().try_fold(size, |n, &e| n.checked_mul(e)) == Some(data.len());
    match shape {
        Some(shape) if whole(&shape) => rows_of(path, &shape, values),
        _ => bad(
            "shape",
            format!("({extents}) of `{descr}`"),
            &format!("one of the {} bytes of data", data.len()),
        ),
    }
}

/// The dictionary of the header and what follows it.
fn npy_parts(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (version, rest) = rest.split_first_chunk::<2>()?;
    let (length, rest) = match version[0] {
        1 => rest.split_first_chunk::<2>().map(|(n, rest)| (usize::from(u16::from_le_bytes(*n)), rest))?,
        2 | 3 => {
            let (n, rest) = rest.split_first_chunk::<4>()?;
            (usize::try_from(u32::from_le_bytes(*n)).ok()?, rest)
        }
        _ => return None,
    };
    let (dict, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(dict).ok()?, data))
}

fn each<const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    data.as_chunks::<N>().0.iter().map(|&b| value(b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::npy_header;
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
        let turned = || {
            let text = String::from_utf8_lossy(&header("<f4")[10..]).replace("False", "True ");
            [&header("<f4")[..10], text.as_bytes()].concat()
        };
        assert!(error("x.npy", header("<f4"), &[0; 20]).contains("(2, 3) of `<f4`"));
        assert!(error("x.npy", header(">f4"), &[0; 24]).contains("`>f4`"));
        assert!(error("x.npy", header("<i4"), &[0; 24]).contains("`<f8`"));
        assert!(error("x.npy", turned(), &[0; 24]).contains("fortran_order"));
        assert!(error("x.npy", npy_header("<f4", &[2, 0]), &[]).contains("at least one value"));
        assert!(error("x.npy", b"\x93NUMPY\x09\0".to_vec(), &[]).contains("format 1, 2 or 3"));
        assert!(error("x.csv", Vec::new(), &[]).contains(".npy or .safetensors"));
    }
}
