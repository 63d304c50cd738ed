//! An interpreter of PTX, stricter than silicon: a test instrument, never offered as a way to run models.

pub mod fault;
pub mod tensor;
