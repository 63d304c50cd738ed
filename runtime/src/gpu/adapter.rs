//! Which adapters there are, and how one is chosen.

use super::experimental::has_half_matrices;
use crate::backend::DeviceError;
#[cfg(doc)]
use auscult_kernels::WgslNeeds;
use serde::Serialize;

/// What is known of an adapter before it is opened.
#[derive(Clone, Debug, Serialize)]
pub struct AdapterDescription {
    /// Number that selects it: `wgpu:0`.
    pub index: usize,
    /// What it calls itself.
    pub name: String,
    /// Driver and its version.
    pub driver: String,
    /// `vulkan`, `metal` or `dx12`.
    pub api: String,
    /// `discrete GPU`, `integrated GPU`, `virtual GPU`, `software` or `other`.
    pub kind: &'static str,
    /// Whether it is hardware rather than a renderer on the host's processor.
    pub accelerator: bool,
    /// Longest range in bytes that one slot can be bound to.
    pub max_binding: u64,
    /// Longest buffer in bytes.
    pub max_buffer: u64,
    /// Slots start at multiples of this many bytes.
    pub binding_align: u32,
    /// Bytes that a workgroup can share.
    pub workgroup_storage: u32,
    /// Invocations of a workgroup.
    pub workgroup_invocations: u32,
    /// Storage buffers of one launch.
    pub storage_buffers: u32,
    /// Optional abilities that matter to computing, by their WebGPU or wgpu names; every kernel has a form that needs none.
    pub features: Vec<&'static str>,
    /// Whether it multiplies matrices as forms that need [`WgslNeeds::HalfMatrices16`] ask.
    pub half_matrices: bool,
}

/// All adapters, in the order that selects them. Empty where there is no driver or no Vulkan loader.
pub fn adapters() -> Vec<AdapterDescription> {
    found().iter().enumerate().map(|(index, adapter)| describe(index, adapter)).collect()
}

/// The adapter to use where nobody chose: the first discrete GPU, else the first of any other hardware, never a
/// software one.
pub fn best_accelerator(adapters: &[AdapterDescription]) -> Option<usize> {
    let hardware = adapters.iter().filter(|adapter| adapter.accelerator);
    hardware.min_by_key(|adapter| rank(adapter)).map(|adapter| adapter.index)
}

fn rank(adapter: &AdapterDescription) -> usize {
    const ORDER: [&str; 4] = ["discrete GPU", "integrated GPU", "virtual GPU", "other"];
    ORDER.iter().position(|kind| *kind == adapter.kind).unwrap_or(ORDER.len())
}

fn found() -> Vec<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY))
}

/// Finds adapter number `selector`, or the best one.
pub(super) fn choose(selector: Option<usize>) -> Result<(wgpu::Adapter, AdapterDescription), DeviceError> {
    let mut found = found();
    let all: Vec<AdapterDescription> =
        found.iter().enumerate().map(|(i, adapter)| describe(i, adapter)).collect();
    let id = selector.map_or_else(|| "wgpu".to_string(), |index| format!("wgpu:{index}"));
    let unavailable = |why: String| DeviceError::Unavailable { id, why };
    let best = all.iter().min_by_key(|adapter| rank(adapter));
    let Some(best) = best else {
        return Err(unavailable(format!("no adapter was found; {MISSING}")));
    };
    let index = selector.unwrap_or(best.index);
    let Some(description) = all.get(index).cloned() else {
        let names: Vec<String> =
            all.iter().map(|a| format!("wgpu:{} ({}, {})", a.index, a.name, a.api)).collect();
        return Err(unavailable(format!("no such adapter; there are {}", names.join(", "))));
    };
    Ok((found.swap_remove(index), description))
}

#[cfg(target_os = "linux")]
const MISSING: &str = "install the graphics processor's Vulkan driver, or the package `mesa-vulkan-drivers` for one in \
                       software";
#[cfg(not(target_os = "linux"))]
const MISSING: &str = "install the graphics processor's driver";

fn describe(index: usize, adapter: &wgpu::Adapter) -> AdapterDescription {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    };
    let named = [
        ("timestamp-query", wgpu::Features::TIMESTAMP_QUERY),
        ("shader-f16", wgpu::Features::SHADER_F16),
        ("shader-int64", wgpu::Features::SHADER_INT64),
        ("subgroups", wgpu::Features::SUBGROUP),
        ("wgpu-cooperative-matrix", wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
    ];
    AdapterDescription {
        index,
        name: info.name,
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        api: info.backend.to_string(),
        kind,
        accelerator: info.device_type != wgpu::DeviceType::Cpu,
        max_binding: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
        max_buffer: limits.max_buffer_size,
        binding_align: limits.min_storage_buffer_offset_alignment,
        workgroup_storage: limits.max_compute_workgroup_storage_size,
        workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        storage_buffers: limits.max_storage_buffers_per_shader_stage,
        features: named
            .iter()
            .filter(|(_, feature)| features.contains(*feature))
            .map(|(name, _)| *name)
            .collect(),
        half_matrices: has_half_matrices(adapter),
    }
}
