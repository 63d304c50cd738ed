//! Arithmetic on whole numbers.

use super::refuses;
use super::table::check;

#[test]
fn sums_wrap_and_saturate() {
    check(&[
        ("add.u32", "u32 u32 u32", &[0xffff_ffff, 2], 1),
        ("add.s32", "s32 s32 s32", &[0x7fff_ffff, 1], 0x8000_0000),
        ("add.sat.s32", "s32 s32 s32", &[0x7fff_ffff, 1], 0x7fff_ffff),
        ("sub.sat.s32", "s32 s32 s32", &[0x8000_0000, 1], 0x8000_0000),
        ("sub.u32", "u32 u32 u32", &[1, 2], 0xffff_ffff),
        ("add.u64", "u64 u64 u64", &[u64::MAX, 3], 2),
        ("sub.s64", "s64 s64 s64", &[0, 1], u64::MAX),
        ("add.u16", "u16 u16 u16", &[0xffff, 2], 1),
        ("sub.s16", "s16 s16 s16", &[0x8000, 1], 0x7fff),
        // operands of instructions may be untyped or signed otherwise
        ("add.u32", "b32 s32 u32", &[5, 6], 11),
    ]);
}

#[test]
fn products_have_halves() {
    check(&[
        ("mul.lo.u32", "u32 u32 u32", &[0x1_0001, 0x1_0001], 0x2_0001),
        ("mul.lo.s32", "s32 s32 s32", &[0xffff_fffe, 3], 0xffff_fffa),
        ("mul.hi.u32", "u32 u32 u32", &[0xffff_ffff, 0xffff_ffff], 0xffff_fffe),
        ("mul.hi.s32", "s32 s32 s32", &[0xffff_ffff, 0xffff_ffff], 0),
        ("mul.hi.s32", "s32 s32 s32", &[0x8000_0000, 2], 0xffff_ffff),
        ("mul.wide.u32", "u64 u32 u32", &[0xffff_ffff, 0xffff_ffff], 0xffff_fffe_0000_0001),
        ("mul.wide.s32", "s64 s32 s32", &[0xffff_ffff, 5], 0xffff_ffff_ffff_fffb),
        ("mul.wide.u16", "u32 u16 u16", &[0xffff, 0xffff], 0xfffe_0001),
        ("mul.wide.s16", "s32 s16 s16", &[0x8000, 2], 0xffff_0000),
        ("mul.lo.u64", "u64 u64 u64", &[0x1_0000_0001, 0x1_0000_0001], 0x2_0000_0001),
        ("mul.hi.u64", "u64 u64 u64", &[u64::MAX, u64::MAX], u64::MAX - 1),
        ("mul.hi.s64", "s64 s64 s64", &[1 << 63, 2], u64::MAX),
        ("mul.lo.u16", "u16 u16 u16", &[0x101, 0x101], 0x0201),
        ("mul.hi.u16", "u16 u16 u16", &[0xffff, 0xffff], 0xfffe),
        ("mad.lo.u32", "u32 u32 u32 u32", &[7, 6, 0xffff_ffff], 41),
        ("mad.lo.s32", "s32 s32 s32 s32", &[0xffff_fff9, 6, 2], 0xffff_ffd8),
        ("mad.hi.u32", "u32 u32 u32 u32", &[0x8000_0000, 4, 5], 7),
        ("mad.wide.u32", "u64 u32 u32 u64", &[0xffff_ffff, 2, 3], 0x2_0000_0001),
        ("mad.wide.s32", "s64 s32 s32 s64", &[0xffff_ffff, 2, 3], 1),
        ("mad.lo.u64", "u64 u64 u64 u64", &[3, 4, 5], 17),
    ]);
}

#[test]
fn quotients_go_towards_zero() {
    check(&[
        ("div.u32", "u32 u32 u32", &[0xffff_ffff, 10], 429_496_729),
        ("div.s32", "s32 s32 s32", &[0xffff_fff9, 2], 0xffff_fffd),
        ("div.s32", "s32 s32 s32", &[0x8000_0000, 0xffff_ffff], 0x8000_0000),
        ("rem.s32", "s32 s32 s32", &[0xffff_fff9, 2], 0xffff_ffff),
        ("rem.s32", "s32 s32 s32", &[0x8000_0000, 0xffff_ffff], 0),
        ("rem.u32", "u32 u32 u32", &[17, 5], 2),
        ("div.u64", "u64 u64 u64", &[1 << 40, 3], 366_503_875_925),
        ("rem.u64", "u64 u64 u64", &[1 << 40, 3], 1),
        ("div.s16", "s16 s16 s16", &[0xfff9, 2], 0xfffd),
    ]);
    refuses(
        super::by_thread(32, "div.u32 result, 5, tid;"),
        &["`div.u32 result, 5, tid`", "thread 0", "division by zero"],
    );
}

#[test]
fn extremes_and_signs() {
    check(&[
        ("min.u32", "u32 u32 u32", &[0xffff_ffff, 1], 1),
        ("min.s32", "s32 s32 s32", &[0xffff_ffff, 1], 0xffff_ffff),
        ("max.u32", "u32 u32 u32", &[0xffff_ffff, 1], 0xffff_ffff),
        ("max.s32", "s32 s32 s32", &[0xffff_ffff, 1], 1),
        ("max.s64", "s64 s64 s64", &[1 << 63, 7], 7),
        ("min.u64", "u64 u64 u64", &[1 << 63, 7], 7),
        ("max.s16", "s16 s16 s16", &[0x8000, 3], 3),
        ("neg.s32", "s32 s32", &[5], 0xffff_fffb),
        ("neg.s32", "s32 s32", &[0x8000_0000], 0x8000_0000),
        ("neg.s64", "s64 s64", &[1], u64::MAX),
        ("abs.s32", "s32 s32", &[0xffff_fffb], 5),
        ("abs.s32", "s32 s32", &[0x8000_0000], 0x8000_0000),
        ("abs.s64", "s64 s64", &[u64::MAX], 1),
        ("abs.s16", "s16 s16", &[0xffff], 1),
    ]);
}
