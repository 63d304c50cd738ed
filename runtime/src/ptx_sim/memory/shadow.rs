//! What is remembered of a word of shared memory: who wrote it last, and who has read it since.

use super::clocks::{Clocks, Thread};
use super::rows::{MANY, NOBODY, Reads, Rows};

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
        reads: Reads::NONE,
    };

    /// Just written.
    #[inline]
    pub(super) fn written(kind: Kind, who: Thread, time: u32) -> Self {
        Self { kind, writer: small(who.warp), lanes: [small(who.lane); 4], time, ..Self::EMPTY }
    }

    /// Remembers an ordinary read; false if it is not ordinary.
    #[inline]
    pub(super) fn read_fast(&mut self, known: &[u32], who: Thread, now: u32, rows: &mut Rows) -> bool {
        let readable = matches!(self.kind, Kind::Plain | Kind::Bulk);
        let ordered = self.time <= known[usize::from(self.writer)] || self.own(who);
        if readable && ordered {
            rows.note(self, known, who, now);
        }
        readable && ordered
    }

    /// Whether `who` may overwrite it, without a closer look.
    #[inline]
    pub(super) fn free_for(&self, known: &[u32], who: Thread, rows: &Rows) -> bool {
        let ordinary = matches!(self.kind, Kind::Empty | Kind::Plain | Kind::Bulk) && !self.watched;
        let ordered = self.time <= known[usize::from(self.writer)] || self.own(who);
        ordinary && ordered && rows.over(self, known, who)
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
    pub(super) rows: Rows,
    pub(super) split: Pool<[Cell; 4]>,
    pub(super) atomic: Pool<AtomicCell>,
}

impl Overflow {
    pub(super) fn new(warps: usize) -> Self {
        Self { rows: Rows::new(warps), split: Pool::new(), atomic: Pool::new() }
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
