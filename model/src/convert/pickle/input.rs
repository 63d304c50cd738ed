//! The bytes of a pickle, read from front to back; nothing is read beyond their end.

use super::{Result, malformed};

/// A position in a pickle.
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Bytes in all.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let left = self.bytes.len() - self.at;
        if count > left {
            return malformed(format!(
                "the pickle ends at byte {}, expected {count} more bytes",
                self.bytes.len()
            ));
        }
        self.at += count;
        Ok(&self.bytes[self.at - count..self.at])
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn length4(&mut self) -> Result<usize> {
        let length = u32::from_le_bytes(self.array()?);
        usize::try_from(length).or_else(|_| malformed(format!("a length of {length} bytes")))
    }

    pub fn length8(&mut self) -> Result<usize> {
        let length = self.u64()?;
        usize::try_from(length).or_else(|_| malformed(format!("a length of {length} bytes")))
    }

    /// The rest of the line, as protocol 0 writes its arguments.
    pub fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let Some(length) = rest.iter().position(|&b| b == b'\n') else {
            return malformed("a line without end");
        };
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).or_else(|_| malformed("a line that is not UTF-8"))
    }
}
