//! Kernels without barriers of the block.

use super::*;
use FaultKind::{Barrier, Invalid, Misaligned, OutOfBounds, Race, UndefinedRegister, Uninitialised};

#[test]
fn affine() {
    let x = numbers(331);
    let y: Vec<f32> = x.iter().map(|value| 2.0 * value + 1.0).collect();
    let kernel = Kernel {
        source: include_str!("affine.ptx"),
        grid: [2, 1, 1],
        x: bytes(&x),
        before: Vec::new(),
        expected: bytes(&y),
        params: [331, 0, 0, 0],
    };
    kernel.check(&[
        planted(
            "misaligned vector",
            "ld.global.v4.f32 {a, b, c, d}, [from];",
            "ld.global.v4.f32 {a, b, c, d}, [from + 4];",
            Stopped(Misaligned, "ld.global.v4.f32 {a, b, c, d}", &["`x`", "read of 16 bytes at 0x10000000004, expected a multiple of 16"]),
        ),
        planted(
            "vector over the end",
            "setp.le.u32     whole, four, n;",
            "setp.lt.u32     whole, i, n;",
            Stopped(OutOfBounds, "ld.global.v4.f32 {a, b, c, d}", &["`x`", "the last 4 of them past its end"]),
        ),
        planted("rest off by one", "setp.lt.u32     tail, i, n;", "setp.le.u32     tail, i, n;", Stopped(OutOfBounds, "ld.global.f32 a, [from]", &["0 bytes past its end"])),
        planted("rest left out", "    @!tail ret;\n", "    @tail ret;\n", Stopped(OutOfBounds, "ld.global.f32 a, [from]", &["`x`"])),
        planted(
            "register that nothing wrote",
            "fma.rn.f32      c, c, 0f40000000, 0f3f800000;",
            "fma.rn.f32      c, left, 0f40000000, 0f3f800000;",
            Stopped(UndefinedRegister, "fma.rn.f32 c, left", &["`left`"]),
        ),
        planted("swapped operands", "st.global.v4.f32 [to], {a, b, c, d};", "st.global.v4.f32 [to], {a, c, b, d};", WrongResult),
        planted(
            "input and output swapped",
            "    add.u64         from, x_ptr, offset;\n    add.u64         to, y_ptr, offset;\n    ld.global.v4",
            "    add.u64         from, y_ptr, offset;\n    add.u64         to, x_ptr, offset;\n    ld.global.v4",
            Stopped(Uninitialised, "ld.global.v4.f32 {a, b, c, d}", &["`y`", "of which all were never written"]),
        ),
    ]);
}

#[test]
fn mirror() {
    let rows = 5;
    let x = numbers(rows * 32);
    let y: Vec<f32> = (0..rows * 32).map(|i| x[i].abs().max(x[i / 32 * 32 + 31 - i % 32])).collect();
    let kernel = Kernel {
        source: include_str!("mirror.ptx"),
        grid: [3, 1, 1],
        x: bytes(&x),
        before: Vec::new(),
        expected: bytes(&y),
        params: [5, 0, 0, 0],
    };
    kernel.check(&[
        planted(
            "missing synchronisation of the warp",
            "    bar.warp.sync   0xffffffff;\n",
            "",
            Stopped(
                Race,
                "ld.shared.f32 other, [from]",
                &["(`lines` + 124) by warp 0 lane 0: no `bar.warp.sync` orders its write by warp 0 lane 31"],
            ),
        ),
        planted(
            "member mask without all lanes",
            "bar.warp.sync   0xffffffff;",
            "bar.warp.sync   0x7fffffff;",
            Stopped(Invalid, "bar.warp.sync 0x7fffffff", &["lanes 0x80000000 execute it"]),
        ),
        planted(
            "barrier of the block behind an exit",
            "bar.warp.sync   0xffffffff;",
            "bar.sync        0;",
            Stopped(Barrier, "bar.sync 0", &["warp 0 waits at barrier 0", "warp 1 has exited"]),
        ),
        planted(
            "synchronisation by some lanes",
            "    bar.warp.sync   0xffffffff;\n",
            "    setp.lt.u32     gone, lane, 16;\n    @gone bar.warp.sync 0xffffffff;\n",
            Stopped(
                Barrier,
                "@gone bar.warp.sync 0xffffffff",
                &["lanes 0xffff0000 of the member mask 0xffffffff are elsewhere"],
            ),
        ),
        planted(
            "register written on one path only",
            "    mov.f32         sign, value;\n",
            "",
            Stopped(UndefinedRegister, "max.f32 value, sign, other", &["`sign`"]),
        ),
        planted(
            "warps share a line",
            "mad.lo.u32      base, warp, 128, base;",
            "mad.lo.u32      base, warp, 64, base;",
            Stopped(Race, "st.shared.f32 [at], value", &["by warp 1 lane 0: no barrier orders its"]),
        ),
        planted(
            "mirrored at the wrong place",
            "sub.u32         from, 31, lane;",
            "sub.u32         from, 32, lane;",
            Stopped(
                Uninitialised,
                "ld.shared.f32 other, [from]",
                &["(`lines` + 128), of which all were never written"],
            ),
        ),
        planted(
            "guard left out",
            "    @gone ret;\n",
            "",
            Stopped(OutOfBounds, "ld.global.f32 value, [place]", &["`x`", "0 bytes past its end"]),
        ),
    ]);
}
