//! What a device reaches with kernels of this project: the ceilings that other figures are held against.

use crate::{Backend, Contents, DeviceError, Span};
use auscult_kernels::ops::linear::{Activation, Linear};
use auscult_kernels::ops::scale::Scale;
use auscult_kernels::{Plan, TensorDesc};
use std::time::{Duration, Instant};

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
/// Memory for three matrices of 16 MiB, or a failure of the device.
pub fn matrix_rate(backend: &dyn Backend) -> Result<f64, DeviceError> {
    let mut rate = 0.0;
    // larger and larger, until one launch takes long enough to be worth measuring: slow devices stop early
    for size in [128, 512, 2048] {
        let square = TensorDesc::f32([size, size]);
        let plan = Linear { activation: Activation::None }.plan(&square, &square, None, None)?;
        let seconds = seconds_a_launch(backend, &plan)?;
        rate = plan.cost.flops as f64 / seconds;
        if seconds > 0.05 {
            break;
        }
    }
    Ok(rate)
}

/// Seconds of one launch in a row of many, over noise and not over zeros.
fn seconds_a_launch(backend: &dyn Backend, plan: &Plan) -> Result<f64, DeviceError> {
    let mut spans: Vec<Option<Span>> = Vec::new();
    for (slot, desc) in plan.kernel.slots.iter().zip(&plan.slots) {
        let Some(desc) = desc else {
            spans.push(None);
            continue;
        };
        let buffer = backend.alloc(Contents::Undefined(desc.bytes()))?;
        let noise: Vec<f32> = auscult_kernels::noise(slot.name, desc.elements()).collect();
        backend.upload(&buffer.span(), bytemuck::cast_slice(&noise))?;
        spans.push(Some(buffer.span()));
    }
    backend.dispatch(plan, &spans)?;
    backend.wait()?;
    let mut launches = 1_u32;
    loop {
        let started = Instant::now();
        for _ in 0..launches {
            backend.dispatch(plan, &spans)?;
        }
        backend.wait()?;
        let taken = started.elapsed();
        if taken >= MEASURED || launches >= 1 << 16 {
            return Ok(taken.as_secs_f64() / f64::from(launches));
        }
        launches *= 2;
    }
}
