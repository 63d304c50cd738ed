//! What every executor can do, and the handles it hands out.

use crate::download::Download;
use crate::weights::HostBytes;
use auscult_kernels::{DType, Plan, PtxDevice, ShapeError, TensorDesc, WgslDevice};
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is known of a device.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// How users select it: `cpu`, `wgpu:0`, `cuda:1`.
    pub id: String,
    /// What it calls itself.
    pub name: String,
    /// Driver, library or processor features, for records.
    pub driver: String,
    /// Whether it is hardware of its own rather than the host's processor.
    pub accelerator: bool,
    /// Longest range in bytes that one slot can be bound to.
    pub max_binding: usize,
    /// Slots start at multiples of this many bytes.
    pub binding_align: usize,
    /// What the choice of PTX forms goes by, where PTX is what runs.
    pub ptx: Option<PtxDevice>,
    /// What the choice of WGSL forms goes by, where WGSL is what runs.
    pub wgsl: Option<WgslDevice>,
}

impl DeviceInfo {
    /// Whether products of f16 factors run at a rate of their own, several times that of f32.
    pub fn multiplies_halves(&self) -> bool {
        self.multiplies(DType::F16)
    }

    /// Whether products of factors of this type run at a rate of their own, several times that of f32.
    pub fn multiplies(&self, factors: DType) -> bool {
        match factors {
            // every device that runs PTX forms has matrix units (compute capability 8.0)
            DType::F16 => self.ptx.is_some() || self.wgsl.is_some_and(|device| device.half_matrices),
            // WGSL has no type for it
            DType::BF16 => self.ptx.is_some(),
            _ => false,
        }
    }
}

/// What a new buffer holds.
#[derive(Clone, Debug)]
pub enum Contents {
    /// So many bytes of anything.
    Undefined(usize),
    /// These bytes. A host executor may use them where they lie; no executor writes to them.
    Host(HostBytes),
}

/// Memory of a device. Cloning clones the handle.
#[derive(Clone)]
pub struct Buffer {
    inner: Arc<dyn Any + Send + Sync>,
    bytes: usize,
}

impl Buffer {
    /// Wraps what a backend keeps for `bytes` bytes of memory.
    pub fn new(inner: impl Any + Send + Sync, bytes: usize) -> Self {
        Self { inner: Arc::new(inner), bytes }
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the backend keeps, if it is a `T`.
    pub fn downcast<T: Any>(&self) -> Option<&T> {
        self.inner.downcast_ref()
    }

    /// Whether both handles are of the same memory.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The whole of it.
    pub fn span(&self) -> Span {
        Span { buffer: self.clone(), offset: 0, bytes: self.bytes }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes)
    }
}

/// A range of a buffer.
#[derive(Clone, Debug)]
pub struct Span {
    /// The memory.
    pub buffer: Buffer,
    /// First byte.
    pub offset: usize,
    /// Length in bytes.
    pub bytes: usize,
}

impl Span {
    /// Bytes `offset .. offset + bytes` of this span.
    pub fn slice(&self, offset: usize, bytes: usize) -> Result<Self, DeviceError> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes => {
                Ok(Self { buffer: self.buffer.clone(), offset: self.offset + offset, bytes })
            }
            _ => Err(DeviceError::OutOfRange { what: "span", offset, bytes, length: self.bytes }),
        }
    }
}

/// A typed, shaped range of device memory.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Type and shape.
    pub desc: TensorDesc,
    /// Where it lies.
    pub span: Span,
}

/// Failures of a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No such device, or none that can be used.
    #[error("device `{id}` is not available: {why}")]
    Unavailable {
        /// What was asked for.
        id: String,
        /// What is missing.
        why: String,
    },
    /// The memory could not be had.
    #[error("{device}: {asked} bytes of memory could not be allocated{detail}")]
    OutOfMemory {
        /// Which device.
        device: String,
        /// Bytes asked for.
        asked: usize,
        /// Bytes that could be had, where the device tells.
        free: Option<usize>,
        /// What is known of limits and free memory.
        detail: String,
    },
    /// A range that does not lie within its memory.
    #[error("{what}: {bytes} bytes at {offset} do not lie within {length} bytes")]
    OutOfRange {
        /// Who asked.
        what: &'static str,
        /// First byte.
        offset: usize,
        /// Bytes asked for.
        bytes: usize,
        /// Bytes there are.
        length: usize,
    },
    /// A launch that breaks the rules of [`Backend::dispatch`].
    #[error("{kernel}: slot `{slot}` {problem}")]
    Binding {
        /// The kernel.
        kernel: &'static str,
        /// The slot.
        slot: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A launch too large for the device, even in parts.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The device or its driver failed.
    #[error("{device}: {what}")]
    Failed {
        /// Which device.
        device: String,
        /// What it said.
        what: String,
    },
}

/// A plan over spans, as [`Backend::dispatch`] takes them.
pub type Launch<'a> = (&'a Plan, Vec<Option<Span>>);

/// Launches that a device keeps as one, to be made again at the cost of one. It holds their buffers.
pub trait Recording: Send + Sync {
    /// Makes the launches again, in order with everything else that is asked of the backend.
    fn replay(&self) -> Result<(), DeviceError>;
}

/// How long work took.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// On the host's clock, recording and waiting included.
    pub wall: Duration,
    /// On the device's clock; `None` where it has none.
    pub device: Option<Duration>,
}

impl Timing {
    /// The device's time, else the host's.
    pub fn best(&self) -> Duration {
        self.device.unwrap_or(self.wall)
    }
}

/// An executor of plans. Seven methods that every one has, and four that most leave as they are.
///
/// Work is ordered: what is dispatched, copied or uploaded first is seen by what follows. It may run late, up to the
/// next [`download`](Self::download) or [`wait`](Self::wait).
pub trait Backend: Send + Sync {
    /// What is known of the device.
    fn info(&self) -> &DeviceInfo;

    /// New memory. Lengths are rounded up to what the device needs; the buffer reports the length asked for.
    fn alloc(&self, contents: Contents) -> Result<Buffer, DeviceError>;

    /// Copies host bytes into a span of the same length.
    fn upload(&self, to: &Span, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Copies a span to the host, after everything before it is done.
    fn download(&self, from: &Span) -> Result<Vec<u8>, DeviceError>;

    /// Copies between two spans of the same length and different buffers.
    fn copy(&self, from: &Span, to: &Span) -> Result<(), DeviceError>;

    /// Launches a plan over spans in slot order, each as long as its tensor; `None` where the plan leaves a slot out.
    ///
    /// A buffer bound to a written slot may be bound to no other slot: WebGPU forbids it, so every executor does.
    /// Plans with nothing to write return at once.
    fn dispatch(&self, plan: &Plan, slots: &[Option<Span>]) -> Result<(), DeviceError>;

    /// Returns when everything asked for is done.
    fn wait(&self) -> Result<(), DeviceError>;

    /// Begins what [`download`](Self::download) does, and returns at once where the device can: it goes on with what it is
    /// asked for next while the bytes travel. They are those of now, even if the span's memory is written or given back
    /// before they are here.
    ///
    /// # Errors
    /// As for [`download`](Self::download); what fails later is told by [`Download::finish`].
    fn start_download(&self, from: &Span) -> Result<Download, DeviceError> {
        self.download(from).map(Download::here)
    }

    /// Bytes of memory of its own that could still be had, where the device tells.
    fn free_memory(&self) -> Option<usize> {
        None
    }

    /// Keeps launches to be replayed as one, without making them; `None` where there is nothing to gain, or the driver
    /// would not.
    fn record(&self, launches: &[Launch<'_>]) -> Result<Option<Box<dyn Recording>>, DeviceError> {
        let _ = launches;
        Ok(None)
    }

    /// Runs `work` and waits for it, on the device's clock too where it has one.
    ///
    /// # Errors
    /// Those of `work` and of [`wait`](Self::wait).
    fn time(&self, work: &mut dyn FnMut() -> Result<(), DeviceError>) -> Result<Timing, DeviceError> {
        self.wait()?;
        let started = Instant::now();
        work()?;
        self.wait()?;
        Ok(Timing { wall: started.elapsed(), device: None })
    }
}

/// Checks the rules of [`Backend::dispatch`]; every executor calls it first.
pub(crate) fn check_binding(plan: &Plan, slots: &[Option<Span>]) -> Result<(), DeviceError> {
    use auscult_kernels::Access;
    let kernel = plan.kernel;
    let bad = |slot, problem: String| Err(DeviceError::Binding { kernel: kernel.name, slot, problem });
    if slots.len() != kernel.slots.len() {
        return bad("*", format!("has {} spans for {} slots", slots.len(), kernel.slots.len()));
    }
    for (i, (slot, desc)) in kernel.slots.iter().zip(&plan.slots).enumerate() {
        match (desc, &slots[i]) {
            (None, None) => {}
            (Some(desc), Some(span)) if span.bytes == desc.bytes() => {}
            (Some(desc), Some(span)) => {
                return bad(
                    slot.name,
                    format!("is bound to {} bytes, expected {} for {desc}", span.bytes, desc.bytes()),
                );
            }
            (Some(desc), None) => return bad(slot.name, format!("is not bound, expected {desc}")),
            (None, Some(_)) => return bad(slot.name, "is bound, but the plan leaves it out".into()),
        }
        if slot.access == Access::Read {
            continue;
        }
        let written = slots[i].as_ref().map(|s| &s.buffer);
        let shared = slots
            .iter()
            .enumerate()
            .any(|(j, other)| j != i && matches!((written, other), (Some(a), Some(b)) if a.same(&b.buffer)));
        if shared {
            return bad(slot.name, "is written, but its buffer is bound to another slot too".into());
        }
    }
    Ok(())
}
