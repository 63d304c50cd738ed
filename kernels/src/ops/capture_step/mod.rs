//! Rows of a tensor, kept in a ring of columns: what a site held while takes play.
//!
//! `history[r, positions[r] % columns, c] = x[r, c]`. The ring is updated in place; nothing else of it changes.

mod cases;
mod reference;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows of x.
    pub rows: u32,
    /// Row length.
    pub cols: u32,
    /// Columns of a row's ring.
    pub columns: u32,
    pad: u32,
}

/// Invocations of a workgroup, threads of a block.
const BLOCK: u32 = 256;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "capture_step_f32",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::read("positions", DType::U32),
        Slot::update("history", DType::F32),
    ],
    fields: fields![Params; rows, cols, columns],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("capture_step.wgsl"), "capture_step_f32", [BLOCK, 1, 1], |params| {
        let p: Params = bytemuck::pod_read_unaligned(params);
        fold_groups((u64::from(p.rows) * u64::from(p.cols)).div_ceil(BLOCK.into()))
    })],
    ptx: &[Ptx {
        registers: 24,
        ..Ptx::new(include_str!("capture_step_f32.ptx"), "capture_step_f32", [BLOCK, 1, 1], |params, _| {
            let p: Params = bytemuck::pod_read_unaligned(params);
            [(p.rows * p.cols).div_ceil(BLOCK), 1, 1]
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

/// Rows of a tensor, kept in a ring of columns.
#[derive(Clone, Copy, Debug)]
pub struct CaptureStep;

impl CaptureStep {
    /// Plans the update of history f32 `[rows, columns, cols]` by x f32 `[rows, cols]`, at positions u32 `[rows]`.
    pub fn plan(
        &self,
        x: &TensorDesc,
        positions: &TensorDesc,
        history: &TensorDesc,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[rows, cols]) = (x.dtype, x.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "x", x, "F32 [rows, cols]"));
        };
        ShapeError::expect(op, "positions", positions, &TensorDesc::u32([rows]), "rows of x")?;
        let columns = match (history.dtype, history.shape.as_slice()) {
            (DType::F32, &[r, columns @ (1..), c]) if r == rows && c == cols => columns,
            _ => {
                let expected = format!("F32 [{rows}, a column or more, {cols}] (rows and columns of x)");
                return Err(ShapeError::tensor(op, "history", history, expected));
            }
        };
        ShapeError::size(op, "elements of history", history.elements())?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            cols: ShapeError::size(op, "cols", cols)?,
            columns: ShapeError::size(op, "columns", columns)?,
            pad: 0,
        };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost { bytes: (2 * x.bytes() + positions.bytes()) as u64, flops: 0 },
            // a row's item is long, and there are few rows: never cut
            splits: vec![],
            slots: vec![Some(x.clone()), Some(positions.clone()), Some(history.clone())],
        })
    }
}

impl Op for CaptureStep {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), Some(positions), Some(history)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "x, positions, history"));
        };
        self.plan(x, positions, history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let (x, at) = (TensorDesc::f32([3, 5]), TensorDesc::u32([3]));
        let history = TensorDesc::f32([3, 4, 5]);
        let text = |x: &TensorDesc, at: &TensorDesc, history: &TensorDesc| {
            CaptureStep.plan(x, at, history).expect_err("refused").to_string()
        };
        assert_eq!(
            text(&at, &at, &history),
            "capture_step_f32: `x` has type and shape U32 [3], expected F32 [rows, cols]"
        );
        assert_eq!(
            text(&x, &TensorDesc::u32([5]), &history),
            "capture_step_f32: `positions` has type and shape U32 [5], expected U32 [3] (rows of x)"
        );
        for wrong in [[3, 0, 5], [2, 4, 5], [3, 4, 6]] {
            assert_eq!(
                text(&x, &at, &TensorDesc::f32(wrong)),
                format!(
                    "capture_step_f32: `history` has type and shape F32 {wrong:?}, expected F32 [3, a column or \
                     more, 5] (rows and columns of x)"
                )
            );
        }
        let op: &dyn Op = &CaptureStep;
        assert_eq!(
            op.plan(&[Some(&x)]).expect_err("refused").to_string(),
            "capture_step_f32: `inputs` has value 1, expected x, positions, history"
        );
    }
}
