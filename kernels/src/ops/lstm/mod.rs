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
    Cost, DType, KernelInfo, Op, Plan, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
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
    wgsl: Wgsl {
        source: include_str!("lstm.wgsl"),
        entry: "lstm_f32",
        overrides: &[],
        workgroup: [256, 1, 1],
        grid: |params| fold_groups(u64::from(bytemuck::pod_read_unaligned::<Params>(params).batch)),
    },
    ptx: &[],
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
