//! A step of Adam for the rows of a table of which few have a gradient: those of the features that were active.
//!
//! With the feature's entries as [`super::sae_group`] has them, its gradient is g = rates\[0\] times the sum of coefs\[entry\]
//! inputs\[row\], rows counted from the start again behind the last one of inputs. A feature without entries is left as it is. For
//! the others, with n the steps since the last one that had entries, this one included (`sums[f, 2]`): v = beta2^n v + (1 - beta2) g^2,
//! m = beta1^n m + (1 - beta1) g, and `table[f] -= rates[1] m / (rates[2] sqrt(v) + eps)`.
//!
//! Where beta1 is 0 this is Adam to the letter: of a gradient of 0 the parameter does not move, and v shrinks by beta2 a step. Where it
//! is not, it is Adam but for the moves that m alone would make in steps without entries, which are not made.
//!
//! With [`Length::Unit`] a row that was moved is then divided by its length.

mod cases;
mod cpu;
mod reference;

use super::adam::{Adam, RATES};
use super::sae_feature_sums::{SUMS, entries_of, features_of};
use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Features of this launch.
    pub features: u32,
    /// Number of the first of them.
    pub first: u32,
    /// Rows of inputs.
    pub rows: u32,
    /// Length of a row.
    pub width: u32,
    /// 1 where the second moment alone is kept, 2 with the first behind it.
    pub count: u32,
    /// 1 where rows are brought to length 1.
    pub unit: u32,
    /// Logarithm of beta1 to base 2; 0 where beta1 is 0.
    pub log_keep1: f32,
    /// 1 - beta1.
    pub fresh1: f32,
    /// Logarithm of beta2 to base 2; -1000 where beta2 is 0, of which no step is left.
    pub log_keep2: f32,
    /// 1 - beta2.
    pub fresh2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    pad: u32,
}

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_adam_rows_f32",
    slots: &[
        Slot::update("table", DType::F32),
        Slot::update("moments", DType::F32),
        Slot::read("starts", DType::U32),
        Slot::read("order", DType::U32),
        Slot::read("coefs", DType::F32),
        Slot::read("inputs", DType::F32),
        Slot::read("sums", DType::F32),
        Slot::read("rates", DType::F32),
    ],
    fields: fields![
        Params; features, first, rows, width, count, unit, log_keep1, fresh1, log_keep2, fresh2, eps
    ],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sae_adam_rows.wgsl"), "sae_adam_rows_f32", [64, 1, 1], |params| {
        fold_groups(bytemuck::pod_read_unaligned::<Params>(params).features.into())
    })],
    ptx: &[Ptx {
        registers: 80,
        static_shared: 3_072,
        ..Ptx::new(include_str!("sae_adam_rows_f32.ptx"), "sae_adam_rows_f32", [256, 1, 1], |params, _| {
            fold_groups(bytemuck::pod_read_unaligned::<Params>(params).features.div_ceil(32).into())
        })
    }],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// What becomes of a row's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Nothing.
    Any,
    /// 1, by a division; rows of zeros stay zeros.
    Unit,
}

/// A step of Adam for the rows of a table.
#[derive(Clone, Copy, Debug)]
pub struct SaeAdamRows {
    /// The optimiser.
    pub adam: Adam,
    /// What becomes of a row's length.
    pub length: Length,
}

impl SaeAdamRows {
    /// Plans a step: table f32 `[features, width]` and moments f32 `[features, 1 or 2, width]` (the second moment, then the first
    /// where beta1 is not 0), both updated, starts u32 `[features + 1]`, order u32 `[entries, 2]`, coefs f32 of any shape with a
    /// number for every entry, inputs f32 `[rows, width]`, sums f32 `[features, 4]`, rates f32 `[4]`.
    pub fn plan(&self, inputs: [&TensorDesc; 8]) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        self.adam.check(op)?;
        let [table, moments, starts, order, coefs, given, sums, rates] = inputs;
        let (DType::F32, &[features, width]) = (table.dtype, table.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "table", table, "F32 [features, width]"));
        };
        let count = self.adam.moments();
        let kept = TensorDesc::f32([features, count, width]);
        ShapeError::expect(op, "moments", moments, &kept, "table; a moment, two where beta1 is not 0")?;
        if features_of(op, starts)? != features {
            let expected = format!("U32 [{}] (features of table, and one)", features + 1);
            return Err(ShapeError::tensor(op, "starts", starts, expected));
        }
        let entries = entries_of(op, order)?;
        if coefs.dtype != DType::F32 || coefs.elements() != entries {
            let expected = format!("F32 of {entries} elements (entries of order)");
            return Err(ShapeError::tensor(op, "coefs", coefs, expected));
        }
        let rows = match (given.dtype, given.shape.as_slice()) {
            (DType::F32, &[rows, w]) if w == width => rows,
            _ => {
                let expected = format!("F32 [rows, {width}] (last axis of table)");
                return Err(ShapeError::tensor(op, "inputs", given, expected));
            }
        };
        ShapeError::expect(op, "sums", sums, &TensorDesc::f32([features, SUMS]), "features of table")?;
        ShapeError::expect(op, "rates", rates, &TensorDesc::f32([RATES]), "what sae_clip yields")?;
        ShapeError::size(op, "elements of moments", moments.elements())?;
        ShapeError::size(op, "elements of inputs", given.elements())?;
        let Adam { beta1, beta2, eps } = self.adam;
        let params = Params {
            features: ShapeError::size(op, "features", features)?,
            first: 0,
            rows: ShapeError::size(op, "rows", rows)?,
            width: ShapeError::size(op, "width", width)?,
            count: ShapeError::size(op, "moments", count)?,
            unit: u32::from(self.length == Length::Unit),
            log_keep1: if beta1 == 0.0 { 0.0 } else { beta1.log2() as f32 },
            fresh1: (1.0 - beta1) as f32,
            log_keep2: if beta2 == 0.0 { -1000.0 } else { beta2.log2() as f32 },
            fresh2: (1.0 - beta2) as f32,
            eps,
            pad: 0,
        };
        // at most: where every entry is of a feature of its own
        let touched = entries.min(features) * width * 4;
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (touched * 2 * (1 + count)
                    + starts.bytes()
                    + order.bytes()
                    + coefs.bytes()
                    + given.bytes()) as u64,
                flops: (2 * entries * width + 12 * touched / 4) as u64,
            },
            slots: inputs.into_iter().cloned().map(Some).collect(),
            splits: vec![Split {
                items: features,
                count_at: std::mem::offset_of!(Params, features),
                first_at: Some(std::mem::offset_of!(Params, first)),
                item_bytes: vec![4 * width, 4 * count * width, 0, 0, 0, 0, 4 * SUMS, 0],
            }],
        })
    }
}

impl Op for SaeAdamRows {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[
            Some(table),
            Some(moments),
            Some(starts),
            Some(order),
            Some(coefs),
            Some(given),
            Some(sums),
            Some(rates),
        ] = inputs
        else {
            let expected = "table, moments, starts, order, coefs, inputs, sums, rates";
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), expected));
        };
        self.plan([table, moments, starts, order, coefs, given, sums, rates])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let good = [
            TensorDesc::f32([7, 5]),
            TensorDesc::f32([7, 1, 5]),
            TensorDesc::u32([8]),
            TensorDesc::u32([6, 2]),
            TensorDesc::f32([6]),
            TensorDesc::f32([3, 5]),
            TensorDesc::f32([7, 4]),
            TensorDesc::f32([4]),
        ];
        let adam = Adam { beta1: 0.0, beta2: 0.999, eps: 1e-8 };
        let op = SaeAdamRows { adam, length: Length::Any };
        assert!(op.plan(good.each_ref()).is_ok());
        let text = |at: usize, desc: TensorDesc| {
            let mut inputs = good.clone();
            inputs[at] = desc;
            op.plan(inputs.each_ref()).expect_err("refused").to_string()
        };
        let name = "sae_adam_rows_f32";
        for (at, desc, want) in [
            (0, TensorDesc::f32([35]), "`table` has type and shape F32 [35], expected F32 [features, width]"),
            (
                1,
                TensorDesc::f32([7, 2, 5]),
                "`moments` has type and shape F32 [7, 2, 5], expected F32 [7, 1, 5] (table; a moment, two where beta1 is not 0)",
            ),
            (
                2,
                TensorDesc::u32([7]),
                "`starts` has type and shape U32 [7], expected U32 [8] (features of table, and one)",
            ),
            (
                4,
                TensorDesc::f32([5]),
                "`coefs` has type and shape F32 [5], expected F32 of 6 elements (entries of order)",
            ),
            (
                5,
                TensorDesc::f32([3, 4]),
                "`inputs` has type and shape F32 [3, 4], expected F32 [rows, 5] (last axis of table)",
            ),
            (
                6,
                TensorDesc::f32([7, 3]),
                "`sums` has type and shape F32 [7, 3], expected F32 [7, 4] (features of table)",
            ),
            (
                7,
                TensorDesc::f32([3]),
                "`rates` has type and shape F32 [3], expected F32 [4] (what sae_clip yields)",
            ),
        ] {
            assert_eq!(text(at, desc), format!("{name}: {want}"));
        }
        let op: &dyn Op = &op;
        assert_eq!(
            op.plan(&[None]).expect_err("refused").to_string(),
            format!(
                "{name}: `inputs` has value 1, expected table, moments, starts, order, coefs, inputs, sums, rates"
            )
        );
    }
}
