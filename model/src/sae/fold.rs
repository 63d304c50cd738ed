//! Scales that other programs apply when they encode, folded into the weights.

use super::SaeParts;
use rayon::prelude::*;

/// `(s x - b_dec) W = (x - b_dec / s) (s W)`, and what is decoded is divided by `s`.
pub(in crate::sae) fn factor(parts: &mut SaeParts, s: f32) {
    parts.w_enc.par_iter_mut().for_each(|v| *v *= s);
    parts.w_dec.par_iter_mut().for_each(|v| *v /= s);
    parts.b_dec.iter_mut().for_each(|v| *v /= s);
}

/// Activations count in lengths of what is written: the encoder is multiplied by the norms of the decoder's rows, and the
/// rows are divided by them. A row of zeros writes nothing either way.
pub(crate) fn norms(parts: &mut SaeParts) {
    let (width, features) = (parts.b_dec.len(), parts.b_enc.len());
    let norm = |d: &[f32]| d.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt() as f32;
    let norms: Vec<f32> = parts.w_dec.par_chunks_exact(width).map(norm).collect();
    parts
        .w_enc
        .par_chunks_exact_mut(features)
        .for_each(|row| row.iter_mut().zip(&norms).for_each(|(v, n)| *v *= n));
    parts.b_enc.iter_mut().zip(&norms).for_each(|(v, n)| *v *= n);
    parts
        .w_dec
        .par_chunks_exact_mut(width)
        .zip(&norms)
        .filter(|(_, n)| **n > 0.0)
        .for_each(|(row, n)| row.iter_mut().for_each(|v| *v /= n));
}
