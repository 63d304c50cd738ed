//! Comparisons and selections.

use super::table::{NAN, check, f, g};

#[test]
fn whole_numbers_are_compared() {
    check(&[
        ("setp.lt.u32", "pred u32 u32", &[1, 0xffff_ffff], 1),
        ("setp.lt.s32", "pred s32 s32", &[1, 0xffff_ffff], 0),
        ("setp.le.u32", "pred u32 u32", &[5, 5], 1),
        ("setp.gt.s32", "pred s32 s32", &[5, 5], 0),
        ("setp.ge.s32", "pred s32 s32", &[5, 5], 1),
        ("setp.eq.b32", "pred b32 f32", &[5, 5], 1),
        ("setp.ne.u32", "pred u32 u32", &[5, 5], 0),
        ("setp.lo.u32", "pred u32 u32", &[1, 2], 1),
        ("setp.ls.u32", "pred u32 u32", &[3, 2], 0),
        ("setp.hi.u32", "pred u32 u32", &[3, 2], 1),
        ("setp.hs.u32", "pred u32 u32", &[2, 2], 1),
        ("setp.lt.u64", "pred u64 u64", &[1, 1 << 63], 1),
        ("setp.lt.s64", "pred s64 s64", &[1, 1 << 63], 0),
        ("setp.lt.s16", "pred s16 s16", &[0x8000, 0], 1),
        ("setp.gt.u16", "pred u16 u16", &[0x8000, 0], 1),
        ("setp.eq.b64", "pred b64 b64", &[1 << 40, 0], 0),
        ("setp.lt.u32 d, 1, a", "pred u32", &[2], 1),
    ]);
}

#[test]
fn floats_are_compared_with_nan() {
    check(&[
        ("setp.lt.f32", "pred f32 f32", &[f(1.0), f(2.0)], 1),
        ("setp.lt.f32", "pred f32 f32", &[f(1.0), NAN], 0),
        ("setp.ltu.f32", "pred f32 f32", &[f(1.0), NAN], 1),
        ("setp.eq.f32", "pred f32 f32", &[f(0.0), f(-0.0)], 1),
        ("setp.ne.f32", "pred f32 f32", &[NAN, NAN], 0),
        ("setp.neu.f32", "pred f32 f32", &[NAN, NAN], 1),
        ("setp.equ.f32", "pred f32 f32", &[NAN, f(1.0)], 1),
        ("setp.leu.f32", "pred f32 f32", &[f(2.0), f(1.0)], 0),
        ("setp.gtu.f32", "pred f32 f32", &[f(2.0), f(1.0)], 1),
        ("setp.geu.f32", "pred f32 f32", &[f(1.0), f(1.0)], 1),
        ("setp.num.f32", "pred f32 f32", &[f(1.0), f(f32::INFINITY)], 1),
        ("setp.num.f32", "pred f32 f32", &[NAN, f(1.0)], 0),
        ("setp.nan.f32", "pred f32 f32", &[NAN, f(1.0)], 1),
        ("setp.le.f32", "pred f32 f32", &[f(1.0), f(1.0)], 1),
        ("setp.le.f32", "pred f32 f32", &[f(2.0), f(1.0)], 0),
        ("setp.le.f32", "pred f32 f32", &[NAN, f(1.0)], 0),
        ("setp.gt.f32", "pred f32 f32", &[1, 0], 1),
        // subnormal numbers are flushed before they are compared
        ("setp.gt.ftz.f32", "pred f32 f32", &[1, 0], 0),
        ("setp.ge.f64", "pred f64 f64", &[g(2.0), g(1.0)], 1),
        ("setp.lt.f16", "pred f16 b16", &[0x3c00, 0x4000], 1),
        ("setp.nan.f16", "pred f16 f16", &[0x7e00, 0x4000], 1),
    ]);
}

#[test]
fn predicates_are_combined_and_come_in_pairs() {
    check(&[
        ("setp.lt.and.u32", "pred u32 u32 pred", &[1, 2, 0], 0),
        ("setp.lt.or.u32", "pred u32 u32 pred", &[3, 2, 1], 1),
        ("setp.lt.xor.u32", "pred u32 u32 pred", &[1, 2, 1], 0),
        ("setp.lt.and.u32 d, a, b, !c", "pred u32 u32 pred", &[1, 2, 0], 1),
        ("setp.lt.u32 other|d, a, b", "pred u32 u32", &[1, 2], 0),
        // the second is not the opposite of the first: both are combined
        ("setp.lt.and.u32 other|d, a, b, c", "pred u32 u32 pred", &[3, 2, 1], 1),
        ("setp.lt.and.u32 other|d, a, b, c", "pred u32 u32 pred", &[3, 2, 0], 0),
        ("set.lt.u32.f32", "u32 f32 f32", &[f(1.0), f(2.0)], 0xffff_ffff),
        ("set.lt.f32.s32", "f32 s32 s32", &[0xffff_ffff, 0], f(1.0)),
        ("set.gt.f32.s32", "f32 s32 s32", &[0xffff_ffff, 0], 0),
    ]);
}

#[test]
fn one_of_two_is_selected() {
    check(&[
        ("selp.u32", "u32 u32 u32 pred", &[5, 6, 1], 5),
        ("selp.u32", "u32 u32 u32 pred", &[5, 6, 0], 6),
        ("selp.u32 d, a, b, !c", "u32 u32 u32 pred", &[5, 6, 0], 5),
        ("selp.f32", "f32 f32 b32 pred", &[f(5.0), f(6.0), 0], f(6.0)),
        ("selp.b64", "b64 b64 b64 pred", &[1 << 50, 6, 1], 1 << 50),
        ("selp.b16", "b16 b16 b16 pred", &[5, 6, 0], 6),
        ("selp.f32 d, a, 0f00000000, b", "f32 f32 pred", &[f(5.0), 0], 0),
        ("slct.u32.s32", "u32 u32 u32 s32", &[5, 6, 0], 5),
        ("slct.u32.s32", "u32 u32 u32 s32", &[5, 6, 0x8000_0000], 6),
        ("slct.f32.f32", "f32 f32 f32 f32", &[5, 6, f(-0.0)], 5),
        ("slct.f32.f32", "f32 f32 f32 f32", &[5, 6, NAN], 6),
        ("slct.b64.s32", "b64 b64 b64 s32", &[1 << 50, 6, 1], 1 << 50),
    ]);
}
