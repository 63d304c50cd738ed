//! One warp: its place in the program, lane by lane, and the loop that executes it.

use super::machine::{Common, Flow, Launch, Machine, Stop};
use super::registers::{Place, Reg, Registers};
use crate::ptx_sim::fault::{FaultKind, Refusal};
use crate::ptx_sim::program::{Instruction, NEVER, Op, Program};

/// Lanes that go together, and where they wait for the others.
#[derive(Clone, Copy, Debug)]
struct Frame {
    at: usize,
    until: usize,
    lanes: u32,
}

/// Why a warp gave up its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Its turn was over.
    Slice,
    /// It asked for something that was not so yet.
    Poll,
    /// It waits for a barrier.
    Barrier,
    /// All of its lanes have exited.
    Done,
}

/// A warp of a block.
pub struct Warp {
    pub(super) number: u32,
    registers: Registers,
    frames: Vec<Frame>,
    present: u32,
    live: u32,
    /// The barrier it waits for, and the phase that has to pass.
    pub(super) waits: Option<(usize, u64)>,
}

/// Where a warp stopped for good.
pub struct Halt {
    /// Which instruction.
    pub at: usize,
    /// Which lane, where it was one.
    pub lane: u32,
    /// What was refused.
    pub refusal: Refusal,
}

impl Warp {
    pub fn new(program: &Program, number: u32) -> Self {
        Self {
            number,
            registers: Registers::new(program),
            frames: Vec::new(),
            present: 0,
            live: 0,
            waits: None,
        }
    }

    /// As before the first instruction of a block.
    pub fn start(&mut self, program: &Program, place: &Place) {
        self.registers.reset(program, place);
        let threads = place.threads.iter().product::<u32>() - self.number * 32;
        self.present = if threads >= 32 { u32::MAX } else { (1 << threads) - 1 };
        self.live = self.present;
        self.frames.clear();
        self.frames.push(Frame { at: 0, until: NEVER, lanes: self.live });
        self.waits = None;
    }

    pub fn is_done(&self) -> bool {
        self.live == 0
    }

    /// Where it stands.
    pub fn at(&self) -> usize {
        self.frames.last().map_or(0, |frame| frame.at)
    }

    /// Its first lane that is left.
    pub fn first_lane(&self) -> u32 {
        self.live.trailing_zeros() % 32
    }

    fn exit(&mut self, lanes: u32) {
        self.live &= !lanes;
        for frame in &mut self.frames {
            frame.lanes &= !lanes;
        }
        self.frames.retain(|frame| frame.lanes != 0);
    }

    /// Executes at most `budget` instructions.
    pub fn run(
        &mut self,
        program: &Program,
        launch: &Launch,
        common: &mut Common,
        budget: u32,
    ) -> Result<Pause, Halt> {
        let code = program.code.as_slice();
        for _ in 0..budget {
            let Some(frame) = self.frames.last().copied() else { return Ok(Pause::Done) };
            if frame.at == frame.until {
                self.frames.pop();
                continue;
            }
            let instruction = &code[frame.at];
            let halt = |lane: u32, refusal| Halt { at: frame.at, lane, refusal };
            let mut mask = frame.lanes;
            if let Some((predicate, wanted)) = instruction.guard {
                if let Some(undefined) = undefined(&self.registers, predicate.id, mask) {
                    return Err(halt(undefined, undefined_register("guard", program, predicate)));
                }
                let bits = self.registers.predicates[usize::from(predicate.row)];
                mask &= if wanted { bits } else { !bits };
            }
            common.counts.instructions += 1;
            common.counts.lane_instructions += u64::from(mask.count_ones());
            match &instruction.op {
                Op::Branch { target, uniform } => {
                    if *uniform && mask != 0 && mask != frame.lanes {
                        let detail = format!("lanes {mask:#010x} of {:#010x} jump", frame.lanes);
                        return Err(halt(mask.trailing_zeros(), Refusal::new(FaultKind::Invalid, detail)));
                    }
                    self.branch(frame, mask, *target, instruction.reconverge);
                    continue;
                }
                Op::Exit => {
                    if mask != 0 {
                        common.events += 1;
                        self.exit(mask);
                    }
                    // lanes that are left of this frame go on; where none are, the frame is gone
                    if mask != frame.lanes {
                        self.step(frame.at);
                    }
                    if self.live == 0 {
                        return Ok(Pause::Done);
                    }
                    continue;
                }
                Op::Lanes(apply) => {
                    if mask != 0 {
                        self.check_reads(program, instruction, mask).map_err(|(l, r)| halt(l, r))?;
                        self.touch(program, instruction).map_err(|r| halt(mask.trailing_zeros(), r))?;
                        apply(&mut self.registers, mask);
                        self.define(instruction, mask);
                        common.counts.alu += u64::from(mask.count_ones());
                    }
                }
                Op::Act(act) => {
                    if mask != 0 {
                        self.check_reads(program, instruction, mask).map_err(|(l, r)| halt(l, r))?;
                        self.touch(program, instruction).map_err(|r| halt(mask.trailing_zeros(), r))?;
                        let mut machine = Machine {
                            registers: &mut self.registers,
                            mask,
                            live: self.live,
                            present: self.present,
                            warp: self.number,
                            common,
                            launch,
                        };
                        let flow = act(&mut machine).map_err(|Stop { refusal, lane }| {
                            halt(lane.unwrap_or(mask.trailing_zeros()), refusal)
                        })?;
                        self.define(instruction, mask);
                        match flow {
                            Flow::Next => {}
                            Flow::Again => return Ok(Pause::Poll),
                            Flow::Poll => {
                                self.step(frame.at);
                                return Ok(Pause::Poll);
                            }
                            Flow::Wait(barrier) => {
                                self.step(frame.at);
                                self.waits = Some((barrier, common.barriers[barrier].phase));
                                return Ok(Pause::Barrier);
                            }
                        }
                    }
                }
            }
            self.step(frame.at);
        }
        Ok(Pause::Slice)
    }

    fn step(&mut self, at: usize) {
        if let Some(top) = self.frames.last_mut() {
            top.at = at + 1;
        }
    }

    fn branch(&mut self, frame: Frame, taken: u32, target: usize, meet: usize) {
        let stays = frame.lanes & !taken;
        let top = self.frames.last_mut().expect("a branch is executed by a frame");
        if taken == 0 {
            top.at = frame.at + 1;
            return;
        }
        if stays == 0 {
            top.at = target;
            return;
        }
        // this frame waits where both ways meet; a way that starts there is not walked
        top.at = meet;
        if meet == frame.until {
            self.frames.pop();
        }
        for (at, lanes) in [(frame.at + 1, stays), (target, taken)] {
            if at != meet {
                self.frames.push(Frame { at, until: meet, lanes });
            }
        }
    }

    #[inline]
    fn define(&mut self, instruction: &Instruction, mask: u32) {
        for id in &instruction.writes {
            self.registers.defined[usize::from(*id)] |= mask;
        }
    }

    /// Accesses registers that `wgmma` uses too.
    #[inline]
    fn touch(&mut self, program: &Program, instruction: &Instruction) -> Result<(), Refusal> {
        for &id in &instruction.touches {
            self.registers.in_flight.touch(id).map_err(|why| {
                let name = program.names.get(usize::from(id)).map_or("?", |name| name);
                Refusal::new(FaultKind::Unfinished, format!("`{name}`: {why}"))
            })?;
        }
        Ok(())
    }

    #[inline]
    fn check_reads(
        &self,
        program: &Program,
        instruction: &Instruction,
        mask: u32,
    ) -> Result<(), (u32, Refusal)> {
        for &id in &instruction.reads {
            if let Some(lane) = undefined(&self.registers, id, mask) {
                return Err((lane, undefined_register("operand", program, Reg { row: 0, id })));
            }
        }
        Ok(())
    }
}

/// The first lane of `mask` in which a register was never written.
#[inline]
fn undefined(registers: &Registers, id: u16, mask: u32) -> Option<u32> {
    let missing = mask & !registers.defined[usize::from(id)];
    (missing != 0).then(|| missing.trailing_zeros())
}

#[cold]
fn undefined_register(what: &str, program: &Program, reg: Reg) -> Refusal {
    let name = program.names.get(usize::from(reg.id)).map_or("?", |name| name);
    Refusal::new(FaultKind::UndefinedRegister, format!("{what} `{name}` was never written"))
}
