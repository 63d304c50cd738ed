//! Arithmetic on whole numbers.

use super::lanes::{LaneFn, binary, ternary, unary};
use super::machine::{Flow, Stop};
use super::registers::Reg;
use crate::ptx_sim::fault::{FaultKind, Refusal};
use crate::ptx_sim::parse::Type;
use crate::ptx_sim::program::{Cursor, Decoded, Op};

/// Makes a lane instruction for the host type of a PTX type.
macro_rules! by_type {
    ($s:expr, $ty:expr, $make:ident ( $($arg:ident),* ), |$($value:ident),*| $body:expr) => {
        match ($ty.is_signed(), $ty.bits) {
            (false, 16) => $make($($arg,)* |$($value: u16),*| -> u16 { $body }),
            (false, 32) => $make($($arg,)* |$($value: u32),*| -> u32 { $body }),
            (false, 64) => $make($($arg,)* |$($value: u64),*| -> u64 { $body }),
            (true, 16) => $make($($arg,)* |$($value: i16),*| -> i16 { $body }),
            (true, 32) => $make($($arg,)* |$($value: i32),*| -> i32 { $body }),
            (true, 64) => $make($($arg,)* |$($value: i64),*| -> i64 { $body }),
            _ => return $s.unknown(),
        }
    };
}

/// Decodes an instruction whose type is a whole number.
pub fn decode(s: &mut Cursor<'_, '_>, ty: Type) -> Decoded {
    match s.base {
        "mul" | "mad" => return multiply(s, ty),
        "neg" | "abs" => {
            s.expect(2)?;
            if !ty.is_signed() {
                return s.unknown();
            }
            let negates = s.base == "neg";
            let (d, a) = (s.dst(0, ty)?, s.src(1, ty)?);
            let op = if negates {
                by_type!(s, ty, unary(d, a), |a| a.wrapping_neg())
            } else {
                match ty.bits {
                    16 => unary(d, a, |a: i16| a.wrapping_abs()),
                    32 => unary(d, a, |a: i32| a.wrapping_abs()),
                    64 => unary(d, a, |a: i64| a.wrapping_abs()),
                    _ => return s.unknown(),
                }
            };
            return Ok(Op::Lanes(op));
        }
        _ => {}
    }
    s.expect(3)?;
    let saturates = s.flag("sat");
    if saturates && !(matches!(s.base, "add" | "sub") && ty.is_signed() && ty.bits == 32) {
        return s.unknown();
    }
    let (d, a, b) = (s.dst(0, ty)?, s.src(1, ty)?, s.src(2, ty)?);
    Ok(Op::Lanes(match (s.base, saturates) {
        ("add", true) => binary(d, a, b, |a: i32, b: i32| a.saturating_add(b)),
        ("sub", true) => binary(d, a, b, |a: i32, b: i32| a.saturating_sub(b)),
        ("add", _) => by_type!(s, ty, binary(d, a, b), |a, b| a.wrapping_add(b)),
        ("sub", _) => by_type!(s, ty, binary(d, a, b), |a, b| a.wrapping_sub(b)),
        ("min", _) => by_type!(s, ty, binary(d, a, b), |a, b| a.min(b)),
        ("max", _) => by_type!(s, ty, binary(d, a, b), |a, b| a.max(b)),
        ("div", _) => {
            return Ok(divided(
                ty,
                b,
                by_type!(s, ty, binary(d, a, b), |a, b| a.checked_div(b).unwrap_or(a)),
            ));
        }
        ("rem", _) => {
            return Ok(divided(
                ty,
                b,
                by_type!(s, ty, binary(d, a, b), |a, b| a.checked_rem(b).unwrap_or(0)),
            ));
        }
        _ => return s.unknown(),
    }))
}

/// A division: by zero it gives an unspecified value (PTX ISA, `div`), which nothing should use. What overflows is the
/// smallest number by -1, which gives itself, rest 0.
fn divided(ty: Type, divisor: Reg, apply: LaneFn) -> Op {
    Op::Act(Box::new(move |m| {
        let row = usize::from(divisor.row);
        let is_zero = |lane: &usize| match ty.bits {
            64 => m.registers.longs[row][*lane] == 0,
            _ => m.registers.words[row][*lane] == 0,
        };
        if let Some(lane) = m.lanes().find(is_zero) {
            return Err(Stop::at(lane, Refusal::new(FaultKind::Invalid, "division by zero")));
        }
        apply(m.registers, m.mask);
        m.common.counts.alu += u64::from(m.mask.count_ones());
        Ok(Flow::Next)
    }))
}

/// `mul` and `mad`, low, high and wide.
fn multiply(s: &mut Cursor<'_, '_>, ty: Type) -> Decoded {
    let part = s.need(&["lo", "hi", "wide"])?;
    let adds = s.base == "mad";
    s.expect(if adds { 4 } else { 3 })?;
    let result = if part == "wide" { Type { bits: 2 * ty.bits, ..ty } } else { ty };
    let (d, a, b) = (s.dst(0, result)?, s.src(1, ty)?, s.src(2, ty)?);
    let c = if adds { Some(s.src(3, result)?) } else { None };
    Ok(Op::Lanes(match (part, c) {
        ("lo", None) => by_type!(s, ty, binary(d, a, b), |a, b| a.wrapping_mul(b)),
        ("lo", Some(c)) => by_type!(s, ty, ternary(d, a, b, c), |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        ("hi", c) => {
            // the upper half of the product
            macro_rules! high {
                ($ty:ty, $wide:ty, $bits:literal) => {
                    match c {
                        None => binary(d, a, b, |a: $ty, b: $ty| {
                            ((<$wide>::from(a) * <$wide>::from(b)) >> $bits) as $ty
                        }),
                        Some(c) => ternary(d, a, b, c, |a: $ty, b: $ty, c: $ty| {
                            (((<$wide>::from(a) * <$wide>::from(b)) >> $bits) as $ty).wrapping_add(c)
                        }),
                    }
                };
            }
            match (ty.is_signed(), ty.bits) {
                (false, 16) => high!(u16, u32, 16),
                (false, 32) => high!(u32, u64, 32),
                (false, 64) => high!(u64, u128, 64),
                (true, 16) => high!(i16, i32, 16),
                (true, 32) => high!(i32, i64, 32),
                (true, 64) => high!(i64, i128, 64),
                _ => return s.unknown(),
            }
        }
        (_, c) => {
            macro_rules! wide {
                ($ty:ty, $wide:ty) => {
                    match c {
                        None => binary(d, a, b, |a: $ty, b: $ty| <$wide>::from(a) * <$wide>::from(b)),
                        Some(c) => ternary(d, a, b, c, |a: $ty, b: $ty, c: $wide| {
                            (<$wide>::from(a) * <$wide>::from(b)).wrapping_add(c)
                        }),
                    }
                };
            }
            match (ty.is_signed(), ty.bits) {
                (false, 16) => wide!(u16, u32),
                (false, 32) => wide!(u32, u64),
                (true, 16) => wide!(i16, i32),
                (true, 32) => wide!(i32, i64),
                _ => return s.unknown(),
            }
        }
    }))
}
