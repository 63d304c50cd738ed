//! Read-modify-write.

use super::table::f;
use super::{by_thread, launch, source};

/// What a word holds after an atomic of every thread, and what the thread of number 3 was given.
fn shared_atomic(initial: u64, instruction: &str, operand: &str) -> (u32, u32) {
    let body = format!(
        ".shared .align 8 .b64 word; .reg .pred first; .reg .b32 old, value; .reg .f32 fvalue;
        setp.eq.u32 first, tid, 0;
        @first st.shared.u32 [word], {initial:#x};
        bar.sync 0;
        {operand}
        atom.shared.{instruction};
        bar.sync 0;
        ld.shared.u32 result, [word];
        setp.eq.u32 first, tid, 3;
        @first mov.b32 result, old;"
    );
    let got = by_thread(5, &body).unwrap();
    (got[0], got[3])
}

#[test]
fn all_kinds() {
    let with = |initial, name: &str| {
        shared_atomic(initial, &format!("{name} old, [word], value"), "add.u32 value, tid, 1;")
    };
    assert_eq!(with(10, "add.u32"), (25, 16));
    assert_eq!(with(0xffff_fffe, "max.s32"), (5, 3));
    assert_eq!(with(0xffff_fffe, "max.u32"), (0xffff_fffe, 0xffff_fffe));
    assert_eq!(with(3, "min.u32"), (1, 1));
    assert_eq!(with(0xffff_fffe, "min.s32"), (0xffff_fffe, 0xffff_fffe));
    assert_eq!(with(0xf0, "or.b32"), (0xf7, 0xf3));
    assert_eq!(with(0xff, "and.b32"), (0, 0));
    assert_eq!(with(0, "xor.b32"), (1, 0));
    assert_eq!(with(9, "exch.b32"), (5, 3));
    // 1 is the bound of thread 0, so 0, then 1, 2, 3, 4
    assert_eq!(with(1, "inc.u32"), (4, 2));
    // 0, from which thread 1 goes to its bound of 2, then 1, 0, and the bound of thread 4
    assert_eq!(with(1, "dec.u32"), (5, 1));
    assert_eq!(
        shared_atomic(f(1.0), "add.f32 old, [word], fvalue", "cvt.rn.f32.u32 fvalue, tid;"),
        (11.0_f32.to_bits(), 4.0_f32.to_bits())
    );
    assert_eq!(shared_atomic(2, "cas.b32 old, [word], tid, 77", ""), (77, 77));
}

#[test]
fn global_counters_count_all_blocks() {
    let body = ".reg .u64 p; .reg .u32 one, old; ld.param.u64 p, [out];
        mov.u32 one, 1; red.global.add.u32 [p], one; atom.global.acq_rel.gpu.add.u32 old, [p + 4], 2;
        red.release.gpu.global.add.u32 [p + 8], old;
        .reg .u64 wide; mov.u64 wide, 0x100000000; red.global.add.u64 [p + 16], wide; ret;";
    let got = launch(&source(40, body), 3, 6).unwrap();
    assert_eq!(got, [120, 240, (0..120).map(|i| 2 * i).sum::<u32>(), 0, 0, 120]);
}

#[test]
fn small_sums_in_global_memory_are_flushed() {
    let body = ".reg .u64 p; .reg .f32 tiny, old; ld.param.u64 p, [out]; mov.b32 tiny, 1;
        atom.global.add.f32 old, [p], tiny; ret;";
    assert_eq!(launch(&source(1, body), 1, 1).unwrap(), [0]);
}
