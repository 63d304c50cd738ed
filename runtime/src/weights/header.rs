//! The header of a safetensors file, read strictly.
//!
//! Everything is checked before a byte of data is looked at: the header's length, JSON with unique keys, known types,
//! sizes that follow from type and shape, and tensors that fill the file without holes, overlaps or a rest. What the
//! tensors should be called and how they should be shaped is the model's knowledge, not this module's.

use super::error::Problem;
use super::json::Entries;
use crate::safetensors_io::MAX_HEADER;
use auscult_kernels::DType;
use serde::Deserialize;
use std::ops::Range;

/// Bytes of the length field before the header.
const LENGTH_FIELD: usize = size_of::<u64>();

/// An element type of the format: some are carried in files though no kernel reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Name in headers.
    pub(super) name: &'static str,
    /// Bits of one element.
    bits: usize,
    /// The type, where the kernels have it.
    pub(super) dtype: Option<DType>,
}

/// The types of the format (safetensors `Dtype::bitsize`).
const STORED: [Stored; 22] = {
    const fn kernel(dtype: DType) -> Stored {
        Stored { name: dtype.name(), bits: 8 * dtype.size(), dtype: Some(dtype) }
    }
    const fn other(name: &'static str, bits: usize) -> Stored {
        Stored { name, bits, dtype: None }
    }
    [
        kernel(DType::F32),
        kernel(DType::F16),
        kernel(DType::BF16),
        kernel(DType::U8),
        kernel(DType::U16),
        kernel(DType::U32),
        kernel(DType::I32),
        kernel(DType::I64),
        other("BOOL", 8),
        other("F4", 4),
        other("F6_E2M3", 6),
        other("F6_E3M2", 6),
        other("I8", 8),
        other("F8_E5M2", 8),
        other("F8_E4M3", 8),
        other("F8_E8M0", 8),
        other("F8_E4M3FNUZ", 8),
        other("F8_E5M2FNUZ", 8),
        other("I16", 16),
        other("C64", 64),
        other("F64", 64),
        other("U64", 64),
    ]
};

/// One tensor of a header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) stored: Stored,
    pub(super) shape: Vec<usize>,
    /// Its bytes, counted from the start of the file.
    pub(super) bytes: Range<usize>,
}

/// A valid header.
#[derive(Debug)]
pub(super) struct Header {
    /// The `__metadata__` object.
    pub(super) metadata: Vec<(String, String)>,
    /// The tensors, in the order of their bytes.
    pub(super) tensors: Vec<Entry>,
}

/// A value of the header's object.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// The header's object: the reserved key is a map of strings, every other a tensor.
#[derive(Debug)]
enum Item {
    Metadata(Vec<(String, String)>),
    Tensor(Info),
}

/// Parses the header of a file whose whole content is `file`.
pub(super) fn parse(file: &[u8]) -> Result<Header, Problem> {
    let json = header_text(file)?;
    let (metadata, infos) = parse_json(json)?;
    let data_start = LENGTH_FIELD + json.len();
    let mut tensors =
        infos.into_iter().map(|(name, info)| entry(name, info)).collect::<Result<Vec<_>, Problem>>()?;
    tensors.sort_by_key(|t| (t.bytes.start, t.bytes.end));
    check_layout(&tensors, data_start, file.len())?;
    for tensor in &mut tensors {
        tensor.bytes = data_start + tensor.bytes.start..data_start + tensor.bytes.end;
    }
    Ok(Header { metadata, tensors })
}

/// The bytes of the JSON text.
fn header_text(file: &[u8]) -> Result<&[u8], Problem> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_FIELD>() else {
        return Err(Problem::file(
            format!("a file of {} bytes", file.len()),
            format!("at least {LENGTH_FIELD}, the length of a safetensors header"),
        ));
    };
    let length = u64::from_le_bytes(*length);
    match usize::try_from(length) {
        Ok(length) if length <= MAX_HEADER && length <= rest.len() => Ok(&rest[..length]),
        Ok(length) if length <= MAX_HEADER => Err(Problem::file(
            format!("a header of {length} bytes in a file of {}", file.len()),
            "a header that ends within the file",
        )),
        _ if file.starts_with(b"version https://git-lfs") => {
            Err(Problem::file("a Git LFS pointer", "the file itself (`git lfs pull` fetches it)"))
        }
        _ => Err(Problem::file(format!("a header of {length} bytes"), format!("at most {MAX_HEADER}"))),
    }
}

type Parsed = (Vec<(String, String)>, Vec<(String, Info)>);

fn parse_json(json: &[u8]) -> Result<Parsed, Problem> {
    let expected = "a JSON object of tensors with `dtype`, `shape` and `data_offsets`";
    let invalid = |e: serde_json::Error| Problem::file(format!("an invalid header: {e}"), expected);
    let Entries(items) =
        serde_json::from_slice::<Entries<Box<serde_json::value::RawValue>>>(json).map_err(invalid)?;
    let mut metadata = Vec::new();
    let mut infos = Vec::new();
    for (name, raw) in items {
        // serde would read a struct from an array as well
        if !raw.get().starts_with('{') {
            return Err(Problem::tensor(&name, "an invalid entry: not an object", expected_of(&name)));
        }
        match item(&name, raw.get()) {
            Ok(Item::Metadata(entries)) => metadata = entries,
            Ok(Item::Tensor(info)) => infos.push((name, info)),
            Err(e) => {
                return Err(Problem::tensor(&name, format!("an invalid entry: {e}"), expected_of(&name)));
            }
        }
    }
    Ok((metadata, infos))
}

fn item(name: &str, text: &str) -> Result<Item, serde_json::Error> {
    if name == "__metadata__" {
        let Entries(entries) = serde_json::from_str(text)?;
        return Ok(Item::Metadata(entries));
    }
    serde_json::from_str(text).map(Item::Tensor)
}

fn expected_of(name: &str) -> &'static str {
    if name == "__metadata__" {
        "an object of strings"
    } else {
        "an object of `dtype`, `shape` and `data_offsets`"
    }
}

/// Checks one tensor by itself; its bytes are still counted from the start of the data.
fn entry(name: String, info: Info) -> Result<Entry, Problem> {
    let Info { dtype, shape, data_offsets: (begin, end) } = info;
    let Some(&stored) = STORED.iter().find(|stored| stored.name == dtype) else {
        let known: Vec<&str> = STORED.iter().map(|stored| stored.name).collect();
        return Err(Problem::tensor(
            &name,
            format!("dtype `{dtype}`"),
            format!("one of {}", known.join(", ")),
        ));
    };
    let found = format!("data_offsets [{begin}, {end}] for {dtype} {shape:?}");
    let bits = shape
        .iter()
        .try_fold(1usize, |n, &extent| n.checked_mul(extent))
        .and_then(|n| n.checked_mul(stored.bits));
    let Some(bits) = bits else {
        return Err(Problem::tensor(&name, found, "a size that an address can count"));
    };
    if !bits.is_multiple_of(8) {
        return Err(Problem::tensor(&name, found, "a whole number of bytes"));
    }
    if end.checked_sub(begin) != Some(bits / 8) {
        return Err(Problem::tensor(&name, found, format!("{} bytes", bits / 8)));
    }
    Ok(Entry { name, stored, shape, bytes: begin..end })
}

/// Checks that sorted tensors fill the data exactly.
fn check_layout(tensors: &[Entry], data_start: usize, file_len: usize) -> Result<(), Problem> {
    let data_len = file_len - data_start;
    let mut end = 0;
    let mut previous = String::from("the header");
    for tensor in tensors {
        let Range { start, end: tensor_end } = tensor.bytes;
        let found = format!("data_offsets [{start}, {tensor_end}]");
        if start < end {
            let expected = format!("a start at {end}, without overlap: there ends {previous}");
            return Err(Problem::tensor(&tensor.name, found, expected));
        }
        if start > end {
            let expected = format!("a start at {end}, without a hole: there ends {previous}");
            return Err(Problem::tensor(&tensor.name, found, expected));
        }
        if tensor_end > data_len {
            let expected = format!(
                "an end within the {data_len} bytes of data of this file of {file_len} bytes (truncated?)"
            );
            return Err(Problem::tensor(&tensor.name, found, expected));
        }
        end = tensor_end;
        previous = format!("tensor `{}`", tensor.name);
    }
    if end < data_len {
        let found = format!("a file of {file_len} bytes");
        return Err(Problem::file(found, format!("{}, where its last tensor ends", data_start + end)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every type of the format's own crate is known here under its name and size.
    #[test]
    fn types_are_those_of_the_format() {
        use safetensors::Dtype::*;
        let theirs = [
            F32,
            F16,
            BF16,
            U8,
            U16,
            U32,
            I32,
            I64,
            BOOL,
            F4,
            F6_E2M3,
            F6_E3M2,
            I8,
            F8_E5M2,
            F8_E4M3,
            F8_E8M0,
            F8_E4M3FNUZ,
            F8_E5M2FNUZ,
            I16,
            C64,
            F64,
            U64,
        ];
        for (ours, theirs) in STORED.iter().zip(theirs) {
            assert_eq!((ours.name, ours.bits), (theirs.to_string().as_str(), theirs.bitsize()));
        }
        assert_eq!(STORED.len(), theirs.len());
    }
}
