//! The ways between host and device: through pinned memory, in parts, so that the host's copying of one part runs beside
//! the device's copying of another.

use super::arena::Memory;
use super::device::Gpu;
use crate::backend::DeviceError;
use cudarc::driver::{CudaEvent, CudaStream, result};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a part on its way to the device, and how many are under way at most.
const UP: usize = 8 << 20;
const RING: usize = 8;
/// Bytes of a part on its way back; parts that all downloads have under way together, and parts that each has whatever the
/// others have. The most is half a GiB of the host's memory, which holds what a large batch of a capture yields.
const DOWN: usize = 16 << 20;
const MOST: usize = 32;
const LEAST: usize = 2;
/// Bytes that one thread of the host copies at a time: below this, threads cost more than they bring.
const SHARE: usize = 1 << 20;

/// Host memory that the device copies from and to by itself.
struct Pinned {
    gpu: Arc<Gpu>,
    bytes: *mut u8,
    length: usize,
    /// Recorded behind the device's latest use.
    used: CudaEvent,
}

// SAFETY: the memory belongs to this value alone, and the driver's host memory may be used from any thread
unsafe impl Send for Pinned {}

impl Pinned {
    /// The context is current.
    fn new(gpu: &Arc<Gpu>, length: usize) -> Result<Self, DeviceError> {
        let used = gpu.attempt("making an event", gpu.context.new_event(None))?;
        // SAFETY: undefined until the next line writes it; no flags
        let bytes = unsafe { result::malloc_host(length, 0) };
        let bytes = gpu.attempt("allocating pinned host memory", bytes)?.cast::<u8>();
        // SAFETY: `malloc_host` returned `length` bytes, which nobody else knows of
        unsafe { bytes.write_bytes(0, length) };
        Ok(Self { gpu: Arc::clone(gpu), bytes, length, used })
    }

    /// The memory, once the device is done with it.
    fn ready(&mut self) -> Result<&mut [u8], DeviceError> {
        self.gpu.attempt("waiting for a copy", self.used.synchronize())?;
        // SAFETY: `length` bytes, written in `new`, borrowed as long as `self`; the line above says that no copy that was
        // recorded is still under way
        Ok(unsafe { std::slice::from_raw_parts_mut(self.bytes, self.length) })
    }

    /// Notes that all work asked of the stream so far comes before the next use.
    fn record(&self, stream: &CudaStream) -> Result<(), DeviceError> {
        self.gpu.attempt("recording an event", self.used.record(stream))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // where the context is lost the memory is too
        if self.used.synchronize().is_ok() {
            // SAFETY: from `malloc_host` in `new`, not null since that succeeded, and no copy is under way
            let _ = unsafe { result::free_host(self.bytes.cast()) };
        }
    }
}

/// Copies on the host, on many threads where it is worth it.
fn copy_on_host(from: &[u8], to: &mut [u8]) {
    to.par_chunks_mut(SHARE).zip(from.par_chunks(SHARE)).for_each(|(to, from)| to.copy_from_slice(from));
}

/// The way to the device. Pinned memory is made when first needed, and kept.
#[derive(Default)]
pub(super) struct Uploads {
    ring: Vec<Pinned>,
    next: usize,
}

impl Uploads {
    /// Queues the copying of `bytes` to `address`; they may be gone when this returns.
    pub fn write(
        &mut self,
        gpu: &Arc<Gpu>,
        stream: &CudaStream,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), DeviceError> {
        for (i, part) in bytes.chunks(UP).enumerate() {
            if self.ring.len() < RING {
                self.ring.push(Pinned::new(gpu, UP)?);
                self.next = self.ring.len() - 1;
            }
            let pinned = &mut self.ring[self.next];
            self.next = (self.next + 1) % RING;
            let staged = &mut pinned.ready()?[..part.len()];
            copy_on_host(part, staged);
            let to = address + (i * UP) as u64;
            // SAFETY: the caller checked that `bytes.len()` bytes at `address` lie within one buffer, which ranges of the
            // arena keep mapped; `staged` is left alone until `ready` has waited for the event recorded below
            let queued = unsafe { result::memcpy_htod_async(to, staged, stream.cu_stream()) };
            // even where the copy was refused: what was queued before it is waited for
            pinned.record(stream)?;
            gpu.attempt("uploading", queued)?;
        }
        Ok(())
    }
}

/// The way back: a stream of its own, and pinned memory, which is made when first needed, and kept.
pub(super) struct Downloads {
    gpu: Arc<Gpu>,
    pub stream: Arc<CudaStream>,
    parts: Mutex<Parts>,
}

/// Pinned memory of [`DOWN`] bytes each.
#[derive(Default)]
struct Parts {
    free: Vec<Pinned>,
    made: usize,
}

impl Downloads {
    /// Downloads in a new stream.
    pub fn new(gpu: Arc<Gpu>) -> Result<Self, DeviceError> {
        let stream = gpu.attempt("making a stream", gpu.context.new_stream())?;
        Ok(Self { gpu, stream, parts: Mutex::default() })
    }

    /// As many parts as are wanted and can be had, at least one.
    fn take(&self, wanted: usize) -> Result<VecDeque<Pinned>, DeviceError> {
        let mut parts = self.lock();
        let mut taken: VecDeque<Pinned> = VecDeque::new();
        while taken.len() < wanted {
            let enough = taken.len() >= LEAST && parts.made >= MOST;
            match parts.free.pop() {
                Some(part) => taken.push_back(part),
                None if enough => break,
                None => match Pinned::new(&self.gpu, DOWN) {
                    Ok(part) => {
                        parts.made += 1;
                        taken.push_back(part);
                    }
                    // a host may have no more to pin; a device that failed fails again
                    Err(_) if !taken.is_empty() => break,
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(taken)
    }

    fn give(&self, part: Pinned) {
        self.lock().free.push(part);
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        // a panic under the lock loses a part at most
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A download under way: its first parts are queued, each of the others follows in the place of one that the host has emptied.
pub(super) struct Arriving {
    downloads: Arc<Downloads>,
    stream: Arc<CudaStream>,
    address: u64,
    bytes: usize,
    /// Parts under way, the first first.
    queued: VecDeque<Pinned>,
    /// The part that is queued next.
    next: usize,
    /// What is read, where it was copied aside for this; it goes when no copy is under way any more.
    _aside: Option<Memory>,
}

impl Arriving {
    /// Queues the copying of `bytes` bytes at `address`, behind what is in the stream.
    ///
    /// They lie within one buffer, and stay as they are until the last part is queued: in `aside`, or short enough for one
    /// part, or because nobody asks for anything before this is finished. The memory stays mapped until the stream is past it.
    pub fn start(
        downloads: &Arc<Downloads>,
        stream: &Arc<CudaStream>,
        (address, bytes): (u64, usize),
        aside: Option<Memory>,
    ) -> Result<Self, DeviceError> {
        let parts = downloads.take(bytes.div_ceil(DOWN))?;
        let mut arriving = Self {
            downloads: Arc::clone(downloads),
            stream: Arc::clone(stream),
            address,
            bytes,
            queued: VecDeque::with_capacity(parts.len()),
            next: 0,
            _aside: aside,
        };
        for part in parts {
            arriving.queue(part)?;
        }
        Ok(arriving)
    }

    fn range(&self, part: usize) -> Range<usize> {
        part * DOWN..self.bytes.min((part + 1) * DOWN)
    }

    /// Queues the next part.
    fn queue(&mut self, mut pinned: Pinned) -> Result<(), DeviceError> {
        let range = self.range(self.next);
        let staged = &mut pinned.ready()?[..range.len()];
        let from = self.address + range.start as u64;
        // SAFETY: `start` asks that the range lies within one buffer that stays mapped; `staged` is left alone until `ready` has
        // waited for the event recorded below
        let queued = unsafe { result::memcpy_dtoh_async(staged, from, self.stream.cu_stream()) };
        // even where the copy was refused: what was queued before it is waited for
        let recorded = pinned.record(&self.stream);
        self.queued.push_back(pinned);
        self.next += 1;
        recorded?;
        self.downloads.gpu.attempt("downloading", queued)
    }

    /// Waits for the bytes, part by part: the device copies those behind while the host empties one.
    pub fn finish(mut self) -> Result<Vec<u8>, DeviceError> {
        self.downloads.gpu.enter()?;
        // pages of zeros that the system makes when the threads below first write them
        let mut read = vec![0_u8; self.bytes];
        let parts = self.bytes.div_ceil(DOWN);
        for part in 0..parts {
            let range = self.range(part);
            let mut pinned = self.queued.pop_front().expect("a part is queued before its turn");
            copy_on_host(&pinned.ready()?[..range.len()], &mut read[range]);
            match self.next < parts {
                true => self.queue(pinned)?,
                false => self.downloads.give(pinned),
            }
        }
        Ok(read)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        for mut pinned in self.queued.drain(..) {
            // where the device is lost so is what it used
            if pinned.ready().is_ok() {
                self.downloads.give(pinned);
            }
        }
    }
}
