//! What the integration tests share: stored goldens, the weights behind them, and the one comparator.
//!
//! Nothing here but [`executors`] names a crate of this workspace: the other modules judge, so they share no code with what
//! they judge.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod checkpoint;
pub mod compare;
pub mod executors;
pub mod generation;
pub mod golden;
pub mod procedural;
pub mod sampling;
