//! Hand-worked programs: what the parser takes, where lanes meet, what every instruction gives; kernels with planted
//! faults.

mod approximate;
mod atomics;
mod backend;
mod compare;
mod control;
mod convert;
mod coverage;
mod faults;
mod float;
mod forms;
mod half;
mod integer;
mod logic;
mod memory;
mod sm_90a;
mod source;
mod sync;
mod table;
mod warp;

use super::exec::{Block, Launch, Setup};
use super::fault::Fault;
use super::memory::{Allocation, Global, Window};
use super::program::Program;
use std::sync::Arc;

/// A source around declarations and statements; `out` is a pointer, `params` 16 bytes.
fn source(threads: u32, body: &str) -> String {
    let target =
        if body.contains("// sm_90a") { (".version 8.0", "sm_90a") } else { (".version 7.8", "sm_80") };
    format!(
        "{}\n.target {}\n.address_size 64\n.visible .entry k(.param .u64 out, .param .align 4 .b8 params[16])\n\
         .reqntid {threads}, 1, 1\n{{\n{body}\n}}\n",
        target.0, target.1
    )
}

/// Runs a source of `blocks` blocks over `words` words of output, all of them written before.
fn launch(text: &str, blocks: u32, words: usize) -> Result<Vec<u32>, String> {
    let program = Program::new(text, "k").map_err(|error| error.to_string())?;
    let allocation = Arc::new(Allocation::new(4 * words));
    allocation.upload(0, &vec![0; 4 * words]);
    let window = Window {
        name: "out".into(),
        allocation: Arc::clone(&allocation),
        offset: 0,
        bytes: 4 * words,
        writable: true,
    };
    let global = Global::new(vec![window]);
    let mut params = global.address(0).to_le_bytes().to_vec();
    params.extend((1..=4_u32).flat_map(u32::to_le_bytes));
    let dynamic_shared = 1024;
    let launch = Launch {
        global,
        params,
        maps: Vec::new(),
        grid: [blocks, 1, 1],
        block: program.block.ok_or("no .reqntid")?,
        dynamic_shared,
        shared: program.dynamic_shared_at + dynamic_shared as usize,
        multiprocessors: 4,
    };
    let setup = Setup { program: &program, launch: &launch };
    let mut block = Block::new(&setup);
    for number in 0..u64::from(blocks) {
        block.start(&setup, number);
        block.run(&setup).map_err(|fault: Box<Fault>| fault.to_string())?;
    }
    let mut bytes = vec![0; 4 * words];
    allocation.download(0, &mut bytes);
    Ok(bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

/// Runs one block of threads that each leave `result` in the word of their number.
fn by_thread(threads: u32, body: &str) -> Result<Vec<u32>, String> {
    let body = format!(
        ".reg .u32 tid, result; .reg .u64 out_ptr, at;\n\
         mov.u32 tid, %tid.x;\n{body}\nld.param.u64 out_ptr, [out]; mad.wide.u32 at, tid, 4, out_ptr;\n\
         st.global.u32 [at], result;\nret;"
    );
    launch(&source(threads, &body), 1, threads as usize)
}

/// A refusal that holds all of the parts.
fn refuses(result: Result<Vec<u32>, String>, parts: &[&str]) {
    let said = result.expect_err("a refusal");
    for part in parts {
        assert!(said.contains(part), "`{said}` lacks `{part}`");
    }
}
