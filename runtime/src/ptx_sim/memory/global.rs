//! The device memory that one launch may touch.

use super::allocation::Allocation;
use super::text;
use crate::ptx_sim::fault::{FaultKind, Refusal};
use std::sync::Arc;

/// Windows lie this many address bits apart, so that no slip of an index leads from one into another.
const APART: u32 = 40;

/// Spans keep their place modulo this, so that alignment is what it is on a device.
const ALIGN: usize = 256;

/// A range of an allocation that a launch may touch.
pub struct Window {
    /// Name of the slot, for refusals.
    pub name: String,
    /// The memory.
    pub allocation: Arc<Allocation>,
    /// First byte.
    pub offset: usize,
    /// Length in bytes.
    pub bytes: usize,
    /// Whether the launch may write it.
    pub writable: bool,
}

/// What a launch may touch: windows of allocations at made-up addresses far apart.
pub struct Global {
    windows: Vec<Placed>,
}

struct Placed {
    window: Window,
    base: u64,
    bytes: u64,
}

impl Global {
    /// Gives windows their addresses.
    pub fn new(windows: Vec<Window>) -> Self {
        let place = |(i, window): (usize, Window)| {
            let end = window.offset + window.bytes;
            assert!(end <= window.allocation.bytes(), "`{}` does not lie within its allocation", window.name);
            let shift = u64::try_from(window.offset % ALIGN).expect("less than 256");
            let bytes = u64::try_from(window.bytes).expect("lengths have at most 64 bits");
            let base = u64::try_from(i + 1).expect("few windows") << APART;
            Placed { window, base: base + shift, bytes }
        };
        Self { windows: windows.into_iter().enumerate().map(place).collect() }
    }

    /// Where a window begins.
    pub fn address(&self, window: usize) -> u64 {
        self.windows[window].base
    }

    /// Reads 1, 2, 4, 8 or 16 bytes.
    #[inline]
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Refusal> {
        let (placed, at) = self.find("read", address, into.len())?;
        if placed.window.allocation.load(at, into) {
            return Ok(());
        }
        Err(placed.uninitialised("read", address, at, into.len()))
    }

    /// Writes 1, 2, 4, 8 or 16 bytes.
    #[inline]
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let (placed, at) = self.find("write", address, bytes.len())?;
        if !placed.window.writable {
            return Err(placed.read_only("write", address, bytes.len()));
        }
        placed.window.allocation.store(at, bytes);
        Ok(())
    }

    /// Replaces 4 or 8 bytes by a function of them, indivisibly; what they were.
    pub fn atomic(&self, address: u64, bytes: usize, op: &dyn Fn(u64) -> u64) -> Result<u64, Refusal> {
        let (placed, at) = self.find("atomic", address, bytes)?;
        if !placed.window.writable {
            return Err(placed.read_only("atomic", address, bytes));
        }
        if placed.window.allocation.first_unwritten(at, bytes).is_some() {
            return Err(placed.uninitialised("atomic", address, at, bytes));
        }
        Ok(placed.window.allocation.update(at, bytes, op))
    }

    /// The window an access lies in, and its offset in the allocation.
    #[inline]
    fn find(&self, what: &str, address: u64, bytes: usize) -> Result<(&Placed, usize), Refusal> {
        if address & (bytes as u64).wrapping_sub(1) != 0 {
            let detail = format!("{what} of {bytes} bytes at {address:#x}, expected a multiple of {bytes}");
            return Err(Refusal { kind: FaultKind::Misaligned, detail: self.with_name(address, detail) });
        }
        let index = usize::try_from(address >> APART).unwrap_or(usize::MAX).wrapping_sub(1);
        if let Some(placed) = self.windows.get(index) {
            let offset = address.wrapping_sub(placed.base);
            if offset < placed.bytes && placed.bytes - offset >= bytes as u64 {
                let offset = usize::try_from(offset).expect("less than the length of an allocation");
                return Ok((placed, placed.window.offset + offset));
            }
        }
        Err(self.outside(what, address, bytes))
    }

    /// Says which window an address missed, and by how much.
    #[cold]
    fn outside(&self, what: &str, address: u64, bytes: usize) -> Refusal {
        let refuse = |detail| Refusal { kind: FaultKind::OutOfBounds, detail };
        if address < ALIGN as u64 * ALIGN as u64 {
            let pointer = if address == 0 { "a null pointer" } else { "a small offset from a null pointer" };
            return refuse(format!("{what} of {bytes} bytes at {address:#x}, {pointer}"));
        }
        let distance = |placed: &&Placed| {
            let end = placed.base + placed.bytes;
            placed.base.saturating_sub(address).max(address.saturating_sub(end))
        };
        let Some(near) = self.windows.iter().min_by_key(distance) else {
            return refuse(format!(
                "{what} of {bytes} bytes at {address:#x}: the launch was given no memory"
            ));
        };
        let end = near.base + near.bytes;
        let place = if address < near.base {
            format!("{} bytes before its start", near.base - address)
        } else if address < end {
            let past = bytes as u64 - (end - address);
            format!("the last {past} of them past its end")
        } else {
            format!("{} bytes past its end", address - end)
        };
        refuse(format!("{}: {what} of {bytes} bytes at {address:#x}, {place}", near.range()))
    }

    fn with_name(&self, address: u64, detail: String) -> String {
        match self.windows.iter().find(|p| (p.base..p.base + p.bytes).contains(&address)) {
            Some(placed) => format!("{}: {detail}", placed.range()),
            None => detail,
        }
    }
}

impl Placed {
    fn range(&self) -> String {
        format!("`{}` [{:#x}, {} bytes)", self.window.name, self.base, self.bytes)
    }

    #[cold]
    fn uninitialised(&self, what: &str, address: u64, at: usize, bytes: usize) -> Refusal {
        let unwritten = |i: &usize| self.window.allocation.first_unwritten(at + i, 1).is_some();
        let missing: Vec<usize> = (0..bytes).filter(unwritten).collect();
        let detail = format!(
            "{}: {what} of {bytes} bytes at {address:#x} (offset {}), of which {} never written",
            self.range(),
            address - self.base,
            text::byte_list(&missing, bytes),
        );
        Refusal { kind: FaultKind::Uninitialised, detail }
    }

    #[cold]
    fn read_only(&self, what: &str, address: u64, bytes: usize) -> Refusal {
        let detail =
            format!("{}: {what} of {bytes} bytes at {address:#x}, but the slot is only read", self.range());
        Refusal { kind: FaultKind::Invalid, detail }
    }
}
