//! Words that atomics touch.

use super::clocks::Thread;
use super::rows::NOBODY;
use super::shadow::{AtomicCell, Cell, Kind};
use super::shared::Shared;
use super::slow::At;
use crate::ptx_sim::fault::Refusal;

impl Shared {
    /// Checks an atomic of a whole word and remembers it.
    pub(super) fn touch_atomic(&mut self, who: Thread, word: usize, at: &At) -> Result<(), Refusal> {
        let cell = self.words[word].cell;
        let place = match cell.kind {
            Kind::Atomic => {
                let plain = self.overflow.atomic.get(cell.time).plain;
                self.check_write(who, &plain, word, 0, at)?;
                cell.time
            }
            _ => {
                let plain = self.before_atomics(who, word, at)?;
                let place = self.overflow.atomic.take(|| AtomicCell { plain, atomics: Cell::EMPTY });
                *self.overflow.atomic.get_mut(place) = AtomicCell { plain, atomics: Cell::EMPTY };
                self.words[word].cell =
                    Cell { kind: Kind::Atomic, watched: false, time: place, ..Cell::EMPTY };
                place
            }
        };
        let mut atomics = self.overflow.atomic.get(place).atomics;
        self.note(&mut atomics, who);
        self.overflow.atomic.get_mut(place).atomics = atomics;
        Ok(())
    }

    /// The last ordinary write of a word and the reads since, after a check that `who` may overwrite it.
    fn before_atomics(&mut self, who: Thread, word: usize, at: &At) -> Result<Cell, Refusal> {
        let cell = self.words[word].cell;
        if cell.watched {
            self.check_watched(who, word, at)?;
            self.unwatch(word);
        }
        if cell.kind != Kind::Split {
            if cell.kind == Kind::Empty {
                return Err(self.unwritten(at));
            }
            self.check_write(who, &cell, word, 0, at)?;
            return Ok(Cell { watched: false, ..cell });
        }
        // from here on the word is one thing: its last byte stands for all
        let parts = *self.overflow.split.get(cell.time);
        if parts.iter().any(|part| part.kind == Kind::Empty) {
            return Err(self.unwritten(at));
        }
        self.clear_for(who, word, at)?;
        Ok(Cell { reader: NOBODY, ..parts[3] })
    }

    /// Reads a word that atomics touch.
    pub(super) fn read_atomic(&mut self, who: Thread, place: u32, at: &At) -> Result<(), Refusal> {
        let AtomicCell { mut plain, atomics } = *self.overflow.atomic.get(place);
        if let Some(other) = self.overflow.rows.unordered(&atomics, &self.clocks, who) {
            return Err(self.race(who, at, "its atomic", other));
        }
        self.read_written(who, &mut plain, at)?;
        self.overflow.atomic.get_mut(place).plain = plain;
        Ok(())
    }

    /// Checks that `who` may overwrite a word that atomics touch, and forgets them.
    pub(super) fn clear_atomic(
        &mut self,
        who: Thread,
        place: u32,
        word: usize,
        at: &At,
    ) -> Result<(), Refusal> {
        let AtomicCell { plain, atomics } = *self.overflow.atomic.get(place);
        if let Some(other) = self.overflow.rows.unordered(&atomics, &self.clocks, who) {
            return Err(self.race(who, at, "its atomic", other));
        }
        self.check_write(who, &plain, word, 0, at)?;
        self.overflow.rows.release(&plain);
        self.overflow.rows.release(&atomics);
        self.overflow.atomic.give(place);
        Ok(())
    }
}
