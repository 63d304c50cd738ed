//! Kernels with one planted fault each: the right text runs and gives what it should, the text with the fault is stopped
//! where the fault shows, or gives something else.

mod blocks;
mod lanes;
mod pipelines;
mod products;
mod streams;

use crate::ptx_sim::exec::{Block, Launch, Setup};
use crate::ptx_sim::fault::{Fault, FaultKind};
use crate::ptx_sim::memory::{Allocation, Global, Window};
use crate::ptx_sim::program::Program;
use std::sync::Arc;

/// A kernel of one input and one output, and what it is launched with.
struct Kernel {
    source: &'static str,
    grid: [u32; 3],
    x: Vec<u8>,
    /// What the output holds before; empty if nothing wrote it.
    before: Vec<u8>,
    expected: Vec<u8>,
    params: [u32; 4],
}

/// One difference to the right text, and how it is noticed.
struct Planted {
    what: &'static str,
    /// A piece of the text that is there once.
    right: &'static str,
    wrong: &'static str,
    noticed: Noticed,
}

enum Noticed {
    /// It is stopped: kind, the instruction, pieces of the detail.
    Stopped(FaultKind, &'static str, &'static [&'static str]),
    /// It runs, but what it writes is not what is expected.
    WrongResult,
}

use Noticed::{Stopped, WrongResult};

fn planted(what: &'static str, right: &'static str, wrong: &'static str, noticed: Noticed) -> Planted {
    Planted { what, right, wrong, noticed }
}

impl Kernel {
    /// The right text gives what is expected; every planted fault is noticed.
    fn check(&self, faults: &[Planted]) {
        match self.run(self.source) {
            Ok(y) => assert!(y == self.expected, "the right text gives {:?}", floats(&y)),
            Err(fault) => panic!("the right text is stopped: {fault}"),
        }
        let unnoticed: Vec<String> = faults
            .iter()
            .filter_map(|fault| self.misses(fault).map(|why| format!("{}: {why}", fault.what)))
            .collect();
        assert!(unnoticed.is_empty(), "\n{}", unnoticed.join("\n"));
    }

    /// How a planted fault was not noticed as it should be.
    fn misses(&self, Planted { right, wrong, noticed, .. }: &Planted) -> Option<String> {
        assert_eq!(self.source.matches(right).count(), 1, "`{right}` must be there once");
        let source = self.source.replace(right, wrong);
        let fault = match (self.run(&source), noticed) {
            (Ok(y), WrongResult) => return (y == self.expected).then(|| "the result is right".into()),
            (Ok(_), Stopped(..)) => return Some("not stopped".into()),
            (Err(fault), _) => fault,
        };
        let Stopped(kind, text, pieces) = noticed else { return Some(format!("stopped: {fault}")) };
        let line = squeeze(source.lines().nth(fault.line - 1).unwrap_or(""));
        let found = fault.refusal.kind == *kind
            && squeeze(&fault.text).contains(text)
            && line.contains(text)
            && pieces.iter().all(|piece| fault.refusal.detail.contains(piece));
        (!found).then(|| format!("{:?}: {fault}", fault.refusal.kind))
    }

    /// Runs all blocks, one after the other; the bytes of the output.
    fn run(&self, source: &str) -> Result<Vec<u8>, Box<Fault>> {
        let name = source.split(".entry ").nth(1).and_then(|rest| rest.split('(').next()).unwrap();
        let program = Program::new(source, name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let x = Arc::new(Allocation::new(self.x.len()));
        x.upload(0, &self.x);
        let y = Arc::new(Allocation::new(self.expected.len()));
        y.upload(0, &self.before);
        let window = |name: &str, allocation: &Arc<Allocation>, writable| Window {
            name: name.into(),
            allocation: Arc::clone(allocation),
            offset: 0,
            bytes: allocation.bytes(),
            writable,
        };
        let global = Global::new(vec![window("x", &x, false), window("y", &y, true)]);
        let mut params = vec![0; program.param_bytes];
        let block_params: Vec<u8> = self.params.iter().flat_map(|param| param.to_le_bytes()).collect();
        let pointers = [0, 1].map(|window| global.address(window).to_le_bytes());
        let values = [&pointers[0][..], &pointers[1], &block_params];
        assert_eq!(program.params.len(), values.len(), "{name}");
        for (placed, value) in program.params.iter().zip(values) {
            params[placed.offset..placed.offset + value.len()].copy_from_slice(value);
        }
        let launch = Launch {
            global,
            params,
            maps: Vec::new(),
            grid: self.grid,
            block: program.block.unwrap(),
            dynamic_shared: 0,
            shared: program.dynamic_shared_at,
            multiprocessors: 4,
        };
        let setup = Setup { program: &program, launch: &launch };
        let mut block = Block::new(&setup);
        for number in 0..self.grid.iter().map(|&extent| u64::from(extent)).product() {
            block.start(&setup, number);
            block.run(&setup)?;
        }
        let mut bytes = vec![0; self.expected.len()];
        y.download(0, &mut bytes);
        Ok(bytes)
    }
}

/// With single spaces.
fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

/// Small whole numbers of both signs, no two neighbours alike, so that all sums are exact.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| f32::from(i16::try_from((i * 37 + i / 7 * 11) % 61).unwrap()) - 30.0).collect()
}
