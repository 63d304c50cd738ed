//! The active features of a batch, turned round: for every feature the rows in which it is active, in order.
//!
//! An entry is a place of `indices` and `values`; it is active where its value is above 0. Entries `r k .. (r + 1) k` are those of
//! row r. A second table of `aux_k` places a row may lie behind them, from [`SaeGroup::second`] on; its rows count from `rows` on. In
//! one row of one table a feature is active once at most. Feature f's entries are `order[starts[f]] .. order[starts[f + 1]]`, each
//! as (entry, row), by row; behind the last of all, `order` is 0xffffffff.

mod cases;
mod reference;

pub(crate) use cases::{Grouped, grouped};

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Features there are.
    pub features: u32,
    /// Rows of either table.
    pub rows: u32,
    /// Places of a row.
    pub k: u32,
    /// Places of a row of the second table; 0 without it.
    pub aux_k: u32,
    /// First entry of the second table.
    pub second: u32,
    /// Entries there are, those between the tables among them.
    pub entries: u32,
    pad: [u32; 2],
}

/// Features of a workgroup.
const RANGE: u32 = 2048;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_group_u32",
    slots: &[
        Slot::read("indices", DType::U32),
        Slot::read("values", DType::F32),
        Slot::write("starts", DType::U32),
        Slot::write("order", DType::U32),
    ],
    fields: fields![Params; features, rows, k, aux_k, second, entries],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sae_group.wgsl"), "sae_group_u32", [256, 1, 1], |params| {
        fold_groups(bytemuck::pod_read_unaligned::<Params>(params).features.div_ceil(RANGE).max(1).into())
    })],
    ptx: &[Ptx {
        registers: 40,
        static_shared: 33_056,
        ..Ptx::new(include_str!("sae_group_u32.ptx"), "sae_group_u32", [1024, 1, 1], |params, _| {
            [bytemuck::pod_read_unaligned::<Params>(params).features.div_ceil(256).max(1), 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// The active features of a batch, turned round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SaeGroup {
    /// Features there are.
    pub features: usize,
    /// Rows of the batch.
    pub rows: usize,
    /// Places of a row.
    pub k: usize,
    /// Places of a row of the second table; 0 without it.
    pub aux_k: usize,
}

impl SaeGroup {
    /// First entry of the second table: places of its own for every row of the first, in multiples of 64, so that devices can
    /// bind it.
    pub fn second(&self) -> usize {
        (self.rows * self.k).next_multiple_of(64)
    }

    /// Entries of both tables, and of what lies between them.
    pub fn entries(&self) -> usize {
        if self.aux_k == 0 { self.rows * self.k } else { self.second() + self.rows * self.aux_k }
    }

    /// Plans the turn: indices u32 and values f32 of any shape with [`Self::entries`] elements, starts u32 `[features + 1]`,
    /// order u32 `[entries, 2]`.
    pub fn plan(&self, indices: &TensorDesc, values: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let entries = self.entries();
        for (name, desc, dtype) in [("indices", indices, DType::U32), ("values", values, DType::F32)] {
            if desc.dtype != dtype || desc.elements() != entries {
                let expected = format!("{dtype} of {entries} elements ({self:?})");
                return Err(ShapeError::tensor(op, name, desc, expected));
            }
        }
        ShapeError::size(op, "elements of order", 2 * entries)?;
        let params = Params {
            features: ShapeError::size(op, "features", self.features)?,
            rows: ShapeError::size(op, "rows", self.rows)?,
            k: ShapeError::size(op, "k", self.k)?,
            aux_k: ShapeError::size(op, "aux_k", self.aux_k)?,
            second: ShapeError::size(op, "second", self.second())?,
            entries: ShapeError::size(op, "entries", entries)?,
            pad: [0; 2],
        };
        let starts = TensorDesc::u32([self.features + 1]);
        let order = TensorDesc::u32([entries, 2]);
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (indices.bytes() + values.bytes() + starts.bytes() + order.bytes()) as u64,
                flops: 0,
            },
            slots: vec![Some(indices.clone()), Some(values.clone()), Some(starts), Some(order)],
            splits: vec![],
        })
    }
}

impl Op for SaeGroup {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(indices), Some(values)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "indices, values"));
        };
        self.plan(indices, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let group = SaeGroup { features: 9, rows: 3, k: 5, aux_k: 0 };
        let text = |group: SaeGroup, indices: &TensorDesc, values: &TensorDesc| {
            group.plan(indices, values).expect_err("refused").to_string()
        };
        let (indices, values) = (TensorDesc::u32([3, 5]), TensorDesc::f32([3, 5]));
        assert_eq!(
            text(group, &values, &values),
            "sae_group_u32: `indices` has type and shape F32 [3, 5], expected U32 of 15 elements (SaeGroup { features: 9, rows: \
             3, k: 5, aux_k: 0 })"
        );
        assert_eq!(
            text(SaeGroup { aux_k: 2, ..group }, &TensorDesc::u32([70]), &values),
            "sae_group_u32: `values` has type and shape F32 [3, 5], expected F32 of 70 elements (SaeGroup { features: 9, rows: \
             3, k: 5, aux_k: 2 })"
        );
        let op: &dyn Op = &group;
        assert_eq!(
            op.plan(&[Some(&indices)]).expect_err("refused").to_string(),
            "sae_group_u32: `inputs` has value 1, expected indices, values"
        );
    }
}
