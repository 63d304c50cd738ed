//! Tiles multiplied by matrix instructions.

use super::*;
use FaultKind::{Barrier, Misaligned, OutOfBounds, Race, UndefinedRegister};
use half::f16;

#[test]
fn product() {
    let x: Vec<f32> = numbers(512).iter().map(|value| value / 8.0).collect();
    let (a, b) = x.split_at(256);
    let y: Vec<f32> =
        (0..256).map(|i| (0..16).map(|k| a[i / 16 * 16 + k] * b[k * 16 + i % 16]).sum()).collect();
    let kernel = Kernel {
        source: include_str!("product.ptx"),
        grid: [1; 3],
        x: x.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        before: Vec::new(),
        expected: bytes(&y),
        params: [0; 4],
    };
    kernel.check(&[
        planted("swapped fragments", "{a0, a1, a2, a3}, {b0, b1}, {c0", "{a0, a2, a1, a3}, {b0, b1}, {c0", WrongResult),
        planted("swapped halves of b", "{b0, b1}, {c0", "{b1, b0}, {c0", WrongResult),
        planted("b not transposed", "x2.trans.shared", "x2.shared", WrongResult),
        planted("rows of the result swapped", "[place], {c0, c1};", "[place], {c2, c3};", WrongResult),
        planted(
            "missing barrier",
            "    bar.sync        0;\n",
            "",
            Stopped(Race, "ldmatrix.sync.aligned.m8n8.x4", &["(`tiles` + 32) by warp 0 lane 1: no `bar.warp.sync` orders its write by warp 0 lane 2"]),
        ),
        planted(
            "halves of a row eight bytes apart",
            "mad.lo.u32      at, part, 16, row;",
            "mad.lo.u32      at, part, 8, row;",
            Stopped(Misaligned, "ldmatrix.sync.aligned.m8n8.x4", &["expected a multiple of 16"]),
        ),
        planted(
            "columns of a third warp",
            "mad.lo.u32      at, warp, 16, row;",
            "mad.lo.u32      at, warp, 32, row;",
            Stopped(OutOfBounds, "ldmatrix.sync.aligned.m8n8.x2.trans", &["past the end of the block's"]),
        ),
        planted(
            "sum that does not begin at zero",
            "    mov.f32         c3, 0f00000000;\n",
            "",
            Stopped(UndefinedRegister, "mma.sync.aligned.m16n8k16", &["`c3`"]),
        ),
        planted(
            "half of the warp multiplies",
            "    mov.f32         c0, 0f00000000;\n",
            "    .reg .pred low;\n    setp.lt.u32 low, lane, 16;\n    @!low ret;\n    mov.f32 c0, 0f00000000;\n",
            Stopped(Barrier, "mma.sync.aligned.m16n8k16", &["lanes 0xffff0000 of warp 1 are elsewhere"]),
        ),
    ]);
}
