//! What a kernel is: definitions, references, PTX and WGSL text, plans. No GPU API, no I/O, no unsafe.
//!
//! Every op lives in a folder of its own under [`ops`]: its formula and parameter block, an f64 reference, a fast
//! host form where speed needs one, the PTX and WGSL text, and the cases it is tested and timed at. [`REGISTRY`] lists the
//! kernels; executors, parity tests and benches iterate it and know no kernel by name.
//!
//! [`Plan`] is the hinge between a kernel and an executor: shapes checked, output shapes inferred, parameters filled,
//! cost stated. An executor binds the slots in order, passes the parameters and launches.

mod case;
mod error;
mod gemm;
mod host;
mod kernel;
mod math;
pub mod ops;
pub mod philox;
mod plan;
mod tensor;

pub use case::{Case, Fill, Tolerance, noise};
pub use error::ShapeError;
pub use gemm::TILED_ROWS;
pub use host::{HostFn, HostSlot};
pub use kernel::{
    Access, Field, KernelInfo, Ptx, PtxDevice, Slot, Swizzle, Target, TensorMap, Wgsl, WgslDevice, WgslNeeds,
    fold_groups,
};
pub use ops::REGISTRY;
pub use plan::{Cost, Op, Piece, Plan, Split};
pub use tensor::{DType, TensorDesc};
