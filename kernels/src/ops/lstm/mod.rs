//! The recurrence of one LSTM layer over a sequence, from a zero state.
//!
//! ```text
//! i, f, g, o = gates[b, t] + weight h[b, t - 1]      rows 0..hidden of weight make i, the next hidden f, then g, then o
//! c[b, t] = sigmoid(f) * c[b, t - 1] + sigmoid(i) * tanh(g)
//! h[b, t] = sigmoid(o) * tanh(c[b, t])
//! y[b, t] = h[b, t] + residual[b, t]
//! ```
//!
//! Gate order and formula are those of `torch.nn.LSTM`. `gates` is W_ih x + b_ih + b_hh, a product over all steps at
//! once, which is not this op's business; `weight` is W_hh. The residual is added on the way out and never fed back:
//! the skip connection of HF `modeling_encodec.py`, `EncodecLSTM`, which goes around both of its layers.
//!
//! The result of a sequence does not depend on how many others are in the batch.

mod cases;
mod cpu;
mod reference;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, PtxDevice, ShapeError, Slot, Split, Target, TensorDesc, Wgsl,
    fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Independent sequences.
    pub batch: u32,
    /// Length of a sequence.
    pub steps: u32,
    /// Units.
    pub hidden: u32,
    /// 1 where residual is bound.
    pub has_residual: u32,
}

/// Most units that fit into a workgroup's memory; `MOST_HIDDEN` in the WGSL.
const MOST_HIDDEN: usize = 2048;

/// Most units that the PTX form without cooperation takes, and its threads: one for each unit of a sequence.
const PTX_SMALL_HIDDEN: u32 = 64;
const PTX_BLOCK: u32 = 256;
/// Most units whose weights the blocks of Hopper keep in shared memory.
const PTX_RESIDENT_HIDDEN: u32 = 1024;
/// Units of a block at a time, and sequences that go together, in the cooperative PTX forms.
const PTX_UNITS: u32 = 8;
const PTX_SEQUENCES: u32 = 64;
/// Units that all warps of a block read in one turn.
const PTX_SLICE: u32 = 64;

fn hidden(params: &[u8]) -> u32 {
    bytemuck::pod_read_unaligned::<Params>(params).hidden
}

/// One block for every 8 units, and no more than run at once.
fn cooperative_grid(params: &[u8], device: &PtxDevice) -> [u32; 3] {
    [hidden(params).div_ceil(PTX_UNITS).min(device.multiprocessors).max(1), 1, 1]
}

/// The counter, h of even and of odd steps, and c.
fn cooperative_workspace(params: &[u8]) -> usize {
    let padded = hidden(params).next_multiple_of(PTX_SLICE) as usize;
    256 + 3 * 4 * padded * PTX_SEQUENCES as usize
}

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "lstm_f32",
    slots: &[
        Slot::read("gates", DType::F32),
        Slot::read("weight", DType::F32),
        Slot::maybe("residual", DType::F32),
        Slot::write("y", DType::F32),
    ],
    fields: fields![Params; batch, steps, hidden, has_residual],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("lstm.wgsl"), "lstm_f32", [256, 1, 1], |params| {
        fold_groups(u64::from(bytemuck::pod_read_unaligned::<Params>(params).batch))
    })],
    ptx: &[
        Ptx {
            takes: |params| hidden(params) <= PTX_SMALL_HIDDEN,
            static_shared: 2048,
            ..Ptx::new(
                include_str!("lstm_f32_small.ptx"),
                "lstm_f32_small",
                [PTX_BLOCK, 1, 1],
                |params, _| {
                    let p: Params = bytemuck::pod_read_unaligned(params);
                    [p.batch.div_ceil(PTX_BLOCK / p.hidden.max(1)), 1, 1]
                },
            )
        },
        Ptx {
            target: Target::Sm90a,
            takes: |params| hidden(params) <= PTX_RESIDENT_HIDDEN && hidden(params).is_multiple_of(4),
            dynamic_shared: |params| {
                // the weights of 8 units, then the slots of 8 warps
                16 * PTX_UNITS * (hidden(params).next_multiple_of(PTX_SLICE) + 4) + 8 * 8704
            },
            workspace: Some(cooperative_workspace),
            cooperative: true,
            registers: 255,
            ..Ptx::new(
                include_str!("lstm_f32_resident.ptx"),
                "lstm_f32_resident",
                [PTX_BLOCK, 1, 1],
                cooperative_grid,
            )
        },
        Ptx {
            dynamic_shared: |_| 8 * 10_752,
            workspace: Some(cooperative_workspace),
            cooperative: true,
            registers: 255,
            ..Ptx::new(include_str!("lstm_f32.ptx"), "lstm_f32", [PTX_BLOCK, 1, 1], cooperative_grid)
        },
    ],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// The recurrence of one LSTM layer.
#[derive(Clone, Copy, Debug)]
pub struct Lstm;

impl Lstm {
    /// Plans the recurrence: gates f32 `[batch, steps, 4 * hidden]`, weight f32 `[4 * hidden, hidden]`, residual and y
    /// f32 `[batch, steps, hidden]`.
    ///
    /// Refuses shapes that do not fit, and more than 2048 units.
    pub fn plan(
        &self,
        gates: &TensorDesc,
        weight: &TensorDesc,
        residual: Option<&TensorDesc>,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[rows, hidden]) = (weight.dtype, weight.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "weight", weight, "F32 [4 * hidden, hidden]"));
        };
        if hidden > MOST_HIDDEN {
            let expected =
                format!("at most {MOST_HIDDEN}, which is what the state of a sequence may take on a GPU");
            return Err(ShapeError::value(op, "hidden", hidden, expected));
        }
        if rows != 4 * hidden {
            return Err(ShapeError::tensor(
                op,
                "weight",
                weight,
                format!("F32 [{}, {hidden}] (four gates)", 4 * hidden),
            ));
        }
        let (DType::F32, &[batch, steps, width]) = (gates.dtype, gates.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "gates", gates, "F32 [batch, steps, 4 * hidden]"));
        };
        if width != 4 * hidden {
            let expected = format!("F32 [{batch}, {steps}, {}] (first axis of weight)", 4 * hidden);
            return Err(ShapeError::tensor(op, "gates", gates, expected));
        }
        let y = TensorDesc::f32([batch, steps, hidden]);
        if let Some(residual) = residual {
            ShapeError::expect(op, "residual", residual, &y, "the shape of y")?;
        }
        let params = Params {
            batch: ShapeError::size(op, "batch", batch)?,
            steps: ShapeError::size(op, "steps", steps)?,
            hidden: ShapeError::size(op, "hidden", hidden)?,
            has_residual: u32::from(residual.is_some()),
        };
        let read = [Some(gates), Some(weight), residual];
        let bytes = read.iter().flatten().map(|d| d.bytes()).sum::<usize>() + y.bytes();
        let out_item = 4 * steps * hidden;
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost { bytes: bytes as u64, flops: 2 * (batch * steps * weight.elements()) as u64 },
            slots: read.into_iter().map(Option::<&TensorDesc>::cloned).chain([Some(y)]).collect(),
            splits: vec![Split {
                items: batch,
                count_at: std::mem::offset_of!(Params, batch),
                first_at: None,
                item_bytes: vec![4 * out_item, 0, out_item, out_item],
            }],
        })
    }
}

impl Op for Lstm {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(gates), Some(weight), residual] = inputs else {
            return Err(ShapeError::value(
                INFO.name,
                "inputs",
                inputs.len(),
                "gates, weight, residual or none",
            ));
        };
        self.plan(gates, weight, residual)
    }
}
