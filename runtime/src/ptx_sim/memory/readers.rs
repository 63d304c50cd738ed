//! Reads of shared memory that end only when their group is waited for: bulk copies out of it, and tensor operands.

use super::clocks::{Clocks, Thread};
use super::shared::Shared;
use super::slow::At;
use crate::ptx_sim::fault::{FaultKind, Refusal};
use std::fmt;

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Agent {
    /// Copies of a thread.
    Copy(Thread),
    /// Tensor instructions of a warp.
    Tensor(u32),
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy(who) => write!(f, "bulk copy of {who}"),
            Self::Tensor(warp) => write!(f, "wgmma of warp {warp}"),
        }
    }
}

struct Groups {
    agent: Agent,
    committed: u32,
    /// Last group that reads anything.
    last: u32,
    /// When it had waited for each group, from the first.
    waited: Vec<u32>,
    /// For each word, the last group that reads it; 0 if none does.
    reads: Vec<u32>,
}

/// All such readers of a block.
#[derive(Default)]
pub(super) struct Readers {
    all: Vec<Groups>,
}

impl Readers {
    /// Number of a reader, for memory of so many words.
    pub(super) fn agent(&mut self, agent: Agent, words: usize) -> usize {
        self.all.iter().position(|groups| groups.agent == agent).unwrap_or_else(|| {
            self.all.push(Groups { agent, committed: 0, last: 0, waited: Vec::new(), reads: vec![0; words] });
            self.all.len() - 1
        })
    }

    /// Adds a read of a word to the open group.
    #[inline]
    pub(super) fn note(&mut self, agent: usize, word: usize) {
        let groups = &mut self.all[agent];
        groups.last = groups.committed + 1;
        groups.reads[word] = groups.last;
    }

    pub(super) fn commit(&mut self, agent: usize) {
        self.all[agent].committed += 1;
    }

    pub(super) fn wait(&mut self, agent: usize, pending: u32, now: u32) {
        let groups = &mut self.all[agent];
        let done = groups.committed.saturating_sub(pending) as usize;
        if groups.waited.len() < done {
            groups.waited.resize(done, now);
        }
    }
}

impl Groups {
    /// Whether the wait for a group is ordered before what `who` does next; none if there was no wait.
    fn ordered(&self, clocks: &Clocks, who: Thread, group: u32) -> Option<bool> {
        let time = *self.waited.get(group as usize - 1)?;
        Some(match self.agent {
            Agent::Copy(owner) => clocks.knows(who, owner.row(), owner.lane, time),
            // the lanes of a warp wait as one
            Agent::Tensor(warp) => clocks.knows_some_lane(who, warp as usize, time),
        })
    }
}

impl Shared {
    /// Checks that a word may be overwritten as far as asynchronous readers go.
    #[cold]
    pub(super) fn check_watched(&self, who: Thread, word: usize, at: &At) -> Result<(), Refusal> {
        for groups in &self.readers.all {
            let group = groups.reads[word];
            if group == 0 {
                continue;
            }
            let agent = groups.agent;
            let (kind, detail) = match groups.ordered(&self.clocks, who, group) {
                Some(true) => continue,
                Some(false) => {
                    let detail =
                        format!("no barrier orders the wait for the {agent} that reads it before it");
                    (FaultKind::Race, detail)
                }
                None => (FaultKind::Unfinished, format!("the {agent} that reads it was not waited for")),
            };
            return Err(Refusal { kind, detail: format!("{} by {who}: {detail}", self.describe(at)) });
        }
        Ok(())
    }

    /// Forgets asynchronous readers of a word that is overwritten after them.
    pub(super) fn unwatch(&mut self, word: usize) {
        for groups in &mut self.readers.all {
            groups.reads[word] = 0;
        }
    }

    /// Refuses the end of a block that leaves groups unwaited.
    pub(super) fn finish_readers(&self) -> Result<(), Refusal> {
        for groups in &self.readers.all {
            if groups.waited.len() < groups.last as usize {
                let detail = format!("{} was never waited for", groups.agent);
                return Err(Refusal { kind: FaultKind::Unfinished, detail });
            }
        }
        Ok(())
    }
}
