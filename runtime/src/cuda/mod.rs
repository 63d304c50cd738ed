//! NVIDIA devices as executors: PTX through the driver's own interface, opened at run time, so that nothing of CUDA is
//! needed to build or to start.
//!
//! Three streams: launches and copies between buffers go in order down one; uploads and downloads down one each, so that
//! they run beside launches. Uploads wait for launches only where memory is used again, and launches wait for the uploads
//! asked for before them. What is downloaded is copied aside on the device first, in order with launches, so that none of
//! them waits for its way to the host. What this is not: a way to share memory with other users of the device.
// the driver is a C interface: this module is where raw pointers and handles are, and nothing outside of it sees them
#![allow(unsafe_code)]

mod arena;
mod device;
mod launch;
mod module;
mod recording;
mod transfer;

pub use device::{DeviceDescription, best_device, devices};

use crate::backend::{
    Backend, Buffer, Contents, DeviceError, DeviceInfo, Launch, Recording, Span, Timing, check_binding,
};
use crate::download::Download;
use arena::{Arena, GRAIN, Memory};
use auscult_kernels::Plan;
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaStream, result};
use device::Gpu;
use launch::Bound;
use module::Modules;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use transfer::{Arriving, Downloads, Uploads};

/// Downloads up to this many bytes go in order with launches, which they hold up for less time than a second stream would
/// take to set off: 20 microseconds, at the 50 GB/s of PCI Express 5.0 with 16 lanes.
const SHORT: usize = 1 << 20;

/// Runs plans on an NVIDIA device. Cloning is cheap: clones share device, memory and order of work.
#[derive(Clone)]
pub struct CudaBackend {
    info: DeviceInfo,
    /// Entry of the only forms that run.
    only: Option<&'static str>,
    shared: Arc<Shared>,
}

struct Shared {
    gpu: Arc<Gpu>,
    arena: Arc<Arena>,
    downloads: Arc<Downloads>,
    state: Mutex<State>,
}

/// What was done since a device was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Launches queued, or kept in a recording.
    pub launches: u64,
    /// Recordings replayed.
    pub replays: u64,
    /// Modules compiled.
    pub modules: usize,
}

/// Everything that changes; one lock, since the order of work is what it protects.
struct State {
    compute: Arc<CudaStream>,
    copies: Arc<CudaStream>,
    /// Recorded in one stream for the other to wait for.
    computed: CudaEvent,
    uploaded: CudaEvent,
    /// Whether there are uploads that the compute stream does not wait for yet.
    uploading: bool,
    arena: Arc<Arena>,
    modules: Modules,
    workspaces: HashMap<(&'static str, usize), Memory>,
    uploads: Uploads,
    counters: Counters,
}

impl CudaBackend {
    /// Opens device number `ordinal` of [`devices`]; with `None` the first that runs the kernels.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`]: no driver, no such device, one that is too old, or one that the driver refuses.
    pub fn new(ordinal: Option<usize>) -> Result<Self, DeviceError> {
        let gpu = Arc::new(Gpu::open(ordinal)?);
        let info = DeviceInfo {
            id: gpu.id.clone(),
            name: gpu.description.name.clone(),
            driver: gpu.driver(),
            accelerator: true,
            max_binding: usize::MAX,
            binding_align: GRAIN,
            ptx: Some(gpu.ptx),
            wgsl: None,
        };
        let stream = || gpu.attempt("making a stream", gpu.context.new_stream());
        let event = || gpu.attempt("making an event", gpu.context.new_event(None));
        let arena = Arc::new(Arena::new(Arc::clone(&gpu)));
        let state = State {
            compute: stream()?,
            copies: stream()?,
            computed: event()?,
            uploaded: event()?,
            uploading: false,
            arena: Arc::clone(&arena),
            modules: Modules::new(Arc::clone(&gpu)),
            workspaces: HashMap::new(),
            uploads: Uploads::default(),
            counters: Counters::default(),
        };
        let downloads = Arc::new(Downloads::new(Arc::clone(&gpu))?);
        let shared = Shared { gpu, arena, downloads, state: Mutex::new(state) };
        Ok(Self { info, only: None, shared: Arc::new(shared) })
    }

    /// The same device, running no forms but those with this entry; launches that none of them takes fail.
    #[must_use]
    pub fn only(&self, entry: &'static str) -> Self {
        Self { info: self.info.clone(), only: Some(entry), shared: Arc::clone(&self.shared) }
    }

    /// Bytes of memory that are free on the device, and bytes there are.
    ///
    /// # Errors
    /// A device that failed.
    pub fn free_and_total(&self) -> Result<(usize, usize), DeviceError> {
        self.shared.gpu.enter()?;
        self.shared.arena.free_and_total()
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        let state = self.shared.lock();
        Counters { modules: state.modules.len(), ..state.counters }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // a panic under the lock can only lose work, never leave it half-queued
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory behind a span and the address of its first byte. The memory must be of this device and hold all of it.
    fn memory<'a>(&self, span: &'a Span, what: &'static str) -> Result<(&'a Memory, u64), DeviceError> {
        let memory = span.buffer.downcast::<Memory>().filter(|memory| memory.is_of(&self.arena));
        let memory =
            memory.ok_or_else(|| self.gpu.failed(format!("{what}: the buffer is of another device")))?;
        let length = span.buffer.bytes();
        match span.offset.checked_add(span.bytes) {
            Some(end) if end <= length => Ok((memory, memory.address + span.offset as u64)),
            _ => Err(DeviceError::OutOfRange { what, offset: span.offset, bytes: span.bytes, length }),
        }
    }

    /// What the slots of a plan are bound to.
    fn bound<'a>(&self, plan: &Plan, slots: &'a [Option<Span>]) -> Result<Vec<Bound<'a>>, DeviceError> {
        check_binding(plan, slots)?;
        let kernel = plan.kernel;
        let bind = |(i, span): (usize, &'a Option<Span>)| {
            let Some(span) = span else { return Ok(None) };
            if !span.offset.is_multiple_of(GRAIN) {
                let problem = format!(
                    "starts at byte {} of its buffer, expected a multiple of {GRAIN} on {}",
                    span.offset, self.gpu.id
                );
                return Err(DeviceError::Binding {
                    kernel: kernel.name,
                    slot: kernel.slots[i].name,
                    problem,
                });
            }
            self.memory(span, kernel.name).map(Some)
        };
        slots.iter().enumerate().map(bind).collect()
    }
}

impl State {
    /// Makes what the compute stream is asked from now on wait for the uploads so far.
    fn join_uploads(&mut self, gpu: &Gpu) -> Result<(), DeviceError> {
        if self.uploading {
            gpu.attempt("recording uploads", self.uploaded.record(&self.copies))?;
            gpu.attempt("waiting for uploads", self.compute.wait(&self.uploaded))?;
            self.uploading = false;
        }
        Ok(())
    }

    fn upload(
        &mut self,
        gpu: &Arc<Gpu>,
        memory: &Memory,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), DeviceError> {
        if memory.was_touched() {
            gpu.attempt("recording launches", self.computed.record(&self.compute))?;
            gpu.attempt("waiting for launches", self.copies.wait(&self.computed))?;
        }
        self.uploading = true;
        self.uploads.write(gpu, &self.copies, address, bytes)
    }

    /// Copies bytes aside, as they are now, for a stream that what is launched next need not wait for.
    fn set_aside(
        &self,
        gpu: &Gpu,
        (address, bytes): (u64, usize),
        aside: &Memory,
        other: &CudaStream,
    ) -> Result<(), DeviceError> {
        aside.touch();
        // SAFETY: the caller checked that the range lies within its buffer, and `aside` is as long, and another; the arena
        // keeps both mapped
        let queued =
            unsafe { result::memcpy_dtod_async(aside.address, address, bytes, self.compute.cu_stream()) };
        gpu.attempt("setting aside", queued)?;
        gpu.attempt("recording launches", self.computed.record(&self.compute))?;
        gpu.attempt("waiting for launches", other.wait(&self.computed))
    }

    /// Events behind all that was asked for, each with what it stands behind.
    fn asked(
        &self,
        gpu: &Gpu,
        downloads: &CudaStream,
    ) -> Result<[(&'static str, CudaEvent); 3], DeviceError> {
        let behind = |stream: &CudaStream| gpu.attempt("recording an event", stream.record_event(None));
        Ok([
            ("waiting for launches", behind(&self.compute)?),
            ("waiting for uploads", behind(&self.copies)?),
            ("waiting for downloads", behind(downloads)?),
        ])
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // modules, workspaces and pinned memory go next; errors here were errors of the work before, which was told
        let _ = self.compute.synchronize();
        let _ = self.copies.synchronize();
    }
}

impl Backend for CudaBackend {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn alloc(&self, contents: Contents) -> Result<Buffer, DeviceError> {
        let Shared { gpu, arena, .. } = &*self.shared;
        gpu.enter()?;
        // under the lock: what makes room waits for the device, which a recording under way does not allow
        let mut state = self.shared.lock();
        match contents {
            Contents::Undefined(bytes) => Ok(Buffer::new(arena.alloc(bytes)?, bytes)),
            Contents::Host(host) => {
                let memory = arena.alloc(host.len())?;
                state.upload(gpu, &memory, memory.address, &host)?;
                Ok(Buffer::new(memory, host.len()))
            }
        }
    }

    fn upload(&self, to: &Span, bytes: &[u8]) -> Result<(), DeviceError> {
        let gpu = &self.shared.gpu;
        gpu.enter()?;
        let (memory, address) = self.shared.memory(to, "upload")?;
        if to.bytes != bytes.len() {
            let (offset, length) = (to.offset, to.bytes);
            return Err(DeviceError::OutOfRange { what: "upload", offset, bytes: bytes.len(), length });
        }
        self.shared.lock().upload(gpu, memory, address, bytes)
    }

    fn download(&self, from: &Span) -> Result<Vec<u8>, DeviceError> {
        self.start_download(from)?.finish()
    }

    /// Bytes on their way hold as many of the device, unless they are few. Where it has none left they are waited for.
    fn start_download(&self, from: &Span) -> Result<Download, DeviceError> {
        let Shared { gpu, arena, downloads, .. } = &*self.shared;
        gpu.enter()?;
        let (memory, address) = self.shared.memory(from, "download")?;
        if from.bytes == 0 {
            return Ok(Download::here(Vec::new()));
        }
        let range = (address, from.bytes);
        // until the copies are queued, so that nothing comes between them and what was asked for before
        let mut state = self.shared.lock();
        state.join_uploads(gpu)?;
        memory.touch();
        let arriving = if from.bytes <= SHORT {
            Arriving::start(downloads, &state.compute, range, None)?
        } else {
            match arena.alloc(from.bytes) {
                Ok(aside) => {
                    state.set_aside(gpu, range, &aside, &downloads.stream)?;
                    Arriving::start(downloads, &downloads.stream, (aside.address, from.bytes), Some(aside))?
                }
                // under the lock: nobody may write what is still to be read
                Err(DeviceError::OutOfMemory { .. }) => {
                    let arriving = Arriving::start(downloads, &state.compute, range, None)?;
                    return arriving.finish().map(Download::here);
                }
                Err(error) => return Err(error),
            }
        };
        Ok(Download::coming(move || arriving.finish()))
    }

    fn copy(&self, from: &Span, to: &Span) -> Result<(), DeviceError> {
        let gpu = &self.shared.gpu;
        gpu.enter()?;
        let ((source, source_at), (target, target_at)) =
            (self.shared.memory(from, "copy")?, self.shared.memory(to, "copy")?);
        if from.bytes != to.bytes {
            let (offset, length) = (to.offset, to.bytes);
            return Err(DeviceError::OutOfRange { what: "copy", offset, bytes: from.bytes, length });
        }
        if from.buffer.same(&to.buffer) {
            return Err(gpu.failed("copy: both spans are of the same buffer, expected two buffers"));
        }
        if from.bytes == 0 {
            return Ok(());
        }
        let mut state = self.shared.lock();
        state.join_uploads(gpu)?;
        source.touch();
        target.touch();
        // SAFETY: `memory` checked that both ranges lie within their buffers, which are two; the arena keeps them mapped
        let queued =
            unsafe { result::memcpy_dtod_async(target_at, source_at, from.bytes, state.compute.cu_stream()) };
        gpu.attempt("copying", queued)
    }

    fn dispatch(&self, plan: &Plan, slots: &[Option<Span>]) -> Result<(), DeviceError> {
        let gpu = &self.shared.gpu;
        gpu.enter()?;
        let bound = self.shared.bound(plan, slots)?;
        if plan.is_empty() {
            return Ok(());
        }
        let mut state = self.shared.lock();
        let Some(ready) = state.ready(gpu, plan, self.only)? else { return Ok(()) };
        state.join_uploads(gpu)?;
        state.launch(gpu, &ready, plan, &bound)
    }

    fn wait(&self) -> Result<(), DeviceError> {
        let Shared { gpu, downloads, .. } = &*self.shared;
        gpu.enter()?;
        let asked = self.shared.lock().asked(gpu, &downloads.stream)?;
        // without the lock, so that others may launch
        asked.iter().try_for_each(|(what, event)| gpu.attempt(what, event.synchronize()))
    }

    fn free_memory(&self) -> Option<usize> {
        self.shared.gpu.enter().ok()?;
        self.shared.arena.free_and_total().ok().map(|(free, _)| free)
    }

    fn record(&self, launches: &[Launch<'_>]) -> Result<Option<Box<dyn Recording>>, DeviceError> {
        recording::record(&self.shared, self.only, launches)
    }

    /// The device's time is from the first launch's beginning to the last one's end, the time between them included;
    /// uploads count where launches waited for them. What other threads ask for meanwhile is counted too.
    fn time(&self, work: &mut dyn FnMut() -> Result<(), DeviceError>) -> Result<Timing, DeviceError> {
        self.wait()?;
        let gpu = &self.shared.gpu;
        let compute = Arc::clone(&self.shared.lock().compute);
        let stamp = || {
            let event = compute.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
            gpu.attempt("recording the time", event)
        };
        let started = std::time::Instant::now();
        let first = stamp()?;
        work()?;
        gpu.enter()?;
        let last = stamp()?;
        self.wait()?;
        let wall = started.elapsed();
        let milliseconds = gpu.attempt("reading the time", first.elapsed_ms(&last))?;
        let device = std::time::Duration::from_secs_f64(f64::from(milliseconds) * 1e-3);
        Ok(Timing { wall, device: Some(device) })
    }
}
