//! Arithmetic on binary16 and on the upper halves of binary32, alone and in pairs: exact, then rounded once.

use super::float::extreme;
use super::lanes::{LaneFn, binary, ternary, unary};
use super::registers::Reg;
use super::round::{Float, Mode, add_odd};
use crate::ptx_sim::parse::{Meaning, Type};
use crate::ptx_sim::program::{Cursor, Decoded, Op};
use half::{bf16, f16};

/// Modifiers.
#[derive(Clone, Copy)]
struct How {
    ftz: bool,
    sat: bool,
    relu: bool,
    nan: bool,
}

/// What is done to each half.
#[derive(Clone, Copy)]
enum Does {
    Add,
    Sub,
    Mul,
    Fma,
    Min,
    Max,
    Neg,
    Abs,
}

/// Decodes an instruction on halves.
pub fn decode(s: &mut Cursor<'_, '_>, ty: Type) -> Decoded {
    let (does, inputs) = match s.base {
        "add" => (Does::Add, 2),
        "sub" => (Does::Sub, 2),
        "mul" => (Does::Mul, 2),
        "fma" => (Does::Fma, 3),
        "min" => (Does::Min, 2),
        "max" => (Does::Max, 2),
        "neg" => (Does::Neg, 1),
        "abs" => (Does::Abs, 1),
        _ => return s.unknown(),
    };
    let brain = matches!(ty.meaning, Meaning::Brain | Meaning::BrainPair);
    let sums = matches!(does, Does::Add | Does::Sub | Does::Mul);
    if brain && sums {
        s.since_sm_90()?;
    }
    let rounds = sums || matches!(does, Does::Fma);
    if !(rounds && s.flag("rn")) && matches!(does, Does::Fma) {
        return Err("needs .rn".into());
    }
    let is_extreme = matches!(does, Does::Min | Does::Max);
    let how = How {
        ftz: !brain && s.flag("ftz"),
        sat: !brain && rounds && s.flag("sat"),
        relu: matches!(does, Does::Fma) && s.flag("relu"),
        nan: is_extreme && s.flag("NaN"),
    };
    s.expect(inputs + 1)?;
    let d = s.dst(0, ty)?;
    let mut from = [d; 3];
    for (i, reg) in from.iter_mut().enumerate().take(inputs) {
        *reg = s.src_register(i + 1, ty)?;
    }
    Ok(Op::Lanes(match ty.meaning {
        Meaning::Float => alone::<f16>(does, how, inputs, d, from),
        Meaning::Brain => alone::<bf16>(does, how, inputs, d, from),
        Meaning::FloatPair => pair(does, how, inputs, d, from, f16::from_bits, f16::to_bits),
        _ => pair(does, how, inputs, d, from, bf16::from_bits, bf16::to_bits),
    }))
}

fn alone<T: Float>(does: Does, how: How, inputs: usize, d: Reg, [a, b, c]: [Reg; 3]) -> LaneFn {
    match inputs {
        1 => unary(d, a, move |a: T| apply(does, how, a, a, a)),
        2 => binary(d, a, b, move |a: T, b: T| apply(does, how, a, b, a)),
        _ => ternary(d, a, b, c, move |a: T, b: T, c: T| apply(does, how, a, b, c)),
    }
}

fn pair<T: Float>(
    does: Does,
    how: How,
    inputs: usize,
    d: Reg,
    [a, b, c]: [Reg; 3],
    from: fn(u16) -> T,
    to: fn(T) -> u16,
) -> LaneFn {
    let each = move |a: u32, b: u32, c: u32| {
        let half = |shift: u32| {
            let get = |bits: u32| from((bits >> shift) as u16);
            u32::from(to(apply(does, how, get(a), get(b), get(c)))) << shift
        };
        half(0) | half(16)
    };
    match inputs {
        1 => unary(d, a, move |a: u32| each(a, a, a)),
        2 => binary(d, a, b, move |a: u32, b: u32| each(a, b, a)),
        _ => ternary(d, a, b, c, each),
    }
}

fn apply<T: Float>(does: Does, how: How, a: T, b: T, c: T) -> T {
    let input = |value: T| if how.ftz { value.flushed() } else { value }.wide();
    let (a, b, c) = (input(a), input(b), input(c));
    // sums of two and products are exact in 53 bits or so far apart that rounding twice is rounding once; sums with a
    // product are rounded to odd first
    let exact = match does {
        Does::Add => add_odd(a, b),
        Does::Sub => add_odd(a, -b),
        Does::Mul => a * b,
        Does::Fma => add_odd(a * b, c),
        Does::Min => extreme(a, b, true, how.nan),
        Does::Max => extreme(a, b, false, how.nan),
        Does::Neg => -a,
        Does::Abs => a.abs(),
    };
    let exact = match exact {
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
    let rounded = T::narrow(exact, Mode::Nearest);
    if how.ftz { rounded.flushed() } else { rounded }
}
