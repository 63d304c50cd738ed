//! The chunks of [`super::attention_cache`], made one result.
//!
//! Of chunk c, `parts[r, h, c]` holds `head_dim` sums, the largest score m\[c\] and the sum of weights n\[c\]. With
//! `M = max_c m[c]` and `w[c] = e^(m[c] - M)`: `y[r, h] = sum_c w[c] sums[c] / sum_c w[c] n[c]`, chunks in order; 0 where
//! the second sum is 0.

mod cases;
mod reference;

use super::attention_cache::MAX_HEAD_DIM;
use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows.
    pub rows: u32,
    /// Heads of a row.
    pub heads: u32,
    /// Chunks of a head.
    pub chunks: u32,
    /// Row length of a head.
    pub head_dim: u32,
}

/// Invocations of a workgroup, threads of a block.
const BLOCK: u32 = 128;

/// Values of y; a plan counted them in u32.
fn values(params: &[u8]) -> u32 {
    let p: Params = bytemuck::pod_read_unaligned(params);
    p.rows * p.heads * p.head_dim
}

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "attention_merge_f32",
    slots: &[Slot::read("parts", DType::F32), Slot::write("y", DType::F32)],
    fields: fields![Params; rows, heads, chunks, head_dim],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(
        include_str!("attention_merge.wgsl"),
        "attention_merge_f32",
        [BLOCK, 1, 1],
        |params| fold_groups(values(params).div_ceil(BLOCK).into()),
    )],
    ptx: &[Ptx {
        registers: 40,
        ..Ptx::new(
            include_str!("attention_merge_f32.ptx"),
            "attention_merge_f32",
            [BLOCK, 1, 1],
            |params, _| [values(params).div_ceil(BLOCK), 1, 1],
        )
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// The chunks of an attention, made one result.
#[derive(Clone, Copy, Debug)]
pub struct AttentionMerge;

impl AttentionMerge {
    /// Plans y f32 `[rows, heads * head_dim]` from parts f32 `[rows, heads, chunks, head_dim + 2]`, a chunk or more,
    /// head_dim 1 to 128.
    pub fn plan(&self, parts: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[rows, heads @ (1..), chunks @ (1..), item]) =
            (parts.dtype, parts.shape.as_slice())
        else {
            let expected = "F32 [rows, heads, chunks, head_dim + 2] with a head and a chunk or more";
            return Err(ShapeError::tensor(op, "parts", parts, expected));
        };
        let head_dim = item.saturating_sub(2);
        if !(1..=MAX_HEAD_DIM).contains(&head_dim) {
            let expected = format!("a last axis of 3 to {} (head_dim + 2)", MAX_HEAD_DIM + 2);
            return Err(ShapeError::tensor(op, "parts", parts, expected));
        }
        ShapeError::size(op, "elements of parts", parts.elements())?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            heads: ShapeError::size(op, "heads", heads)?,
            chunks: ShapeError::size(op, "chunks", chunks)?,
            head_dim: ShapeError::size(op, "head_dim", head_dim)?,
        };
        let y = TensorDesc::f32([rows, heads * head_dim]);
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            // a product and a sum a value, four operations a chunk, and a division a value of y
            cost: Cost {
                bytes: (parts.bytes() + y.bytes()) as u64,
                flops: (2 * parts.elements() + 4 * rows * heads * chunks + y.elements()) as u64,
            },
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * heads * chunks * item, 4 * heads * head_dim],
            }],
            slots: vec![Some(parts.clone()), Some(y)],
        })
    }
}

impl Op for AttentionMerge {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(parts)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "parts"));
        };
        self.plan(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |parts: &TensorDesc| AttentionMerge.plan(parts).expect_err("refused").to_string();
        for shape in [vec![2, 3, 4], vec![2, 0, 3, 6], vec![2, 3, 0, 6]] {
            assert_eq!(
                text(&TensorDesc::f32(shape.clone())),
                format!(
                    "attention_merge_f32: `parts` has type and shape F32 {shape:?}, expected F32 [rows, heads, chunks, \
                     head_dim + 2] with a head and a chunk or more"
                )
            );
        }
        for item in [0, 2, 131] {
            assert_eq!(
                text(&TensorDesc::f32([2, 3, 4, item])),
                format!(
                    "attention_merge_f32: `parts` has type and shape F32 [2, 3, 4, {item}], expected a last axis of 3 to \
                     130 (head_dim + 2)"
                )
            );
        }
        assert_eq!(
            text(&TensorDesc::f32([65_536, 8_192, 2, 6])),
            "attention_merge_f32: `elements of parts` has value 6442450944, expected at most 4294967295"
        );
        let op: &dyn Op = &AttentionMerge;
        assert_eq!(
            op.plan(&[]).expect_err("refused").to_string(),
            "attention_merge_f32: `inputs` has value 0, expected parts"
        );
    }
}
