//! Kernels whose threads meet at barriers of the block.

use super::*;
use FaultKind::{Barrier, Invalid, Misaligned, OutOfBounds, Race, UndefinedRegister, Uninitialised};

#[test]
fn transpose() {
    let (rows, cols) = (40, 70);
    let x = numbers(rows * cols);
    let y: Vec<f32> = (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect();
    let kernel = Kernel {
        source: include_str!("transpose.ptx"),
        grid: [3, 2, 1],
        x: bytes(&x),
        before: Vec::new(),
        expected: bytes(&y),
        params: [40, 70, 0, 0],
    };
    kernel.check(&[
        planted(
            "missing barrier",
            "    bar.sync        0;\n",
            "",
            Stopped(
                Uninitialised,
                "@inside ld.shared.b32 value, [at]",
                &["(`tile` + 132), of which all were never written"],
            ),
        ),
        planted(
            "off by one at the end",
            "setp.lt.u32     in_row, row, rows;",
            "setp.le.u32     in_row, row, rows;",
            Stopped(
                OutOfBounds,
                "@inside ld.global.b32 value, [place]",
                &["`x` [0x10000000000, 11200 bytes)", "0 bytes past its end"],
            ),
        ),
        planted(
            "stride of another tile",
            "mad.lo.u32      at, lane, 33, k;",
            "mad.lo.u32      at, lane, 34, k;",
            Stopped(
                Uninitialised,
                "@inside ld.shared.b32 value, [at]",
                &["(`tile` + 3428), of which all were never written"],
            ),
        ),
        planted(
            "wrong offset",
            "ld.shared.b32 value, [at];",
            "ld.shared.b32 value, [at + 4];",
            Stopped(Uninitialised, "ld.shared.b32 value, [at + 4]", &["of which all were never written"]),
        ),
        planted(
            "swapped operands",
            "mad.wide.u32    offset, row, rows, 0;",
            "mad.wide.u32    offset, row, cols, 0;",
            Stopped(OutOfBounds, "@inside st.global.b32 [place], value", &["`y`", "past its end"]),
        ),
        planted(
            "row and column swapped",
            "mad.lo.u32      at, lane, 33, k;",
            "mad.lo.u32      at, k, 33, lane;",
            Stopped(Uninitialised, "ld.shared.b32 value", &["never written"]),
        ),
        planted(
            "store to the input",
            "add.u64         place, y_ptr, offset;",
            "add.u64         place, x_ptr, offset;",
            Stopped(Invalid, "@inside st.global.b32 [place], value", &["`x`", "the slot is only read"]),
        ),
        planted(
            "bytes for elements",
            "    shl.b64         offset, offset, 2;\n    add.u64         place, y_ptr, offset;",
            "    shl.b64         offset, offset, 1;\n    add.u64         place, y_ptr, offset;",
            Stopped(Misaligned, "st.global.b32 [place], value", &["`y`", "expected a multiple of 4"]),
        ),
    ]);
}

#[test]
fn row_sum() {
    let (rows, cols) = (3, 300);
    let x = numbers(rows * cols);
    let y: Vec<f32> = x.chunks(cols).map(|row| row.iter().sum()).collect();
    let kernel = Kernel {
        source: include_str!("row_sum.ptx"),
        grid: [3, 1, 1],
        x: bytes(&x),
        before: Vec::new(),
        expected: bytes(&y),
        params: [3, 300, 0, 0],
    };
    kernel.check(&[
        planted(
            "missing barrier",
            "    bar.sync        0;\n",
            "",
            Stopped(Uninitialised, "@has ld.shared.f32 sum, [at]", &["never written"]),
        ),
        planted(
            "barrier in a divergent branch",
            "    bar.sync        0;\n",
            "    @first bar.sync 0;\n",
            Stopped(
                Barrier,
                "@first bar.sync 0",
                &["lanes 0x00000001 of warp 0 execute it, lanes 0xfffffffe are elsewhere"],
            ),
        ),
        planted(
            "a warp exits before the barrier",
            "    bar.sync        0;\n    setp.ge.u32     idle, thread, 32;\n    @idle ret;\n",
            "    setp.ge.u32     idle, thread, 32;\n    @idle ret;\n    bar.sync        0;\n",
            Stopped(Barrier, "bar.sync 0", &["warp 0 waits at barrier 0 on line", "warp 3 has exited"]),
        ),
        planted(
            "off by one at the end",
            "setp.lt.u32     more, i, cols;",
            "setp.le.u32     more, i, cols;",
            Stopped(OutOfBounds, "ld.global.f32 value, [place]", &["`x`", "0 bytes past its end"]),
        ),
        planted(
            "wrong shuffle mask",
            "shfl.sync.bfly.b32 other, sum, 8, 31, 0xffffffff;",
            "shfl.sync.bfly.b32 other, sum, 8, 31, 0x0000ffff;",
            Stopped(
                Invalid,
                "shfl.sync.bfly.b32 other, sum, 8",
                &["lanes 0xffff0000 execute it, but the member mask is 0x0000ffff"],
            ),
        ),
        planted(
            "shuffle that not all reach",
            "    @idle ret;\n    shl.b32         at, lane, 2;",
            "    @!first ret;\n    shl.b32         at, lane, 2;",
            Stopped(UndefinedRegister, "add.f32 sum, sum, other", &["`other`"]),
        ),
        planted(
            "shuffle distance",
            "shfl.sync.bfly.b32 other, sum, 16, 31",
            "shfl.sync.bfly.b32 other, sum, 8, 31",
            WrongResult,
        ),
        planted(
            "sum that does not begin at zero",
            "    mov.f32         sum, 0f00000000;\n    mov.u32         i, thread;",
            "    mov.u32         i, thread;",
            Stopped(UndefinedRegister, "add.f32 sum, sum, value", &["`sum`"]),
        ),
        planted(
            "output read before it is written",
            "    mov.f32         sum, 0f00000000;\n    mov.u32         i, thread;",
            "    ld.global.f32   sum, [y_row];\n    mov.u32         i, thread;",
            Stopped(Uninitialised, "ld.global.f32 sum, [y_row]", &["`y`", "of which all were never written"]),
        ),
        planted(
            "partial sums of more warps than there are",
            "setp.lt.u32     has, lane, 4;",
            "setp.le.u32     has, lane, 4;",
            Stopped(OutOfBounds, "@has ld.shared.f32 sum, [at]", &["0 bytes past the end of the block's"]),
        ),
        planted(
            "every lane stores its partial sum",
            "@first st.shared.f32 [at], sum;",
            "st.shared.f32 [at], sum;",
            Stopped(
                Race,
                "st.shared.f32 [at], sum",
                &["by warp 0 lane 1: no `bar.warp.sync` orders its write by warp 0 lane 0"],
            ),
        ),
    ]);
}

#[test]
fn scan() {
    let x = numbers(128);
    let sums = x.iter().scan(0.0, |sum, value| {
        *sum += value;
        Some(*sum)
    });
    let kernel = Kernel {
        source: include_str!("scan.ptx"),
        grid: [1; 3],
        x: bytes(&x),
        before: Vec::new(),
        expected: bytes(&sums.collect::<Vec<f32>>()),
        params: [128, 0, 0, 0],
    };
    kernel.check(&[
        planted(
            "missing barrier between write and read",
            "    bar.sync        1;\n",
            "",
            Stopped(Race, "@far ld.shared.f32 other, [from]", &["its write by warp 0 lane 0"]),
        ),
        planted(
            "one barrier a round only",
            "    bar.sync        2;\n",
            "",
            Stopped(Race, "st.shared.f32 [at], sum", &["its read by warp"]),
        ),
        planted(
            "barriers of some threads",
            "bar.sync        2;",
            "bar.sync        2, 64;",
            Stopped(Race, "ld.shared.f32 other, [from]", &["no barrier orders its write"]),
        ),
        planted(
            "distance off by one",
            "setp.ge.u32     far, thread, distance;",
            "setp.gt.u32     far, thread, distance;",
            WrongResult,
        ),
        planted(
            "guard left out",
            "@far ld.shared.f32 other, [from];",
            "ld.shared.f32 other, [from];",
            Stopped(Uninitialised, "ld.shared.f32 other, [from]", &["of which all were never written"]),
        ),
        planted(
            "not all rounds",
            "setp.lt.u32     more, distance, 128;",
            "setp.lt.u32     more, distance, 64;",
            WrongResult,
        ),
    ]);
}

#[test]
fn histogram() {
    let x: Vec<u32> = (0..300_u32).map(|i| (i * i + 3 * i) % 64).collect();
    let counts: Vec<u32> =
        (0..64).map(|bin| 5 + u32::try_from(x.iter().filter(|&&v| v == bin).count()).unwrap()).collect();
    let words = |values: &[u32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let kernel = Kernel {
        source: include_str!("histogram.ptx"),
        grid: [3, 1, 1],
        x: words(&x),
        before: words(&[5; 64]),
        expected: words(&counts),
        params: [300, 0, 0, 0],
    };
    kernel.check(&[
        planted(
            "bins not set to zero",
            "    @is_bin st.shared.u32 [at], 0;\n",
            "",
            Stopped(Uninitialised, "red.shared.add.u32 [bin], 1", &["atomic of 4 bytes", "never written"]),
        ),
        planted(
            "no barrier behind the zeros",
            "    bar.sync        0;\n\n",
            "",
            Stopped(Race, "red.shared.add.u32 [bin], 1", &["its write by warp"]),
        ),
        planted(
            "no barrier before the bins are read",
            "counted:\n    bar.sync        0;\n",
            "counted:\n",
            Stopped(
                Race,
                "@is_bin ld.shared.u32 count, [at]",
                &["(`bins` + 0)", "its atomic by warp 3 lane"],
            ),
        ),
        planted(
            "addition that is not atomic",
            "red.shared.add.u32 [bin], 1;",
            "ld.shared.u32 count, [bin];\n    add.u32 count, count, 1;\n    st.shared.u32 [bin], count;",
            Stopped(Race, "st.shared.u32 [bin], count", &["no `bar.warp.sync` orders"]),
        ),
        planted(
            "one bin less set to zero",
            "setp.lt.u32     is_bin, thread, 64;",
            "setp.lt.u32     is_bin, thread, 62;",
            Stopped(Uninitialised, "red.shared.add.u32 [bin], 1", &["never written"]),
        ),
        planted(
            "elements behind the end",
            "setp.ge.u32     past_end, i, n;",
            "setp.gt.u32     past_end, i, n;",
            Stopped(OutOfBounds, "ld.global.u32 bin, [place]", &["`x`", "0 bytes past its end"]),
        ),
        planted(
            "result stored rather than added",
            "red.global.add.u32 [place], count;",
            "st.global.u32 [place], count;",
            WrongResult,
        ),
    ]);
}
