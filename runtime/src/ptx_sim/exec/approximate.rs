//! Approximate instructions: the exact value, disturbed as far as the ISA allows, so that a kernel that leans on more than
//! is promised fails. The disturbance is a function of the operands, so runs repeat bit for bit.

use super::lanes::{LaneFn, binary, unary};
use super::registers::Reg;
use super::round::{Float, Mode, canonical, flush};
use crate::ptx_sim::parse::{Meaning, Type};
use crate::ptx_sim::program::{Cursor, Decoded, Op};
use half::{bf16, f16};
use std::f64::consts::{LN_2, PI};

/// Error of rounding to binary32, relative.
const ROUNDING: f64 = 1.0 / (1 << 24) as f64;

/// What is documented of an instruction's error, rounding included.
#[derive(Clone, Copy)]
enum Bound {
    /// Units in the last place.
    Ulp(f64),
    /// Of the value.
    Relative(f64),
    /// Of the result, whatever it is.
    Absolute(f64),
}

/// In [-1, 1], a function of bits.
#[inline(always)]
fn noise(bits: u32) -> f64 {
    let mixed = (bits ^ bits >> 15).wrapping_mul(0x2c1b_3c6d);
    let mixed = (mixed ^ mixed >> 12).wrapping_mul(0x297a_2d39);
    f64::from((mixed ^ mixed >> 15) as i32) * (1.0 / 2_147_483_648.0)
}

/// The exact value, moved within the bound and rounded; numbers that are exact by the ISA's tables stay so.
#[inline(always)]
fn disturb(exact: f64, bits: u32, bound: Bound) -> f32 {
    let far = match bound {
        // a unit is at least 2^-24 of the value, and rounding takes half of one
        Bound::Ulp(units) => exact.abs() * (units - 0.5) * ROUNDING,
        Bound::Relative(part) => exact.abs() * (part - ROUNDING),
        Bound::Absolute(distance) => distance - exact.abs() * ROUNDING,
    };
    canonical((exact + noise(bits) * far) as f32)
}

/// Decodes an approximate instruction; its type has been taken.
pub fn decode(s: &mut Cursor<'_, '_>, ty: Type) -> Decoded {
    let kind = s.need(&["approx", "full"])?;
    if kind == "full" && s.base != "div" {
        return s.unknown();
    }
    if ty != Type::F32 {
        return halves(s, ty);
    }
    let ftz = s.base != "tanh" && s.flag("ftz");
    let inputs = if s.base == "div" { 2 } else { 1 };
    s.expect(inputs + 1)?;
    let (d, a) = (s.dst(0, ty)?, s.src(1, ty)?);
    if s.base == "div" {
        let b = s.src(2, ty)?;
        return Ok(Op::Lanes(divide(d, a, b, ftz, kind == "approx")));
    }
    Ok(Op::Lanes(match s.base {
        "ex2" => of_one(d, a, ftz, exp2, |_, _| Bound::Ulp(2.0)),
        "lg2" => of_one(d, a, ftz, f64::log2, |a, _| {
            let error = 2.0_f64.powi(-22);
            if a > 0.5 && a < 2.0 { Bound::Absolute(error) } else { Bound::Relative(error) }
        }),
        "rcp" => of_one(d, a, ftz, |a| 1.0 / a, |_, _| Bound::Ulp(1.0)),
        "sqrt" => of_one(d, a, ftz, f64::sqrt, |_, _| Bound::Relative(2.0_f64.powi(-23))),
        "rsqrt" => of_one(d, a, ftz, |a| 1.0 / a.sqrt(), |_, _| Bound::Ulp(2.0)),
        "sin" => of_one(d, a, ftz, f64::sin, near_zero),
        "cos" => of_one(d, a, ftz, f64::cos, near_zero),
        "tanh" => of_one(d, a, ftz, f64::tanh, |_, _| Bound::Relative(2.0_f64.powi(-11))),
        _ => return s.unknown(),
    }))
}

/// `sin` and `cos` are only good near zero.
fn near_zero(a: f64, _: f64) -> Bound {
    Bound::Absolute(2.0_f64.powf(if a.abs() <= 2.0 * PI { -20.5 } else { -14.7 }))
}

fn of_one(
    d: Reg,
    a: Reg,
    ftz: bool,
    exact: impl Fn(f64) -> f64 + Copy + Send + Sync + 'static,
    bound: impl Fn(f64, f64) -> Bound + Copy + Send + Sync + 'static,
) -> LaneFn {
    unary(d, a, move |a: f32| {
        let input = if ftz { flush(a) } else { a };
        let value = exact(f64::from(input));
        // zeros, infinities, NaN and what zero gives are as in the tables of the ISA
        let result = if input == 0.0 || value == 0.0 || !value.is_finite() {
            canonical(value as f32)
        } else {
            disturb(value, input.to_bits(), bound(f64::from(input), value))
        };
        if ftz { flush(result) } else { result }
    })
}

/// 2 to a power, to 1e-11 of itself.
#[inline(always)]
fn exp2(power: f64) -> f64 {
    if power.is_nan() {
        return power;
    }
    // beyond these binary32 has only zero and infinity
    let power = power.clamp(-200.0, 200.0);
    let whole = power.round_ties_even();
    let part = (power - whole) * LN_2;
    // Taylor, to part^9 / 9!; |part| <= ln(2) / 2
    let mut sum = 1.0 / 362_880.0;
    for factor in [40_320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        sum = sum * part + 1.0 / factor;
    }
    sum * f64::from_bits(((whole as i64 + 1023) as u64) << 52)
}

/// `div.approx` and `div.full`.
fn divide(d: Reg, a: Reg, b: Reg, ftz: bool, approx: bool) -> LaneFn {
    binary(d, a, b, move |a: f32, b: f32| {
        let (a, b) = if ftz { (flush(a), flush(b)) } else { (a, b) };
        let exact = f64::from(a) / f64::from(b);
        let is_large = b.abs() > 2.0_f32.powi(126) && b.is_finite();
        let result = if approx && is_large {
            // the reciprocal is lost
            if a.is_finite() { 0.0_f32.copysign(exact as f32) } else { f32::NAN }
        } else if exact == 0.0 || !exact.is_finite() {
            exact as f32
        } else {
            disturb(exact, a.to_bits() ^ b.to_bits().rotate_left(13), Bound::Ulp(2.0))
        };
        canonical(if ftz { flush(result) } else { result })
    })
}

/// `ex2` and `tanh` of halves, alone and in pairs.
fn halves(s: &mut Cursor<'_, '_>, ty: Type) -> Decoded {
    s.expect(2)?;
    let is_tanh = s.base == "tanh";
    if !matches!(s.base, "tanh" | "ex2") {
        return s.unknown();
    }
    let brain = matches!(ty.meaning, Meaning::Brain | Meaning::BrainPair);
    if brain {
        s.since_sm_90()?;
        if !is_tanh && !s.flag("ftz") {
            return Err("needs .ftz".into());
        }
    }
    let ftz = !is_tanh && (brain || s.flag("ftz"));
    let (d, a) = (s.dst(0, ty)?, s.src_register(1, ty)?);
    // PTX ISA: `ex2.approx.f16` 2^-9.9 of the value, `.bf16` 2^-7; `tanh.approx.f16` 2^-10.987 absolute, `.bf16` 2^-8
    let apply = move |wide: f64, bits: u16| {
        let exact = if is_tanh { wide.tanh() } else { exp2(wide) };
        let error = match (is_tanh, brain) {
            (true, false) => 2.0_f64.powf(-10.987),
            (true, true) => 2.0_f64.powi(-8),
            (false, false) => 2.0_f64.powf(-9.9) * exact.abs(),
            (false, true) => 2.0_f64.powi(-7) * exact.abs(),
        };
        // rounding takes half a unit, of which the fraction has 10 or 7 bits
        let rounding = exact.abs() * if brain { 2.0_f64.powi(-8) } else { 2.0_f64.powi(-11) };
        if wide == 0.0 || exact == 0.0 || !exact.is_finite() {
            exact
        } else {
            exact + noise(u32::from(bits)) * (error - rounding).max(0.0)
        }
    };
    let of_f16 = move |a: f16| {
        let a = if ftz { a.flushed() } else { a };
        let result = f16::narrow(apply(a.wide(), a.to_bits()), Mode::Nearest);
        if ftz { result.flushed() } else { result }
    };
    let of_bf16 = move |a: bf16| {
        let a = if ftz { a.flushed() } else { a };
        let result = bf16::narrow(apply(a.wide(), a.to_bits()), Mode::Nearest);
        if ftz { result.flushed() } else { result }
    };
    Ok(Op::Lanes(match ty.meaning {
        Meaning::Float if ty.bits == 16 => unary(d, a, of_f16),
        Meaning::Brain => unary(d, a, of_bf16),
        Meaning::FloatPair => unary(d, a, move |a: u32| {
            let half = |bits: u32| u32::from(of_f16(f16::from_bits(bits as u16)).to_bits());
            half(a) | half(a >> 16) << 16
        }),
        Meaning::BrainPair => unary(d, a, move |a: u32| {
            let half = |bits: u32| u32::from(of_bf16(bf16::from_bits(bits as u16)).to_bits());
            half(a) | half(a >> 16) << 16
        }),
        _ => return s.unknown(),
    }))
}
