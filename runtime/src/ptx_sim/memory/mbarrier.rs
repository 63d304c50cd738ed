//! Barrier objects in shared memory: arrivals, expected bytes, phases.

use super::clocks::{Known, Thread};
use super::shadow::{Cell, Kind, small};
use super::shared::{BARRIERS, Shared};
use super::slow::At;
use crate::ptx_sim::fault::{FaultKind, Refusal};

/// Most arrivals of a phase, and most bytes it may expect (PTX ISA, "Contents of the mbarrier object").
const LIMIT: i64 = (1 << 20) - 1;

/// Bytes of an object.
const SIZE: usize = 8;

/// One barrier object.
pub(super) struct Barrier {
    address: u32,
    /// Arrivals that complete a phase.
    count: u32,
    /// Arrivals that the current phase still waits for.
    pending: u32,
    /// Bytes that it still waits for; below zero when they came before they were expected.
    bytes: i64,
    /// Phases completed since the object was initialised.
    phase: u32,
    /// Phases completed by all objects that lay here.
    completed: u32,
    /// Whether some thread has seen the last completed phase.
    seen: bool,
    /// What the arrivals so far order before the end of the current phase.
    arrived: Known,
    /// What the last completed phase orders before those who see it.
    published: Known,
}

impl Shared {
    /// `mbarrier.init`.
    pub fn mbarrier_init(&mut self, who: Thread, address: u32, count: u32) -> Result<(), Refusal> {
        let at = At { what: "mbarrier.init", address, bytes: SIZE };
        self.check(&at)?;
        if count == 0 || i64::from(count) > LIMIT {
            let detail = format!("{} with {count} arrivals, expected 1 to {LIMIT}", self.describe(&at));
            return Err(Refusal { kind: FaultKind::Invalid, detail });
        }
        let first = (address / 4) as usize;
        if self.words[first].cell.kind == Kind::Barrier {
            let by = self.words[first].cell.by();
            let detail = format!("{} by {who}: it holds an object that {by} initialised", self.describe(&at));
            return Err(Refusal { kind: FaultKind::Invalid, detail });
        }
        self.clear_for(who, first, &at)?;
        self.clear_for(who, first + 1, &at)?;
        let slot = self.barriers.iter().position(|barrier| barrier.address == address);
        if slot.is_none() && self.barriers.len() == BARRIERS {
            let detail = format!("{}: more than {BARRIERS} mbarrier objects in a block", self.describe(&at));
            return Err(Refusal { kind: FaultKind::Unsupported, detail });
        }
        let slot = slot.unwrap_or(self.barriers.len());
        let completed = self.barriers.get(slot).map_or(0, |barrier| barrier.completed);
        let nothing = self.clocks.nothing();
        let fresh = Barrier {
            address,
            count,
            pending: count,
            bytes: 0,
            phase: 0,
            completed,
            seen: true,
            arrived: nothing.clone(),
            published: nothing,
        };
        match self.barriers.get_mut(slot) {
            Some(old) => *old = fresh,
            None => self.barriers.push(fresh),
        }
        for word in [first, first + 1] {
            self.words[word].data = u32::try_from(slot).expect("few objects");
            self.words[word].cell = Cell::written(Kind::Barrier, who, self.clocks.now(who.row()));
        }
        Ok(())
    }

    /// `mbarrier.inval`: the memory is free again, and holds nothing.
    pub fn mbarrier_inval(&mut self, who: Thread, address: u32) -> Result<(), Refusal> {
        self.object(who, "mbarrier.inval", address)?;
        let first = (address / 4) as usize;
        for word in [first, first + 1] {
            self.words[word].cell = Cell::written(Kind::Empty, who, self.clocks.now(who.row()));
        }
        Ok(())
    }

    /// `mbarrier.arrive`, which may expect bytes first. Gives the number of the phase that it arrives at.
    pub fn mbarrier_arrive(
        &mut self,
        who: Thread,
        address: u32,
        count: u32,
        expect_bytes: u32,
    ) -> Result<u64, Refusal> {
        let slot = self.object(who, "mbarrier.arrive", address)?;
        self.add_bytes("mbarrier.arrive", slot, i64::from(expect_bytes))?;
        self.clocks.release(who, &mut self.barriers[slot].arrived);
        self.arrive(who, slot, count)
    }

    /// `mbarrier.expect_tx`.
    pub fn mbarrier_expect(&mut self, who: Thread, address: u32, bytes: u32) -> Result<(), Refusal> {
        let slot = self.object(who, "mbarrier.expect_tx", address)?;
        self.add_bytes("mbarrier.expect_tx", slot, i64::from(bytes))
    }

    /// `mbarrier.test_wait.parity`: whether the phase of that parity is complete, which orders it before the thread.
    pub fn mbarrier_test(&mut self, who: Thread, address: u32, parity: bool) -> Result<bool, Refusal> {
        let slot = self.object(who, "mbarrier.test_wait", address)?;
        let complete = (self.barriers[slot].phase & 1 == 1) != parity;
        if complete {
            self.see(who, slot);
        }
        Ok(complete)
    }

    /// `mbarrier.test_wait` of a phase that [`mbarrier_arrive`](Self::mbarrier_arrive) gave.
    pub fn mbarrier_test_state(&mut self, who: Thread, address: u32, state: u64) -> Result<bool, Refusal> {
        let slot = self.object(who, "mbarrier.test_wait", address)?;
        let complete = u64::from(self.barriers[slot].phase) != state;
        if complete {
            self.see(who, slot);
        }
        Ok(complete)
    }

    /// `cp.async.mbarrier.arrive`: the copies that a thread has not waited for complete with the current phase.
    /// Without `noinc` the phase waits for one arrival more, which this is.
    pub fn async_arrive(&mut self, who: Thread, address: u32, noinc: bool) -> Result<(), Refusal> {
        let slot = self.object(who, "cp.async.mbarrier.arrive", address)?;
        let entry = self.entry(slot);
        let time = self.barriers[slot].completed + 1;
        for word in self.copies.take_all(who) {
            let cell = &mut self.words[word].cell;
            (cell.kind, cell.writer, cell.time) = (Kind::Bulk, entry, time);
        }
        if noinc { self.arrive(who, slot, 1).map(drop) } else { Ok(()) }
    }

    /// What an object waits for, for a deadlock.
    pub fn mbarrier_state(&self, address: u32) -> Option<String> {
        let barrier = self.barriers.iter().find(|barrier| barrier.address == address)?;
        let at = At { what: "mbarrier", address, bytes: SIZE };
        Some(format!(
            "{}: phase {} lacks {} of {} arrivals and {} bytes",
            self.describe(&at),
            barrier.phase,
            barrier.pending,
            barrier.count,
            barrier.bytes,
        ))
    }

    /// Number of the object at an address, if `who` may use it.
    pub(super) fn object(&self, who: Thread, what: &'static str, address: u32) -> Result<usize, Refusal> {
        let at = At { what, address, bytes: SIZE };
        self.check(&at)?;
        let word = &self.words[(address / 4) as usize];
        let slot = word.data as usize;
        let invalid = |why: &str| {
            let detail = format!("{} by {who}: {why}", self.describe(&at));
            Err(Refusal { kind: FaultKind::Invalid, detail })
        };
        if word.cell.kind != Kind::Barrier {
            return invalid("no mbarrier object was initialised there");
        }
        match word.cell.unordered_writer(&self.clocks, who) {
            Some(other) => Err(self.race(who, &at, "its mbarrier.init", other)),
            None => Ok(slot),
        }
    }

    /// Takes bytes that arrived off what the current phase waits for.
    pub(super) fn deliver(&mut self, slot: usize, bytes: usize) -> Result<(), Refusal> {
        let bytes = i64::try_from(bytes).expect("less than shared memory");
        self.add_bytes("bulk copy", slot, -bytes)?;
        self.complete(slot);
        Ok(())
    }

    /// The clock entry of an object.
    pub(super) fn entry(&self, slot: usize) -> u8 {
        small(u32::try_from(self.clocks.warps() + slot).expect("few objects"))
    }

    /// Phases that end with the current one.
    pub(super) fn next_phase(&self, slot: usize) -> u32 {
        self.barriers[slot].completed + 1
    }

    fn arrive(&mut self, who: Thread, slot: usize, count: u32) -> Result<u64, Refusal> {
        let Barrier { address, pending, count: of, phase, .. } = self.barriers[slot];
        if count == 0 || count > pending {
            let at = At { what: "mbarrier.arrive", address, bytes: SIZE };
            let detail = format!(
                "{} by {who}: {count} arrivals, but phase {phase} waits for {pending} more of {of}",
                self.describe(&at)
            );
            return Err(Refusal { kind: FaultKind::Invalid, detail });
        }
        self.barriers[slot].pending -= count;
        self.complete(slot);
        Ok(u64::from(phase))
    }

    fn add_bytes(&mut self, what: &'static str, slot: usize, bytes: i64) -> Result<(), Refusal> {
        let barrier = &mut self.barriers[slot];
        barrier.bytes += bytes;
        if barrier.bytes.abs() <= LIMIT {
            return Ok(());
        }
        let at = At { what, address: barrier.address, bytes: SIZE };
        let waits = barrier.bytes;
        let detail = format!(
            "{}: the phase would wait for {waits} bytes, at most {LIMIT} are possible",
            self.describe(&at)
        );
        Err(Refusal { kind: FaultKind::Invalid, detail })
    }

    /// Completes the phase of an object if nothing is missing.
    fn complete(&mut self, slot: usize) {
        let entry = usize::from(self.entry(slot));
        let barrier = &mut self.barriers[slot];
        if barrier.pending > 0 || barrier.bytes != 0 {
            return;
        }
        barrier.phase += 1;
        barrier.completed += 1;
        barrier.pending = barrier.count;
        barrier.seen = false;
        barrier.arrived.raise(entry, barrier.completed);
        barrier.published.clone_from(&barrier.arrived);
    }

    fn see(&mut self, who: Thread, slot: usize) {
        let entry = usize::from(self.entry(slot));
        let barrier = &mut self.barriers[slot];
        barrier.seen = true;
        self.clocks.acquire(who, (entry, barrier.completed), &barrier.published);
    }

    /// Refuses an access to what a bulk copy fills, by a thread that has not waited for it.
    #[cold]
    pub(super) fn before_bulk(&self, who: Thread, cell: &Cell, at: &At) -> Refusal {
        let barrier = &self.barriers[usize::from(cell.writer) - self.clocks.warps()];
        let state =
            if barrier.completed < cell.time { "not complete" } else { "complete, but not waited for" };
        let detail = format!(
            "{} by {who}: the copy that fills it completes with a phase of the mbarrier at {:#x} which is {state}",
            self.describe(at),
            barrier.address,
        );
        Refusal { kind: FaultKind::Unfinished, detail }
    }

    /// Refuses the end of a block at which an object waits for bytes, or bytes have come that nobody waited for.
    pub(super) fn finish_barriers(&self) -> Result<(), Refusal> {
        for (slot, barrier) in self.barriers.iter().enumerate() {
            let entry = self.entry(slot);
            let at = At { what: "mbarrier", address: barrier.address, bytes: SIZE };
            let refuse = |why: String| {
                let detail = format!("{}: {why}", self.describe(&at));
                Err(Refusal { kind: FaultKind::Unfinished, detail })
            };
            if barrier.bytes != 0 {
                return refuse(format!("phase {} still waits for {} bytes", barrier.phase, barrier.bytes));
            }
            let unseen = |cell: &Cell| {
                let delivered =
                    cell.time > barrier.completed || (cell.time == barrier.completed && !barrier.seen);
                cell.kind == Kind::Bulk && cell.writer == entry && delivered
            };
            if let Some(word) = self.words.iter().position(|word| unseen(&word.cell)) {
                return refuse(format!("nobody waited for the copy that filled {:#x}", word * 4));
            }
        }
        Ok(())
    }
}
