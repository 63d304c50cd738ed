use half::{bf16, f16};

use super::{Kind, Register, mma_f16, mma_f32};

/// Small odd numbers, exact in every type, none alike in neighbouring places.
fn value(seed: usize, row: usize, column: usize) -> f32 {
    let mixed = (row * 31 + column * 17 + seed * 7) % 23;
    f32::from(i16::try_from(mixed).unwrap()) - 11.0
}

fn encode(kind: Kind, value: f32) -> u32 {
    match kind {
        Kind::F16 => u32::from(f16::from_f32(value).to_bits()),
        Kind::Bf16 => u32::from(bf16::from_f32(value).to_bits()),
        Kind::Tf32 => value.to_bits(),
    }
}

/// Fragments by the formulas of the ISA, written out for each register as it does: `a0..a7`, `b0..b3`.
fn fragments(
    kind: Kind,
    k: usize,
    element: impl Fn(char, usize, usize) -> u32,
) -> (Vec<Register>, Vec<Register>) {
    let per_register = if kind == Kind::Tf32 { 1 } else { 2 };
    let (mut a, mut b) =
        (vec![[0; 32]; 16 * k / 32 / per_register], vec![[0; 32]; 8 * k / 32 / per_register]);
    for lane in 0..32 {
        let (group, thread) = (lane >> 2, lane % 4);
        for i in 0..16 * k / 32 {
            let (row, column) = match (kind, k) {
                // row = groupID for a0, a2; groupID + 8 for a1, a3; col = tid, + 4 for a2, a3
                (Kind::Tf32, _) => {
                    (if i % 2 == 0 { group } else { group + 8 }, if i < 2 { thread } else { thread + 4 })
                }
                // row = groupID for a0, a1; groupID + 8 for a2, a3; col = tid * 2 + (i & 1)
                (_, 8) => (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1)),
                // row = groupID for 0 <= i < 2 or 4 <= i < 6; col = tid * 2 + (i & 1), + 8 for i >= 4
                _ => (
                    if i < 2 || (4..6).contains(&i) { group } else { group + 8 },
                    thread * 2 + (i & 1) + if i >= 4 { 8 } else { 0 },
                ),
            };
            a[i / per_register][lane] |= element('a', row, column) << (16 * (i % per_register));
        }
        for i in 0..8 * k / 32 {
            let row = match (kind, k) {
                (Kind::Tf32, _) => thread + 4 * i,
                (_, 8) => thread * 2 + i,
                _ => {
                    if i < 2 {
                        thread * 2 + (i & 1)
                    } else {
                        thread * 2 + (i & 1) + 8
                    }
                }
            };
            b[i / per_register][lane] |= element('b', row, group) << (16 * (i % per_register));
        }
    }
    (a, b)
}

fn check(kind: Kind, k: usize) {
    let (a, b) = fragments(kind, k, |which, row, column| {
        encode(kind, value(if which == 'a' { 1 } else { 2 }, row, column))
    });
    let place =
        |i: usize, lane: usize| (if i < 2 { lane >> 2 } else { (lane >> 2) + 8 }, (lane % 4) * 2 + (i & 1));
    let c: [Register; 4] = std::array::from_fn(|i| {
        std::array::from_fn(|lane| {
            let (row, column) = place(i, lane);
            value(3, row, column).to_bits()
        })
    });
    let d = mma_f32(kind, &a, &b, &c);
    for (i, register) in d.iter().enumerate() {
        for (lane, bits) in register.iter().enumerate() {
            let (row, column) = place(i, lane);
            let want: f32 =
                (0..k).map(|j| value(1, row, j) * value(2, j, column)).sum::<f32>() + value(3, row, column);
            assert_eq!(f32::from_bits(*bits), want, "{kind:?} k {k} row {row} column {column}");
        }
    }
}

#[test]
fn every_shape_is_a_plain_product() {
    for (kind, k) in
        [(Kind::F16, 8), (Kind::F16, 16), (Kind::Bf16, 8), (Kind::Bf16, 16), (Kind::Tf32, 4), (Kind::Tf32, 8)]
    {
        check(kind, k);
    }
}

#[test]
fn one_element_of_each_operand_meets_in_one_place() {
    // A[9][13]: lane 4 * (9 - 8) + 2 = 6, register 3 (lower row, upper half of k), high half.
    // B[13][5]: lane 4 * 5 + 2 = 22, register 1, high half. D[9][5]: lane 4 * 1 + 2 = 6, register 3.
    let (mut a, mut b) = ([[0; 32]; 4], [[0; 32]; 2]);
    a[3][6] = encode(Kind::F16, 3.0) << 16;
    b[1][22] = encode(Kind::F16, 0.5) << 16;
    let d = mma_f32(Kind::F16, &a, &b, &[[0; 32]; 4]);
    for (i, register) in d.iter().enumerate() {
        for (lane, bits) in register.iter().enumerate() {
            let want = if (i, lane) == (3, 6) { 1.5 } else { 0.0 };
            assert_eq!(f32::from_bits(*bits), want, "register {i} lane {lane}");
        }
    }
}

#[test]
fn half_accumulators_hold_two_columns_and_round_once() {
    let (a, b) = fragments(Kind::F16, 16, |which, row, column| {
        encode(Kind::F16, value(if which == 'a' { 4 } else { 5 }, row, column) / 3.0)
    });
    let c: [Register; 2] =
        std::array::from_fn(|i| std::array::from_fn(|lane| 0x3c00 + u32::try_from(lane + i).unwrap()));
    let d = mma_f16(&a, &b, &c);
    let third = |seed, row, column| f16::from_f32(value(seed, row, column) / 3.0).to_f64();
    for (i, register) in d.iter().enumerate() {
        for (lane, bits) in register.iter().enumerate() {
            for half in 0..2 {
                let (row, column) = ((lane >> 2) + 8 * i, (lane % 4) * 2 + half);
                let before =
                    f16::from_bits(u16::try_from(c[i][lane] >> (16 * half) & 0xffff).unwrap()).to_f64();
                let sum: f64 = (0..16).map(|j| third(4, row, j) * third(5, j, column)).sum();
                let got = f16::from_bits(u16::try_from(bits >> (16 * half) & 0xffff).unwrap());
                assert_eq!(got, f16::from_f64(before + sum), "row {row} column {column}");
            }
        }
    }
}

#[test]
fn tf32_ignores_the_low_bits_of_unconverted_operands() {
    let (a, b) = fragments(Kind::Tf32, 8, |_, _, _| 1f32.to_bits() | 0x1fff);
    let d = mma_f32(Kind::Tf32, &a, &b, &[[0; 32]; 4]);
    assert!(d.iter().flatten().all(|bits| f32::from_bits(*bits) == 8.0));
}

#[test]
fn small_terms_survive_beside_large_ones_and_nan_has_one_form() {
    // 2^15 * 2^15 - 2^15 * 2^15 + 2^-20: a sum in f32 in this order keeps it too, one that rounds to half would not
    let (a, b) = fragments(Kind::F16, 8, |which, _, column_or_row| {
        let k = column_or_row;
        match which {
            'a' => encode(Kind::F16, [32768.0, -32768.0, 2f32.powi(-10), 0.0, 0.0, 0.0, 0.0, 0.0][k]),
            _ => 0,
        }
    });
    let mut b = b;
    for (lane, bits) in b[0].iter_mut().enumerate() {
        // row 2 t in the low half, 2 t + 1 in the high
        *bits = match lane % 4 {
            0 => encode(Kind::F16, 32768.0) | encode(Kind::F16, 32768.0) << 16,
            1 => encode(Kind::F16, 2f32.powi(-10)),
            _ => 0,
        };
    }
    let d = mma_f32(Kind::F16, &a, &b, &[[0; 32]; 4]);
    assert!(d.iter().flatten().all(|bits| f32::from_bits(*bits) == 2f32.powi(-20)));
    let d = mma_f32(Kind::F16, &a, &b, &[[f32::NAN.to_bits() | 0x8000_0001; 32]; 4]);
    assert!(d.iter().flatten().all(|bits| *bits == 0x7fff_ffff));
}
