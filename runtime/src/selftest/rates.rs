//! What a device reaches with kernels of this project: the ceilings that other figures are held against.

use crate::{Backend, Contents, DeviceError, Span};
use auscult_kernels::ops::linear::{Activation, Linear};
use auscult_kernels::ops::linear_half::LinearHalf;
use auscult_kernels::ops::scale::Scale;
use auscult_kernels::{Case, DType, Plan, ShapeError, TensorDesc, Tolerance};
use std::time::Duration;

/// A rate is measured over at least so long.
const MEASURED: Duration = Duration::from_millis(300);

/// Bytes read and written a second by a kernel that copies.
///
/// # Errors
/// Memory for two tensors of 64 MiB (less where less can be bound), or a failure of the device.
pub fn copy_rate(backend: &dyn Backend) -> Result<f64, DeviceError> {
    let elements = (64 << 20).min(backend.info().max_binding) / 4;
    let plan = Scale { factor: 1.0 }.plan(&TensorDesc::f32([elements]))?;
    Ok(plan.cost.bytes as f64 / seconds_a_launch(backend, &plan)?)
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
        let seconds = seconds_a_launch(backend, &plan)?;
        rate = plan.cost.flops as f64 / seconds;
        if seconds > 0.02 {
            break;
        }
    }
    Ok(rate)
}

/// Seconds of one launch in a row of many, over noise and not over zeros.
fn seconds_a_launch(backend: &dyn Backend, plan: &Plan) -> Result<f64, DeviceError> {
    let case = Case { why: "rate", plan: plan.clone(), fill: vec![], tolerance: Tolerance::EXACT };
    let mut spans: Vec<Option<Span>> = Vec::new();
    for (slot, desc) in plan.slots.iter().enumerate() {
        let Some(desc) = desc else {
            spans.push(None);
            continue;
        };
        let span = backend.alloc(Contents::Undefined(desc.bytes()))?.span();
        backend.upload(&span, &case.input(slot))?;
        spans.push(Some(span));
    }
    backend.dispatch(plan, &spans)?;
    let mut launches = 1_u32;
    loop {
        let timed = backend.time(&mut || (0..launches).try_for_each(|_| backend.dispatch(plan, &spans)))?;
        let taken = timed.best();
        if taken >= MEASURED || timed.wall >= 3 * MEASURED || launches >= 1 << 16 {
            return Ok(taken.as_secs_f64() / f64::from(launches));
        }
        launches *= 2;
    }
}
