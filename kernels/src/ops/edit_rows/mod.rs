//! Interventions on the residual stream, in place, each on rows and columns of its own.
//!
//! A row has a few [`Record`]s, applied in order to the x that the one before left. With column = positions\[r\] + offset a
//! record applies where first <= column < end. Its feature's activation is f = pre\[r, feature\] where that is above 0 and above
//! the feature's threshold, and the feature is among the k largest of the row (of equals the smaller index), else 0; with k = 0
//! every feature counts. `pre` is of the x that came in, whatever records before changed. What a kind does to x is said at [`Kind`]; directions are added as
//! `x += c * directions[direction]`, and where c is 0 not a bit changes. A record whose direction or feature is past its table, or
//! that asks for a feature where there is no `pre`, does nothing. Where no record of a row applies, neither x nor `pre` is
//! touched: an edit that is off costs its records.

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
    /// Rows of x.
    pub rows: u32,
    /// Row length of x.
    pub width: u32,
    /// Records of a row.
    pub slots: u32,
    /// Rows of directions.
    pub dirs: u32,
    /// Row length of pre; 0 without it.
    pub features: u32,
    /// How many features of a row are active at most; 0 for all.
    pub k: u32,
    pad: [u32; 2],
}

/// What a record does to its row.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    None = 0,
    /// Takes the feature out: c = -f.
    Ablate = 1,
    /// Multiplies the feature by the amount: c = (amount - 1) * f.
    Scale = 2,
    /// Makes the feature the amount: c = amount - f.
    Set = 3,
    /// Adds the direction: c = amount.
    Steer = 4,
    /// x = 0.
    Zero = 5,
    /// x = directions\[direction\], such as a mean.
    Replace = 6,
    /// x = directions\[direction + column\] where column < rows: a stored run.
    Patch = 7,
}

impl Kind {
    /// The word of a record.
    pub const fn word(self) -> u32 {
        self as u32
    }
}

/// One intervention on one row: eight words of the slot `records`. All zero does nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Record {
    /// A [`Kind`] as a word; any other number does nothing.
    pub kind: u32,
    /// Column of pre.
    pub feature: u32,
    /// Row of directions.
    pub direction: u32,
    /// See [`Kind`].
    pub amount: f32,
    /// First column that it applies to.
    pub first: u32,
    /// First column behind those.
    pub end: u32,
    /// Added to the row's position.
    pub offset: u32,
    /// Rows of directions that a patch has from `direction` on; of kinds that look at a feature its threshold, an f32 as bits.
    pub rows: u32,
}

/// Words of a [`Record`].
pub const RECORD: usize = size_of::<Record>() / 4;

/// Invocations of a workgroup.
const BLOCK: u32 = 256;

/// Threads of a block: more than in WGSL, so that few rows keep many loads of pre in flight.
const PTX_BLOCK: u32 = 512;

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "edit_rows_f32",
    slots: &[
        Slot::update("x", DType::F32),
        Slot::read("records", DType::U32),
        Slot::read("directions", DType::F32),
        Slot::read("positions", DType::U32),
        Slot::maybe("pre", DType::F32),
    ],
    fields: fields![Params; rows, width, slots, dirs, features, k],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("edit_rows.wgsl"), "edit_rows_f32", [BLOCK, 1, 1], groups)],
    ptx: &[Ptx {
        registers: 48,
        static_shared: 128,
        ..Ptx::new(include_str!("edit_rows_f32.ptx"), "edit_rows_f32", [PTX_BLOCK, 1, 1], |params, _| {
            groups(params)
        })
    }],
    reference: reference::reference,
    cpu: None,
    cases: cases::cases,
};

fn groups(params: &[u8]) -> [u32; 3] {
    fold_groups(bytemuck::pod_read_unaligned::<Params>(params).rows.into())
}

/// Interventions on the residual stream, in place.
#[derive(Clone, Copy, Debug)]
pub struct EditRows {
    /// How many features of a row are active at most; 0 for all that are positive.
    pub k: usize,
}

impl EditRows {
    /// Plans the update of x f32 `[rows, width]` by records u32 `[rows, slots, 8]` (see [`Record`]), directions f32
    /// `[dirs, width]`, positions u32 `[rows]` and pre f32 `[rows, features]`.
    pub fn plan(
        &self,
        x: &TensorDesc,
        records: &TensorDesc,
        directions: &TensorDesc,
        positions: &TensorDesc,
        pre: Option<&TensorDesc>,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::F32, &[rows, width]) = (x.dtype, x.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "x", x, "F32 [rows, width]"));
        };
        let slots = match (records.dtype, records.shape.as_slice()) {
            (DType::U32, &[r, slots, RECORD]) if r == rows => slots,
            _ => {
                let expected = format!("U32 [{rows}, slots, {RECORD}] (rows of x, the words of `Record`)");
                return Err(ShapeError::tensor(op, "records", records, expected));
            }
        };
        let dirs = match (directions.dtype, directions.shape.as_slice()) {
            (DType::F32, &[dirs, w]) if w == width => dirs,
            _ => {
                let expected = format!("F32 [dirs, {width}] (last axis of x)");
                return Err(ShapeError::tensor(op, "directions", directions, expected));
            }
        };
        ShapeError::expect(op, "positions", positions, &TensorDesc::u32([rows]), "rows of x")?;
        let mut features = 0;
        if let Some(pre) = pre {
            let (DType::F32, &[_, n]) = (pre.dtype, pre.shape.as_slice()) else {
                return Err(ShapeError::tensor(op, "pre", pre, "F32 [rows, features]"));
            };
            ShapeError::expect(op, "pre", pre, &TensorDesc::f32([rows, n]), "rows of x")?;
            features = n;
        }
        ShapeError::size(op, "elements of x", x.elements())?;
        ShapeError::size(op, "elements of records", records.elements())?;
        ShapeError::size(op, "elements of directions", directions.elements())?;
        ShapeError::size(op, "elements of pre", pre.map_or(0, TensorDesc::elements))?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            width: ShapeError::size(op, "width", width)?,
            slots: ShapeError::size(op, "slots", slots)?,
            dirs: ShapeError::size(op, "dirs", dirs)?,
            features: ShapeError::size(op, "features", features)?,
            k: ShapeError::size(op, "k", self.k)?,
            pad: [0; 2],
        };
        // at most: where every record applies, with a direction and a feature of its own
        let touched = (rows * slots).min(dirs) * width * 4;
        let known = records.bytes() + positions.bytes() + pre.map_or(0, TensorDesc::bytes);
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (2 * x.bytes() + touched + known) as u64,
                flops: (rows * slots * (2 * width + features)) as u64,
            },
            slots: vec![
                Some(x.clone()),
                Some(records.clone()),
                Some(directions.clone()),
                Some(positions.clone()),
                pre.cloned(),
            ],
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * width, 4 * RECORD * slots, 0, 4, 4 * features],
            }],
        })
    }
}

impl Op for EditRows {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), Some(records), Some(directions), Some(positions), pre] = inputs else {
            return Err(ShapeError::value(
                INFO.name,
                "inputs",
                inputs.len(),
                "x, records, directions, positions, pre?",
            ));
        };
        self.plan(x, records, directions, positions, pre)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let x = TensorDesc::f32([3, 5]);
        let text =
            |x: &TensorDesc, records: &[usize], directions: &[usize], positions, pre: Option<&TensorDesc>| {
                let (records, directions) = (TensorDesc::u32(records), TensorDesc::f32(directions));
                EditRows { k: 4 }
                    .plan(x, &records, &directions, &TensorDesc::u32([positions]), pre)
                    .expect_err("refused")
                    .to_string()
            };
        assert_eq!(
            text(&TensorDesc::f32([15]), &[3, 2, 8], &[7, 5], 3, None),
            "edit_rows_f32: `x` has type and shape F32 [15], expected F32 [rows, width]"
        );
        for records in [&[3, 2, 7], &[4, 2, 8]] {
            assert_eq!(
                text(&x, records, &[7, 5], 3, None),
                format!(
                    "edit_rows_f32: `records` has type and shape U32 {records:?}, expected U32 [3, slots, 8] (rows of x, the \
                     words of `Record`)"
                )
            );
        }
        assert_eq!(
            text(&x, &[3, 2, 8], &[5, 7], 3, None),
            "edit_rows_f32: `directions` has type and shape F32 [5, 7], expected F32 [dirs, 5] (last axis of x)"
        );
        assert_eq!(
            text(&x, &[3, 2, 8], &[7, 5], 4, None),
            "edit_rows_f32: `positions` has type and shape U32 [4], expected U32 [3] (rows of x)"
        );
        assert_eq!(
            text(&x, &[3, 2, 8], &[7, 5], 3, Some(&TensorDesc::f32([2, 9]))),
            "edit_rows_f32: `pre` has type and shape F32 [2, 9], expected F32 [3, 9] (rows of x)"
        );
        assert_eq!(
            text(&x, &[3, 2, 8], &[7, 5], 3, Some(&TensorDesc::f32([27]))),
            "edit_rows_f32: `pre` has type and shape F32 [27], expected F32 [rows, features]"
        );
        let op: &dyn Op = &EditRows { k: 0 };
        assert_eq!(
            op.plan(&[Some(&x)]).expect_err("refused").to_string(),
            "edit_rows_f32: `inputs` has value 1, expected x, records, directions, positions, pre?"
        );
    }
}
