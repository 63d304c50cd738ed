//! What a step of training asks of every feature before it moves: how long its gradient is, its bias's gradient, how often it was
//! active, and how long ago it last moved.
//!
//! With the feature's entries as [`super::sae_group`] has them, each of row r with a value v and a gradient g: the gradient of its row
//! of the decoder is the sum of v error\[r\], of its column of the encoder the sum of g x\[r\], of its bias the sum of g; x has a row for
//! every row of one table, so that rows of a second one begin from its start. `sums[f]` is the sum of the squares of all three, the
//! bias's gradient, the steps since the feature last had an entry, this one included, and how many entries it has.
//!
//! `history[f]` is, at the end, the steps since the feature had an entry, those since it had one in the first table, and the number of
//! all it had there: 0, 0 and so many more, or one more, one more and the same.

mod cases;
mod cpu;
mod reference;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Numbers of a row of `sums`: squares of the gradient, gradient of the bias, steps since the last entry, entries.
pub const SUMS: usize = 4;
/// Numbers of a row of `history`: steps since the last entry, since the last of the first table, entries of the first table.
pub const HISTORY: usize = 3;

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Features of this launch.
    pub features: u32,
    /// Number of the first of them.
    pub first: u32,
    /// Rows of x: rows of a batch.
    pub rows: u32,
    /// Length of a row.
    pub width: u32,
}

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_feature_sums_f32",
    slots: &[
        Slot::read("starts", DType::U32),
        Slot::read("order", DType::U32),
        Slot::read("values", DType::F32),
        Slot::read("grads", DType::F32),
        Slot::read("x", DType::F32),
        Slot::read("error", DType::F32),
        Slot::update("history", DType::U32),
        Slot::write("sums", DType::F32),
    ],
    fields: fields![Params; features, first, rows, width],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sae_feature_sums.wgsl"), "sae_feature_sums_f32", [64, 1, 1], |params| {
        fold_groups(bytemuck::pod_read_unaligned::<Params>(params).features.into())
    })],
    ptx: &[Ptx {
        registers: 80,
        static_shared: 5120,
        ..Ptx::new(
            include_str!("sae_feature_sums_f32.ptx"),
            "sae_feature_sums_f32",
            [256, 1, 1],
            |params, _| {
                fold_groups(bytemuck::pod_read_unaligned::<Params>(params).features.div_ceil(32).into())
            },
        )
    }],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// What a step of training asks of every feature.
#[derive(Clone, Copy, Debug)]
pub struct SaeFeatureSums;

impl SaeFeatureSums {
    /// Plans the sums: starts u32 `[features + 1]`, order u32 `[entries, 2]`, values and grads f32 of any shape with a number for
    /// every entry, x f32 `[rows, width]`, error f32 `[rows or 2 rows, width]`, history u32 `[features, 3]` updated, sums f32
    /// `[features, 4]`.
    pub fn plan(&self, inputs: [&TensorDesc; 7]) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let [starts, order, values, grads, x, error, history] = inputs;
        let features = features_of(op, starts)?;
        let entries = entries_of(op, order)?;
        for (name, desc) in [("values", values), ("grads", grads)] {
            if desc.dtype != DType::F32 || desc.elements() != entries {
                let expected = format!("F32 of {entries} elements (entries of order)");
                return Err(ShapeError::tensor(op, name, desc, expected));
            }
        }
        let (DType::F32, &[rows, width]) = (x.dtype, x.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "x", x, "F32 [rows, width]"));
        };
        match (error.dtype, error.shape.as_slice()) {
            (DType::F32, &[n, w]) if w == width && (n == rows || n == 2 * rows) => (),
            _ => {
                let expected = format!("F32 [{rows} or twice as many, {width}] (x, of one table or two)");
                return Err(ShapeError::tensor(op, "error", error, expected));
            }
        }
        let counts = TensorDesc::u32([features, HISTORY]);
        ShapeError::expect(op, "history", history, &counts, "features of starts, counts of a feature")?;
        ShapeError::size(op, "elements of error", error.elements())?;
        ShapeError::size(op, "elements of order", order.elements())?;
        let params = Params {
            features: ShapeError::size(op, "features", features)?,
            first: 0,
            rows: ShapeError::size(op, "rows", rows)?,
            width: ShapeError::size(op, "width", width)?,
        };
        let sums = TensorDesc::f32([features, SUMS]);
        let item_bytes = vec![0, 0, 0, 0, 0, 0, 4 * HISTORY, 4 * SUMS];
        let mut slots: Vec<Option<TensorDesc>> = inputs.into_iter().cloned().map(Some).collect();
        let read: usize = inputs.iter().map(|desc| desc.bytes()).sum();
        let cost = Cost {
            bytes: (read + history.bytes() + sums.bytes()) as u64,
            flops: (4 * entries * width) as u64,
        };
        slots.push(Some(sums));
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            slots,
            cost,
            splits: vec![Split {
                items: features,
                count_at: std::mem::offset_of!(Params, features),
                first_at: Some(std::mem::offset_of!(Params, first)),
                item_bytes,
            }],
        })
    }
}

/// Features that `starts` is of.
pub(crate) fn features_of(op: &'static str, starts: &TensorDesc) -> Result<usize, ShapeError> {
    match (starts.dtype, starts.shape.as_slice()) {
        (DType::U32, &[places]) if places > 0 => Ok(places - 1),
        _ => Err(ShapeError::tensor(op, "starts", starts, "U32 [features + 1]")),
    }
}

/// Entries that `order` has.
pub(crate) fn entries_of(op: &'static str, order: &TensorDesc) -> Result<usize, ShapeError> {
    match (order.dtype, order.shape.as_slice()) {
        (DType::U32, &[entries, 2]) => Ok(entries),
        _ => Err(ShapeError::tensor(op, "order", order, "U32 [entries, 2]")),
    }
}

impl Op for SaeFeatureSums {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(starts), Some(order), Some(values), Some(grads), Some(x), Some(error), Some(history)] =
            inputs
        else {
            let expected = "starts, order, values, grads, x, error, history";
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), expected));
        };
        self.plan([starts, order, values, grads, x, error, history])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let good = [
            TensorDesc::u32([8]),
            TensorDesc::u32([6, 2]),
            TensorDesc::f32([3, 2]),
            TensorDesc::f32([3, 2]),
            TensorDesc::f32([3, 5]),
            TensorDesc::f32([6, 5]),
            TensorDesc::u32([7, 3]),
        ];
        assert!(SaeFeatureSums.plan(good.each_ref()).is_ok());
        let text = |at: usize, desc: TensorDesc| {
            let mut inputs = good.clone();
            inputs[at] = desc;
            SaeFeatureSums.plan(inputs.each_ref()).expect_err("refused").to_string()
        };
        let name = "sae_feature_sums_f32";
        assert_eq!(
            text(0, TensorDesc::u32([0])),
            format!("{name}: `starts` has type and shape U32 [0], expected U32 [features + 1]")
        );
        assert_eq!(
            text(1, TensorDesc::u32([12])),
            format!("{name}: `order` has type and shape U32 [12], expected U32 [entries, 2]")
        );
        assert_eq!(
            text(3, TensorDesc::f32([3, 3])),
            format!(
                "{name}: `grads` has type and shape F32 [3, 3], expected F32 of 6 elements (entries of order)"
            )
        );
        assert_eq!(
            text(4, TensorDesc::f32([15])),
            format!("{name}: `x` has type and shape F32 [15], expected F32 [rows, width]")
        );
        assert_eq!(
            text(5, TensorDesc::f32([4, 5])),
            format!(
                "{name}: `error` has type and shape F32 [4, 5], expected F32 [3 or twice as many, 5] (x, of one table or two)"
            )
        );
        assert_eq!(
            text(6, TensorDesc::u32([7, 2])),
            format!(
                "{name}: `history` has type and shape U32 [7, 2], expected U32 [7, 3] (features of starts, counts of a feature)"
            )
        );
        let op: &dyn Op = &SaeFeatureSums;
        assert_eq!(
            op.plan(&[None]).expect_err("refused").to_string(),
            format!("{name}: `inputs` has value 1, expected starts, order, values, grads, x, error, history")
        );
    }
}
