//! One block: its warps take turns.

use super::machine::{Barrier, Common, Launch};
use super::registers::Place;
use super::warp::{Halt, Pause, Warp};
use super::warpgroups::Warpgroups;
use crate::ptx_sim::counts::Counts;
use crate::ptx_sim::fault::{Fault, FaultKind, Refusal};
use crate::ptx_sim::memory::Shared;
use crate::ptx_sim::program::Program;

/// Instructions of a turn.
const SLICE: u32 = 512;

/// Rounds in which every warp only asks whether something is so, and nothing ever happens.
const IDLE_ROUNDS: u32 = 1000;

/// Instructions in which nothing happens that anyone could wait for.
const IDLE_INSTRUCTIONS: u64 = 1 << 28;

/// What all blocks of a launch run.
#[derive(Clone, Copy)]
pub struct Setup<'l> {
    /// The program.
    pub program: &'l Program,
    /// Memory, parameters, geometry.
    pub launch: &'l Launch,
}

/// A block.
pub struct Block {
    id: [u32; 3],
    warps: Vec<Warp>,
    common: Common,
}

/// Whether a block, or several, will ever end.
#[derive(Default)]
pub struct Patience {
    events: u64,
    idle_rounds: u32,
    idle_since: u64,
}

/// What a round of turns came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// All warps have exited.
    Done,
    /// Some warp did something.
    Ran,
    /// Every warp that is not at a barrier asked whether something is so.
    Polled,
    /// Every warp that is left waits for a barrier.
    Stuck,
}

impl Block {
    /// A block that has not started.
    pub fn new(setup: &Setup<'_>) -> Self {
        let threads: u32 = setup.launch.block.iter().product();
        let warps = threads.div_ceil(32);
        Self {
            id: [0; 3],
            warps: (0..warps).map(|number| Warp::new(setup.program, number)).collect(),
            common: Common {
                shared: Shared::new(0, 0),
                barriers: std::array::from_fn(|_| Barrier::default()),
                counts: Counts::default(),
                events: 0,
                warps,
                warpgroups: Warpgroups::default(),
                hidden_barriers: Vec::new(),
                asked: Vec::new(),
            },
        }
    }

    /// As before the first instruction.
    pub fn start(&mut self, setup: &Setup<'_>, number: u64) {
        let launch = setup.launch;
        let [x, y, _] = launch.grid.map(u64::from);
        let part = |value: u64| u32::try_from(value).expect("an extent of the grid");
        self.id = [part(number % x), part(number / x % y), part(number / x / y)];
        let mut place = Place {
            block: self.id,
            grid: launch.grid,
            threads: launch.block,
            warp: 0,
            multiprocessor: (part(number % u64::from(launch.multiprocessors)), launch.multiprocessors),
            shared: (launch.dynamic_shared, u32::try_from(launch.shared).unwrap_or(u32::MAX)),
        };
        self.common.shared = Shared::new(launch.shared, self.warps.len());
        for (name, address, bytes) in &setup.program.shared {
            self.common.shared.label(name, *address, *bytes);
        }
        self.common.barriers = std::array::from_fn(|_| Barrier::default());
        self.common.warpgroups.start(self.common.warps, setup.program.max_registers);
        self.common.hidden_barriers.clear();
        self.common.asked.clear();
        for warp in &mut self.warps {
            place.warp = warp.number;
            warp.start(setup.program, &place);
        }
    }

    /// Executes the whole block.
    pub fn run(&mut self, setup: &Setup<'_>) -> Result<(), Box<Fault>> {
        let mut patience = Patience::default();
        loop {
            let round = self.round(setup)?;
            match round {
                Round::Done => return self.finish(setup),
                Round::Stuck => return Err(self.stuck(setup)),
                Round::Ran | Round::Polled => {}
            }
            if patience.is_over(round, self.events(), self.common.counts.instructions) {
                return Err(self.deadlock(setup));
            }
        }
    }

    /// Gives every warp a turn.
    pub fn round(&mut self, setup: &Setup<'_>) -> Result<Round, Box<Fault>> {
        let mut round = None;
        let mut left = false;
        for index in 0..self.warps.len() {
            let warp = &mut self.warps[index];
            if warp.is_done() {
                continue;
            }
            left = true;
            if let Some((barrier, phase)) = warp.waits {
                if self.common.barriers[barrier].phase == phase {
                    continue;
                }
                warp.waits = None;
            }
            let pause = warp.run(setup.program, setup.launch, &mut self.common, SLICE);
            match pause {
                Ok(Pause::Poll) => round = round.or(Some(Round::Polled)),
                Ok(Pause::Slice | Pause::Barrier | Pause::Done) => round = Some(Round::Ran),
                Err(Halt { at, lane, refusal }) => return Err(self.fault(setup, index, at, lane, refusal)),
            }
        }
        Ok(if left { round.unwrap_or(Round::Stuck) } else { Round::Done })
    }

    /// Checks what must not be left over.
    pub fn finish(&mut self, setup: &Setup<'_>) -> Result<(), Box<Fault>> {
        let end = setup.program.code.len() - 1;
        let warpgroups = self.common.warpgroups.finish();
        warpgroups
            .and_then(|()| self.common.shared.finish())
            .map_err(|refusal| self.fault(setup, 0, end, 0, refusal))
    }

    /// Grows whenever something happens that another warp or block may wait for.
    pub fn events(&self) -> u64 {
        self.common.events
    }

    /// Work done since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.common.counts)
    }

    /// Instructions since the counts were last taken.
    pub fn instructions(&self) -> u64 {
        self.common.counts.instructions
    }

    fn fault(&self, setup: &Setup<'_>, warp: usize, at: usize, lane: u32, refusal: Refusal) -> Box<Fault> {
        let instruction = &setup.program.code[at];
        Box::new(Fault {
            entry: setup.program.entry.clone(),
            line: instruction.line,
            text: instruction.text.to_string(),
            block: self.id,
            thread: self.warps[warp].number * 32 + lane,
            refusal,
        })
    }

    /// A fault of the first warp that is left, at its place; warps at barriers stand behind them.
    fn fault_of_first(&self, setup: &Setup<'_>, refusal: Refusal) -> Box<Fault> {
        let index = self.warps.iter().position(|warp| !warp.is_done()).unwrap_or(0);
        let warp = &self.warps[index];
        let at = warp.at() - usize::from(warp.waits.is_some());
        self.fault(setup, index, at, warp.first_lane(), refusal)
    }

    /// The fault of a block in which all that are left wait for barriers.
    pub fn stuck(&self, setup: &Setup<'_>) -> Box<Fault> {
        let mut places = Vec::new();
        for warp in &self.warps {
            places.push(match warp.waits {
                Some((barrier, _)) => {
                    let line = setup.program.code[warp.at() - 1].line;
                    format!("warp {} waits at barrier {barrier} on line {line}", warp.number)
                }
                None => format!("warp {} has exited", warp.number),
            });
        }
        self.fault_of_first(setup, Refusal::new(FaultKind::Barrier, places.join(", ")))
    }

    /// The fault of a block in which nothing happens any more.
    pub fn deadlock(&self, setup: &Setup<'_>) -> Box<Fault> {
        let place = |warp: &Warp| match (warp.is_done(), warp.waits) {
            (true, _) => format!("warp {} has exited", warp.number),
            (_, Some((barrier, _))) => format!("warp {} waits at barrier {barrier}", warp.number),
            _ => format!("warp {} is on line {}", warp.number, setup.program.code[warp.at()].line),
        };
        let mut places: Vec<String> = self.warps.iter().map(place).collect();
        let mut objects: Vec<u32> = self.common.asked.iter().map(|(_, object, _)| *object).collect();
        objects.sort_unstable();
        objects.dedup();
        places.extend(objects.into_iter().filter_map(|object| self.common.shared.mbarrier_state(object)));
        self.fault_of_first(setup, Refusal::new(FaultKind::Deadlock, places.join(", ")))
    }
}

impl Patience {
    /// Whether nothing will ever happen again, as far as one can tell.
    pub fn is_over(&mut self, round: Round, events: u64, instructions: u64) -> bool {
        if events != self.events {
            *self = Self { events, idle_rounds: 0, idle_since: instructions };
            return false;
        }
        self.idle_rounds = if round == Round::Polled { self.idle_rounds + 1 } else { 0 };
        self.idle_rounds > IDLE_ROUNDS || instructions - self.idle_since > IDLE_INSTRUCTIONS
    }
}
