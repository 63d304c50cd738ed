//! The copy engine, barrier objects, and matrices that a warp moves.

use super::harness::{Run, faults, floats};
use super::{half_bytes, value};
use auscult_kernels::{DType, Swizzle, TensorMap};
use half::f16;

const BULK_COPY: &str = include_str!("bulk_copy.ptx");
const TILE_COPY: &str = include_str!("tile_copy.ptx");
const EXCHANGE: &str = include_str!("exchange.ptx");
const COPIES_ARRIVE: &str = include_str!("copies_arrive.ptx");
const MATRICES: &str = include_str!("matrices.ptx");

pub const PROGRAMS: [&str; 5] = [BULK_COPY, TILE_COPY, EXCHANGE, COPIES_ARRIVE, MATRICES];

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
fn tiles_of_four_axes_are_copied_and_cut() {
    // 70 x 3 x 3 x 5 of the same rows
    let volume = |slot| TensorMap {
        extents: vec![70, 3, 3, 5],
        strides: vec![160, 160 * 3, 160 * 9],
        tile: vec![64, 2, 2, 2],
        ..volume(slot)
    };
    let x = [8, 1, 2, 3];
    let y = [0, 2, 0, 3];
    let words = [&x[..3], &y[..3], &[1024, 3]].concat();
    let done = Run::new(TILE_COPY, "tile_copy")
        .read("x", half_bytes(45, 80, 6))
        .update("y", half_bytes(45, 80, 7))
        .params(&words)
        .map("x_map", volume(0))
        .map("y_map", volume(1))
        .replace("x0, x1, x2, y0", "x0, x1, x2, x3, y0")
        .replace("    ld.param.u32    y0", "    ld.param.u32    x3, [params + 28];\n    ld.param.u32    y0")
        .replace(
            "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes",
            "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes",
        )
        .replace("{x0, x1, x2}", "{x0, x1, x2, x3}")
        .replace(
            "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group",
            "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group",
        )
        .replace("{y0, y1, y2}", "{y0, y1, y2, x3}")
        .run()
        .unwrap();
    let inside = |at: [u32; 4]| at[0] < 70 && at[1] < 3 && at[2] < 3 && at[3] < 5;
    for (element, bytes) in (0_u32..).zip(done.buffers[1].as_chunks().0) {
        let (row, column) = (element / 80, element % 80);
        let place = [column, row % 3, row / 3 % 3, row / 9];
        let tile = [64, 2, 2, 2];
        let copied =
            inside(place) && (0..4).all(|axis| (y[axis]..y[axis] + tile[axis]).contains(&place[axis]));
        let want = if !copied {
            value(7, row as usize, column as usize)
        } else {
            let from: [u32; 4] = std::array::from_fn(|axis| place[axis] - y[axis] + x[axis]);
            let row = from[3] * 9 + from[2] * 3 + from[1];
            if inside(from) { value(6, row as usize, from[0] as usize) } else { 0.0 }
        };
        assert_eq!(f16::from_le_bytes(*bytes).to_f32(), want, "at {place:?}");
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
            ("an arrival too few", "[barrier_at], 64;", "[barrier_at], 63;", "race in shared memory"),
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

fn copies_arrive() -> Run {
    let x: Vec<u8> = (0..256_u32).flat_map(|i| (i * i + 9).to_le_bytes()).collect();
    Run::new(COPIES_ARRIVE, "copies_arrive").read("x", x).write("y", 1024)
}

#[test]
fn copies_arrive_at_an_mbarrier() {
    let done = copies_arrive().run().unwrap();
    let (x, y) = (&done.buffers[0], &done.buffers[1]);
    for (i, row) in y.chunks_exact(16).enumerate() {
        assert_eq!(row, &x[16 * (63 - i)..][..16], "{i}");
    }
}

#[test]
fn faults_planted_in_copies_that_arrive_are_found() {
    let unfinished = "asynchronous result used before its wait";
    faults(
        &copies_arrive(),
        &[
            ("no wait", "    @!ready bra     arrived;\n", "", unfinished),
            (
                "a plain arrival",
                "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [",
                "mbarrier.arrive.shared::cta.b64 _, [",
                unfinished,
            ),
            ("an arrival that counts itself", "arrive.noinc", "arrive", "deadlock"),
            (
                "arrival before the copy",
                "    cp.async.cg.shared.global [mine], [x_ptr], 16;\n    cp.async.mbarrier.arrive.noinc.shared::cta.b64 [barrier_at];\n",
                "    cp.async.mbarrier.arrive.noinc.shared::cta.b64 [barrier_at];\n    cp.async.cg.shared.global [mine], [x_ptr], 16;\n",
                unfinished,
            ),
        ],
    );
}

fn matrices() -> Run {
    Run::new(MATRICES, "matrices").read("x", half_bytes(16, 16, 8)).write("y", 512)
}

#[test]
fn matrices_are_loaded_by_rows_and_stored_by_columns() {
    let y = matrices().run().unwrap().buffers.swap_remove(1);
    for (i, bytes) in y.as_chunks().0.iter().enumerate() {
        assert_eq!(f16::from_le_bytes(*bytes).to_f32(), value(8, i % 16, i / 16), "{i}");
    }
}

/// What the four matrices of a 16 x 16 become: each is turned over or not, and all have changed places.
fn moved(load: &str, store: &str) -> Vec<f32> {
    let run = matrices()
        .replace("ldmatrix.sync.aligned.m8n8.x4.shared.b16", load)
        .replace("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16", store);
    let y = run.run().unwrap().buffers.swap_remove(1);
    y.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
}

#[test]
fn matrices_are_turned_over_by_either_end_or_by_none() {
    let of = |at: fn(usize, usize) -> (usize, usize)| -> Vec<f32> {
        (0..256).map(|i| at(i / 16, i % 16)).map(|(row, column)| value(8, row, column)).collect()
    };
    let turned = of(|row, column| (column, row));
    // element (8 i + a, 8 j + b) comes from (8 j + a, 8 i + b)
    let swapped = of(|row, column| (column / 8 * 8 + row % 8, row / 8 * 8 + column % 8));
    let (rows, columns) =
        ("ldmatrix.sync.aligned.m8n8.x4.shared.b16", "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16");
    let (to_rows, to_columns) =
        ("stmatrix.sync.aligned.m8n8.x4.shared.b16", "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16");
    assert_eq!(moved(columns, to_rows), turned);
    assert_eq!(moved(rows, to_rows), swapped);
    assert_eq!(moved(columns, to_columns), swapped);
}

#[test]
fn faults_planted_in_moves_of_matrices_are_found() {
    let sync = "    bar.warp.sync   0xffffffff;\n\n    mov.u32         at, after;";
    faults(
        &matrices(),
        &[
            (
                "no synchronisation before the load",
                "    bar.warp.sync   0xffffffff;\n\n    // lane l",
                "\n    // lane l",
                "race in shared memory",
            ),
            ("none after the store", sync, "    mov.u32         at, after;", "race in shared memory"),
            (
                "a row that is not aligned",
                "mad.lo.u32      at, row, 16, at;\n    ldmatrix",
                "mad.lo.u32      at, row, 8, at;\n    ldmatrix",
                "misaligned: lane 16 points at",
            ),
            (
                "matrices stored over one another",
                "mad.lo.u32      at, row, 256, at;",
                "mad.lo.u32      at, row, 16, at;",
                "race in shared memory",
            ),
        ],
    );
}
