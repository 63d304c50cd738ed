//! Runs a program on buffers, without a plan.

use crate::ptx_sim::counts::Counts;
use crate::ptx_sim::exec::{Block, Launch, Map, Setup};
use crate::ptx_sim::memory::{Allocation, Global, Window};
use crate::ptx_sim::program::Program;
use auscult_kernels::TensorMap;
use std::sync::Arc;

/// A program and what it is launched with.
#[derive(Clone)]
pub struct Run {
    text: String,
    entry: &'static str,
    grid: [u32; 3],
    /// Name, bytes or length, whether it may be written.
    buffers: Vec<(&'static str, Contents, bool)>,
    params: Vec<u8>,
    maps: Vec<(&'static str, TensorMap)>,
}

#[derive(Clone)]
enum Contents {
    Bytes(Vec<u8>),
    Unwritten(usize),
}

/// What a launch left.
#[derive(Debug)]
pub struct Done {
    /// All buffers, in order.
    pub buffers: Vec<Vec<u8>>,
    /// Work done.
    pub counts: Counts,
}

impl Run {
    pub fn new(text: &str, entry: &'static str) -> Self {
        let (buffers, maps) = (Vec::new(), Vec::new());
        Self { text: text.into(), entry, grid: [1; 3], buffers, params: Vec::new(), maps }
    }

    pub fn grid(self, grid: [u32; 3]) -> Self {
        Self { grid, ..self }
    }

    /// The next pointer: memory that is only read.
    pub fn read(mut self, name: &'static str, bytes: Vec<u8>) -> Self {
        self.buffers.push((name, Contents::Bytes(bytes), false));
        self
    }

    /// The next pointer: memory that is read and written.
    pub fn update(mut self, name: &'static str, bytes: Vec<u8>) -> Self {
        self.buffers.push((name, Contents::Bytes(bytes), true));
        self
    }

    /// The next pointer: memory that nothing has written.
    pub fn write(mut self, name: &'static str, bytes: usize) -> Self {
        self.buffers.push((name, Contents::Unwritten(bytes), true));
        self
    }

    pub fn params(mut self, words: &[u32]) -> Self {
        self.params = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self
    }

    pub fn map(mut self, name: &'static str, map: TensorMap) -> Self {
        self.maps.push((name, map));
        self
    }

    /// The same with one piece of text exchanged, which must be there.
    pub fn replace(&self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "{}: no `{from}`", self.entry);
        Self { text: self.text.replacen(from, to, 1), ..self.clone() }
    }

    pub fn run(&self) -> Result<Done, String> {
        let program = Program::new(&self.text, self.entry).map_err(|e| e.to_string())?;
        let allocations: Vec<Arc<Allocation>> = self
            .buffers
            .iter()
            .map(|(_, contents, _)| match contents {
                Contents::Unwritten(bytes) => Arc::new(Allocation::new(*bytes)),
                Contents::Bytes(bytes) => {
                    let allocation = Allocation::new(bytes.len());
                    allocation.upload(0, bytes);
                    Arc::new(allocation)
                }
            })
            .collect();
        let windows = self.buffers.iter().zip(&allocations).map(|((name, _, writable), allocation)| Window {
            name: (*name).into(),
            allocation: Arc::clone(allocation),
            offset: 0,
            bytes: allocation.bytes(),
            writable: *writable,
        });
        let global = Global::new(windows.collect());
        let (mut params, mut maps) = (vec![0; program.param_bytes], Vec::new());
        for placed in &program.params {
            let name = placed.param.name.as_str();
            if let Some((_, tensor)) = self.maps.iter().find(|(map, _)| *map == name) {
                maps.push(Map { param: placed.offset, tensor: tensor.clone(), window: tensor.slot });
                continue;
            }
            let bytes = match self.buffers.iter().position(|(buffer, _, _)| *buffer == name) {
                Some(window) => global.address(window).to_le_bytes().to_vec(),
                None => self.params.clone(),
            };
            assert_eq!(bytes.len(), placed.param.bytes, "{}: `{name}`", self.entry);
            params[placed.offset..][..bytes.len()].copy_from_slice(&bytes);
        }
        let launch = Launch {
            global,
            params,
            maps,
            grid: self.grid,
            block: program.block.expect("test programs say `.reqntid`"),
            dynamic_shared: 0,
            shared: program.dynamic_shared_at,
            multiprocessors: 4,
        };
        let setup = Setup { program: &program, launch: &launch };
        let mut counts = Counts::default();
        let mut block = Block::new(&setup);
        for number in 0..self.grid.iter().map(|extent| u64::from(*extent)).product() {
            block.start(&setup, number);
            block.run(&setup).map_err(|fault| fault.to_string())?;
            counts += block.take_counts();
        }
        let download = |allocation: Arc<Allocation>| {
            let mut bytes = vec![0; allocation.bytes()];
            allocation.download(0, &mut bytes);
            bytes
        };
        Ok(Done { buffers: allocations.into_iter().map(download).collect(), counts })
    }
}

/// A fault to plant: its name, what is replaced, by what, and what the refusal says.
pub type Planted = (&'static str, &'static str, &'static str, &'static str);

/// Plants faults one at a time; the interpreter must stop at each and say why.
pub fn faults(sound: &Run, planted: &[Planted]) {
    sound.run().unwrap();
    each_is_refused(planted, |from, to| sound.replace(from, to).run().map(drop));
}

/// Plants faults one at a time by `run`, which must refuse each and say why.
pub fn each_is_refused(planted: &[Planted], run: impl Fn(&str, &str) -> Result<(), String>) {
    let mut wrong = Vec::new();
    for (name, from, to, want) in planted {
        match run(from, to) {
            Err(refused) if refused.contains(want) => {}
            Err(refused) => wrong.push(format!("{name}: {refused}")),
            Ok(()) => wrong.push(format!("{name}: ran to its end")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The bytes as binary32.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

/// Assembles a program for sm_90a.
pub fn assemble(text: &str) {
    let file = tempfile::Builder::new().suffix(".ptx").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let done = std::process::Command::new("ptxas")
        .args(["-arch=sm_90a", "-o", "/dev/null"])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
}
