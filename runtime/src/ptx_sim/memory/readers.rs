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
    /// Tensor instructions of a warpgroup.
    Tensor(u32),
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy(who) => write!(f, "bulk copy of {who}"),
            Self::Tensor(group) => write!(f, "wgmma of warps {} to {}", group * 4, group * 4 + 3),
        }
    }
}

/// Groups of a thread, or of one warp of a warpgroup.
#[derive(Default)]
struct Member {
    committed: u32,
    /// Last group in which it read.
    read: u32,
    /// When it had waited for each group, from the first.
    waited: Vec<u32>,
}

struct Groups {
    agent: Agent,
    members: Vec<Member>,
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
            let members = match agent {
                Agent::Copy(_) => 1,
                Agent::Tensor(_) => 4,
            };
            let members = (0..members).map(|_| Member::default()).collect();
            self.all.push(Groups { agent, members, reads: vec![0; words] });
            self.all.len() - 1
        })
    }

    /// Adds a read of a word to the open group.
    #[inline]
    pub(super) fn note(&mut self, agent: usize, member: usize, word: usize) {
        let groups = &mut self.all[agent];
        let member = &mut groups.members[member];
        member.read = member.committed + 1;
        groups.reads[word] = groups.reads[word].max(member.read);
    }

    pub(super) fn commit(&mut self, agent: usize, member: usize) {
        self.all[agent].members[member].committed += 1;
    }

    pub(super) fn wait(&mut self, agent: usize, member: usize, pending: u32, now: u32) {
        let member = &mut self.all[agent].members[member];
        let done = member.committed.saturating_sub(pending) as usize;
        if member.waited.len() < done {
            member.waited.resize(done, now);
        }
    }
}

impl Groups {
    /// Whether a member has waited for a group.
    fn waited(&self, group: u32) -> bool {
        self.members.iter().any(|member| member.waited.len() >= group as usize)
    }

    /// Whether a wait for a group is ordered before what `who` does next.
    ///
    /// The four warps of a warpgroup execute its instructions as one, so the wait of any of them will do.
    fn ordered(&self, clocks: &Clocks, who: Thread, group: u32) -> bool {
        let time = |member: &Member| member.waited.get(group as usize - 1).copied();
        match self.agent {
            Agent::Copy(owner) => {
                time(&self.members[0]).is_some_and(|time| clocks.knows(who, owner.row(), owner.lane, time))
            }
            Agent::Tensor(warpgroup) => {
                (warpgroup as usize * 4..).zip(&self.members).any(|(warp, member)| {
                    time(member).is_some_and(|time| clocks.knows_some_lane(who, warp, time))
                })
            }
        }
    }
}

impl Shared {
    /// Checks that a word may be overwritten as far as asynchronous readers go.
    #[cold]
    pub(super) fn check_watched(&self, who: Thread, word: usize, at: &At) -> Result<(), Refusal> {
        for groups in &self.readers.all {
            let group = groups.reads[word];
            if group == 0 || groups.ordered(&self.clocks, who, group) {
                continue;
            }
            let (access, agent) = (self.describe(at), groups.agent);
            return Err(if groups.waited(group) {
                let detail = format!(
                    "{access} by {who}: no barrier orders the wait for the {agent} that reads it before it"
                );
                Refusal { kind: FaultKind::Race, detail }
            } else {
                let detail = format!("{access} by {who}: the {agent} that reads it was not waited for");
                Refusal { kind: FaultKind::Unfinished, detail }
            });
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
            if groups.members.iter().any(|member| member.waited.len() < member.read as usize) {
                let detail = format!("{} was never waited for", groups.agent);
                return Err(Refusal { kind: FaultKind::Unfinished, detail });
            }
        }
        Ok(())
    }
}
