//! PTX, compiled by the driver when a form is first launched, and kept.

use super::device::Gpu;
use crate::backend::DeviceError;
use auscult_kernels::Ptx;
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUfunction_attribute_enum as Attribute, CUjit_option};
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;

/// Bytes of each of the compiler's logs.
const LOG: usize = 16 << 10;
/// Bytes of shared memory that a block has without asking (CUDA Driver API, `cuFuncSetAttribute`).
const SHARED_UNASKED: u32 = 48 << 10;

/// A form, compiled.
struct Loaded {
    module: sys::CUmodule,
    function: sys::CUfunction,
    /// Bytes of dynamic shared memory that launches may ask for so far.
    dynamic_shared: u32,
}

/// The modules of a device, by entry and by where the source lies: forms are statics, so that is their identity.
pub(super) struct Modules {
    gpu: Arc<Gpu>,
    loaded: HashMap<(&'static str, usize), Loaded>,
}

// SAFETY: modules and functions are handles that the driver takes from any thread
unsafe impl Send for Modules {}

impl Modules {
    pub fn new(gpu: Arc<Gpu>) -> Self {
        Self { gpu, loaded: HashMap::new() }
    }

    /// The function of a form, allowed to have so many bytes of dynamic shared memory. The context is current.
    pub fn get(&mut self, ptx: &'static Ptx, dynamic_shared: u32) -> Result<sys::CUfunction, DeviceError> {
        let gpu = &self.gpu;
        let loaded = match self.loaded.entry((ptx.entry, ptx.source.as_ptr().addr())) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(load(gpu, ptx)?),
        };
        let all = dynamic_shared.saturating_add(ptx.static_shared);
        if all > SHARED_UNASKED && dynamic_shared > loaded.dynamic_shared {
            let bytes = i32::try_from(dynamic_shared)
                .map_err(|_| gpu.failed(format!("{}: {dynamic_shared} bytes of shared memory", ptx.entry)))?;
            let which = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: `function` is of a module that `load` loaded and that stays loaded
            let set = unsafe { result::function::set_function_attribute(loaded.function, which, bytes) };
            gpu.attempt(
                format_args!("{}: asking for {dynamic_shared} bytes of shared memory", ptx.entry),
                set,
            )?;
            loaded.dynamic_shared = dynamic_shared;
        }
        Ok(loaded.function)
    }

    /// Modules loaded so far.
    pub fn len(&self) -> usize {
        self.loaded.len()
    }
}

/// Compiles a form for the device. The error holds what the compiler said.
fn load(gpu: &Gpu, ptx: &Ptx) -> Result<Loaded, DeviceError> {
    let entry = ptx.entry;
    let text = |_| gpu.failed(format!("{entry}: the PTX holds a zero byte"));
    let (source, name) = (CString::new(ptx.source).map_err(text)?, CString::new(entry).map_err(text)?);
    let mut remarks = vec![0_u8; LOG];
    let mut errors = vec![0_u8; LOG];
    let mut options = [
        CUjit_option::CU_JIT_INFO_LOG_BUFFER,
        CUjit_option::CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
        CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    ];
    // sizes go in the place of pointers
    let size = std::ptr::without_provenance_mut(LOG);
    let mut values = [remarks.as_mut_ptr().cast(), size, errors.as_mut_ptr().cast(), size];
    let count = u32::try_from(options.len()).expect("four options");
    let mut module = std::ptr::null_mut();
    // SAFETY: `source` ends in a zero byte; `options` and `values` are `count` long, and the buffers among the values are
    // of the sizes that stand behind them; all of it outlives the call
    let made = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            source.as_ptr().cast(),
            count,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    if let Err(error) = made.result() {
        let log: Vec<String> = [&errors, &remarks].into_iter().filter_map(|log| said(log)).collect();
        let log = if log.is_empty() { String::new() } else { format!(", which says\n{}\n", log.join("\n")) };
        let (target, driver) = (ptx.target.name(), gpu.driver());
        return gpu.attempt(format_args!("{entry}: PTX for {target} on {driver}{log}"), Err(error));
    }
    // SAFETY: `module` was loaded above
    let function = unsafe { result::module::get_function(module, name) };
    let found = gpu.attempt(format_args!("{entry}: looking for the entry in its module"), function);
    if found.is_err() {
        // SAFETY: `module` was loaded above, and nothing of it is in use
        let _ = unsafe { result::module::unload(module) };
    }
    Ok(Loaded { module, function: found?, dynamic_shared: 0 })
}

/// The text in a log, which ends at its first zero byte.
fn said(log: &[u8]) -> Option<String> {
    let text = log.split(|&byte| byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text).trim().to_string();
    (!text.is_empty()).then_some(text)
}

/// Blocks of a launch that a device can run at once.
pub(super) fn resident_blocks(
    gpu: &Gpu,
    ptx: &Ptx,
    function: sys::CUfunction,
    dynamic_shared: u32,
) -> Result<u64, DeviceError> {
    let threads = ptx.block.iter().product::<u32>();
    let threads =
        i32::try_from(threads).map_err(|_| gpu.failed(format!("{}: {threads} threads", ptx.entry)))?;
    let shared = usize::try_from(dynamic_shared).expect("32 bits fit");
    // SAFETY: `function` is of a module that stays loaded: `Modules::get` gave it
    let blocks = unsafe { result::occupancy::max_active_block_per_multiprocessor(function, threads, shared) };
    let blocks = gpu.attempt(format_args!("{}: asking how many blocks fit", ptx.entry), blocks)?;
    Ok(u64::try_from(blocks).unwrap_or(0) * u64::from(gpu.ptx.multiprocessors))
}

impl Drop for Modules {
    fn drop(&mut self) {
        if self.gpu.context.bind_to_thread().is_err() {
            return;
        }
        for loaded in self.loaded.values() {
            // SAFETY: `load` loaded it, it is unloaded once, and whoever drops the modules has waited for their work
            let _ = unsafe { result::module::unload(loaded.module) };
        }
    }
}
