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

/// The WGSL form of a kernel.
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
}

/// The PTX form of a kernel.
#[derive(Clone, Copy)]
pub struct Ptx {
    /// The file, legal as it stands.
    pub source: &'static str,
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks for a parameter block.
    pub grid: fn(params: &[u8]) -> [u32; 3],
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
    /// WGSL form; bound at group 0 in slot order, the parameter block last, as a uniform.
    pub wgsl: Wgsl,
    /// PTX form, for kernels that have one.
    pub ptx: Option<Ptx>,
    /// The definition as a loop, accumulating in f64.
    pub reference: HostFn,
    /// A fast host form; kernels that need none run their reference.
    pub cpu: Option<HostFn>,
    /// Shapes that the kernel is tested and timed at.
    pub cases: fn() -> Vec<Case>,
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
