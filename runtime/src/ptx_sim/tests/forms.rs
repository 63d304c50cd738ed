//! Forms of instructions that kernels have and no other program: predicates combined, global and shared accesses by
//! width, products of fragments.

use super::by_thread;
use super::sm_90a::harness::Run;
use super::table::{NAN, check, f};
use half::bf16;

#[test]
fn comparisons_combined_with_a_predicate() {
    let (one, two) = (f(1.0), f(2.0));
    check(&[
        ("setp.eq.and.f32", "pred f32 f32 pred", &[one, one, 1], 1),
        ("setp.eq.and.f32", "pred f32 f32 pred", &[NAN, NAN, 1], 0),
        ("setp.gt.and.f32", "pred f32 f32 pred", &[two, one, 1], 1),
        ("setp.gt.and.f32", "pred f32 f32 pred", &[two, one, 0], 0),
        ("setp.gt.or.f32", "pred f32 f32 pred", &[one, two, 0], 0),
        ("setp.gt.or.f32", "pred f32 f32 pred", &[NAN, two, 1], 1),
        ("setp.lt.and.f32", "pred f32 f32 pred", &[one, two, 1], 1),
        ("setp.lt.and.f32", "pred f32 f32 pred", &[one, NAN, 1], 0),
        ("setp.lt.or.f32", "pred f32 f32 pred", &[two, one, 0], 0),
        ("setp.lt.or.f32", "pred f32 f32 pred", &[two, one, 1], 1),
        ("setp.nan.or.f32", "pred f32 f32 pred", &[NAN, one, 0], 1),
        ("setp.nan.or.f32", "pred f32 f32 pred", &[two, one, 0], 0),
        ("setp.nan.and.f32", "pred f32 f32 pred", &[one, NAN, 1], 1),
        ("setp.nan.and.f32", "pred f32 f32 pred", &[one, NAN, 0], 0),
        ("setp.neu.and.f32", "pred f32 f32 pred", &[NAN, NAN, 1], 1),
        ("setp.neu.and.f32", "pred f32 f32 pred", &[one, one, 1], 0),
        ("setp.eq.and.u32", "pred u32 u32 pred", &[5, 5, 1], 1),
        ("setp.eq.and.u32", "pred u32 u32 pred", &[5, 5, 0], 0),
        ("setp.ge.and.u32", "pred u32 u32 pred", &[0xffff_ffff, 1, 1], 1),
        ("setp.ge.and.u32", "pred u32 u32 pred", &[4, 5, 1], 0),
        ("setp.ge.or.u32", "pred u32 u32 pred", &[4, 5, 0], 0),
        ("setp.ge.or.u32", "pred u32 u32 pred", &[5, 5, 0], 1),
        ("setp.le.or.u32", "pred u32 u32 pred", &[0xffff_ffff, 1, 0], 0),
        ("setp.le.or.u32", "pred u32 u32 pred", &[6, 5, 1], 1),
        ("setp.ne.and.u32", "pred u32 u32 pred", &[5, 6, 1], 1),
        ("setp.ne.and.u32", "pred u32 u32 pred", &[5, 5, 1], 0),
    ]);
}

#[test]
fn comparisons_and_arithmetic_by_type() {
    check(&[
        ("setp.ge.f32", "pred f32 f32", &[f(2.0), f(2.0)], 1),
        ("setp.ge.f32", "pred f32 f32", &[f(2.0), NAN], 0),
        ("setp.eq.u64", "pred u64 u64", &[1 << 40, 1 << 40], 1),
        ("setp.eq.u64", "pred u64 u64", &[1 << 40, 0], 0),
        ("setp.ne.u64", "pred u64 u64", &[1 << 40, 0], 1),
        ("setp.ne.u64", "pred u64 u64", &[7, 7], 0),
        ("setp.ge.u64", "pred u64 u64", &[1 << 63, 1], 1),
        ("setp.ge.u64", "pred u64 u64", &[1 << 32, 1 << 33], 0),
        ("setp.gt.u64", "pred u64 u64", &[1 << 63, 1], 1),
        ("setp.gt.u64", "pred u64 u64", &[1 << 40, 1 << 40], 0),
        ("selp.b32", "b32 b32 b32 pred", &[5, 6, 1], 5),
        ("selp.b32", "b32 b32 b32 pred", &[5, 6, 0], 6),
        ("selp.u64", "u64 u64 u64 pred", &[1 << 50, 6, 1], 1 << 50),
        ("selp.u64", "u64 u64 u64 pred", &[1 << 50, 6, 0], 6),
        ("max.NaN.f32", "f32 f32 f32", &[f(1.0), f(2.0)], f(2.0)),
        ("max.NaN.f32", "f32 f32 f32", &[NAN, f(2.0)], NAN),
        ("mul.rn.f32", "f32 f32 f32", &[f(3.0), f(0.5)], f(1.5)),
        // 1 + 2^-23 squared is 1 + 2^-22 + 2^-46, whose last bit falls away
        ("mul.rn.f32", "f32 f32 f32", &[0x3f80_0001, 0x3f80_0001], 0x3f80_0002),
        ("sub.rn.f32", "f32 f32 f32", &[f(1.0), f(0.25)], f(0.75)),
        // 2^-25 below 1 lies half way to the next, and 1 is even
        ("sub.rn.f32", "f32 f32 f32", &[f(1.0), 0x3300_0000], f(1.0)),
    ]);
}

/// One thread reads `x` by every width and writes what it read.
const ACCESSES: &str = "
.version 7.0
.target sm_80
.address_size 64
.visible .entry accesses(.param .u64 x, .param .u64 y, .param .align 4 .b8 params[16])
.reqntid 1
{
    .reg .b16 h<3>; .reg .b32 w<16>; .reg .f32 f<6>; .reg .u64 x_ptr, y_ptr, long;
    .shared .align 16 .b8 room[32];
    ld.param.u64 x_ptr, [x]; ld.param.u64 y_ptr, [y]; ld.param.f32 f0, [params + 4];
    ld.global.b16 h0, [x_ptr]; ld.global.nc.b16 h1, [x_ptr + 6]; ld.global.nc.u16 h2, [x_ptr + 10];
    ld.global.nc.b32 w0, [x_ptr + 8]; ld.global.nc.f32 f1, [x_ptr + 12]; ld.global.nc.u32 w1, [x_ptr + 16];
    ld.global.nc.v2.u32 {w2, w3}, [x_ptr + 24]; ld.global.v2.b32 {w4, w5}, [x_ptr + 32];
    ld.global.nc.v4.b32 {w6, w7, w8, w9}, [x_ptr + 48];
    ld.global.nc.v4.f32 {f2, f3, f4, f5}, [x_ptr + 64];
    ld.global.nc.v4.u32 {w10, w11, w12, w13}, [x_ptr + 80];
    st.shared.b16 [room], h0; st.shared.b16 [room + 2], h1; ld.shared.b32 w14, [room];
    mov.b64 long, {w2, w3}; st.shared.u64 [room + 8], long;
    st.shared.v2.f32 [room + 16], {f2, f3}; st.shared.v2.u32 [room + 24], {w10, w11};
    st.global.b16 [y_ptr], h1; st.global.b16 [y_ptr + 2], h0; st.global.b32 [y_ptr + 4], w14;
    st.global.v2.b32 [y_ptr + 8], {w0, w1}; st.global.v2.u32 [y_ptr + 16], {w5, w4};
    ld.shared.b32 w2, [room + 8]; ld.shared.b32 w3, [room + 12];
    st.global.cs.v2.b32 [y_ptr + 24], {w2, w3};
    ld.shared.b32 w2, [room + 16]; ld.shared.b32 w3, [room + 20];
    ld.shared.b32 w14, [room + 24]; ld.shared.b32 w15, [room + 28];
    st.global.cs.v4.f32 [y_ptr + 32], {f0, f1, f4, f5};
    st.global.v4.b32 [y_ptr + 48], {w2, w3, w14, w15};
    st.global.v4.b32 [y_ptr + 64], {w6, w7, w8, w9}; st.global.v2.b32 [y_ptr + 80], {w12, w13};
    st.global.b16 [y_ptr + 88], h2; st.global.b16 [y_ptr + 90], h0;
    ret;
}
";

#[test]
fn accesses_by_width() {
    // word i holds 0x0101 (2 i + 2) above 0x0101 (2 i + 1): a different half-word everywhere
    let word = |i: u32| 0x0101_0101 * (2 * i + 1) + 0x0101_0000;
    let x: Vec<u8> = (0..24).flat_map(|i| word(i).to_le_bytes()).collect();
    let run = Run::new(ACCESSES, "accesses").read("x", x).write("y", 92).params(&[7, 8, 9, 10]);
    let y = run.run().unwrap().buffers.swap_remove(1);
    let got: Vec<u32> = y.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    let (low, high) = (word(0) & 0xffff, word(1) >> 16);
    let halves = [low << 16 | high, high << 16 | low];
    let words = [2, 4, 9, 8, 6, 7].map(word);
    let singles = [8, word(3), word(18), word(19)];
    let rest = [16, 17, 20, 21, 12, 13, 14, 15, 22, 23].map(word);
    let last = [low << 16 | word(2) >> 16];
    assert_eq!(got, [&halves[..], &words, &singles, &rest, &last].concat());
}

/// Two words, a long one and two numbers, read at once and written again.
const PAIRS: &str = "
.version 7.0
.target sm_80
.address_size 64
.visible .entry pairs(.param .u64 x, .param .u64 y)
.reqntid 1
{
    .reg .b32 w<4>; .reg .f32 f<2>; .reg .u64 x_ptr, y_ptr, long;
    .shared .align 16 .b8 room[16];
    ld.param.u64 x_ptr, [x]; ld.param.u64 y_ptr, [y];
    ld.global.nc.v2.b32 {w0, w1}, [x_ptr + 8]; ld.global.u64 long, [x_ptr];
    st.shared.u64 [room], long; ld.shared.b32 w2, [room + 4]; ld.shared.b32 w3, [room];
    st.global.v2.b32 [y_ptr], {w1, w0}; st.global.v2.b32 [y_ptr + 8], {w2, w3};
    st.shared.b32 [room + 8], w0; st.shared.b32 [room + 12], w1;
    ld.shared.v2.f32 {f0, f1}, [room + 8];
    st.global.v2.f32 [y_ptr + 16], {f0, f1};
    ret;
}
";

#[test]
fn accesses_by_pairs() {
    let x: [u32; 4] = [3, 5, 1.5_f32.to_bits(), (-2.0_f32).to_bits()];
    let run =
        Run::new(PAIRS, "pairs").read("x", x.iter().flat_map(|w| w.to_le_bytes()).collect()).write("y", 24);
    let y = run.run().unwrap().buffers.swap_remove(1);
    let got: Vec<u32> = y.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    assert_eq!(got, [x[3], x[2], x[1], x[0], x[2], x[3]]);
}

/// The product of a matrix whose rows are 1, 2 ... 16 throughout and one whose columns are 1, 2 ... 8: the fragment of lane l
/// has rows l / 4 and l / 4 + 8, columns 2 (l % 4) and one more.
fn products(instruction: &str, depth: u32, element: impl Fn(u32) -> u32) {
    for at in 0..4 {
        let mut body = String::from(
            ".reg .b32 upper, lower, column, fragment; .reg .f32 d0, d1, d2, d3, none; .reg .pred p;
            mov.f32 none, 0f3F800000; shr.u32 fragment, tid, 2;\n",
        );
        for i in 0..8 {
            let [upper, lower] = [i + 1, i + 9].map(&element);
            body += &format!(
                "setp.eq.u32 p, fragment, {i}; @p mov.b32 upper, {upper}; @p mov.b32 lower, {lower}; @p mov.b32 column, {upper};\n"
            );
        }
        body += &format!(
            "{instruction} {{d0, d1, d2, d3}}, {{upper, lower, upper, lower}}, {{column, column}}, {{none, none, none, none}};
            mov.b32 result, d{at};"
        );
        let got = by_thread(32, &body).unwrap();
        for (lane, got) in (0..).zip(got) {
            let (row, column) = (lane / 4 + 8 * (at / 2) + 1, 2 * (lane % 4) + at % 2 + 1);
            let want = 1 + depth * row * column;
            assert_eq!(f32::from_bits(got), want as f32, "{instruction}: element {at} of lane {lane}");
        }
    }
}

#[test]
fn fragments_are_multiplied() {
    let single = |n: u32| (n as f32).to_bits();
    products("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", 8, single);
    // what tf32 has no room for counts for nothing
    products("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", 8, |n| single(n) | 0x1fff);
    let pair = |n: u32| u32::from(bf16::from_f32(n as f32).to_bits()) * 0x1_0001;
    products("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", 16, pair);
}
