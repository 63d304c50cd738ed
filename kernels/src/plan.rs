//! A checked launch, and how it is cut where a device binds less than a whole tensor.

use crate::{Access, KernelInfo, ShapeError, TensorDesc};
use std::fmt;

/// Compulsory work of a launch: what a perfect cache would move, and the arithmetic of the formula.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes read once plus bytes written once.
    pub bytes: u64,
    /// Additions and multiplications.
    pub flops: u64,
}

/// One way to cut a launch into several: along items that lie contiguously in some slots.
#[derive(Clone, Debug)]
pub struct Split {
    /// Items in the whole launch.
    pub items: usize,
    /// Offset of the u32 parameter that holds the number of items.
    pub count_at: usize,
    /// Offset of the u32 parameter that holds the first item, for slots bound whole.
    pub first_at: Option<usize>,
    /// Bytes an item takes in each slot; 0 where the slot is bound whole.
    pub item_bytes: Vec<usize>,
}

/// A launch whose shapes were checked: the only thing an executor accepts.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What runs.
    pub kernel: &'static KernelInfo,
    /// Its parameter block.
    pub params: Vec<u8>,
    /// Type and shape of every slot in binding order; `None` for a slot left out.
    pub slots: Vec<Option<TensorDesc>>,
    /// Compulsory work.
    pub cost: Cost,
    /// Ways to cut it, preferred first.
    pub splits: Vec<Split>,
}

/// A part of a launch: parameters, and the byte range of every slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Parameter block of this part.
    pub params: Vec<u8>,
    /// Offset and length in bytes within each slot; `None` for a slot left out.
    pub ranges: Vec<Option<(usize, usize)>>,
}

/// An operation with its settings, waiting for shapes. Data: printable, and the same on every replay.
pub trait Op: fmt::Debug + Send + Sync {
    /// Checks `inputs` (the slots that are read or updated in place, in binding order; `None` where left out) and plans the
    /// launch.
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError>;
}

impl Plan {
    /// Slots that the launch writes, in binding order.
    pub fn outputs(&self) -> impl Iterator<Item = (usize, &TensorDesc)> {
        self.kernel.slots.iter().zip(&self.slots).enumerate().filter_map(|(i, (slot, desc))| {
            (slot.access != Access::Read).then_some(())?;
            Some((i, desc.as_ref()?))
        })
    }

    /// Whether nothing is to be done: no output element.
    pub fn is_empty(&self) -> bool {
        self.outputs().all(|(_, desc)| desc.elements() == 0)
    }

    /// Cuts the launch so that no slot of a piece is longer than `limit` bytes and every piece starts at a multiple of
    /// `align` bytes in each slot. Fails where no split of the op reaches the limit, naming the slot.
    pub fn pieces(&self, limit: usize, align: usize) -> Result<Vec<Piece>, ShapeError> {
        let whole = Piece {
            params: self.params.clone(),
            ranges: self.slots.iter().map(|s| s.as_ref().map(|d| (0, d.bytes()))).collect(),
        };
        let mut pieces = vec![whole];
        for split in &self.splits {
            let mut cut = Vec::with_capacity(pieces.len());
            for piece in pieces {
                split.cut(piece, limit, align, &mut cut);
            }
            pieces = cut;
        }
        for piece in &pieces {
            for (slot, range) in self.kernel.slots.iter().zip(&piece.ranges) {
                if let Some((_, bytes)) = range
                    && *bytes > limit
                {
                    return Err(ShapeError::value(
                        self.kernel.name,
                        slot.name,
                        format!("{bytes} bytes in one binding"),
                        format!("at most {limit} on this device; use smaller batches or windows"),
                    ));
                }
            }
        }
        Ok(pieces)
    }
}

impl Split {
    fn cut(&self, piece: Piece, limit: usize, align: usize, into: &mut Vec<Piece>) {
        let too_long = |(range, item): (&Option<(usize, usize)>, &usize)| {
            *item > 0 && range.is_some_and(|(_, bytes)| bytes > limit)
        };
        if !piece.ranges.iter().zip(&self.item_bytes).any(too_long) {
            into.push(piece);
            return;
        }
        // Items of one piece: as many as fit, in multiples that keep every start aligned.
        let step =
            self.item_bytes.iter().filter(|&&b| b > 0).fold(1, |step, &b| lcm(step, align / gcd(align, b)));
        let fits = self.item_bytes.iter().filter(|&&b| b > 0).map(|&b| limit / b).min().unwrap_or(self.items);
        let per_piece = (fits / step * step).max(step);
        for first in (0..self.items).step_by(per_piece) {
            let count = per_piece.min(self.items - first);
            let mut params = piece.params.clone();
            put_u32(&mut params, self.count_at, count);
            if let Some(at) = self.first_at {
                put_u32(&mut params, at, first);
            }
            let ranges = piece
                .ranges
                .iter()
                .zip(&self.item_bytes)
                .map(|(range, &b)| {
                    range.map(|(at, bytes)| if b > 0 { (at + first * b, count * b) } else { (at, bytes) })
                })
                .collect();
            into.push(Piece { params, ranges });
        }
    }
}

fn put_u32(params: &mut [u8], at: usize, value: usize) {
    let value = u32::try_from(value).expect("a part of a count that fitted in u32");
    params[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn lcm(a: usize, b: usize) -> usize {
    a / gcd(a, b) * b
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kernel.name)?;
        for (slot, desc) in self.kernel.slots.iter().zip(&self.slots) {
            if let Some(desc) = desc {
                write!(f, "  {} {:?}", slot.name, desc.shape)?;
            }
        }
        Ok(())
    }
}
