//! The host's processor as an executor.

use crate::backend::{Backend, Buffer, Contents, DeviceError, DeviceInfo, Span, check_binding};
use crate::weights::HostBytes;
use auscult_kernels::{Access, HostFn, HostSlot, KernelInfo, Plan};
use std::num::NonZeroUsize;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Which of a kernel's host forms runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The fast one, where there is one.
    Fast,
    /// The f64 definition, always.
    Reference,
}

/// Runs plans on the host, in place and at once.
pub struct CpuBackend {
    info: DeviceInfo,
    form: Form,
    pool: rayon::ThreadPool,
}

/// Memory of this backend: its own, or bytes that someone else keeps and nobody writes.
enum Memory {
    Own(RwLock<Vec<u64>>),
    Shared(HostBytes),
}

impl CpuBackend {
    /// An executor on `threads` threads; on all of the processor's by default.
    pub fn new(threads: Option<NonZeroUsize>) -> Result<Self, DeviceError> {
        Self::with_form(threads, Form::Fast)
    }

    /// An executor of the f64 definitions: slow, and the judge of all others.
    pub fn reference() -> Result<Self, DeviceError> {
        Self::with_form(None, Form::Reference)
    }

    fn with_form(threads: Option<NonZeroUsize>, form: Form) -> Result<Self, DeviceError> {
        let id = match form {
            Form::Fast => "cpu",
            Form::Reference => "reference",
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.map_or(0, NonZeroUsize::get))
            .build()
            .map_err(|e| DeviceError::Unavailable { id: id.into(), why: e.to_string() })?;
        let info = DeviceInfo {
            id: id.into(),
            name: processor_name(),
            driver: format!(
                "{} {}, {} threads",
                std::env::consts::ARCH,
                vector_unit(),
                pool.current_num_threads()
            ),
            accelerator: false,
            max_binding: usize::MAX,
            binding_align: 8,
            ptx: None,
            wgsl: None,
        };
        Ok(Self { info, form, pool })
    }

    /// The thread pool that kernels run on.
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    fn form_of(&self, kernel: &KernelInfo) -> HostFn {
        match self.form {
            Form::Fast => kernel.cpu.unwrap_or(kernel.reference),
            Form::Reference => kernel.reference,
        }
    }

    fn memory<'a>(&self, buffer: &'a Buffer) -> Result<&'a Memory, DeviceError> {
        buffer.downcast().ok_or_else(|| self.failed("a buffer of another device was passed"))
    }

    fn failed(&self, what: impl Into<String>) -> DeviceError {
        DeviceError::Failed { device: self.info.id.clone(), what: what.into() }
    }
}

/// What a slot borrows while a kernel runs.
enum Borrow<'a> {
    Absent,
    Shared(&'a [u8]),
    Read(RwLockReadGuard<'a, Vec<u64>>, usize, usize),
    Write(RwLockWriteGuard<'a, Vec<u64>>, usize, usize),
}

impl Borrow<'_> {
    fn slot(&mut self) -> HostSlot<'_> {
        match self {
            Self::Absent => HostSlot::Read(&[]),
            Self::Shared(bytes) => HostSlot::Read(bytes),
            Self::Read(words, at, bytes) => HostSlot::Read(&bytemuck::cast_slice(words)[*at..*at + *bytes]),
            Self::Write(words, at, bytes) => {
                HostSlot::Write(&mut bytemuck::cast_slice_mut(words)[*at..*at + *bytes])
            }
        }
    }
}

impl Backend for CpuBackend {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn alloc(&self, contents: Contents) -> Result<Buffer, DeviceError> {
        match contents {
            // mapped weights are used where they lie, if their elements are aligned
            Contents::Host(bytes) if bytes.is_aligned_to(4) => {
                let length = bytes.len();
                Ok(Buffer::new(Memory::Shared(bytes), length))
            }
            Contents::Host(bytes) => {
                let buffer = self.alloc(Contents::Undefined(bytes.len()))?;
                self.upload(&buffer.span(), &bytes)?;
                Ok(buffer)
            }
            Contents::Undefined(bytes) => {
                let words = bytes.div_ceil(8);
                let mut memory = Vec::new();
                memory.try_reserve_exact(words).map_err(|e| DeviceError::OutOfMemory {
                    device: self.info.id.clone(),
                    asked: bytes,
                    free: None,
                    detail: format!(": {e}"),
                })?;
                memory.resize(words, 0_u64);
                Ok(Buffer::new(Memory::Own(RwLock::new(memory)), bytes))
            }
        }
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
        match self.memory(&to.buffer)? {
            Memory::Own(memory) => {
                let mut words = memory.write().map_err(|_| self.failed("a kernel panicked earlier"))?;
                bytemuck::cast_slice_mut(&mut words)[to.offset..to.offset + to.bytes].copy_from_slice(bytes);
                Ok(())
            }
            Memory::Shared(_) => Err(self.failed("mapped weights cannot be written")),
        }
    }

    fn download(&self, from: &Span) -> Result<Vec<u8>, DeviceError> {
        let range = from.offset..from.offset + from.bytes;
        match self.memory(&from.buffer)? {
            Memory::Own(memory) => {
                let words = memory.read().map_err(|_| self.failed("a kernel panicked earlier"))?;
                Ok(bytemuck::cast_slice(&words)[range].to_vec())
            }
            Memory::Shared(bytes) => Ok(bytes[range].to_vec()),
        }
    }

    fn copy(&self, from: &Span, to: &Span) -> Result<(), DeviceError> {
        let bytes = self.download(from)?;
        self.upload(to, &bytes)
    }

    fn dispatch(&self, plan: &Plan, slots: &[Option<Span>]) -> Result<(), DeviceError> {
        check_binding(plan, slots)?;
        if plan.is_empty() {
            return Ok(());
        }
        let busy = |i: usize| DeviceError::Binding {
            kernel: plan.kernel.name,
            slot: plan.kernel.slots[i].name,
            problem: "is in use by another launch".into(),
        };
        let mut borrows = Vec::with_capacity(slots.len());
        for (i, span) in slots.iter().enumerate() {
            borrows.push(match span {
                None => Borrow::Absent,
                Some(span) => match (self.memory(&span.buffer)?, plan.kernel.slots[i].access) {
                    (Memory::Shared(bytes), Access::Read) => {
                        Borrow::Shared(&bytes[span.offset..span.offset + span.bytes])
                    }
                    (Memory::Shared(_), _) => return Err(self.failed("mapped weights cannot be written")),
                    (Memory::Own(memory), Access::Read) => {
                        Borrow::Read(memory.try_read().map_err(|_| busy(i))?, span.offset, span.bytes)
                    }
                    (Memory::Own(memory), _) => {
                        Borrow::Write(memory.try_write().map_err(|_| busy(i))?, span.offset, span.bytes)
                    }
                },
            });
        }
        let mut host: Vec<HostSlot<'_>> = borrows.iter_mut().map(Borrow::slot).collect();
        let run = self.form_of(plan.kernel);
        self.pool.install(|| run(&plan.params, &mut host));
        Ok(())
    }

    fn wait(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// What the processor calls itself, where the system tells.
fn processor_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "host processor".into(), |(_, name)| name.trim().to_string())
}

/// The widest vector unit that kernels will use.
fn vector_unit() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "AVX-512";
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            return "AVX2";
        }
        "SSE2"
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        "NEON or portable"
    }
}
