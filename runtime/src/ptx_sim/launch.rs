//! One launch: a program, the memory it may touch, and all of its blocks.

use super::counts::Counts;
use super::exec::{Block, Launch, Map, Patience, Round, Setup};
use super::fault::Fault;
use super::memory::{Allocation, Global, Window};
use super::program::Program;
use auscult_kernels::{Access, Plan, Ptx, PtxDevice};
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Shared memory that a source may declare (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
const STATIC_SHARED: usize = 48 << 10;

/// Threads that a multiprocessor holds at once.
const RESIDENT_THREADS: u64 = 2048;

/// The memory of a slot.
pub struct Bound {
    /// Where it lies.
    pub allocation: Arc<Allocation>,
    /// First byte.
    pub offset: usize,
    /// Length.
    pub bytes: usize,
}

/// What a launch is made from.
pub struct Request<'r> {
    /// The form.
    pub ptx: &'r Ptx,
    /// Its program.
    pub program: &'r Program,
    /// The plan.
    pub plan: &'r Plan,
    /// Memory of each slot.
    pub slots: Vec<Option<Bound>>,
    /// The device.
    pub device: PtxDevice,
}

impl Request<'_> {
    /// Runs the whole launch on the current thread pool.
    pub fn run(&self) -> Result<Counts, String> {
        let launch = self.launch()?;
        let setup = Setup { program: self.program, launch: &launch };
        let blocks: u64 = launch.grid.iter().map(|&extent| u64::from(extent)).product();
        let done = if self.ptx.cooperative {
            self.check_resident(blocks, launch.shared)?;
            together(&setup, blocks)
        } else {
            apart(&setup, blocks)
        };
        done.map_err(|fault| fault.to_string())
    }

    fn launch(&self) -> Result<Launch, String> {
        let Self { ptx, program, plan, device, .. } = self;
        let entry = ptx.entry;
        let grid = (ptx.grid)(&plan.params, device);
        if grid.contains(&0) || grid[0] > 1 << 31 || grid[1].max(grid[2]) > 65_535 {
            return Err(format!("{entry}: a grid of {grid:?}, expected 1 to 2147483647, 65535, 65535"));
        }
        if program.block != Some(ptx.block) {
            return Err(format!("{entry}: `.reqntid` is {:?}, expected {:?}", program.block, ptx.block));
        }
        if program.target != ptx.target.name() {
            return Err(format!("{entry}: `.target` is {}, expected {}", program.target, ptx.target.name()));
        }
        let dynamic_shared = (ptx.dynamic_shared)(&plan.params);
        let declared = program.static_shared;
        if declared > STATIC_SHARED {
            return Err(format!(
                "{entry}: declares {declared} bytes of shared memory, expected {STATIC_SHARED}"
            ));
        }
        let total = declared + dynamic_shared as usize;
        if total > device.shared_per_block as usize {
            let limit = device.shared_per_block;
            return Err(format!("{entry}: {total} bytes of shared memory, the device has {limit}"));
        }
        let (windows, window_of) = self.windows();
        let global = Global::new(windows);
        let mut params = vec![0; program.param_bytes];
        let mut maps = Vec::new();
        let tensors = (ptx.maps)(&plan.params);
        let mut expected: Vec<(String, Vec<u8>)> = Vec::new();
        for (slot, window) in plan.kernel.slots.iter().zip(&window_of) {
            // a slot left out is a null pointer
            let address = window.map_or(0, |window| global.address(window));
            expected.push((slot.name.to_string(), address.to_le_bytes().to_vec()));
        }
        expected.push(("params".into(), plan.params.clone()));
        if ptx.workspace.is_some() {
            let address = global.address(window_of.iter().flatten().count());
            expected.push(("workspace".into(), address.to_le_bytes().to_vec()));
        }
        let first_map = expected.len();
        for tensor in &tensors {
            expected.push((format!("{}_map", plan.kernel.slots[tensor.slot].name), vec![0; 128]));
        }
        if expected.len() != program.params.len() {
            let (found, expected) = (program.params.len(), expected.len());
            return Err(format!("{entry}: has {found} parameters, expected {expected}"));
        }
        for (i, ((name, bytes), placed)) in expected.iter().zip(&program.params).enumerate() {
            if *name != placed.param.name || bytes.len() != placed.param.bytes {
                return Err(format!(
                    "{entry}: parameter {i} is `{}` of {} bytes, expected `{name}` of {}",
                    placed.param.name,
                    placed.param.bytes,
                    bytes.len()
                ));
            }
            params[placed.offset..placed.offset + bytes.len()].copy_from_slice(bytes);
            if i >= first_map {
                let tensor = tensors[i - first_map].clone();
                let Some(window) = window_of[tensor.slot] else {
                    return Err(format!("{entry}: `{name}` is of a slot that is left out"));
                };
                maps.push(Map { param: placed.offset, tensor, window });
            }
        }
        Ok(Launch {
            global,
            params,
            maps,
            grid,
            block: ptx.block,
            dynamic_shared,
            shared: program.dynamic_shared_at + dynamic_shared as usize,
            multiprocessors: device.multiprocessors,
        })
    }

    /// What the launch may touch, and which window each slot has; behind them the workspace.
    fn windows(&self) -> (Vec<Window>, Vec<Option<usize>>) {
        let mut windows = Vec::new();
        let mut window_of = Vec::new();
        for (slot, bound) in self.plan.kernel.slots.iter().zip(&self.slots) {
            let Some(Bound { allocation, offset, bytes }) = bound else {
                window_of.push(None);
                continue;
            };
            if slot.access == Access::Write {
                // what was there before is nobody's to read
                allocation.forget(*offset, *bytes);
            }
            window_of.push(Some(windows.len()));
            windows.push(Window {
                name: slot.name.into(),
                allocation: Arc::clone(allocation),
                offset: *offset,
                bytes: *bytes,
                writable: slot.access != Access::Read,
            });
        }
        if let Some(workspace) = self.ptx.workspace {
            let bytes = workspace(&self.plan.params);
            let allocation = Allocation::new(bytes);
            allocation.upload(0, &vec![0; bytes]);
            let allocation = Arc::new(allocation);
            windows.push(Window { name: "workspace".into(), allocation, offset: 0, bytes, writable: true });
        }
        (windows, window_of)
    }

    /// Refuses blocks that wait for one another but cannot all be there.
    fn check_resident(&self, blocks: u64, shared: usize) -> Result<(), String> {
        let threads: u32 = self.ptx.block.iter().product();
        // 1 KiB of every block is the system's
        let per_multiprocessor = (u64::from(self.device.shared_per_block) + 1024) / (shared as u64 + 1024);
        let each = (RESIDENT_THREADS / u64::from(threads)).min(per_multiprocessor).min(32);
        let most = each * u64::from(self.device.multiprocessors);
        if blocks <= most {
            return Ok(());
        }
        Err(format!("{}: {blocks} blocks that wait for one another, the device holds {most}", self.ptx.entry))
    }
}

/// Blocks that do not know of one another, in parallel. Of several faults the one of the first block is reported.
fn apart(setup: &Setup<'_>, blocks: u64) -> Result<Counts, Box<Fault>> {
    let first_fault = AtomicU64::new(u64::MAX);
    let found: Mutex<Option<(u64, Box<Fault>)>> = Mutex::new(None);
    let counts = (0..blocks)
        .into_par_iter()
        .map_init(
            || Block::new(setup),
            |block, number| {
                if number > first_fault.load(Ordering::Relaxed) {
                    return Counts::default();
                }
                block.start(setup, number);
                if let Err(fault) = block.run(setup) {
                    first_fault.fetch_min(number, Ordering::Relaxed);
                    let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if found.as_ref().is_none_or(|(other, _)| number < *other) {
                        *found = Some((number, fault));
                    }
                }
                block.take_counts()
            },
        )
        .reduce(Counts::default, |mut sum, counts| {
            sum += counts;
            sum
        });
    match found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some((_, fault)) => Err(fault),
        None => Ok(counts),
    }
}

/// Blocks that wait for one another, in turns on one thread.
fn together(setup: &Setup<'_>, blocks: u64) -> Result<Counts, Box<Fault>> {
    let mut all: Vec<Block> = (0..blocks)
        .map(|number| {
            let mut block = Block::new(setup);
            block.start(setup, number);
            block
        })
        .collect();
    let mut patience = Patience::default();
    loop {
        let mut rounds = Vec::with_capacity(all.len());
        for block in &mut all {
            rounds.push(block.round(setup)?);
        }
        if let Some(stuck) = rounds.iter().position(|round| *round == Round::Stuck) {
            return Err(all[stuck].stuck(setup));
        }
        if rounds.iter().all(|round| *round == Round::Done) {
            break;
        }
        let round = if rounds.contains(&Round::Ran) { Round::Ran } else { Round::Polled };
        let events = all.iter().map(Block::events).sum();
        if patience.is_over(round, events, all.iter().map(Block::instructions).sum()) {
            let waiting = rounds.iter().position(|round| *round != Round::Done).unwrap_or(0);
            return Err(all[waiting].deadlock(setup));
        }
    }
    let mut counts = Counts::default();
    for block in &mut all {
        block.finish(setup)?;
        counts += block.take_counts();
    }
    Ok(counts)
}
