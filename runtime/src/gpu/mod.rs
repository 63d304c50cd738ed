//! Graphics processors as executors: WGSL over Vulkan, Metal or DX12, through wgpu.
//!
//! Launches and copies are recorded and reach the device in few submissions, each with one upload of all parameter
//! blocks. Pipelines are made once a kernel, bind groups once for each set of spans, so a replayed graph makes neither.
//! Shaders keep their bounds checks. What this is not: a way to share memory with other users of the device.

mod adapter;
mod binding;
mod commands;
mod device;
mod experimental;
mod memory;
mod pipeline;
mod timing;

pub use adapter::{AdapterDescription, adapters, best_accelerator};

use crate::backend::{Backend, Buffer, Contents, DeviceError, DeviceInfo, Span, Timing, check_binding};
use crate::download::Download;
use auscult_kernels::{Plan, Wgsl};
use binding::{Binder, Bound};
use commands::{Command, Recorder};
use device::Gpu;
use memory::{Arriving, Memory, Staging, Uploads, round_up};
use pipeline::Pipelines;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use timing::Timer;

/// Runs plans on a graphics processor. Cloning is cheap: clones share device, memory and order of work.
#[derive(Clone)]
pub struct WgpuBackend {
    info: DeviceInfo,
    /// Entry of the only forms that run.
    only: Option<&'static str>,
    shared: Arc<Shared>,
}

struct Shared {
    gpu: Gpu,
    state: Mutex<State>,
}

/// What was recorded, made and kept since a device was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Launches recorded; a launch cut into pieces counts as so many.
    pub launches: u64,
    /// Submissions of recorded work.
    pub submissions: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Bind groups made.
    pub groups_made: u64,
    /// Bind groups kept now.
    pub groups_kept: u64,
}

/// Everything that changes; one lock, since the order of work is what it protects.
struct State {
    recorder: Recorder,
    pipelines: Pipelines,
    binder: Binder,
    uploads: Uploads,
    staging: Staging,
    timer: Option<Timer>,
}

impl WgpuBackend {
    /// Opens adapter number `selector` of [`adapters`]; with `None` the best there is, a software one as the last
    /// resort.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`]: no adapter (no driver, no Vulkan loader), no such number, or a driver that refuses.
    pub fn new(selector: Option<usize>) -> Result<Self, DeviceError> {
        let (gpu, adapter) = Gpu::open(selector)?;
        let info = DeviceInfo {
            id: gpu.id.clone(),
            name: adapter.name,
            driver: format!("{}, {}", adapter.driver, adapter.api),
            accelerator: adapter.accelerator,
            max_binding: gpu.max_binding,
            binding_align: gpu.binding_align,
            ptx: None,
            wgsl: Some(gpu.wgsl),
        };
        let state = State {
            recorder: Recorder::new(&gpu)?,
            pipelines: Pipelines::default(),
            binder: Binder::new(&gpu)?,
            uploads: Uploads::default(),
            staging: Staging::default(),
            timer: None,
        };
        Ok(Self { info, only: None, shared: Arc::new(Shared { gpu, state: Mutex::new(state) }) })
    }

    /// The same device, binding at most `bytes` bytes to a slot (rounded down to a multiple of 4, at least 16): launches
    /// are then cut as on a device with that limit.
    pub fn with_max_binding(&self, bytes: usize) -> Self {
        let mut info = self.info.clone();
        info.max_binding = (bytes / 4 * 4).clamp(16, self.info.max_binding);
        Self { info, only: self.only, shared: Arc::clone(&self.shared) }
    }

    /// The same device, running no forms but those with this entry; launches that none of them takes fail.
    pub fn only(&self, entry: &'static str) -> Self {
        Self { info: self.info.clone(), only: Some(entry), shared: Arc::clone(&self.shared) }
    }

    /// The form that runs a launch with this parameter block.
    fn form(&self, plan: &Plan, params: &[u8]) -> Result<&'static Wgsl, DeviceError> {
        let gpu = &self.shared.gpu;
        let found = match self.only {
            None => plan.kernel.wgsl_for(params, &gpu.wgsl),
            Some(entry) => plan
                .kernel
                .wgsl
                .iter()
                .find(|form| form.entry == entry && form.needs.met_by(&gpu.wgsl) && (form.takes)(params)),
        };
        found.ok_or_else(|| {
            let which = self.only.map_or_else(String::new, |entry| format!(" called `{entry}`"));
            gpu.failed(format!("{}: no WGSL form{which} takes this launch", plan.kernel.name))
        })
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        let state = self.lock();
        Counters {
            launches: state.binder.launches(),
            submissions: state.recorder.submissions(),
            pipelines: state.pipelines.len(),
            groups_made: state.binder.made(),
            groups_kept: state.binder.kept(),
        }
    }

    /// Gives the device's memory back at once, whoever still has buffers; every later call fails.
    pub fn close(&self) {
        self.shared.gpu.close();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // a panic under the lock can only lose recorded work, never leave it half-written
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory behind a span, which must be of this device and hold the whole span.
    fn memory<'a>(&self, span: &'a Span, what: &'static str) -> Result<&'a Memory, DeviceError> {
        let gpu = &self.shared.gpu;
        let memory = span.buffer.downcast::<Memory>().filter(|memory| memory.is_of(gpu));
        let memory = memory.ok_or_else(|| gpu.failed(format!("{what}: the buffer is of another device")))?;
        let length = span.buffer.bytes();
        match span.offset.checked_add(span.bytes) {
            Some(end) if end <= length => Ok(memory),
            _ => Err(DeviceError::OutOfRange { what, offset: span.offset, bytes: span.bytes, length }),
        }
    }

    /// Looks up what the slots of a plan are bound to, and checks what only this executor asks for.
    fn bound<'a>(
        &self,
        plan: &Plan,
        slots: &'a [Option<Span>],
    ) -> Result<Vec<Option<Bound<'a>>>, DeviceError> {
        let kernel = plan.kernel;
        let mut bound = Vec::with_capacity(slots.len());
        for (slot, span) in kernel.slots.iter().zip(slots) {
            // WebGPU has no empty bindings: an empty tensor is left out
            let Some(span) = span.as_ref().filter(|span| span.bytes > 0) else {
                bound.push(None);
                continue;
            };
            let memory = self.memory(span, kernel.name)?;
            if !span.offset.is_multiple_of(self.info.binding_align) {
                let problem = format!(
                    "starts at byte {} of its buffer, expected a multiple of {} on {}",
                    span.offset, self.info.binding_align, self.info.id,
                );
                return Err(DeviceError::Binding { kernel: kernel.name, slot: slot.name, problem });
            }
            bound.push(Some(Bound { memory, offset: span.offset, bytes: span.bytes }));
        }
        Ok(bound)
    }
}

impl State {
    fn launch(
        &mut self,
        gpu: &Gpu,
        plan: &Plan,
        form: &'static Wgsl,
        params: &[u8],
        slots: &[Option<Bound<'_>>],
    ) -> Result<(), DeviceError> {
        let kernel = plan.kernel;
        let grid = (form.grid)(params);
        if grid.contains(&0) {
            return Ok(());
        }
        if let Some(groups) = grid.iter().find(|&&groups| groups > gpu.max_groups) {
            let limit = gpu.max_groups;
            let what =
                format!("{}: {groups} workgroups along one axis, expected at most {limit}", kernel.name);
            return Err(gpu.failed(what));
        }
        if self.recorder.is_full(params.len()) {
            self.flush(gpu)?;
        }
        let pipeline = self.pipelines.get(gpu, kernel, form)?;
        let group = self.binder.group(gpu, pipeline, kernel, slots, self.recorder.params_buffer())?;
        self.recorder.launch(pipeline.compute.clone(), group, params, grid);
        if self.recorder.add_work(plan.cost.flops) {
            self.flush(gpu)?;
        }
        Ok(())
    }

    /// Submits what is recorded.
    fn flush(&mut self, gpu: &Gpu) -> Result<(), DeviceError> {
        self.binder.forget_dead(gpu);
        self.recorder.submit(gpu, self.timer.as_mut())
    }

    fn download(
        &mut self,
        gpu: &Gpu,
        memory: &Memory,
        offset: usize,
        bytes: usize,
    ) -> Result<Vec<u8>, DeviceError> {
        self.flush(gpu)?;
        self.staging.read(gpu, &memory.raw, offset, bytes)
    }

    /// Writes bytes to memory of `length` bytes, after everything recorded. Devices write whole words: where the range
    /// cuts one in two, other than at the end of the memory, the old bytes are read back first.
    fn upload(
        &mut self,
        gpu: &Gpu,
        memory: &Memory,
        length: usize,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), DeviceError> {
        self.flush(gpu)?;
        let end = offset + bytes.len();
        if offset.is_multiple_of(4) && (end.is_multiple_of(4) || end == length) {
            return self.uploads.write(gpu, memory, offset, bytes);
        }
        let first = offset / 4 * 4;
        let mut words = self.staging.read(gpu, &memory.raw, first, round_up(end, 4) - first)?;
        words[offset - first..end - first].copy_from_slice(bytes);
        self.uploads.write(gpu, memory, first, &words)
    }
}

impl Backend for WgpuBackend {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn alloc(&self, contents: Contents) -> Result<Buffer, DeviceError> {
        let gpu = &self.shared.gpu;
        gpu.check()?;
        let bytes = match &contents {
            Contents::Undefined(bytes) => *bytes,
            Contents::Host(host) => host.len(),
        };
        let mut state = self.lock();
        state.binder.forget_dead(gpu);
        let memory = match Memory::new(gpu, bytes) {
            // what was dropped is given back only once the device is done with it
            Err(DeviceError::OutOfMemory { .. }) => {
                state.flush(gpu)?;
                gpu.wait(None)?;
                Memory::new(gpu, bytes)?
            }
            made => made?,
        };
        if let Contents::Host(host) = &contents {
            // nothing recorded can name new memory, so this needs no flush
            state.uploads.write(gpu, &memory, 0, host)?;
        }
        Ok(Buffer::new(memory, bytes))
    }

    fn upload(&self, to: &Span, bytes: &[u8]) -> Result<(), DeviceError> {
        self.shared.gpu.check()?;
        let memory = self.memory(to, "upload")?;
        if to.bytes != bytes.len() {
            let (offset, length) = (to.offset, to.bytes);
            return Err(DeviceError::OutOfRange { what: "upload", offset, bytes: bytes.len(), length });
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.lock().upload(&self.shared.gpu, memory, to.buffer.bytes(), to.offset, bytes)
    }

    fn download(&self, from: &Span) -> Result<Vec<u8>, DeviceError> {
        self.shared.gpu.check()?;
        let memory = self.memory(from, "download")?;
        self.lock().download(&self.shared.gpu, memory, from.offset, from.bytes)
    }

    /// Bytes on their way hold as many of memory that the host can read. Where there is none left they are waited for.
    fn start_download(&self, from: &Span) -> Result<Download, DeviceError> {
        let gpu = &self.shared.gpu;
        gpu.check()?;
        let memory = self.memory(from, "download")?;
        if from.bytes == 0 {
            return Ok(Download::here(Vec::new()));
        }
        let mut state = self.lock();
        state.flush(gpu)?;
        let Some(arriving) = Arriving::start(gpu, &memory.raw, from.offset, from.bytes)? else {
            return state.staging.read(gpu, &memory.raw, from.offset, from.bytes).map(Download::here);
        };
        let shared = Arc::clone(&self.shared);
        Ok(Download::coming(move || arriving.finish(&shared.gpu)))
    }

    fn copy(&self, from: &Span, to: &Span) -> Result<(), DeviceError> {
        let gpu = &self.shared.gpu;
        gpu.check()?;
        let (source, target) = (self.memory(from, "copy")?, self.memory(to, "copy")?);
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
        let mut state = self.lock();
        let end = to.offset + to.bytes;
        let whole_words = from.offset.is_multiple_of(4) && to.offset.is_multiple_of(4);
        if whole_words && (end.is_multiple_of(4) || end == to.buffer.bytes()) {
            if state.recorder.is_full(0) {
                state.flush(gpu)?;
            }
            state.recorder.push(Command::Copy {
                from: source.raw.clone(),
                from_offset: from.offset as u64,
                to: target.raw.clone(),
                to_offset: to.offset as u64,
                bytes: round_up(from.bytes, 4) as u64,
            });
            return Ok(());
        }
        // parts of words, which devices cannot copy
        let bytes = state.download(gpu, source, from.offset, from.bytes)?;
        state.upload(gpu, target, to.buffer.bytes(), to.offset, &bytes)
    }

    fn dispatch(&self, plan: &Plan, slots: &[Option<Span>]) -> Result<(), DeviceError> {
        check_binding(plan, slots)?;
        let gpu = &self.shared.gpu;
        gpu.check()?;
        if plan.is_empty() {
            return Ok(());
        }
        let bound = self.bound(plan, slots)?;
        if bound.iter().flatten().all(|slot| slot.bytes <= self.info.max_binding) {
            let form = self.form(plan, &plan.params)?;
            return self.lock().launch(gpu, plan, form, &plan.params, &bound);
        }
        let pieces = plan.pieces(self.info.max_binding, self.info.binding_align)?;
        let mut state = self.lock();
        for piece in &pieces {
            let part: Vec<Option<Bound<'_>>> = bound
                .iter()
                .zip(&piece.ranges)
                .map(|(slot, range)| {
                    let (slot, (offset, bytes)) = (slot.as_ref()?, (*range)?);
                    (bytes > 0).then_some(Bound { memory: slot.memory, offset: slot.offset + offset, bytes })
                })
                .collect();
            state.launch(gpu, plan, self.form(plan, &piece.params)?, &piece.params, &part)?;
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), DeviceError> {
        let gpu = &self.shared.gpu;
        gpu.check()?;
        self.lock().flush(gpu)?;
        gpu.wait(None)
    }

    /// The device's time is what it spent in launches, those that other threads made meanwhile included; copies and
    /// uploads are not in it. [`DeviceError::Failed`] if another timing is under way.
    fn time(&self, work: &mut dyn FnMut() -> Result<(), DeviceError>) -> Result<Timing, DeviceError> {
        self.wait()?;
        let gpu = &self.shared.gpu;
        {
            let mut state = self.lock();
            if state.timer.is_some() {
                return Err(gpu.failed("a timing is under way already"));
            }
            state.timer = Some(Timer::new(gpu)?);
        }
        let start = std::time::Instant::now();
        let done = work().and_then(|()| self.wait());
        let wall = start.elapsed();
        let mut state = self.lock();
        let state = &mut *state;
        let timer = state.timer.take().expect("the timer set above; nobody else takes it");
        done?;
        Ok(Timing { wall, device: timer.read(gpu, &mut state.staging)? })
    }
}
