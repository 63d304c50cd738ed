//! An autoencoder beside a site of a graph: features and sums that say how well they stand for the rows come back, the rows
//! do not.

use super::device::narrow_ops;
use super::{DeviceSae, Sae, SaePrecision};
use auscult_kernels::ops::{
    column_sums::ColumnSums,
    sae_decode::SaeDecode,
    sae_encode::{MOST_K, SaeEncode},
};
use auscult_kernels::{DType, Op, Plan, ShapeError, TensorDesc};
use auscult_runtime::{DeviceInfo, Insert, Operand, Place, Tensor};
use std::sync::Arc;

/// Names of the outputs that [`DeviceSae::inserts`] makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaeOutputs {
    /// u32 `[rows, k]`, in the order of `Sae::encode`.
    pub indices: String,
    /// f32 `[rows, k]`.
    pub values: String,
    /// f32 `[clips, width]`: of a clip's rows, column by column, the sum of what is decoded less the row.
    pub error: String,
    /// f32 `[clips, width]`: the sum of its squares.
    pub squared_error: String,
    /// f32 `[clips, width]`: the sum of the row less `b_dec`.
    pub sum: String,
    /// f32 `[clips, width]`: the sum of its squares.
    pub squares: String,
}

impl SaeOutputs {
    /// The outputs of an autoencoder that is called `name`.
    pub fn of(name: &str) -> Self {
        let of = |what: &str| format!("{name}.{what}");
        Self {
            indices: of("indices"),
            values: of("values"),
            error: of("error"),
            squared_error: of("squared_error"),
            sum: of("sum"),
            squares: of("squares"),
        }
    }
}

impl Sae {
    /// Whether [`Sae::on_device`] can have it encode on a device: one of the k largest features, without normalisation, k not
    /// beyond what the encoder keeps. [`Sae::encode`] can always.
    pub fn encodes_on(&self, device: &DeviceInfo, precision: SaePrecision) -> bool {
        let Some(k) = self.top_k().ok().filter(|k| (1..=MOST_K).contains(k)) else { return false };
        let plans = match precision {
            SaePrecision::F32 => self.plans_f32(k),
            SaePrecision::Bf16 => self.plans_bf16(k),
        };
        let runs = |plan: &Plan| {
            device.ptx.as_ref().is_none_or(|ptx| plan.kernel.ptx_for(&plan.params, ptx).is_some())
        };
        plans.is_ok_and(|plans| plans.iter().all(runs))
    }

    /// What encodes a row.
    fn plans_f32(&self, k: usize) -> Result<Vec<Plan>, ShapeError> {
        let row = TensorDesc::f32([1, self.width]);
        Ok(vec![SaeEncode { k }.plan(&row, &self.encoder.desc, &self.bias.desc)?])
    }

    fn plans_bf16(&self, k: usize) -> Result<Vec<Plan>, ShapeError> {
        let row = TensorDesc::f32([1, self.width]);
        let [narrow_row, narrow] =
            [&row, &self.encoder.desc].map(|t| TensorDesc::new(DType::BF16, t.shape.clone()));
        let (round, screen, rescore) = narrow_ops(k, self.features);
        let candidates = TensorDesc::u32([1, screen.k]);
        Ok(vec![
            round.plan(&row, None)?,
            screen.plan(&narrow_row, &narrow, &self.bias.desc)?,
            rescore.plan(&row, &self.encoder.desc, &self.bias.desc, &candidates)?,
        ])
    }

    /// What is added to what features decode to: `[width]`.
    pub fn b_dec(&self) -> &[f32] {
        &self.b_dec
    }
}

impl DeviceSae {
    /// The ops beside a site that `clips` clips pass; the first `skip` rows of each do not count in the sums.
    pub fn inserts(&self, outputs: &SaeOutputs, clips: usize, skip: usize) -> Vec<Insert> {
        let insert = |op: Arc<dyn Op>, inputs, place| Insert { op, inputs, place };
        let tensor = |tensor: &Tensor| Operand::Tensor(tensor.clone());
        let names = |names: [&String; 2]| Place::Output(names.map(String::clone).to_vec());
        let sums = || Arc::new(ColumnSums { groups: clips, skip });
        let code = |slot| Operand::BesideSlot { back: 1, slot };
        let [decoder, b_dec] = self.decoder();
        let codes = names([&outputs.indices, &outputs.values]);
        let (weight, bias) = (tensor(&self.encoder), tensor(&self.bias));
        let mut inserts = match &self.narrow {
            None => vec![insert(Arc::new(self.encoder_op()), vec![Operand::Site, weight, bias], codes)],
            Some(narrow) => {
                let (round, screen, rescore) = self.narrow_ops();
                let found = vec![Operand::Beside(1), tensor(narrow), bias.clone()];
                vec![
                    insert(Arc::new(round), vec![Operand::Site, Operand::Absent], Place::Beside),
                    insert(Arc::new(screen), found, Place::Beside),
                    insert(Arc::new(rescore), vec![Operand::Site, weight, bias, code(0)], codes),
                ]
            }
        };
        inserts.extend([
            insert(
                Arc::new(SaeDecode),
                vec![code(0), code(1), tensor(&decoder), tensor(&b_dec), Operand::Site],
                Place::Beside,
            ),
            insert(
                sums(),
                vec![Operand::Beside(1), Operand::Absent],
                names([&outputs.error, &outputs.squared_error]),
            ),
            insert(sums(), vec![Operand::Site, tensor(&b_dec)], names([&outputs.sum, &outputs.squares])),
        ]);
        inserts
    }
}
