//! Instructions of sm_90a: whole programs against plain loops, and the same programs with one fault each.

mod harness;

use auscult_kernels::{DType, Swizzle, TensorMap};
use half::{bf16, f16};
use harness::{Run, faults, floats};

const WGMMA_TILE: &str = include_str!("sm_90a/wgmma_tile.ptx");
const WGMMA_REGISTERS: &str = include_str!("sm_90a/wgmma_registers.ptx");
const BULK_COPY: &str = include_str!("sm_90a/bulk_copy.ptx");
const TILE_COPY: &str = include_str!("sm_90a/tile_copy.ptx");
const EXCHANGE: &str = include_str!("sm_90a/exchange.ptx");

/// Small numbers, exact in every type, without a pattern that a wrong index could keep.
fn value(seed: usize, row: usize, column: usize) -> f32 {
    let mixed = (row * 31 + column * 17 + seed * 7 + row * column) % 13;
    f32::from(i16::try_from(mixed).unwrap()) - 6.0
}

fn half_bytes(rows: usize, cols: usize, seed: usize) -> Vec<u8> {
    (0..rows * cols).flat_map(|i| f16::from_f32(value(seed, i / cols, i % cols)).to_le_bytes()).collect()
}

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
                "the wait for the wgmma of warps 4 to 7",
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
                "",
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

fn bulk_copy() -> Run {
    let x: Vec<u8> = (0..256).flat_map(|i| value(5, i, 3).to_le_bytes()).collect();
    Run::new(BULK_COPY, "bulk_copy").read("x", x).write("y", 1024)
}

#[test]
fn the_copy_engine_carries_there_and_back() {
    let y = bulk_copy().run().unwrap().buffers.swap_remove(1);
    for (i, got) in floats(&y).into_iter().enumerate() {
        assert_eq!(got, 2.0 * value(5, i, 3), "{i}");
    }
}

#[test]
fn faults_planted_in_the_copy_are_found() {
    let unfinished = "asynchronous result used before its wait";
    faults(
        &bulk_copy(),
        &[
            ("no wait", "    @!ready bra     full;\n", "", unfinished),
            ("the other parity", "[barrier_at], 0;\n", "[barrier_at], 1;\n", "deadlock"),
            (
                "no bytes expected",
                "mbarrier.arrive.expect_tx.shared::cta.b64 state, [barrier_at], 1024;",
                "mbarrier.arrive.shared::cta.b64 state, [barrier_at];",
                unfinished,
            ),
            ("half expected", "state, [barrier_at], 1024;", "state, [barrier_at], 512;", unfinished),
            ("twice expected", "state, [barrier_at], 1024;", "state, [barrier_at], 2048;", "deadlock"),
            (
                "two arrivals of one",
                "mbarrier.init.shared::cta.b64 [barrier_at], 1;",
                "mbarrier.init.shared::cta.b64 [barrier_at], 2;",
                "deadlock",
            ),
            (
                "no arrivals of none",
                "mbarrier.init.shared::cta.b64 [barrier_at], 1;",
                "mbarrier.init.shared::cta.b64 [barrier_at], 0;",
                "invalid",
            ),
            (
                "the object is not announced",
                "    fence.mbarrier_init.release.cluster;\n",
                "",
                "race in shared memory: mbarrier at",
            ),
            ("no barrier after the object was made", "    bar.sync        0;\n", "", "race in shared memory"),
            ("no fence of the proxy", "    fence.proxy.async.shared::cta;\n", "", "race in shared memory"),
            ("no barrier before the copy back", "    bar.sync        1;\n", "", "race in shared memory"),
            ("no wait for the copy back", "    cp.async.bulk.wait_group 0;\n", "", unfinished),
            ("no commit", "    cp.async.bulk.commit_group;\n", "", unfinished),
            (
                "not a multiple of 16",
                "[tile_at], [x_ptr], 1024",
                "[tile_at], [x_ptr], 1020",
                "invalid: bulk copy of 1020 bytes, expected a multiple of 16",
            ),
            (
                "beyond the end",
                "[tile_at], [x_ptr], 1024",
                "[tile_at], [x_ptr + 16], 1024",
                "out of bounds: `x`",
            ),
            (
                "a plain access to the object",
                "    bar.sync        1;\n",
                "    bar.sync        1;\n    ld.shared.b64 state, [barrier_at];\n",
                "invalid",
            ),
            ("no object", "[x_ptr], 1024, [barrier_at]", "[x_ptr], 1024, [tile_at]", "invalid"),
        ],
    );
}

/// 70 x 9 x 5 elements of f16, rows of 160 bytes.
fn volume(slot: usize) -> TensorMap {
    TensorMap {
        slot,
        dtype: DType::F16,
        extents: vec![70, 9, 5],
        strides: vec![160, 160 * 9],
        tile: vec![64, 4, 2],
        swizzle: Swizzle::Bytes128,
    }
}

fn tile_copy(x: [i32; 3], y: [i32; 3], swizzles: [Swizzle; 2]) -> Run {
    let words: Vec<u32> = [&x[..], &y[..], &[1024, 0]].concat().iter().map(|w| w.cast_unsigned()).collect();
    Run::new(TILE_COPY, "tile_copy")
        .read("x", half_bytes(45, 80, 6))
        .update("y", half_bytes(45, 80, 7))
        .params(&words)
        .map("x_map", TensorMap { swizzle: swizzles[0], ..volume(0) })
        .map("y_map", TensorMap { swizzle: swizzles[1], ..volume(1) })
}

#[test]
fn tiles_are_copied_cut_at_edges_and_filled_with_zeros() {
    let places = [[0, 0, 0], [8, 5, 3], [6, 2, 1], [16, 7, 4], [-3, -1, -1], [71, 0, 0], [5, 9, 2]];
    for (i, from) in places.into_iter().enumerate() {
        let to = places[(i + 2) % places.len()];
        let swizzle = [Swizzle::None, Swizzle::Bytes128][i % 2];
        let done = tile_copy(from, to, [swizzle; 2]).run().unwrap();
        let inside =
            |at: [i32; 3]| (0..70).contains(&at[0]) && (0..9).contains(&at[1]) && (0..5).contains(&at[2]);
        for (element, bytes) in done.buffers[1].as_chunks().0.iter().enumerate() {
            let (row, column) = (element / 80, element % 80);
            let place = [column, row % 9, row / 9].map(|p| i32::try_from(p).unwrap());
            let within: [i32; 3] = std::array::from_fn(|axis| place[axis] - to[axis]);
            let source: [i32; 3] = std::array::from_fn(|axis| within[axis] + from[axis]);
            let copied = inside(place)
                && (0..64).contains(&within[0])
                && (0..4).contains(&within[1])
                && (0..2).contains(&within[2]);
            let want = if !copied {
                value(7, row, column)
            } else if inside(source) {
                let [c, r, p] = source.map(|s| usize::try_from(s).unwrap());
                value(6, p * 9 + r, c)
            } else {
                0.0
            };
            assert_eq!(f16::from_le_bytes(*bytes).to_f32(), want, "{from:?} to {to:?} at {place:?}");
        }
    }
}

#[test]
fn maps_that_do_not_agree_permute_chunks() {
    let plain = tile_copy([0; 3], [0; 3], [Swizzle::None; 2]).run().unwrap();
    let mixed = tile_copy([0; 3], [0; 3], [Swizzle::Bytes128, Swizzle::None]).run().unwrap();
    // row 1 of the tile: its chunk 0 shows x's chunk 1
    assert_eq!(mixed.buffers[1][160..176], plain.buffers[1][176..192]);
    assert_ne!(mixed.buffers[1], plain.buffers[1]);
}

#[test]
fn faults_planted_in_the_tile_copy_are_found() {
    faults(
        &tile_copy([0; 3], [2, 1, 0], [Swizzle::Bytes128; 2]),
        &[
            (
                "no wait for the tile",
                "    @!ready bra     full;\n",
                "",
                "asynchronous result used before its wait",
            ),
            ("the bytes of the part inside", "[barrier_at], bytes;", "[barrier_at], 1008;", "deadlock"),
            (
                "an unaligned tile",
                "mov.u32         tile_at, tile;",
                "mov.u32         tile_at, tile;\n    add.u32 tile_at, tile_at, 512;",
                "misaligned: tile at",
            ),
            (
                "no wait for the store",
                "    cp.async.bulk.wait_group.read 0;\n",
                "",
                "asynchronous result used before its wait",
            ),
            (
                "an address that is no map",
                "cvta.param.u64  x_map_ptr, x_map_ptr;",
                "add.s64 x_map_ptr, x_map_ptr, 64;",
                "invalid: no tensor map at",
            ),
            (
                "a map is read as bytes",
                "prefetch.tensormap [x_map_ptr];",
                "ld.param.u32 bytes, [x_map];",
                "invalid",
            ),
            (
                "the input is written",
                "[y_map_ptr, {y0, y1, y2}], [tile_at]",
                "[x_map_ptr, {y0, y1, y2}], [tile_at]",
                "invalid: `x`",
            ),
        ],
    );
}

fn exchange() -> Run {
    let x: Vec<u8> = (0..64_u32).flat_map(|i| (i * i + 5).to_le_bytes()).collect();
    Run::new(EXCHANGE, "exchange").read("x", x).write("y", 256)
}

#[test]
fn an_mbarrier_orders_two_warps() {
    let done = exchange().run().unwrap();
    for (i, bytes) in (0..).zip(done.buffers[1].as_chunks().0) {
        assert_eq!(u32::from_le_bytes(*bytes), (63 - i) * (63 - i) + 5, "{i}");
    }
}

#[test]
fn faults_planted_in_the_exchange_are_found() {
    faults(
        &exchange(),
        &[
            ("no first wait", "    @!ready bra     first;\n", "", "race in shared memory"),
            ("no second wait", "    @!ready bra     second;\n", "", "race in shared memory"),
            (
                "the second wait is for the first phase",
                "[barrier_at], 1;\n    @!ready",
                "[barrier_at], 0;\n    @!ready",
                "deadlock",
            ),
            ("an arrival too many is asked for", "[barrier_at], 64;", "[barrier_at], 65;", "deadlock"),
            ("an arrival too few", "[barrier_at], 64;", "[barrier_at], 63;", ""),
            (
                "a parity that is none",
                "[barrier_at], 1;\n    @!ready",
                "[barrier_at], 2;\n    @!ready",
                "invalid: parity 2, expected 0 or 1",
            ),
            (
                "an object that is not aligned",
                "mov.u32         barrier_at, barrier;",
                "mov.u32         barrier_at, barrier;\n    add.u32 barrier_at, barrier_at, 4;",
                "misaligned",
            ),
            ("no object", "    mbarrier.init.shared::cta.b64 [barrier_at], 64;\n", "", "invalid"),
        ],
    );
}

#[test]
#[ignore = "needs ptxas on the path"]
fn the_programs_assemble() {
    for text in
        [WGMMA_TILE, WGMMA_REGISTERS, BULK_COPY, TILE_COPY, EXCHANGE, include_str!("sm_90a/matrices.ptx")]
    {
        harness::assemble(text);
    }
}
