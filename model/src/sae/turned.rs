//! Matrices that lie the other way round, which a loader would only call misshapen.

use crate::error::{ModelError, Result};
use auscult_runtime::weights::Weights;
use std::path::Path;

/// A weight, as it should lie.
pub(super) struct Matrix {
    /// Its name in the file.
    pub name: &'static str,
    /// What its axes count.
    pub axes: [&'static str; 2],
    /// Their extents.
    pub shape: [usize; 2],
}

impl Matrix {
    /// The error of a matrix of `found`, where that is the transposed shape.
    ///
    /// # Errors
    /// [`ModelError::File`] names the axes as they are and as they should be.
    pub fn check(&self, file: &Path, found: &[usize]) -> Result<()> {
        let ([rows, cols], [slow, fast], name) = (self.shape, self.axes, self.name);
        if rows == cols || found != [cols, rows] {
            return Ok(());
        }
        let message = format!(
            "`{name}` is transposed: it is [{fast}, {slow}] = [{cols}, {rows}], expected [{slow}, {fast}] = [{rows}, {cols}]"
        );
        Err(ModelError::file(file, message))
    }
}

/// Refuses matrices that are transposed. Where the vector `bias` is not of its length, the sizes themselves are wrong, and
/// nothing is said here.
pub(super) fn not_turned(
    weights: &Weights,
    file: &Path,
    bias: (&str, usize),
    matrices: &[Matrix],
) -> Result<()> {
    if weights.get(bias.0).is_none_or(|view| view.shape != [bias.1]) {
        return Ok(());
    }
    matrices.iter().try_for_each(|matrix| match weights.get(matrix.name) {
        Some(view) => matrix.check(file, view.shape),
        None => Ok(()),
    })
}
