//! Registers of a warp that `wgmma` reads and writes by itself, and when the warp may touch them.
//!
//! PTX ISA, `wgmma.fence`: needed before the first `wgmma.mma_async`, and between any access of a register by its
//! thread and a `wgmma.mma_async` that uses it, except as accumulator of several of the same shape one after the other.
//! `wgmma.wait_group`: until it, accumulators and A in registers are out of bounds.

use super::registers::Reg;
use crate::ptx_sim::fault::{FaultKind, Refusal};
use std::fmt;

/// How a `wgmma` uses a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accumulator number `place` of a shape, which is told by its columns and its elements' bytes.
    Accumulator {
        /// Columns.
        n: u32,
        /// Bytes of an element of A.
        size: u32,
        /// Place in the list.
        place: usize,
    },
    /// Part of A.
    Left {
        /// Place in the list.
        place: usize,
    },
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accumulator { n, place, .. } => write!(f, "accumulator {place} of {n} columns"),
            Self::Left { place } => write!(f, "register {place} of A"),
        }
    }
}

/// What is known of one register.
#[derive(Clone, Copy)]
struct Use {
    /// Whether its thread may have touched it since the last fence.
    touched: bool,
    /// Group of the last `wgmma` that uses it; 0 is none.
    group: u32,
    role: Role,
}

/// Registers of a warp, by id.
pub struct InFlight {
    uses: Vec<Use>,
    /// Number of the group that the next `wgmma` joins.
    open: u32,
    /// Groups that have been waited for.
    done: u32,
}

impl InFlight {
    /// As before the first instruction of a warp.
    pub fn new(registers: usize) -> Self {
        let fresh = Use { touched: true, group: 0, role: Role::Left { place: 0 } };
        Self { uses: vec![fresh; registers], open: 1, done: 0 }
    }

    /// As before the first instruction of a warp.
    pub fn reset(&mut self) {
        *self = Self::new(self.uses.len());
    }

    /// An ordinary access to a register, or why it may not be.
    pub fn touch(&mut self, id: u16) -> Result<(), String> {
        let of = &mut self.uses[usize::from(id)];
        if of.group > self.done {
            return Err(if of.group < self.open {
                let newer = self.open - 1 - of.group;
                format!("a `wgmma` uses it: a wait that leaves {newer} groups or less must come first")
            } else {
                "a `wgmma` that was not committed uses it".into()
            });
        }
        of.touched = true;
        Ok(())
    }

    /// A `wgmma` takes a register.
    pub fn take(&mut self, reg: Reg, role: Role) -> Result<(), Refusal> {
        let done = self.done;
        let of = &mut self.uses[usize::from(reg.id)];
        if of.touched {
            return Err(unfinished(format!(
                "{role} was read or written, and no `wgmma.fence` came after that"
            )));
        }
        if of.group > done && of.role != role {
            return Err(unfinished(format!("{role} is in use: another `wgmma` has it as {}", of.role)));
        }
        (of.group, of.role) = (self.open, role);
        Ok(())
    }

    /// `wgmma.fence`.
    pub fn fence(&mut self) {
        self.uses.iter_mut().for_each(|of| of.touched = false);
    }

    /// `wgmma.commit_group`.
    pub fn commit(&mut self) {
        self.open += 1;
    }

    /// `wgmma.wait_group`.
    pub fn wait(&mut self, pending: u32) {
        self.done = self.done.max((self.open - 1).saturating_sub(pending));
    }
}

fn unfinished(detail: String) -> Refusal {
    Refusal::new(FaultKind::Unfinished, detail)
}

#[cfg(test)]
mod tests {
    use super::{InFlight, Reg, Role};

    const A: Role = Role::Left { place: 0 };

    fn sum(place: usize, n: u32) -> Role {
        Role::Accumulator { n, size: 2, place }
    }

    fn reg(id: u16) -> Reg {
        Reg { row: id, id }
    }

    #[test]
    fn a_fence_comes_before_the_first_use_and_after_every_access() {
        let mut registers = InFlight::new(4);
        assert!(
            registers.take(reg(1), A).unwrap_err().to_string().contains("no `wgmma.fence` came after that")
        );
        registers.fence();
        registers.take(reg(1), A).unwrap();
        registers.take(reg(2), sum(0, 64)).unwrap();
        registers.commit();
        registers.wait(0);
        // waited for and not touched: no other fence is needed
        registers.take(reg(2), sum(0, 64)).unwrap();
        registers.commit();
        registers.wait(0);
        registers.touch(2).unwrap();
        assert!(registers.take(reg(2), sum(0, 64)).is_err());
    }

    #[test]
    fn groups_are_waited_for_in_order() {
        let mut registers = InFlight::new(4);
        registers.fence();
        for id in 1..4 {
            registers.take(reg(id), sum(0, 64)).unwrap();
            registers.commit();
        }
        registers.wait(2);
        registers.touch(1).unwrap();
        assert!(registers.touch(2).unwrap_err().contains("a wait that leaves 1 groups or less"));
        registers.wait(1);
        registers.touch(2).unwrap();
        assert!(registers.touch(3).is_err());
        registers.take(reg(3), sum(0, 64)).unwrap();
        registers.wait(0);
        assert!(registers.touch(3).unwrap_err().contains("not committed"));
    }

    #[test]
    fn accumulators_go_on_only_as_the_same_accumulators() {
        let mut registers = InFlight::new(4);
        registers.fence();
        registers.take(reg(1), sum(0, 64)).unwrap();
        registers.take(reg(1), sum(0, 64)).unwrap();
        for other in [sum(0, 128), sum(1, 64), A] {
            assert!(registers.take(reg(1), other).unwrap_err().to_string().contains("is in use"), "{other}");
        }
    }
}
