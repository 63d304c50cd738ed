//! Tiles copied ahead with `cp.async`.

use super::*;
use FaultKind::{Misaligned, OutOfBounds, Race, Unfinished};

#[test]
fn stream() {
    let (blocks, tiles) = (2, 5);
    let x = numbers(blocks * tiles * 64);
    let tile = |block: usize, t: usize| &x[(block * tiles + t) * 64..][..64];
    let y: Vec<f32> =
        (0..blocks * 64).map(|i| (0..tiles).map(|t| tile(i / 64, t)[63 - i % 64]).sum()).collect();
    let kernel = Kernel {
        source: include_str!("stream.ptx"),
        grid: [2, 1, 1],
        x: bytes(&x),
        before: Vec::new(),
        expected: bytes(&y),
        params: [5, 0, 0, 0],
    };
    kernel.check(&[
        planted(
            "missing wait",
            "    cp.async.wait_group 1;\n",
            "",
            Stopped(
                Unfinished,
                "ld.shared.f32 value, [from]",
                &["`cp.async` by warp 0 lane 7", "a wait that leaves 1 groups or less"],
            ),
        ),
        planted(
            "wait count off by one",
            "cp.async.wait_group 1;",
            "cp.async.wait_group 2;",
            Stopped(
                Unfinished,
                "ld.shared.f32 value, [from]",
                &["a wait that leaves 1 groups or less must come first"],
            ),
        ),
        planted(
            "missing commit of the first tile",
            "    cp.async.commit_group;\n    mov.u32         t, 0;\n",
            "    mov.u32         t, 0;\n",
            Stopped(Unfinished, "ld.shared.f32 value, [from]", &["a wait that leaves 0 groups or less"]),
        ),
        planted(
            "missing commit of the next tiles",
            "    cp.async.commit_group;\n    cp.async.wait_group 1;\n",
            "    cp.async.wait_group 1;\n",
            Stopped(Unfinished, "ld.shared.f32 value, [from]", &["a wait that leaves 0 groups or less"]),
        ),
        planted(
            "missing barrier behind the wait",
            "    bar.sync        0;\n",
            "",
            Stopped(Race, "ld.shared.f32 value, [from]", &["its write by warp 0 lane"]),
        ),
        planted(
            "barrier before the wait",
            "    cp.async.wait_group 1;\n    bar.sync        0;\n",
            "    bar.sync        0;\n    cp.async.wait_group 1;\n",
            Stopped(Unfinished, "ld.shared.f32 value, [from]", &["`cp.async` by warp 0 lane"]),
        ),
        planted(
            "missing barrier before a stage is filled again",
            "    bar.sync        1;\n",
            "",
            Stopped(
                Race,
                "@more cp.async.cg.shared.global [to], [x_ptr], 16",
                &["cp.async of 16 bytes", "its read by warp"],
            ),
        ),
        planted(
            "next tile into the stage that is read",
            "    xor.b32         to, to, 256;\n",
            "",
            Stopped(
                Unfinished,
                "@more cp.async.cg.shared.global",
                &["(`stages` + 0)", "the `cp.async` by warp 0 lane 0 that fills it"],
            ),
        ),
        planted(
            "one tile too many",
            "setp.lt.and.u32 more, next, tiles, copies;",
            "setp.le.and.u32 more, next, tiles, copies;",
            Stopped(
                OutOfBounds,
                "@more cp.async.cg.shared.global [to], [x_ptr], 16",
                &["`x`", "0 bytes past its end"],
            ),
        ),
        planted(
            "copies at multiples of 8",
            "mad.lo.u32      to, thread, 16, buffers;",
            "mad.lo.u32      to, thread, 8, buffers;",
            Stopped(
                Misaligned,
                "@copies cp.async.cg.shared.global [to], [x_ptr], 16",
                &["(`stages` + 8), expected a multiple of 16"],
            ),
        ),
        planted(
            "other half of the tile",
            "sub.u32         from, 63, thread;",
            "sub.u32         from, thread, 0;",
            WrongResult,
        ),
        planted(
            "copies that nobody waits for",
            "    cp.async.wait_group 0;\n",
            "    @copies cp.async.cg.shared.global [to], [y_ptr], 16;\n",
            Stopped(
                FaultKind::Uninitialised,
                "@copies cp.async.cg.shared.global [to], [y_ptr], 16",
                &["`y`"],
            ),
        ),
    ]);
}
