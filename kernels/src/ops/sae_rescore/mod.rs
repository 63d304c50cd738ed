//! The second half of the encoder of a sparse autoencoder in half precision: the features that
//! [`SaeScreen`](super::sae_screen::SaeScreen) found, computed in f32, and the best of them kept.
//!
//! ```text
//! pre[r, i] = sum_c x[r, c] weight[candidates[r, i], c] + bias[candidates[r, i]]
//! indices[r], values[r] = the k largest max(pre[r], 0), by value descending; of equals the smaller index first
//! ```
//!
//! The candidates of a row are different features; one past the table is none. Where fewer than k are above 0, index 0 and value 0
//! fill the row. A row that has a pre-activation which is not a number has values NaN and indices 0. So it writes what
//! [`SaeEncode`](super::sae_encode::SaeEncode) writes, wherever the k best are among the candidates.
//!
//! Every value that is written is of f32, not the near ties alone: a candidate's row of 1,024 columns is 4 KiB, so that 141 of
//! each of 65,536 rows are 38 GB: 8 ms at 4.8 TB/s where no cache helps, beside 7 ms for a screen of 32,768 features at 600
//! TFLOP/s, and 44 ms in f32 out of three products in tf32 at 300. Near ties alone would be less than half of that, but leave
//! values that are off by a thousandth.

mod cases;
mod cpu;
mod reference;

use super::{sae_encode::MOST_K, sae_screen::MOST_SCREENED};
use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows of x, candidates, indices and values.
    pub rows: u32,
    /// Row length of x and weight.
    pub width: u32,
    /// Rows of weight.
    pub features: u32,
    /// Candidates a row.
    pub screened: u32,
    /// Features a row that are kept.
    pub k: u32,
    pad: [u32; 3],
}

/// Threads of a block of the PTX form, invocations of a workgroup: either makes a row.
const BLOCK: u32 = 256;
/// Blocks along x at most.
const PTX_GRID_X: u32 = i32::MAX.unsigned_abs();

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_rescore_f32",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::read("weight", DType::F32),
        Slot::read("bias", DType::F32),
        Slot::read("candidates", DType::U32),
        Slot::write("indices", DType::U32),
        Slot::write("values", DType::F32),
    ],
    fields: fields![Params; rows, width, features, screened, k],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sae_rescore.wgsl"), "sae_rescore_f32", [BLOCK, 1, 1], |params| {
        fold_groups(bytemuck::pod_read_unaligned::<Params>(params).rows.into())
    })],
    ptx: &[Ptx {
        registers: 40,
        static_shared: 12_288,
        ..Ptx::new(include_str!("sae_rescore_f32.ptx"), "sae_rescore_f32", [BLOCK, 1, 1], |params, _| {
            let rows = bytemuck::pod_read_unaligned::<Params>(params).rows;
            [rows.min(PTX_GRID_X), rows.div_ceil(PTX_GRID_X), 1]
        })
    }],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// The best of some candidates of each row.
#[derive(Clone, Copy, Debug)]
pub struct SaeRescore {
    /// Features a row that are kept: 1 to 1024, at most as many as there are candidates.
    pub k: usize,
}

impl SaeRescore {
    /// Plans indices u32 and values f32 `[rows, k]` from x f32 `[rows, width]`, weight f32 `[features, width]`, bias f32
    /// `[features]` and candidates u32 `[rows, screened]`, at most 1536 a row.
    pub fn plan(
        &self,
        x: &TensorDesc,
        weight: &TensorDesc,
        bias: &TensorDesc,
        candidates: &TensorDesc,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[rows, width @ (1..)]) = (x.dtype, x.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "x", x, "F32 [rows, width] with a column or more"));
        };
        let features = match (weight.dtype, weight.shape.as_slice()) {
            (DType::F32, &[features @ (1..), w]) if w == width => features,
            _ => {
                let expected = format!("F32 [features, {width}] (last axis of x) with a feature or more");
                return Err(ShapeError::tensor(op, "weight", weight, expected));
            }
        };
        ShapeError::expect(op, "bias", bias, &TensorDesc::f32([features]), "first axis of weight")?;
        let screened = match (candidates.dtype, candidates.shape.as_slice()) {
            (DType::U32, &[r, screened]) if r == rows && (1..=MOST_SCREENED).contains(&screened) => screened,
            _ => {
                let expected = format!("U32 [{rows}, 1 to {MOST_SCREENED}] (rows of x)");
                return Err(ShapeError::tensor(op, "candidates", candidates, expected));
            }
        };
        let most = MOST_K.min(screened);
        if !(1..=most).contains(&self.k) {
            let expected = format!("1 to {most} (candidates of a row, at most {MOST_K})");
            return Err(ShapeError::value(op, "k", self.k, expected));
        }
        let k = self.k;
        ShapeError::size(op, "elements of x", x.elements())?;
        ShapeError::size(op, "elements of weight", weight.elements())?;
        ShapeError::size(op, "elements of candidates", candidates.elements())?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            width: ShapeError::size(op, "width", width)?,
            features: ShapeError::size(op, "features", features)?,
            screened: ShapeError::size(op, "screened", screened)?,
            k: ShapeError::size(op, "k", k)?,
            pad: [0; 3],
        };
        let (indices, values) = (TensorDesc::u32([rows, k]), TensorDesc::f32([rows, k]));
        // rows of weight that are read, at most
        let touched = candidates.elements().min(features) * (width + 1) * 4;
        let known = x.bytes() + candidates.bytes() + indices.bytes() + values.bytes();
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (known + touched) as u64,
                flops: 2 * candidates.elements() as u64 * width as u64,
            },
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * width, 0, 0, 4 * screened, 4 * k, 4 * k],
            }],
            slots: vec![
                Some(x.clone()),
                Some(weight.clone()),
                Some(bias.clone()),
                Some(candidates.clone()),
                Some(indices),
                Some(values),
            ],
        })
    }
}

impl Op for SaeRescore {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), Some(weight), Some(bias), Some(candidates)] = inputs else {
            let expected = "x, weight, bias, candidates";
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), expected));
        };
        self.plan(x, weight, bias, candidates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let text = |k, x: &[usize], weight: &[usize], bias: usize, candidates: &[usize]| {
            let [x, weight] = [x, weight].map(TensorDesc::f32);
            let plan =
                SaeRescore { k }.plan(&x, &weight, &TensorDesc::f32([bias]), &TensorDesc::u32(candidates));
            plan.expect_err("refused").to_string()
        };
        assert_eq!(
            text(2, &[3, 0], &[7, 0], 7, &[3, 4]),
            "sae_rescore_f32: `x` has type and shape F32 [3, 0], expected F32 [rows, width] with a column or more"
        );
        assert_eq!(
            text(2, &[3, 5], &[0, 5], 0, &[3, 4]),
            "sae_rescore_f32: `weight` has type and shape F32 [0, 5], expected F32 [features, 5] (last axis of x) with a \
             feature or more"
        );
        assert_eq!(
            text(2, &[3, 5], &[7, 5], 5, &[3, 4]),
            "sae_rescore_f32: `bias` has type and shape F32 [5], expected F32 [7] (first axis of weight)"
        );
        for candidates in [[2, 4], [3, 0], [3, 1537]] {
            assert_eq!(
                text(2, &[3, 5], &[7, 5], 7, &candidates),
                format!(
                    "sae_rescore_f32: `candidates` has type and shape U32 {candidates:?}, expected U32 [3, 1 to 1536] (rows \
                     of x)"
                )
            );
        }
        for (k, screened, most) in [(0, 4, 4), (5, 4, 4), (1025, 1500, 1024)] {
            assert_eq!(
                text(k, &[3, 5], &[7, 5], 7, &[3, screened]),
                format!(
                    "sae_rescore_f32: `k` has value {k}, expected 1 to {most} (candidates of a row, at most 1024)"
                )
            );
        }
        let op: &dyn Op = &SaeRescore { k: 4 };
        assert_eq!(
            op.plan(&[]).expect_err("refused").to_string(),
            "sae_rescore_f32: `inputs` has value 0, expected x, weight, bias, candidates"
        );
    }
}
