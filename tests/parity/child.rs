//! Checks that need a process of their own: this program again, told by the environment what to do.

use crate::device::ensure;
use auscult_runtime::gpu::adapters;
use auscult_runtime::weights::HostBytes;
use auscult_runtime::{Backend, Buffer, Contents, DeviceError, WgpuBackend};
use libtest_mimic::{Failed, Trial};
use std::process::Command;

/// Says in a started process what it is to do, on which adapter.
const CHILD: &str = "AUSCULT_TEST_CHILD";
const ADAPTER: &str = "AUSCULT_TEST_ADAPTER";
const UPLOAD: &str = "upload";
const TENSORS: usize = 24;
const TENSOR: usize = 15 << 20;

/// Many tensors, each shorter than what goes across at once, in a process of its own, whose peak of memory tells.
#[cfg(target_os = "linux")]
pub fn uploads_are_bounded(gpu: &WgpuBackend) -> Result<(), Failed> {
    let child =
        Command::new(std::env::current_exe()?).env(CHILD, UPLOAD).env(ADAPTER, &gpu.info().id).output()?;
    let said = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    let grown = said.lines().find_map(|line| line.strip_prefix("grew by ")?.parse::<usize>().ok());
    let grown = grown.ok_or_else(|| format!("{}: {said}", child.status))?;
    // a software adapter's memory is the process's own; beside it, three parts of 32 MiB and the driver's bookkeeping
    let allowed = if gpu.info().accelerator { 0 } else { TENSORS * TENSOR } + (160 << 20);
    ensure(grown <= allowed, || format!("grew by {grown} bytes, expected at most {allowed}"))
}

/// What a started process does; `None` in the one that runs the tests.
pub fn work() -> Option<Result<(), String>> {
    let work = std::env::var(CHILD).ok()?;
    Some(if work == UPLOAD { upload_tensors() } else { find_nothing() })
}

fn upload_tensors() -> Result<(), String> {
    let id = std::env::var(ADAPTER).map_err(|e| e.to_string())?;
    let index = id.trim_start_matches("wgpu:").parse().map_err(|_| format!("no adapter `{id}`"))?;
    let work = || -> Result<usize, DeviceError> {
        let gpu = WgpuBackend::new(Some(index))?;
        let host = HostBytes::from_vec(vec![7; TENSOR]);
        // what opening a device and a first upload take is no part of it
        let first = gpu.alloc(Contents::Host(host.clone()))?;
        gpu.download(&first.span())?;
        let before = peak();
        let tensors: Result<Vec<Buffer>, _> =
            (0..TENSORS).map(|_| gpu.alloc(Contents::Host(host.clone()))).collect();
        gpu.download(&tensors?[TENSORS - 1].span())?;
        Ok(peak() - before)
    };
    println!("grew by {}", work().map_err(|e| e.to_string())?);
    Ok(())
}

/// The most memory that this process had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
    let kibibytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes << 10
}

/// Run where no driver can be found.
fn find_nothing() -> Result<(), String> {
    println!("{} adapters", adapters().len());
    match WgpuBackend::new(None) {
        Ok(_) => Err("a device was opened".into()),
        Err(error) => {
            println!("{error}");
            Ok(())
        }
    }
}

/// Tests that need no adapter.
pub fn trials() -> Vec<Trial> {
    // where the Vulkan loader takes its list of drivers from the environment, and nothing else offers adapters
    let test = Trial::test("device::no adapter is an error", || {
        let child = Command::new(std::env::current_exe()?)
            .env(CHILD, "find nothing")
            .env("VK_ICD_FILENAMES", "/nonexistent/driver.json")
            .env("VK_DRIVER_FILES", "/nonexistent/driver.json")
            .output()?;
        let said =
            String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
        let parts = ["0 adapters", "device `wgpu` is not available", "mesa-vulkan-drivers"];
        let told = child.status.success() && parts.iter().all(|part| said.contains(part));
        ensure(told, || format!("{}: {said}", child.status))
    });
    vec![test.with_ignored_flag(!cfg!(target_os = "linux"))]
}
