//! Tile copies of the copy engine: which bytes of a tensor go where in shared memory.
//!
//! Sources: CUDA driver API, `cuTensorMapEncodeTiled` (limits of a map); PTX ISA, "Tensors": "Tiled Mode", "Swizzling
//! Modes", and `cp.async.bulk.tensor` (alignment). A tile is packed in shared memory, innermost axis first; the
//! 128-byte swizzle exchanges bits 4-6 of the address by exclusive or with bits 7-9.

use auscult_kernels::{Swizzle, TensorMap};

use crate::ptx_sim::fault::{FaultKind, Refusal};

/// A tensor map at its place in global memory, checked.
#[derive(Clone, Debug)]
pub struct Tile<'a> {
    map: &'a TensorMap,
    base: u64,
}

/// Sixteen bytes of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Address in shared memory.
    pub shared: u32,
    /// Address in global memory of the first byte inside the tensor; 0 where there is none.
    pub global: u64,
    /// Bytes of the chunk before the tensor's edge: zeros of a load.
    pub before: u32,
    /// Bytes inside the tensor; what follows them is zeros of a load.
    pub inside: u32,
}

fn invalid(detail: String) -> Refusal {
    Refusal { kind: FaultKind::Invalid, detail }
}

impl<'a> Tile<'a> {
    /// Checks what `cuTensorMapEncodeTiled` checks of a map over memory at `base`.
    pub fn new(map: &'a TensorMap, base: u64) -> Result<Self, Refusal> {
        let rank = map.extents.len();
        if !(1..=5).contains(&rank) || map.strides.len() + 1 != rank || map.tile.len() != rank {
            return Err(invalid(format!(
                "tensor map has {rank} extents, {} strides and {} tile sizes, expected 1 to 5 extents, a stride less, as \
                 many sizes",
                map.strides.len(),
                map.tile.len()
            )));
        }
        if !base.is_multiple_of(16) {
            return Err(invalid(format!("tensor map begins at {base:#x}, expected a multiple of 16")));
        }
        if let Some(extent) = map.extents.iter().find(|extent| !(1..=1 << 32).contains(*extent)) {
            return Err(invalid(format!("tensor map has an extent of {extent}, expected 1 to 2^32")));
        }
        if let Some(stride) = map.strides.iter().find(|s| **s == 0 || **s >= 1 << 40 || !s.is_multiple_of(16))
        {
            return Err(invalid(format!(
                "tensor map has a stride of {stride} bytes, expected a positive multiple of 16 below 2^40"
            )));
        }
        if let Some(size) = map.tile.iter().find(|size| !(1..=256).contains(*size)) {
            return Err(invalid(format!("tensor map has a tile size of {size}, expected 1 to 256")));
        }
        let tile = Self { map, base };
        let row = tile.row_bytes();
        if !row.is_multiple_of(16) {
            return Err(invalid(format!("tensor map copies rows of {row} bytes, expected a multiple of 16")));
        }
        match map.swizzle {
            Swizzle::Bytes128 if row > 128 => Err(invalid(format!(
                "tensor map copies rows of {row} bytes, expected at most 128 (its 128-byte swizzle)"
            ))),
            Swizzle::Bytes128 if row < 128 => Err(Refusal {
                kind: FaultKind::Unsupported,
                detail: format!("tensor map copies rows of {row} bytes, expected 128 (its 128-byte swizzle)"),
            }),
            Swizzle::Bytes128 | Swizzle::None => Ok(tile),
        }
    }

    /// Bytes that one copy moves, those outside the tensor included: what an `mbarrier` is to expect.
    pub fn bytes(&self) -> u32 {
        self.row_bytes() * self.map.tile[1..].iter().product::<u32>()
    }

    fn size(&self) -> u32 {
        u32::try_from(self.map.dtype.size()).expect("elements have at most 8 bytes")
    }

    fn row_bytes(&self) -> u32 {
        self.map.tile[0] * self.size()
    }

    /// The chunks of the tile whose first element is at `coordinates`, innermost first, in the order of shared memory
    /// before swizzling from `shared` on.
    pub fn chunks(
        &self,
        coordinates: &[i32],
        shared: u32,
    ) -> Result<impl Iterator<Item = Chunk> + use<'a>, Refusal> {
        let map = self.map;
        if coordinates.len() != map.extents.len() {
            return Err(invalid(format!(
                "tile copy gives {} coordinates, expected {} (the rank of its tensor map)",
                coordinates.len(),
                map.extents.len()
            )));
        }
        let (unit, mask, why) = match map.swizzle {
            Swizzle::None => (128, 0, "tile copies"),
            Swizzle::Bytes128 => (1024, 0x70, "the 128-byte swizzle repeats there"),
        };
        if !shared.is_multiple_of(unit) {
            return Err(Refusal {
                kind: FaultKind::Misaligned,
                detail: format!(
                    "tile at {shared:#x} in shared memory, expected a multiple of {unit} ({why})"
                ),
            });
        }
        let (base, size, row) = (self.base, self.size(), self.row_bytes());
        let (first, outer) = coordinates.split_first().expect("a map has a rank of 1 at least");
        let (start, outer): (_, Vec<i64>) =
            (i64::from(*first), outer.iter().map(|c| i64::from(*c)).collect());
        Ok((0..self.bytes()).step_by(16).map(move |offset| {
            let address = shared + offset;
            let shared = address ^ ((address >> 3) & mask);
            let first = start + i64::from(offset % row / size);
            let (mut line, mut global) = (offset / row, Some(base));
            for (axis, from) in (1..).zip(&outer) {
                let coordinate = from + i64::from(line % map.tile[axis]);
                line /= map.tile[axis];
                let step = inside(coordinate, map.extents[axis]).map(|c| c * map.strides[axis - 1]);
                global = global.zip(step).map(|(global, step)| global + step);
            }
            let last = first + i64::from(16 / size);
            let extent = i64::try_from(map.extents[0]).expect("at most 2^32");
            let (from, to) = (first.max(0), last.min(extent));
            match global {
                Some(line) if from < to => {
                    let bytes = |elements: i64| u32::try_from(elements).expect("at most 16") * size;
                    let column = u64::try_from(from).expect("not negative") * u64::from(size);
                    Chunk {
                        shared,
                        global: line + column,
                        before: bytes(from - first),
                        inside: bytes(to - from),
                    }
                }
                _ => Chunk { shared, global: 0, before: 16, inside: 0 },
            }
        }))
    }
}

/// `coordinate`, if it is in `0..extent`.
fn inside(coordinate: i64, extent: u64) -> Option<u64> {
    u64::try_from(coordinate).ok().filter(|coordinate| *coordinate < extent)
}

#[cfg(test)]
#[path = "tile_tests.rs"]
mod tests;
