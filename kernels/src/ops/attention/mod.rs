//! Attention of every position to all positions, or to itself and those before it.
//!
//! `y[b, s, h] = sum_t p[t] v[b, t, h]`, `p = softmax_t(scale * q[b, s, h] . k[b, t, h])`, over all t or over t <= s.
//! No executor keeps a matrix of steps by steps.
//!
//! q, k, v and y are f32, f16 or bf16, all of one type. Scores and sums are f32 always; y is rounded once. A form may
//! round the weights of a query to the type of v before it multiplies them.

mod cases;
mod cpu;
mod reference;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, Swizzle, Target, TensorDesc, TensorMap,
    Wgsl, fields, fold_groups,
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

const FIELDS: &[crate::Field] = fields![Params; batch, steps, heads, head_dim, scale, causal];

const fn slots(values: DType) -> [Slot; 4] {
    [Slot::read("q", values), Slot::read("k", values), Slot::read("v", values), Slot::write("y", values)]
}

const fn wgsl(overrides: &'static [(&'static str, f64)]) -> Wgsl {
    Wgsl {
        overrides,
        ..Wgsl::new(include_str!("attention.wgsl"), "attention", [QUERIES * LANES, 1, 1], |params| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            fold_groups(u64::from(p.batch) * u64::from(p.heads) * u64::from(p.steps.div_ceil(QUERIES)))
        })
    }
}

/// Queries of an item of the forms for `sm_90a`: 64 for each of three warpgroups.
const HOPPER_QUERIES: u32 = 192;
/// Keys of a stage of those forms.
const HOPPER_KEYS: u32 = 128;
/// Two items' queries, five stages of keys and values, seventeen barriers.
const HOPPER_SHARED: u32 = 2 * 128 * HOPPER_QUERIES + 5 * 2 * 128 * HOPPER_KEYS + 136;

/// The form for head_dim 64 with asynchronous matrix products and tensor copies.
const fn hopper(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        target: Target::Sm90a,
        takes: |params| bytemuck::pod_read_unaligned::<Params>(params).head_dim == 64,
        dynamic_shared: |_| HOPPER_SHARED,
        maps: |params| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            let row = 128 * u64::from(p.heads);
            // steps have an axis of their own: what is past a sequence's end is not the next one. The type does not
            // matter to a copy, its width does
            let map = |slot, rows| TensorMap {
                slot,
                dtype: DType::F16,
                extents: vec![64, u64::from(p.heads), u64::from(p.steps), u64::from(p.batch)],
                strides: vec![128, row, row * u64::from(p.steps)],
                tile: vec![64, 1, rows, 1],
                swizzle: Swizzle::Bytes128,
            };
            // results leave by warps
            vec![map(0, HOPPER_QUERIES), map(1, HOPPER_KEYS), map(2, HOPPER_KEYS), map(3, 16)]
        },
        registers: 128,
        ..Ptx::new(source, entry, [512, 1, 1], |params, device| {
            let [items, ..] = ptx_grid(params, HOPPER_QUERIES);
            [items.min(device.multiprocessors), 1, 1]
        })
    }
}

/// A form for head_dim 64, on tensor cores: 128 queries a block.
const fn ptx_64(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        takes: |params| bytemuck::pod_read_unaligned::<Params>(params).head_dim == 64,
        // two blocks a multiprocessor
        registers: 240,
        static_shared: 48 << 10,
        ..Ptx::new(source, entry, [128, 1, 1], |params, _| ptx_grid(params, 128))
    }
}

/// The form for head_dim 64 in f32, on tensor cores: 128 queries a block.
const fn ptx_64_f32(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        // queries in two parts, two stages of 32 keys and values
        dynamic_shared: |_| 96 << 10,
        // two blocks a multiprocessor
        registers: 255,
        static_shared: 0,
        ..ptx_64(source, entry)
    }
}

/// A form for every head_dim: 64 queries a block.
const fn ptx_any(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        // queries and values as chunks of 4 columns, 64 rows of 16 bytes and 16 bytes apart; keys likewise, or 64 rows of 72
        // weights in their place
        dynamic_shared: |params| {
            let tile = 1040 * bytemuck::pod_read_unaligned::<Params>(params).head_dim.div_ceil(4);
            2 * tile + tile.max(64 * 4 * 72)
        },
        // three blocks a multiprocessor
        registers: 168,
        ..Ptx::new(source, entry, [128, 1, 1], |params, _| ptx_grid(params, 64))
    }
}

/// One block for `queries` queries of a head. More than 2^31 - 1, which take that many sequences of one step and heads of
/// one column, are refused by the launch.
fn ptx_grid(params: &[u8], queries: u32) -> [u32; 3] {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let blocks = u64::from(p.batch) * u64::from(p.heads) * u64::from(p.steps.div_ceil(queries));
    [u32::try_from(blocks).unwrap_or(u32::MAX), 1, 1]
}

/// Of f32 values, products in three pieces of tf32 where head_dim is 64.
pub static F32: KernelInfo = KernelInfo {
    name: "attention_f32",
    slots: &slots(DType::F32),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("value_type", 0.0)])],
    ptx: &[
        ptx_64_f32(include_str!("attention_f32_hd64.ptx"), "attention_f32_hd64"),
        ptx_any(include_str!("attention_f32.ptx"), "attention_f32"),
    ],
    reference: reference::f32,
    cpu: Some(cpu::f32),
    cases: || cases::cases(DType::F32),
};

/// Of f16 values.
pub static F16: KernelInfo = KernelInfo {
    name: "attention_f16",
    slots: &slots(DType::F16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("value_type", 1.0)])],
    ptx: &[
        hopper(include_str!("attention_f16_hd64_sm90a.ptx"), "attention_f16_hd64_sm90a"),
        ptx_64(include_str!("attention_f16_hd64.ptx"), "attention_f16_hd64"),
        ptx_any(include_str!("attention_f16_any.ptx"), "attention_f16_any"),
    ],
    reference: reference::f16,
    cpu: Some(cpu::f16),
    cases: || cases::cases(DType::F16),
};

/// Of bf16 values.
pub static BF16: KernelInfo = KernelInfo {
    name: "attention_bf16",
    slots: &slots(DType::BF16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("value_type", 2.0)])],
    ptx: &[
        hopper(include_str!("attention_bf16_hd64_sm90a.ptx"), "attention_bf16_hd64_sm90a"),
        ptx_64(include_str!("attention_bf16_hd64.ptx"), "attention_bf16_hd64"),
        ptx_any(include_str!("attention_bf16_any.ptx"), "attention_bf16_any"),
    ],
    reference: reference::bf16,
    cpu: Some(cpu::bf16),
    cases: || cases::cases(DType::BF16),
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
    /// Plans `y = attention(q, k, v)`: all f32, all f16 or all bf16 `[batch, steps, heads * head_dim]`, head_dim 1 to
    /// 128.
    pub fn plan(&self, q: &TensorDesc, k: &TensorDesc, v: &TensorDesc) -> Result<Plan, ShapeError> {
        let kernel = match q.dtype {
            DType::F16 => &F16,
            DType::BF16 => &BF16,
            _ => &F32,
        };
        let op = kernel.name;
        let (DType::F32 | DType::F16 | DType::BF16, &[batch, steps, width]) = (q.dtype, q.shape.as_slice())
        else {
            let expected = "F32, F16 or BF16 [batch, steps, heads * head_dim]";
            return Err(ShapeError::tensor(op, "q", q, expected));
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
        let item = q.dtype.size() * steps * width;
        Ok(Plan {
            kernel,
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
            return Err(ShapeError::value("attention", "inputs", inputs.len(), "q, k, v"));
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
            "attention_f32: `q` has type and shape F32 [3, 12], expected F32, F16 or BF16 [batch, steps, heads * head_dim]"
        );
        assert_eq!(
            text(2, 1.0, &x, &other, &x),
            "attention_f32: `k` has type and shape F32 [2, 4, 12], expected F32 [2, 3, 12] (q)"
        );
        assert_eq!(
            text(2, 1.0, &x, &x, &other),
            "attention_f32: `v` has type and shape F32 [2, 4, 12], expected F32 [2, 3, 12] (q)"
        );
        assert_eq!(
            text(2, 1.0, &TensorDesc::u32([2, 3, 12]), &x, &x),
            "attention_f32: `q` has type and shape U32 [2, 3, 12], expected F32, F16 or BF16 [batch, steps, heads * head_dim]"
        );
        let [half, brain] = [DType::F16, DType::BF16].map(|dtype| TensorDesc::new(dtype, [2, 3, 12]));
        assert_eq!(
            text(2, 1.0, &half, &x, &half),
            "attention_f16: `k` has type and shape F32 [2, 3, 12], expected F16 [2, 3, 12] (q)"
        );
        assert_eq!(
            text(2, 1.0, &brain, &brain, &half),
            "attention_bf16: `v` has type and shape F16 [2, 3, 12], expected BF16 [2, 3, 12] (q)"
        );
        assert_eq!(
            text(2, 1.0, &x, &brain, &x),
            "attention_f32: `k` has type and shape BF16 [2, 3, 12], expected F32 [2, 3, 12] (q)"
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
            "attention: `inputs` has value 2, expected q, k, v"
        );
    }
}
