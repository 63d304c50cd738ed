//! Conversions.

use super::table::{HALF_NAN, NAN, check, f, g};

#[test]
fn whole_numbers_grow_and_shrink() {
    check(&[
        ("cvt.u64.u32", "u64 u32", &[0xffff_ffff], 0xffff_ffff),
        ("cvt.s64.s32", "s64 s32", &[0xffff_ffff], u64::MAX),
        ("cvt.u64.s32", "u64 s32", &[0xffff_ffff], u64::MAX),
        ("cvt.u32.u64", "u32 u64", &[0x1_2345_6789], 0x2345_6789),
        ("cvt.u32.u16", "u32 u16", &[0xffff], 0xffff),
        ("cvt.s32.s16", "s32 s16", &[0xffff], 0xffff_ffff),
        ("cvt.u16.u32", "u16 u32", &[0x1_ffff], 0xffff),
        // in a wider register the sign, or zeros, go on
        ("cvt.s16.s32", "s32 s32", &[0x8000], 0xffff_8000),
        ("cvt.u16.u32", "u32 u32", &[0xffff_8000], 0x8000),
        ("cvt.u8.u32", "u32 u32", &[0x1ff], 0xff),
        ("cvt.s8.s32", "s32 s32", &[0x80], 0xffff_ff80),
        ("cvt.s32.s8", "s32 s32", &[0x180], 0xffff_ff80),
        ("cvt.u32.u8", "u32 u32", &[0x180], 0x80),
        ("cvt.u64.u8", "u64 u16", &[0x180], 0x80),
        ("cvt.sat.u8.s32", "u32 s32", &[0xffff_ffff], 0),
        ("cvt.sat.u8.s32", "u32 s32", &[300], 255),
        ("cvt.sat.s32.u32", "s32 u32", &[0xffff_ffff], 0x7fff_ffff),
        ("cvt.sat.s16.s32", "s32 s32", &[0xffff_0000], 0xffff_8000),
    ]);
}

#[test]
fn whole_numbers_become_floats() {
    check(&[
        ("cvt.rn.f32.u32", "f32 u32", &[0xffff_ffff], f(4_294_967_296.0)),
        ("cvt.rz.f32.u32", "f32 u32", &[0xffff_ffff], f(4_294_967_040.0)),
        ("cvt.rn.f32.s32", "f32 s32", &[0xffff_ffff], f(-1.0)),
        // 2^24 + 1 is a tie
        ("cvt.rn.f32.u32", "f32 u32", &[0x100_0001], f(16_777_216.0)),
        ("cvt.rp.f32.u32", "f32 u32", &[0x100_0001], f(16_777_218.0)),
        ("cvt.rm.f32.s32", "f32 s32", &[0xfeff_ffff], f(-16_777_218.0)),
        // 2^40 + 2^16 is a tie, 2^40 + 2^16 + 1 is not: 53 bits of it first would lose the last one
        ("cvt.rn.f32.u64", "f32 u64", &[0x8000_0080_0000_0001], 0x5f00_0001),
        ("cvt.rn.f32.u64", "f32 u64", &[0x8000_0080_0000_0000], 0x5f00_0000),
        ("cvt.rn.f32.s64", "f32 s64", &[u64::MAX], f(-1.0)),
        ("cvt.rn.f64.u32", "f64 u32", &[0xffff_ffff], g(4_294_967_295.0)),
        ("cvt.rn.f64.s64", "f64 s64", &[u64::MAX], g(-1.0)),
        ("cvt.rz.f64.u64", "f64 u64", &[u64::MAX], 0x43ef_ffff_ffff_ffff),
        ("cvt.rn.f16.u32", "f16 u32", &[2049], 0x6800),
        ("cvt.rn.f16.s32", "f16 s32", &[0xffff_ffff], 0xbc00),
        ("cvt.rn.f16.u32", "f16 u32", &[70_000], 0x7c00),
        ("cvt.rn.f32.u16", "f32 u16", &[0xffff], f(65535.0)),
        ("cvt.rn.f32.s8", "f32 s32", &[0xff], f(-1.0)),
    ]);
}

#[test]
fn floats_become_whole_numbers() {
    check(&[
        ("cvt.rzi.s32.f32", "s32 f32", &[f(-1.9)], 0xffff_ffff),
        ("cvt.rni.s32.f32", "s32 f32", &[f(2.5)], 2),
        ("cvt.rni.s32.f32", "s32 f32", &[f(3.5)], 4),
        ("cvt.rmi.s32.f32", "s32 f32", &[f(-1.1)], 0xffff_fffe),
        ("cvt.rpi.s32.f32", "s32 f32", &[f(1.1)], 2),
        ("cvt.rzi.u32.f32", "u32 f32", &[f(-1.0)], 0),
        ("cvt.rzi.s32.f32", "s32 f32", &[f(3e9)], 0x7fff_ffff),
        ("cvt.rzi.s32.f32", "s32 f32", &[f(f32::NEG_INFINITY)], 0x8000_0000),
        ("cvt.rzi.u32.f32", "u32 f32", &[f(f32::INFINITY)], 0xffff_ffff),
        ("cvt.rzi.s32.f32", "s32 f32", &[NAN], 0),
        ("cvt.rzi.s64.f32", "s64 f32", &[NAN], 1 << 63),
        ("cvt.rzi.s32.f64", "s32 f64", &[g(f64::NAN)], 0x8000_0000),
        ("cvt.rzi.u64.f64", "u64 f64", &[g(1e19)], 10_000_000_000_000_000_000),
        ("cvt.rzi.u64.f32", "u64 f32", &[f(1e20)], u64::MAX),
        ("cvt.rpi.ftz.u32.f32", "u32 f32", &[1], 0),
        ("cvt.rpi.u32.f32", "u32 f32", &[1], 1),
        ("cvt.rzi.u8.f32", "u32 f32", &[f(300.0)], 255),
        ("cvt.rzi.s32.f16", "s32 f16", &[0xc100], 0xffff_fffe),
        ("cvt.rni.f32.f32", "f32 f32", &[f(-2.5)], f(-2.0)),
        ("cvt.rzi.f32.f32", "f32 f32", &[f(-2.5)], f(-2.0)),
        ("cvt.rmi.f32.f32", "f32 f32", &[f(-0.5)], f(-1.0)),
        ("cvt.rpi.f32.f32", "f32 f32", &[f(-0.5)], f(-0.0)),
        ("cvt.rni.f64.f64", "f64 f64", &[g(0.5)], g(0.0)),
    ]);
}

#[test]
fn floats_become_other_floats() {
    check(&[
        ("cvt.f64.f32", "f64 f32", &[f(1.5)], g(1.5)),
        ("cvt.rn.f32.f64", "f32 f64", &[g(1e300)], f(f32::INFINITY)),
        ("cvt.rz.f32.f64", "f32 f64", &[g(1e300)], f(f32::MAX)),
        ("cvt.rp.f32.f64", "f32 f64", &[g(1e-300)], 1),
        ("cvt.rm.f32.f64", "f32 f64", &[g(-1e-300)], 0x8000_0001),
        ("cvt.rn.f32.f64", "f32 f64", &[g(f64::NAN)], NAN),
        ("cvt.f32.f16", "f32 f16", &[0x0001], f(5.960_464_5e-8)),
        ("cvt.f32.f16", "f32 b16", &[0xfc00], f(f32::NEG_INFINITY)),
        ("cvt.f32.f16", "f32 f16", &[0x7e01], NAN),
        ("cvt.f32.bf16", "f32 b16", &[0x3fc0], f(1.5)),
        ("cvt.rn.f16.f32", "f16 f32", &[f(65519.0)], 0x7bff),
        ("cvt.rn.f16.f32", "f16 f32", &[f(65520.0)], 0x7c00),
        ("cvt.rz.f16.f32", "f16 f32", &[f(1e9)], 0x7bff),
        ("cvt.rn.f16.f32", "b16 f32", &[NAN], HALF_NAN),
        // 1 + 2^-11 is a tie, a little more is not
        ("cvt.rn.f16.f32", "f16 f32", &[0x3f80_1000], 0x3c00),
        ("cvt.rn.f16.f32", "f16 f32", &[0x3f80_1001], 0x3c01),
        ("cvt.rn.f16.f32", "f16 f32", &[0x3f80_3000], 0x3c02),
        // 2^-25 is a tie of 0 and the smallest number
        ("cvt.rn.f16.f32", "f16 f32", &[0x3300_0000], 0),
        ("cvt.rn.f16.f32", "f16 f32", &[0x3300_0001], 1),
        ("cvt.rn.f16.f64", "f16 f64", &[g(1.0 + 0.000_488_281_25 + 1e-12)], 0x3c01),
        ("cvt.rn.bf16.f32", "b16 f32", &[0x3f80_8000], 0x3f80),
        ("cvt.rn.bf16.f32", "b16 f32", &[0x3f80_8001], 0x3f81),
        ("cvt.rn.bf16.f32", "b16 f32", &[0x3f81_8000], 0x3f82),
        ("cvt.rn.bf16.f32", "b16 f32", &[0x7f7f_ffff], 0x7f80),
        ("cvt.rz.bf16.f32", "b16 f32", &[0x3f80_ffff], 0x3f80),
        ("cvt.rn.bf16.f32", "b16 f32", &[0xffc0_0001], HALF_NAN),
        ("cvt.rn.relu.f16.f32", "b16 f32", &[f(-2.0)], 0),
        ("cvt.rn.sat.f16.f32", "b16 f32", &[f(2.0)], 0x3c00),
        ("cvt.sat.f32.f32", "f32 f32", &[f(-2.0)], 0),
        ("cvt.sat.f32.f32", "f32 f32", &[NAN], 0),
        ("cvt.ftz.f32.f32", "f32 f32", &[0x8000_0001], 0x8000_0000),
        ("cvt.ftz.f32.f16", "f32 f16", &[0x0001], f(5.960_464_5e-8)),
    ]);
}

#[test]
fn pairs_and_matrix_operands() {
    check(&[
        ("cvt.rn.f16x2.f32", "b32 f32 f32", &[f(1.0), f(-2.0)], 0x3c00_c000),
        ("cvt.rn.bf16x2.f32", "b32 f32 f32", &[f(1.0), f(-2.0)], 0x3f80_c000),
        ("cvt.rz.f16x2.f32", "b32 f32 f32", &[0x3f80_3fff, f(1e9)], 0x3c01_7bff),
        ("cvt.rn.relu.f16x2.f32", "b32 f32 f32", &[f(1.0), f(-2.0)], 0x3c00_0000),
        ("cvt.rz.relu.bf16x2.f32", "b32 f32 f32", &[f(-1.0), 0x3f80_ffff], 0x3f80),
        ("cvt.rna.tf32.f32", "b32 f32", &[0x3f80_0fff], 0x3f80_0000),
        ("cvt.rna.tf32.f32", "b32 f32", &[0x3f80_1000], 0x3f80_2000),
        ("cvt.rna.tf32.f32", "b32 f32", &[0xbf80_1000], 0xbf80_2000),
    ]);
}
