//! Arithmetic on binary32 and binary64.

use super::table::{NAN, check, f, g};

const INF: u64 = 0x7f80_0000;
/// The smallest number of binary32.
const TINY: u64 = 1;
/// The largest number of binary32.
const MAX: u64 = 0x7f7f_ffff;
/// The smallest normal number of binary32.
const NORMAL: u64 = 0x0080_0000;

#[test]
fn sums_and_products_round_to_even() {
    check(&[
        ("add.f32", "f32 f32 f32", &[f(1.5), f(2.25)], f(3.75)),
        // 2^24 + 1 is a tie, 2^24 + 3 too
        ("add.f32", "f32 f32 f32", &[f(16_777_216.0), f(1.0)], f(16_777_216.0)),
        ("add.rn.f32", "f32 f32 f32", &[f(16_777_218.0), f(1.0)], f(16_777_220.0)),
        ("add.f32", "f32 f32 f32", &[INF, 0xff80_0000], NAN),
        ("add.f32", "f32 f32 f32", &[0x7fc0_1234, f(1.0)], NAN),
        ("add.f32", "f32 f32 f32", &[f(-1.0), f(1.0)], 0),
        ("add.f32", "f32 f32 f32", &[f(-0.0), f(-0.0)], 0x8000_0000),
        ("add.f32", "f32 f32 f32", &[TINY, TINY], 2),
        ("add.ftz.f32", "f32 f32 f32", &[TINY, TINY], 0),
        ("add.ftz.f32", "f32 f32 f32", &[0x8000_0001, 0x8000_0001], 0x8000_0000),
        ("sub.ftz.f32", "f32 f32 f32", &[0x0080_0001, NORMAL], 0),
        ("sub.f32", "f32 f32 f32", &[0x0080_0001, NORMAL], 1),
        ("mul.f32", "f32 f32 f32", &[f(3.0), f(-0.5)], f(-1.5)),
        ("mul.f32", "f32 f32 f32", &[MAX, f(2.0)], INF),
        ("mul.f32", "f32 f32 f32", &[INF, 0], NAN),
        ("mul.f32", "f32 f32 f32", &[NORMAL, f(0.5)], 0x0040_0000),
        ("mul.ftz.f32", "f32 f32 f32", &[NORMAL, f(0.5)], 0),
        ("add.sat.f32", "f32 f32 f32", &[f(0.75), f(0.75)], f(1.0)),
        ("add.sat.f32", "f32 f32 f32", &[f(-0.75), f(0.5)], 0),
        ("mul.sat.f32", "f32 f32 f32", &[NAN, f(0.5)], 0),
    ]);
}

#[test]
fn rounding_has_directions() {
    check(&[
        ("add.rz.f32", "f32 f32 f32", &[f(16_777_218.0), f(1.0)], f(16_777_218.0)),
        ("add.rp.f32", "f32 f32 f32", &[f(1.0), TINY], 0x3f80_0001),
        ("add.rm.f32", "f32 f32 f32", &[f(1.0), TINY], 0x3f80_0000),
        ("add.rm.f32", "f32 f32 f32", &[f(-1.0), 0x8000_0001], 0xbf80_0001),
        ("add.rz.f32", "f32 f32 f32", &[f(1.0), 0x8000_0001], 0x3f7f_ffff),
        ("mul.rz.f32", "f32 f32 f32", &[MAX, f(2.0)], MAX),
        ("mul.rp.f32", "f32 f32 f32", &[MAX, f(2.0)], INF),
        ("mul.rm.f32", "f32 f32 f32", &[MAX, f(-2.0)], 0xff80_0000),
        // 1 + 2^-23 squared is 1 + 2^-22 + 2^-46
        ("mul.rp.f32", "f32 f32 f32", &[0x3f80_0001, 0x3f80_0001], 0x3f80_0003),
        ("mul.rz.f32", "f32 f32 f32", &[0x3f80_0001, 0x3f80_0001], 0x3f80_0002),
        ("mul.rp.f32", "f32 f32 f32", &[TINY, TINY], 1),
        ("fma.rp.f32", "f32 f32 f32 f32", &[TINY, TINY, f(1.0)], 0x3f80_0001),
        ("fma.rm.f32", "f32 f32 f32 f32", &[TINY, 0x8000_0001, f(1.0)], 0x3f7f_ffff),
        ("div.rz.f32", "f32 f32 f32", &[f(2.0), f(3.0)], 0x3f2a_aaaa),
        ("div.rn.f32", "f32 f32 f32", &[f(2.0), f(3.0)], 0x3f2a_aaab),
        ("div.rp.f32", "f32 f32 f32", &[f(1.0), f(3.0)], 0x3eaa_aaab),
        ("div.rm.f32", "f32 f32 f32", &[f(1.0), f(-3.0)], 0xbeaa_aaab),
        ("sqrt.rp.f32", "f32 f32", &[f(2.0)], 0x3fb5_04f4),
        ("sqrt.rz.f32", "f32 f32", &[f(2.0)], 0x3fb5_04f3),
        ("rcp.rp.f32", "f32 f32", &[f(3.0)], 0x3eaa_aaab),
        ("rcp.rm.f32", "f32 f32", &[f(3.0)], 0x3eaa_aaaa),
    ]);
}

#[test]
fn fused_products_round_once() {
    check(&[
        // (1 + 2^-23)^2 - (1 + 2^-22) = 2^-46
        ("fma.rn.f32", "f32 f32 f32 f32", &[0x3f80_0001, 0x3f80_0001, 0xbf80_0002], 0x2880_0000),
        ("fma.rn.f32", "f32 f32 f32 b32", &[f(2.0), f(3.0), f(4.0)], f(10.0)),
        ("mad.rn.f32", "f32 f32 f32 f32", &[f(2.0), f(3.0), f(4.0)], f(10.0)),
        ("fma.rn.f32", "f32 f32 f32 f32", &[INF, 0, f(4.0)], NAN),
        ("fma.rn.ftz.f32", "f32 f32 f32 f32", &[NORMAL, f(0.5), 0], 0),
        ("fma.rn.sat.f32", "f32 f32 f32 f32", &[f(2.0), f(3.0), f(4.0)], f(1.0)),
        ("fma.rn.f64", "f64 f64 f64 f64", &[g(2.0), g(3.0), g(4.0)], g(10.0)),
    ]);
}

#[test]
fn quotients_and_roots() {
    check(&[
        ("div.rn.f32", "f32 f32 f32", &[f(1.0), f(3.0)], 0x3eaa_aaab),
        ("div.rn.f32", "f32 f32 f32", &[f(1.0), f(-0.0)], 0xff80_0000),
        ("div.rn.f32", "f32 f32 f32", &[0, 0], NAN),
        ("div.rn.ftz.f32", "f32 f32 f32", &[NORMAL, f(2.0)], 0),
        ("sqrt.rn.f32", "f32 f32", &[f(9.0)], f(3.0)),
        ("sqrt.rn.f32", "f32 f32", &[f(-1.0)], NAN),
        ("sqrt.rn.f32", "f32 f32", &[f(-0.0)], 0x8000_0000),
        ("rcp.rn.f32", "f32 f32", &[f(4.0)], f(0.25)),
        ("rcp.rn.f32", "f32 f32", &[f(0.0)], INF),
        ("div.rn.f64", "f64 f64 f64", &[g(1.0), g(3.0)], 0x3fd5_5555_5555_5555),
        ("sqrt.rn.f64", "f64 f64", &[g(2.0)], g(std::f64::consts::SQRT_2)),
        ("rcp.rn.f64", "f64 f64", &[g(8.0)], g(0.125)),
        ("add.f64", "f64 f64 f64", &[g(0.5), g(0.25)], g(0.75)),
        ("sub.f64", "f64 f64 f64", &[g(0.5), g(0.25)], g(0.25)),
        ("mul.f64", "f64 f64 f64", &[g(0.5), g(0.25)], g(0.125)),
    ]);
}

#[test]
fn extremes_prefer_numbers() {
    check(&[
        ("min.f32", "f32 f32 f32", &[f(1.0), f(-2.0)], f(-2.0)),
        ("max.f32", "f32 f32 f32", &[f(1.0), f(-2.0)], f(1.0)),
        ("min.f32", "f32 f32 f32", &[NAN, f(-2.0)], f(-2.0)),
        ("max.f32", "f32 f32 f32", &[f(1.0), 0x7fc0_0001], f(1.0)),
        ("max.f32", "f32 f32 f32", &[0xffc0_0001, 0x7fc0_0001], NAN),
        ("max.NaN.f32", "f32 f32 f32", &[f(1.0), 0x7fc0_0001], NAN),
        ("min.NaN.f32", "f32 f32 f32", &[0x7fc0_0001, f(1.0)], NAN),
        ("min.f32", "f32 f32 f32", &[f(0.0), f(-0.0)], 0x8000_0000),
        ("max.f32", "f32 f32 f32", &[f(-0.0), f(0.0)], 0),
        ("max.f32", "f32 f32 f32", &[f(-1.0), 0xff80_0000], f(-1.0)),
        ("max.ftz.f32", "f32 f32 f32", &[TINY, f(-1.0)], 0),
        ("max.f64", "f64 f64 f64", &[g(1.0), g(2.0)], g(2.0)),
        ("min.f64", "f64 f64 f64", &[g(f64::NAN), g(2.0)], g(2.0)),
        ("neg.f32", "f32 f32", &[f(1.0)], f(-1.0)),
        ("neg.f32", "f32 f32", &[0], 0x8000_0000),
        ("neg.ftz.f32", "f32 f32", &[TINY], 0x8000_0000),
        ("abs.f32", "f32 f32", &[f(-1.0)], f(1.0)),
        ("abs.ftz.f32", "f32 f32", &[0x8000_0001], 0),
        ("neg.f64", "f64 f64", &[g(1.0)], g(-1.0)),
        ("abs.f64", "f64 f64", &[g(-1.0)], g(1.0)),
        ("copysign.f32", "f32 f32 f32", &[f(-1.0), f(2.0)], f(-2.0)),
        ("copysign.f64", "f64 f64 f64", &[g(1.0), g(-2.0)], g(2.0)),
    ]);
}

#[test]
fn kinds_of_numbers() {
    check(&[
        ("testp.finite.f32", "pred f32", &[MAX], 1),
        ("testp.finite.f32", "pred f32", &[INF], 0),
        ("testp.infinite.f32", "pred f32", &[0xff80_0000], 1),
        ("testp.number.f32", "pred f32", &[NAN], 0),
        ("testp.notanumber.f32", "pred f32", &[NAN], 1),
        ("testp.normal.f32", "pred f32", &[NORMAL], 1),
        ("testp.normal.f32", "pred f32", &[TINY], 0),
        ("testp.subnormal.f32", "pred f32", &[TINY], 1),
        ("testp.subnormal.f64", "pred f64", &[1], 1),
    ]);
}
