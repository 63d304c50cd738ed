//! An autoencoder beside a site of a graph: features and sums that say how well they stand for the rows come back, the rows
//! do not.

use super::DeviceSae;
use super::device::CENTRE;
use auscult_kernels::Op;
use auscult_kernels::ops::{
    column_sums::ColumnSums, sae_add_threshold::SaeAddThreshold, sae_decode::SaeDecode,
};
use auscult_runtime::{Insert, Operand, Place, Tensor};
use std::sync::Arc;

/// Names of the outputs that [`DeviceSae::inserts`] makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaeOutputs {
    /// u32 `[rows, k]`, as [`DeviceSae::encode`] has them.
    pub indices: String,
    /// f32 `[rows, k]`.
    pub values: String,
    /// f32 `[rows, k]`: how far values are above their thresholds; of an autoencoder with thresholds alone.
    pub above: String,
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
            above: of("above"),
            error: of("error"),
            squared_error: of("squared_error"),
            sum: of("sum"),
            squares: of("squares"),
        }
    }
}

impl DeviceSae {
    /// The ops beside a site that `clips` clips pass; the first `skip` rows of each do not count in the sums.
    pub fn inserts(&self, outputs: &SaeOutputs, clips: usize, skip: usize) -> Vec<Insert> {
        let insert = |op: Arc<dyn Op>, inputs, place| Insert { op, inputs, place };
        let tensor = |tensor: &Tensor| Operand::Tensor(tensor.clone());
        let names = |names: [&String; 2]| Place::Output(names.map(String::clone).to_vec());
        let sums = || Arc::new(ColumnSums { groups: clips, skip });
        let code = |back, slot| Operand::BesideSlot { back, slot };
        let [decoder, b_dec] = self.decoder();
        let encoder = |into| {
            let (weight, bias) = (tensor(&self.encoder), tensor(&self.bias));
            let codes = names([&outputs.indices, into]);
            let Some(narrow) = &self.narrow else {
                return vec![insert(Arc::new(self.encoder_op()), vec![Operand::Site, weight, bias], codes)];
            };
            let (round, screen, rescore) = self.narrow_ops();
            let centre = self
                .centre
                .as_ref()
                .map(|centre| insert(Arc::new(CENTRE), vec![Operand::Site, tensor(centre)], Place::Beside));
            // rows as they are multiplied, so many inserts later
            let x = |back| if centre.is_some() { Operand::Beside(back) } else { Operand::Site };
            let round = insert(Arc::new(round), vec![x(1), Operand::Absent], Place::Beside);
            let found = vec![Operand::Beside(1), tensor(&narrow.weight), bias.clone()];
            let screen = insert(Arc::new(screen), found, Place::Beside);
            let near = vec![x(3), weight, bias, tensor(&narrow.errors), code(1, 0), code(1, 1)];
            let rescore = insert(Arc::new(rescore), near, codes);
            centre.into_iter().chain([round, screen, rescore]).collect()
        };
        // where the decoder finds features and values
        let (mut inserts, codes) = match self.threshold() {
            None => (encoder(&outputs.values), [code(1, 0), code(1, 1)]),
            Some(threshold) => {
                let inputs = vec![code(1, 0), code(1, 1), tensor(&threshold)];
                let values = Place::Output(vec![outputs.values.clone()]);
                let added = insert(Arc::new(SaeAddThreshold), inputs, values);
                let mut inserts = encoder(&outputs.above);
                inserts.push(added);
                (inserts, [code(2, 0), code(1, 0)])
            }
        };
        let [indices, values] = codes;
        inserts.extend([
            insert(
                Arc::new(SaeDecode),
                vec![indices, values, tensor(&decoder), tensor(&b_dec), Operand::Site],
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
