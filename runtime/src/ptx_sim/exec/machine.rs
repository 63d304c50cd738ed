//! What an instruction may touch while it executes.

use super::registers::{LANES, Registers};
use super::warpgroups::Warpgroups;
use crate::ptx_sim::counts::Counts;
use crate::ptx_sim::fault::{FaultKind, Refusal};
use crate::ptx_sim::memory::{Global, Shared, Thread};
use auscult_kernels::TensorMap;

/// What becomes of a warp after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It goes on.
    Next,
    /// It goes on after other warps had a turn, because it waits for what they do.
    Poll,
    /// It does the same again after other warps had a turn.
    Again,
    /// It waits for this barrier.
    Wait(usize),
}

/// A refusal, and the lane it happened in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What was refused.
    pub refusal: Refusal,
    /// Which lane, where it was one.
    pub lane: Option<u32>,
}

impl Stop {
    /// A refusal of the warp as a whole.
    pub fn new(kind: FaultKind, detail: impl Into<String>) -> Self {
        Self { refusal: Refusal::new(kind, detail), lane: None }
    }

    /// A refusal of one lane.
    pub fn at(lane: usize, refusal: Refusal) -> Self {
        Self { refusal, lane: u32::try_from(lane).ok() }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, lane: None }
    }
}

/// Does an instruction that may fail.
pub type ActFn = Box<dyn Fn(&mut Machine<'_>) -> Result<Flow, Stop> + Send + Sync>;

/// A tensor map that a launch was given.
pub struct Map {
    /// Offset of its parameter.
    pub param: usize,
    /// What it describes.
    pub tensor: TensorMap,
    /// The window of the slot's memory, in [`Launch::global`].
    pub window: usize,
}

/// What all blocks of a launch share.
pub struct Launch {
    /// Device memory.
    pub global: Global,
    /// The parameter space.
    pub params: Vec<u8>,
    /// Tensor maps, whose bytes in `params` nobody may read.
    pub maps: Vec<Map>,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// Bytes of all shared memory, gaps included.
    pub shared: usize,
    /// Multiprocessors of the device.
    pub multiprocessors: u32,
}

/// A barrier of a block.
#[derive(Clone, Debug, Default)]
pub struct Barrier {
    /// Warps that arrived, in order.
    pub arrived: Vec<u32>,
    /// Warps among them that do not wait.
    pub passing: Vec<u32>,
    /// Warps that are expected; 0 while none arrived.
    pub expected: u32,
    /// How often it was completed.
    pub phase: u64,
}

/// What the warps of a block share.
pub struct Common {
    /// Shared memory.
    pub shared: Shared,
    /// `bar` 0 to 15.
    pub barriers: [Barrier; 16],
    /// Work done.
    pub counts: Counts,
    /// Grows whenever something happens that another warp may wait for.
    pub events: u64,
    /// Warps of the block.
    pub warps: u32,
    /// Its warpgroups.
    pub warpgroups: Warpgroups,
    /// Barrier objects that the copy engine does not see yet, and who made them.
    pub hidden_barriers: Vec<(u32, Thread)>,
    /// Lanes that asked whether a phase of an object is complete, and were told no: warp, object, lanes.
    pub asked: Vec<(u32, u32, u32)>,
}

impl Common {
    /// The copy engine sees the barrier objects that a thread has made.
    pub fn show_barriers(&mut self, who: Thread) {
        self.hidden_barriers.retain(|(_, maker)| *maker != who);
    }

    /// Whether a thread that asks for a phase may have an answer. Every wait is told no once, as it may be where a copy
    /// takes its time: so a source that does not look at the answer has not waited.
    pub fn may_answer(&mut self, who: Thread, object: u32) -> bool {
        let (asked, bit) = (&mut self.asked, 1 << who.lane);
        let Some((_, _, lanes)) = asked.iter_mut().find(|(w, o, _)| (*w, *o) == (who.warp, object)) else {
            asked.push((who.warp, object, bit));
            return false;
        };
        *lanes ^= bit;
        *lanes & bit == 0
    }

    /// A thread was told no by the object itself: the next time it may have an answer.
    pub fn ask_again(&mut self, who: Thread, object: u32) {
        if let Some((_, _, lanes)) = self.asked.iter_mut().find(|(w, o, _)| (*w, *o) == (who.warp, object)) {
            *lanes |= 1 << who.lane;
        }
    }
}

/// One warp at one instruction.
pub struct Machine<'m> {
    /// Its registers.
    pub registers: &'m mut Registers,
    /// Lanes that execute.
    pub mask: u32,
    /// Lanes that have not exited.
    pub live: u32,
    /// Lanes that there are.
    pub present: u32,
    /// Its number in the block.
    pub warp: u32,
    /// What it shares with the other warps.
    pub common: &'m mut Common,
    /// What all blocks share.
    pub launch: &'m Launch,
}

impl Machine<'_> {
    /// A lane of this warp.
    pub fn thread(&self, lane: usize) -> Thread {
        Thread { warp: self.warp, lane: u32::try_from(lane).expect("32 lanes") }
    }

    /// Lanes that execute, in order.
    pub fn lanes(&self) -> impl Iterator<Item = usize> + use<> {
        let mask = self.mask;
        (0..LANES).filter(move |lane| mask >> lane & 1 != 0)
    }

    /// Refuses to go on unless all lanes that are left execute together.
    pub fn converged(&self) -> Result<(), Stop> {
        if self.mask == self.live {
            return Ok(());
        }
        let detail = format!(
            "lanes {:#010x} of warp {} execute it, lanes {:#010x} are elsewhere",
            self.mask,
            self.warp,
            self.live & !self.mask
        );
        Err(Stop::new(FaultKind::Barrier, detail))
    }

    /// Refuses a member mask that is not exactly the lanes that execute, beside lanes that are no more.
    pub fn members(&self, members: u32) -> Result<(), Stop> {
        let missing = self.mask & !members;
        if missing != 0 {
            let detail = format!("lanes {missing:#010x} execute it, but the member mask is {members:#010x}");
            return Err(Stop::at(
                missing.trailing_zeros() as usize,
                Refusal::new(FaultKind::Invalid, detail),
            ));
        }
        let absent = members & self.live & !self.mask;
        if absent != 0 {
            let detail = format!("lanes {absent:#010x} of the member mask {members:#010x} are elsewhere");
            return Err(Stop::new(FaultKind::Barrier, detail));
        }
        Ok(())
    }
}
