//! `wgmma` from tiles and from registers.

use super::harness::{Run, faults, floats};
use super::{half_bytes, value};
use auscult_kernels::{DType, Swizzle, TensorMap};
use half::bf16;

const WGMMA_TILE: &str = include_str!("wgmma_tile.ptx");
const WGMMA_REGISTERS: &str = include_str!("wgmma_registers.ptx");
const WGMMA_WIDE: &str = include_str!("wgmma_wide.ptx");

pub const PROGRAMS: [&str; 3] = [WGMMA_TILE, WGMMA_REGISTERS, WGMMA_WIDE];

/// 64-column tiles of a row-major f16 matrix.
fn half_map(slot: usize, rows: usize, cols: usize) -> TensorMap {
    TensorMap {
        slot,
        dtype: DType::F16,
        extents: vec![cols as u64, rows as u64],
        strides: vec![2 * cols as u64],
        tile: vec![64, 64],
        swizzle: Swizzle::Bytes128,
    }
}

const ROWS: usize = 128;
const COLS: usize = 192;
const DEPTH: usize = 320;

/// A product of which the last rows, columns and ks lie outside of the operands.
fn wgmma_tile() -> Run {
    let (rows, cols, depth) = (ROWS - 7, COLS - 9, DEPTH - 24);
    let words = [u32::try_from(DEPTH / 64).unwrap(), u32::try_from(COLS).unwrap(), 0, 0];
    Run::new(WGMMA_TILE, "wgmma_tile")
        .grid([u32::try_from(COLS / 64).unwrap(), u32::try_from(ROWS / 64).unwrap(), 1])
        .read("a", half_bytes(rows, depth, 1))
        .read("b", half_bytes(cols, depth, 2))
        .write("c", 4 * ROWS * COLS)
        .params(&words)
        .map("a_map", half_map(0, rows, depth))
        .map("b_map", half_map(1, cols, depth))
}

#[test]
fn a_warp_specialised_product_of_tiles_is_right() {
    let done = wgmma_tile().run().unwrap();
    for (i, got) in floats(&done.buffers[2]).into_iter().enumerate() {
        let (row, col) = (i / COLS, i % COLS);
        let inside = row < ROWS - 7 && col < COLS - 9;
        let want: f32 =
            if inside { (0..DEPTH - 24).map(|k| value(1, row, k) * value(2, col, k)).sum() } else { 0.0 };
        assert_eq!(got, want, "row {row} column {col}");
    }
    assert_eq!(done.counts.tensor_flops, (2 * ROWS * COLS * DEPTH) as u64);
}

#[test]
fn faults_planted_in_the_product_are_found() {
    let parity = "and.b32         parity, parity, 1;\n    mad.lo.u32      at, stage, 8, full;";
    let inverted = "and.b32         parity, parity, 1;\n    xor.b32         parity, parity, 1;\n    mad.lo.u32      at, stage, 8, full;";
    faults(
        &wgmma_tile(),
        &[
            (
                "no wgmma.fence",
                "    wgmma.fence.sync.aligned;\n",
                "",
                "asynchronous result used before its wait: accumulator 0 of 64 columns was read or written, and no `wgmma.fence`",
            ),
            (
                "no wait for the products",
                "    wgmma.wait_group.sync.aligned 0;\n",
                "",
                "asynchronous result used before its wait",
            ),
            (
                "a wait that leaves one group",
                "wgmma.wait_group.sync.aligned 0",
                "wgmma.wait_group.sync.aligned 1",
                "the wait for the wgmma of warp 4",
            ),
            (
                "no commit",
                "    wgmma.commit_group.sync.aligned;\n",
                "",
                "asynchronous result used before its wait",
            ),
            ("the consumer waits for the other parity", parity, inverted, "deadlock"),
            (
                "the consumer does not wait for the tiles",
                "    @!ready bra     wait_full;\n",
                "",
                "asynchronous result used before its wait",
            ),
            (
                "no bytes are expected",
                "mbarrier.arrive.expect_tx.shared::cta.b64 state, [at], 16384;",
                "mbarrier.arrive.shared::cta.b64 state, [at];",
                "asynchronous result used before its wait",
            ),
            (
                "half of the bytes are expected",
                "[at], 16384;",
                "[at], 8192;",
                "asynchronous result used before its wait",
            ),
            ("too many bytes are expected", "[at], 16384;", "[at], 16400;", "deadlock"),
            (
                "no fence after mbarrier.init",
                "    fence.mbarrier_init.release.cluster;\n",
                "",
                "race in shared memory: mbarrier at",
            ),
            ("no barrier after mbarrier.init", "    bar.sync        0;\n", "", "race in shared memory"),
            (
                "the producer does not wait for an empty stage",
                "    @!ready bra     wait_empty;\n",
                "",
                "race in shared memory",
            ),
            (
                "the consumer never empties a stage",
                "    mbarrier.arrive.shared::cta.b64 state, [at];\n",
                "",
                "deadlock",
            ),
            ("one thread arrives too few", "[empty], 128;", "[empty], 129;", "deadlock"),
            (
                "tiles that begin between patterns",
                "add.u32         b_tile, a_tile, 8192;\n    shl",
                "add.u32         b_tile, a_tile, 8448;\n    shl",
                "misaligned: tile at",
            ),
            (
                "a descriptor of another swizzle",
                "0x4000004000010000",
                "0x8000004000010000",
                "invalid: `a` starts at",
            ),
            (
                "a stage that is not there",
                "and.b32         stage, step, 1;\n    shr.u32         parity, step, 1;\n    and.b32         parity, parity, 1;\n    xor",
                "and.b32         stage, step, 3;\n    shr.u32         parity, step, 1;\n    and.b32         parity, parity, 1;\n    xor",
                "out of bounds: mbarrier",
            ),
            (
                "accumulators that are read first",
                "setp.ne.u32     keep, step, 0;",
                "setp.eq.u32     keep, step, step;",
                "undefined register: accumulator 0 was never written",
            ),
            (
                "an accumulator is touched under way",
                "    wgmma.commit_group.sync.aligned;\n",
                "    wgmma.commit_group.sync.aligned;\n    add.f32 acc5, acc5, acc5;\n",
                "`acc5`: a `wgmma` uses it",
            ),
            (
                "more registers than were given up",
                "setmaxnreg.inc.sync.aligned.u32 152",
                "setmaxnreg.inc.sync.aligned.u32 232",
                "deadlock",
            ),
            (
                "a release that is none",
                "setmaxnreg.dec.sync.aligned.u32 40",
                "setmaxnreg.dec.sync.aligned.u32 136",
                "invalid: `.dec` from 128 registers to 136",
            ),
            (
                "a store beyond the result",
                "mad.lo.u32      at, row, cols, col;",
                "mad.lo.u32      at, row, 224, col;",
                "out of bounds: `c`",
            ),
            (
                "no copy of b",
                "    cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [b_tile], [b_map_ptr, {k, col}], [at];\n",
                "",
                "deadlock",
            ),
        ],
    );
}

fn wgmma_registers() -> Run {
    let bytes = |rows: usize, seed| -> Vec<u8> {
        (0..rows * 16).flat_map(|i| bf16::from_f32(value(seed, i / 16, i % 16)).to_le_bytes()).collect()
    };
    Run::new(WGMMA_REGISTERS, "wgmma_registers")
        .read("x", bytes(64, 3))
        .read("z", bytes(16, 4))
        .write("y", 4 * 64 * 16)
}

fn check_wgmma_registers(y: &[u8]) -> bool {
    floats(y).into_iter().enumerate().all(|(i, got)| {
        let want: f32 = (0..16).map(|k| value(3, i / 16, k) * value(4, i % 16, k)).sum();
        got == want
    })
}

#[test]
fn a_product_of_registers_and_written_shared_memory_is_right() {
    assert!(check_wgmma_registers(&wgmma_registers().run().unwrap().buffers[2]));
}

#[test]
fn swapped_offsets_give_another_product() {
    let swapped = wgmma_registers().replace("0x0000001000080000", "0x0000000800100000");
    assert!(!check_wgmma_registers(&swapped.run().unwrap().buffers[2]));
}

#[test]
fn faults_planted_in_the_product_of_registers_are_found() {
    faults(
        &wgmma_registers(),
        &[
            ("no fence of the proxy", "    fence.proxy.async.shared::cta;\n", "", "race in shared memory"),
            ("no barrier", "    bar.sync        0;\n", "", "race in shared memory"),
            (
                "no wgmma.fence",
                "    wgmma.fence.sync.aligned;\n",
                "",
                "register 0 of A was read or written, and no `wgmma.fence`",
            ),
            ("no wait", "    wgmma.wait_group.sync.aligned 0;\n", "", "`acc0`: a `wgmma` uses it"),
            (
                "no commit",
                "    wgmma.commit_group.sync.aligned;\n",
                "",
                "`acc0`: a `wgmma` that was not committed uses it",
            ),
            (
                "A is overwritten under way",
                "    wgmma.commit_group.sync.aligned;\n",
                "    mov.b32 a3, 0;\n    wgmma.commit_group.sync.aligned;\n",
                "`a3`: a `wgmma` that was not committed uses it",
            ),
            (
                "no swizzle, offset of a row",
                "0x0000001000080000",
                "0x0000001000010000",
                "invalid: `b` has a leading dimension offset of 16 bytes",
            ),
            (
                "part of the operand is not written",
                "setp.ge.u32     idle, tid, 32;",
                "setp.ge.u32     idle, tid, 31;",
                "read of memory never written",
            ),
            (
                "descriptors that differ",
                "    mov.u32         at, cores;\n    shr",
                "    mov.u32         at, cores;\n    and.b32 w0, tid, 16;\n    mad.lo.u32 at, w0, 1, at;\n    shr",
                "invalid: the descriptor of B differs from that of lane 0",
            ),
            (
                "a warp goes its own way",
                "    wgmma.fence.sync.aligned;\n",
                "    wgmma.fence.sync.aligned;\n    setp.ge.u32 keep, tid, 64;\n",
                "undefined register: accumulator 0",
            ),
            (
                "a lane is missing",
                "    wgmma.fence.sync.aligned;\n",
                "    setp.eq.u32 idle, tid, 5;\n    @idle ret;\n    wgmma.fence.sync.aligned;\n",
                "barrier not reached by all: lanes 0x00000020 of warp 0 are elsewhere",
            ),
            (
                "a warp is missing",
                "    wgmma.fence.sync.aligned;\n",
                "    setp.ge.u32 idle, tid, 96;\n    @idle ret;\n    wgmma.fence.sync.aligned;\n",
                "barrier not reached by all: the warps of warpgroup 0 executed [4, 4, 4, 0]",
            ),
        ],
    );
}

/// A product of 128 columns of numbers in a type, with a piece of its text exchanged.
fn wide(bytes: impl Fn(f32) -> [u8; 2], from: &str, to: &str) -> Vec<f32> {
    let all = |rows: usize, seed| -> Vec<u8> {
        (0..rows * 16).flat_map(|i| bytes(value(seed, i / 16, i % 16))).collect()
    };
    let run = Run::new(WGMMA_WIDE, "wgmma_wide")
        .read("x", all(64, 3))
        .read("z", all(128, 4))
        .write("y", 4 * 64 * 128)
        .replace(from, to);
    floats(&run.run().unwrap().buffers[2])
}

#[test]
fn products_of_128_columns_are_right_in_both_halves() {
    let want: Vec<f32> =
        (0..64 * 128).map(|i| (0..16).map(|k| value(3, i / 128, k) * value(4, i % 128, k)).sum()).collect();
    let f16 = |v| half::f16::from_f32(v).to_le_bytes();
    let brain = |v| bf16::from_f32(v).to_le_bytes();
    let plain = "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16";
    assert_eq!(wide(f16, plain, plain), want);
    assert_eq!(wide(brain, plain, "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16"), want);
    // the same as two products of 64 columns each: the second half lies 64 rows of z behind
    let columns = |first: u32| {
        let names: Vec<String> = (first..first + 32).map(|i| format!("acc{i}")).collect();
        names.join(", ")
    };
    let name = "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16";
    let first = format!("{name} {{{}}}, {{a0, a1, a2, a3}}, z_desc, keep, 1, 1, 0;", columns(0));
    let second = format!("{name} {{{}}}, {{a0, a1, a2, a3}}, z_half, keep, 1, 1, 0;", columns(32));
    let whole = &WGMMA_WIDE[WGMMA_WIDE.find("wgmma.mma_async").unwrap()..];
    let whole = &whole[..=whole.find(';').unwrap()];
    assert_eq!(wide(brain, whole, &format!("{first}\n    {second}")), want);
}

/// The program of 128 columns, widened to 256: every thread carries a second row of z, 128 behind its first.
fn widest() -> String {
    let lists = |from: &[String]| from.join(", ");
    let sums: Vec<String> = (0..128).map(|i| format!("acc{i}")).collect();
    let name = "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16";
    let product = format!("{name} {{{}}}, {{a0, a1, a2, a3}}, z_desc, keep, 1, 1, 0;", lists(&sums));
    let carried = "    ld.global.v4.b32 {w0, w1, w2, w3}, [z_ptr + 4096];
    ld.global.v4.b32 {w4, w5, w6, w7}, [z_ptr + 4112];
    st.shared.v4.b32 [at + 4096], {w0, w1, w2, w3};
    st.shared.v4.b32 [at + 4224], {w4, w5, w6, w7};
    fence.proxy.async.shared::cta;
";
    let stored: String = (0..32)
        .flat_map(|group| [(4 * group, 32 * group), (4 * group + 2, 8192 + 32 * group)])
        .map(|(acc, at)| format!("    st.global.v2.f32 [y_ptr + {at}], {{acc{acc}, acc{}}};\n", acc + 1))
        .collect();
    let part = |text: &str, from: &str, to: &str| {
        let begin = text.find(from).unwrap();
        let end = begin + text[begin..].find(to).unwrap() + to.len();
        text[begin..end].to_owned()
    };
    let multiplied = part(WGMMA_WIDE, "wgmma.mma_async", ";");
    let stores = part(WGMMA_WIDE, "    st.global.v2.f32 [y_ptr + 0]", "{acc62, acc63};\n");
    [
        ("acc<64>", "acc<128>"),
        ("cores[4096]", "cores[8192]"),
        ("    fence.proxy.async.shared::cta;\n", carried),
        (&multiplied, &product),
        ("shl.b32         at, row, 9;", "shl.b32         at, row, 10;"),
        (&stores, &stored),
    ]
    .into_iter()
    .fold(WGMMA_WIDE.to_owned(), |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text.replace(from, to)
    })
}

#[test]
fn products_of_256_columns_are_right_in_every_quarter() {
    let brain = |rows: usize, seed| -> Vec<u8> {
        (0..rows * 16).flat_map(|i| bf16::from_f32(value(seed, i / 16, i % 16)).to_le_bytes()).collect()
    };
    let text = widest();
    let run = Run::new(&text, "wgmma_wide")
        .read("x", brain(64, 3))
        .read("z", brain(256, 4))
        .write("y", 4 * 64 * 256);
    let want: Vec<f32> =
        (0..64 * 256).map(|i| (0..16).map(|k| value(3, i / 256, k) * value(4, i % 256, k)).sum()).collect();
    assert_eq!(floats(&run.run().unwrap().buffers[2]), want);
}
