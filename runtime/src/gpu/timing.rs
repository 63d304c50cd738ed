//! Time that the device spends in launches.

use super::device::Gpu;
use super::memory::Staging;
use crate::backend::DeviceError;
use std::time::Duration;

/// Passes that one timing can hold; two timestamps each, of the 4096 that WebGPU allows in a set.
const PASSES: u32 = 2048;

/// Timestamps around every pass while a timing is under way.
pub(super) struct Timer {
    /// The set, and where its values are resolved to; `None` on adapters without.
    queries: Option<(wgpu::QuerySet, wgpu::Buffer)>,
    /// Passes so far, those past the end of the set included.
    passes: u32,
}

impl Timer {
    pub fn new(gpu: &Gpu) -> Result<Self, DeviceError> {
        if !gpu.has_timestamps {
            return Ok(Self { queries: None, passes: 0 });
        }
        let queries = gpu.attempt("timestamps", || {
            let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: 2 * PASSES,
            });
            let resolved = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: 16 * u64::from(PASSES),
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            (set, resolved)
        })?;
        Ok(Self { queries: Some(queries), passes: 0 })
    }

    /// Where the next pass writes when it begins and ends.
    pub fn next_pass(&mut self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let (query_set, _) = self.queries.as_ref()?;
        let pass = self.passes;
        self.passes = self.passes.saturating_add(1);
        (pass < PASSES).then_some(wgpu::ComputePassTimestampWrites {
            query_set,
            beginning_of_pass_write_index: Some(2 * pass),
            end_of_pass_write_index: Some(2 * pass + 1),
        })
    }

    /// The sum over the passes, which are done.
    pub fn read(self, gpu: &Gpu, staging: &mut Staging) -> Result<Option<Duration>, DeviceError> {
        let Some((set, resolved)) = self.queries else { return Ok(None) };
        if self.passes > PASSES {
            let passes = self.passes;
            return Err(gpu.failed(format!("timing: {passes} compute passes, expected at most {PASSES}")));
        }
        if self.passes == 0 {
            return Ok(Some(Duration::ZERO));
        }
        gpu.attempt("timestamps", || {
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.resolve_query_set(&set, 0..2 * self.passes, &resolved, 0);
            gpu.queue.submit([encoder.finish()]);
        })?;
        let bytes =
            staging.read(gpu, &resolved, 0, 16 * usize::try_from(self.passes).expect("at most 2048"))?;
        let stamps: Vec<u64> = bytes.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
        let ticks: u64 = stamps.chunks_exact(2).map(|pass| pass[1].saturating_sub(pass[0])).sum();
        let nanoseconds = ticks as f64 * f64::from(gpu.queue.get_timestamp_period());
        Ok(Some(Duration::from_secs_f64(nanoseconds * 1e-9)))
    }
}
