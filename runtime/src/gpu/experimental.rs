//! The leave that wgpu asks for before it gives features it calls experimental, of which cooperative matrices are the only one
//! asked for. Nothing else of this executor is unsafe.
//!
//! wgpu 30 declares the Vulkan memory model for shaders with such matrices but leaves accesses to workgroup memory private
//! (gfx-rs/wgpu issue 8805), so that barriers order them only because drivers do so anyway. The parity tests and `doctor`
//! show whether a driver does.

use auscult_kernels::WgslNeeds;

/// What a device is opened with for forms that need [`WgslNeeds::HalfMatrices16`].
pub(super) const HALF_MATRICES: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::SUBGROUP);

/// Whether an adapter has what [`WgslNeeds::HalfMatrices16`] tells.
pub(super) fn has_half_matrices(adapter: &wgpu::Adapter) -> bool {
    use wgpu::CooperativeScalarType::{F16, F32};
    let info = adapter.get_info();
    let multiplies = |p: &wgpu::CooperativeMatrixProperties| {
        [p.m_size, p.n_size, p.k_size] == [16; 3] && (p.ab_type, p.cr_type) == (F16, F32)
    };
    adapter.features().contains(HALF_MATRICES)
        && [info.subgroup_min_size, info.subgroup_max_size] == [32; 2]
        && adapter.limits().max_compute_workgroup_storage_size >= WgslNeeds::SHARED
        && adapter.cooperative_matrix_properties().iter().any(multiplies)
}

/// wgpu's token for experimental features.
#[allow(unsafe_code)]
pub(super) fn leave() -> wgpu::ExperimentalFeatures {
    // SAFETY: what is asked is to know that experimental features may behave in ways that are not defined if used wrongly,
    // and may have faults of their own. The only one requested is cooperative matrices (`HALF_MATRICES`), whose loads and
    // stores wgpu checks at their first element alone. The forms that use them (`WgslNeeds::HalfMatrices16`) load from and
    // store to workgroup arrays only, at places that do not depend on data or shapes, for subgroups of the one size that
    // `has_half_matrices` asks for.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}
