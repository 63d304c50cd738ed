//! Arithmetic on binary32 and binary64.

use super::lanes::{binary, ternary, unary};
use super::registers::Reg;
use super::round::{Mode, add_odd, canonical, div_odd, flush, saturate, sqrt_odd, to_f32};
use crate::ptx_sim::parse::Type;
use crate::ptx_sim::program::{Cursor, Decoded, Op};

/// Modifiers of an instruction on binary32.
#[derive(Clone, Copy)]
struct How {
    mode: Mode,
    ftz: bool,
    sat: bool,
}

impl How {
    fn input(self, value: f32) -> f32 {
        if self.ftz { flush(value) } else { value }
    }

    /// Rounds what is exact, or rounded to odd.
    fn output(self, value: f64) -> f32 {
        self.finish(to_f32(value, self.mode))
    }

    fn finish(self, value: f32) -> f32 {
        let value = if self.ftz { flush(value) } else { value };
        if self.sat { saturate(value) } else { canonical(value) }
    }
}

/// Decodes an instruction on binary32 or binary64.
pub fn decode(s: &mut Cursor<'_, '_>, ty: Type) -> Decoded {
    let is_fma = matches!(s.base, "fma" | "mad");
    let inputs = match s.base {
        "add" | "sub" | "mul" | "div" | "min" | "max" | "copysign" => 2,
        "fma" | "mad" => 3,
        _ => 1,
    };
    s.expect(inputs + 1)?;
    let rounds = matches!(s.base, "add" | "sub" | "mul" | "div" | "sqrt" | "rcp") || is_fma;
    let mode = if rounds { s.one_of(&Mode::NAMES) } else { None };
    if mode.is_none() && (is_fma || matches!(s.base, "div" | "sqrt" | "rcp")) {
        return Err("needs a rounding modifier".into());
    }
    let mode = mode.map_or(Mode::Nearest, Mode::named);
    let is_single = ty == Type::F32;
    let ftz = is_single && s.base != "testp" && s.base != "copysign" && s.flag("ftz");
    let sat = is_single && (is_fma || matches!(s.base, "add" | "sub" | "mul")) && s.flag("sat");
    let how = How { mode, ftz, sat };
    if s.base == "testp" {
        return test(s, ty);
    }
    let d = s.dst(0, ty)?;
    let mut from = [d; 3];
    for (i, reg) in from.iter_mut().enumerate().take(inputs) {
        *reg = s.src(i + 1, ty)?;
    }
    if is_single { single(s, how, d, from) } else { double(s, how, d, from) }
}

fn single(s: &mut Cursor<'_, '_>, how: How, d: Reg, [a, b, c]: [Reg; 3]) -> Decoded {
    let plain = how.mode == Mode::Nearest && !how.ftz && !how.sat;
    let input = move |value| how.input(value);
    let wide = move |value| f64::from(how.input(value));
    Ok(Op::Lanes(match (s.base, plain) {
        ("add", true) => binary(d, a, b, |a: f32, b: f32| canonical(a + b)),
        ("sub", true) => binary(d, a, b, |a: f32, b: f32| canonical(a - b)),
        ("mul", true) => binary(d, a, b, |a: f32, b: f32| canonical(a * b)),
        ("div", true) => binary(d, a, b, |a: f32, b: f32| canonical(a / b)),
        ("sqrt", true) => unary(d, a, |a: f32| canonical(a.sqrt())),
        ("rcp", true) => unary(d, a, |a: f32| canonical(1.0 / a)),
        ("fma" | "mad", true) => ternary(d, a, b, c, |a: f32, b: f32, c: f32| canonical(a.mul_add(b, c))),
        ("add", _) => binary(d, a, b, move |a: f32, b: f32| how.output(add_odd(wide(a), wide(b)))),
        ("sub", _) => binary(d, a, b, move |a: f32, b: f32| how.output(add_odd(wide(a), -wide(b)))),
        // 48 bits hold a product
        ("mul", _) => binary(d, a, b, move |a: f32, b: f32| how.output(wide(a) * wide(b))),
        ("div", _) => binary(d, a, b, move |a: f32, b: f32| how.output(div_odd(wide(a), wide(b)))),
        ("sqrt", _) => unary(d, a, move |a: f32| how.output(sqrt_odd(wide(a)))),
        ("rcp", _) => unary(d, a, move |a: f32| how.output(div_odd(1.0, wide(a)))),
        ("fma" | "mad", _) => {
            ternary(d, a, b, c, move |a: f32, b: f32, c: f32| how.output(add_odd(wide(a) * wide(b), wide(c))))
        }
        ("neg", _) => unary(d, a, move |a: f32| canonical(-input(a))),
        ("abs", _) => unary(d, a, move |a: f32| canonical(input(a).abs())),
        ("copysign", _) => binary(d, a, b, |a: f32, b: f32| b.copysign(a)),
        ("min" | "max", _) => {
            let (least, nan) = (s.base == "min", s.flag("NaN"));
            binary(d, a, b, move |a: f32, b: f32| {
                canonical(extreme(f64::from(input(a)), f64::from(input(b)), least, nan) as f32)
            })
        }
        _ => return s.unknown(),
    }))
}

fn double(s: &mut Cursor<'_, '_>, how: How, d: Reg, [a, b, c]: [Reg; 3]) -> Decoded {
    if how.mode != Mode::Nearest {
        return Err("directed rounding of .f64 is not known".into());
    }
    Ok(Op::Lanes(match s.base {
        "add" => binary(d, a, b, |a: f64, b: f64| a + b),
        "sub" => binary(d, a, b, |a: f64, b: f64| a - b),
        "mul" => binary(d, a, b, |a: f64, b: f64| a * b),
        "div" => binary(d, a, b, |a: f64, b: f64| a / b),
        "sqrt" => unary(d, a, f64::sqrt),
        "rcp" => unary(d, a, |a: f64| 1.0 / a),
        "fma" | "mad" => ternary(d, a, b, c, f64::mul_add),
        "neg" => unary(d, a, |a: f64| -a),
        "abs" => unary(d, a, f64::abs),
        "copysign" => binary(d, a, b, |a: f64, b: f64| b.copysign(a)),
        "min" => binary(d, a, b, |a, b| extreme(a, b, true, false)),
        "max" => binary(d, a, b, |a, b| extreme(a, b, false, false)),
        _ => return s.unknown(),
    }))
}

/// The smaller or larger of two, -0 below +0. NaN loses against a number, unless `nan` says that it wins.
pub fn extreme(a: f64, b: f64, least: bool, nan: bool) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => f64::NAN,
        (true, false) => {
            if nan {
                f64::NAN
            } else {
                b
            }
        }
        (false, true) => {
            if nan {
                f64::NAN
            } else {
                a
            }
        }
        (false, false) => {
            let a_first = a < b || (a == b && a.is_sign_negative());
            if a_first == least { a } else { b }
        }
    }
}

/// `testp`: what kind of number it is.
fn test(s: &mut Cursor<'_, '_>, ty: Type) -> Decoded {
    let kind = s.need(&["finite", "infinite", "number", "notanumber", "normal", "subnormal"])?;
    let (p, a) = (s.dst(0, Type::PRED)?, s.src(1, ty)?);
    macro_rules! of {
        ($ty:ty) => {
            match kind {
                "finite" => unary(p, a, <$ty>::is_finite),
                "infinite" => unary(p, a, <$ty>::is_infinite),
                "number" => unary(p, a, |a: $ty| !a.is_nan()),
                "notanumber" => unary(p, a, <$ty>::is_nan),
                "normal" => unary(p, a, |a: $ty| a.is_normal() || a == 0.0),
                _ => unary(p, a, <$ty>::is_subnormal),
            }
        };
    }
    Ok(Op::Lanes(if ty == Type::F32 { of!(f32) } else { of!(f64) }))
}
