//! NumPy's `.npy`: the floats of one array behind their header (NumPy's `numpy/lib/format.py`).
//!
//! Archives of such files (`.npz`) are zip files, which are opened where they are needed.

use half::f16;

/// An array.
#[derive(Clone, Debug, PartialEq)]
pub struct Npy {
    /// Extents, slowest first; none of a single value.
    pub shape: Vec<usize>,
    /// Its values, row-major, whatever order the file has.
    pub values: Vec<f32>,
}

/// Why bytes are no array that is read here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {found}, expected {expected}")]
pub struct NpyError {
    /// The field of the header.
    pub field: &'static str,
    /// What it holds.
    pub found: String,
    /// What is read.
    pub expected: String,
}

impl Npy {
    /// Reads a file of format 1, 2 or 3 that holds `<f2`, `<f4` or `<f8`, in C order or, of at most two axes, in Fortran's.
    ///
    /// # Errors
    /// The field that is of another kind, or a length that does not fit the shape.
    pub fn read(bytes: &[u8]) -> Result<Self, NpyError> {
        let bad = |field: &'static str, found: String, expected: String| NpyError { field, found, expected };
        let Some((dict, data)) = parts(bytes) else {
            let expected = "a .npy file of format 1, 2 or 3".into();
            return Err(bad("header", "no header of NumPy's".into(), expected));
        };
        let field = |name: &str| {
            let (_, rest) = dict.split_once(&format!("'{name}':"))?;
            Some(rest.trim_start())
        };
        let extents = field("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
        let extents = extents.map_or("", |(inside, _)| inside);
        let shape: Option<Vec<usize>> =
            extents.split(',').map(str::trim).filter(|e| !e.is_empty()).map(|e| e.parse().ok()).collect();
        let descr =
            field("descr").and_then(|rest| rest.strip_prefix('\'')?.split('\'').next()).unwrap_or_default();
        let (size, values): (usize, Vec<f32>) = match descr {
            "<f2" => (2, each(data, |b| f16::from_le_bytes(b).to_f32())),
            "<f4" => (4, each(data, f32::from_le_bytes)),
            "<f8" => (8, each(data, |b| f64::from_le_bytes(b) as f32)),
            other => return Err(bad("descr", format!("`{other}`"), "`<f2`, `<f4` or `<f8`".into())),
        };
        let whole =
            |shape: &[usize]| shape.iter().try_fold(size, |n, &e| n.checked_mul(e)) == Some(data.len());
        let Some(shape) = shape.filter(|shape| whole(shape)) else {
            let expected = format!("one of the {} bytes of data", data.len());
            return Err(bad("shape", format!("({extents}) of `{descr}`"), expected));
        };
        let order = field("fortran_order").unwrap_or_default();
        let values = match (order.starts_with("False"), order.starts_with("True"), shape.as_slice()) {
            (true, ..) | (_, true, [] | [_]) => values,
            (_, true, &[rows, cols]) => {
                (0..rows * cols).map(|at| values[at % cols * rows + at / cols]).collect()
            }
            (_, true, _) => {
                let expected = "False, or an array of at most two axes".into();
                return Err(bad("fortran_order", format!("True of ({extents})"), expected));
            }
            _ => {
                let found = order.split(',').next().unwrap_or_default().into();
                return Err(bad("fortran_order", found, "False or True".into()));
            }
        };
        Ok(Self { shape, values })
    }
}

/// The dictionary of the header and what follows it.
fn parts(bytes: &[u8]) -> Option<(&str, &[u8])> {
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

    fn file(dict: &str, values: &[f32]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(dict.len()).unwrap().to_le_bytes());
        bytes.extend(dict.as_bytes());
        bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        bytes
    }

    #[test]
    fn both_orders_are_read_as_rows() {
        let read = |order: &str, shape: &str, values: &[f32]| {
            let dict = format!("{{'descr': '<f4', 'fortran_order': {order}, 'shape': ({shape}), }}");
            Npy::read(&file(&dict, values)).map_err(|e| e.to_string())
        };
        let want = Npy { shape: vec![2, 3], values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
        assert_eq!(read("False", "2, 3", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), Ok(want.clone()));
        assert_eq!(read("True", "2, 3", &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]), Ok(want));
        assert_eq!(read("True", "2,", &[1.0, 4.0]), Ok(Npy { shape: vec![2], values: vec![1.0, 4.0] }));
        assert_eq!(read("False", "", &[7.0]), Ok(Npy { shape: vec![], values: vec![7.0] }));
        let deep = read("True", "1, 2, 1", &[1.0, 2.0]).unwrap_err();
        assert_eq!(
            deep,
            "`fortran_order` is True of (1, 2, 1), expected False, or an array of at most two axes"
        );
        assert!(read("maybe", "1,", &[1.0]).unwrap_err().contains("`fortran_order` is maybe"));
    }
}
