//! The executor: which form runs, from which text, over which memory, and what it says of it.

use crate::ptx_sim::{Counts, PtxSim};
use crate::{Backend, Buffer, Contents, DeviceError};
use auscult_kernels::{Cost, DType, KernelInfo, Plan, Ptx, PtxDevice, Slot, Target, TensorDesc, Wgsl};
use std::fs;
use std::num::NonZeroUsize;

const SOURCE: &str = "\
.version 7.0
.target sm_80
.address_size 64
.visible .entry double_u32(.param .u64 x, .param .u64 y, .param .align 4 .b8 params[16])
.reqntid 64, 1, 1
{
    .reg .pred past_end; .reg .u32 i, block, n, v; .reg .u64 x_ptr, y_ptr;
    ld.param.u64 x_ptr, [x];
    ld.param.u64 y_ptr, [y];
    ld.param.u32 n, [params];
    mov.u32 i, %tid.x;
    mov.u32 block, %ctaid.x;
    mad.lo.u32 i, block, 64, i;
    setp.ge.u32 past_end, i, n;
    @past_end ret;
    mad.wide.u32 x_ptr, i, 4, x_ptr;
    mad.wide.u32 y_ptr, i, 4, y_ptr;
    ld.global.u32 v, [x_ptr];
    add.u32 v, v, v;
    st.global.u32 [y_ptr], v;
    ret;
}
";

/// All blocks wait until each has come, through the workspace.
const TOGETHER: &str = "\
.version 7.0
.target sm_80
.address_size 64
.visible .entry double_together(.param .u64 x, .param .u64 y, .param .align 4 .b8 params[16], .param .u64 workspace)
.reqntid 64, 1, 1
{
    .reg .pred leads, waits, past_end; .reg .u32 i, block, blocks, n, v; .reg .u64 x_ptr, y_ptr, count_ptr;
    ld.param.u64 x_ptr, [x];
    ld.param.u64 y_ptr, [y];
    ld.param.u64 count_ptr, [workspace];
    ld.param.u32 n, [params];
    mov.u32 i, %tid.x;
    mov.u32 blocks, %nctaid.x;
    setp.eq.u32 leads, i, 0;
    @leads red.release.gpu.global.add.u32 [count_ptr], 1;
together:
    ld.acquire.gpu.global.u32 v, [count_ptr];
    setp.lt.u32 waits, v, blocks;
    @waits bra together;
    mov.u32 block, %ctaid.x;
    mad.lo.u32 i, block, 64, i;
    setp.ge.u32 past_end, i, n;
    @past_end ret;
    mad.wide.u32 x_ptr, i, 4, x_ptr;
    mad.wide.u32 y_ptr, i, 4, y_ptr;
    ld.global.u32 v, [x_ptr];
    add.u32 v, v, v;
    st.global.u32 [y_ptr], v;
    ret;
}
";

fn count(params: &[u8]) -> u32 {
    bytemuck::pod_read_unaligned(&params[..4])
}

const PLAIN: Ptx = Ptx::new(SOURCE, "double_u32", [64, 1, 1], |params, _| [count(params).div_ceil(64), 1, 1]);

static FORMS: &[Ptx] = &[
    Ptx { target: Target::Sm90a, takes: |params| count(params) == 9, ..PLAIN },
    PLAIN,
    Ptx { source: TOGETHER, entry: "double_together", workspace: Some(|_| 4), cooperative: true, ..PLAIN },
];

static DOUBLE: KernelInfo = KernelInfo {
    name: "double_u32",
    slots: &[Slot::read("x", DType::U32), Slot::write("y", DType::U32)],
    fields: &[],
    params_size: 16,
    wgsl: &[Wgsl::new("", "double_u32", [64, 1, 1], |_| [1, 1, 1])],
    ptx: FORMS,
    reference: |_, _| {},
    cpu: None,
    cases: Vec::new,
};

fn plan(n: u32) -> Plan {
    let desc = TensorDesc::u32([n as usize]);
    let mut params = n.to_le_bytes().to_vec();
    params.resize(16, 0);
    Plan {
        kernel: &DOUBLE,
        params,
        slots: vec![Some(desc.clone()), Some(desc)],
        cost: Cost::default(),
        splits: vec![],
    }
}

fn upload(sim: &PtxSim, n: u32) -> Buffer {
    let buffer = sim.alloc(Contents::Undefined(4 * n as usize)).unwrap();
    let words: Vec<u32> = (0..n).collect();
    sim.upload(&buffer.span(), bytemuck::cast_slice(&words)).unwrap();
    buffer
}

fn double(sim: &PtxSim, n: u32) -> Result<Vec<u32>, DeviceError> {
    let x = upload(sim, n);
    let y = sim.alloc(Contents::Undefined(4 * n as usize))?;
    sim.dispatch(&plan(n), &[Some(x.span()), Some(y.span())])?;
    Ok(sim.download(&y.span())?.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

fn doubled(n: u32) -> Vec<u32> {
    (0..n).map(|i| 2 * i).collect()
}

fn refused(result: Result<Vec<u32>, DeviceError>, parts: &[&str]) {
    let said = result.expect_err("a refusal").to_string();
    for part in parts {
        assert!(said.contains(part), "`{said}` lacks `{part}`");
    }
}

#[test]
fn launches_run_and_are_counted() {
    let sim = PtxSim::new().unwrap().threads(NonZeroUsize::MIN).unwrap();
    assert_eq!(double(&sim, 1000).unwrap(), doubled(1000));
    let counts = sim.counts();
    assert_eq!((counts.global_loaded, counts.global_stored), (4000, 4000));
    // 32 warps of 14 instructions; 24 threads leave at the eighth, which the others do not execute
    assert_eq!(counts.instructions, 32 * 14);
    assert_eq!(counts.lane_instructions, 1024 * 7 + 24 + 1000 * 6);
    // beside those: parameters, a load and a store, and the ends
    assert_eq!(counts.alu, 1024 * 4 + 1000 * 3);
    assert_eq!(counts.global_sectors, 2 * 125);
    assert_eq!(Counts { shared_loaded: 0, shared_stored: 0, tensor_flops: 0, barriers: 0, ..counts }, counts);
}

#[test]
fn the_form_is_chosen_by_device_and_launch_or_by_name() {
    let old = PtxDevice { capability: (7, 5), multiprocessors: 4, shared_per_block: 48 << 10 };
    let old = PtxSim::with_device(old).unwrap();
    refused(double(&old, 5), &["ptx_sim: double_u32: no PTX form", "capability 7.5"]);
    // the first form is of another target than its source says
    let new = PtxSim::new().unwrap();
    refused(double(&new, 9), &["`.target` is sm_80, expected sm_90a"]);
    let ampere = PtxDevice { capability: (8, 0), multiprocessors: 4, shared_per_block: 48 << 10 };
    assert_eq!(double(&PtxSim::with_device(ampere).unwrap(), 9).unwrap(), doubled(9));
    refused(double(&PtxSim::new().unwrap().only("other"), 5), &["form `other` does not take"]);
}

#[test]
fn blocks_that_wait_for_one_another_run_together() {
    let sim = PtxSim::new().unwrap().only("double_together");
    assert_eq!(double(&sim, 1000).unwrap(), doubled(1000));
    // 4 multiprocessors hold 32 blocks each
    refused(double(&sim, 64 * 129), &["129 blocks that wait for one another", "128"]);
}

#[test]
fn sources_are_read_from_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let op = dir.path().join("double");
    fs::create_dir(&op).unwrap();
    let sim = PtxSim::new().unwrap().sources(dir.path());
    let write = |from: &str, to: &str| {
        fs::write(op.join("double_u32.ptx"), SOURCE.replace(from, to)).unwrap();
        double(&sim, 100)
    };
    assert_eq!(double(&sim, 100).unwrap(), doubled(100));
    assert_eq!(write("add.u32 v, v, v", "add.u32 v, v, 1").unwrap(), (1..=100).collect::<Vec<u32>>());
    refused(write("add.u32", "frob.u32"), &["double_u32, line 19: `frob.u32 v, v, v`", "not known"]);
    refused(
        write("[x_ptr];", "[x_ptr + 4];"),
        &["double_u32, line 18", "block [1, 0, 0], thread 35", "out of bounds", "`x`"],
    );
    refused(write("ld.global.u32 v, [x_ptr]", "ld.global.u32 v, [y_ptr]"), &["never written", "`y`"]);
    refused(write("st.global.u32 [y_ptr]", "st.global.u32 [x_ptr]"), &["invalid", "`x`", "only read"]);
    refused(write("@past_end ret;", ""), &["out of bounds", "thread 36"]);
    refused(write(".reqntid 64", ".reqntid 32"), &["`.reqntid` is Some([32, 1, 1]), expected [64, 1, 1]"]);
    refused(
        write("params[16]", "params[32]"),
        &["parameter 2 is `params` of 32 bytes, expected `params` of 16"],
    );
}

#[test]
fn spans_start_where_devices_have_them() {
    let sim = PtxSim::new().unwrap();
    let (x, y) = (upload(&sim, 200), sim.alloc(Contents::Undefined(400)).unwrap());
    let bind = |offset| sim.dispatch(&plan(100), &[Some(x.span().slice(offset, 400)?), Some(y.span())]);
    bind(256).unwrap();
    assert_eq!(sim.download(&y.span().slice(0, 4).unwrap()).unwrap(), 128_u32.to_le_bytes());
    let said = bind(128).unwrap_err().to_string();
    assert_eq!(said, "double_u32: slot `x` starts at byte 128, expected a multiple of 256");
}

#[test]
fn copies_carry_what_was_never_written() {
    let sim = PtxSim::new().unwrap();
    let (x, y) = (sim.alloc(Contents::Undefined(400)).unwrap(), sim.alloc(Contents::Undefined(400)).unwrap());
    let source = sim.alloc(Contents::Undefined(400)).unwrap();
    sim.upload(&source.span().slice(0, 396).unwrap(), &[1; 396]).unwrap();
    sim.copy(&source.span(), &x.span()).unwrap();
    let said = sim.dispatch(&plan(100), &[Some(x.span()), Some(y.span())]).unwrap_err().to_string();
    assert!(said.contains("thread 35: read of memory never written"), "{said}");
}
