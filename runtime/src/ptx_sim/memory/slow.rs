//! The closer look: words accessed in parts, by several warps, by asynchronous instructions, or wrongly.

use super::clocks::Thread;
use super::rows::NOBODY;
use super::shadow::{Cell, Kind};
use super::shared::{Shared, Word};
use crate::ptx_sim::fault::{FaultKind, Refusal};

/// An access, for its refusal.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) what: &'static str,
    pub(super) address: u32,
    pub(super) bytes: usize,
}

impl Shared {
    /// Reads whole words, of which some may have been read by the fast path already.
    #[cold]
    #[inline(never)]
    pub(super) fn read_words(
        &mut self,
        who: Thread,
        first: usize,
        count: usize,
        at: &At,
    ) -> Result<(), Refusal> {
        (first..first + count).try_for_each(|word| self.read_part(who, word, 0, 4, at))
    }

    /// Reads some bytes of a word.
    pub(super) fn read_part(
        &mut self,
        who: Thread,
        word: usize,
        start: usize,
        len: usize,
        at: &At,
    ) -> Result<(), Refusal> {
        let mut cell = self.words[word].cell;
        match cell.kind {
            Kind::Atomic => return self.read_atomic(who, cell.time, at),
            Kind::Plain | Kind::Bulk if len < 4 => cell = self.split(word),
            Kind::Split => {}
            _ => {
                self.read_cell(who, &mut cell, word, 0, at)?;
                self.words[word].cell = cell;
                return Ok(());
            }
        }
        let now = self.clocks.now(who.row());
        let known = self.clocks.common(who.row()).all();
        let parts = &mut self.overflow.split.get_mut(cell.time)[start..start + len];
        if parts.iter_mut().all(|part| part.read_fast(known, who, now, &mut self.overflow.rows)) {
            return Ok(());
        }
        for byte in start..start + len {
            let mut part = self.overflow.split.get(cell.time)[byte];
            self.read_cell(who, &mut part, word, byte, at)?;
            self.overflow.split.get_mut(cell.time)[byte] = part;
        }
        Ok(())
    }

    /// Checks a read of one cell and remembers it.
    fn read_cell(
        &mut self,
        who: Thread,
        cell: &mut Cell,
        word: usize,
        byte: usize,
        at: &At,
    ) -> Result<(), Refusal> {
        match cell.kind {
            Kind::Plain | Kind::Bulk => self.read_written(who, cell, at),
            Kind::Empty => Err(self.unwritten(at)),
            _ => Err(self.untouchable(who, cell, word * 4 + byte, at)),
        }
    }

    /// Checks a read of what a thread or a bulk copy wrote, and remembers it.
    pub(super) fn read_written(&mut self, who: Thread, cell: &mut Cell, at: &At) -> Result<(), Refusal> {
        if let Some(writer) = cell.unordered_writer(&self.clocks, who) {
            return Err(self.before_writer(who, cell, writer, at));
        }
        self.note(cell, who);
        Ok(())
    }

    /// Remembers a read of a cell.
    pub(super) fn note(&mut self, cell: &mut Cell, who: Thread) {
        let known = self.clocks.common(who.row()).all();
        self.overflow.rows.note(cell, known, who, self.clocks.now(who.row()));
    }

    /// Writes whole words from `first` on; the cell says how.
    #[cold]
    #[inline(never)]
    pub(super) fn put_slowly(
        &mut self,
        cell: Cell,
        first: usize,
        who: Thread,
        bytes: &[u8],
        at: &At,
    ) -> Result<(), Refusal> {
        for (word, chunk) in (first..).zip(bytes.chunks_exact(4)) {
            self.clear_for(who, word, at)?;
            let data = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
            self.words[word] = Word { data, cell };
        }
        Ok(())
    }

    /// Checks that `who` may overwrite a whole word, and forgets what is remembered of it beside its cell.
    pub(super) fn clear_for(&mut self, who: Thread, word: usize, at: &At) -> Result<(), Refusal> {
        let cell = self.words[word].cell;
        if cell.watched {
            self.check_watched(who, word, at)?;
            self.unwatch(word);
        }
        match cell.kind {
            Kind::Split => {
                for byte in 0..4 {
                    let part = self.overflow.split.get(cell.time)[byte];
                    self.check_write(who, &part, word, byte, at)?;
                    self.overflow.rows.release(&part);
                }
                self.overflow.split.give(cell.time);
            }
            Kind::Atomic => self.clear_atomic(who, cell.time, word, at)?,
            _ => {
                self.check_write(who, &cell, word, 0, at)?;
                self.overflow.rows.release(&cell);
            }
        }
        Ok(())
    }

    /// Writes some bytes of a word.
    pub(super) fn write_part(
        &mut self,
        who: Thread,
        word: usize,
        start: usize,
        bytes: &[u8],
        at: &At,
    ) -> Result<(), Refusal> {
        let new = Cell::written(Kind::Plain, who, self.clocks.now(who.row()));
        let mut cell = self.words[word].cell;
        if cell.watched {
            self.check_watched(who, word, at)?;
        }
        match cell.kind {
            Kind::Atomic => {
                self.clear_atomic(who, cell.time, word, at)?;
                cell = new;
                self.words[word].cell = cell;
            }
            Kind::Empty | Kind::Plain | Kind::Bulk => cell = self.split(word),
            Kind::Split => {}
            Kind::Copying | Kind::Barrier => return Err(self.untouchable(who, &cell, word * 4 + start, at)),
        }
        if cell.kind == Kind::Split {
            for byte in start..start + bytes.len() {
                let part = self.overflow.split.get(cell.time)[byte];
                if !part.free_for(self.clocks.common(who.row()).all(), who, &self.overflow.rows) {
                    self.check_write(who, &part, word, byte, at)?;
                }
                self.overflow.rows.release(&part);
                self.overflow.split.get_mut(cell.time)[byte] = new;
            }
            self.unsplit(word);
        }
        let mut data = self.words[word].data.to_le_bytes();
        data[start..start + bytes.len()].copy_from_slice(bytes);
        self.words[word].data = u32::from_le_bytes(data);
        Ok(())
    }

    /// Checks that `who` may overwrite one cell.
    pub(super) fn check_write(
        &self,
        who: Thread,
        cell: &Cell,
        word: usize,
        byte: usize,
        at: &At,
    ) -> Result<(), Refusal> {
        if matches!(cell.kind, Kind::Copying | Kind::Barrier) {
            return Err(self.untouchable(who, cell, word * 4 + byte, at));
        }
        if let Some(writer) = cell.unordered_writer(&self.clocks, who) {
            return Err(self.before_writer(who, cell, writer, at));
        }
        match self.overflow.rows.unordered(cell, &self.clocks, who) {
            Some(reader) => Err(self.race(who, at, "its read", reader)),
            None => Ok(()),
        }
    }

    /// Makes four cells of the bytes of a word.
    fn split(&mut self, word: usize) -> Cell {
        let cell = self.words[word].cell;
        let mut parts = [Cell { watched: false, ..cell }; 4];
        for (part, lane) in parts.iter_mut().zip(cell.lanes) {
            part.lanes = [lane; 4];
        }
        // a row of readers belongs to one cell: each byte gets a copy
        for part in &mut parts[1..] {
            self.overflow.rows.copy_row(part);
        }
        let place = self.overflow.split.take(|| parts);
        *self.overflow.split.get_mut(place) = parts;
        let split = Cell { kind: Kind::Split, watched: cell.watched, time: place, ..Cell::EMPTY };
        self.words[word].cell = split;
        split
    }

    /// Makes one cell of the bytes of a word again, if one instruction of a warp wrote all of them and nobody read any.
    fn unsplit(&mut self, word: usize) {
        let cell = self.words[word].cell;
        let parts = *self.overflow.split.get(cell.time);
        let alike = |part: &Cell| {
            part.kind == Kind::Plain
                && part.writer == parts[0].writer
                && part.time == parts[0].time
                && part.reader == NOBODY
        };
        if parts.iter().all(alike) {
            self.overflow.split.give(cell.time);
            let lanes = parts.map(|part| part.lanes[0]);
            self.words[word].cell = Cell { lanes, watched: cell.watched, ..parts[0] };
        }
    }

    /// Refuses an access that is not ordered after a write.
    #[cold]
    pub(super) fn before_writer(&self, who: Thread, cell: &Cell, writer: Thread, at: &At) -> Refusal {
        match cell.kind {
            Kind::Bulk => self.before_bulk(who, cell, at),
            _ => self.race(who, at, "its write", writer),
        }
    }

    #[cold]
    pub(super) fn race(&self, who: Thread, at: &At, did: &str, other: Thread) -> Refusal {
        let order = if who.warp == other.warp { "`bar.warp.sync`" } else { "barrier" };
        let detail = format!("{} by {who}: no {order} orders {did} by {other} before it", self.describe(at));
        Refusal { kind: FaultKind::Race, detail }
    }

    #[cold]
    pub(super) fn unwritten(&self, at: &At) -> Refusal {
        let start = at.address as usize;
        let missing: Vec<usize> = (0..at.bytes)
            .filter(|i| {
                let cell = &self.words[(start + i) / 4].cell;
                match cell.kind {
                    Kind::Split => self.overflow.split.get(cell.time)[(start + i) % 4].kind == Kind::Empty,
                    kind => kind == Kind::Empty,
                }
            })
            .collect();
        let list = super::text::byte_list(&missing, at.bytes);
        let detail = format!("{}, of which {list} never written", self.describe(at));
        Refusal { kind: FaultKind::Uninitialised, detail }
    }

    /// Refuses an access to what is under way, or to a barrier object.
    #[cold]
    pub(super) fn untouchable(&self, who: Thread, cell: &Cell, byte: usize, at: &At) -> Refusal {
        if cell.kind == Kind::Copying {
            return self.before_copy(who, cell, byte, at);
        }
        let detail = format!(
            "{} by {who} touches an mbarrier object, which only mbarrier instructions may",
            self.describe(at)
        );
        Refusal { kind: FaultKind::Invalid, detail }
    }
}
