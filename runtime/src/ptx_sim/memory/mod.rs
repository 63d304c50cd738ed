//! Memory as kernels see it, with every access checked.

mod allocation;
mod clocks;
mod global;
mod shared;
mod text;

pub use allocation::Allocation;
pub use clocks::Thread;
pub use global::{Global, Window};
pub use shared::Shared;
