//! The decoder of a sparse autoencoder: rows of the decoder, weighted by the active features, summed.
//!
//! `y[r] = b_dec + sum over i of values[r, i] * w_dec[indices[r, i]] (- minus[r])`, in order of i. A value of 0 and an index
//! past the table add nothing, so that rows of fewer features are padded with index 0, value 0. With `minus` the input of the
//! encoder y is what a reconstruction misses, with its sign turned.

mod cases;
mod cpu;
mod reference;

use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, TensorDesc, Wgsl, fields, fold_groups,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows of indices, values and y.
    pub rows: u32,
    /// Row length of y.
    pub width: u32,
    /// Rows of w_dec.
    pub features: u32,
    /// Features a row.
    pub k: u32,
    /// 1 where minus is subtracted, else 0.
    pub has_minus: u32,
    pad: [u32; 3],
}

/// Invocations of a workgroup.
const BLOCK: u32 = 256;
/// Threads of a block of the PTX form, which makes a row.
const PTX_BLOCK: u32 = 128;
/// Blocks along x at most.
const PTX_GRID_X: u32 = i32::MAX.unsigned_abs();

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_decode_f32",
    slots: &[
        Slot::read("indices", DType::U32),
        Slot::read("values", DType::F32),
        Slot::read("w_dec", DType::F32),
        Slot::read("b_dec", DType::F32),
        Slot::maybe("minus", DType::F32),
        Slot::write("y", DType::F32),
    ],
    fields: fields![Params; rows, width, features, k, has_minus],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sae_decode.wgsl"), "sae_decode_f32", [BLOCK, 1, 1], |params| {
        let p: Params = bytemuck::pod_read_unaligned(params);
        fold_groups((u64::from(p.rows) * u64::from(p.width)).div_ceil(BLOCK.into()))
    })],
    ptx: &[Ptx {
        registers: 64,
        ..Ptx::new(include_str!("sae_decode_f32.ptx"), "sae_decode_f32", [PTX_BLOCK, 1, 1], |params, _| {
            let rows = bytemuck::pod_read_unaligned::<Params>(params).rows;
            [rows.min(PTX_GRID_X), rows.div_ceil(PTX_GRID_X), 1]
        })
    }],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// The decoder of a sparse autoencoder.
#[derive(Clone, Copy, Debug)]
pub struct SaeDecode;

impl SaeDecode {
    /// Plans y f32 `[rows, width]` from indices u32 `[rows, k]`, values f32 `[rows, k]`, w_dec f32 `[features, width]`, b_dec
    /// f32 `[width]` and, where something is subtracted, minus f32 `[rows, width]`.
    pub fn plan(
        &self,
        indices: &TensorDesc,
        values: &TensorDesc,
        w_dec: &TensorDesc,
        b_dec: &TensorDesc,
        minus: Option<&TensorDesc>,
    ) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let (DType::U32, &[rows, k]) = (indices.dtype, indices.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "indices", indices, "U32 [rows, k]"));
        };
        ShapeError::expect(op, "values", values, &TensorDesc::f32([rows, k]), "shape of indices")?;
        let (DType::F32, &[features, width]) = (w_dec.dtype, w_dec.shape.as_slice()) else {
            return Err(ShapeError::tensor(op, "w_dec", w_dec, "F32 [features, width]"));
        };
        ShapeError::expect(op, "b_dec", b_dec, &TensorDesc::f32([width]), "last axis of w_dec")?;
        let y = TensorDesc::f32([rows, width]);
        if let Some(minus) = minus {
            ShapeError::expect(op, "minus", minus, &y, "rows of indices, last axis of w_dec")?;
        }
        ShapeError::size(op, "elements of indices", indices.elements())?;
        ShapeError::size(op, "elements of w_dec", w_dec.elements())?;
        ShapeError::size(op, "elements of y", y.elements())?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            width: ShapeError::size(op, "width", width)?,
            features: ShapeError::size(op, "features", features)?,
            k: ShapeError::size(op, "k", k)?,
            has_minus: u32::from(minus.is_some()),
            pad: [0; 3],
        };
        // rows of w_dec that are read, at most
        let touched = (rows * k).min(features) * width * 4;
        let known = indices.bytes() + values.bytes() + b_dec.bytes() + minus.map_or(0, TensorDesc::bytes);
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (known + touched + y.bytes()) as u64,
                flops: (y.elements() * (2 * k + usize::from(minus.is_some()))) as u64,
            },
            splits: vec![Split {
                items: rows,
                count_at: std::mem::offset_of!(Params, rows),
                first_at: None,
                item_bytes: vec![4 * k, 4 * k, 0, 0, minus.map_or(0, |_| 4 * width), 4 * width],
            }],
            slots: vec![
                Some(indices.clone()),
                Some(values.clone()),
                Some(w_dec.clone()),
                Some(b_dec.clone()),
                minus.cloned(),
                Some(y),
            ],
        })
    }
}

impl Op for SaeDecode {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(indices), Some(values), Some(w_dec), Some(b_dec), minus] = inputs else {
            let expected = "indices, values, w_dec, b_dec, minus?";
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), expected));
        };
        self.plan(indices, values, w_dec, b_dec, minus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let (f32, u32) = (|s: &[usize]| TensorDesc::f32(s), |s: &[usize]| TensorDesc::u32(s));
        let text = |indices: TensorDesc, values, w_dec, b_dec, minus: Option<TensorDesc>| {
            let refused = SaeDecode.plan(&indices, &values, &w_dec, &b_dec, minus.as_ref());
            refused.expect_err("refused").to_string()
        };
        assert_eq!(
            text(f32(&[3, 2]), f32(&[3, 2]), f32(&[7, 5]), f32(&[5]), None),
            "sae_decode_f32: `indices` has type and shape F32 [3, 2], expected U32 [rows, k]"
        );
        assert_eq!(
            text(u32(&[3, 2]), f32(&[3, 4]), f32(&[7, 5]), f32(&[5]), None),
            "sae_decode_f32: `values` has type and shape F32 [3, 4], expected F32 [3, 2] (shape of indices)"
        );
        assert_eq!(
            text(u32(&[3, 2]), f32(&[3, 2]), f32(&[35]), f32(&[5]), None),
            "sae_decode_f32: `w_dec` has type and shape F32 [35], expected F32 [features, width]"
        );
        assert_eq!(
            text(u32(&[3, 2]), f32(&[3, 2]), f32(&[7, 5]), f32(&[7]), None),
            "sae_decode_f32: `b_dec` has type and shape F32 [7], expected F32 [5] (last axis of w_dec)"
        );
        assert_eq!(
            text(u32(&[3, 2]), f32(&[3, 2]), f32(&[7, 5]), f32(&[5]), Some(f32(&[3, 7]))),
            "sae_decode_f32: `minus` has type and shape F32 [3, 7], expected F32 [3, 5] (rows of indices, last axis of w_dec)"
        );
        let op: &dyn Op = &SaeDecode;
        assert_eq!(
            op.plan(&[Some(&u32(&[3, 2]))]).expect_err("refused").to_string(),
            "sae_decode_f32: `inputs` has value 1, expected indices, values, w_dec, b_dec, minus?"
        );
    }
}
