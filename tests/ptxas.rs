//! Every PTX form through NVIDIA's assembler, for every generation of device: it assembles, spills nothing, and keeps
//! within the registers and shared memory that its op declares.
//!
//! `ptxas` is looked for in `AUSCULT_PTXAS` and on the PATH; the PyPI package `nvidia-cuda-nvcc` holds it. Where there is
//! none the tests show as ignored, with the reason; `AUSCULT_REQUIRE_PTXAS=1` makes that a failure.

#[path = "common/ptxas.rs"]
mod assembler;

use assembler::{Assembler, Usage, newest_device, usage};
use auscult_kernels::{KernelInfo, Ptx, REGISTRY, Target};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

/// Devices that forms for `sm_80` are assembled for: Ampere, Ada, Hopper. The newest that the assembler knows is added.
const DEVICES: [&str; 4] = ["sm_80", "sm_86", "sm_89", "sm_90a"];
/// Shared memory that a block may declare in its source (PTX ISA, `.shared`): 48 KiB, the rest is asked for at launch.
const STATIC_SHARED: u32 = 48 << 10;
/// Shared memory of a block on devices of compute capability 8.6 and 8.9, the least of those that run `sm_80` forms.
const SHARED_OF_ALL: u32 = 99 << 10;
/// Shared memory of a block on devices of compute capability 9.0.
const SHARED_OF_HOPPER: u32 = 227 << 10;
/// 32-bit registers of a multiprocessor, on every device from compute capability 8.0 to 9.0.
const REGISTER_FILE: u32 = 65_536;

/// Usage by entry and device.
type Table = Mutex<BTreeMap<(String, String), Usage>>;

fn devices<'a>(ptx: &Ptx, assembler: &'a Assembler) -> Vec<&'a str> {
    match ptx.target {
        Target::Sm80 => DEVICES.into_iter().chain([assembler.newest.as_str()]).collect(),
        Target::Sm90a => vec!["sm_90a"],
    }
}

fn check(kernel: &KernelInfo, ptx: &Ptx, usage: Usage) -> Result<(), String> {
    let Usage { registers, shared, spilled, stack } = usage;
    if spilled > 0 || stack > 0 {
        return Err(format!("{spilled} bytes spilled, {stack} bytes of stack, expected none"));
    }
    if registers > ptx.registers {
        return Err(format!("{registers} registers, its op declares at most {}", ptx.registers));
    }
    if shared > ptx.static_shared {
        return Err(format!(
            "{shared} bytes of shared memory, its op declares at most {}",
            ptx.static_shared
        ));
    }
    let threads: u32 = ptx.block.iter().product();
    // registers are handed out to a warp in lots of 256
    let held = threads.div_ceil(32) * (registers * 32).next_multiple_of(256);
    if held > REGISTER_FILE || threads > 1024 {
        return Err(format!("{threads} threads of {registers} registers do not fit a multiprocessor"));
    }
    let most = match ptx.target {
        Target::Sm80 => SHARED_OF_ALL,
        Target::Sm90a => SHARED_OF_HOPPER,
    };
    let cases = (kernel.cases)();
    let taken = cases.iter().map(|case| &case.plan.params).filter(|params| (ptx.takes)(params));
    let asked = taken.map(|params| (ptx.dynamic_shared)(params)).max().unwrap_or(0);
    if ptx.static_shared > STATIC_SHARED || shared + asked > most {
        return Err(format!("{shared} + {asked} bytes of shared memory, the devices it is for have {most}"));
    }
    Ok(())
}

fn print(table: &Table) {
    let table = table.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{:<32} {:<8} {:>9} {:>7}", "entry", "device", "registers", "shared");
    for ((entry, device), usage) in table.iter() {
        println!("{entry:<32} {device:<8} {:>9} {:>7}", usage.registers, usage.shared);
    }
}

/// The reader of the assembler's output, on what ptxas 13.5 prints.
fn readers() -> Vec<Trial> {
    const SAID: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'f' for 'sm_80'
ptxas info    : Function properties for f
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 24 registers, used 1 barriers, 1056 bytes smem
ptxas info    : Compile time = 12.683 ms
";
    let reads = |said: String, want: Usage| {
        let got = usage(&said)?;
        if got == want { Ok(()) } else { Err(Failed::from(format!("{got:?}, expected {want:?}"))) }
    };
    let whole = Usage { registers: 24, shared: 1056, spilled: 20, stack: 16 };
    vec![
        Trial::test("reader::everything", move || reads(SAID.into(), whole)),
        Trial::test("reader::no shared memory", move || {
            reads(SAID.replace(", 1056 bytes smem", ""), Usage { shared: 0, ..whole })
        }),
        Trial::test("reader::no registers", || match usage(&SAID.replace("registers", "")) {
            Err(message) if message.contains("does not tell ` registers`") => Ok(()),
            other => Err(format!("{other:?}").into()),
        }),
        Trial::test("reader::newest device", || {
            let newest = newest_device("'sm_121a','sm_103','sm_90a', 'compute_200'")?;
            if newest == "sm_103" { Ok(()) } else { Err(newest.into()) }
        }),
    ]
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let assembler = Assembler::find().map(Arc::new);
    let table = Arc::new(Table::default());
    let mut trials = readers();
    for kernel in REGISTRY {
        for ptx in kernel.ptx {
            let (assembler, table) = (assembler.clone(), Arc::clone(&table));
            trials.push(Trial::ignorable_test(format!("{}::{}", kernel.name, ptx.entry), move || {
                let assembler = match assembler {
                    Ok(assembler) => assembler,
                    Err(why) if std::env::var("AUSCULT_REQUIRE_PTXAS").is_ok_and(|v| v == "1") => {
                        return Err(why.into());
                    }
                    Err(why) => return Ok(Completion::ignored_with(why)),
                };
                for device in devices(ptx, &assembler) {
                    let place = |message: String| format!("{} for {device}: {message}", ptx.entry);
                    let usage = assembler.assemble(ptx.entry, ptx.source, device).map_err(place)?;
                    check(kernel, ptx, usage).map_err(place)?;
                    let key = (ptx.entry.to_string(), device.to_string());
                    table.lock().unwrap_or_else(PoisonError::into_inner).insert(key, usage);
                }
                Ok(Completion::Completed)
            }));
        }
    }
    let code = libtest_mimic::run(&arguments, trials).exit_code();
    print(&table);
    code
}
