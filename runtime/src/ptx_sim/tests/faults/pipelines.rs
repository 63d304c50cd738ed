//! Copies that mbarriers track, and tensor instructions of a warpgroup.

use super::*;
use FaultKind::{Barrier, Deadlock, Invalid, Misaligned, OutOfBounds, Race, Unfinished, Uninitialised};
use half::f16;

const COPY: &str = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [to], [x_ptr]";
const OUT: &str = "cp.async.bulk.global.shared::cta.bulk_group [y_ptr], [base], 512";
const LOAD: &str = "ld.shared.v4.f32 {v0, v1, v2, v3}, [to]";

#[test]
fn pipeline() {
    let (blocks, tiles) = (2, 5);
    let x = numbers(blocks * tiles * 128);
    let tile = |block: usize, t: usize| &x[(block * tiles + t) * 128..][..128];
    let y: Vec<f32> =
        (0..blocks * 128).map(|i| (0..tiles).map(|t| tile(i / 128, t)[127 - i % 128]).sum()).collect();
    let kernel = Kernel {
        source: include_str!("pipeline.ptx"),
        grid: [2, 1, 1],
        x: bytes(&x),
        before: Vec::new(),
        expected: bytes(&y),
        params: [5, 0, 0, 0],
    };
    kernel.check(&[
        planted("missing wait for the copy", "    @!ready bra     await_full;\n", "", Stopped(Uninitialised, LOAD, &["(`ring` + 496), of which all were never written"])),
        planted("the phase before", "    mad.lo.u32      to, stage, 512, from;\n", "    mad.lo.u32      to, stage, 512, from;\n    xor.b32         parity, parity, 1;\n", Stopped(Uninitialised, LOAD, &["(`ring` + 496), of which all were never written"])),
        planted("parity that waits for what nobody empties", "xor.b32         filled, parity, 1;", "mov.u32         filled, parity;", Stopped(Deadlock, "@!ready bra await_empty", &["lacks 32 of 32 arrivals"])),
        planted("wrong number of bytes", "_, [full], 512;", "_, [full], 528;", Stopped(Deadlock, "@!ready bra await_empty", &["(`objects` + 0): phase 0 lacks 0 of 1 arrivals and 16 bytes"])),
        planted("bytes not expected", "mbarrier.arrive.expect_tx.shared.b64 _, [full], 512;", "mbarrier.arrive.shared.b64 _, [full];", Stopped(Unfinished, LOAD, &["not complete"])),
        planted("stage never emptied", "    mbarrier.arrive.shared.b64 _, [full + 16];\n", "", Stopped(Deadlock, "@!ready bra await_empty", &["lacks 32 of 32 arrivals"])),
        planted("more arrivals expected than come", "mbarrier.init.shared.b64 [barriers + 16], 32;", "mbarrier.init.shared.b64 [barriers + 16], 33;", Stopped(Deadlock, "@!ready bra await_empty", &["lacks 1 of 33 arrivals"])),
        planted("missing wait for the stage", "    @!ready bra     await_empty;\n", "", Stopped(Unfinished, COPY, &["bulk copy of 16 bytes", "(`ring` + 512)", "complete, but not waited for"])),
        planted(
            "stage released before it is read",
            "    ld.shared.v4.f32 {v0, v1, v2, v3}, [to];\n    mbarrier.arrive.shared.b64 _, [full + 16];\n",
            "    mbarrier.arrive.shared.b64 _, [full + 16];\n    ld.shared.v4.f32 {v0, v1, v2, v3}, [to];\n",
            Stopped(Race, COPY, &["bulk copy of 16 bytes", "its read by warp 1 lane"]),
        ),
        planted("other stage read", "mad.lo.u32      to, stage, 512, from;", "mad.lo.u32      to, parity, 512, from;", Stopped(Race, COPY, &["(`ring` + 0) by warp 0 lane 0: no barrier orders its read by warp 1 lane 31"])),
        planted("one tile too many", "    setp.lt.u32     more, t, tiles;\n    @more bra       fill;", "    setp.le.u32     more, t, tiles;\n    @more bra       fill;", Stopped(Unfinished, "}", &["nobody waited for the copy that filled"])),
        planted("copy to half a unit", "mad.lo.u32      to, stage, 512, base;", "mad.lo.u32      to, stage, 520, base;", Stopped(Misaligned, COPY, &["expected multiples of 16"])),
        planted("missing barrier behind the objects", "    bar.sync        0;\n", "", Stopped(Race, "mbarrier.try_wait.parity.shared.b64 ready, [full], parity", &["its mbarrier.init by warp 0 lane 0"])),
        planted("objects not shown to the copy engine", "    fence.mbarrier_init.release.cluster;\n", "", Stopped(Race, COPY, &["no `fence.mbarrier_init`"])),
        planted("object made twice", "mbarrier.init.shared.b64 [barriers + 8], 1;", "mbarrier.init.shared.b64 [barriers], 1;", Stopped(Invalid, "mbarrier.init.shared.b64 [barriers], 1", &["it holds an object that warp 0 lane 0 initialised"])),
        planted("object not made", "    mbarrier.init.shared.b64 [barriers + 24], 32;\n", "", Stopped(Invalid, "mbarrier.try_wait.parity.shared.b64 ready, [full + 16], filled", &["no mbarrier object was initialised there"])),
        planted("object overwritten", "    st.shared.v4.f32 [to], {sum0, sum1, sum2, sum3};\n", "    st.shared.f32   [barriers], sum0;\n", Stopped(Invalid, "st.shared.f32 [barriers], sum0", &["(`objects` + 0) by warp 1 lane 0 touches an mbarrier object"])),
        planted("missing fence before the copy out", "    fence.proxy.async.shared::cta;\n", "", Stopped(Race, OUT, &["wrote it through the generic proxy, and no `fence.proxy.async` of its own"])),
        planted(
            "fence by one lane only",
            "    fence.proxy.async.shared::cta;\n    bar.warp.sync   0xffffffff;\n    setp.eq.u32     first, lane, 0;\n    @!first ret;\n",
            "    bar.warp.sync   0xffffffff;\n    setp.eq.u32     first, lane, 0;\n    @!first ret;\n    fence.proxy.async.shared::cta;\n",
            Stopped(Race, OUT, &["warp 1 lane 1 wrote it through the generic proxy"]),
        ),
        planted("sums of other lanes copied too early", "    bar.warp.sync   0xffffffff;\n", "", Stopped(Race, OUT, &["its write by warp 1 lane 1"])),
        planted("copy out never waited for", "    cp.async.bulk.wait_group 0;\n", "", Stopped(Unfinished, "}", &["bulk copy of warp 1 lane 0 was never waited for"])),
        planted("copy out not committed", "    cp.async.bulk.commit_group;\n", "", Stopped(Unfinished, "}", &["bulk copy of warp 1 lane 0 was never waited for"])),
        planted("two lanes store to one place", "mov.u32         base, sums;\n    mad.lo.u32      to, lane, 16, base;", "mov.u32         base, sums;\n    mad.lo.u32      to, lane, 8, base;\n    and.b32         to, to, -16;", Stopped(Race, "st.shared.v4.f32 [to]", &["its write by warp 1 lane 0"])),
        planted("halves of a tile swapped", "sub.u32         from, 31, lane;", "sub.u32         from, lane, 0;", WrongResult),
    ]);
}

#[test]
fn warpgroup() {
    let steps = 3;
    let x = numbers(steps * 1152);
    let value = |row: usize, col: usize| -> f32 {
        (0..steps)
            .flat_map(|s| (0..16).map(move |k| (s * 1152 + row * 16 + k, s * 1152 + 1024 + col * 16 + k)))
            .map(|(a, b)| x[a] * x[b])
            .sum()
    };
    let y: Vec<f32> = (0..512).map(|i| value(i / 8, i % 8)).collect();
    let kernel = Kernel {
        source: include_str!("warpgroup.ptx"),
        grid: [1; 3],
        x: x.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        before: Vec::new(),
        expected: bytes(&y),
        params: [3, 0, 0, 0],
    };
    let multiply = "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16";
    kernel.check(&[
        planted(
            "missing fence of the proxy",
            "    fence.proxy.async.shared::cta;\n",
            "",
            Stopped(Race, multiply, &["wgmma read of", "no `fence.proxy.async` of its own"]),
        ),
        planted(
            "fence behind the barrier",
            "    fence.proxy.async.shared::cta;\n    bar.sync        0;\n",
            "    bar.sync        0;\n    fence.proxy.async.shared::cta;\n",
            Stopped(Race, multiply, &["`fence.proxy.async`"]),
        ),
        planted(
            "missing barrier before the product",
            "    bar.sync        0;\n",
            "",
            Stopped(Race, multiply, &["its write by warp 0 lane"]),
        ),
        planted(
            "missing barrier behind the product",
            "    bar.sync        1;\n",
            "",
            Stopped(Race, "st.shared.v4.b32", &["no barrier orders the wait for the wgmma of warp"]),
        ),
        planted(
            "missing fence of the registers",
            "    wgmma.fence.sync.aligned;\n",
            "",
            Stopped(Unfinished, multiply, &["no `wgmma.fence` came after that"]),
        ),
        planted(
            "missing wait",
            "    wgmma.wait_group.sync.aligned 0;\n",
            "",
            Stopped(
                Unfinished,
                "st.shared.v4.b32 [at], {v0",
                &["the wgmma of warp 2 that reads it was not waited for"],
            ),
        ),
        planted(
            "wait count off by one",
            "wgmma.wait_group.sync.aligned 0;",
            "wgmma.wait_group.sync.aligned 1;",
            Stopped(Unfinished, "st.shared.v4.b32 [at], {v0", &["was not waited for"]),
        ),
        planted(
            "missing commit",
            "    wgmma.commit_group.sync.aligned;\n",
            "",
            Stopped(Unfinished, "st.shared.v4.b32 [at], {v0", &["was not waited for"]),
        ),
        planted(
            "accumulator read before the wait",
            "    wgmma.wait_group.sync.aligned 0;\n",
            "    mov.b32 part, c0;\n    wgmma.wait_group.sync.aligned 0;\n",
            Stopped(Unfinished, "mov.b32 part, c0", &["`c0`"]),
        ),
        planted(
            "product by three warps",
            "    wgmma.fence.sync.aligned;\n",
            "    setp.eq.u32 more, warp, 3;\n    @more ret;\n    wgmma.fence.sync.aligned;\n",
            Stopped(Barrier, "bar.sync 1", &["warp 3 has exited"]),
        ),
        planted(
            "blocks the wrong way apart",
            "0x0000001000080000",
            "0x0000000800100000",
            Stopped(OutOfBounds, multiply, &["wgmma read of 16 bytes", "past the end"]),
        ),
        planted(
            "sum that begins again at every step",
            "setp.ne.u32     keep, s, 0;",
            "setp.eq.u32     keep, s, steps;",
            WrongResult,
        ),
        planted(
            "descriptor of the wrong place",
            "add.u64         b_tile, a_tile, 128;",
            "add.u64         b_tile, a_tile, 136;",
            Stopped(OutOfBounds, multiply, &["past the end"]),
        ),
        planted(
            "half of b left out",
            "setp.lt.u32     has_b, thread, 16;",
            "setp.lt.u32     has_b, thread, 8;",
            Stopped(Uninitialised, multiply, &["never written"]),
        ),
    ]);
}
