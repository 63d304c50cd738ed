//! `cp.async`: bytes that arrive in shared memory when the thread that asked for them waits.

use super::clocks::Thread;
use super::shadow::{Cell, Kind, small};
use super::shared::Shared;
use super::slow::At;
use crate::ptx_sim::fault::{FaultKind, Refusal};
use std::collections::VecDeque;

/// Words that a copy fills.
#[derive(Clone, Copy)]
struct Range {
    first: u32,
    words: u32,
}

/// Copies of one thread that it has not waited for.
#[derive(Default)]
struct Queue {
    /// Not committed.
    open: Vec<Range>,
    /// Committed groups, the oldest first.
    groups: VecDeque<Vec<Range>>,
    /// Emptied lists, to be used again.
    spare: Vec<Vec<Range>>,
}

/// Copies of all threads of a block.
pub(super) struct Copies {
    queues: Vec<Queue>,
}

impl Copies {
    pub(super) fn new(warps: usize) -> Self {
        Self { queues: (0..warps * 32).map(|_| Queue::default()).collect() }
    }

    fn of(&mut self, who: Thread) -> &mut Queue {
        &mut self.queues[who.row() * 32 + who.lane as usize]
    }
}

impl Copies {
    /// Words that copies of a thread are about to fill; they are not under way any more.
    pub(super) fn take_all(&mut self, who: Thread) -> Vec<usize> {
        let queue = self.of(who);
        let groups = queue.groups.iter_mut().flat_map(|group| group.drain(..));
        let ranges = groups.chain(queue.open.drain(..));
        ranges.flat_map(|range| (range.first..range.first + range.words).map(|word| word as usize)).collect()
    }
}

impl Shared {
    /// Copies 4, 8 or 16 bytes for a thread: `cp.async`. They are there for it after its wait, for others when that is
    /// ordered before what they do.
    pub fn async_copy(&mut self, who: Thread, address: u32, bytes: &[u8]) -> Result<(), Refusal> {
        let at = At { what: "cp.async", address, bytes: bytes.len() };
        self.check(&at)?;
        self.put(Kind::Copying, who, bytes, &at)?;
        let words = u32::try_from(bytes.len() / 4).expect("at most 16 bytes");
        self.copies.of(who).open.push(Range { first: address / 4, words });
        Ok(())
    }

    /// Ends a group of copies: `cp.async.commit_group`.
    pub fn async_commit(&mut self, who: Thread) {
        let queue = self.copies.of(who);
        let next = queue.spare.pop().unwrap_or_default();
        queue.groups.push_back(std::mem::replace(&mut queue.open, next));
    }

    /// Waits until at most so many of a thread's groups are under way: `cp.async.wait_group`.
    pub fn async_wait(&mut self, who: Thread, pending: u32) {
        let now = self.clocks.fresh(who.row());
        let queue = &mut self.copies.queues[who.row() * 32 + who.lane as usize];
        while queue.groups.len() > pending as usize {
            let mut group = queue.groups.pop_front().expect("there are more groups than none");
            for range in group.drain(..) {
                let first = range.first as usize;
                for word in &mut self.words[first..first + range.words as usize] {
                    word.cell.kind = Kind::Plain;
                    word.cell.time = now;
                }
            }
            queue.spare.push(group);
        }
    }

    /// Refuses an access to what a copy is about to fill.
    #[cold]
    pub(super) fn before_copy(&self, who: Thread, cell: &Cell, byte: usize, at: &At) -> Refusal {
        let owner = cell.by();
        let queue = &self.copies.queues[owner.row() * 32 + owner.lane as usize];
        let holds = |range: &Range| (range.first..range.first + range.words).any(|w| w as usize == byte / 4);
        let state = match queue.groups.iter().position(|group| group.iter().any(holds)) {
            Some(i) => {
                let newer = queue.groups.len() - 1 - i;
                format!("is under way: a wait that leaves {newer} groups or less must come first")
            }
            None => "was not committed".into(),
        };
        let detail =
            format!("{} by {who}: the `cp.async` by {owner} that fills it {state}", self.describe(at));
        Refusal { kind: FaultKind::Unfinished, detail }
    }

    /// Refuses the end of a block that leaves copies under way.
    pub(super) fn finish_copies(&self) -> Result<(), Refusal> {
        for (thread, queue) in self.copies.queues.iter().enumerate() {
            let Some(range) = queue.groups.iter().flatten().chain(&queue.open).next() else { continue };
            let thread = u32::try_from(thread).expect("few threads");
            let owner = Thread { warp: thread / 32, lane: thread % 32 };
            let at = At { what: "cp.async", address: range.first * 4, bytes: range.words as usize * 4 };
            debug_assert_eq!(self.words[range.first as usize].cell.writer, small(owner.warp));
            let detail = format!("{} by {owner} was never waited for", self.describe(&at));
            return Err(Refusal { kind: FaultKind::Unfinished, detail });
        }
        Ok(())
    }
}
