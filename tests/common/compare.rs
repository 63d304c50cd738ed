//! The one comparator: finite-ness first, then two errors, each against a ceiling that cannot be waved away.

/// Largest tolerance that any test may ask for.
pub const CEILING: f64 = 1e-2;

/// A code may differ where the distances to the two nearest codes are this close, relative to the larger.
pub const NEAR_TIE: f32 = 1e-5;

/// What a comparison allows.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// `||got - want|| / ||want||`.
    pub rel_l2: f64,
    /// The largest `|got - want|` over the root mean square of `want`.
    pub elem_over_rms: f64,
}

impl Tolerance {
    /// float32 on the processor: accumulated rounding of a forward pass in another order of summation.
    pub const CPU_F32: Tolerance = Tolerance { rel_l2: 5e-6, elem_over_rms: 5e-5 };
    /// float32 through WGSL and PTX, whose exp and division may be some ulp off.
    pub const GPU_F32: Tolerance = Tolerance { rel_l2: 1e-5, elem_over_rms: 1e-4 };
}

/// What a comparison found.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// `||got - want|| / ||want||`.
    pub rel_l2: f64,
    /// The largest `|got - want|` over the root mean square of `want`.
    pub elem_over_rms: f64,
}

/// Compares, and panics with the name, the worst element and both errors when `got` is out of tolerance.
#[track_caller]
pub fn compare(name: &str, got: &[f32], want: &[f32], tolerance: Tolerance) -> Measured {
    measure(name, got, want, tolerance).unwrap_or_else(|message| panic!("{message}"))
}

/// The same as [`compare`], with the failure as a message.
///
/// A `want` of zeros only is matched by zeros only: there is no scale to be relative to.
pub fn measure(name: &str, got: &[f32], want: &[f32], tolerance: Tolerance) -> Result<Measured, String> {
    for asked in [tolerance.rel_l2, tolerance.elem_over_rms] {
        if !within(asked, CEILING) {
            return Err(format!("{name}: a tolerance of {asked:e} is above the ceiling of {CEILING:e}"));
        }
    }
    if got.len() != want.len() {
        return Err(format!("{name}: got {} values, want {}", got.len(), want.len()));
    }
    if want.is_empty() {
        return Err(format!("{name}: there is nothing to compare"));
    }
    for (which, values) in [("want", want), ("got", got)] {
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            let (got, want) = (got[index], want[index]);
            return Err(format!("{name}: {which} is not finite at [{index}]: got {got:e}, want {want:e}"));
        }
    }
    let square = |v: f64| v * v;
    let scale: f64 = want.iter().map(|&w| square(f64::from(w))).sum();
    let gap: f64 = got.iter().zip(want).map(|(&g, &w)| square(f64::from(g) - f64::from(w))).sum();
    let (worst, largest) = got
        .iter()
        .zip(want)
        .map(|(&g, &w)| (f64::from(g) - f64::from(w)).abs())
        .enumerate()
        .fold((0, 0.0), |best, next| if next.1 > best.1 { next } else { best });
    let rms = (scale / want.len() as f64).sqrt();
    let found = if scale > 0.0 {
        Measured { rel_l2: (gap / scale).sqrt(), elem_over_rms: largest / rms }
    } else {
        let error = if gap > 0.0 { f64::INFINITY } else { 0.0 };
        Measured { rel_l2: error, elem_over_rms: error }
    };
    if within(found.rel_l2, tolerance.rel_l2) && within(found.elem_over_rms, tolerance.elem_over_rms) {
        return Ok(found);
    }
    Err(format!(
        "{name}: relative L2 error {:.3e} (allowed {:.1e}), worst element {:.3e} of the RMS {rms:.3e} (allowed {:.1e}) \
         at [{worst}] of {}: got {:e}, want {:e}",
        found.rel_l2,
        tolerance.rel_l2,
        found.elem_over_rms,
        tolerance.elem_over_rms,
        want.len(),
        got[worst],
        want[worst],
    ))
}

/// False for NaN on either side.
fn within(error: f64, allowed: f64) -> bool {
    error <= allowed
}

/// False for NaN.
fn is_near_tie(margin: f32) -> bool {
    margin < NEAR_TIE
}

/// What a comparison of codes found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codes {
    /// Codes compared.
    pub decisions: usize,
    /// Decisions whose two nearest codes are within [`NEAR_TIE`].
    pub near_ties: usize,
    /// Frames whose first differing code is such a near tie.
    pub flipped: usize,
}

/// Compares residual codes `[codebooks, frames]` with the stored ones and their margins of the same shape; panics
/// where a code differs without a near tie, or where more than 0.1 % of the decisions (at least one) flipped.
#[track_caller]
pub fn compare_codes(name: &str, got: &[i32], want: &[i32], margins: &[f32], frames: usize) -> Codes {
    measure_codes(name, got, want, margins, frames).unwrap_or_else(|message| panic!("{message}"))
}

/// The same as [`compare_codes`], with the failure as a message.
///
/// Codes below the first that flipped in a frame quantise another residual: they are not judged.
pub fn measure_codes(
    name: &str,
    got: &[i32],
    want: &[i32],
    margins: &[f32],
    frames: usize,
) -> Result<Codes, String> {
    if want.is_empty() || got.len() != want.len() || margins.len() != want.len() {
        let lengths = [got.len(), want.len(), margins.len()];
        return Err(format!(
            "{name}: got, want and margins have lengths {lengths:?}, expected one length above 0"
        ));
    }
    if frames == 0 || !want.len().is_multiple_of(frames) {
        return Err(format!("{name}: {} codes do not make rows of {frames} frames", want.len()));
    }
    let near_ties = margins.iter().filter(|&&margin| is_near_tie(margin)).count();
    let mut flipped = 0;
    for frame in 0..frames {
        let Some(first) = (frame..want.len()).step_by(frames).find(|&i| got[i] != want[i]) else { continue };
        if !is_near_tie(margins[first]) {
            return Err(format!(
                "{name}: codebook {} frame {frame}: got code {}, want {}, with a margin of {:e}",
                first / frames,
                got[first],
                want[first],
                margins[first],
            ));
        }
        flipped += 1;
    }
    if flipped > (want.len() / 1000).max(1) {
        return Err(format!("{name}: {flipped} of {} codes flipped at near ties, above 0.1 %", want.len()));
    }
    Ok(Codes { decisions: want.len(), near_ties, flipped })
}
