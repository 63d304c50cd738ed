//! What a device makes of a graph: which form of each kernel runs, and how it is launched.

use crate::backend::DeviceInfo;
use crate::graph::{Graph, Step};
use auscult_kernels::Plan;
use std::fmt::Write;

/// One line for each launch: shapes, and on `cuda` the entry, blocks, threads and shared memory of the PTX form, on `wgpu`
/// the same of the WGSL form, elsewhere which host form runs.
pub fn explain(graph: &Graph, device: &DeviceInfo) -> String {
    let mut text = String::new();
    for step in graph.steps() {
        if let Step::Dispatch { plan, .. } = step {
            writeln!(text, "{plan} | {}", launched(plan, device)).expect("a string takes all text");
        }
    }
    text
}

/// Which form of its kernel a device runs for a launch: the entry of the PTX or WGSL, or which host form.
pub(crate) fn form(plan: &Plan, device: &DeviceInfo) -> &'static str {
    let kernel = plan.kernel;
    if let Some(ptx) = &device.ptx {
        return kernel.ptx_for(&plan.params, ptx).map_or("no PTX form", |form| form.entry);
    }
    if let Some(wgsl) = &device.wgsl {
        return kernel.wgsl_for(&plan.params, wgsl).map_or("no WGSL form", |form| form.entry);
    }
    if kernel.cpu.is_some() { "host form" } else { "reference" }
}

fn launched(plan: &Plan, device: &DeviceInfo) -> String {
    let kernel = plan.kernel;
    if plan.is_empty() {
        return "nothing to do".into();
    }
    let name = form(plan, device);
    if let Some(ptx) = &device.ptx {
        let Some(form) = kernel.ptx_for(&plan.params, ptx) else { return name.into() };
        let shared = form.static_shared + (form.dynamic_shared)(&plan.params);
        let (grid, block) = ((form.grid)(&plan.params, ptx), form.block);
        let together = if form.cooperative { "  all at once" } else { "" };
        return format!("{name}  grid {grid:?}  block {block:?}  shared {shared}{together}");
    }
    if let Some(wgsl) = &device.wgsl
        && let Some(form) = kernel.wgsl_for(&plan.params, wgsl)
    {
        return format!("{name}  grid {:?}  block {:?}", (form.grid)(&plan.params), form.workgroup);
    }
    name.into()
}
