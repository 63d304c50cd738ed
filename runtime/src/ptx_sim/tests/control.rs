//! Where lanes part and meet.

use super::{by_thread, launch, refuses, source};

/// Says which lanes execute a statement, in the words of all lanes.
const MEETING: &str = "activemask.b32 result;";

#[test]
fn lanes_meet_after_a_branch() {
    let body = format!(
        ".reg .pred p; .reg .u32 v;
        setp.lt.u32 p, tid, 5;
        @p bra small;
        add.u32 v, tid, 100;
        bra meet;
    small:
        add.u32 v, tid, 7;
    meet:
        {MEETING}
        add.u32 result, result, v;"
    );
    let want: Vec<u32> = (0..32_u32).map(|t| (if t < 5 { t + 7 } else { t + 100 }).wrapping_sub(1)).collect();
    assert_eq!(by_thread(32, &body).unwrap(), want);
}

#[test]
fn lanes_meet_after_a_loop_of_different_lengths() {
    let body = format!(
        ".reg .pred done; .reg .u32 c, sum;
        mov.u32 c, tid; mov.u32 sum, 0;
    again:
        setp.ge.u32 done, c, 20;
        @done bra end;
        add.u32 sum, sum, 1;
        add.u32 c, c, 3;
        bra again;
    end:
        {MEETING}
        and.b32 result, result, sum;"
    );
    let want: Vec<u32> = (0..32_u32).map(|t| 20_u32.saturating_sub(t).div_ceil(3)).collect();
    assert_eq!(by_thread(32, &body).unwrap(), want);
}

#[test]
fn lanes_meet_after_a_loop_inside_a_branch_behind_ways_that_end() {
    let body = format!(
        ".reg .pred done, wide; .reg .u32 c, sum;
        mov.u32 c, tid; mov.u32 sum, 0;
        setp.gt.u32 wide, tid, 1000;
        @wide bra far;
        @wide ret;
        bra rest;
    far:
        mov.u32 result, 5;
        ret;
    rest:
    again:
        setp.ge.u32 done, c, 20;
        @done bra end;
        add.u32 sum, sum, 1;
        add.u32 c, c, 3;
        bra again;
    end:
        {MEETING}
        setp.gt.u32 wide, sum, 1000;
        @wide bra far;"
    );
    assert_eq!(by_thread(32, &body).unwrap(), vec![u32::MAX; 32]);
}

#[test]
fn lanes_meet_before_a_loop_that_only_guarded_exits_leave() {
    let body = format!(
        ".reg .pred done; .reg .u32 c, sum;
        mov.u32 c, tid;
    again:
        setp.ge.u32 done, c, 20;
        @done bra end;
        add.u32 c, c, 3;
        bra again;
    end:
        {MEETING}
        ld.param.u64 out_ptr, [out]; mad.wide.u32 at, tid, 4, out_ptr;
    writing:
        setp.ge.u32 done, c, 40;
        @done ret;
        st.global.u32 [at], result;
        add.u32 c, c, 7;
        bra writing;"
    );
    let want: Vec<u32> = vec![u32::MAX; 32];
    assert_eq!(by_thread(32, &body).unwrap(), want);
}

#[test]
fn outer_lanes_wait_for_inner_ones() {
    let body = format!(
        ".reg .pred p, q; .reg .u32 inner;
        setp.lt.u32 p, tid, 16; and.b32 inner, tid, 1; setp.eq.u32 q, inner, 0;
        mov.u32 inner, 0;
        @!p bra outer;
        @q bra even;
        mov.u32 inner, 1;
        bra joined;
    even:
        mov.u32 inner, 2;
    joined:
        activemask.b32 inner;
    outer:
        {MEETING}
        xor.b32 result, result, inner;"
    );
    let want: Vec<u32> = (0..32).map(|t| if t < 16 { u32::MAX ^ 0xffff } else { u32::MAX }).collect();
    assert_eq!(by_thread(32, &body).unwrap(), want);
}

#[test]
fn lanes_that_leave_do_not_hold_the_others() {
    let body = format!(
        ".reg .pred p;
        setp.ge.u32 p, tid, 40;
        mov.u32 result, 0;
        @p exit;
        {MEETING}"
    );
    let got = by_thread(64, &body).unwrap();
    assert_eq!(got[..32], [u32::MAX; 32]);
    assert_eq!(got[32..40], [0xff; 8]);
    assert_eq!(got[40..], [0; 24]);
}

#[test]
fn jumps_that_promise_to_be_uniform_are_held_to_it() {
    let body = ".reg .pred p; setp.lt.u32 p, tid, 3; @p bra.uni there; there: mov.u32 result, 1;";
    refuses(by_thread(32, body), &["line 9", "bra.uni", "invalid"]);
}

#[test]
fn blocks_and_warps_know_their_places() {
    let body = ".reg .u32 b, n, t, w, at, v; .reg .u64 p, out_ptr;
        mov.u32 b, %ctaid.x; mov.u32 n, %ntid.x; mov.u32 t, %tid.x; mov.u32 w, %warpid;
        mad.lo.u32 at, b, n, t;
        ld.param.u64 out_ptr, [out]; mad.wide.u32 p, at, 4, out_ptr;
        mad.lo.u32 v, b, 1000, w; st.global.u32 [p], v; ret;";
    let got = launch(&source(64, body), 3, 192).unwrap();
    let want: Vec<u32> = (0..192).map(|i| i / 64 * 1000 + i % 64 / 32).collect();
    assert_eq!(got, want);
}
