//! What a reconstruction costs the model: its cross-entropy of the codes it is fed, with the reconstruction in the stream.

use auscult_kernels::DType;
use auscult_model::Codes;
use auscult_model::musicgen::{CrossEntropy, Decoder, Site};
use auscult_model::sae::Encoder;
use auscult_runtime::Edits;
use serde::Serialize;

use super::score::Batches;
use crate::error::{AnalysisError, Result};

/// Cross-entropy in nats a code, over all codebooks: of the model as it is, and with other rows at one site.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CodeCost {
    /// Of the model as it is.
    pub clean: f64,
    /// With reconstructions in place of the rows.
    pub spliced: f64,
    /// With zeros in place of the rows.
    pub zeroed: f64,
    /// `(zeroed - spliced) / (zeroed - clean)`: 1 where the reconstruction costs nothing, 0 where zeros do as well. `None`
    /// where zeros cost nothing either, so that there is nothing to recover.
    pub recovered: Option<f64>,
    /// Codes that were predicted.
    pub codes: usize,
}

/// What the reconstructions of an autoencoder at `site` cost, over clips without text: four passes over each batch.
///
/// # Errors
/// [`AnalysisError::Usage`] for clips of a single frame, in which no code is predicted from another; a site whose rows are not
/// of the stream's width; failures of the device; rows that cannot be encoded.
pub fn code_cost(
    decoder: &Decoder,
    encoder: &mut Encoder<'_>,
    site: Site,
    batches: &Batches,
) -> Result<CodeCost> {
    let mut sums = [CrossEntropy::default(); 3];
    for of_one_length in batches.chunk_by(|a, b| shape(a) == shape(b)) {
        let (clips, frames) = shape(&of_one_length[0]);
        let mut edits = Edits::new();
        edits.capture(site, DType::F32).capture(Site::Logits, DType::F32);
        let plain = decoder.teacher_forced(clips, frames, edits)?;
        let spliced = decoder.spliced(clips, frames, site)?;
        for codes in of_one_length {
            plain.run(codes)?;
            let rows = plain.output_f32(&site.to_string())?;
            let codes_of_rows = encoder.encode(&rows)?;
            let reconstructed = encoder.sae().reconstruct(&rows, &codes_of_rows)?;
            let found = [
                plain.cross_entropy(codes)?,
                spliced.run(codes, &reconstructed)?,
                spliced.run(codes, &vec![0.0; rows.len()])?,
            ];
            for (sum, clips) in sums.iter_mut().zip(found) {
                *sum = clips.into_iter().fold(*sum, CrossEntropy::and);
            }
        }
    }
    let mean = |sum: CrossEntropy| {
        let nothing = || AnalysisError::usage("AUDIO", "no clip", "at least one, to predict codes of");
        sum.mean().ok_or_else(nothing)
    };
    let [clean, spliced, zeroed] = [mean(sums[0])?, mean(sums[1])?, mean(sums[2])?];
    let recovered = (zeroed > clean).then(|| (zeroed - spliced) / (zeroed - clean));
    Ok(CodeCost { clean, spliced, zeroed, recovered, codes: sums[0].codes })
}

/// Clips and frames of a batch.
fn shape(batch: &[Codes]) -> (usize, usize) {
    (batch.len(), batch.first().map_or(0, Codes::frames))
}
