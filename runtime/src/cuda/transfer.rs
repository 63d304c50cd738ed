//! The ways between host and device: through pinned memory, in parts, so that the host's copying of one part runs beside
//! the device's copying of another.

use super::device::Gpu;
use crate::backend::DeviceError;
use cudarc::driver::{CudaEvent, CudaStream, result};
use rayon::prelude::*;
use std::sync::Arc;

/// Bytes of a part on its way to the device, and how many are under way at most.
const UP: usize = 8 << 20;
const RING: usize = 8;
/// Bytes of a part on its way back; two are under way.
const DOWN: usize = 32 << 20;
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

/// The way back.
#[derive(Default)]
pub(super) struct Downloads {
    pair: Vec<Pinned>,
}

impl Downloads {
    /// The bytes at `address`, behind everything queued in the stream.
    pub fn read(
        &mut self,
        gpu: &Arc<Gpu>,
        stream: &CudaStream,
        address: u64,
        bytes: usize,
    ) -> Result<Vec<u8>, DeviceError> {
        // pages of zeros that the system makes when the threads below first write them
        let mut read = vec![0_u8; bytes];
        while self.pair.len() < 2 {
            self.pair.push(Pinned::new(gpu, DOWN)?);
        }
        let parts = bytes.div_ceil(DOWN);
        // one part ahead: the device copies part n while the host empties part n - 1
        for n in 0..=parts {
            if n < parts {
                let length = DOWN.min(bytes - n * DOWN);
                let pinned = &mut self.pair[n % 2];
                let staged = &mut pinned.ready()?[..length];
                let from = address + (n * DOWN) as u64;
                // SAFETY: the caller checked that `bytes` bytes at `address` lie within one buffer; `staged` is left alone
                // until `ready` has waited for the event recorded below
                let queued = unsafe { result::memcpy_dtoh_async(staged, from, stream.cu_stream()) };
                pinned.record(stream)?;
                gpu.attempt("downloading", queued)?;
            }
            if n > 0 {
                let at = (n - 1) * DOWN;
                let part = &mut read[at..bytes.min(at + DOWN)];
                let length = part.len();
                copy_on_host(&self.pair[(n - 1) % 2].ready()?[..length], part);
            }
        }
        Ok(read)
    }
}
