//! Shared memory of one block, with the order of every two accesses checked.

use super::clocks::{Clocks, Known, Thread};
use super::mbarrier::Barrier;
use super::pending::Copies;
use super::proxy::Fences;
use super::readers::Readers;
use super::shadow::{Cell, Kind, Overflow};
use super::slow::At;
use super::text::Label;
use crate::ptx_sim::fault::{FaultKind, Refusal};

/// Barrier objects that a block may have.
pub(super) const BARRIERS: usize = 64;

/// What unwritten memory holds.
const FILL: u32 = 0xcdcd_cdcd;

/// Four bytes and what is remembered of them.
#[derive(Clone, Copy)]
pub(super) struct Word {
    pub(super) data: u32,
    pub(super) cell: Cell,
}

const FRESH: Word = Word { data: FILL, cell: Cell::EMPTY };

/// Shared memory of one block.
///
/// Every access is held against the last write and the reads since: two accesses of a byte by different threads, one
/// of which writes, must be ordered by a synchronisation, or they are a race, whatever order they happen to be executed
/// in. The executor calls [`begin_instruction`](Self::begin_instruction) before the lanes of a warp execute an
/// instruction one after the other.
pub struct Shared {
    pub(super) words: Vec<Word>,
    bytes: usize,
    pub(super) clocks: Clocks,
    pub(super) overflow: Overflow,
    pub(super) copies: Copies,
    pub(super) barriers: Vec<Barrier>,
    pub(super) fences: Fences,
    pub(super) readers: Readers,
    /// What warps did before they arrived at numbered barriers where they do not wait.
    arrivals: Vec<(u32, Known)>,
    labels: Vec<Label>,
}

impl Shared {
    /// Memory of a block of so many warps, that nothing has written.
    pub fn new(bytes: usize, warps: usize) -> Self {
        Self {
            words: vec![FRESH; bytes.div_ceil(4)],
            bytes,
            clocks: Clocks::new(warps, BARRIERS),
            overflow: Overflow::new(warps),
            copies: Copies::new(warps),
            barriers: Vec::new(),
            fences: Fences::new(warps),
            readers: Readers::default(),
            arrivals: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// Gives a range the name that refusals call it by.
    pub fn label(&mut self, name: &str, address: u32, bytes: u32) {
        self.labels.push(Label { name: name.into(), address, bytes });
    }

    /// The names given to ranges.
    pub(super) fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// Length in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Begins the next instruction of a warp; what lanes do until the next call is done at the same time.
    #[inline]
    pub fn begin_instruction(&mut self, warp: u32) {
        self.clocks.begin(warp as usize);
    }

    /// Reads 1, 2, 4, 8 or 16 bytes.
    #[inline]
    pub fn read(&mut self, who: Thread, address: u32, into: &mut [u8]) -> Result<(), Refusal> {
        let at = At { what: "read", address, bytes: into.len() };
        self.check(&at)?;
        let first = (address / 4) as usize;
        if into.len() < 4 {
            let start = (address % 4) as usize;
            self.read_part(who, first, start, into.len(), &at)?;
            into.copy_from_slice(&self.words[first].data.to_le_bytes()[start..start + into.len()]);
            return Ok(());
        }
        let now = self.clocks.now(who.row());
        let known = self.clocks.common(who.row()).all();
        let words = &mut self.words[first..first + into.len() / 4];
        let mut ordinary = true;
        for (chunk, word) in into.chunks_exact_mut(4).zip(words) {
            ordinary &= word.cell.read_fast(known, who, now, &mut self.overflow.rows);
            chunk.copy_from_slice(&word.data.to_le_bytes());
        }
        if ordinary { Ok(()) } else { self.read_words(who, first, into.len() / 4, &at) }
    }

    /// Writes 1, 2, 4, 8 or 16 bytes.
    #[inline]
    pub fn write(&mut self, who: Thread, address: u32, bytes: &[u8]) -> Result<(), Refusal> {
        let at = At { what: "write", address, bytes: bytes.len() };
        self.check(&at)?;
        if bytes.len() < 4 {
            return self.write_part(who, (address / 4) as usize, (address % 4) as usize, bytes, &at);
        }
        self.put(Kind::Plain, who, bytes, &at)
    }

    /// Writes whole words as a thread.
    #[inline]
    pub(super) fn put(&mut self, kind: Kind, who: Thread, bytes: &[u8], at: &At) -> Result<(), Refusal> {
        let first = (at.address / 4) as usize;
        let known = self.clocks.common(who.row()).all();
        let cell = Cell::written(kind, who, self.clocks.now(who.row()));
        for (i, chunk) in bytes.chunks_exact(4).enumerate() {
            let data = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
            let word = &mut self.words[first + i];
            if !word.cell.free_for(known, who, &self.overflow.rows) {
                return self.put_slowly(cell, first + i, who, &bytes[i * 4..], at);
            }
            self.overflow.rows.release(&word.cell);
            *word = Word { data, cell };
        }
        Ok(())
    }

    /// Replaces 4 or 8 bytes by a function of them; what they were. Atomics do not race with one another.
    pub fn atomic(
        &mut self,
        who: Thread,
        address: u32,
        bytes: usize,
        op: &dyn Fn(u64) -> u64,
    ) -> Result<u64, Refusal> {
        let at = At { what: "atomic", address, bytes };
        self.check(&at)?;
        let first = (address / 4) as usize;
        for word in first..first + bytes / 4 {
            self.touch_atomic(who, word, &at)?;
        }
        let low = u64::from(self.words[first].data);
        if bytes == 4 {
            self.words[first].data = halves(op(low)).0;
            return Ok(low);
        }
        let old = u64::from(self.words[first + 1].data) << 32 | low;
        (self.words[first].data, self.words[first + 1].data) = halves(op(old));
        Ok(old)
    }

    /// Orders accesses of these lanes of a warp: `bar.warp.sync`.
    pub fn warp_sync(&mut self, warp: u32, lanes: u32) {
        self.clocks.warp_sync(warp as usize, lanes);
    }

    /// Orders all accesses of these warps: `bar.sync`.
    pub fn barrier(&mut self, warps: &[u32]) {
        self.clocks.barrier(warps, self.clocks.nothing());
        if warps.len() == self.clocks.warps() {
            self.overflow.rows.begin_epoch();
        }
    }

    /// A warp arrives at a numbered barrier without waiting: `bar.arrive`. What it does from now on, the barrier does
    /// not order.
    pub fn barrier_arrive(&mut self, number: u32, warp: u32) {
        let place = self.arrivals.iter().position(|(other, _)| *other == number);
        let place = place.unwrap_or_else(|| {
            self.arrivals.push((number, self.clocks.nothing()));
            self.arrivals.len() - 1
        });
        self.clocks.release_warp(warp as usize, &mut self.arrivals[place].1);
    }

    /// The warps that wait at a numbered barrier go on, after those that arrived without waiting.
    pub fn barrier_complete(&mut self, number: u32, waiting: &[u32]) {
        let Some(place) = self.arrivals.iter().position(|(other, _)| *other == number) else {
            return self.barrier(waiting);
        };
        let arrived = self.arrivals.swap_remove(place).1;
        self.clocks.barrier(waiting, arrived);
    }

    /// Refuses the end of the block if something asynchronous was never waited for.
    pub fn finish(&mut self) -> Result<(), Refusal> {
        self.finish_copies()?;
        self.finish_barriers()?;
        self.finish_readers()
    }

    /// Refuses an access that is not aligned to its length, or does not lie in the memory.
    #[inline]
    pub(super) fn check(&self, at: &At) -> Result<(), Refusal> {
        let start = at.address as usize;
        if at.bytes.is_power_of_two() && start & (at.bytes - 1) == 0 && start + at.bytes <= self.bytes {
            return Ok(());
        }
        Err(self.misplaced(at, at.bytes))
    }

    /// Says what is wrong with an address.
    #[cold]
    pub(super) fn misplaced(&self, at: &At, align: usize) -> Refusal {
        if !(at.address as usize).is_multiple_of(align) {
            let detail = format!("{}, expected a multiple of {align}", self.describe(at));
            return Refusal { kind: FaultKind::Misaligned, detail };
        }
        let place = match (at.address as usize).checked_sub(self.bytes) {
            Some(past) => format!("{past} bytes past the end"),
            None => {
                let past = at.bytes - (self.bytes - at.address as usize);
                format!("the last {past} of them past the end")
            }
        };
        let detail = format!("{}, {place} of the block's {} bytes", self.describe(at), self.bytes);
        Refusal { kind: FaultKind::OutOfBounds, detail }
    }
}

/// Low and high words.
fn halves(value: u64) -> (u32, u32) {
    let low = u32::try_from(value & u64::from(u32::MAX)).expect("32 bits are kept");
    let high = u32::try_from(value >> 32).expect("32 bits are left");
    (low, high)
}
