//! What lanes tell one another.

use super::{by_thread, refuses};

fn shuffled(instruction: &str) -> Vec<u32> {
    by_thread(
        32,
        &format!(
            ".reg .u32 v; .reg .pred p; add.u32 v, tid, 100; {instruction};
            @!p add.u32 result, result, 1000;"
        ),
    )
    .unwrap()
}

fn want(of: impl Fn(u32) -> (u32, bool)) -> Vec<u32> {
    (0..32).map(of).map(|(from, inside)| from + 100 + if inside { 0 } else { 1000 }).collect()
}

#[test]
fn shuffles() {
    assert_eq!(shuffled("shfl.sync.bfly.b32 result|p, v, 5, 31, -1"), want(|l| (l ^ 5, true)));
    assert_eq!(shuffled("shfl.sync.idx.b32 result|p, v, 7, 31, -1"), want(|_| (7, true)));
    assert_eq!(
        shuffled("shfl.sync.down.b32 result|p, v, 3, 31, -1"),
        want(|l| if l < 29 { (l + 3, true) } else { (l, false) })
    );
    assert_eq!(
        shuffled("shfl.sync.up.b32 result|p, v, 3, 0, -1"),
        want(|l| if l > 2 { (l - 3, true) } else { (l, false) })
    );
    // segments of 8 lanes: the mask of segments is 24 << 8
    assert_eq!(
        shuffled("shfl.sync.down.b32 result|p, v, 1, 0x181f, -1"),
        want(|l| if l % 8 < 7 { (l + 1, true) } else { (l, false) })
    );
    assert_eq!(
        shuffled("shfl.sync.up.b32 result|p, v, 1, 0x1800, -1"),
        want(|l| if l % 8 > 0 { (l - 1, true) } else { (l, false) })
    );
    assert_eq!(shuffled("shfl.sync.idx.b32 result|p, v, 2, 0x181f, -1"), want(|l| (l / 8 * 8 + 2, true)));
    assert_eq!(shuffled("shfl.sync.idx.b32 result|p, v, tid, 31, -1"), want(|l| (l, true)));
}

#[test]
fn shuffles_need_their_lanes() {
    // 16 lanes sum up among themselves
    let some = ".reg .pred p; setp.lt.u32 p, tid, 16; mov.u32 result, 0;
        @p shfl.sync.bfly.b32 result, tid, 1, 31, 0xffff;";
    let want: Vec<u32> = (0..32).map(|t| if t < 16 { t ^ 1 } else { 0 }).collect();
    assert_eq!(by_thread(32, some).unwrap(), want);
    refuses(by_thread(32, &some.replace("0xffff;", "-1;")), &["barrier not reached by all", "0xffff0000"]);
    refuses(by_thread(32, &some.replace("0xffff;", "0xfff;")), &["invalid", "thread 12"]);
    // what a lane that is elsewhere holds is nothing
    refuses(by_thread(32, &some.replace("tid, 1, 31", "tid, 16, 31")), &["undefined register", "`result`"]);
}

#[test]
fn votes() {
    let vote =
        |body: &str| by_thread(32, &format!(".reg .pred p, q; setp.lt.u32 p, tid, 5; {body}")).unwrap();
    let answer = |mode: &str, p: &str| vote(&format!("{mode} q, {p}, -1; selp.u32 result, 1, 0, q;"))[9];
    assert_eq!(
        (
            answer("vote.sync.any.pred", "p"),
            answer("vote.sync.all.pred", "p"),
            answer("vote.sync.uni.pred", "p")
        ),
        (1, 0, 0)
    );
    assert_eq!((answer("vote.sync.any.pred", "!p"), answer("vote.sync.all.pred", "!p")), (1, 0));
    assert_eq!(vote("vote.sync.ballot.b32 result, p, -1;"), [0x1f; 32]);
    assert_eq!(vote("vote.sync.ballot.b32 result, !p, -1;"), [0xffff_ffe0; 32]);
    assert_eq!(vote("mov.u32 result, 0; @p activemask.b32 result;")[3..6], [0x1f, 0x1f, 0]);
    let body = "setp.ge.u32 q, tid, 40; mov.u32 result, 9; @!p vote.sync.uni.pred q, q, 0xffffffe0;
        @q mov.u32 result, 3;";
    assert_eq!(vote(body)[..6], [9, 9, 9, 9, 9, 3]);
}

#[test]
fn reductions() {
    let reduced = |name: &str| {
        by_thread(32, &format!(".reg .s32 v; sub.s32 v, tid, 3; {name} result, v, -1;")).unwrap()
    };
    assert_eq!(reduced("redux.sync.add.s32"), [400; 32]);
    assert_eq!(reduced("redux.sync.add.u32"), [400; 32]);
    assert_eq!(reduced("redux.sync.min.s32"), [-3_i32 as u32; 32]);
    assert_eq!(reduced("redux.sync.max.s32"), [28; 32]);
    assert_eq!(reduced("redux.sync.min.u32"), [0; 32]);
    assert_eq!(reduced("redux.sync.max.u32"), [u32::MAX; 32]);
    assert_eq!(reduced("redux.sync.and.b32"), [0; 32]);
    assert_eq!(reduced("redux.sync.or.b32"), [u32::MAX; 32]);
    assert_eq!(reduced("redux.sync.xor.b32"), [(0..32_u32).fold(0, |x, t| x ^ t.wrapping_sub(3)); 32]);
}

#[test]
fn one_lane_is_elected() {
    let body = "// sm_90a\n.reg .pred p; .reg .b32 lane; elect.sync lane|p, -1; add.u32 result, lane, 5;
        @p add.u32 result, result, 50;";
    let got = by_thread(32, body).unwrap();
    assert_eq!((got[0], &got[1..]), (55, &[5_u32; 31][..]));
}

#[test]
fn special_registers() {
    let read = |name: &str| by_thread(64, &format!("mov.u32 result, {name};")).unwrap();
    assert_eq!(read("%laneid")[33], 1);
    assert_eq!(read("%warpid")[33], 1);
    assert_eq!(read("%nwarpid")[33], 2);
    assert_eq!(read("%ntid.x")[0], 64);
    assert_eq!(read("%nctaid.y")[0], 1);
    assert_eq!(read("%lanemask_lt")[37], 0x1f);
    assert_eq!(read("%lanemask_le")[37], 0x3f);
    assert_eq!(read("%lanemask_eq")[37], 0x20);
    assert_eq!(read("%lanemask_ge")[37], 0xffff_ffe0);
    assert_eq!(read("%lanemask_gt")[31], 0);
    assert_eq!(read("%nsmid")[0], 4);
    let clock =
        ".reg .u64 start, end; mov.u64 start, %clock64; mov.u64 end, %clock64; sub.u64 end, end, start;
        cvt.u32.u64 result, end;";
    assert!(by_thread(32, clock).unwrap()[0] > 0);
}
