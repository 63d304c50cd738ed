//! Bind groups, kept from launch to launch for as long as the memory they name lives.

use super::device::Gpu;
use super::memory::{GRAIN, Memory, round_up};
use super::pipeline::Pipeline;
use crate::backend::DeviceError;
use auscult_kernels::{Access, KernelInfo};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::PoisonError;

/// Groups kept at most: several graphs of a deep model. Past that, the half that was not used for longest goes.
const KEPT: usize = 8192;

/// What a slot is bound to: at least one byte.
pub(super) struct Bound<'a> {
    pub memory: &'a Memory,
    pub offset: usize,
    pub bytes: usize,
}

/// Makes bind groups and keeps them.
pub(super) struct Binder {
    groups: HashMap<Key, Kept>,
    /// Keys of the groups that name a buffer.
    by_buffer: HashMap<u64, Vec<Key>>,
    /// Stand-ins for slots left out: one for all that are read, one for each that is written, since WebGPU forbids
    /// to bind what is written twice.
    unread: Memory,
    unwritten: Vec<Memory>,
    key: Vec<u64>,
    launches: u64,
    made: u64,
}

/// Number of the pipeline, then number, offset and length for each slot.
type Key = Box<[u64]>;

struct Kept {
    group: wgpu::BindGroup,
    used: u64,
}

impl Binder {
    pub fn new(gpu: &Gpu) -> Result<Self, DeviceError> {
        Ok(Self {
            groups: HashMap::new(),
            by_buffer: HashMap::new(),
            unread: Memory::new(gpu, 256)?,
            unwritten: Vec::new(),
            key: Vec::new(),
            launches: 0,
            made: 0,
        })
    }

    /// The group that binds `slots`, and after them a parameter block of `params`.
    pub fn group(
        &mut self,
        gpu: &Gpu,
        pipeline: &Pipeline,
        kernel: &KernelInfo,
        slots: &[Option<Bound<'_>>],
        params: &wgpu::Buffer,
    ) -> Result<wgpu::BindGroup, DeviceError> {
        self.launches += 1;
        self.key.clear();
        self.key.push(pipeline.number);
        for slot in slots {
            match slot {
                Some(slot) => self.key.extend([slot.memory.number, slot.offset as u64, slot.bytes as u64]),
                None => self.key.extend([u64::MAX; 3]),
            }
        }
        if let Some(kept) = self.groups.get_mut(self.key.as_slice()) {
            kept.used = self.launches;
            return Ok(kept.group.clone());
        }
        while self.unwritten.len() < slots.len() {
            self.unwritten.push(Memory::new(gpu, 256)?);
        }
        let stand_ins = kernel.slots.iter().zip(&self.unwritten).map(|(slot, unwritten)| match slot.access {
            Access::Read => &self.unread,
            Access::Write | Access::ReadWrite => unwritten,
        });
        let mut resources: Vec<wgpu::BufferBinding<'_>> = stand_ins
            .zip(slots)
            .map(|(stand_in, slot)| match slot {
                None => wgpu::BufferBinding { buffer: &stand_in.raw, offset: 0, size: None },
                Some(slot) => wgpu::BufferBinding {
                    buffer: &slot.memory.raw,
                    offset: slot.offset as u64,
                    // up to whole words; the memory is long enough, since offsets are multiples of at least the grain
                    size: NonZeroU64::new(round_up(slot.bytes, 4).max(GRAIN) as u64),
                },
            })
            .collect();
        let size = NonZeroU64::new(kernel.params_size as u64);
        resources.push(wgpu::BufferBinding { buffer: params, offset: 0, size });
        let entries: Vec<wgpu::BindGroupEntry<'_>> = (0_u32..)
            .zip(resources)
            .map(|(binding, resource)| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(resource),
            })
            .collect();
        let descriptor = wgpu::BindGroupDescriptor {
            label: Some(kernel.name),
            layout: &pipeline.layout,
            entries: &entries,
        };
        let group = gpu.attempt(kernel.name, || gpu.device.create_bind_group(&descriptor))?;
        self.made += 1;
        self.keep(group.clone());
        Ok(group)
    }

    fn keep(&mut self, group: wgpu::BindGroup) {
        if self.groups.len() >= KEPT {
            let mut used: Vec<u64> = self.groups.values().map(|kept| kept.used).collect();
            let (_, median, _) = used.select_nth_unstable(KEPT / 2);
            let oldest = *median;
            self.groups.retain(|_, kept| kept.used >= oldest);
            self.by_buffer.clear();
            for key in self.groups.keys() {
                for buffer in buffers(key) {
                    self.by_buffer.entry(buffer).or_default().push(key.clone());
                }
            }
        }
        let key = Key::from(self.key.as_slice());
        for buffer in buffers(&key) {
            self.by_buffer.entry(buffer).or_default().push(key.clone());
        }
        self.groups.insert(key, Kept { group, used: self.launches });
    }

    /// Lets go of groups that name dropped buffers: they alone keep that memory.
    pub fn forget_dead(&mut self, gpu: &Gpu) {
        let dead = std::mem::take(&mut *gpu.dead.lock().unwrap_or_else(PoisonError::into_inner));
        for buffer in dead {
            for key in self.by_buffer.remove(&buffer).unwrap_or_default() {
                self.groups.remove(&key);
                for other in buffers(&key) {
                    if let Some(keys) = self.by_buffer.get_mut(&other) {
                        keys.retain(|kept| *kept != key);
                    }
                }
            }
        }
    }

    /// Launches bound so far.
    pub fn launches(&self) -> u64 {
        self.launches
    }

    /// Groups made so far.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// Groups kept now.
    pub fn kept(&self) -> u64 {
        self.groups.len() as u64
    }
}

/// The distinct buffers that a key names.
fn buffers(key: &[u64]) -> Vec<u64> {
    let mut numbers: Vec<u64> =
        key[1..].iter().step_by(3).copied().filter(|&number| number != u64::MAX).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
