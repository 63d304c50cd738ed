//! The encoder of a sparse autoencoder with a top-k selection, in one pass: the pre-activations are never in memory.
//!
//! ```text
//! pre[r, f] = sum_c x[r, c] weight[f, c] + bias[f]
//! indices[r], values[r] = the k largest max(pre[r], 0), by value descending; of equals the smaller index first
//! ```
//!
//! What is subtracted from a row before it is encoded is part of the bias. Where fewer than k are above 0, index 0 and value
//! 0 fill the row. A row that has a pre-activation which is not a number has values NaN and indices 0; one that holds an
//! infinity may.
//!
//! Every form keeps, of each row, the k best features so far and the value of the last of them, which a feature must pass to
//! be looked at again. Features come in order, so that a launch which is cut along them goes on from what the piece before
//! left in indices and values.
//!
//! A block of a device goes through all features for its rows, so few rows leave most of a device idle. [`SaeEncodeParts`] has the
//! features looked through in parts by as many blocks, each of which writes the best of its own;
//! [`SaeMerge`](super::sae_merge::SaeMerge) finds the best of those.

pub(in crate::ops) mod best;
mod cases;
mod cpu;
mod reference;
#[cfg(target_arch = "x86_64")]
mod screen;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows of x, indices and values.
    pub rows: u32,
    /// Row length of x and weight.
    pub width: u32,
    /// Rows of weight.
    pub features: u32,
    /// Features a row.
    pub k: u32,
    /// Number of the first row of weight; above 0 what indices and values hold is gone on from.
    pub first_feature: u32,
    /// Features of a part, a multiple of a tile or at least all there are; every part has places of its own.
    pub span: u32,
    pub(in crate::ops) pad: [u32; 2],
}

impl Params {
    fn parts(&self) -> u32 {
        self.features.div_ceil(self.span).max(1)
    }
}

/// Features that a row may have: a merge has so many in registers.
pub const MOST_K: usize = 1024;
/// Parts that features may be looked through in: a merge has a thread for each.
pub const MOST_PARTS: usize = 256;
/// Rows of the WGSL's tile, and features of either form's.
const TILE: u32 = 64;
/// Rows of a block of the PTX form, and its threads: each looks through a row.
pub const PTX_ROWS: u32 = 128;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_encode_top_k_f32",
    slots: &[
        Slot::read("x", DType::F32),
        Slot::read("weight", DType::F32),
        Slot::read("bias", DType::F32),
        Slot::write("indices", DType::U32),
        Slot::write("values", DType::F32),
    ],
    fields: fields![Params; rows, width, features, k, first_feature, span],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sae_encode.wgsl"), "sae_encode_top_k_f32", [256, 1, 1], |params| {
        let p: Params = bytemuck::pod_read_unaligned(params);
        fold_groups(u64::from(p.rows.div_ceil(TILE)) * u64::from(p.parts()))
    })],
    ptx: &[Ptx {
        registers: 224,
        static_shared: 49_152,
        ..Ptx::new(
            include_str!("sae_encode_top_k_f32.ptx"),
            "sae_encode_top_k_f32",
            [PTX_ROWS, 1, 1],
            |params, _| {
                let p: Params = bytemuck::pod_read_unaligned(params);
                [p.rows.div_ceil(PTX_ROWS), p.parts(), 1]
            },
        )
    }],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// The encoder of a sparse autoencoder.
#[derive(Clone, Copy, Debug)]
pub struct SaeEncode {
    /// Features a row: 1 to 1024, at most as many as there are.
    pub k: usize,
}

impl SaeEncode {
    /// Plans indices u32 and values f32 `[rows, k]` from x f32 `[rows, width]`, weight f32 `[features, width]` and bias f32
    /// `[features]`.
    pub fn plan(&self, x: &TensorDesc, weight: &TensorDesc, bias: &TensorDesc) -> Result<Plan, ShapeError> {
        plan(self.k, None, x, weight, bias)
    }
}

/// The same by parts of the features, none of which waits for another.
#[derive(Clone, Copy, Debug)]
pub struct SaeEncodeParts {
    /// Features a row and part: 1 to 1024, at most as many as there are.
    pub k: usize,
    /// Parts at most, 1 to 256: they are of whole tiles of 64 features.
    pub parts: usize,
}

impl SaeEncodeParts {
    /// Plans indices u32 and values f32 `[rows, parts, k]` from x f32 `[rows, width]`, weight f32 `[features, width]` and bias f32
    /// `[features]`.
    pub fn plan(&self, x: &TensorDesc, weight: &TensorDesc, bias: &TensorDesc) -> Result<Plan, ShapeError> {
        plan(self.k, Some(self.parts), x, weight, bias)
    }
}

/// Rows, width and features of x `[rows, width]` and weight `[features, width]` of a type, and bias f32 `[features]`.
pub(in crate::ops) fn sizes(
    op: &'static str,
    dtype: DType,
    x: &TensorDesc,
    weight: &TensorDesc,
    bias: &TensorDesc,
) -> Result<[usize; 3], ShapeError> {
    let (rows, width) = match x.shape.as_slice() {
        &[rows, width @ (1..)] if x.dtype == dtype => (rows, width),
        _ => {
            let expected = format!("{dtype:?} [rows, width] with a column or more");
            return Err(ShapeError::tensor(op, "x", x, expected));
        }
    };
    let features = match weight.shape.as_slice() {
        &[features, w] if w == width && weight.dtype == dtype => features,
        _ => {
            let expected = format!("{dtype:?} [features, {width}] (last axis of x)");
            return Err(ShapeError::tensor(op, "weight", weight, expected));
        }
    };
    ShapeError::expect(op, "bias", bias, &TensorDesc::f32([features]), "first axis of weight")?;
    Ok([rows, width, features])
}

fn plan(
    k: usize,
    parts: Option<usize>,
    x: &TensorDesc,
    weight: &TensorDesc,
    bias: &TensorDesc,
) -> Result<Plan, ShapeError> {
    let op = INFO.name;
    let [rows, width, features] = sizes(op, DType::F32, x, weight, bias)?;
    let most = MOST_K.min(features);
    if !(1..=most).contains(&k) {
        let expected = format!("1 to {most} (features of weight, at most {MOST_K})");
        return Err(ShapeError::value(op, "k", k, expected));
    }
    let span = match parts {
        None => features,
        Some(parts @ 1..=MOST_PARTS) => features.div_ceil(parts).next_multiple_of(TILE as usize),
        Some(parts) => return Err(ShapeError::value(op, "parts", parts, format!("1 to {MOST_PARTS}"))),
    };
    let places = match parts {
        None => vec![rows, k],
        Some(_) => vec![rows, features.div_ceil(span), k],
    };
    let (indices, values) = (TensorDesc::u32(places.as_slice()), TensorDesc::f32(places.as_slice()));
    ShapeError::size(op, "elements of x", x.elements())?;
    ShapeError::size(op, "elements of weight", weight.elements())?;
    ShapeError::size(op, "elements of indices", indices.elements())?;
    // where the last part would end
    ShapeError::size(op, "features and those of a part", features + span)?;
    let params = Params {
        rows: ShapeError::size(op, "rows", rows)?,
        width: ShapeError::size(op, "width", width)?,
        features: ShapeError::size(op, "features", features)?,
        k: ShapeError::size(op, "k", k)?,
        first_feature: 0,
        span: ShapeError::size(op, "features of a part", span)?,
        pad: [0; 2],
    };
    let row_places = 4 * places[1..].iter().product::<usize>();
    let by_rows = Split {
        items: rows,
        count_at: std::mem::offset_of!(Params, rows),
        first_at: None,
        item_bytes: vec![4 * width, 0, 0, row_places, row_places],
    };
    // a piece of the features goes on from the one before, which parts do not
    let by_features = Split {
        items: features,
        count_at: std::mem::offset_of!(Params, features),
        first_at: Some(std::mem::offset_of!(Params, first_feature)),
        item_bytes: vec![0, 4 * width, 4, 0, 0],
    };
    Ok(Plan {
        kernel: &INFO,
        params: bytemuck::bytes_of(&params).to_vec(),
        cost: Cost {
            bytes: (x.bytes() + weight.bytes() + bias.bytes() + indices.bytes() + values.bytes()) as u64,
            flops: 2 * (rows * weight.elements()) as u64,
        },
        splits: if parts.is_none() { vec![by_rows, by_features] } else { vec![by_rows] },
        slots: vec![Some(x.clone()), Some(weight.clone()), Some(bias.clone()), Some(indices), Some(values)],
    })
}

impl Op for SaeEncode {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), Some(weight), Some(bias)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "x, weight, bias"));
        };
        self.plan(x, weight, bias)
    }
}

impl Op for SaeEncodeParts {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), Some(weight), Some(bias)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "x, weight, bias"));
        };
        self.plan(x, weight, bias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_of_whole_tiles() {
        let shapes = |parts, features: usize| {
            let [x, weight, bias] = [&[3, 5][..], &[features, 5], &[features]].map(TensorDesc::f32);
            let plan = SaeEncodeParts { k: 4, parts }.plan(&x, &weight, &bias);
            plan.map(|plan| plan.slots[3].as_ref().expect("indices").shape.to_vec())
        };
        for (parts, features, found) in [(1, 700, 1), (2, 700, 2), (7, 700, 6), (256, 700, 11), (9, 5, 1)] {
            assert_eq!(shapes(parts, features).expect("they fit"), [3, found, 4], "{parts} of {features}");
        }
        for parts in [0, 257] {
            assert_eq!(
                shapes(parts, 700).expect_err("refused").to_string(),
                format!("sae_encode_top_k_f32: `parts` has value {parts}, expected 1 to 256")
            );
        }
    }

    #[test]
    fn refusals_name_the_argument() {
        let text = |k, x: &[usize], weight: &[usize], bias: &[usize]| {
            let [x, weight, bias] = [x, weight, bias].map(TensorDesc::f32);
            SaeEncode { k }.plan(&x, &weight, &bias).expect_err("refused").to_string()
        };
        assert_eq!(
            text(2, &[3, 0], &[7, 0], &[7]),
            "sae_encode_top_k_f32: `x` has type and shape F32 [3, 0], expected F32 [rows, width] with a column or more"
        );
        assert_eq!(
            text(2, &[3, 5], &[5, 7], &[7]),
            "sae_encode_top_k_f32: `weight` has type and shape F32 [5, 7], expected F32 [features, 5] (last axis of x)"
        );
        assert_eq!(
            text(2, &[3, 5], &[7, 5], &[5]),
            "sae_encode_top_k_f32: `bias` has type and shape F32 [5], expected F32 [7] (first axis of weight)"
        );
        for k in [0, 8] {
            assert_eq!(
                text(k, &[3, 5], &[7, 5], &[7]),
                format!(
                    "sae_encode_top_k_f32: `k` has value {k}, expected 1 to 7 (features of weight, at most 1024)"
                )
            );
        }
        assert_eq!(
            text(1025, &[3, 5], &[2000, 5], &[2000]),
            "sae_encode_top_k_f32: `k` has value 1025, expected 1 to 1024 (features of weight, at most 1024)"
        );
        let op: &dyn Op = &SaeEncode { k: 4 };
        assert_eq!(
            op.plan(&[]).expect_err("refused").to_string(),
            "sae_encode_top_k_f32: `inputs` has value 0, expected x, weight, bias"
        );
    }
}
