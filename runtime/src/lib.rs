//! Where tensors live and how plans run.
//!
//! [`Backend`] is what every executor can do; [`CpuBackend`] is the host's processor. [`GraphBuilder`] records launches and
//! the sites that edits may name, [`Program`] gives a graph memory and replays it. [`weights`] maps checkpoints. This
//! crate knows no model.

mod backend;
mod cpu;
pub mod files;
pub mod gpu;
mod graph;
mod program;
mod ptx_sim;
pub mod safetensors_io;
pub mod selftest;
pub mod weights;

pub use backend::{Backend, Buffer, Contents, DeviceError, DeviceInfo, Span, Tensor};
pub use cpu::CpuBackend;
pub use gpu::WgpuBackend;
pub use graph::{Edit, Edits, Graph, GraphBuilder, GraphError, Insert, Operand, Step, Value, nearest};
pub use program::{Program, RunError};
