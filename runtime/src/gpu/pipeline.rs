//! One compute pipeline for each form of a kernel, made when it is first launched.

use super::device::Gpu;
use crate::backend::DeviceError;
use auscult_kernels::{Access, KernelInfo, Wgsl};
use std::collections::HashMap;
use std::num::NonZeroU64;

/// A form of a kernel, compiled.
pub(super) struct Pipeline {
    /// Its number among the pipelines of the device.
    pub number: u64,
    pub compute: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// The pipelines of a device. A kernel's static is its identity, since variants by `override` have one of their own, and so
/// is the place of a form in it.
#[derive(Default)]
pub(super) struct Pipelines {
    by_form: HashMap<[usize; 2], Pipeline>,
}

impl Pipelines {
    pub fn get(
        &mut self,
        gpu: &Gpu,
        kernel: &'static KernelInfo,
        form: &'static Wgsl,
    ) -> Result<&Pipeline, DeviceError> {
        let key = [std::ptr::from_ref(kernel).addr(), std::ptr::from_ref(form).addr()];
        let number = self.len();
        match self.by_form.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                Ok(entry.insert(compile(gpu, kernel, form, number)?))
            }
        }
    }

    /// Pipelines made so far.
    pub fn len(&self) -> u64 {
        self.by_form.len() as u64
    }
}

fn compile(gpu: &Gpu, kernel: &KernelInfo, form: &Wgsl, number: u64) -> Result<Pipeline, DeviceError> {
    let entry = |binding: usize, ty, has_dynamic_offset, min_binding_size| wgpu::BindGroupLayoutEntry {
        binding: u32::try_from(binding).expect("a handful of slots"),
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size },
        count: None,
    };
    let mut entries: Vec<wgpu::BindGroupLayoutEntry> = kernel
        .slots
        .iter()
        .enumerate()
        .map(|(i, slot)| {
            let read_only = slot.access == Access::Read;
            entry(i, wgpu::BufferBindingType::Storage { read_only }, false, None)
        })
        .collect();
    let params_size = NonZeroU64::new(kernel.params_size as u64);
    entries.push(entry(kernel.slots.len(), wgpu::BufferBindingType::Uniform, true, params_size));

    let label = Some(kernel.name);
    gpu.attempt(kernel.name, || {
        let module = gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label,
            source: wgpu::ShaderSource::Wgsl(form.source.into()),
        });
        let layout = gpu
            .device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline_layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let compute = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(form.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: form.overrides,
                ..Default::default()
            },
            cache: None,
        });
        Pipeline { number, compute, layout }
    })
}
