//! Sums of columns and of their squares, over groups of rows.
//!
//! Of a group's rows all but the first `skip` count:
//! `sum[g, c] = sum_s (x[g * steps + s, c] - shift[c])`, `squares[g, c] = sum_s (x[g * steps + s, c] - shift[c])^2`,
//! `skip <= s < steps`; without a shift nothing is subtracted.

mod cases;
mod reference;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Groups of rows.
    pub groups: u32,
    /// Rows of a group.
    pub steps: u32,
    /// Row length.
    pub cols: u32,
    /// Rows at a group's start that do not count.
    pub skip: u32,
    /// 1 with a shift, 0 without.
    pub has_shift: u32,
    pad: [u32; 3],
}

/// Columns of a workgroup and of a block.
const BLOCK: u32 = 64;

/// Workgroups: a group's columns in blocks, one group behind the other.
fn blocks(params: &[u8]) -> u64 {
    let p: Params = bytemuck::pod_read_unaligned(params);
    u64::from(p.groups) * u64::from(p.cols.div_ceil(BLOCK))
}

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "column_sums_f32",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::maybe("shift", DType::F32),
        Slot::write("sum", DType::F32),
        Slot::write("squares", DType::F32),
    ],
    fields: fields![Params; groups, steps, cols, skip, has_shift],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("column_sums.wgsl"), "column_sums_f32", [BLOCK, 1, 1], |params| {
        fold_groups(blocks(params))
    })],
    ptx: &[Ptx {
        registers: 40,
        ..Ptx::new(include_str!("column_sums_f32.ptx"), "column_sums_f32", [BLOCK, 1, 1], |params, _| {
            [u32::try_from(blocks(params)).expect("plan() counts them in 32 bits"), 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// Sums of columns and of their squares.
#[derive(Clone, Copy, Debug)]
pub struct ColumnSums {
    /// Groups of rows; the rows of x are a multiple.
    pub groups: usize,
    /// Rows at the start of each group that do not count.
    pub skip: usize,
}

impl ColumnSums {
    /// Plans sum and squares f32 `[groups, cols]` from x f32 `[groups * steps, cols]` and shift f32 `[cols]`.
    pub fn plan(&self, x: &TensorDesc, shift: Option<&TensorDesc>) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[rows, cols]) = (x.dtype, x.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "x", x, "F32 [rows, cols]"));
        };
        if let Some(shift) = shift {
            ShapeError::expect(op, "shift", shift, &TensorDesc::f32([cols]), "last axis of x")?;
        }
        if self.groups == 0 || rows == 0 || !rows.is_multiple_of(self.groups) {
            let expected = format!("a divisor of {rows}, the rows of x, above 0");
            return Err(ShapeError::value(op, "groups", self.groups, expected));
        }
        let steps = rows / self.groups;
        if self.skip > steps {
            return Err(ShapeError::value(
                op,
                "skip",
                self.skip,
                format!("at most {steps}, the rows of a group"),
            ));
        }
        ShapeError::size(op, "elements of x", x.elements())?;
        let params = Params {
            groups: ShapeError::size(op, "groups", self.groups)?,
            steps: ShapeError::size(op, "steps", steps)?,
            cols: ShapeError::size(op, "cols", cols)?,
            skip: ShapeError::size(op, "skip", self.skip)?,
            has_shift: u32::from(shift.is_some()),
            pad: [0; 3],
        };
        ShapeError::size(op, "blocks of columns", self.groups * cols.div_ceil(BLOCK as usize))?;
        let y = TensorDesc::f32([self.groups, cols]);
        let counted = (steps - self.skip) * self.groups * cols;
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (4 * counted + shift.map_or(0, TensorDesc::bytes) + 2 * y.bytes()) as u64,
                flops: 4 * counted as u64,
            },
            splits: vec![Split {
                items: self.groups,
                count_at: std::mem::offset_of!(Params, groups),
                first_at: None,
                item_bytes: vec![4 * steps * cols, 0, 4 * cols, 4 * cols],
            }],
            slots: vec![Some(x.clone()), shift.cloned(), Some(y.clone()), Some(y)],
        })
    }
}

impl Op for ColumnSums {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), shift] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "x, shift?"));
        };
        self.plan(x, shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let x = TensorDesc::f32([6, 5]);
        let text = |groups, skip, x: &TensorDesc, shift: Option<&TensorDesc>| {
            ColumnSums { groups, skip }.plan(x, shift).expect_err("refused").to_string()
        };
        assert_eq!(
            text(2, 0, &TensorDesc::f32([6]), None),
            "column_sums_f32: `x` has type and shape F32 [6], expected F32 [rows, cols]"
        );
        assert_eq!(
            text(2, 0, &x, Some(&TensorDesc::f32([6]))),
            "column_sums_f32: `shift` has type and shape F32 [6], expected F32 [5] (last axis of x)"
        );
        assert_eq!(
            text(4, 0, &x, None),
            "column_sums_f32: `groups` has value 4, expected a divisor of 6, the rows of x, above 0"
        );
        assert_eq!(
            text(2, 0, &TensorDesc::f32([0, 5]), None),
            "column_sums_f32: `groups` has value 2, expected a divisor of 0, the rows of x, above 0"
        );
        assert_eq!(
            text(2, 4, &x, None),
            "column_sums_f32: `skip` has value 4, expected at most 3, the rows of a group"
        );
        let op: &dyn Op = &ColumnSums { groups: 1, skip: 0 };
        assert_eq!(
            op.plan(&[Some(&x)]).expect_err("refused").to_string(),
            "column_sums_f32: `inputs` has value 1, expected x, shift?"
        );
    }
}
