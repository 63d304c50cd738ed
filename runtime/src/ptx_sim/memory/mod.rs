//! Memory as kernels see it, with every access checked.
//!
//! [`Global`] is what a launch may touch of the device's memory, [`Shared`] the memory of one block with the order of all
//! accesses to it. Neither knows instructions: the executor says who touches what.

mod allocation;
mod atomic;
mod clocks;
mod global;
mod mbarrier;
mod pending;
mod proxy;
mod readers;
mod rows;
mod shadow;
mod shared;
mod slow;
#[cfg(test)]
mod tests;
mod text;

pub use allocation::Allocation;
pub use clocks::Thread;
pub use global::{Global, Window};
pub use shared::Shared;
