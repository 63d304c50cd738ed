//! Bits: logic, shifts, fields, permutations, counts.

use super::lanes::{binary, ternary, unary};
use super::registers::Registers;
use crate::ptx_sim::parse::{Meaning, Type};
use crate::ptx_sim::program::{Cursor, Decoded, Op};

/// Decodes an instruction on bits.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    match s.base {
        "and" | "or" | "xor" | "not" | "cnot" => logic(s),
        "shl" | "shr" => shift(s),
        "shf" => funnel(s),
        "lop3" => lop3(s),
        "prmt" => permute(s),
        "bfe" | "bfi" => field(s),
        _ => count(s),
    }
}

fn logic(s: &mut Cursor<'_, '_>) -> Decoded {
    let ty = s.ty()?;
    if ty.meaning == Meaning::Predicate {
        return predicates(s);
    }
    if ty.meaning != Meaning::Bits || ty.bits < 16 {
        return s.unknown();
    }
    let unary_op = matches!(s.base, "not" | "cnot");
    s.expect(if unary_op { 2 } else { 3 })?;
    let (d, a) = (s.dst(0, ty)?, s.src(1, ty)?);
    let b = if unary_op { a } else { s.src(2, ty)? };
    macro_rules! by_width {
        ($ty:ty) => {
            match s.base {
                "and" => binary(d, a, b, |a: $ty, b: $ty| a & b),
                "or" => binary(d, a, b, |a: $ty, b: $ty| a | b),
                "xor" => binary(d, a, b, |a: $ty, b: $ty| a ^ b),
                "not" => unary(d, a, |a: $ty| !a),
                _ => unary(d, a, |a: $ty| <$ty>::from(a == 0)),
            }
        };
    }
    Ok(Op::Lanes(match ty.bits {
        16 => by_width!(u16),
        32 => by_width!(u32),
        _ => by_width!(u64),
    }))
}

fn predicates(s: &mut Cursor<'_, '_>) -> Decoded {
    let one = s.base == "not";
    s.expect(if one { 2 } else { 3 })?;
    let d = s.dst(0, Type::PRED)?;
    let (a, not_a) = s.predicate(1)?;
    let (b, not_b) = if one { (a, false) } else { s.predicate(2)? };
    let apply: fn(u32, u32) -> u32 = match s.base {
        "and" => |a, b| a & b,
        "or" => |a, b| a | b,
        "xor" => |a, b| a ^ b,
        "not" => |a, _| !a,
        _ => return s.unknown(),
    };
    let (flip_a, flip_b) = (if not_a { u32::MAX } else { 0 }, if not_b { u32::MAX } else { 0 });
    Ok(Op::Lanes(Box::new(move |registers: &mut Registers, mask| {
        let bits = |row: u16| registers.predicates[usize::from(row)];
        let value = apply(bits(a.row) ^ flip_a, bits(b.row) ^ flip_b);
        let to = &mut registers.predicates[usize::from(d.row)];
        *to = *to & !mask | value & mask;
    })))
}

/// Shifts clamp: by the width or more, nothing is left but the sign.
fn shift(s: &mut Cursor<'_, '_>) -> Decoded {
    let ty = s.ty()?;
    s.expect(3)?;
    let (d, a, b) = (s.dst(0, ty)?, s.src(1, ty)?, s.src(2, Type::U32)?);
    let left = s.base == "shl";
    Ok(Op::Lanes(match (ty.meaning, ty.bits, left) {
        (Meaning::Bits, 16, true) => binary(d, a, b, |a: u16, b: u32| if b < 16 { a << b } else { 0 }),
        (Meaning::Bits, 32, true) => binary(d, a, b, |a: u32, b: u32| if b < 32 { a << b } else { 0 }),
        (Meaning::Bits, 64, true) => binary(d, a, b, |a: u64, b: u32| if b < 64 { a << b } else { 0 }),
        (Meaning::Bits | Meaning::Unsigned, 16, false) => {
            binary(d, a, b, |a: u16, b: u32| if b < 16 { a >> b } else { 0 })
        }
        (Meaning::Bits | Meaning::Unsigned, 32, false) => {
            binary(d, a, b, |a: u32, b: u32| if b < 32 { a >> b } else { 0 })
        }
        (Meaning::Bits | Meaning::Unsigned, 64, false) => {
            binary(d, a, b, |a: u64, b: u32| if b < 64 { a >> b } else { 0 })
        }
        (Meaning::Signed, 16, false) => binary(d, a, b, |a: i16, b: u32| a >> b.min(15)),
        (Meaning::Signed, 32, false) => binary(d, a, b, |a: i32, b: u32| a >> b.min(31)),
        (Meaning::Signed, 64, false) => binary(d, a, b, |a: i64, b: u32| a >> b.min(63)),
        _ => return s.unknown(),
    }))
}

/// `shf`: 32 bits out of `b:a` shifted.
fn funnel(s: &mut Cursor<'_, '_>) -> Decoded {
    let direction = s.need(&["l", "r"])?;
    let mode = s.need(&["wrap", "clamp"])?;
    if s.ty()? != Type::B32 {
        return s.unknown();
    }
    s.expect(4)?;
    let (d, a, b) = (s.dst(0, Type::B32)?, s.src(1, Type::B32)?, s.src(2, Type::B32)?);
    let c = s.src(3, Type::U32)?;
    let both = |a: u32, b: u32| u64::from(b) << 32 | u64::from(a);
    Ok(Op::Lanes(match (direction, mode) {
        ("l", "wrap") => ternary(d, a, b, c, move |a, b, c: u32| (both(a, b) << (c & 31) >> 32) as u32),
        ("l", _) => ternary(d, a, b, c, move |a, b, c: u32| (both(a, b) << c.min(32) >> 32) as u32),
        (_, "wrap") => ternary(d, a, b, c, move |a, b, c: u32| (both(a, b) >> (c & 31)) as u32),
        _ => ternary(d, a, b, c, move |a, b, c: u32| (both(a, b) >> c.min(32)) as u32),
    }))
}

/// `lop3`: any function of three bits, by its table.
fn lop3(s: &mut Cursor<'_, '_>) -> Decoded {
    if s.ty()? != Type::B32 {
        return s.unknown();
    }
    s.expect(5)?;
    let (d, a) = (s.dst(0, Type::B32)?, s.src(1, Type::B32)?);
    let (b, c) = (s.src(2, Type::B32)?, s.src(3, Type::B32)?);
    let number = s.number(4)?;
    let table = u8::try_from(number).map_err(|_| format!("a table of {number}, expected at most 255"))?;
    Ok(Op::Lanes(ternary(d, a, b, c, move |a: u32, b: u32, c: u32| {
        let mut result = 0;
        for case in 0..8 {
            if table >> case & 1 != 0 {
                let pick = |value: u32, bit: u32| if case >> bit & 1 != 0 { value } else { !value };
                result |= pick(a, 2) & pick(b, 1) & pick(c, 0);
            }
        }
        result
    })))
}

/// `prmt`: any four of the eight bytes of `b:a`.
fn permute(s: &mut Cursor<'_, '_>) -> Decoded {
    if s.ty()? != Type::B32 {
        return s.unknown();
    }
    let mode = s.one_of(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]);
    s.expect(4)?;
    let (d, a) = (s.dst(0, Type::B32)?, s.src(1, Type::B32)?);
    let (b, c) = (s.src(2, Type::B32)?, s.src(3, Type::B32)?);
    // for each value of the two lowest bits of the selector, the bytes from the last to the first
    let table: Option<[u32; 4]> = mode.map(|mode| match mode {
        "f4e" => [0x3210, 0x4321, 0x5432, 0x6543],
        "b4e" => [0x5670, 0x6701, 0x7012, 0x0123],
        "rc8" => [0x0000, 0x1111, 0x2222, 0x3333],
        "ecl" => [0x3210, 0x3211, 0x3222, 0x3333],
        "ecr" => [0x0000, 0x1110, 0x2210, 0x3210],
        _ => [0x1010, 0x3232, 0x1010, 0x3232],
    });
    Ok(Op::Lanes(ternary(d, a, b, c, move |a: u32, b: u32, c: u32| {
        let bytes = u64::from(b) << 32 | u64::from(a);
        let selector = table.map_or(c, |table| table[(c & 3) as usize]);
        let mut result = 0;
        for at in 0..4 {
            let pick = selector >> (4 * at) & 15;
            let byte = (bytes >> (8 * (pick & 7))) as u8;
            // the highest bit of a selector asks for the sign alone
            let byte = if pick & 8 == 0 { byte } else { 0_u8.wrapping_sub(byte >> 7) };
            result |= u32::from(byte) << (8 * at);
        }
        result
    })))
}

/// `bfe` and `bfi`: a field of `len` bits from `pos` up.
fn field(s: &mut Cursor<'_, '_>) -> Decoded {
    let ty = s.ty()?;
    if s.base == "bfe" {
        s.expect(4)?;
        let (d, a) = (s.dst(0, ty)?, s.src(1, ty)?);
        let (pos, len) = (s.src(2, Type::U32)?, s.src(3, Type::U32)?);
        let (signed, bits) = (ty.is_signed(), ty.bits);
        let extract = move |a: u64, pos: u32, len: u32| {
            let (pos, len) = (pos & 0xff, len & 0xff);
            let top = bits - 1;
            // the bit that fills what lies above the field
            let sign_at = if len == 0 { None } else { Some((pos + len - 1).min(top)) };
            let sign = signed && sign_at.is_some_and(|at| a >> at & 1 != 0);
            let field = if pos < bits { a >> pos } else { 0 };
            let kept = len.min(bits.saturating_sub(pos));
            let low = if kept >= 64 { u64::MAX } else { (1 << kept) - 1 };
            field & low | if sign { !low } else { 0 }
        };
        return Ok(Op::Lanes(match (ty.is_integer(), ty.bits) {
            (true, 32) => {
                ternary(d, a, pos, len, move |a: u32, pos, len| extract(u64::from(a), pos, len) as u32)
            }
            (true, 64) => ternary(d, a, pos, len, extract),
            _ => return s.unknown(),
        }));
    }
    s.expect(5)?;
    let (d, f, a) = (s.dst(0, ty)?, s.src(1, ty)?, s.src(2, ty)?);
    let (pos, len) = (s.src(3, Type::U32)?, s.src(4, Type::U32)?);
    let bits = ty.bits;
    let insert = move |f: u64, a: u64, pos: u32, len: u32| {
        let (pos, len) = (pos & 0xff, len & 0xff);
        if len == 0 || pos >= bits {
            return a;
        }
        let low = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
        a & !(low << pos) | (f & low) << pos
    };
    if ty.meaning != Meaning::Bits {
        return s.unknown();
    }
    match bits {
        32 => Ok(Op::Lanes(Box::new(move |registers: &mut Registers, mask| {
            for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
                let get = |row: u16| registers.words[usize::from(row)][lane];
                let value = insert(u64::from(get(f.row)), u64::from(get(a.row)), get(pos.row), get(len.row));
                registers.words[usize::from(d.row)][lane] = value as u32;
            }
        }))),
        64 => Ok(Op::Lanes(Box::new(move |registers: &mut Registers, mask| {
            for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
                let get = |row: u16| registers.words[usize::from(row)][lane];
                let get_long = |row: u16| registers.longs[usize::from(row)][lane];
                let value = insert(get_long(f.row), get_long(a.row), get(pos.row), get(len.row));
                registers.longs[usize::from(d.row)][lane] = value;
            }
        }))),
        _ => s.unknown(),
    }
}

/// `popc`, `clz`, `brev`, `bfind`.
fn count(s: &mut Cursor<'_, '_>) -> Decoded {
    let shift_amount = s.flag("shiftamt");
    let ty = s.ty()?;
    s.expect(2)?;
    let result = if s.base == "brev" { ty } else { Type::U32 };
    if (shift_amount && s.base != "bfind") || (ty.meaning == Meaning::Bits) == (s.base == "bfind") {
        return s.unknown();
    }
    let (d, a) = (s.dst(0, result)?, s.src(1, ty)?);
    // the highest bit that is not the sign; none is -1
    let find = move |magnitude: u64, bits: u32| {
        let lead = magnitude.leading_zeros();
        match (lead, shift_amount) {
            (64, _) => u32::MAX,
            (_, false) => 63 - lead,
            (_, true) => bits - 1 - (63 - lead),
        }
    };
    Ok(Op::Lanes(match (s.base, ty.bits, ty.is_signed()) {
        ("popc", 32, _) => unary(d, a, |a: u32| a.count_ones()),
        ("popc", 64, _) => unary(d, a, |a: u64| a.count_ones()),
        ("clz", 32, _) => unary(d, a, |a: u32| a.leading_zeros()),
        ("clz", 64, _) => unary(d, a, |a: u64| a.leading_zeros()),
        ("brev", 32, _) => unary(d, a, |a: u32| a.reverse_bits()),
        ("brev", 64, _) => unary(d, a, |a: u64| a.reverse_bits()),
        ("bfind", 32, false) => unary(d, a, move |a: u32| find(u64::from(a), 32)),
        ("bfind", 64, false) => unary(d, a, move |a: u64| find(a, 64)),
        ("bfind", 32, true) => unary(d, a, move |a: i32| find(u64::from((a ^ (a >> 31)) as u32), 32)),
        ("bfind", 64, true) => unary(d, a, move |a: i64| find((a ^ (a >> 63)) as u64, 64)),
        _ => return s.unknown(),
    }))
}
