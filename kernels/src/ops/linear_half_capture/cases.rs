use super::LinearHalfCapture;
use crate::ops::linear_half::cases::planned;
use crate::{Case, DType};

/// The shapes of the product alone; of what is written, the rounded values are off by the most.
pub(super) fn cases(half: DType) -> Vec<Case> {
    planned(half, half, |activation, [x, weight], bias, residual| {
        LinearHalfCapture { activation }.plan(x, weight, bias, residual)
    })
}
