//! The interpreter as an executor of plans.

use super::counts::Counts;
use super::launch::{Bound, Request};
use super::memory::Allocation;
use super::program::Program;
use crate::backend::{Backend, Buffer, Contents, DeviceError, DeviceInfo, Span, check_binding};
use auscult_kernels::{KernelInfo, Plan, Ptx, PtxDevice};
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What it calls itself.
const ID: &str = "ptx_sim";

/// An H200 with few multiprocessors, so that persistent kernels go round more than once.
const DEVICE: PtxDevice = PtxDevice { capability: (9, 0), multiprocessors: 4, shared_per_block: 227 << 10 };

/// Runs the PTX of kernels on the host, and stops at what a device would let pass.
pub struct PtxSim {
    info: DeviceInfo,
    device: PtxDevice,
    pool: Arc<rayon::ThreadPool>,
    only: Option<String>,
    sources: Option<PathBuf>,
    /// By entry and text.
    programs: Mutex<HashMap<(String, String), Arc<Program>>>,
    counts: Mutex<Counts>,
}

/// Memory of this backend.
struct Memory(Arc<Allocation>);

impl PtxSim {
    /// A device like an H200, on all of the host's cores.
    ///
    /// # Errors
    /// The host gives no threads.
    pub fn new() -> Result<Self, DeviceError> {
        Self::with_device(DEVICE)
    }

    /// Another device.
    ///
    /// # Errors
    /// The host gives no threads.
    pub fn with_device(device: PtxDevice) -> Result<Self, DeviceError> {
        let (major, minor) = device.capability;
        let info = DeviceInfo {
            id: ID.into(),
            name: format!("interpreter of PTX, compute capability {major}.{minor}"),
            driver: format!("{} multiprocessors", device.multiprocessors),
            accelerator: false,
            max_binding: usize::MAX,
            binding_align: 256,
            ptx: Some(device),
            wgsl: None,
        };
        Ok(Self {
            info,
            device,
            pool: threads(0)?,
            only: None,
            sources: None,
            programs: Mutex::default(),
            counts: Mutex::default(),
        })
    }

    /// The same on so many threads.
    ///
    /// # Errors
    /// The host does not give them.
    pub fn threads(self, count: NonZeroUsize) -> Result<Self, DeviceError> {
        Ok(Self { pool: threads(count.get())?, ..self })
    }

    /// The same, which runs one form of a kernel and refuses all others.
    #[must_use]
    pub fn only(self, entry: &str) -> Self {
        Self { only: Some(entry.into()), ..self }
    }

    /// The same, which takes the PTX of an entry from `<dir>/<any folder>/<entry>.ptx` where that is a file.
    #[must_use]
    pub fn sources(self, dir: &Path) -> Self {
        Self { sources: Some(dir.into()), ..self }
    }

    /// The device that is simulated.
    pub fn device(&self) -> &PtxDevice {
        &self.device
    }

    /// What the last launch did.
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: impl Into<String>) -> DeviceError {
        DeviceError::Failed { device: self.info.id.clone(), what: what.into() }
    }

    fn memory<'a>(&self, buffer: &'a Buffer) -> Result<&'a Arc<Allocation>, DeviceError> {
        let memory: Option<&Memory> = buffer.downcast();
        memory.map(|memory| &memory.0).ok_or_else(|| self.failed("a buffer of another device was passed"))
    }

    fn form(&self, kernel: &KernelInfo, params: &[u8]) -> Result<&'static Ptx, DeviceError> {
        let (major, minor) = self.device.capability;
        match &self.only {
            None => kernel.ptx_for(params, &self.device).ok_or_else(|| {
                self.failed(format!(
                    "{}: no PTX form for compute capability {major}.{minor} takes this launch",
                    kernel.name
                ))
            }),
            Some(entry) => kernel.ptx_called(entry, params, &self.device).ok_or_else(|| {
                self.failed(format!("{}: form `{entry}` does not take this launch", kernel.name))
            }),
        }
    }

    /// The text of an entry, from the folder of sources where it is there.
    fn text(&self, ptx: &Ptx) -> Result<String, DeviceError> {
        let Some(dir) = &self.sources else { return Ok(ptx.source.into()) };
        let fail = |path: &Path, e: std::io::Error| self.failed(format!("{}: {e}", path.display()));
        for folder in std::fs::read_dir(dir).map_err(|e| fail(dir, e))? {
            let path = folder.map_err(|e| fail(dir, e))?.path().join(format!("{}.ptx", ptx.entry));
            if path.is_file() {
                return std::fs::read_to_string(&path).map_err(|e| fail(&path, e));
            }
        }
        Ok(ptx.source.into())
    }

    fn program(&self, ptx: &Ptx) -> Result<Arc<Program>, DeviceError> {
        let key = (ptx.entry.to_string(), self.text(ptx)?);
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = programs.get(&key) {
            return Ok(Arc::clone(program));
        }
        let program = Program::new(&key.1, ptx.entry)
            .map_err(|error| self.failed(format!("{}, {error}", ptx.entry)))?;
        let program = Arc::new(program);
        programs.insert(key, Arc::clone(&program));
        Ok(program)
    }
}

fn threads(count: usize) -> Result<Arc<rayon::ThreadPool>, DeviceError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build();
    pool.map(Arc::new).map_err(|e| DeviceError::Unavailable { id: ID.into(), why: e.to_string() })
}

impl Backend for PtxSim {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn alloc(&self, contents: Contents) -> Result<Buffer, DeviceError> {
        let (allocation, bytes) = match contents {
            Contents::Undefined(bytes) => (Allocation::new(bytes), bytes),
            Contents::Host(host) => {
                let allocation = Allocation::new(host.len());
                allocation.upload(0, &host);
                (allocation, host.len())
            }
        };
        Ok(Buffer::new(Memory(Arc::new(allocation)), bytes))
    }

    fn upload(&self, to: &Span, bytes: &[u8]) -> Result<(), DeviceError> {
        if to.bytes != bytes.len() {
            return Err(DeviceError::OutOfRange {
                what: "upload",
                offset: to.offset,
                bytes: bytes.len(),
                length: to.bytes,
            });
        }
        self.memory(&to.buffer)?.upload(to.offset, bytes);
        Ok(())
    }

    fn download(&self, from: &Span) -> Result<Vec<u8>, DeviceError> {
        let mut bytes = vec![0; from.bytes];
        self.memory(&from.buffer)?.download(from.offset, &mut bytes);
        Ok(bytes)
    }

    fn copy(&self, from: &Span, to: &Span) -> Result<(), DeviceError> {
        if from.bytes != to.bytes {
            return Err(DeviceError::OutOfRange {
                what: "copy",
                offset: to.offset,
                bytes: from.bytes,
                length: to.bytes,
            });
        }
        if from.buffer.same(&to.buffer) {
            return Err(self.failed("a copy within one buffer was asked for"));
        }
        let source = self.memory(&from.buffer)?;
        self.memory(&to.buffer)?.copy_from(to.offset, source, from.offset, from.bytes);
        Ok(())
    }

    fn dispatch(&self, plan: &Plan, slots: &[Option<Span>]) -> Result<(), DeviceError> {
        check_binding(plan, slots)?;
        if plan.is_empty() {
            return Ok(());
        }
        let ptx = self.form(plan.kernel, &plan.params)?;
        let program = self.program(ptx)?;
        let mut bound = Vec::with_capacity(slots.len());
        for (span, slot) in slots.iter().zip(plan.kernel.slots) {
            let Some(span) = span else {
                bound.push(None);
                continue;
            };
            if !span.offset.is_multiple_of(self.info.binding_align) {
                return Err(DeviceError::Binding {
                    kernel: plan.kernel.name,
                    slot: slot.name,
                    problem: format!(
                        "starts at byte {}, expected a multiple of {}",
                        span.offset, self.info.binding_align
                    ),
                });
            }
            let allocation = Arc::clone(self.memory(&span.buffer)?);
            bound.push(Some(Bound { allocation, offset: span.offset, bytes: span.bytes }));
        }
        let request = Request { ptx, program: &program, plan, slots: bound, device: self.device };
        let counts = self.pool.install(|| request.run()).map_err(|what| self.failed(what))?;
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        Ok(())
    }

    fn wait(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}
