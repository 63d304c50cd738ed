//! What is remembered of a word of shared memory: who wrote it last, and who has read it since.

use super::clocks::{Clocks, Thread};

/// State of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    /// Nothing wrote it.
    Empty,
    /// Written by a thread.
    Plain,
    /// Written by a bulk copy; the writer is the barrier's entry, the time the number of phases completed with it.
    Bulk,
    /// A `cp.async` of the writer is under way.
    Copying,
    /// Touched by atomics; `time` numbers the [`AtomicCell`].
    Atomic,
    /// Accessed in parts; `time` numbers the four cells of its bytes.
    Split,
    /// Part of a barrier object.
    Barrier,
}

/// No reader since the last write.
pub(super) const NOBODY: u8 = u8::MAX;
/// Readers of several warps; `reads.hi` numbers the row of records.
pub(super) const MANY: u8 = u8::MAX - 1;

/// Reads by lanes of one warp.
#[derive(Clone, Copy, Default)]
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
    pub(super) fn one(time: u32, bit: u32) -> Self {
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

/// The record of a word, or of one byte of a word that is accessed in parts.
#[derive(Clone, Copy)]
pub(super) struct Cell {
    pub(super) kind: Kind,
    /// Whether tensor instructions or bulk copies have read the word.
    pub(super) watched: bool,
    /// Entry of the writer.
    pub(super) writer: u8,
    pub(super) reader: u8,
    /// Lane of the writer of each byte.
    pub(super) lanes: [u8; 4],
    /// When it was written.
    pub(super) time: u32,
    pub(super) reads: Reads,
}

impl Cell {
    pub(super) const EMPTY: Self = Self {
        kind: Kind::Empty,
        watched: false,
        writer: 0,
        reader: NOBODY,
        lanes: [0; 4],
        time: 0,
        reads: Reads { hi: 0, latest: 0, older: 0, lo: 0 },
    };

    /// Just written.
    #[inline]
    pub(super) fn written(kind: Kind, who: Thread, time: u32) -> Self {
        Self { kind, writer: small(who.warp), lanes: [small(who.lane); 4], time, ..Self::EMPTY }
    }

    /// The ordinary read of a whole word; false if it is not ordinary.
    #[inline]
    pub(super) fn read_fast(&mut self, known: &[u32], who: Thread, now: u32) -> bool {
        let readable = matches!(self.kind, Kind::Plain | Kind::Bulk);
        let ordered = self.time <= known[usize::from(self.writer)] || self.own(who);
        if !readable || !ordered {
            return false;
        }
        if self.reader == small(who.warp) {
            self.reads.add(now, who.bit(), known[who.row()]);
            return true;
        }
        if self.reader == NOBODY || (self.reader != MANY && self.reads.hi <= known[usize::from(self.reader)])
        {
            self.reader = small(who.warp);
            self.reads = Reads::one(now, who.bit());
            return true;
        }
        false
    }

    /// Whether `who` may overwrite the whole word without a closer look.
    #[inline]
    pub(super) fn free_for(&self, known: &[u32], who: Thread) -> bool {
        let ordinary = matches!(self.kind, Kind::Empty | Kind::Plain | Kind::Bulk) && !self.watched;
        let ordered = self.time <= known[usize::from(self.writer)] || self.own(who);
        ordinary && ordered && self.reader != MANY && (self.reader == NOBODY || self.read_before(known, who))
    }

    #[inline]
    fn read_before(&self, known: &[u32], who: Thread) -> bool {
        self.reads.hi <= known[usize::from(self.reader)]
            || (self.reader == small(who.warp) && (self.reads.latest | self.reads.older) == who.bit())
    }

    /// Whether the thread itself wrote all of it.
    #[inline]
    fn own(&self, who: Thread) -> bool {
        self.writer == small(who.warp) && self.lanes == [small(who.lane); 4]
    }

    /// The writer as a thread, if its write is not ordered before what `who` does next.
    pub(super) fn unordered_writer(&self, clocks: &Clocks, who: Thread) -> Option<Thread> {
        let entry = usize::from(self.writer);
        let late = |lane: &&u8| !clocks.knows(who, entry, u32::from(**lane), self.time);
        let lane = self.lanes.iter().find(late)?;
        Some(Thread { warp: u32::from(self.writer), lane: u32::from(*lane) })
    }

    pub(super) fn unread(&self) -> bool {
        self.reader == NOBODY
    }

    /// The writer of its first byte.
    pub(super) fn by(&self) -> Thread {
        Thread { warp: u32::from(self.writer), lane: u32::from(self.lanes[0]) }
    }
}

/// A word that atomics touch: what was before them, and them.
#[derive(Clone, Copy)]
pub(super) struct AtomicCell {
    /// The last ordinary write, and ordinary reads since.
    pub(super) plain: Cell,
    /// Atomics since, as readers.
    pub(super) atomics: Cell,
}

/// Records that do not fit in a cell.
pub(super) struct Overflow {
    warps: usize,
    /// Rows of one record a warp.
    rows: Pool<Vec<Reads>>,
    pub(super) split: Pool<[Cell; 4]>,
    pub(super) atomic: Pool<AtomicCell>,
}

impl Overflow {
    pub(super) fn new(warps: usize) -> Self {
        Self { warps, rows: Pool::new(), split: Pool::new(), atomic: Pool::new() }
    }

    /// Adds a read to a cell.
    pub(super) fn note(&mut self, cell: &mut Cell, clocks: &Clocks, who: Thread, now: u32) {
        let known = clocks.common(who.row()).all();
        let (warp, bit) = (small(who.warp), who.bit());
        match cell.reader {
            MANY => self.rows.get_mut(cell.reads.hi)[who.row()].add(now, bit, known[who.row()]),
            reader if reader == warp => cell.reads.add(now, bit, known[who.row()]),
            reader if reader != NOBODY && cell.reads.hi > known[usize::from(reader)] => {
                let warps = self.warps;
                let row = self.rows.take(|| vec![Reads::default(); warps]);
                let records = self.rows.get_mut(row);
                records.fill(Reads::default());
                records[usize::from(reader)] = cell.reads;
                records[who.row()] = Reads::one(now, bit);
                cell.reader = MANY;
                cell.reads = Reads { hi: row, ..Reads::default() };
            }
            _ => {
                cell.reader = warp;
                cell.reads = Reads::one(now, bit);
            }
        }
    }

    /// A thread that read a cell, if that is not ordered before what `who` does next.
    pub(super) fn unordered_reader(&self, cell: &Cell, clocks: &Clocks, who: Thread) -> Option<Thread> {
        let of = |warp: usize, reads: &Reads| {
            let lane = reads.unordered(clocks, who, warp)?;
            Some(Thread { warp: warp.try_into().expect("few warps"), lane })
        };
        match cell.reader {
            NOBODY => None,
            MANY => {
                let row = self.rows.get(cell.reads.hi);
                row.iter().enumerate().find_map(|(warp, reads)| of(warp, reads))
            }
            reader => of(usize::from(reader), &cell.reads),
        }
    }

    /// Gives a cell, made as a copy of another, readers of its own.
    pub(super) fn copy_row(&mut self, cell: &mut Cell) {
        if cell.reader == MANY {
            let records = self.rows.get(cell.reads.hi).clone();
            let row = self.rows.take(Vec::new);
            *self.rows.get_mut(row) = records;
            cell.reads.hi = row;
        }
    }

    /// Gives back what a cell holds here.
    pub(super) fn release(&mut self, cell: &Cell) {
        if cell.reader == MANY {
            self.rows.give(cell.reads.hi);
        }
    }
}

/// Values told by number, whose places are used again.
pub(super) struct Pool<T> {
    values: Vec<T>,
    free: Vec<u32>,
}

impl<T> Pool<T> {
    fn new() -> Self {
        Self { values: Vec::new(), free: Vec::new() }
    }

    /// A free place; its value is an old one, or made new.
    pub(super) fn take(&mut self, make: impl FnOnce() -> T) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.values.push(make());
            u32::try_from(self.values.len() - 1).expect("fewer places than bytes of shared memory")
        })
    }

    pub(super) fn give(&mut self, place: u32) {
        self.free.push(place);
    }

    #[inline]
    pub(super) fn get(&self, place: u32) -> &T {
        &self.values[place as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: u32) -> &mut T {
        &mut self.values[place as usize]
    }
}

/// A warp or lane as it is kept in cells.
#[inline]
pub(super) fn small(n: u32) -> u8 {
    debug_assert!(n < u32::from(MANY));
    #[allow(clippy::cast_possible_truncation)]
    {
        n as u8
    }
}
