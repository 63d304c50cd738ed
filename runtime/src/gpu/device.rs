//! The open device: its limits, and its failures as errors rather than panics.

use super::adapter::{AdapterDescription, choose};
use super::experimental::{HALF_MATRICES, has_half_matrices, leave};
use super::memory::GRAIN;
use crate::backend::DeviceError;
use auscult_kernels::WgslDevice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// Device, queue and what is known of them.
pub(super) struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    /// `wgpu:0`.
    pub id: String,
    pub max_binding: usize,
    pub binding_align: usize,
    pub params_align: usize,
    pub max_buffer: usize,
    /// Workgroups along one axis.
    pub max_groups: u32,
    pub has_timestamps: bool,
    /// What the choice of forms goes by.
    pub wgsl: WgslDevice,
    /// Numbers of buffers that were dropped; what is kept for them can go.
    pub dead: Arc<Mutex<Vec<u64>>>,
    faults: Arc<Faults>,
}

/// The first failure that no call could report. Whatever ran after it is in doubt, so it is never forgotten.
#[derive(Default)]
struct Faults(Mutex<Option<String>>);

impl Faults {
    fn record(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }

    fn first(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Gpu {
    /// Opens an adapter with the limits it has.
    pub fn open(selector: Option<usize>) -> Result<(Self, AdapterDescription), DeviceError> {
        let (adapter, description) = choose(selector)?;
        let id = format!("wgpu:{}", description.index);
        let offered = adapter.limits();
        let plain = adapter.features() & wgpu::Features::TIMESTAMP_QUERY;
        let matrices = if has_half_matrices(&adapter) { plain | HALF_MATRICES } else { plain };
        // every limit and what forms ask for, every limit, then what WebGPU guarantees plus long bindings, then old
        // hardware
        let attempts = [
            (matrices, offered.clone()),
            (plain, offered.clone()),
            (
                plain,
                wgpu::Limits {
                    max_buffer_size: offered.max_buffer_size,
                    max_storage_buffer_binding_size: offered.max_storage_buffer_binding_size,
                    ..wgpu::Limits::default()
                },
            ),
            (plain, wgpu::Limits::downlevel_defaults()),
        ];
        let mut refusal = None;
        let mut opened = None;
        for (required_features, required_limits) in attempts {
            let experimental = required_features.contains(HALF_MATRICES);
            let asked = wgpu::DeviceDescriptor {
                label: Some("auscult"),
                required_features,
                required_limits,
                experimental_features: if experimental {
                    leave()
                } else {
                    wgpu::ExperimentalFeatures::disabled()
                },
                memory_hints: wgpu::MemoryHints::MemoryUsage,
                ..Default::default()
            };
            match pollster::block_on(adapter.request_device(&asked)) {
                Ok(device) => {
                    opened = Some(device);
                    break;
                }
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        let Some((device, queue)) = opened else {
            let said = refusal.map_or_else(String::new, |error| error.to_string());
            let why = format!("`{}` ({}) cannot be opened: {said}", description.name, description.driver);
            return Err(DeviceError::Unavailable { id, why });
        };
        let faults = Arc::new(Faults::default());
        let uncaptured = Arc::clone(&faults);
        device.on_uncaptured_error(Arc::new(move |error| uncaptured.record(one_line(&error))));
        let lost = Arc::clone(&faults);
        device.set_device_lost_callback(move |_, said| {
            lost.record(format!("the device was lost: {}", said.trim()))
        });

        let limits = device.limits();
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let max_binding = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let gpu = Self {
            id,
            max_binding: size(max_binding) / 4 * 4,
            binding_align: size(limits.min_storage_buffer_offset_alignment.into()).max(GRAIN),
            params_align: size(limits.min_uniform_buffer_offset_alignment.into()),
            max_buffer: size(limits.max_buffer_size),
            max_groups: limits.max_compute_workgroups_per_dimension,
            wgsl: WgslDevice { half_matrices: device.features().contains(HALF_MATRICES) },
            has_timestamps: device.features().contains(wgpu::Features::TIMESTAMP_QUERY),
            dead: Arc::default(),
            faults,
            device,
            queue,
        };
        Ok((gpu, description))
    }

    /// Gives the device up.
    pub fn close(&self) {
        self.faults.record("the device was closed".into());
        self.device.destroy();
    }

    /// The error of a failure.
    pub fn failed(&self, what: impl Into<String>) -> DeviceError {
        DeviceError::Failed { device: self.id.clone(), what: what.into() }
    }

    /// Fails if anything failed earlier without a call that could say so.
    pub fn check(&self) -> Result<(), DeviceError> {
        self.faults.first().map_or(Ok(()), |what| Err(self.failed(what)))
    }

    /// Runs calls that report errors to their device, and returns the first such error.
    pub fn scoped<T>(&self, calls: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let result = calls();
        let errors = [
            pollster::block_on(internal.pop()),
            pollster::block_on(validation.pop()),
            pollster::block_on(memory.pop()),
        ];
        // memory first: what failed after it failed for want of it
        errors.into_iter().rev().flatten().next().map_or(Ok(result), Err)
    }

    /// Like [`scoped`](Self::scoped), with the error of this crate, and failures that come by callback.
    pub fn attempt<T>(&self, what: &str, calls: impl FnOnce() -> T) -> Result<T, DeviceError> {
        let result =
            self.scoped(calls).map_err(|error| self.failed(format!("{what}: {}", one_line(&error))))?;
        self.check()?;
        Ok(result)
    }

    /// Waits for a submission, or for everything submitted.
    pub fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<(), DeviceError> {
        let wait = wgpu::PollType::Wait { submission_index: submission, timeout: None };
        // wgpu 30 panics in `poll` when it learns there that the device is lost (`handle_error_fatal`); it has
        // let go of its locks by then. Unnecessary once `PollError` has a case for it.
        let polled = catch_unwind(AssertUnwindSafe(|| self.device.poll(wait)));
        self.check()?;
        match polled {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.failed(format!("waiting failed: {error}"))),
            Err(_) => {
                self.faults.record("the device was lost while it was waited for".into());
                self.check()
            }
        }
    }
}

/// An error of wgpu, which prints a tree of causes, on one line.
fn one_line(error: &wgpu::Error) -> String {
    let text = match error {
        wgpu::Error::OutOfMemory { .. } => "out of memory".to_string(),
        other => other.to_string(),
    };
    let parts = text.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "Caused by:");
    parts.collect::<Vec<_>>().join(": ").trim_start_matches("Validation Error: ").to_string()
}
