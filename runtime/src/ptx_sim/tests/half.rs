//! Arithmetic on halves.

use super::table::{HALF_NAN, check};

#[test]
fn binary16_rounds_once() {
    check(&[
        ("add.f16", "f16 f16 f16", &[0x3c00, 0x3c00], 0x4000),
        // 2048 + 1 is a tie
        ("add.rn.f16", "f16 f16 f16", &[0x6800, 0x3c00], 0x6800),
        ("add.f16", "b16 b16 f16", &[0x6801, 0x3c00], 0x6802),
        ("sub.f16", "f16 f16 f16", &[0x3c00, 0x4000], 0xbc00),
        ("mul.f16", "f16 f16 f16", &[0x7bff, 0x4000], 0x7c00),
        ("mul.f16", "f16 f16 f16", &[0x0400, 0x3800], 0x0200),
        ("mul.ftz.f16", "f16 f16 f16", &[0x0400, 0x3800], 0),
        ("mul.f16", "f16 f16 f16", &[0x7c00, 0], HALF_NAN),
        ("add.sat.f16", "f16 f16 f16", &[0x3c00, 0x3c00], 0x3c00),
        // (1 + 2^-10)^2 - (1 + 2^-9) = 2^-20
        ("fma.rn.f16", "f16 f16 f16 f16", &[0x3c01, 0x3c01, 0xbc02], 0x0010),
        ("fma.rn.relu.f16", "f16 f16 f16 f16", &[0x3c00, 0xbc00, 0], 0),
        ("neg.f16", "f16 f16", &[0x3c00], 0xbc00),
        ("abs.f16", "f16 f16", &[0xbc00], 0x3c00),
        ("min.f16", "f16 f16 f16", &[0x3c00, 0xbc00], 0xbc00),
        ("max.f16", "f16 f16 f16", &[0x3c00, 0x7e00], 0x3c00),
        ("max.NaN.f16", "f16 f16 f16", &[0x3c00, 0x7e00], HALF_NAN),
    ]);
}

#[test]
fn a_sum_with_a_product_is_not_rounded_twice() {
    check(&[
        // (1 + 2^-10)^2 + (1 - 2^-10) = 2 + 2^-10 + 2^-20: the middle of 2 and 2 + 2^-9, and a little more
        ("fma.rn.f16", "f16 f16 f16 f16", &[0x3c01, 0x3c01, 0x3bfe], 0x4001),
    ]);
}

#[test]
fn upper_halves_of_binary32() {
    check(&[
        ("fma.rn.bf16", "b16 b16 b16 b16", &[0x3f80, 0x4000, 0x3f80], 0x4040),
        // 256 + 1 is a tie
        ("fma.rn.bf16", "b16 b16 b16 b16", &[0x4380, 0x3f80, 0x3f80], 0x4380),
        ("fma.rn.bf16", "b16 b16 b16 b16", &[0x4381, 0x3f80, 0x3f80], 0x4382),
        ("fma.rn.bf16", "b16 b16 b16 b16", &[0x7f7f, 0x4000, 0], 0x7f80),
        ("fma.rn.bf16", "b16 b16 b16 b16", &[0x7f80, 0, 0], HALF_NAN),
        ("neg.bf16", "b16 b16", &[0x3f80], 0xbf80),
        ("abs.bf16", "b16 b16", &[0xbf80], 0x3f80),
        ("max.bf16", "b16 b16 b16", &[0x3f80, 0x7fc0], 0x3f80),
        ("min.NaN.bf16", "b16 b16 b16", &[0x3f80, 0x7fc0], HALF_NAN),
    ]);
}

#[test]
fn pairs_are_two_of_them() {
    check(&[
        ("add.f16x2", "b32 b32 b32", &[0x3c00_4000, 0x4000_bc00], 0x4200_3c00),
        ("sub.f16x2", "f16x2 f16x2 f16x2", &[0x3c00_4000, 0x4000_bc00], 0xbc00_4200),
        ("mul.f16x2", "b32 b32 b32", &[0x3c00_4000, 0x4000_bc00], 0x4000_c000),
        ("fma.rn.f16x2", "b32 b32 b32 b32", &[0x3c00_4000, 0x4000_bc00, 0x3c00_3c00], 0x4200_bc00),
        ("fma.rn.bf16x2", "b32 b32 b32 b32", &[0x3f80_4000, 0x4000_bf80, 0x3f80_3f80], 0x4040_bf80),
        ("neg.f16x2", "b32 b32", &[0x3c00_c000], 0xbc00_4000),
        ("abs.bf16x2", "b32 b32", &[0xbf80_4000], 0x3f80_4000),
        ("max.bf16x2", "b32 b32 b32", &[0xbf80_4000, 0x3f80_3f80], 0x3f80_4000),
        ("min.f16x2", "b32 b32 b32", &[0xbc00_4000, 0x3c00_3c00], 0xbc00_3c00),
        ("add.rn.bf16x2 d, a, b // sm_90a\n", "b32 b32 b32", &[0x3f80_4000, 0x4000_bf80], 0x4040_3f80),
        ("mul.bf16x2 d, a, b // sm_90a\n", "b32 b32 b32", &[0x3f80_4000, 0x4000_bf80], 0x4000_c000),
    ]);
}
