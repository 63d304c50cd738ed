//! Who has read a cell since it was written: one warp, told in the cell, or several, told in a row of records.

use super::clocks::{Clocks, Thread};
use super::shadow::{Cell, small};

/// No reader since the last write.
pub(super) const NOBODY: u8 = u8::MAX;
/// Readers of several warps; `reads.hi` is where the row of records begins, `reads.latest` its epoch.
pub(super) const MANY: u8 = u8::MAX - 1;

/// Reads by lanes of one warp.
#[derive(Clone, Copy)]
pub(super) struct Reads {
    /// Time of the latest.
    pub(super) hi: u32,
    /// Lanes that read then.
    pub(super) latest: u32,
    /// Lanes that read before, and not in an order that the latest implies.
    pub(super) older: u32,
    /// No later than the last read of any of `older`.
    lo: u32,
}

impl Reads {
    pub(super) const NONE: Self = Self { hi: 0, latest: 0, older: 0, lo: 0 };

    fn one(time: u32, bit: u32) -> Self {
        Self { hi: time, latest: bit, older: 0, lo: 0 }
    }

    /// Adds a read; `synced` is when all lanes of the warp were last ordered.
    #[inline]
    fn add(&mut self, time: u32, bit: u32, synced: u32) {
        if self.hi == time {
            self.latest |= bit;
        } else if self.hi <= synced {
            *self = Self::one(time, bit);
        } else if self.latest == bit && self.older == 0 {
            self.hi = time;
        } else {
            if self.older == 0 {
                self.lo = self.hi;
            }
            self.older |= self.latest;
            self.latest = bit;
            self.hi = time;
        }
    }

    /// A lane of `warp` whose read is not ordered before what `who` does next.
    ///
    /// Of `older` lanes only a lower bound is known, so one whose own arrival at a barrier is known counts as ordered.
    fn unordered(&self, clocks: &Clocks, who: Thread, warp: usize) -> Option<u32> {
        if self.hi <= clocks.common(who.row()).all()[warp] {
            return None;
        }
        let late = |lanes: u32, time: u32| {
            (0..32).find(|&lane| lanes >> lane & 1 == 1 && !clocks.knows(who, warp, lane, time))
        };
        late(self.latest, self.hi).or_else(|| late(self.older & !self.latest, self.lo))
    }
}

/// Rows of one record a warp.
///
/// When all warps of the block meet, nothing that was read before matters any more: a new epoch begins, and rows of
/// earlier ones count as nobody's.
pub(super) struct Rows {
    warps: usize,
    epoch: u32,
    records: Vec<Reads>,
    free: Vec<u32>,
}

impl Rows {
    pub(super) fn new(warps: usize) -> Self {
        Self { warps, epoch: 0, records: Vec::new(), free: Vec::new() }
    }

    /// Every access so far is ordered before every access to come.
    pub(super) fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.records.clear();
        self.free.clear();
    }

    /// Adds a read to a cell.
    #[inline]
    pub(super) fn note(&mut self, cell: &mut Cell, known: &[u32], who: Thread, now: u32) {
        let (warp, bit) = (small(who.warp), who.bit());
        if cell.reader == warp {
            cell.reads.add(now, bit, known[who.row()]);
        } else if self.live(cell) {
            self.records[cell.reads.hi as usize + who.row()].add(now, bit, known[who.row()]);
        } else if cell.reader >= MANY || cell.reads.hi <= known[usize::from(cell.reader)] {
            cell.reader = warp;
            cell.reads = Reads::one(now, bit);
        } else {
            let first = self.take();
            self.records[first + usize::from(cell.reader)] = cell.reads;
            self.records[first + who.row()] = Reads::one(now, bit);
            self.set(cell, first);
        }
    }

    /// Whether all readers are told by `known` to be ordered before, or are `who`; if not, a closer look may tell.
    #[inline]
    pub(super) fn over(&self, cell: &Cell, known: &[u32], who: Thread) -> bool {
        let over = |warp: usize, reads: &Reads| {
            reads.hi <= known[warp] || (warp == who.row() && (reads.latest | reads.older) == who.bit())
        };
        if cell.reader < MANY {
            over(usize::from(cell.reader), &cell.reads)
        } else {
            !self.live(cell) || self.row(cell).iter().enumerate().all(|(warp, reads)| over(warp, reads))
        }
    }

    /// A thread that read a cell, if that is not ordered before what `who` does next.
    pub(super) fn unordered(&self, cell: &Cell, clocks: &Clocks, who: Thread) -> Option<Thread> {
        let of = |(warp, reads): (usize, &Reads)| {
            let lane = reads.unordered(clocks, who, warp)?;
            Some(Thread { warp: warp.try_into().expect("few warps"), lane })
        };
        if cell.reader < MANY {
            of((usize::from(cell.reader), &cell.reads))
        } else if self.live(cell) {
            self.row(cell).iter().enumerate().find_map(of)
        } else {
            None
        }
    }

    /// Gives a cell, made as a copy of another, a row of its own.
    pub(super) fn copy_row(&mut self, cell: &mut Cell) {
        if self.live(cell) {
            let old = cell.reads.hi as usize;
            let first = self.take();
            self.records.copy_within(old..old + self.warps, first);
            self.set(cell, first);
        }
    }

    /// Takes back the row of a cell that is overwritten.
    #[inline]
    pub(super) fn release(&mut self, cell: &Cell) {
        if self.live(cell) {
            self.free.push(cell.reads.hi);
        }
    }

    #[inline]
    fn live(&self, cell: &Cell) -> bool {
        cell.reader == MANY && cell.reads.latest == self.epoch
    }

    fn row(&self, cell: &Cell) -> &[Reads] {
        let first = cell.reads.hi as usize;
        &self.records[first..first + self.warps]
    }

    fn set(&self, cell: &mut Cell, first: usize) {
        cell.reader = MANY;
        let first = u32::try_from(first).expect("few records for each byte of shared memory");
        cell.reads = Reads { hi: first, latest: self.epoch, ..Reads::NONE };
    }

    /// A row of nothing.
    fn take(&mut self) -> usize {
        let Some(first) = self.free.pop() else {
            let first = self.records.len();
            self.records.resize(first + self.warps, Reads::NONE);
            return first;
        };
        let first = first as usize;
        self.records[first..first + self.warps].fill(Reads::NONE);
        first
    }
}
