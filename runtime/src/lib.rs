//! Where tensors live and how plans run.
//!
//! [`Backend`] is what every executor can do; [`CpuBackend`] is the host's processor, [`WgpuBackend`] and
//! [`CudaBackend`] reach graphics processors, [`PtxSim`] interprets the PTX of kernels. [`GraphBuilder`] records launches and
//! the sites that edits may name, [`Program`] gives a graph memory and replays it. [`weights`] maps checkpoints. This
//! crate knows no model.

mod backend;
mod cpu;
pub mod cuda;
mod download;
mod explain;
pub mod files;
pub mod gpu;
mod graph;
pub mod npy;
mod program;
pub mod ptx_sim;
pub mod safetensors_io;
pub mod selftest;
pub mod weights;

pub use backend::{
    Backend, Buffer, Contents, DeviceError, DeviceInfo, Launch, Recording, Span, Tensor, Timing,
};
pub use cpu::CpuBackend;
pub use cuda::CudaBackend;
pub use download::Download;
pub use explain::explain;
pub use gpu::WgpuBackend;
pub use graph::{Edit, Edits, Graph, GraphBuilder, GraphError, Insert, Operand, Place, Step, Value, nearest};
pub use program::{Program, RunError};
pub use ptx_sim::PtxSim;
