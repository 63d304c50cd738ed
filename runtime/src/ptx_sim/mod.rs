//! An interpreter of PTX behind [`Backend`](crate::Backend): every kernel's hand-written form runs on any machine, under rules stricter
//! than silicon's.
//!
//! [`PtxSim`] executes warps in lock step and blocks in parallel on the host's cores. It stops, with kernel, line, block, thread and
//! address, on what a device would let pass or answer with garbage: accesses out of bounds, reads of memory nothing wrote,
//! registers nothing wrote, races in shared memory, barriers that not all reach, asynchronous results used before their
//! wait. What it does not know is an error. It is a test instrument: nobody runs models on it.
//!
//! `parse` reads text, `program` makes it ready to run, `exec` runs it, `memory` is what it runs on, `launch` binds a
//! plan to it.

mod backend;
mod counts;
mod exec;
mod fault;
mod launch;
mod memory;
mod parse;
mod program;
pub mod tensor;
#[cfg(test)]
mod tests;

pub use backend::PtxSim;
pub use counts::Counts;
pub use fault::{Fault, FaultKind, Refusal, Space};
