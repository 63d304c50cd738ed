//! Sum of the code vectors that residual vector quantisation chose.
//!
//! `y[r, d] = ((0 + codebooks[0, codes[r, 0], d]) + codebooks[1, codes[r, 1], d]) + ...`, in f32 and in this order, so
//! that every executor has the same bits (HF `modeling_encodec.py`, `EncodecResidualVectorQuantizer.decode`).
//!
//! A code past the last entry reads the last entry: no memory outside of the codebooks is touched. Whether codes are in
//! range is for the caller to check.

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

/// Invocations of a workgroup, one an element of y; `BLOCK` in the WGSL.
const BLOCK: u32 = 256;

/// Rows of a block in PTX: four for each of its four warps.
const PTX_ROWS: u32 = 16;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "rvq_decode_f32",
    slots: &[
        Slot::read("codes", DType::U32),
        Slot::read("codebooks", DType::F32),
        Slot::write("y", DType::F32),
    ],
    fields: fields![Params; rows, dim, stages, entries],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("rvq_decode.wgsl"), "rvq_decode_f32", [BLOCK, 1, 1], |params| {
        let p: Params = bytemuck::pod_read_unaligned(params);
        fold_groups((u64::from(p.rows) * u64::from(p.dim)).div_ceil(u64::from(BLOCK)))
    })],
    ptx: &[Ptx {
        registers: 56,
        ..Ptx::new(include_str!("rvq_decode_f32.ptx"), "rvq_decode_f32", [128, 1, 1], |params, _| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            [p.rows.div_ceil(PTX_ROWS), 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// Sum of chosen code vectors.
#[derive(Clone, Copy, Debug)]
pub struct RvqDecode;

impl RvqDecode {
    /// Plans the sum: codes u32 `[rows, stages]`, codebooks f32 `[stages, entries, dim]`, y f32 `[rows, dim]`.
    pub fn plan(&self, codes: &TensorDesc, codebooks: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[stages, entries, dim]) = (codebooks.dtype, codebooks.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "codebooks", codebooks, "F32 [stages, entries, dim]"));
        };
        if stages == 0 || entries == 0 {
            return Err(ShapeError::tensor(op, "codebooks", codebooks, "at least one stage and one entry"));
        }
        let (DType::U32, &[rows, code_stages]) = (codes.dtype, codes.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "codes", codes, "U32 [rows, stages]"));
        };
        if code_stages != stages {
            let expected = format!("U32 [{rows}, {stages}] (stages of codebooks)");
            return Err(ShapeError::tensor(op, "codes", codes, expected));
        }
        let y = TensorDesc::f32([rows, dim]);
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
                // codes, the entries they name, y
                bytes: (codes.bytes() + stages * rows.min(entries) * 4 * dim + y.bytes()) as u64,
                flops: (stages * y.elements()) as u64,
            },
            slots: vec![Some(codes.clone()), Some(codebooks.clone()), Some(y)],
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * stages, 0, 4 * dim],
            }],
        })
    }
}

impl Op for RvqDecode {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(codes), Some(codebooks)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "codes, codebooks"));
        };
        self.plan(codes, codebooks)
    }
}
