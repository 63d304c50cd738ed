//! What is known of a kernel before any shape is: slots, parameter fields, sources, host forms.

use crate::{Case, DType, HostFn};

/// How a kernel uses a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Every element is written, none is read.
    Write,
    /// Updated in place.
    ReadWrite,
}

/// One tensor argument, in binding order.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Name in the sources: the PTX parameter, the WGSL variable.
    pub name: &'static str,
    /// Element type.
    pub dtype: DType,
    /// How it is used.
    pub access: Access,
    /// Whether a plan may leave it out; the parameter block then tells the kernel not to touch it.
    pub optional: bool,
}

impl Slot {
    /// A required slot that is only read.
    pub const fn read(name: &'static str, dtype: DType) -> Self {
        Self { name, dtype, access: Access::Read, optional: false }
    }

    /// A slot that is only read and may be left out.
    pub const fn maybe(name: &'static str, dtype: DType) -> Self {
        Self { name, dtype, access: Access::Read, optional: true }
    }

    /// A required slot that is updated in place.
    pub const fn update(name: &'static str, dtype: DType) -> Self {
        Self { name, dtype, access: Access::ReadWrite, optional: false }
    }

    /// A required slot of which every element is written.
    pub const fn write(name: &'static str, dtype: DType) -> Self {
        Self { name, dtype, access: Access::Write, optional: false }
    }
}

/// One field of a parameter block.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name in `Params` and in the sources.
    pub name: &'static str,
    /// Byte offset.
    pub offset: usize,
}

/// `fields![Params; rows, cols]`: the fields of a parameter block, with offsets taken from the Rust struct.
#[macro_export]
macro_rules! fields {
    ($params:ty; $($name:ident),* $(,)?) => {
        &[$($crate::Field { name: stringify!($name), offset: std::mem::offset_of!($params, $name) }),*]
    };
}

/// What a WGSL form asks of an adapter beyond what WebGPU promises of every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WgslNeeds {
    /// Nothing: it runs everywhere.
    Nothing,
    /// Products of 16 by 16 matrices of f16, summed in f32, each by a subgroup of 32 (`wgpu_cooperative_matrix`); f16 in
    /// memory and arithmetic (`shader-f16`); subgroups; [`SHARED`](Self::SHARED) bytes for a workgroup to share.
    HalfMatrices16,
}

impl WgslNeeds {
    /// Bytes that a workgroup may share where a form needs more than WebGPU promises.
    pub const SHARED: u32 = 32_768;

    /// Whether a device has it.
    pub const fn met_by(self, device: &WgslDevice) -> bool {
        match self {
            Self::Nothing => true,
            Self::HalfMatrices16 => device.half_matrices,
        }
    }
}

/// What the choice of WGSL forms goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WgslDevice {
    /// Whether it has what [`WgslNeeds::HalfMatrices16`] tells.
    pub half_matrices: bool,
}

/// One WGSL form of a kernel; bound at group 0 in slot order, the parameter block last, as a uniform.
#[derive(Clone, Copy)]
pub struct Wgsl {
    /// The file, legal as it stands.
    pub source: &'static str,
    /// Name of the entry point.
    pub entry: &'static str,
    /// `override` constants that make this variant, by name.
    pub overrides: &'static [(&'static str, f64)],
    /// Invocations of a workgroup.
    pub workgroup: [u32; 3],
    /// Workgroups for a parameter block; each at most 65,535.
    pub grid: fn(params: &[u8]) -> [u32; 3],
    /// Adapters that run it.
    pub needs: WgslNeeds,
    /// Whether it takes a launch with this parameter block. It must not look at counts of rows or clips, as in [`Ptx`].
    pub takes: fn(params: &[u8]) -> bool,
}

impl Wgsl {
    /// A form that runs everywhere and takes every launch, with no `override`.
    pub const fn new(
        source: &'static str,
        entry: &'static str,
        workgroup: [u32; 3],
        grid: fn(params: &[u8]) -> [u32; 3],
    ) -> Self {
        Self { source, entry, overrides: &[], workgroup, grid, needs: WgslNeeds::Nothing, takes: |_| true }
    }
}

/// Generation of NVIDIA device that a PTX form is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Compute capability 8.0 and everything newer: `mma.sync`, `cp.async`.
    Sm80,
    /// Compute capability 9.0 alone: `wgmma`, tensor copies, `mbarrier`.
    Sm90a,
}

impl Target {
    /// The name in PTX.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sm80 => "sm_80",
            Self::Sm90a => "sm_90a",
        }
    }

    /// Whether a device of compute capability `(major, minor)` runs it. `sm_90a` is not carried on by later devices.
    pub const fn runs_on(self, (major, minor): (u32, u32)) -> bool {
        match self {
            Self::Sm80 => major >= 8,
            Self::Sm90a => major == 9 && minor == 0,
        }
    }
}

/// What the geometry of a launch may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PtxDevice {
    /// Compute capability.
    pub capability: (u32, u32),
    /// Streaming multiprocessors: how many blocks a persistent kernel starts.
    pub multiprocessors: u32,
    /// Bytes of shared memory that one block may ask for.
    pub shared_per_block: u32,
}

/// How the 16-byte chunks of a tile's rows are permuted in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swizzle {
    /// Rows one after another.
    None,
    /// Chunk `c` of row `r` lies at chunk `c ^ (r % 8)`; a row is 128 bytes.
    Bytes128,
}

/// A tensor as the copy engine sees it (a `CUtensorMap`): the parameter `<slot>_map`, behind all others.
///
/// Elements outside the tensor are read as zero and not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Index of the slot whose memory it describes.
    pub slot: usize,
    /// Element type.
    pub dtype: crate::DType,
    /// Extents, innermost first.
    pub extents: Vec<u64>,
    /// Bytes between neighbours along every axis but the innermost; multiples of 16.
    pub strides: Vec<u64>,
    /// Elements of one copy along every axis.
    pub tile: Vec<u32>,
    /// Arrangement in shared memory.
    pub swizzle: Swizzle,
}

/// One PTX form of a kernel.
///
/// Its entry takes a `.u64` pointer for every slot in binding order (0 for a slot left out), the parameter block as
/// `.param .align 4 .b8 params[N]`, then, if it has one, the workspace as `.param .u64 workspace`, then its tensor maps as
/// `.param .align 64 .b8 <slot>_map[128]`.
#[derive(Clone, Copy)]
pub struct Ptx {
    /// The file, legal as it stands.
    pub source: &'static str,
    /// Name of the entry point.
    pub entry: &'static str,
    /// Devices that run it.
    pub target: Target,
    /// Whether it takes a launch with this parameter block. It must not look at counts of rows or clips: a clip's
    /// values would then depend on the batch it travels in.
    pub takes: fn(params: &[u8]) -> bool,
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks for a parameter block; y and z at most 65,535.
    pub grid: fn(params: &[u8], device: &PtxDevice) -> [u32; 3],
    /// Bytes of `extern .shared` memory beside what the source declares.
    pub dynamic_shared: fn(params: &[u8]) -> u32,
    /// Bytes of global memory, zero at every launch, that blocks exchange counters in.
    pub workspace: Option<fn(params: &[u8]) -> usize>,
    /// Whether all blocks must run at once, because they wait for one another.
    pub cooperative: bool,
    /// Tensors that are copied by tile.
    pub maps: fn(params: &[u8]) -> Vec<TensorMap>,
    /// Registers of a thread at most, as `ptxas` counts them, on any device.
    pub registers: u32,
    /// Bytes of shared memory that the source declares, at most.
    pub static_shared: u32,
}

impl Ptx {
    /// A form that runs everywhere, takes every launch, and needs neither shared memory nor a workspace.
    pub const fn new(
        source: &'static str,
        entry: &'static str,
        block: [u32; 3],
        grid: fn(params: &[u8], device: &PtxDevice) -> [u32; 3],
    ) -> Self {
        Self {
            source,
            entry,
            target: Target::Sm80,
            takes: |_| true,
            block,
            grid,
            dynamic_shared: |_| 0,
            workspace: None,
            cooperative: false,
            maps: |_| Vec::new(),
            registers: 64,
            static_shared: 0,
        }
    }

    /// Whether a device has it and it takes a launch with this parameter block.
    pub fn runs(&self, params: &[u8], device: &PtxDevice) -> bool {
        self.target.runs_on(device.capability) && (self.takes)(params)
    }
}

/// A kernel: everything an executor, a test or a bench needs, and no shape.
pub struct KernelInfo {
    /// `op_dtype`; the same in every source, label and test id.
    pub name: &'static str,
    /// Tensor arguments, in binding order.
    pub slots: &'static [Slot],
    /// Fields of the parameter block.
    pub fields: &'static [Field],
    /// Bytes of the parameter block; a multiple of 16.
    pub params_size: usize,
    /// WGSL forms, the preferred first, the last for every launch on every adapter. All take the same slots and
    /// parameters and compute the same function.
    pub wgsl: &'static [Wgsl],
    /// PTX forms, the preferred first. All take the same slots and parameters and compute the same function.
    pub ptx: &'static [Ptx],
    /// The definition as a loop, accumulating in f64.
    pub reference: HostFn,
    /// A fast host form; kernels that need none run their reference.
    pub cpu: Option<HostFn>,
    /// Shapes that the kernel is tested and timed at.
    pub cases: fn() -> Vec<Case>,
}

impl KernelInfo {
    /// The form that an adapter runs for a parameter block: the first that it has the means for and that takes the launch.
    pub fn wgsl_for(&self, params: &[u8], device: &WgslDevice) -> Option<&'static Wgsl> {
        self.wgsl.iter().find(|wgsl| wgsl.needs.met_by(device) && (wgsl.takes)(params))
    }

    /// The form that a device runs for a parameter block: the first that it has and that takes the launch.
    pub fn ptx_for(&self, params: &[u8], device: &PtxDevice) -> Option<&'static Ptx> {
        self.ptx.iter().find(|ptx| ptx.runs(params, device))
    }

    /// The form with this entry, where the device has it and it takes the launch.
    pub fn ptx_called(&self, entry: &str, params: &[u8], device: &PtxDevice) -> Option<&'static Ptx> {
        self.ptx.iter().find(|ptx| ptx.entry == entry && ptx.runs(params, device))
    }
}

impl std::fmt::Debug for KernelInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Lays `groups` workgroups out over x and y so that neither passes 65,535, the limit of WebGPU.
///
/// A kernel recovers its number as `group.y * num_workgroups.x + group.x` and leaves when it is past the end.
pub fn fold_groups(groups: u64) -> [u32; 3] {
    const LIMIT: u64 = 65_535;
    let y = groups.div_ceil(LIMIT).max(1);
    let x = groups.div_ceil(y);
    let fits = |v: u64| u32::try_from(v).expect("at most 65,535 after folding");
    [fits(x), fits(y.min(LIMIT)), 1]
}

#[cfg(test)]
mod tests {
    use super::fold_groups;

    #[test]
    fn folded_grids_hold_every_group_and_no_axis_is_too_long() {
        for groups in [0, 1, 65_534, 65_535, 65_536, 65_537, 131_070, 131_071, 4_194_241, 65_535 * 65_535] {
            let [x, y, z] = fold_groups(groups).map(u64::from);
            assert!(x <= 65_535 && y <= 65_535 && z == 1, "{groups}: {x} x {y} x {z}");
            assert!(x * y >= groups && x * y < groups + y, "{groups}: {x} x {y}");
        }
    }
}
