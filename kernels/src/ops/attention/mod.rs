//! Attention of every position to all positions, or to itself and those before it.
//!
//! `y[b, s, h] = sum_t p[t] v[b, t, h]`, `p = softmax_t(scale * q[b, s, h] . k[b, t, h])`, over all t or over t <= s.
//! No executor keeps a matrix of steps by steps.

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
    /// Sequences.
    pub batch: u32,
    /// Positions of a sequence.
    pub steps: u32,
    /// Heads, side by side in a row.
    pub heads: u32,
    /// Row length of a head.
    pub head_dim: u32,
    /// What scores are multiplied by.
    pub scale: f32,
    /// 1 where a position attends to itself and those before it, 0 where to all.
    pub causal: u32,
    pad: [u32; 2],
}

/// Longest head: what the WGSL has workgroup memory for.
const MAX_HEAD_DIM: usize = 128;

/// Queries of a workgroup.
const QUERIES: u32 = 16;

/// Invocations that share a query; also the keys of a tile.
const LANES: u32 = 8;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "attention_f32",
    slots: &[
        Slot::read("q", DType::F32),
        Slot::read("k", DType::F32),
        Slot::read("v", DType::F32),
        Slot::write("y", DType::F32),
    ],
    fields: fields![Params; batch, steps, heads, head_dim, scale, causal],
    params_size: size_of::<Params>(),
    wgsl: Wgsl {
        source: include_str!("attention.wgsl"),
        entry: "attention_f32",
        overrides: &[],
        workgroup: [QUERIES * LANES, 1, 1],
        grid: |params| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            fold_groups(u64::from(p.batch) * u64::from(p.heads) * u64::from(p.steps.div_ceil(QUERIES)))
        },
    },
    ptx: &[],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// Which positions a position attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Itself and those before it.
    Causal,
    /// All.
    None,
}

/// Attention within sequences.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Heads, side by side in a row.
    pub heads: usize,
    /// What scores are multiplied by, mostly `1 / sqrt(head_dim)`; finite.
    pub scale: f32,
    /// Which positions a position attends to.
    pub mask: Mask,
}

impl Attention {
    /// Plans `y = attention(q, k, v)`: all f32 `[batch, steps, heads * head_dim]`, head_dim 1 to 128.
    pub fn plan(&self, q: &TensorDesc, k: &TensorDesc, v: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[batch, steps, width]) = (q.dtype, q.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "q", q, "F32 [batch, steps, heads * head_dim]"));
        };
        ShapeError::expect(op, "k", k, q, "q")?;
        ShapeError::expect(op, "v", v, q, "q")?;
        if self.heads == 0 || width % self.heads != 0 {
            let expected = format!("a divisor of {width} (last axis of q)");
            return Err(ShapeError::value(op, "heads", self.heads, expected));
        }
        let head_dim = width / self.heads;
        if !(1..=MAX_HEAD_DIM).contains(&head_dim) {
            return Err(ShapeError::value(op, "head_dim", head_dim, format!("1 to {MAX_HEAD_DIM}")));
        }
        if !self.scale.is_finite() {
            return Err(ShapeError::value(op, "scale", self.scale, "a finite number"));
        }
        ShapeError::size(op, "elements of q", q.elements())?;
        let params = Params {
            batch: ShapeError::size(op, "batch", batch)?,
            steps: ShapeError::size(op, "steps", steps)?,
            heads: ShapeError::size(op, "heads", self.heads)?,
            head_dim: ShapeError::size(op, "head_dim", head_dim)?,
            scale: self.scale,
            causal: u32::from(self.mask == Mask::Causal),
            pad: [0; 2],
        };
        let (batch_u64, steps_u64) = (batch as u64, steps as u64);
        let pairs = match self.mask {
            Mask::Causal => steps_u64 * (steps_u64 + 1) / 2,
            Mask::None => steps_u64 * steps_u64,
        };
        let item = 4 * steps * width;
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            slots: vec![Some(q.clone()), Some(k.clone()), Some(v.clone()), Some(q.clone())],
            // two products of head_dim multiply-adds, and four operations of the softmax
            cost: Cost {
                bytes: 4 * q.bytes() as u64,
                flops: batch_u64 * pairs * (4 * width as u64 + 4 * self.heads as u64),
            },
            splits: vec![Split {
                items: batch,
                count_at: std::mem::offset_of!(Params, batch),
                first_at: None,
                item_bytes: vec![item; 4],
            }],
        })
    }
}

impl Op for Attention {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(q), Some(k), Some(v)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "q, k, v"));
        };
        self.plan(q, k, v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |heads, scale, q: &TensorDesc, k: &TensorDesc, v: &TensorDesc| {
            Attention { heads, scale, mask: Mask::Causal }.plan(q, k, v).expect_err("refused").to_string()
        };
        let x = TensorDesc::f32([2, 3, 12]);
        let other = TensorDesc::f32([2, 4, 12]);
        let flat = TensorDesc::f32([3, 12]);
        assert_eq!(
            text(2, 1.0, &flat, &x, &x),
            "attention_f32: `q` has type and shape F32 [3, 12], expected F32 [batch, steps, heads * head_dim]"
        );
        assert_eq!(
            text(2, 1.0, &x, &other, &x),
            "attention_f32: `k` has type and shape F32 [2, 4, 12], expected F32 [2, 3, 12] (q)"
        );
        assert_eq!(
            text(2, 1.0, &x, &x, &other),
            "attention_f32: `v` has type and shape F32 [2, 4, 12], expected F32 [2, 3, 12] (q)"
        );
        for heads in [0, 5] {
            assert_eq!(
                text(heads, 1.0, &x, &x, &x),
                format!(
                    "attention_f32: `heads` has value {heads}, expected a divisor of 12 (last axis of q)"
                )
            );
        }
        let wide = TensorDesc::f32([1, 3, 258]);
        assert_eq!(
            text(2, 1.0, &wide, &wide, &wide),
            "attention_f32: `head_dim` has value 129, expected 1 to 128"
        );
        assert_eq!(
            text(2, f32::NAN, &x, &x, &x),
            "attention_f32: `scale` has value NaN, expected a finite number"
        );
        let op: &dyn Op = &Attention { heads: 2, scale: 1.0, mask: Mask::None };
        assert_eq!(
            op.plan(&[Some(&x), Some(&x)]).expect_err("refused").to_string(),
            "attention_f32: `inputs` has value 2, expected q, k, v"
        );
    }
}
