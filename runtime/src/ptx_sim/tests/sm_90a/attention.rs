//! Attention's form for sm_90a, sound and with one fault each: stages, turns of warpgroups, products from registers.

use super::form::Form;
use super::harness::Planted;
use auscult_kernels::ops::attention::{self, Attention, Mask};
use auscult_kernels::{Case, DType, Fill, TensorDesc, Tolerance};

/// One block, which goes through three items of each head, with 4, 3 and 2 tiles of keys: the five stages go round more than
/// twice. The first items have queries for one warpgroup only.
fn case() -> Case {
    let x = TensorDesc::new(DType::F16, [1, 400, 2 * 64]);
    let op = Attention { heads: 2, scale: 0.125, mask: Mask::Causal };
    Case {
        why: "six items of one block",
        plan: op.plan(&x, &x, &x).unwrap(),
        fill: vec![("q", Fill::Noise(30.0))],
        tolerance: Tolerance { abs: 1e-3, rel: 1e-3, why: "weights and results in f16" },
    }
}

#[test]
fn faults_planted_in_attention_are_found() {
    const UNFINISHED: &str = "asynchronous result used before its wait";
    const RACE: &str = "race in shared memory";
    let planted: &[Planted] = &[
        ("no fence after mbarrier.init", "    fence.mbarrier_init.release.cluster;\n", "", RACE),
        (
            "no barrier after mbarrier.init",
            "barriers_made:\n    bar.sync            0;\n",
            "barriers_made:\n",
            RACE,
        ),
        ("no wait for the queries", "  @!ready bra await_queries;", "", UNFINISHED),
        ("no wait for the first tile", "  @!ready bra await_first;", "", UNFINISHED),
        ("no wait for a later tile", "  @!ready bra await_full;", "", UNFINISHED),
        ("copies do not wait for a stage to be left", "  @!ready bra await_empty;", "", UNFINISHED),
        ("copies do not wait for queries to be left", "  @!ready bra await_queries_left;", "", RACE),
        ("half of a stage's bytes are expected", "[full], 32768;", "[full], 16384;", UNFINISHED),
        ("too many bytes of queries are expected", "[q_full], 24576;", "[q_full], 24592;", "deadlock"),
        ("a stage counts as left by 8 warps", "[base + 213064], 12;", "[base + 213064], 8;", RACE),
        (
            "stages between swizzles",
            "add.u32 k_at, k_at, 49152;\n    xor",
            "add.u32 k_at, k_at, 49280;\n    xor",
            "misaligned: tile at",
        ),
        (
            "keys of fewer queries",
            "@is_causal add.u32  key_end, first, 192;",
            "@is_causal add.u32  key_end, first, 64;",
            "deadlock",
        ),
        ("no wgmma.fence", "    wgmma.fence.sync.aligned;\n", "", "no `wgmma.fence` came after that"),
        (
            "scores used with their product under way",
            "    wgmma.wait_group.sync.aligned 1;\n",
            "",
            UNFINISHED,
        ),
        (
            "scores used with one product too many under way",
            "wgmma.wait_group.sync.aligned 1",
            "wgmma.wait_group.sync.aligned 2",
            UNFINISHED,
        ),
        (
            "weights overwritten under their product",
            "tile_weighed:",
            "tile_weighed:\n    mov.b32 weights5, 0;",
            "`weights5`: a `wgmma` uses it",
        ),
        (
            "first sums added to",
            "setp.gt.u32         begun, tile, 1;",
            "setp.gt.u32         begun, tile, 0;",
            "undefined register: accumulator 0",
        ),
        ("values that are keys", "add.u32 v_low, k_low, 1024;", "add.u32 v_low, k_low, 0;", "results: "),
        ("values not transposed", "v_tile, begun, 1, 1, 1;", "v_tile, begun, 1, 1, 0;", "results: "),
        (
            "a key too many is seen",
            "setp.lt.s32 hidden, seen0, 1;",
            "setp.lt.s32 hidden, seen0, 0;",
            "results: ",
        ),
        (
            "half a tile where more is seen",
            "setp.le.u32         halved, remain, 64;",
            "setp.le.u32         halved, remain, 128;",
            "results: ",
        ),
        (
            "another top, the same sums",
            "    @!moved bra         sums_ready;",
            "    bra                 sums_ready;",
            "results: ",
        ),
        (
            "a turn that is not passed on",
            "    @leads mbarrier.arrive.shared.b64 _, [next_order];\n    wgmma",
            "    wgmma",
            "deadlock",
        ),
        (
            "a tile that is not left",
            "    @leads mbarrier.arrive.shared.b64 _, [empty];\n    @!moved",
            "    @!moved",
            "deadlock",
        ),
        (
            "a tile that is not needed and not left",
            "    add.u32             full, full, 40;\n    @leads mbarrier.arrive.shared.b64 _, [full];\n",
            "    add.u32             full, full, 40;\n",
            "deadlock",
        ),
        ("queries that are not left", "    @more mbarrier.arrive.shared.b64 _, [left_at];\n", "", "deadlock"),
        (
            "queries left before results have gone",
            "    @more cp.async.bulk.wait_group.read 0;\n",
            "",
            UNFINISHED,
        ),
        (
            "no proxy fence before results go",
            "    fence.proxy.async.shared::cta;\n    bar.warp.sync",
            "    bar.warp.sync",
            RACE,
        ),
        ("results go before all lanes have theirs", "    bar.warp.sync       0xffffffff;\n", "", RACE),
        (
            "results of another warp",
            "mad.lo.u32 slice, warp, 2048, slice;",
            "mad.lo.u32 slice, warp, 0, slice;",
            UNFINISHED,
        ),
        (
            "more registers than were given up",
            "setmaxnreg.inc.sync.aligned.u32 160",
            "setmaxnreg.inc.sync.aligned.u32 168",
            "deadlock",
        ),
    ];
    Form { kernel: &attention::F16, folder: "attention", case: case() }.faults(planted);
}
