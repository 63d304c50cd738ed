//! Words that atomics touch.

use super::clocks::Thread;
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
            // an atomic reads too: a probe finds what was never written
            _ => {
                let reads = At { what: "atomic", ..*at };
                self.read_part(who, word, 0, 4, &reads)?;
                let plain = self.settled(who, word, at)?;
                let place = self.overflow.atomic.take(|| AtomicCell { plain, atomics: Cell::EMPTY });
                *self.overflow.atomic.get_mut(place) = AtomicCell { plain, atomics: Cell::EMPTY };
                self.words[word].cell =
                    Cell { kind: Kind::Atomic, watched: false, time: place, ..Cell::EMPTY };
                place
            }
        };
        let mut atomics = self.overflow.atomic.get(place).atomics;
        self.overflow.note(&mut atomics, &self.clocks, who, self.clocks.now(who.row()));
        self.overflow.atomic.get_mut(place).atomics = atomics;
        Ok(())
    }

    /// The last ordinary write of a word, after a check that `who` may overwrite it.
    fn settled(&mut self, who: Thread, word: usize, at: &At) -> Result<Cell, Refusal> {
        let cell = self.words[word].cell;
        let latest = match cell.kind {
            Kind::Split => *self.overflow.split.get(cell.time).last().expect("four bytes"),
            _ => cell,
        };
        self.clear_for(who, word, at)?;
        Ok(Cell { reader: super::shadow::NOBODY, reads: Default::default(), watched: false, ..latest })
    }

    /// Reads a word that atomics touch.
    pub(super) fn read_atomic(&mut self, who: Thread, place: u32, at: &At) -> Result<(), Refusal> {
        let AtomicCell { mut plain, atomics } = *self.overflow.atomic.get(place);
        if let Some(other) = self.overflow.unordered_reader(&atomics, &self.clocks, who) {
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
        if let Some(other) = self.overflow.unordered_reader(&atomics, &self.clocks, who) {
            return Err(self.race(who, at, "its atomic", other));
        }
        self.check_write(who, &plain, word, 0, at)?;
        self.overflow.release(&plain);
        self.overflow.release(&atomics);
        self.overflow.atomic.give(place);
        Ok(())
    }
}
