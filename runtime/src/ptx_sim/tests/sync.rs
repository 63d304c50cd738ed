//! Barriers, fences, asynchronous copies, and threads that wait in vain.

use super::{by_thread, launch, refuses, source};

#[test]
fn barriers_need_everyone() {
    refuses(
        by_thread(64, ".reg .pred p; setp.lt.u32 p, tid, 32; @p bar.sync 0; mov.u32 result, 0;"),
        &["barrier not reached by all", "warp 0 waits at barrier 0 on line", "warp 1 has exited", "thread 0"],
    );
    refuses(
        by_thread(32, ".reg .pred p; setp.lt.u32 p, tid, 5; @p bar.sync 0; mov.u32 result, 0;"),
        &["barrier not reached by all", "0x0000001f", "0xffffffe0"],
    );
    refuses(
        by_thread(32, ".reg .pred p; setp.lt.u32 p, tid, 5; mov.u32 result, 0; @p ret; bar.sync 0;"),
        &["barrier not reached by all", "have exited"],
    );
    refuses(
        by_thread(
            64,
            ".reg .pred p; setp.lt.u32 p, tid, 32; @p bar.sync 1, 64; @!p bar.sync 1, 32; mov.u32 result, 0;",
        ),
        &["barrier not reached by all", "barrier 1 for 32 threads", "64"],
    );
}

#[test]
fn barriers_of_some_warps() {
    // warps 0 and 1 exchange through barrier 1 while warp 2 goes its own way
    let body = ".reg .pred p; .reg .u32 at_word, other; .shared .align 4 .b8 room[512];
        mov.u32 at_word, room; mad.lo.u32 other, tid, 4, at_word; st.shared.u32 [other], tid;
        setp.ge.u32 p, tid, 64; mov.u32 result, 7; @p bra out_of_it;
        barrier.sync 1, 64;
        xor.b32 other, tid, 32; mad.lo.u32 other, other, 4, at_word; ld.shared.u32 result, [other];
        out_of_it:";
    let want: Vec<u32> = (0..96).map(|t| if t < 64 { t ^ 32 } else { 7 }).collect();
    assert_eq!(by_thread(96, body).unwrap(), want);
}

#[test]
fn arrivals_let_others_through() {
    // warp 1 leaves values and arrives, warp 0 waits for them
    let body = ".reg .pred p; .reg .u32 at_word; .shared .align 4 .b8 room[256];
        and.b32 at_word, tid, 31; mad.lo.u32 at_word, at_word, 4, 0; .reg .u32 base; mov.u32 base, room;
        add.u32 at_word, at_word, base; mov.u32 result, 0;
        setp.ge.u32 p, tid, 32;
        @!p bra consumer;
        st.shared.u32 [at_word], tid;
        bar.arrive 2, 64;
        bra joined;
    consumer:
        bar.sync 2, 64;
        ld.shared.u32 result, [at_word];
    joined:";
    let want: Vec<u32> = (0..64).map(|t| if t < 32 { t + 32 } else { 0 }).collect();
    assert_eq!(by_thread(64, body).unwrap(), want);
}

#[test]
fn threads_that_wait_in_vain_are_told() {
    let body = ".reg .u64 p; .reg .u32 flag; .reg .pred q; ld.param.u64 p, [out];
    spin: ld.acquire.gpu.global.u32 flag, [p]; setp.eq.u32 q, flag, 0; @q bra spin; ret;";
    refuses(launch(&source(32, body), 1, 1), &["deadlock", "warp 0 is on line"]);
}

#[test]
fn warps_wait_for_one_another_through_memory() {
    let body =
        ".reg .u64 p; .reg .u32 flag, w; .reg .pred q, first; ld.param.u64 p, [out]; mov.u32 w, %warpid;
        setp.eq.u32 first, w, 0;
        @!first bra writer;
    spin: ld.acquire.gpu.global.u32 flag, [p]; setp.eq.u32 q, flag, 0; @q bra spin;
        st.global.u32 [p + 4], flag; ret;
    writer: st.release.gpu.global.u32 [p], 5; ret;";
    assert_eq!(launch(&source(64, body), 1, 2).unwrap(), [5, 5]);
}

#[test]
fn fences_and_hints_change_nothing() {
    let body = ".reg .u64 p; ld.param.u64 p, [out]; membar.cta; membar.gl; fence.acq_rel.gpu; fence.sc.cta;
        prefetch.global.L2 [p + 4096]; nanosleep.u32 10; mov.u32 result, 3;";
    assert_eq!(by_thread(32, body).unwrap(), [3; 32]);
}

/// Every thread copies four words of `out` to shared memory, and reads one.
fn copied(copy: &str, wait: &str) -> Result<Vec<u32>, String> {
    let body = format!(
        ".shared .align 16 .b8 room[512]; .reg .u32 tid, to, zero, v; .reg .u64 from, out_ptr;
        mov.u32 tid, %tid.x; ld.param.u64 out_ptr, [out]; mad.wide.u32 from, tid, 16, out_ptr;
        st.global.v4.u32 [from], {{tid, 11, 12, 13}};
        mov.u32 zero, 0; mov.u32 to, room; mad.lo.u32 to, tid, 16, to;
        {copy} {wait}
        ld.shared.u32 v, [to + 8]; st.global.u32 [from + 4], v; ld.shared.u32 v, [to]; st.global.u32 [from + 12], v; ret;"
    );
    launch(&source(4, &body), 1, 16)
}

#[test]
fn asynchronous_copies_arrive_at_their_wait() {
    let copy = "cp.async.cg.shared.global [to], [from], 16; cp.async.commit_group;";
    let want: Vec<u32> = (0..4).flat_map(|t| [t, 12, 12, t]).collect();
    assert_eq!(copied(copy, "cp.async.wait_group 0;").unwrap(), want);
    assert_eq!(copied("cp.async.ca.shared.global [to], [from], 16;", "cp.async.wait_all;").unwrap(), want);
    refuses(copied(copy, "cp.async.wait_group 1;"), &["asynchronous result used before its wait"]);
    refuses(copied(copy, ""), &["asynchronous result used before its wait"]);
    // what is left out is zero
    let partly = "cp.async.cg.shared.global [to], [from], 16, 8; cp.async.commit_group;";
    let want: Vec<u32> = (0..4).flat_map(|t| [t, 0, 12, t]).collect();
    assert_eq!(copied(partly, "cp.async.wait_group 0;").unwrap(), want);
    let nothing = "cp.async.cg.shared.global [to], [from + 4096], 16, zero; cp.async.commit_group;";
    let want: Vec<u32> = (0..4).flat_map(|t| [t, 0, 12, 0]).collect();
    assert_eq!(copied(nothing, "cp.async.wait_group 0;").unwrap(), want);
    let words =
        "cp.async.ca.shared.global [to], [from], 4; cp.async.ca.shared.global [to + 8], [from + 8], 8;";
    let want: Vec<u32> = (0..4).flat_map(|t| [t, 12, 12, t]).collect();
    assert_eq!(copied(words, "cp.async.wait_all;").unwrap(), want);
}
