//! An autoencoder on a device, as ops beside a site: features and how well they fit come back, the rows do not.

use super::Sae;
use crate::device::HostTensor;
use crate::error::Result;
use auscult_kernels::ops::{column_sums::ColumnSums, sae_decode::SaeDecode, sae_encode::SaeEncode};
use auscult_kernels::{Op, TensorDesc};
use auscult_runtime::{Backend, Insert, Operand, Place, Tensor};
use std::sync::Arc;

/// An autoencoder's tensors on a device.
#[derive(Debug)]
pub struct FusedSae {
    k: usize,
    /// f32 `[features, width]` and `[features]`.
    encoder: (Tensor, Tensor),
    /// f32 `[features, width]`.
    decoder: Tensor,
    /// f32 `[width]`.
    b_dec: Tensor,
}

/// Names of the outputs that [`FusedSae::inserts`] makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FusedOutputs {
    /// u32 `[rows, k]`, as `Sae::encode` orders them.
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

impl FusedOutputs {
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
    /// The autoencoder on a device, to encode what stands at a site; `None` where the ops that do so cannot express it (they
    /// know top-k without normalisation, up to so many features a row) or the device cannot run them. [`Sae::encode`] can
    /// always.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn fused(&self, backend: &dyn Backend) -> Result<Option<FusedSae>> {
        let Some(k) = self.top_k().ok().filter(|&k| k > 0) else { return Ok(None) };
        let f32 = |shape: &[usize]| TensorDesc::f32(shape);
        let (row, weight) = (f32(&[1, self.width]), f32(&[self.features, self.width]));
        let Ok(plan) = SaeEncode { k }.plan(&row, &weight, &f32(&[self.features])) else { return Ok(None) };
        let info = backend.info();
        if info.ptx.is_some_and(|device| plan.kernel.ptx_for(&plan.params, &device).is_none()) {
            return Ok(None);
        }
        let b_dec = HostTensor::from_f32s([self.width], self.b_dec.clone());
        Ok(Some(FusedSae {
            k,
            encoder: self.encoder(backend)?,
            decoder: self.decoder.upload(backend)?,
            b_dec: b_dec.upload(backend)?,
        }))
    }

    /// What is added to what features decode to: f32 `[width]`.
    pub fn b_dec(&self) -> &[f32] {
        &self.b_dec
    }
}

impl FusedSae {
    /// Places of a row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The ops at a site that `clips` clips pass, of whose rows the first `skip` each do not count.
    pub fn inserts(&self, outputs: &FusedOutputs, clips: usize, skip: usize) -> Vec<Insert> {
        let insert = |op: Arc<dyn Op>, inputs, place| Insert { op, inputs, place };
        let tensor = |tensor: &Tensor| Operand::Tensor(tensor.clone());
        let names = |names: [&String; 2]| Place::Output(names.map(String::clone).to_vec());
        let sums = || Arc::new(ColumnSums { groups: clips, skip });
        let code = |slot| Operand::BesideSlot { back: 1, slot };
        vec![
            insert(
                Arc::new(SaeEncode { k: self.k }),
                vec![Operand::Site, tensor(&self.encoder.0), tensor(&self.encoder.1)],
                names([&outputs.indices, &outputs.values]),
            ),
            insert(
                Arc::new(SaeDecode),
                vec![code(0), code(1), tensor(&self.decoder), tensor(&self.b_dec), Operand::Site],
                Place::Beside,
            ),
            insert(
                sums(),
                vec![Operand::Beside(1), Operand::Absent],
                names([&outputs.error, &outputs.squared_error]),
            ),
            insert(sums(), vec![Operand::Site, tensor(&self.b_dec)], names([&outputs.sum, &outputs.squares])),
        ]
    }
}
