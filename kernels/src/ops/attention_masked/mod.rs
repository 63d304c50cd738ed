//! Attention of every query to the first keys of its sequence, with a bias by position.
//!
//! `y[b, s, h] = sum_t p[t] v[b, t, h]`, `p = softmax_t(scale * q[b, s, h] . k[b, t, h] + bias[h, s, t])`, over
//! `t < min(lengths[b], k_steps)`. A sequence with no keys gives 0. Keys from `lengths[b]` on are not read, so a sequence
//! has the same bits however far the batch is padded.
//!
//! q, k, v and y are f32, f16 or bf16, all of one type; scores and sums are f32 always, and y is rounded once. Made for
//! texts: queries share tiles of 32 keys, and no form is written for thousands of them (see `attention`).

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
    /// Sequences.
    pub batch: u32,
    /// Queries of a sequence.
    pub q_steps: u32,
    /// Keys of a sequence, those that are masked included.
    pub k_steps: u32,
    /// Heads, side by side in a row.
    pub heads: u32,
    /// Row length of a head.
    pub head_dim: u32,
    /// What scores are multiplied by.
    pub scale: f32,
    /// 1 with a bias, else 0.
    pub has_bias: u32,
    pad: u32,
}

/// Longest head: what the WGSL has workgroup memory for, and what a warp of PTX sums.
const MAX_HEAD_DIM: usize = 128;

/// Queries of a workgroup.
const QUERIES: u32 = 16;

/// Invocations that share a query; also the keys of a tile.
const LANES: u32 = 8;

const FIELDS: &[crate::Field] = fields![Params; batch, q_steps, k_steps, heads, head_dim, scale, has_bias];

const fn slots(values: DType) -> [Slot; 6] {
    [
        Slot::read("q", values),
        Slot::read("k", values),
        Slot::read("v", values),
        Slot::read("lengths", DType::U32),
        Slot::maybe("bias", DType::F32),
        Slot::write("y", values),
    ]
}

/// Blocks of 16 queries of a head.
fn blocks(params: &[u8]) -> u64 {
    let p: Params = bytemuck::pod_read_unaligned(params);
    u64::from(p.batch) * u64::from(p.heads) * u64::from(p.q_steps.div_ceil(QUERIES))
}

const fn wgsl(overrides: &'static [(&'static str, f64)]) -> Wgsl {
    Wgsl {
        overrides,
        ..Wgsl::new(
            include_str!("attention_masked.wgsl"),
            "attention_masked",
            [QUERIES * LANES, 1, 1],
            |params| fold_groups(blocks(params)),
        )
    }
}

/// Four warps of four queries each.
const fn ptx(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        registers: 96,
        // 32 keys or values of up to 129 f32, 16 queries of up to 128, and 32 weights of 16 queries
        static_shared: 4 * (32 * 129 + 16 * 128 + 32 * 16),
        // More than 2^31 - 1 blocks, which take that many sequences of one step and heads of one column, are refused by
        // the launch.
        ..Ptx::new(source, entry, [128, 1, 1], |params, _| {
            [u32::try_from(blocks(params)).unwrap_or(u32::MAX), 1, 1]
        })
    }
}

/// In f32 throughout.
pub static F32: KernelInfo = KernelInfo {
    name: "attention_masked_f32",
    slots: &slots(DType::F32),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("value_type", 0.0)])],
    ptx: &[ptx(include_str!("attention_masked_f32.ptx"), "attention_masked_f32")],
    reference: reference::f32,
    cpu: Some(cpu::f32),
    cases: || cases::cases(DType::F32),
};

/// Of f16 values.
pub static F16: KernelInfo = KernelInfo {
    name: "attention_masked_f16",
    slots: &slots(DType::F16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("value_type", 1.0)])],
    ptx: &[ptx(include_str!("attention_masked_f16.ptx"), "attention_masked_f16")],
    reference: reference::f16,
    cpu: Some(cpu::f16),
    cases: || cases::cases(DType::F16),
};

/// Of bf16 values.
pub static BF16: KernelInfo = KernelInfo {
    name: "attention_masked_bf16",
    slots: &slots(DType::BF16),
    fields: FIELDS,
    params_size: size_of::<Params>(),
    wgsl: &[wgsl(&[("value_type", 2.0)])],
    ptx: &[ptx(include_str!("attention_masked_bf16.ptx"), "attention_masked_bf16")],
    reference: reference::bf16,
    cpu: Some(cpu::bf16),
    cases: || cases::cases(DType::BF16),
};

/// Attention to the first keys of every sequence.
#[derive(Clone, Copy, Debug)]
pub struct AttentionMasked {
    /// Heads, side by side in a row.
    pub heads: usize,
    /// What scores are multiplied by, before the bias is added; finite.
    pub scale: f32,
}

impl AttentionMasked {
    /// Plans `y = attention(q, k, v, lengths, bias)`: q `[batch, q_steps, heads * head_dim]`, k and v
    /// `[batch, k_steps, heads * head_dim]`, all f32, all f16 or all bf16, head_dim 1 to 128; lengths u32 `[batch]`; bias f32
    /// `[heads, q_steps, k_steps]`; y like q.
    pub fn plan(
        &self,
        q: &TensorDesc,
        k: &TensorDesc,
        v: &TensorDesc,
        lengths: &TensorDesc,
        bias: Option<&TensorDesc>,
    ) -> Result<Plan, ShapeError> {
        let kernel = match q.dtype {
            DType::F16 => &F16,
            DType::BF16 => &BF16,
            _ => &F32,
        };
        let op = kernel.name;
        let (DType::F32 | DType::F16 | DType::BF16, &[batch, q_steps, width]) = (q.dtype, q.shape.as_slice())
        else {
            let expected = "F32, F16 or BF16 [batch, q_steps, heads * head_dim]";
            return Err(ShapeError::tensor(op, "q", q, expected));
        };
        let k_steps = match k.shape.as_slice() {
            &[keys_batch, k_steps, keys_width]
                if k.dtype == q.dtype && keys_batch == batch && keys_width == width =>
            {
                k_steps
            }
            _ => {
                let expected = format!("{} [{batch}, k_steps, {width}] (q)", q.dtype);
                return Err(ShapeError::tensor(op, "k", k, expected));
            }
        };
        ShapeError::expect(op, "v", v, k, "k")?;
        ShapeError::expect(op, "lengths", lengths, &TensorDesc::u32([batch]), "first axis of q")?;
        if self.heads == 0 || width % self.heads != 0 {
            let expected = format!("a divisor of {width} (last axis of q)");
            return Err(ShapeError::value(op, "heads", self.heads, expected));
        }
        if let Some(bias) = bias {
            let want = TensorDesc::f32([self.heads, q_steps, k_steps]);
            ShapeError::expect(op, "bias", bias, &want, "heads, and second axes of q and k")?;
            ShapeError::size(op, "elements of bias", bias.elements())?;
        }
        let head_dim = width / self.heads;
        if !(1..=MAX_HEAD_DIM).contains(&head_dim) {
            return Err(ShapeError::value(op, "head_dim", head_dim, format!("1 to {MAX_HEAD_DIM}")));
        }
        if !self.scale.is_finite() {
            return Err(ShapeError::value(op, "scale", self.scale, "a finite number"));
        }
        ShapeError::size(op, "elements of q", q.elements())?;
        ShapeError::size(op, "elements of k", k.elements())?;
        let params = Params {
            batch: ShapeError::size(op, "batch", batch)?,
            q_steps: ShapeError::size(op, "q_steps", q_steps)?,
            k_steps: ShapeError::size(op, "k_steps", k_steps)?,
            heads: ShapeError::size(op, "heads", self.heads)?,
            head_dim: ShapeError::size(op, "head_dim", head_dim)?,
            scale: self.scale,
            has_bias: u32::from(bias.is_some()),
            pad: 0,
        };
        let bias_bytes = bias.map_or(0, TensorDesc::bytes);
        let pairs = batch as u64 * q_steps as u64 * k_steps as u64;
        let (query_item, key_item) = (q.dtype.size() * q_steps * width, q.dtype.size() * k_steps * width);
        Ok(Plan {
            kernel,
            params: bytemuck::bytes_of(&params).to_vec(),
            // two products of head_dim multiply-adds, and five operations of the bias and the softmax; no key masked
            cost: Cost {
                bytes: (2 * q.bytes() + 2 * k.bytes() + lengths.bytes() + bias_bytes) as u64,
                flops: pairs * (4 * width as u64 + 5 * self.heads as u64),
            },
            splits: vec![Split {
                items: batch,
                count_at: std::mem::offset_of!(Params, batch),
                first_at: None,
                item_bytes: vec![query_item, key_item, key_item, 4, 0, query_item],
            }],
            slots: vec![
                Some(q.clone()),
                Some(k.clone()),
                Some(v.clone()),
                Some(lengths.clone()),
                bias.cloned(),
                Some(q.clone()),
            ],
        })
    }
}

impl Op for AttentionMasked {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(q), Some(k), Some(v), Some(lengths), bias] = inputs else {
            let expected = "q, k, v, lengths, bias?";
            return Err(ShapeError::value("attention_masked", "inputs", inputs.len(), expected));
        };
        self.plan(q, k, v, lengths, bias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Inputs {
        heads: usize,
        scale: f32,
        q: TensorDesc,
        k: TensorDesc,
        v: TensorDesc,
        lengths: TensorDesc,
        bias: Option<TensorDesc>,
    }

    /// What a change of inputs that fit is refused with.
    fn refused(change: impl FnOnce(&mut Inputs)) -> String {
        let mut inputs = Inputs {
            heads: 3,
            scale: 1.0,
            q: TensorDesc::f32([2, 5, 12]),
            k: TensorDesc::f32([2, 7, 12]),
            v: TensorDesc::f32([2, 7, 12]),
            lengths: TensorDesc::u32([2]),
            bias: Some(TensorDesc::f32([3, 5, 7])),
        };
        change(&mut inputs);
        let Inputs { heads, scale, q, k, v, lengths, bias } = inputs;
        let op = AttentionMasked { heads, scale };
        op.plan(&q, &k, &v, &lengths, bias.as_ref()).expect_err("refused").to_string()
    }

    #[test]
    fn refusals_name_the_tensor() {
        assert_eq!(
            refused(|i| i.q = TensorDesc::f32([5, 12])),
            "attention_masked_f32: `q` has type and shape F32 [5, 12], expected F32, F16 or BF16 [batch, q_steps, heads * head_dim]"
        );
        assert_eq!(
            refused(|i| i.q = TensorDesc::u32([2, 5, 12])),
            "attention_masked_f32: `q` has type and shape U32 [2, 5, 12], expected F32, F16 or BF16 [batch, q_steps, heads * head_dim]"
        );
        for k in [[3, 7, 12], [2, 7, 9]] {
            assert_eq!(
                refused(|i| i.k = TensorDesc::f32(k)),
                format!(
                    "attention_masked_f32: `k` has type and shape F32 {k:?}, expected F32 [2, k_steps, 12] (q)"
                )
            );
        }
        assert_eq!(
            refused(|i| i.q.dtype = DType::BF16),
            "attention_masked_bf16: `k` has type and shape F32 [2, 7, 12], expected BF16 [2, k_steps, 12] (q)"
        );
        assert_eq!(
            refused(|i| i.v = TensorDesc::f32([2, 5, 12])),
            "attention_masked_f32: `v` has type and shape F32 [2, 5, 12], expected F32 [2, 7, 12] (k)"
        );
        assert_eq!(
            refused(|i| {
                for tensor in [&mut i.q, &mut i.k] {
                    tensor.dtype = DType::F16;
                }
            }),
            "attention_masked_f16: `v` has type and shape F32 [2, 7, 12], expected F16 [2, 7, 12] (k)"
        );
        assert_eq!(
            refused(|i| i.lengths = TensorDesc::u32([7])),
            "attention_masked_f32: `lengths` has type and shape U32 [7], expected U32 [2] (first axis of q)"
        );
        assert_eq!(
            refused(|i| i.bias = Some(TensorDesc::f32([3, 7, 5]))),
            "attention_masked_f32: `bias` has type and shape F32 [3, 7, 5], expected F32 [3, 5, 7] (heads, and second axes of q and k)"
        );
    }

    #[test]
    fn refusals_name_the_number() {
        for heads in [0, 5] {
            assert_eq!(
                refused(|i| i.heads = heads),
                format!(
                    "attention_masked_f32: `heads` has value {heads}, expected a divisor of 12 (last axis of q)"
                )
            );
        }
        assert_eq!(
            refused(|i| {
                for tensor in [&mut i.q, &mut i.k, &mut i.v] {
                    tensor.shape[2] = 387;
                }
            }),
            "attention_masked_f32: `head_dim` has value 129, expected 1 to 128"
        );
        assert_eq!(
            refused(|i| i.scale = f32::NAN),
            "attention_masked_f32: `scale` has value NaN, expected a finite number"
        );
        assert_eq!(
            refused(|i| {
                i.q = TensorDesc::f32([2, 65_536, 32_769]);
                (i.k, i.v) = (TensorDesc::f32([2, 1, 32_769]), TensorDesc::f32([2, 1, 32_769]));
                (i.heads, i.bias) = (32_769, None);
            }),
            "attention_masked_f32: `elements of q` has value 4295098368, expected at most 4294967295"
        );
        let op: &dyn Op = &AttentionMasked { heads: 3, scale: 1.0 };
        let q = TensorDesc::f32([2, 5, 12]);
        assert_eq!(
            op.plan(&[Some(&q), Some(&q), Some(&q), None, None]).expect_err("refused").to_string(),
            "attention_masked: `inputs` has value 5, expected q, k, v, lengths, bias?"
        );
    }
}
