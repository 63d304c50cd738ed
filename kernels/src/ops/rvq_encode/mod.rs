//! Residual vector quantisation: at every stage the nearest entry of a codebook, and what is left of it for the next.
//!
//! ```text
//! residual_0[r] = x[r]
//! codes[r, s] = argmin over e of |residual_s[r] - codebooks[s, e]|^2, the smaller e of equals
//! residual_{s + 1}[r] = residual_s[r] - codebooks[s, codes[r, s]]     in f32
//! ```
//!
//! HF `modeling_encodec.py`, `EncodecEuclideanCodebook.quantize`, finds the same entry by |x|^2 - 2 x.e + |e|^2, which
//! cancels; where two entries are nearly as near, its rounding may choose the farther. The reference and the cpu form
//! here decide every such case in f64.
//!
//! A distance that is not a number is never the smallest; where all are, the code is 0. Whether latents are finite is
//! for the caller to check.

mod cases;
mod cpu;
mod reference;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Vectors.
    pub rows: u32,
    /// Length of a vector.
    pub dim: u32,
    /// Codebooks.
    pub stages: u32,
    /// Vectors of a codebook.
    pub entries: u32,
}

/// Longest vector whose residual fits into a workgroup's memory; `MOST_DIM` in the WGSL.
const MOST_DIM: usize = 2048;

/// Length of the vectors that the tiled PTX form takes: the one of every published codec.
const TILE_DIM: u32 = 128;
/// Rows of one of its blocks.
const TILE_ROWS: u32 = 64;
/// Bytes of its shared memory: residuals, and two tiles of 128 entries by 32 numbers, each row with four to spare.
const TILE_SHARED: u32 = 4 * (TILE_ROWS * (TILE_DIM + 4) + 2 * 128 * (32 + 4));

/// Blocks along x at most.
const PTX_GRID_X: u32 = i32::MAX.unsigned_abs();

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "rvq_encode_f32",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::read("codebooks", DType::F32),
        Slot::write("codes", DType::U32),
    ],
    fields: fields![Params; rows, dim, stages, entries],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("rvq_encode.wgsl"), "rvq_encode_f32", [256, 1, 1], |params| {
        fold_groups(u64::from(bytemuck::pod_read_unaligned::<Params>(params).rows))
    })],
    ptx: &[
        Ptx {
            takes: |params| bytemuck::pod_read_unaligned::<Params>(params).dim == TILE_DIM,
            dynamic_shared: |_| TILE_SHARED,
            registers: 112,
            ..Ptx::new(include_str!("rvq_encode_f32.ptx"), "rvq_encode_f32", [256, 1, 1], |params, _| {
                [bytemuck::pod_read_unaligned::<Params>(params).rows.div_ceil(TILE_ROWS), 1, 1]
            })
        },
        Ptx {
            registers: 40,
            static_shared: 8256,
            ..Ptx::new(
                include_str!("rvq_encode_any_f32.ptx"),
                "rvq_encode_any_f32",
                [256, 1, 1],
                |params, _| {
                    let rows = bytemuck::pod_read_unaligned::<Params>(params).rows;
                    [rows.min(PTX_GRID_X), rows.div_ceil(PTX_GRID_X), 1]
                },
            )
        },
    ],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// Nearest entries, stage by stage.
#[derive(Clone, Copy, Debug)]
pub struct RvqEncode;

impl RvqEncode {
    /// Plans the search: x f32 `[rows, dim]`, codebooks f32 `[stages, entries, dim]`, codes u32 `[rows, stages]`.
    ///
    /// Refuses shapes that do not fit, and vectors of more than 2048 numbers.
    pub fn plan(&self, x: &TensorDesc, codebooks: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[rows, dim]) = (x.dtype, x.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "x", x, "F32 [rows, dim]"));
        };
        if dim == 0 {
            return Err(ShapeError::tensor(op, "x", x, "at least one number in a row"));
        }
        if dim > MOST_DIM {
            let expected =
                format!("at most {MOST_DIM}, which is what the residual of a row may take on a GPU");
            return Err(ShapeError::value(op, "dim", dim, expected));
        }
        let (DType::F32, &[stages, entries, book_dim]) = (codebooks.dtype, codebooks.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "codebooks", codebooks, "F32 [stages, entries, dim]"));
        };
        if entries == 0 {
            return Err(ShapeError::tensor(op, "codebooks", codebooks, "at least one entry"));
        }
        if book_dim != dim {
            let expected = format!("F32 [{stages}, {entries}, {dim}] (last axis of x)");
            return Err(ShapeError::tensor(op, "codebooks", codebooks, expected));
        }
        let codes = TensorDesc::u32([rows, stages]);
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            dim: ShapeError::size(op, "dim", dim)?,
            stages: ShapeError::size(op, "stages", stages)?,
            entries: ShapeError::size(op, "entries", entries)?,
        };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (x.bytes() + codebooks.bytes() + codes.bytes()) as u64,
                // a subtraction, a multiplication and an addition for each number of each entry
                flops: 3 * (rows * codebooks.elements()) as u64,
            },
            slots: vec![Some(x.clone()), Some(codebooks.clone()), Some(codes)],
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * dim, 0, 4 * stages],
            }],
        })
    }
}

impl Op for RvqEncode {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(x), Some(codebooks)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "x, codebooks"));
        };
        self.plan(x, codebooks)
    }
}
