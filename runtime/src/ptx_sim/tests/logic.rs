//! Bits.

use super::table::check;

#[test]
fn logic_is_bit_by_bit() {
    check(&[
        ("and.b32", "b32 b32 b32", &[0xff00_ff00, 0x0ff0_0ff0], 0x0f00_0f00),
        ("or.b32", "u32 u32 f32", &[0xff00_ff00, 0x0ff0_0ff0], 0xfff0_fff0),
        ("xor.b32", "b32 b32 b32", &[0xff00_ff00, 0x0ff0_0ff0], 0xf0f0_f0f0),
        ("not.b32", "b32 b32", &[0xff00_ff00], 0x00ff_00ff),
        ("cnot.b32", "b32 b32", &[0], 1),
        ("cnot.b32", "b32 b32", &[7], 0),
        ("and.b64", "b64 b64 b64", &[u64::MAX, 1 << 63], 1 << 63),
        ("not.b64", "b64 b64", &[0], u64::MAX),
        ("xor.b16", "b16 b16 b16", &[0xff00, 0x0ff0], 0xf0f0),
        ("not.b16", "b16 b16", &[0xff00], 0x00ff),
        ("and.pred", "pred pred pred", &[1, 0], 0),
        ("or.pred", "pred pred pred", &[1, 0], 1),
        ("xor.pred", "pred pred pred", &[1, 1], 0),
        ("not.pred", "pred pred", &[1], 0),
        ("and.pred d, a, !b", "pred pred pred", &[1, 0], 1),
        ("mov.pred d, !a", "pred pred", &[1], 0),
        ("mov.pred d, 0", "pred", &[], 0),
    ]);
}

#[test]
fn shifts_clamp() {
    check(&[
        ("shl.b32", "b32 b32 u32", &[0x8000_0001, 1], 2),
        ("shl.b32", "b32 b32 u32", &[1, 32], 0),
        ("shl.b32", "b32 b32 u32", &[1, 0xffff_ffff], 0),
        ("shr.u32", "u32 u32 u32", &[0x8000_0000, 31], 1),
        ("shr.u32", "u32 u32 u32", &[0x8000_0000, 32], 0),
        ("shr.s32", "s32 s32 u32", &[0x8000_0000, 31], 0xffff_ffff),
        ("shr.s32", "s32 s32 u32", &[0x8000_0000, 99], 0xffff_ffff),
        ("shr.s32", "s32 s32 u32", &[0x4000_0000, 99], 0),
        ("shr.b32", "b32 b32 u32", &[0x8000_0000, 4], 0x0800_0000),
        ("shl.b64", "b64 b64 u32", &[3, 63], 1 << 63),
        ("shl.b64", "b64 b64 u32", &[3, 64], 0),
        ("shr.s64", "s64 s64 u32", &[1 << 63, 70], u64::MAX),
        ("shr.u64", "u64 u64 u32", &[1 << 63, 63], 1),
        ("shl.b16", "b16 b16 u32", &[0x8001, 1], 2),
        ("shr.s16", "s16 s16 u32", &[0x8000, 20], 0xffff),
        ("shf.l.wrap.b32", "b32 b32 b32 u32", &[0x8000_0000, 0x1, 1], 3),
        ("shf.l.wrap.b32", "b32 b32 b32 u32", &[0x8000_0000, 0x1, 33], 3),
        ("shf.l.clamp.b32", "b32 b32 b32 u32", &[0x1234_5678, 0x1, 33], 0x1234_5678),
        ("shf.r.wrap.b32", "b32 b32 b32 u32", &[0x8000_0000, 0x1, 4], 0x1800_0000),
        ("shf.r.clamp.b32", "b32 b32 b32 u32", &[0x8000_0000, 0xabc, 40], 0xabc),
    ]);
}

#[test]
fn tables_of_three_bits() {
    check(&[
        // a ^ b ^ c
        ("lop3.b32 d, a, b, c, 0x96", "b32 b32 b32 b32", &[0xff, 0xf0f, 0x3333], 0xff ^ 0xf0f ^ 0x3333),
        // (a & b) | (~a & c)
        ("lop3.b32 d, a, b, c, 0xca", "b32 b32 b32 b32", &[0xff00, 0x1234, 0x5678], 0x1278),
        // a & ~b
        ("lop3.b32 d, a, b, c, 0x30", "b32 b32 b32 b32", &[0xff00, 0x1200, 0], 0xed00),
        ("lop3.b32 d, a, b, c, 0x80", "b32 b32 b32 b32", &[0xff, 0xf3, 0x1f], 0x13),
    ]);
}

#[test]
fn bytes_are_picked() {
    check(&[
        ("prmt.b32", "b32 b32 b32 b32", &[0x3322_1100, 0x7766_5544, 0x3210], 0x3322_1100),
        ("prmt.b32", "b32 b32 b32 b32", &[0x3322_1100, 0x7766_5544, 0x7531], 0x7755_3311),
        ("prmt.b32", "b32 b32 b32 b32", &[0x8022_1100, 0x7766_5544, 0xb88f], 0xff00_0000),
        ("prmt.b32 d, a, b, 0x5410", "b32 b32 b32", &[0xaaaa_1111, 0xbbbb_2222], 0x2222_1111),
        ("prmt.b32.f4e", "b32 b32 b32 b32", &[0x3322_1100, 0x7766_5544, 1], 0x4433_2211),
        ("prmt.b32.b4e", "b32 b32 b32 b32", &[0x3322_1100, 0x7766_5544, 1], 0x6677_0011),
        ("prmt.b32.rc8", "b32 b32 b32 b32", &[0x3322_1100, 0x7766_5544, 2], 0x2222_2222),
        ("prmt.b32.ecl", "b32 b32 b32 b32", &[0x3322_1100, 0x7766_5544, 1], 0x3322_1111),
        ("prmt.b32.ecr", "b32 b32 b32 b32", &[0x3322_1100, 0x7766_5544, 1], 0x1111_1100),
        ("prmt.b32.rc16", "b32 b32 b32 b32", &[0x3322_1100, 0x7766_5544, 1], 0x3322_3322),
    ]);
}

#[test]
fn fields_are_taken_and_put() {
    check(&[
        ("bfe.u32", "u32 u32 u32 u32", &[0x1234_5678, 8, 12], 0x456),
        ("bfe.s32", "s32 s32 u32 u32", &[0x1234_5678, 4, 8], 0x67),
        ("bfe.s32", "s32 s32 u32 u32", &[0x1234_5f78, 8, 4], 0xffff_ffff),
        ("bfe.s32", "s32 s32 u32 u32", &[0x8000_0000, 28, 8], 0xffff_fff8),
        ("bfe.s32", "s32 s32 u32 u32", &[0x8000_0000, 40, 8], 0xffff_ffff),
        ("bfe.u32", "u32 u32 u32 u32", &[0x8000_0000, 40, 8], 0),
        ("bfe.s32", "s32 s32 u32 u32", &[0xffff_ffff, 3, 0], 0),
        ("bfe.u32", "u32 u32 u32 u32", &[0xffff_ffff, 0, 32], 0xffff_ffff),
        ("bfe.u64", "u64 u64 u32 u32", &[0x1234_5678_9abc_def0, 32, 16], 0x5678),
        ("bfe.s64", "s64 s64 u32 u32", &[1 << 63, 60, 4], 0xffff_ffff_ffff_fff8),
        ("bfi.b32", "b32 b32 b32 u32 u32", &[0xab, 0x1111_1111, 8, 8], 0x1111_ab11),
        ("bfi.b32", "b32 b32 b32 u32 u32", &[0xfff, 0, 28, 8], 0xf000_0000),
        ("bfi.b32", "b32 b32 b32 u32 u32", &[0xfff, 0x1234, 32, 8], 0x1234),
        ("bfi.b32", "b32 b32 b32 u32 u32", &[0xfff, 0x1234, 4, 0], 0x1234),
        ("bfi.b64", "b64 b64 b64 u32 u32", &[0xff, 0, 32, 4], 0xf_0000_0000),
    ]);
}

#[test]
fn bits_are_counted() {
    check(&[
        ("popc.b32", "u32 b32", &[0xf0f0_0001], 9),
        ("popc.b64", "u32 b64", &[u64::MAX], 64),
        ("clz.b32", "u32 b32", &[1], 31),
        ("clz.b32", "u32 b32", &[0], 32),
        ("clz.b64", "u32 b64", &[1], 63),
        ("brev.b32", "b32 b32", &[1], 0x8000_0000),
        ("brev.b64", "b64 b64", &[6], 0x6000_0000_0000_0000),
        ("bfind.u32", "u32 u32", &[0x10], 4),
        ("bfind.u32", "u32 u32", &[0], 0xffff_ffff),
        ("bfind.s32", "u32 s32", &[0xffff_ffef], 4),
        ("bfind.s32", "u32 s32", &[0xffff_ffff], 0xffff_ffff),
        ("bfind.u64", "u32 u64", &[1 << 40], 40),
        ("bfind.shiftamt.u32", "u32 u32", &[0x10], 27),
        ("bfind.shiftamt.s64", "u32 s64", &[u64::MAX << 40], 24),
    ]);
}

#[test]
fn words_are_taken_apart() {
    check(&[
        ("mov.b32 d, {a, b}", "b32 b16 b16", &[0x1234, 0xabcd], 0xabcd_1234),
        ("mov.b64 d, {a, b}", "b64 b32 f32", &[0x1234, 0xabcd], 0xabcd_0000_1234),
        ("mov.b64 d, {a, b, a, 9}", "b64 b16 b16", &[0x1234, 0xabcd], 0x0009_1234_abcd_1234),
        ("mov.b64 {_, d}, a", "b32 b64", &[0xabcd_0000_1234], 0xabcd),
        ("mov.b32 {d, _}, a", "b16 b32", &[0xabcd_1234], 0x1234),
        ("mov.b32 {_, d}, a", "f16 b32", &[0xabcd_1234], 0xabcd),
        ("mov.f32", "f32 f32", &[0x7fc0_1234], 0x7fc0_1234),
        ("mov.u64", "u64 u64", &[u64::MAX - 1], u64::MAX - 1),
        ("mov.u32 d, -2", "u32", &[], 0xffff_fffe),
        ("mov.u16 d, -1", "u16", &[], 0xffff),
        ("mov.f32 d, 1.5", "f32", &[], 0x3fc0_0000),
        ("mov.f32 d, 0f80000000", "f32", &[], 0x8000_0000),
        ("mov.f64 d, 0d3ff8000000000000", "f64", &[], 0x3ff8_0000_0000_0000),
        ("mov.b32 d, 0f3f800000", "b32", &[], 0x3f80_0000),
        ("mov.u32 d, 0x10", "u32", &[], 16),
        ("mov.u32 d, 010", "u32", &[], 8),
        ("mov.u32 d, 0b101", "u32", &[], 5),
        ("mov.u32 d, 7U", "u32", &[], 7),
        ("mov.u32 d, WARP_SZ", "u32", &[], 32),
    ]);
}
