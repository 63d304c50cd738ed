//! The async proxy: bulk copies into and out of shared memory, and the fence that shows it what threads wrote.

use super::clocks::{Clocks, Thread};
use super::readers::Agent;
use super::shadow::{Cell, Kind};
use super::shared::{Shared, Word};
use super::slow::At;
use crate::ptx_sim::fault::{FaultKind, Refusal};

/// Bulk copies are made of so many bytes, aligned to them.
const UNIT: usize = 16;

/// `fence.proxy.async` of each warp: when, and which lanes; in order.
pub(super) struct Fences {
    of_warp: Vec<Vec<(u32, u32)>>,
}

impl Fences {
    pub(super) fn new(warps: usize) -> Self {
        Self { of_warp: vec![Vec::new(); warps] }
    }

    fn add(&mut self, who: Thread, time: u32) {
        let fences = &mut self.of_warp[who.row()];
        match fences.last_mut() {
            Some(last) if last.0 == time => last.1 |= who.bit(),
            _ => fences.push((time, who.bit())),
        }
    }

    /// When a thread first executed the fence at a time or after it.
    fn after(&self, who: Thread, time: u32) -> Option<u32> {
        let fences = &self.of_warp[who.row()];
        let from = fences.partition_point(|fence| fence.0 < time);
        fences[from..].iter().find(|fence| fence.1 & who.bit() != 0).map(|fence| fence.0)
    }
}

/// On whose behalf the async proxy acts.
#[derive(Clone, Copy)]
pub(super) enum Behalf {
    /// Of a thread that asked for a copy.
    Thread(Thread),
    /// Of a warp that executes a tensor instruction: what one of its lanes does not know, it does not know.
    Warp(u32),
}

impl Behalf {
    pub(super) fn thread(self) -> Thread {
        match self {
            Self::Thread(who) => who,
            Self::Warp(warp) => Thread { warp, lane: 0 },
        }
    }

    fn knows(self, clocks: &Clocks, entry: usize, lane: u32, time: u32) -> bool {
        match self {
            Self::Thread(who) => clocks.knows(who, entry, lane, time),
            Self::Warp(warp) => clocks.common(warp as usize).holds(entry, lane, time),
        }
    }
}

impl Shared {
    /// `fence.proxy.async`: what the thread wrote before is seen by the async proxy after a synchronisation.
    pub fn fence_async(&mut self, who: Thread) {
        let now = self.clocks.fresh(who.row());
        self.fences.add(who, now);
    }

    /// A copy from global memory: its bytes are there for those who wait for the current phase of the barrier.
    pub fn bulk_write(
        &mut self,
        issuer: Thread,
        barrier: u32,
        address: u32,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let at = At { what: "bulk copy", address, bytes: bytes.len() };
        self.check_range(&at, UNIT, UNIT)?;
        let slot = self.object(issuer, "bulk copy's mbarrier", barrier)?;
        let (writer, time) = (self.entry(slot), self.next_phase(slot));
        let first = (address / 4) as usize;
        for (word, chunk) in (first..).zip(bytes.chunks_exact(4)) {
            self.each_cell(word, |shared, cell| match cell.kind {
                Kind::Plain => shared.check_fenced(Behalf::Thread(issuer), cell, &at),
                _ => Ok(()),
            })?;
            self.clear_for(issuer, word, &at)?;
            let data = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
            self.words[word] = Word { data, cell: Cell { kind: Kind::Bulk, writer, time, ..Cell::EMPTY } };
        }
        self.deliver(slot, bytes.len())
    }

    /// A copy to global memory: it reads until the thread has waited for its group.
    pub fn bulk_read(&mut self, issuer: Thread, address: u32, into: &mut [u8]) -> Result<(), Refusal> {
        let at = At { what: "bulk copy", address, bytes: into.len() };
        self.check_range(&at, UNIT, UNIT)?;
        self.read_async(Behalf::Thread(issuer), into, &at)
    }

    /// `cp.async.bulk.commit_group`.
    pub fn bulk_commit(&mut self, who: Thread) {
        let agent = self.readers.agent(Agent::Copy(who), self.words.len());
        self.readers.commit(agent);
    }

    /// `cp.async.bulk.wait_group.read`, and `.wait_group`, which waits for more than that.
    pub fn bulk_wait_read(&mut self, who: Thread, pending: u32) {
        let now = self.clocks.fresh(who.row());
        let agent = self.readers.agent(Agent::Copy(who), self.words.len());
        self.readers.wait(agent, pending, now);
    }

    /// Reads an operand of `wgmma` in the open group of a warp.
    pub fn wgmma_read(&mut self, warp: u32, address: u32, into: &mut [u8]) -> Result<(), Refusal> {
        let at = At { what: "wgmma read", address, bytes: into.len() };
        self.check_range(&at, 1, 1)?;
        self.read_async(Behalf::Warp(warp), into, &at)
    }

    /// `wgmma.commit_group`.
    pub fn wgmma_commit(&mut self, warp: u32) {
        let agent = self.readers.agent(Agent::Tensor(warp), self.words.len());
        self.readers.commit(agent);
    }

    /// `wgmma.wait_group`.
    pub fn wgmma_wait(&mut self, warp: u32, pending: u32) {
        let now = self.clocks.fresh(warp as usize);
        let agent = self.readers.agent(Agent::Tensor(warp), self.words.len());
        self.readers.wait(agent, pending, now);
    }

    fn read_async(&mut self, behalf: Behalf, into: &mut [u8], at: &At) -> Result<(), Refusal> {
        let start = at.address as usize;
        let words = start / 4..(start + into.len()).div_ceil(4);
        let agent = match behalf {
            Behalf::Thread(who) => Agent::Copy(who),
            Behalf::Warp(warp) => Agent::Tensor(warp),
        };
        let agent = self.readers.agent(agent, self.words.len());
        for word in words {
            let cell = &self.words[word].cell;
            let known = self.clocks.common(behalf.thread().row()).all();
            // delivered by a copy that the whole warp waited for: nothing more to ask
            if !(cell.kind == Kind::Bulk && cell.time <= known[usize::from(cell.writer)]) {
                self.each_cell(word, |shared, cell| shared.check_visible(behalf, cell, at))?;
            }
            self.words[word].cell.watched = true;
            self.readers.note(agent, word);
        }
        if start.is_multiple_of(4) && into.len().is_multiple_of(4) {
            for (chunk, word) in into.chunks_exact_mut(4).zip(&self.words[start / 4..]) {
                chunk.copy_from_slice(&word.data.to_le_bytes());
            }
        } else {
            for (i, byte) in (start..).zip(into) {
                *byte = self.words[i / 4].data.to_le_bytes()[i % 4];
            }
        }
        Ok(())
    }

    /// Calls a check with the cell of a word, or with those of its bytes.
    fn each_cell(
        &self,
        word: usize,
        check: impl Fn(&Self, &Cell) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let cell = self.words[word].cell;
        match cell.kind {
            Kind::Split => self.overflow.split.get(cell.time).iter().try_for_each(|part| check(self, part)),
            _ => check(self, &cell),
        }
    }

    /// Checks that the async proxy may read a cell.
    fn check_visible(&self, behalf: Behalf, cell: &Cell, at: &At) -> Result<(), Refusal> {
        match cell.kind {
            Kind::Plain => {
                self.check_ordered(behalf, cell, at)?;
                self.check_fenced(behalf, cell, at)
            }
            Kind::Bulk => self.check_ordered(behalf, cell, at),
            Kind::Atomic => {
                let detail = format!("{}: the async proxy on memory that atomics touch", self.describe(at));
                Err(Refusal { kind: FaultKind::Unsupported, detail })
            }
            Kind::Empty => Err(self.unwritten(at)),
            Kind::Copying | Kind::Barrier | Kind::Split => {
                Err(self.untouchable(behalf.thread(), cell, at.address as usize, at))
            }
        }
    }

    /// Checks that a write is ordered before what the async proxy does.
    fn check_ordered(&self, behalf: Behalf, cell: &Cell, at: &At) -> Result<(), Refusal> {
        let entry = usize::from(cell.writer);
        let unknown = |lane: &&u8| !behalf.knows(&self.clocks, entry, u32::from(**lane), cell.time);
        match cell.lanes.iter().find(unknown) {
            None => Ok(()),
            Some(&lane) => {
                let writer = Thread { warp: u32::from(cell.writer), lane: u32::from(lane) };
                Err(self.before_writer(behalf.thread(), cell, writer, at))
            }
        }
    }

    /// Checks that what threads wrote was fenced, and the fence ordered before what the async proxy does.
    fn check_fenced(&self, behalf: Behalf, cell: &Cell, at: &At) -> Result<(), Refusal> {
        for lane in cell.lanes {
            let writer = Thread { warp: u32::from(cell.writer), lane: u32::from(lane) };
            let fence = self.fences.after(writer, cell.time);
            if fence.is_some_and(|time| behalf.knows(&self.clocks, writer.row(), writer.lane, time)) {
                continue;
            }
            let when = if fence.is_some() {
                "its `fence.proxy.async` is not ordered"
            } else {
                "no `fence.proxy.async` of its own comes"
            };
            let detail = format!(
                "{} for {}: {writer} wrote it through the generic proxy, and {when} between its write and this",
                self.describe(at),
                behalf.thread(),
            );
            return Err(Refusal { kind: FaultKind::Race, detail });
        }
        Ok(())
    }

    /// Checks a range of any length for its place.
    fn check_range(&self, at: &At, align: usize, unit: usize) -> Result<(), Refusal> {
        if !at.bytes.is_multiple_of(unit) {
            let detail = format!("{}, expected a multiple of {unit} bytes", self.describe(at));
            return Err(Refusal { kind: FaultKind::Invalid, detail });
        }
        let start = at.address as usize;
        if start.is_multiple_of(align) && start + at.bytes <= self.bytes() {
            return Ok(());
        }
        Err(self.misplaced(at, align))
    }
}
