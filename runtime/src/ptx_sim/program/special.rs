//! Special registers that keep their value while a warp runs.

use crate::ptx_sim::exec::{LANES, Place};

/// A special register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    /// `%tid`.
    Thread(usize),
    /// `%ntid`.
    Threads(usize),
    /// `%ctaid`.
    Block(usize),
    /// `%nctaid`.
    Blocks(usize),
    /// `%laneid`.
    Lane,
    /// `%warpid`.
    Warp,
    /// `%nwarpid`.
    Warps,
    /// `%smid`.
    Multiprocessor,
    /// `%nsmid`.
    Multiprocessors,
    /// `%lanemask_eq`.
    MaskEqual,
    /// `%lanemask_lt`.
    MaskLess,
    /// `%lanemask_le`.
    MaskLessEqual,
    /// `%lanemask_gt`.
    MaskGreater,
    /// `%lanemask_ge`.
    MaskGreaterEqual,
    /// `%dynamic_smem_size`.
    DynamicShared,
    /// `%total_smem_size`.
    TotalShared,
}

impl Special {
    /// The special register of that name.
    pub fn named(name: &str) -> Option<Self> {
        let axis = |name: &str| ["x", "y", "z"].iter().position(|axis| *axis == name);
        let found = match name.strip_prefix('%')? {
            "laneid" => Self::Lane,
            "warpid" => Self::Warp,
            "nwarpid" => Self::Warps,
            "smid" => Self::Multiprocessor,
            "nsmid" => Self::Multiprocessors,
            "lanemask_eq" => Self::MaskEqual,
            "lanemask_lt" => Self::MaskLess,
            "lanemask_le" => Self::MaskLessEqual,
            "lanemask_gt" => Self::MaskGreater,
            "lanemask_ge" => Self::MaskGreaterEqual,
            "dynamic_smem_size" => Self::DynamicShared,
            "total_smem_size" => Self::TotalShared,
            name => match name.split_once('.')? {
                ("tid", a) => Self::Thread(axis(a)?),
                ("ntid", a) => Self::Threads(axis(a)?),
                ("ctaid", a) => Self::Block(axis(a)?),
                ("nctaid", a) => Self::Blocks(axis(a)?),
                _ => return None,
            },
        };
        Some(found)
    }

    /// Its value in every lane of a warp.
    pub fn row(self, place: &Place) -> [u32; LANES] {
        std::array::from_fn(|lane| {
            let lane = u32::try_from(lane).expect("32 lanes");
            let thread = place.warp * 32 + lane;
            let [x, y, z] = place.threads;
            match self {
                Self::Thread(0) => thread % x,
                Self::Thread(1) => thread / x % y,
                Self::Thread(_) => thread / x / y,
                Self::Threads(axis) => place.threads[axis],
                Self::Block(axis) => place.block[axis],
                Self::Blocks(axis) => place.grid[axis],
                Self::Lane => lane,
                Self::Warp => place.warp,
                Self::Warps => (x * y * z).div_ceil(32),
                Self::Multiprocessor => place.multiprocessor.0,
                Self::Multiprocessors => place.multiprocessor.1,
                Self::MaskEqual => 1 << lane,
                Self::MaskLess => (1 << lane) - 1,
                Self::MaskLessEqual => u32::MAX >> (31 - lane),
                Self::MaskGreater => !(u32::MAX >> (31 - lane)),
                Self::MaskGreaterEqual => u32::MAX << lane,
                Self::DynamicShared => place.shared.0,
                Self::TotalShared => place.shared.1,
            }
        })
    }
}
