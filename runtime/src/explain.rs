//! What a device makes of a graph: which form of each kernel runs, and how it is launched.

use crate::backend::DeviceInfo;
use crate::graph::{Graph, Step};
use auscult_kernels::Plan;
use std::fmt::Write;

/// One line for each launch: shapes, and on `cuda` the entry, blocks, threads and shared memory of the PTX form, on `wgpu`
/// the entry and the workgroups, elsewhere which host form runs.
pub fn explain(graph: &Graph, device: &DeviceInfo) -> String {
    let mut text = String::new();
    for step in graph.steps() {
        if let Step::Dispatch { plan, .. } = step {
            writeln!(text, "{plan} | {}", form(plan, device)).expect("a string takes all text");
        }
    }
    text
}

fn form(plan: &Plan, device: &DeviceInfo) -> String {
    let kernel = plan.kernel;
    if plan.is_empty() {
        return "nothing to do".into();
    }
    if let Some(ptx) = &device.ptx {
        let Some(form) = kernel.ptx_for(&plan.params, ptx) else { return "no PTX form".into() };
        let shared = form.static_shared + (form.dynamic_shared)(&plan.params);
        let (grid, block) = ((form.grid)(&plan.params, ptx), form.block);
        let together = if form.cooperative { "  all at once" } else { "" };
        return format!("{}  grid {grid:?}  block {block:?}  shared {shared}{together}", form.entry);
    }
    if device.accelerator || device.id.starts_with("wgpu") {
        let wgsl = &kernel.wgsl;
        return format!("{}  grid {:?}  block {:?}", wgsl.entry, (wgsl.grid)(&plan.params), wgsl.workgroup);
    }
    if kernel.cpu.is_some() { "host form".into() } else { "reference".into() }
}
