//! From a plan to a call of the driver: the form, its geometry, its arguments.

use super::State;
use super::arena::Memory;
use super::device::Gpu;
use super::module::resident_blocks;
use crate::backend::DeviceError;
use auscult_kernels::{DType, Plan, Ptx, Swizzle, TensorMap};
use cudarc::driver::{result, sys};
use std::ffi::c_void;
use std::sync::Arc;

/// Blocks along x, and along y and z (CUDA Programming Guide, "Technical Specifications per Compute Capability").
const MOST_BLOCKS: [u32; 3] = [(1 << 31) - 1, 65_535, 65_535];

/// What a slot is bound to; `None` where the plan leaves it out.
pub(super) type Bound<'a> = Option<(&'a Memory, u64)>;

/// A launch but for its slots.
#[derive(Clone, Copy)]
pub(super) struct Ready {
    ptx: &'static Ptx,
    grid: [u32; 3],
    dynamic_shared: u32,
    function: sys::CUfunction,
    /// Address and length.
    workspace: Option<(u64, usize)>,
}

impl Ready {
    /// The form's entry.
    pub fn entry(&self) -> &'static str {
        self.ptx.entry
    }
}

impl State {
    /// Chooses the form of a plan, of those called `only` where that is given, and makes what its launches need: the module,
    /// and the workspace. `None` if no block would run.
    pub fn ready(
        &mut self,
        gpu: &Arc<Gpu>,
        plan: &Plan,
        only: Option<&'static str>,
    ) -> Result<Option<Ready>, DeviceError> {
        let params = plan.params.as_slice();
        let ptx = form(gpu, plan, only)?;
        let entry = ptx.entry;
        let grid = (ptx.grid)(params, &gpu.ptx);
        if grid.contains(&0) {
            return Ok(None);
        }
        if grid.iter().zip(MOST_BLOCKS).any(|(&blocks, most)| blocks > most) {
            return Err(
                gpu.failed(format!("{entry}: a grid of {grid:?} blocks, expected at most {MOST_BLOCKS:?}"))
            );
        }
        let dynamic_shared = (ptx.dynamic_shared)(params);
        let (shared, most) = (dynamic_shared.saturating_add(ptx.static_shared), gpu.ptx.shared_per_block);
        if shared > most {
            let name = &gpu.description.name;
            return Err(gpu.failed(format!(
                "{entry}: {shared} bytes of shared memory, expected at most {most} on {name}"
            )));
        }
        let function = self.modules.get(ptx, dynamic_shared)?;
        if ptx.cooperative {
            let blocks: u64 = grid.iter().map(|&blocks| u64::from(blocks)).product();
            let most = resident_blocks(gpu, ptx, function, dynamic_shared)?;
            if blocks > most {
                let name = &gpu.description.name;
                return Err(gpu.failed(format!(
                    "{entry}: {blocks} blocks that wait for one another, expected at most {most}, which run at once on \
                     {name}"
                )));
            }
        }
        let workspace = match ptx.workspace.map(|bytes| bytes(params)) {
            None => None,
            Some(bytes) => Some((self.workspace(entry, bytes)?, bytes)),
        };
        Ok(Some(Ready { ptx, grid, dynamic_shared, function, workspace }))
    }

    /// Memory for a form's counters. It is shared by all launches that ask for as much: they run one after another. It
    /// stays, since recordings name it.
    fn workspace(&mut self, entry: &'static str, bytes: usize) -> Result<u64, DeviceError> {
        if let Some(memory) = self.workspaces.get(&(entry, bytes)) {
            return Ok(memory.address);
        }
        let memory = self.arena.alloc(bytes)?;
        let address = memory.address;
        self.workspaces.insert((entry, bytes), memory);
        Ok(address)
    }

    /// Queues a launch. The compute stream waits for uploads already.
    pub fn launch(
        &mut self,
        gpu: &Gpu,
        ready: &Ready,
        plan: &Plan,
        slots: &[Bound<'_>],
    ) -> Result<(), DeviceError> {
        let Ready { ptx, grid, dynamic_shared, function, workspace } = *ready;
        let entry = ptx.entry;
        let stream = self.compute.cu_stream();
        let address = |slot: &Bound<'_>| slot.map_or(0, |(_, address)| address);
        let mut pointers: Vec<u64> = slots.iter().map(address).collect();
        let mut params = plan.params.clone();
        let mut maps = (ptx.maps)(&plan.params)
            .iter()
            .map(|map| encode(gpu, entry, map, pointers.get(map.slot).copied().unwrap_or(0)))
            .collect::<Result<Vec<sys::CUtensorMap>, _>>()?;
        let mut counters = 0;
        if let Some((address, bytes)) = workspace {
            counters = address;
            // SAFETY: `workspace` made the memory `bytes` long, and keeps it; launches that use it run before and after
            // this in the same stream
            let zeroed = unsafe { result::memset_d8_async(address, 0, bytes, stream) };
            gpu.attempt(format_args!("{entry}: zeroing the workspace"), zeroed)?;
        }
        // in the order that `Ptx` documents
        let mut arguments: Vec<*mut c_void> =
            pointers.iter_mut().map(|pointer| std::ptr::from_mut(pointer).cast()).collect();
        arguments.push(params.as_mut_ptr().cast());
        if workspace.is_some() {
            arguments.push(std::ptr::from_mut(&mut counters).cast());
        }
        arguments.extend(maps.iter_mut().map(|map| std::ptr::from_mut(map).cast::<c_void>()));
        slots.iter().flatten().for_each(|(memory, _)| memory.touch());
        let (grid, block) = (grid.into(), ptx.block.into());
        let launched = if ptx.cooperative {
            // SAFETY: `function` is the entry of `ptx`, loaded for good by `ready`; tests/abi.rs holds its parameter list
            // to the slots and the size of the parameter block, in the order of `arguments`; the driver copies the
            // arguments before it returns; `bound` checked every span against its buffer, and the memory stays mapped
            // until the stream is past this launch
            unsafe {
                result::launch_cooperative_kernel(
                    function,
                    grid,
                    block,
                    dynamic_shared,
                    stream,
                    &mut arguments,
                )
            }
        } else {
            // SAFETY: as above
            unsafe { result::launch_kernel(function, grid, block, dynamic_shared, stream, &mut arguments) }
        };
        gpu.launched(entry);
        self.counters.launches += 1;
        gpu.attempt(format_args!("{entry}: launching"), launched)
    }
}

/// The form that runs a launch.
fn form(gpu: &Gpu, plan: &Plan, only: Option<&'static str>) -> Result<&'static Ptx, DeviceError> {
    let (kernel, params) = (plan.kernel, plan.params.as_slice());
    let found = match only {
        None => kernel.ptx_for(params, &gpu.ptx),
        Some(entry) => kernel.ptx_called(entry, params, &gpu.ptx),
    };
    found.ok_or_else(|| {
        let which = only.map_or_else(String::new, |entry| format!(" called `{entry}`"));
        let architecture = gpu.description.architecture();
        let has: Vec<String> =
            kernel.ptx.iter().map(|ptx| format!("{} ({})", ptx.entry, ptx.target.name())).collect();
        let has = if has.is_empty() { "none".into() } else { has.join(", ") };
        gpu.failed(format!("{plan}: no PTX form{which} runs this launch on {architecture}; there are {has}"))
    })
}

/// The copy engine's view of a tensor at an address; all zeros, which nothing may use, for a slot left out.
fn encode(gpu: &Gpu, entry: &str, map: &TensorMap, address: u64) -> Result<sys::CUtensorMap, DeviceError> {
    use sys::CUtensorMapDataType as Type;
    let mut encoded = sys::CUtensorMap { opaque: [0; 16] };
    if address == 0 {
        return Ok(encoded);
    }
    let rank = map.extents.len();
    if !(1..=5).contains(&rank) || map.strides.len() + 1 != rank || map.tile.len() != rank {
        return Err(gpu.failed(format!("{entry}: a tensor map of unequal ranks: {map:?}")));
    }
    let dtype = match map.dtype {
        DType::F32 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        DType::F16 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        DType::BF16 => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        DType::U8 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        DType::U16 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT16,
        DType::U32 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT32,
        DType::I32 => Type::CU_TENSOR_MAP_DATA_TYPE_INT32,
        DType::I64 => Type::CU_TENSOR_MAP_DATA_TYPE_INT64,
    };
    let swizzle = match map.swizzle {
        Swizzle::None => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        Swizzle::Bytes128 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    };
    let neighbours = vec![1_u32; rank];
    let base: *mut c_void = std::ptr::without_provenance_mut(
        usize::try_from(address).expect("addresses of the device are as wide as the host's"),
    );
    let rank = u32::try_from(rank).expect("at most 5");
    // SAFETY: the arrays are `rank` long, the strides one less, as checked above; `encoded` is one map, aligned by its
    // type; nothing is read at `base`
    let made = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut encoded,
            dtype,
            rank,
            base,
            map.extents.as_ptr(),
            map.strides.as_ptr(),
            map.tile.as_ptr(),
            neighbours.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            // outside of the tensor: zeros
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    gpu.attempt(format_args!("{entry}: encoding {map:?}"), made.result())?;
    Ok(encoded)
}
