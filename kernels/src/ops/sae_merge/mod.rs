//! The best of what the encoder of a sparse autoencoder found in parts of its features.
//!
//! Each row has lists of k features and values, as [`SaeEncodeParts`](super::sae_encode::SaeEncodeParts) writes them: values above 0 in
//! order, then zeros, or all of them NaN; the features of a list come before those of the next.
//!
//! ```text
//! indices[r], values[r] = the k largest values above 0 of all lists of row r, by value descending; of equals the smaller index first
//! ```
//!
//! Where fewer than k are above 0, index 0 and value 0 fill the row. A row with a list of NaN has values NaN and indices 0. So it writes
//! what one list of all features would be.
//!
//! Lists are in order, so that how many of a list are at least some value is found by halving. The k-th largest value of all is
//! made bit by bit from the top: a bit stays where at least k values remain.

mod cases;
mod reference;

use super::sae_encode::{MOST_K, MOST_PARTS};
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
    /// Lists a row.
    pub parts: u32,
    /// Places of a list, and of a row.
    pub k: u32,
    pad: u32,
}

/// Threads of a block of the PTX form, invocations of a workgroup: each has a list, and either makes a row.
const BLOCK: u32 = 256;
/// Blocks along x at most.
const PTX_GRID_X: u32 = i32::MAX.unsigned_abs();

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_merge_f32",
    slots: &[
        Slot::read("part_indices", DType::U32),
        Slot::read("part_values", DType::F32),
        Slot::write("indices", DType::U32),
        Slot::write("values", DType::F32),
    ],
    fields: fields![Params; rows, parts, k],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sae_merge.wgsl"), "sae_merge_f32", [BLOCK, 1, 1], |params| {
        fold_groups(bytemuck::pod_read_unaligned::<Params>(params).rows.into())
    })],
    ptx: &[Ptx {
        registers: 40,
        static_shared: 8384,
        ..Ptx::new(include_str!("sae_merge_f32.ptx"), "sae_merge_f32", [BLOCK, 1, 1], |params, _| {
            let rows = bytemuck::pod_read_unaligned::<Params>(params).rows;
            [rows.min(PTX_GRID_X), rows.div_ceil(PTX_GRID_X), 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// The best of the lists of each row.
#[derive(Clone, Copy, Debug)]
pub struct SaeMerge;

impl SaeMerge {
    /// Plans indices u32 and values f32 `[rows, k]` from indices u32 and values f32 `[rows, parts, k]`, at most 256 parts of 1024.
    pub fn plan(&self, part_indices: &TensorDesc, part_values: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (rows, parts, k) = match (part_values.dtype, part_values.shape.as_slice()) {
            (DType::F32, &[rows, parts @ 1..=MOST_PARTS, k @ 1..=MOST_K]) => (rows, parts, k),
            _ => {
                let expected = format!("F32 [rows, 1 to {MOST_PARTS}, 1 to {MOST_K}]");
                return Err(ShapeError::tensor(op, "part_values", part_values, expected));
            }
        };
        let expected = TensorDesc::u32([rows, parts, k]);
        ShapeError::expect(op, "part_indices", part_indices, &expected, "as part_values")?;
        ShapeError::size(op, "elements of part_values", part_values.elements())?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            parts: ShapeError::size(op, "parts", parts)?,
            k: ShapeError::size(op, "k", k)?,
            pad: 0,
        };
        let (indices, values) = (TensorDesc::u32([rows, k]), TensorDesc::f32([rows, k]));
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            // lists are read as far as they are among the best, and where halves of them begin
            cost: Cost { bytes: (part_values.bytes() + 3 * values.bytes()) as u64, flops: 0 },
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * parts * k, 4 * parts * k, 4 * k, 4 * k],
            }],
            slots: vec![Some(part_indices.clone()), Some(part_values.clone()), Some(indices), Some(values)],
        })
    }
}

impl Op for SaeMerge {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(part_indices), Some(part_values)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "part_indices, part_values"));
        };
        self.plan(part_indices, part_values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |indices: &[usize], values: &TensorDesc| {
            SaeMerge.plan(&TensorDesc::u32(indices), values).expect_err("refused").to_string()
        };
        for [parts, k] in [[0, 7], [257, 7], [4, 0], [4, 1025]] {
            assert_eq!(
                text(&[3, parts, k], &TensorDesc::f32([3, parts, k])),
                format!(
                    "sae_merge_f32: `part_values` has type and shape F32 [3, {parts}, {k}], expected F32 [rows, 1 to 256, 1 to 1024]"
                )
            );
        }
        assert_eq!(
            text(&[3, 4, 8], &TensorDesc::f32([3, 4, 7])),
            "sae_merge_f32: `part_indices` has type and shape U32 [3, 4, 8], expected U32 [3, 4, 7] (as part_values)"
        );
        let op: &dyn Op = &SaeMerge;
        assert_eq!(
            op.plan(&[None]).expect_err("refused").to_string(),
            "sae_merge_f32: `inputs` has value 1, expected part_indices, part_values"
        );
    }
}
