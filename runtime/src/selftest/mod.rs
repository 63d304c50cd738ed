//! Holds an executor to the definitions of the kernels: what the parity tests run in full, and `doctor` in part.

mod compare;
mod launch;
mod measure;
mod rates;

pub use compare::{compare, same_bits};
pub use launch::{Outputs, run, run_reference};
pub use measure::{Ceiling, Measured, Rotation};
pub use rates::{copy_rate, half_rate, matrix_rate};

use crate::Backend;
use auscult_kernels::Case;

/// Every byte of an output before a launch: NaN in each float type.
pub const POISON: u8 = 0xff;

/// Launches a case on a backend and holds what it wrote to the f64 reference. Returns the largest difference.
///
/// # Errors
/// What differs first, where and by how much; a byte beside a slot that changed; what the backend refused.
pub fn check(backend: &dyn Backend, case: &Case) -> Result<f64, String> {
    let whole = case.plan.pieces(usize::MAX, 1).map_err(|e| e.to_string())?;
    let want = run_reference(case, &whole, POISON)?;
    let got = run(backend, case, POISON)?;
    let mut largest = 0.0_f64;
    for ((slot, got), (_, want)) in got.iter().zip(&want) {
        let desc = case.plan.slots[*slot].as_ref().expect("outputs are bound");
        let name = case.plan.kernel.slots[*slot].name;
        let off =
            compare(desc, got, want, &case.tolerance).map_err(|message| format!("`{name}`: {message}"))?;
        largest = largest.max(off);
    }
    Ok(largest)
}
