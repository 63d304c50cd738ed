//! Which devices there are, how one is opened, and what its driver's errors become.

use crate::backend::DeviceError;
use auscult_kernels::{PtxDevice, Target};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};
use cudarc::driver::{CudaContext, DriverError, result};
use serde::Serialize;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Launches that a failure names.
const RECENT: usize = 6;

/// What is known of a device before it is opened for work.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceDescription {
    /// Number that selects it: `cuda:0`.
    pub index: usize,
    /// What it calls itself.
    pub name: String,
    /// The version of CUDA that the driver speaks: `CUDA 12.4`.
    pub driver: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of memory.
    pub memory_total: usize,
    /// Those of them that are free; `None` where the device would not say, as one in exclusive use does not.
    pub memory_free: Option<usize>,
}

impl DeviceDescription {
    /// Whether the kernels run on it.
    pub fn is_supported(&self) -> bool {
        Target::Sm80.runs_on(self.capability)
    }

    /// `sm_90`.
    pub fn architecture(&self) -> String {
        architecture(self.capability)
    }
}

fn architecture((major, minor): (u32, u32)) -> String {
    format!("sm_{major}{minor}")
}

/// All devices, in the order that selects them.
///
/// # Errors
/// [`DeviceError::Unavailable`] where there is no driver or no device; it says which of them is missing.
pub fn devices() -> Result<Vec<DeviceDescription>, DeviceError> {
    let count = count()?;
    (0..count)
        .map(|index| {
            let mut found =
                describe(index).map_err(|error| refused(index, "describing the device", error))?;
            let free = CudaContext::new(index).and_then(|context| context.mem_get_info());
            found.memory_free = free.ok().map(|(free, _)| free);
            Ok(found)
        })
        .collect()
}

/// The device to use where nobody chose: the first that runs the kernels.
///
/// # Errors
/// [`DeviceError::Unavailable`] where there is none; it says why.
pub fn best_device() -> Result<usize, DeviceError> {
    let mut found = Vec::new();
    for index in 0..count()? {
        let device = describe(index).map_err(|error| refused(index, "describing the device", error))?;
        if device.is_supported() {
            return Ok(index);
        }
        found.push(format!("cuda:{index} ({}, {})", device.name, device.architecture()));
    }
    Err(unavailable("cuda", format!("{TOO_OLD}; there are {}", found.join(", "))))
}

const TOO_OLD: &str = "the kernels need compute capability 8.0 (Ampere) or newer";

fn unavailable(id: impl Into<String>, why: impl Into<String>) -> DeviceError {
    DeviceError::Unavailable { id: id.into(), why: why.into() }
}

fn refused(index: usize, call: &str, error: DriverError) -> DeviceError {
    unavailable(format!("cuda:{index}"), format!("{call}: {}", Said(error)))
}

/// Devices of a driver that is there and works.
fn count() -> Result<usize, DeviceError> {
    let none = |why: String| unavailable("cuda", why);
    // SAFETY: opens the driver's library by its names and closes it again; that library's own initialisation is all
    // that runs, as in every program that uses CUDA
    let present = unsafe { sys::is_culib_present() };
    if !present {
        return Err(none(format!("no NVIDIA driver was found ({LIBRARY}); {MISSING}")));
    }
    // SAFETY: `present`: the library opens, so this does not panic
    let library = unsafe { sys::culib() };
    // a stand-in for the library lacks some of these, a driver before CUDA 11.4 the last; bindings panic where a symbol is
    // missing, and the last is the youngest that every device needs
    for symbol in ["cuInit", "cuGetErrorString", "cuGraphInstantiateWithFlags"] {
        // SAFETY: the symbol is only looked up, as an address; nothing is called through it
        let found = unsafe { library.get::<*const ()>(symbol.as_bytes()) };
        if found.is_err() {
            return Err(none(format!("{LIBRARY} lacks `{symbol}`, expected a driver of CUDA 11.4 or newer")));
        }
    }
    result::init().map_err(|error| none(format!("the driver did not start: {}", Said(error))))?;
    let count = result::device::get_count()
        .map_err(|error| none(format!("the driver did not count its devices: {}", Said(error))))?;
    match usize::try_from(count) {
        Ok(0) | Err(_) => Err(none("the driver finds no NVIDIA device".into())),
        Ok(count) => Ok(count),
    }
}

#[cfg(windows)]
const LIBRARY: &str = "nvcuda.dll";
#[cfg(not(windows))]
const LIBRARY: &str = "libcuda.so.1";

#[cfg(target_os = "linux")]
const MISSING: &str = "install the NVIDIA driver; in a container, start it with the GPUs passed through";
#[cfg(not(target_os = "linux"))]
const MISSING: &str = "install the NVIDIA driver";

fn describe(index: usize) -> Result<DeviceDescription, DriverError> {
    let ordinal = i32::try_from(index).map_err(|_| DriverError(CUresult::CUDA_ERROR_INVALID_DEVICE))?;
    let device = result::device::get(ordinal)?;
    // SAFETY: `device` is what `device::get` returned
    let memory_total = unsafe { result::device::total_mem(device) }?;
    Ok(DeviceDescription {
        index,
        name: result::device::get_name(device)?,
        driver: driver_version().map(|(major, minor)| format!("CUDA {major}.{minor}"))?,
        capability: (
            attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        memory_total,
        memory_free: None,
    })
}

/// A device attribute that counts something.
fn attribute(device: sys::CUdevice, which: Attribute) -> Result<u32, DriverError> {
    // SAFETY: `device` is what `device::get` returned: `describe` and `Gpu::open` pass nothing else
    let value = unsafe { result::device::get_attribute(device, which) }?;
    u32::try_from(value).map_err(|_| DriverError(CUresult::CUDA_ERROR_INVALID_VALUE))
}

fn driver_version() -> Result<(i32, i32), DriverError> {
    let mut version = 0;
    // SAFETY: writes one integer, to a local that outlives the call
    let result = unsafe { sys::cuDriverGetVersion(&mut version) };
    result.result()?;
    Ok((version / 1000, version % 1000 / 10))
}

/// The capability that forms are chosen by: those for `sm_90a` are PTX 8.0, which drivers compile from CUDA 12.0 on; the
/// others run on the same device.
fn compilable(capability: (u32, u32), driver: (i32, i32)) -> (u32, u32) {
    if Target::Sm90a.runs_on(capability) && driver < (12, 0) { (8, 9) } else { capability }
}

/// An error as the driver words it: `CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)`.
struct Said(DriverError);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.0)?;
        match self.0.error_string() {
            Ok(text) => write!(f, " ({})", text.to_string_lossy()),
            Err(_) => Ok(()),
        }
    }
}

/// A device that was opened.
pub(super) struct Gpu {
    pub id: String,
    pub context: Arc<CudaContext>,
    pub description: DeviceDescription,
    /// What the choice and the geometry of kernels depend on.
    pub ptx: PtxDevice,
    state: Mutex<Health>,
}

/// What a failure is told by.
#[derive(Default)]
struct Health {
    /// Entries of the latest launches, the latest last.
    recent: VecDeque<&'static str>,
    /// The error that ended the device's work: no later call can succeed.
    broken: Option<String>,
}

impl Gpu {
    /// Opens device number `selector`, or the best one.
    pub fn open(selector: Option<usize>) -> Result<Self, DeviceError> {
        let count = count()?;
        let index = match selector {
            Some(index) if index < count => index,
            Some(index) => {
                let there = (0..count).map(|i| format!("cuda:{i}")).collect::<Vec<_>>().join(", ");
                return Err(unavailable(
                    format!("cuda:{index}"),
                    format!("no such device; there are {there}"),
                ));
            }
            None => best_device()?,
        };
        let id = format!("cuda:{index}");
        let description = describe(index).map_err(|e| refused(index, "describing the device", e))?;
        if !description.is_supported() {
            let (name, architecture) = (&description.name, description.architecture());
            return Err(unavailable(id, format!("{TOO_OLD}; {name} is {architecture}")));
        }
        let context = CudaContext::new(index).map_err(|e| refused(index, "making a context", e))?;
        let shared =
            attribute(context.cu_device(), Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
        let driver = driver_version().map_err(|e| refused(index, "asking for the driver's version", e))?;
        let ptx = PtxDevice {
            capability: compilable(description.capability, driver),
            multiprocessors: description.multiprocessors,
            shared_per_block: shared.map_err(|e| refused(index, "asking for shared memory", e))?,
        };
        Ok(Self { id, context, description, ptx, state: Mutex::default() })
    }

    /// `CUDA 12.4, sm_90`.
    pub fn driver(&self) -> String {
        format!("{}, {}", self.description.driver, self.description.architecture())
    }

    /// An error that is no fault of the driver's.
    pub fn failed(&self, what: impl Into<String>) -> DeviceError {
        DeviceError::Failed { device: self.id.clone(), what: what.into() }
    }

    /// Makes the context current on this thread, unless the device is broken.
    pub fn enter(&self) -> Result<(), DeviceError> {
        let broken = self.health().broken.clone();
        if let Some(what) = broken {
            return Err(self.failed(what));
        }
        self.attempt("entering the context", self.context.bind_to_thread())
    }

    /// Keeps the name of a launch for whatever fails after it.
    pub fn launched(&self, entry: &'static str) {
        let mut state = self.health();
        if state.recent.len() == RECENT {
            state.recent.pop_front();
        }
        state.recent.push_back(entry);
    }

    /// The result of a call to the driver. Launches run late, so their errors come from later calls: those name the
    /// latest launches, and are what every call after them returns.
    pub fn attempt<T>(
        &self,
        call: impl fmt::Display,
        result: Result<T, DriverError>,
    ) -> Result<T, DeviceError> {
        result.map_err(|error| {
            let mut what = format!("{call}: {}", Said(error));
            if !is_final(error.0) {
                return self.failed(what);
            }
            let mut state = self.health();
            if !state.recent.is_empty() {
                let recent: Vec<&str> = state.recent.iter().copied().collect();
                what += &format!(
                    "; the latest launches were {} (`CUDA_LAUNCH_BLOCKING=1` in the environment leaves the one at fault \
                     last)",
                    recent.join(", ")
                );
            }
            self.failed(state.broken.get_or_insert(what).clone())
        })
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the context is lost with this error (CUDA Driver API, `CUresult`: "the process must be terminated and
/// relaunched", or the device is gone).
fn is_final(error: CUresult) -> bool {
    use CUresult::*;
    matches!(
        error,
        CUDA_ERROR_DEINITIALIZED
            | CUDA_ERROR_DEVICE_UNAVAILABLE
            | CUDA_ERROR_ECC_UNCORRECTABLE
            | CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUDA_ERROR_CONTAINED
            | CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_EXTERNAL_DEVICE
            | CUDA_ERROR_UNKNOWN
    )
}

#[cfg(test)]
mod tests {
    use super::compilable;

    #[test]
    fn forms_that_a_driver_cannot_compile_are_not_chosen() {
        assert_eq!(compilable((9, 0), (11, 8)), (8, 9), "Hopper behind a driver that knows no PTX 8.0");
        assert_eq!(compilable((9, 0), (12, 0)), (9, 0));
        assert_eq!(compilable((8, 0), (11, 4)), (8, 0));
        assert_eq!(compilable((12, 0), (13, 0)), (12, 0));
    }
}
