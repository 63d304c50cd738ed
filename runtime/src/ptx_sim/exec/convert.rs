//! `cvt`: between all types of numbers.

use super::lanes::{LaneFn, binary, unary};
use super::registers::Reg;
use super::round::{Float, Format, Mode, canonical, to_bf16, to_f16, to_f32};
use crate::ptx_sim::parse::{Fit, Meaning, Type};
use crate::ptx_sim::program::{Cursor, Decoded, Op};
use half::{bf16, f16};

/// Rounding modifiers, those to whole numbers last.
const ROUNDINGS: [&str; 9] = ["rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi"];

/// Everything that is said of a conversion.
#[derive(Clone, Copy)]
struct How {
    to: Type,
    from: Type,
    mode: Mode,
    whole: bool,
    ftz: bool,
    sat: bool,
    relu: bool,
}

fn is_float(ty: Type) -> bool {
    matches!(ty.meaning, Meaning::Float | Meaning::Brain)
}

/// Decodes `cvt`.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    let rounding = s.one_of(&ROUNDINGS);
    let (ftz, sat, relu) = (s.flag("ftz"), s.flag("sat"), s.flag("relu"));
    let types = s.types();
    let [to, from] = types[..] else { return Err("has to have two types".into()) };
    let whole = rounding.is_some_and(|r| r.ends_with('i'));
    let mode = rounding.map_or(Mode::Nearest, Mode::named);
    let how = How { to, from, mode, whole, ftz, sat, relu };
    if matches!(to.meaning, Meaning::FloatPair | Meaning::BrainPair) {
        return pair(s, how, rounding);
    }
    s.expect(2)?;
    if to.meaning == Meaning::Tensor {
        return tensor(s, how, rounding);
    }
    let number = |ty: Type| ty.is_integer() || is_float(ty);
    if !number(to) || !number(from) {
        return s.unknown();
    }
    check(s, how, rounding)?;
    let a = match s.operand(1)?.clone() {
        crate::ptx_sim::parse::Operand::Special(name) if from.bits == 32 && from.is_integer() => {
            s.special(name)?
        }
        operand => s.src_operand(&operand, from, Fit::Wider)?,
    };
    let wide = |s: &Cursor<'_, '_>, at, ty: Type| {
        s.operand(at).ok().and_then(|o| s.register_type(o)).map_or(ty.bits, |r| r.bits) == 64
    };
    let (long_to, long_from) = (wide(s, 0, to), wide(s, 1, from));
    let target = s.operand(0)?.clone();
    let d = s.dst_operand(&target, to, Fit::Wider)?;
    let plain = !ftz && !sat && !relu && !whole && mode == Mode::Nearest;
    if let Some(fast) = fast(how, plain && !long_to && !long_from, d, a) {
        return Ok(Op::Lanes(fast));
    }
    let apply = move |bits: u64| convert(how, bits);
    Ok(Op::Lanes(match (long_to, long_from) {
        (false, false) => unary(d, a, move |a: u32| apply(u64::from(a)) as u32),
        (false, true) => unary(d, a, move |a: u64| apply(a) as u32),
        (true, false) => unary(d, a, move |a: u32| apply(u64::from(a))),
        (true, true) => unary(d, a, apply),
    }))
}

/// Which rounding goes with which types: PTX ISA, `cvt`.
fn check(s: &Cursor<'_, '_>, how: How, rounding: Option<&str>) -> Decoded<()> {
    let How { to, from, whole, relu, ftz, .. } = how;
    let needed = match (is_float(to), is_float(from)) {
        (false, false) => None,
        (false, true) => Some("rni"),
        (true, false) => Some("rn"),
        (true, true) if to.bits < from.bits => Some("rn"),
        (true, true) if to.meaning == from.meaning && to.bits == from.bits => rounding.map(|_| "rni"),
        (true, true) => None,
    };
    match (needed, rounding) {
        (None, None) => {}
        (None, Some(r)) => return Err(format!(".{r} does not go with these types")),
        (Some("rni"), Some(_)) if whole => {}
        (Some("rn"), Some(r)) if !whole && r != "rna" => {}
        (Some(_), Some(r)) => return Err(format!(".{r} does not go with these types")),
        (Some(_), None) => return Err("needs a rounding modifier".into()),
    }
    if ftz && to != Type::F32 && from != Type::F32 {
        return Err(".ftz goes with .f32".into());
    }
    if relu && !(to.bits == 16 && is_float(to) && from == Type::F32) {
        return Err(".relu does not go with these types".into());
    }
    if from.meaning == Meaning::Brain {
        s.since_version(7, 1)?;
        if to != Type::F32 {
            s.since_sm_90()?;
        }
    }
    if to.meaning == Meaning::Brain && from != Type::F32 {
        s.since_sm_90()?;
    }
    Ok(())
}

/// Loops for what kernels do all the time.
fn fast(how: How, plain: bool, d: Reg, a: Reg) -> Option<LaneFn> {
    let How { to, from, .. } = how;
    let signed = from.is_signed();
    if !how.sat && to.is_integer() && to.bits == 64 && from.is_integer() && from.bits == 32 {
        // the register may be wider still, but then the general way is taken
        return None;
    }
    if !plain {
        return None;
    }
    Some(match (to.meaning, to.bits, from.meaning, from.bits) {
        (Meaning::Float, 32, Meaning::Unsigned, 32) => unary(d, a, |a: u32| a as f32),
        (Meaning::Float, 32, Meaning::Signed, 32) if signed => unary(d, a, |a: i32| a as f32),
        (Meaning::Float, 32, Meaning::Float, 16) => unary(d, a, |a: f16| canonical(a.to_f32())),
        (Meaning::Float, 32, Meaning::Brain, 16) => unary(d, a, |a: bf16| canonical(a.to_f32())),
        (Meaning::Float, 16, Meaning::Float, 32) => unary(d, a, half_of),
        (Meaning::Brain, 16, Meaning::Float, 32) => unary(d, a, brain_of),
        _ => return None,
    })
}

#[inline(always)]
fn half_of(a: f32) -> f16 {
    if a.is_nan() { f16::from_bits(0x7fff) } else { f16::from_f32(a) }
}

#[inline(always)]
fn brain_of(a: f32) -> bf16 {
    // to nearest, ties to even, in whole numbers; infinities and overflow come out right
    let bits = a.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    bf16::from_bits(if a.is_nan() { 0x7fff } else { rounded as u16 })
}

/// A whole number of a type, from the lower bits of a register.
fn whole_number(bits: u64, ty: Type) -> i128 {
    let spare = 64 - ty.bits;
    if ty.is_signed() {
        i128::from((bits << spare) as i64 >> spare)
    } else {
        i128::from(bits << spare >> spare)
    }
}

/// Least and greatest of a type.
fn range(ty: Type) -> (i128, i128) {
    if ty.is_signed() {
        let half = 1_i128 << (ty.bits - 1);
        (-half, half - 1)
    } else {
        (0, (1_i128 << ty.bits) - 1)
    }
}

/// The bits of a whole number in a register: sign or zeros above.
fn whole_bits(value: i128, ty: Type) -> u64 {
    let bits = value as u64;
    whole_number(bits, ty) as u64
}

/// Any conversion of one value; bits in, bits out.
fn convert(how: How, bits: u64) -> u64 {
    let How { to, from, mode, .. } = how;
    if !is_float(from) {
        let value = whole_number(bits, from);
        if is_float(to) {
            return from_whole(how, value);
        }
        let (least, most) = range(to);
        return whole_bits(if how.sat { value.clamp(least, most) } else { value }, to);
    }
    let value = match (from.meaning, from.bits) {
        (Meaning::Brain, _) => bf16::from_bits(bits as u16).wide(),
        (_, 16) => f16::from_bits(bits as u16).wide(),
        (_, 32) => {
            let value = f32::from_bits(bits as u32);
            f64::from(if how.ftz { value.flushed() } else { value })
        }
        _ => f64::from_bits(bits),
    };
    if is_float(to) {
        let value = if how.whole { mode.whole(value) } else { value };
        let mode = if how.whole { Mode::Nearest } else { mode };
        return float_bits(how, value, mode);
    }
    let (least, most) = range(to);
    if value.is_nan() {
        // PTX ISA, `cvt`: zero, but 64-bit types on either side give the highest bit
        let wide = from.bits == 64 || to.bits == 64;
        return if wide { whole_bits(1_i128 << (to.bits - 1), to) } else { 0 };
    }
    // `as` clamps to 128 bits
    whole_bits((mode.whole(value) as i128).clamp(least, most), to)
}

fn from_whole(how: How, value: i128) -> u64 {
    // what has more than 53 bits keeps 53 of them and whether any of the others is set, which rounds the same
    let magnitude = value.unsigned_abs();
    let spare = (128 - magnitude.leading_zeros()).saturating_sub(53);
    let sticky = if spare > 0 {
        let low = magnitude & ((1 << spare) - 1);
        magnitude >> spare << spare | u128::from(low != 0) << spare
    } else {
        magnitude
    };
    let odd = sticky as f64;
    if how.to.bits == 64 {
        let exact = if how.mode == Mode::Nearest { value as f64 } else { return directed_f64(how, value) };
        return exact.to_bits();
    }
    float_bits(how, if value < 0 { -odd } else { odd }, how.mode)
}

fn directed_f64(how: How, value: i128) -> u64 {
    let nearest = value as f64;
    let off = value - nearest as i128;
    let result = match how.mode {
        Mode::Down if off < 0 => nearest.next_down(),
        Mode::Up if off > 0 => nearest.next_up(),
        Mode::Zero if off < 0 && nearest > 0.0 => nearest.next_down(),
        Mode::Zero if off > 0 && nearest < 0.0 => nearest.next_up(),
        _ => nearest,
    };
    result.to_bits()
}

fn float_bits(how: How, value: f64, mode: Mode) -> u64 {
    let value = match value {
        v if how.sat => {
            if v > 0.0 {
                v.min(1.0)
            } else {
                0.0
            }
        }
        v if how.relu && v <= 0.0 => 0.0,
        v => v,
    };
    match (how.to.meaning, how.to.bits) {
        (Meaning::Brain, _) => u64::from(to_bf16(value, mode).to_bits()),
        (_, 16) => u64::from(to_f16(value, mode).to_bits()),
        (_, 32) => {
            let rounded = to_f32(value, mode);
            u64::from((if how.ftz { rounded.flushed() } else { rounded }).to_bits())
        }
        _ => value.to_bits(),
    }
}

/// `cvt.rn.f16x2.f32 d, a, b`: `a` in the upper half.
fn pair(s: &mut Cursor<'_, '_>, how: How, rounding: Option<&str>) -> Decoded {
    s.expect(3)?;
    if how.from != Type::F32 || !matches!(rounding, Some("rn" | "rz")) || how.ftz || how.sat {
        return s.unknown();
    }
    let (d, a, b) = (s.dst(0, how.to)?, s.src(1, Type::F32)?, s.src(2, Type::F32)?);
    let brain = how.to.meaning == Meaning::BrainPair;
    let plain = how.mode == Mode::Nearest && !how.relu;
    Ok(Op::Lanes(match (brain, plain) {
        (true, true) => binary(d, a, b, |a: f32, b: f32| {
            u32::from(brain_of(a).to_bits()) << 16 | u32::from(brain_of(b).to_bits())
        }),
        (false, true) => binary(d, a, b, |a: f32, b: f32| {
            u32::from(half_of(a).to_bits()) << 16 | u32::from(half_of(b).to_bits())
        }),
        _ => {
            let half = if brain { Meaning::Brain } else { Meaning::Float };
            let how = How { to: Type { meaning: half, bits: 16 }, ..how };
            let each = move |value: f32| float_bits(how, f64::from(value), how.mode) as u32;
            binary(d, a, b, move |a: f32, b: f32| each(a) << 16 | each(b))
        }
    }))
}

/// `cvt.rna.tf32.f32`: bits that matrix instructions read.
fn tensor(s: &mut Cursor<'_, '_>, how: How, rounding: Option<&str>) -> Decoded {
    match rounding {
        Some("rna") => {}
        Some("rn" | "rz") => s.since_sm_90()?,
        _ => return s.unknown(),
    }
    if how.from != Type::F32 || how.sat || how.ftz || how.relu {
        return s.unknown();
    }
    let (d, a) = (s.dst(0, how.to)?, s.src(1, Type::F32)?);
    Ok(Op::Lanes(unary(d, a, move |a: f32| canonical(Format::TF32.round(f64::from(a), how.mode) as f32))))
}
