//! What a device reaches with kernels of this project: the ceilings that other figures are held against.

use crate::{Backend, Contents, DeviceError, Span};
use auscult_kernels::ops::linear::{Activation, Linear};
use auscult_kernels::ops::linear_half::LinearHalf;
use auscult_kernels::ops::scale::Scale;
use auscult_kernels::{Case, DType, Plan, ShapeError, TensorDesc, Tolerance};
use std::time::Duration;

/// A rate is measured over at least so long.
const MEASURED: Duration = Duration::from_millis(300);

/// Bytes that lie between two uses of one address while a copy is measured, on a processor and on an accelerator: the caches
/// of the latter hold up to 126 MB (NVIDIA B200).
const COPIED: [usize; 2] = [128 << 20, 1 << 30];
/// Less memory than this is not looked for.
const LEAST_COPIED: usize = 32 << 20;

/// Bytes read and written a second by a kernel that copies, between tensors that are used in turn where one binding does
/// not hold enough.
///
/// # Errors
/// Memory for 32 MiB, a 32nd of what accelerators are measured over where they have it; a failure of the device.
pub fn copy_rate(backend: &dyn Backend) -> Result<f64, DeviceError> {
    let mut bytes = COPIED[usize::from(backend.info().accelerator)];
    loop {
        let length = (bytes / 2).min(backend.info().max_binding);
        let plan = Scale { factor: 1.0 }.plan(&TensorDesc::f32([length / 4]))?;
        match seconds_a_launch(backend, &plan, bytes.div_ceil(2 * length)) {
            Err(DeviceError::OutOfMemory { .. }) if bytes > LEAST_COPIED => bytes /= 2,
            seconds => return Ok(plan.cost.bytes as f64 / seconds?),
        }
    }
}

/// Additions and multiplications a second of a matrix product in f32.
///
/// # Errors
/// Memory for three matrices of 256 MiB, or a failure of the device.
pub fn matrix_rate(backend: &dyn Backend) -> Result<f64, DeviceError> {
    let product = Linear { activation: Activation::None };
    rate_of(backend, |size| {
        let square = TensorDesc::f32([size, size]);
        product.plan(&square, &square, None, None)
    })
}

/// Additions and multiplications a second of a matrix product with f16 weights: of f16 by f16 on devices with units for
/// it, as models run there, of f32 by f16 elsewhere.
///
/// # Errors
/// As [`matrix_rate`].
pub fn half_rate(backend: &dyn Backend) -> Result<f64, DeviceError> {
    let halves = backend.info().multiplies_halves();
    rate_of(backend, |size| {
        let weight = TensorDesc::new(DType::F16, [size, size]);
        if halves {
            let product = LinearHalf { activation: Activation::None, out: DType::F16 };
            return product.plan(&weight, &weight, None, None);
        }
        Linear { activation: Activation::None }.plan(&TensorDesc::f32([size, size]), &weight, None, None)
    })
}

fn rate_of(
    backend: &dyn Backend,
    square: impl Fn(usize) -> Result<Plan, ShapeError>,
) -> Result<f64, DeviceError> {
    let mut rate = 0.0;
    // larger and larger, until one launch takes long enough to be worth measuring: slow devices stop early
    for size in [128, 512, 2048, 4096, 8192] {
        let plan = square(size)?;
        let seconds = seconds_a_launch(backend, &plan, 1)?;
        rate = plan.cost.flops as f64 / seconds;
        if seconds > 0.02 {
            break;
        }
    }
    Ok(rate)
}

/// Seconds of one launch in a row of many, over noise and not over zeros, by so many sets of slots in turn.
fn seconds_a_launch(backend: &dyn Backend, plan: &Plan, sets: usize) -> Result<f64, DeviceError> {
    let case = Case { why: "rate", plan: plan.clone(), fill: vec![], tolerance: Tolerance::EXACT };
    let sets: Vec<Vec<Option<Span>>> = (0..sets).map(|_| slots(backend, &case)).collect::<Result<_, _>>()?;
    sets.iter().try_for_each(|spans| backend.dispatch(plan, spans))?;
    let mut launches = sets.len();
    loop {
        let turns = || sets.iter().cycle().take(launches);
        let timed = backend.time(&mut || turns().try_for_each(|spans| backend.dispatch(plan, spans)))?;
        let taken = timed.best();
        if taken >= MEASURED || timed.wall >= 3 * MEASURED || launches >= 1 << 16 {
            return Ok(taken.as_secs_f64() / launches as f64);
        }
        launches *= 2;
    }
}

/// Memory for the slots of a case, with noise in it.
fn slots(backend: &dyn Backend, case: &Case) -> Result<Vec<Option<Span>>, DeviceError> {
    let filled = |(slot, desc): (usize, &Option<TensorDesc>)| {
        let Some(desc) = desc else { return Ok(None) };
        let span = backend.alloc(Contents::Undefined(desc.bytes()))?.span();
        backend.upload(&span, &case.input(slot))?;
        Ok(Some(span))
    };
    case.plan.slots.iter().enumerate().map(filled).collect()
}
