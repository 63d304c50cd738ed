//! Memory of the device: taken from the driver in large blocks, handed out in ranges, given back when buffers drop.
//!
//! A range that was given back may still be read by queued work. Whoever gets it next is ordered behind that work: the
//! compute stream by itself, uploads by what [`Memory::was_touched`] tells them. What downloads read in a stream of their own is
//! given back only when they are done.

use super::device::Gpu;
use crate::backend::DeviceError;
use cudarc::driver::sys::CUresult;
use cudarc::driver::{DriverError, result};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ranges start at multiples of this many bytes, as the driver's own allocations do.
pub(super) const GRAIN: usize = 256;
/// Bytes asked of the driver at once, at least.
const BLOCK: usize = 256 << 20;
/// The driver hands out memory in pages of this many bytes.
const PAGE: usize = 2 << 20;

/// What is free of a block.
#[derive(Debug)]
struct Ranges {
    length: usize,
    /// Length by offset; no two adjoin.
    free: BTreeMap<usize, usize>,
    /// From here on nothing was ever handed out.
    untouched_from: usize,
}

impl Ranges {
    fn new(length: usize) -> Self {
        Self { length, free: BTreeMap::from([(0, length)]), untouched_from: 0 }
    }

    /// Length and offset of the shortest free range of at least `bytes`.
    fn best(&self, bytes: usize) -> Option<(usize, usize)> {
        self.free.iter().filter(|(_, length)| **length >= bytes).map(|(at, length)| (*length, *at)).min()
    }

    /// Takes the first `bytes` of the free range at `offset`, as [`Self::best`] found it; says whether any of it was
    /// handed out before.
    fn take(&mut self, offset: usize, bytes: usize) -> bool {
        let length = self.free.remove(&offset).expect("a range that `best` found");
        if length > bytes {
            self.free.insert(offset + bytes, length - bytes);
        }
        let touched = offset < self.untouched_from;
        self.untouched_from = self.untouched_from.max(offset + bytes);
        touched
    }

    /// Gives back what `take` took, joining it with the free ranges on either side.
    fn give(&mut self, offset: usize, bytes: usize) {
        let (mut offset, mut bytes) = (offset, bytes);
        if let Some(after) = self.free.remove(&(offset + bytes)) {
            bytes += after;
        }
        if let Some((&before, &length)) = self.free.range(..offset).next_back()
            && before + length == offset
        {
            self.free.remove(&before);
            (offset, bytes) = (before, length + bytes);
        }
        self.free.insert(offset, bytes);
    }

    fn is_unused(&self) -> bool {
        self.free.get(&0) == Some(&self.length)
    }
}

struct Block {
    base: u64,
    ranges: Ranges,
}

/// The blocks of a device.
pub(super) struct Arena {
    gpu: Arc<Gpu>,
    blocks: Mutex<Vec<Block>>,
}

/// A range of device memory, given back when dropped.
pub(super) struct Memory {
    arena: Arc<Arena>,
    pub address: u64,
    /// Length, rounded up to [`GRAIN`].
    bytes: usize,
    touched: AtomicBool,
}

impl Memory {
    /// Whether queued work of the compute stream may use these bytes, for this owner or one before it.
    pub fn was_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }

    /// To be called when work of the compute stream is to use it.
    pub fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }

    /// Whether it was made by this arena.
    pub fn is_of(&self, arena: &Arc<Arena>) -> bool {
        Arc::ptr_eq(&self.arena, arena)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut blocks = self.arena.lock();
        let holds = |block: &&mut Block| {
            (block.base..block.base + block.ranges.length as u64).contains(&self.address)
        };
        let block = blocks.iter_mut().find(holds).expect("a block stays while ranges of it are in use");
        let offset = usize::try_from(self.address - block.base).expect("a block's length is a usize");
        block.ranges.give(offset, self.bytes);
    }
}

impl Arena {
    pub fn new(gpu: Arc<Gpu>) -> Self {
        Self { gpu, blocks: Mutex::default() }
    }

    /// `bytes` bytes of anything. The context is current.
    pub fn alloc(self: &Arc<Self>, bytes: usize) -> Result<Memory, DeviceError> {
        let length = bytes.max(1).checked_next_multiple_of(GRAIN);
        let length = length.ok_or_else(|| self.out_of_memory(bytes))?;
        if let Some(memory) = self.take(length) {
            return Ok(memory);
        }
        let exactly = length.checked_next_multiple_of(PAGE).ok_or_else(|| self.out_of_memory(bytes))?;
        let made = self.grow(exactly.max(BLOCK))? || {
            // a short block may fit where a long one does not, and blocks that nothing uses make room
            self.release()?;
            self.grow(exactly.max(BLOCK))? || self.grow(exactly)?
        };
        let memory = if made { self.take(length) } else { None };
        memory.ok_or_else(|| self.out_of_memory(bytes))
    }

    /// Bytes that are free and bytes there are, in all; ranges that are free in blocks are not counted.
    pub fn free_and_total(&self) -> Result<(usize, usize), DeviceError> {
        self.gpu.attempt("asking for free memory", self.gpu.context.mem_get_info())
    }

    fn take(self: &Arc<Self>, length: usize) -> Option<Memory> {
        let mut blocks = self.lock();
        let found = blocks.iter().enumerate().filter_map(|(i, block)| Some((block.ranges.best(length)?, i)));
        let ((_, offset), i) = found.min()?;
        let block = &mut blocks[i];
        let touched = AtomicBool::new(block.ranges.take(offset, length));
        let address = block.base + offset as u64;
        Some(Memory { arena: Arc::clone(self), address, bytes: length, touched })
    }

    /// Asks the driver for a block; false if it has none.
    fn grow(&self, bytes: usize) -> Result<bool, DeviceError> {
        // SAFETY: the memory is undefined, as `Contents::Undefined` and the order of uploads say; the context is current
        let base = match unsafe { result::malloc_sync(bytes) } {
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => return Ok(false),
            base => self.gpu.attempt("allocating memory", base)?,
        };
        self.lock().push(Block { base, ranges: Ranges::new(bytes) });
        Ok(true)
    }

    /// Gives blocks that nothing uses back to the driver.
    fn release(&self) -> Result<(), DeviceError> {
        self.gpu.attempt("waiting for the device", self.gpu.context.synchronize())?;
        let unused: Vec<Block> = self.lock().extract_if(.., |block| block.ranges.is_unused()).collect();
        for block in unused {
            // SAFETY: `grow` got it from `malloc_sync`, it left the list above, and all work is done
            let freed = unsafe { result::free_sync(block.base) };
            self.gpu.attempt("freeing memory", freed)?;
        }
        Ok(())
    }

    fn out_of_memory(&self, asked: usize) -> DeviceError {
        let device = self.gpu.id.clone();
        let unused: usize = self.lock().iter().flat_map(|block| block.ranges.free.values()).sum();
        let (free, detail) = match self.free_and_total() {
            Ok((free, total)) => {
                let free = free + unused;
                (Some(free), format!("; {free} of {total} bytes are free"))
            }
            Err(error) => (None, format!("; {error}")),
        };
        DeviceError::OutOfMemory { device, asked, free, detail }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Block>> {
        // nothing panics between two changes that belong together
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // errors here were errors of the work before, which was told of them
        if self.gpu.context.synchronize().is_err() {
            return;
        }
        for block in self.lock().drain(..) {
            // SAFETY: `grow` got it from `malloc_sync`; the arena goes, so no memory of it is left, and all work is done
            let _ = unsafe { result::free_sync(block.base) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbours_are_joined_and_the_tightest_fit_is_taken() {
        let mut ranges = Ranges::new(10);
        for (offset, bytes) in [(0, 3), (3, 2), (5, 4)] {
            assert!(!ranges.take(offset, bytes), "{offset} was never handed out");
        }
        assert_eq!(ranges.free, BTreeMap::from([(9, 1)]));
        ranges.give(0, 3);
        assert_eq!(ranges.best(1), Some((1, 9)), "the tail fits more tightly");
        assert_eq!(ranges.best(2), Some((3, 0)));
        assert_eq!(ranges.best(4), None);
        ranges.give(5, 4);
        assert_eq!(ranges.free, BTreeMap::from([(0, 3), (5, 5)]), "joined with what follows");
        ranges.give(3, 2);
        assert_eq!(ranges.free, BTreeMap::from([(0, 10)]), "joined with both sides");
        assert!(ranges.is_unused());
        assert!(ranges.take(0, 10), "nine bytes of it were handed out before");
    }

    proptest! {
        /// Random orders of taking and giving back: ranges in use never overlap, nothing is lost, and whether a range was
        /// handed out before is told truly.
        #[test]
        fn ranges_stay_whole(steps in proptest::collection::vec((1_usize..40, any::<u16>()), 1..200)) {
            const LENGTH: usize = 256;
            let mut ranges = Ranges::new(LENGTH);
            let mut used: Vec<(usize, usize)> = Vec::new();
            let mut touched = [false; LENGTH];
            for (bytes, pick) in steps {
                if pick % 3 > 0 && let Some((length, offset)) = ranges.best(bytes) {
                    prop_assert!(length >= bytes);
                    let again = ranges.take(offset, bytes);
                    prop_assert!(again || touched[offset..offset + bytes].iter().all(|t| !t));
                    touched[offset..offset + bytes].fill(true);
                    used.push((offset, bytes));
                } else if !used.is_empty() {
                    let (offset, bytes) = used.swap_remove(usize::from(pick) % used.len());
                    ranges.give(offset, bytes);
                }
                let mut all = used.clone();
                all.extend(ranges.free.iter().map(|(offset, bytes)| (*offset, *bytes)));
                all.sort_unstable();
                prop_assert_eq!(all.iter().map(|(_, bytes)| bytes).sum::<usize>(), LENGTH);
                prop_assert!(all.windows(2).all(|w| w[0].0 + w[0].1 == w[1].0));
                let free: Vec<_> = ranges.free.iter().collect();
                prop_assert!(free.windows(2).all(|w| w[0].0 + w[0].1 < *w[1].0), "free ranges adjoin");
            }
        }
    }
}
