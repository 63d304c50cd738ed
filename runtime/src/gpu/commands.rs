//! Recorded work, and its submission.

use super::device::Gpu;
use super::memory::round_up;
use super::timing::Timer;
use crate::backend::DeviceError;

/// Launches and copies of one submission at most: several columns of the largest published model, each of some 600; their
/// arithmetic ends it earlier where it is long.
const COMMANDS: usize = 4096;

/// Arithmetic of one submission at most. Systems take a device that does not answer for seconds as hung.
const FLOPS: u64 = 400_000_000_000;

/// Something to do on the device.
pub(super) enum Command {
    Launch { pipeline: wgpu::ComputePipeline, group: wgpu::BindGroup, params_at: u32, grid: [u32; 3] },
    Copy { from: wgpu::Buffer, from_offset: u64, to: wgpu::Buffer, to_offset: u64, bytes: u64 },
}

/// Keeps commands and their parameter blocks until they are submitted together.
pub(super) struct Recorder {
    commands: Vec<Command>,
    /// What `params_buffer` will hold.
    params: Vec<u8>,
    params_buffer: wgpu::Buffer,
    params_align: usize,
    flops: u64,
    submissions: u64,
}

impl Recorder {
    pub fn new(gpu: &Gpu) -> Result<Self, DeviceError> {
        let descriptor = wgpu::BufferDescriptor {
            label: Some("params"),
            size: (COMMANDS * gpu.params_align.max(256)) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        Ok(Self {
            commands: Vec::new(),
            params: Vec::new(),
            params_buffer: gpu.attempt("params", || gpu.device.create_buffer(&descriptor))?,
            params_align: gpu.params_align,
            flops: 0,
            submissions: 0,
        })
    }

    /// Where parameter blocks will lie.
    pub fn params_buffer(&self) -> &wgpu::Buffer {
        &self.params_buffer
    }

    /// Whether one more command, with that many bytes of parameters, has no place.
    pub fn is_full(&self, params: usize) -> bool {
        let end = round_up(self.params.len(), self.params_align) + params;
        self.commands.len() >= COMMANDS || end as u64 > self.params_buffer.size()
    }

    pub fn push(&mut self, command: Command) {
        self.commands.push(command);
    }

    pub fn launch(
        &mut self,
        pipeline: wgpu::ComputePipeline,
        group: wgpu::BindGroup,
        params: &[u8],
        grid: [u32; 3],
    ) {
        let at = round_up(self.params.len(), self.params_align);
        self.params.resize(at, 0);
        self.params.extend_from_slice(params);
        let params_at = u32::try_from(at).expect("the parameter buffer is shorter than 4 GiB");
        self.push(Command::Launch { pipeline, group, params_at, grid });
    }

    /// Counts arithmetic; whether there is enough for a submission.
    pub fn add_work(&mut self, flops: u64) -> bool {
        self.flops = self.flops.saturating_add(flops);
        self.flops >= FLOPS
    }

    /// Submits everything recorded. Whatever comes of it, nothing stays recorded.
    pub fn submit(&mut self, gpu: &Gpu, timer: Option<&mut Timer>) -> Result<(), DeviceError> {
        if self.commands.is_empty() {
            return Ok(());
        }
        self.params.resize(round_up(self.params.len(), 4), 0);
        let submitted = gpu.attempt("submission", || {
            gpu.queue.write_buffer(&self.params_buffer, 0, &self.params);
            let encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            gpu.queue.submit([encode(&self.commands, encoder, timer)]);
        });
        self.commands.clear();
        self.params.clear();
        self.flops = 0;
        self.submissions += 1;
        submitted
    }

    /// Submissions so far.
    pub fn submissions(&self) -> u64 {
        self.submissions
    }
}

/// Consecutive launches share a pass.
fn encode(
    commands: &[Command],
    mut encoder: wgpu::CommandEncoder,
    mut timer: Option<&mut Timer>,
) -> wgpu::CommandBuffer {
    let is_launch = |command: &Command| matches!(command, Command::Launch { .. });
    for run in commands.chunk_by(|a, b| is_launch(a) && is_launch(b)) {
        if let [Command::Copy { from, from_offset, to, to_offset, bytes }] = run {
            encoder.copy_buffer_to_buffer(from, *from_offset, to, *to_offset, *bytes);
            continue;
        }
        let timestamp_writes = timer.as_deref_mut().and_then(Timer::next_pass);
        let mut pass =
            encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        let mut current = None;
        for command in run {
            if let Command::Launch { pipeline, group, params_at, grid: [x, y, z] } = command {
                if current != Some(pipeline) {
                    pass.set_pipeline(pipeline);
                    current = Some(pipeline);
                }
                pass.set_bind_group(0, group, &[*params_at]);
                pass.dispatch_workgroups(*x, *y, *z);
            }
        }
    }
    encoder.finish()
}
