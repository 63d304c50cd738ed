//! Launches timed beside what the device was measured to reach in the same run.

use super::rates::{copy_rate, half_rate, matrix_rate};
use crate::explain::form;
use crate::{Backend, Contents, DeviceError, Launch, Recording, Span};
use auscult_kernels::{Access, Case, DType, Plan, TensorDesc};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Inputs are rotated until so many bytes lie between two uses of one copy: beyond the caches of processors, and of
/// accelerators.
const BEYOND_CACHES: [usize; 2] = [96 << 20, 256 << 20];
/// Copies of a case's inputs at most.
const COPIES: usize = 32;
/// A case is measured for so long, so many times; the best counts.
const MEASURED: Duration = Duration::from_millis(150);
const TIMES: usize = 3;

/// What the device reaches with its own kernels, measured in this run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ceiling {
    /// Bytes read and written a second by a copy.
    pub bytes: f64,
    /// Additions and multiplications a second of a product of f32 matrices.
    pub flops: f64,
    /// The same with weights in half precision, as models run there.
    pub half_flops: f64,
}

impl Ceiling {
    /// Measures a device.
    ///
    /// # Errors
    /// Those of the rates: memory, or a failure of the device.
    pub fn measure(backend: &dyn Backend) -> Result<Self, DeviceError> {
        Ok(Self { bytes: copy_rate(backend)?, flops: matrix_rate(backend)?, half_flops: half_rate(backend)? })
    }

    /// What arithmetic of this launch is held against; `None` where it moves whole numbers.
    fn flops_of(&self, plan: &Plan) -> Option<f64> {
        let has = |wanted: &[DType]| plan.slots.iter().flatten().any(|desc| wanted.contains(&desc.dtype));
        match plan.cost.flops {
            0 => None,
            _ if has(&[DType::F16, DType::BF16]) => Some(self.half_flops),
            _ => has(&[DType::F32]).then_some(self.flops),
        }
    }
}

/// Copies of a case's slots, used one after another.
pub struct Rotation<'a> {
    plan: &'a Plan,
    sets: Vec<Vec<Option<Span>>>,
    /// A launch over each set, as one, where the device keeps such.
    recorded: Option<Box<dyn Recording>>,
}

impl<'a> Rotation<'a> {
    /// Fills memory with the case's noise, and launches once over all of it.
    ///
    /// # Errors
    /// Memory, or a failure of the device.
    pub fn new(backend: &dyn Backend, case: &'a Case) -> Result<Self, DeviceError> {
        let plan = &case.plan;
        let bytes: usize = plan.slots.iter().flatten().map(TensorDesc::bytes).sum();
        let beyond = BEYOND_CACHES[usize::from(backend.info().accelerator)];
        let count = beyond.div_ceil(bytes.max(1)).clamp(1, COPIES);
        let inputs: Vec<Vec<u8>> = (0..plan.slots.len())
            .map(|i| if plan.kernel.slots[i].access == Access::Write { vec![] } else { case.input(i) })
            .collect();
        let mut sets = Vec::with_capacity(count);
        for _ in 0..count {
            let mut spans = Vec::with_capacity(plan.slots.len());
            for (desc, input) in plan.slots.iter().zip(&inputs) {
                let Some(desc) = desc else {
                    spans.push(None);
                    continue;
                };
                let span = backend.alloc(Contents::Undefined(desc.bytes()))?.span();
                if !input.is_empty() {
                    backend.upload(&span, input)?;
                }
                spans.push(Some(span));
            }
            backend.dispatch(plan, &spans)?;
            sets.push(spans);
        }
        backend.wait()?;
        let launches: Vec<Launch<'_>> = sets.iter().map(|spans| (plan, spans.clone())).collect();
        let recorded = backend.record(&launches)?;
        Ok(Self { plan, sets, recorded })
    }

    /// The time of so many launches: the device's, where it has a clock.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn time(&self, backend: &dyn Backend, launches: u64) -> Result<Duration, DeviceError> {
        let set = self.sets.len() as u64;
        let whole = if self.recorded.is_some() { launches / set } else { 0 };
        let timed = backend.time(&mut || {
            for _ in 0..whole {
                self.recorded.as_ref().map_or(Ok(()), |recorded| recorded.replay())?;
            }
            for (_, spans) in (whole * set..launches).zip(self.sets.iter().cycle()) {
                backend.dispatch(self.plan, spans)?;
            }
            Ok(())
        })?;
        Ok(timed.best())
    }

    /// Seconds of one launch: the best of several rows of many.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn seconds(&self, backend: &dyn Backend) -> Result<f64, DeviceError> {
        let set = self.sets.len() as u64;
        let mut launches = set;
        let mut taken = self.time(backend, launches)?;
        while taken < MEASURED / 4 && launches < 1 << 20 {
            launches *= 4;
            taken = self.time(backend, launches)?;
        }
        let mut best = taken;
        for _ in 0..TIMES {
            if taken < 20 * MEASURED {
                best = best.min(self.time(backend, launches)?);
            }
        }
        Ok(best.as_secs_f64() / launches as f64)
    }
}

/// A case's time, and what it comes to. As text it is one line.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The kernel.
    pub kernel: &'static str,
    /// Why this shape.
    pub why: &'static str,
    /// Shapes by slot, in binding order.
    pub shapes: Vec<(&'static str, Vec<usize>)>,
    /// The device's id and name.
    pub device: String,
    /// Which form of the kernel ran: the entry of the PTX or WGSL, or which host form.
    pub form: &'static str,
    /// Microseconds of one launch.
    pub us: f64,
    /// Compulsory bytes a second, in units of 10^9.
    pub gb_per_s: f64,
    /// The share of what a copy reaches.
    pub copy_share: f64,
    /// Arithmetic a second, in units of 10^12; `None` where whole numbers are moved.
    pub tflop_per_s: Option<f64>,
    /// The share of what a matrix product reaches.
    pub matrix_share: Option<f64>,
    #[serde(skip)]
    ceiling: Ceiling,
    #[serde(skip)]
    matrix_tflop_per_s: Option<f64>,
}

impl Measured {
    /// Of a case's launch that took so many seconds.
    pub fn new(backend: &dyn Backend, case: &Case, seconds: f64, ceiling: &Ceiling) -> Self {
        let Plan { kernel, slots, cost, .. } = &case.plan;
        let (bytes, flops) = (cost.bytes as f64 / seconds, cost.flops as f64 / seconds);
        let most = ceiling.flops_of(&case.plan);
        let shape = |(slot, desc): (&auscult_kernels::Slot, &Option<TensorDesc>)| {
            desc.as_ref().map(|desc| (slot.name, desc.shape.clone()))
        };
        Self {
            kernel: kernel.name,
            why: case.why,
            shapes: kernel.slots.iter().zip(slots).filter_map(shape).collect(),
            device: format!("{} {}", backend.info().id, backend.info().name),
            form: form(&case.plan, backend.info()),
            us: seconds * 1e6,
            gb_per_s: bytes / 1e9,
            copy_share: bytes / ceiling.bytes,
            tflop_per_s: most.map(|_| flops / 1e12),
            matrix_share: most.map(|most| flops / most),
            ceiling: *ceiling,
            matrix_tflop_per_s: most.map(|most| most / 1e12),
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<String> =
            self.shapes.iter().map(|(name, shape)| format!("{name} {shape:?}")).collect();
        write!(
            f,
            "{}  {} | {} | {} | {:.1} us | {:.1} GB/s ({:.0} % of {:.0})",
            self.kernel,
            shapes.join("  "),
            self.device,
            self.form,
            self.us,
            self.gb_per_s,
            100.0 * self.copy_share,
            self.ceiling.bytes / 1e9
        )?;
        if let (Some(rate), Some(share), Some(most)) =
            (self.tflop_per_s, self.matrix_share, self.matrix_tflop_per_s)
        {
            write!(f, " | {rate:.3} TFLOP/s ({:.0} % of {most:.3})", 100.0 * share)?;
        }
        Ok(())
    }
}
