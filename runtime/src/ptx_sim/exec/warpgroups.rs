//! What the four warps of a warpgroup must agree on, and the registers they hand to one another.

use crate::ptx_sim::fault::{FaultKind, Refusal};
use std::collections::VecDeque;

/// Warps of a warpgroup.
const WARPS: usize = 4;

/// Steps that some warp of a warpgroup has done and others have yet to do.
#[derive(Clone, Debug, Default)]
struct Group {
    /// Steps, the oldest first.
    steps: VecDeque<[u64; 3]>,
    /// Steps before those.
    before: u64,
    /// Steps of each warp.
    done: [u64; WARPS],
}

/// The warpgroups of a block.
#[derive(Clone, Debug, Default)]
pub struct Warpgroups {
    groups: Vec<Group>,
    warps: u32,
    /// Registers of a thread of each warp; empty if the source does not say.
    registers: Vec<u32>,
    /// Registers of threads that no warp holds, in warps.
    free: u32,
}

impl Warpgroups {
    /// As at the start of a block of so many warps, with so many registers a thread if that is known.
    pub fn start(&mut self, warps: u32, registers: Option<u32>) {
        let count = warps as usize;
        self.warps = warps;
        self.groups.clear();
        self.groups.resize_with(count.div_ceil(WARPS), Group::default);
        self.registers.clear();
        if let Some(registers) = registers {
            self.registers.resize(count, registers);
        }
        self.free = 0;
    }

    /// A warp does its next step, which must be what the others of its warpgroup do as theirs.
    pub fn meet(&mut self, warp: u32, step: [u64; 3]) -> Result<(), Refusal> {
        let (number, place) = (warp as usize / WARPS, warp as usize % WARPS);
        if warp / 4 * 4 + 4 > self.warps {
            let detail = format!("warp {warp} of {} is in no whole warpgroup of 4 warps", self.warps);
            return Err(Refusal::new(FaultKind::Barrier, detail));
        }
        let group = &mut self.groups[number];
        let at = usize::try_from(group.done[place] - group.before).expect("few steps");
        match group.steps.get(at) {
            None => group.steps.push_back(step),
            Some(other) if *other == step => {}
            Some(_) => {
                let detail = format!(
                    "warp {warp} executes another `wgmma`, or one of other operands, than its warpgroup"
                );
                return Err(Refusal::new(FaultKind::Barrier, detail));
            }
        }
        group.done[place] += 1;
        if group.done.iter().all(|done| *done > group.before) {
            group.steps.pop_front();
            group.before += 1;
        }
        Ok(())
    }

    /// A warp asks for another number of registers a thread; whether it has them.
    pub fn resize(&mut self, warp: u32, count: u32, grows: bool) -> Result<bool, Refusal> {
        let Some(held) = self.registers.get_mut(warp as usize) else { return Ok(true) };
        if grows != (count > *held) && count != *held {
            let way = if grows { "inc" } else { "dec" };
            let detail = format!("`.{way}` from {held} registers to {count}");
            return Err(Refusal::new(FaultKind::Invalid, detail));
        }
        if grows {
            let more = count - *held;
            if self.free < more {
                return Ok(false);
            }
            self.free -= more;
        } else {
            self.free += *held - count;
        }
        *held = count;
        Ok(true)
    }

    /// Refuses the end of a block whose warps did not all do the same steps.
    pub fn finish(&self) -> Result<(), Refusal> {
        for (number, group) in self.groups.iter().enumerate() {
            if !group.steps.is_empty() {
                let detail = format!(
                    "the warps of warpgroup {number} executed {:?} warpgroup instructions, expected as many each",
                    group.done
                );
                return Err(Refusal::new(FaultKind::Barrier, detail));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Warpgroups;

    #[test]
    fn warps_do_the_same_in_their_own_time() {
        let mut groups = Warpgroups::default();
        groups.start(8, None);
        for step in 0..3 {
            groups.meet(4, [step, 7, 7]).unwrap();
        }
        for warp in 5..8 {
            groups.meet(warp, [0, 7, 7]).unwrap();
        }
        assert!(groups.meet(5, [1, 7, 8]).unwrap_err().to_string().contains("warp 5 executes another"));
        assert!(groups.finish().unwrap_err().to_string().contains("warpgroup 1 executed [3, 1, 1, 1]"));
    }

    #[test]
    fn part_of_a_warpgroup_is_none() {
        let mut groups = Warpgroups::default();
        groups.start(6, None);
        groups.meet(0, [0; 3]).unwrap();
        assert!(
            groups.meet(4, [0; 3]).unwrap_err().to_string().contains("warp 4 of 6 is in no whole warpgroup")
        );
    }

    #[test]
    fn registers_are_handed_on() {
        let mut groups = Warpgroups::default();
        groups.start(8, Some(128));
        assert!(!groups.resize(4, 152, true).unwrap());
        assert!(groups.resize(0, 104, false).unwrap());
        assert!(groups.resize(4, 152, true).unwrap());
        assert!(!groups.resize(5, 152, true).unwrap());
        assert_eq!(
            groups.resize(1, 136, false).unwrap_err().to_string(),
            "invalid: `.dec` from 128 registers to 136"
        );
    }
}
