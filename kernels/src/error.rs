//! The one error of this crate: shapes that an op does not allow.

use crate::TensorDesc;

/// A tensor or parameter that an op refuses, before anything is launched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op}: `{slot}` has {got}, expected {expected}")]
pub struct ShapeError {
    /// The kernel that refused.
    pub op: &'static str,
    /// Which of its arguments.
    pub slot: &'static str,
    /// What was found.
    pub got: String,
    /// What was expected, and where the expectation came from.
    pub expected: String,
}

impl ShapeError {
    /// An argument whose type or shape does not fit.
    pub fn tensor(
        op: &'static str,
        slot: &'static str,
        got: &TensorDesc,
        expected: impl Into<String>,
    ) -> Self {
        Self { op, slot, got: format!("type and shape {got}"), expected: expected.into() }
    }

    /// A number that does not fit.
    pub fn value(
        op: &'static str,
        slot: &'static str,
        got: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self { op, slot, got: format!("value {got}"), expected: expected.into() }
    }

    /// `value` as u32, the type of every size that reaches a kernel.
    pub fn size(op: &'static str, slot: &'static str, value: usize) -> Result<u32, Self> {
        u32::try_from(value).map_err(|_| Self::value(op, slot, value, "at most 4294967295"))
    }

    /// Checks that `got` is `dtype` and `shape`; `why` says where the expectation came from.
    pub fn expect(
        op: &'static str,
        slot: &'static str,
        got: &TensorDesc,
        want: &TensorDesc,
        why: &str,
    ) -> Result<(), Self> {
        if got == want {
            return Ok(());
        }
        Err(Self::tensor(op, slot, got, format!("{want} ({why})")))
    }
}
