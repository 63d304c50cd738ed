//! Comparisons and selections.

use super::lanes::ternary;
use super::registers::{LANES, Lane, Reg, Registers};
use super::round::Float;
use crate::ptx_sim::parse::{Fit, Meaning, Operand, Type};
use crate::ptx_sim::program::{Cursor, Decoded, Op};
use half::{bf16, f16};
use std::cmp::Ordering;

/// A comparison: which outcomes are true. The last is that a NaN is among the values.
#[derive(Clone, Copy)]
struct Holds {
    less: bool,
    equal: bool,
    greater: bool,
    unordered: bool,
}

impl Holds {
    fn named(name: &str, ty: Type) -> Option<Self> {
        let float = !ty.is_integer() && ty.meaning != Meaning::Bits;
        let holds = |less, equal, greater, unordered| Some(Self { less, equal, greater, unordered });
        let unsigned = ty.meaning == Meaning::Unsigned;
        match name {
            "eq" => holds(false, true, false, false),
            "ne" => holds(true, false, true, false),
            _ if ty.meaning == Meaning::Bits => None,
            "lt" => holds(true, false, false, false),
            "le" => holds(true, true, false, false),
            "gt" => holds(false, false, true, false),
            "ge" => holds(false, true, true, false),
            "lo" if unsigned => holds(true, false, false, false),
            "ls" if unsigned => holds(true, true, false, false),
            "hi" if unsigned => holds(false, false, true, false),
            "hs" if unsigned => holds(false, true, true, false),
            "equ" if float => holds(false, true, false, true),
            "neu" if float => holds(true, false, true, true),
            "ltu" if float => holds(true, false, false, true),
            "leu" if float => holds(true, true, false, true),
            "gtu" if float => holds(false, false, true, true),
            "geu" if float => holds(false, true, true, true),
            "num" if float => holds(true, true, true, false),
            "nan" if float => holds(false, false, false, true),
            _ => None,
        }
    }

    #[inline(always)]
    fn of(self, order: Option<Ordering>) -> bool {
        match order {
            Some(Ordering::Less) => self.less,
            Some(Ordering::Equal) => self.equal,
            Some(Ordering::Greater) => self.greater,
            None => self.unordered,
        }
    }
}

const COMPARISONS: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu",
    "num", "nan",
];

/// How a comparison is combined with a predicate.
type Combine = fn(u32, u32) -> u32;

/// Decodes a comparison or a selection.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    match s.base {
        "setp" => set_predicate(s),
        "set" => set(s),
        "selp" => select(s),
        _ => select_by_sign(s),
    }
}

fn combine(s: &mut Cursor<'_, '_>) -> Option<Combine> {
    let named: Combine = match s.one_of(&["and", "or", "xor"])? {
        "and" => |a, b| a & b,
        "or" => |a, b| a | b,
        _ => |a, b| a ^ b,
    };
    Some(named)
}

type Compare = Box<dyn Fn(&mut Registers) -> u32 + Send + Sync>;

/// The lanes in which a comparison is true.
fn compare(s: &mut Cursor<'_, '_>, name: &str, ty: Type, at: usize) -> Decoded<Compare> {
    let holds = Holds::named(name, ty).ok_or_else(|| format!(".{name} does not go with {ty}"))?;
    let ftz = matches!((ty.meaning, ty.bits), (Meaning::Float, 16 | 32)) && s.flag("ftz");
    let (a, b) = (s.src(at, ty)?, s.src(at + 1, ty)?);
    fn of<T: Lane + Send + Sync + 'static>(
        a: Reg,
        b: Reg,
        apply: impl Fn(T, T) -> bool + Copy + Send + Sync + 'static,
    ) -> Compare {
        Box::new(move |registers| {
            let (a, b) = (T::row(registers, a.row), T::row(registers, b.row));
            (0..LANES)
                .fold(0, |bits, lane| bits | u32::from(apply(T::get(&a, lane), T::get(&b, lane))) << lane)
        })
    }
    // the commonest get loops of their own
    macro_rules! whole {
        ($ty:ty) => {
            match name {
                "eq" => of(a, b, |a: $ty, b: $ty| a == b),
                "ne" => of(a, b, |a: $ty, b: $ty| a != b),
                "lt" | "lo" => of(a, b, |a: $ty, b: $ty| a < b),
                "le" | "ls" => of(a, b, |a: $ty, b: $ty| a <= b),
                "gt" | "hi" => of(a, b, |a: $ty, b: $ty| a > b),
                _ => of(a, b, |a: $ty, b: $ty| a >= b),
            }
        };
    }
    let flushed = move |value: f32| if ftz { value.flushed() } else { value };
    Ok(match (ty.meaning, ty.bits) {
        (Meaning::Bits | Meaning::Unsigned, 16) => whole!(u16),
        (Meaning::Bits | Meaning::Unsigned, 32) => whole!(u32),
        (Meaning::Bits | Meaning::Unsigned, 64) => whole!(u64),
        (Meaning::Signed, 16) => whole!(i16),
        (Meaning::Signed, 32) => whole!(i32),
        (Meaning::Signed, 64) => whole!(i64),
        (Meaning::Float, 16) => {
            let flushed = move |value: f16| if ftz { value.flushed() } else { value };
            of(a, b, move |a: f16, b: f16| holds.of(flushed(a).partial_cmp(&flushed(b))))
        }
        (Meaning::Float, 32) => of(a, b, move |a: f32, b: f32| holds.of(flushed(a).partial_cmp(&flushed(b)))),
        (Meaning::Float, 64) => of(a, b, move |a: f64, b: f64| holds.of(a.partial_cmp(&b))),
        (Meaning::Brain, _) => {
            s.since_sm_90()?;
            of(a, b, move |a: bf16, b: bf16| holds.of(a.partial_cmp(&b)))
        }
        _ => return s.unknown(),
    })
}

fn put(registers: &mut Registers, reg: Reg, mask: u32, bits: u32) {
    let to = &mut registers.predicates[usize::from(reg.row)];
    *to = *to & !mask | bits & mask;
}

fn set_predicate(s: &mut Cursor<'_, '_>) -> Decoded {
    let name = s.need(&COMPARISONS)?;
    let combine = combine(s);
    s.expect(if combine.is_some() { 4 } else { 3 })?;
    let ty = s.ty()?;
    let (first, second) = match s.operand(0)?.clone() {
        Operand::Pair(p, q) => (*p, *q),
        p => (p, Operand::Sink),
    };
    let mut destination = |operand: &Operand<'_>| match operand {
        Operand::Sink => Ok(None),
        Operand::Register(number) => {
            s.dst_operand(&Operand::Register(*number), Type::PRED, Fit::Same).map(Some)
        }
        _ => Err("writes to what is no predicate".to_string()),
    };
    let (p, q) = (destination(&first)?, destination(&second)?);
    let compare = compare(s, name, ty, 1)?;
    let with = match combine {
        Some(combine) => Some((combine, s.predicate(3)?)),
        None => None,
    };
    Ok(Op::Lanes(match (p, q, with) {
        (Some(p), None, None) => Box::new(move |registers, mask| {
            let bits = compare(registers);
            put(registers, p, mask, bits);
        }),
        _ => Box::new(move |registers, mask| {
            let bits = compare(registers);
            // `q` gets the opposite, combined the same way
            let (yes, no) = match with {
                None => (bits, !bits),
                Some((combine, (c, negated))) => {
                    let c = registers.predicates[usize::from(c.row)] ^ if negated { u32::MAX } else { 0 };
                    (combine(bits, c), combine(!bits, c))
                }
            };
            if let Some(p) = p {
                put(registers, p, mask, yes);
            }
            if let Some(q) = q {
                put(registers, q, mask, no);
            }
        }),
    }))
}

/// `set`: all ones or 1.0 for true.
fn set(s: &mut Cursor<'_, '_>) -> Decoded {
    let name = s.need(&COMPARISONS)?;
    let combine = combine(s);
    s.expect(if combine.is_some() { 4 } else { 3 })?;
    let types = s.types();
    let [to, from] = types[..] else { return Err("has to have two types".into()) };
    if to.bits != 32 || !(to.is_integer() || to == Type::F32) {
        return s.unknown();
    }
    let d = s.dst(0, to)?;
    let compare = compare(s, name, from, 1)?;
    let with = match combine {
        Some(combine) => Some((combine, s.predicate(3)?)),
        None => None,
    };
    let truth = if to == Type::F32 { 1.0_f32.to_bits() } else { u32::MAX };
    Ok(Op::Lanes(Box::new(move |registers, mask| {
        let mut bits = compare(registers);
        if let Some((combine, (c, negated))) = with {
            bits =
                combine(bits, registers.predicates[usize::from(c.row)] ^ if negated { u32::MAX } else { 0 });
        }
        let values = std::array::from_fn(|lane| if bits >> lane & 1 != 0 { truth } else { 0 });
        <u32 as Lane>::put(registers, d.row, mask, &values);
    })))
}

fn select(s: &mut Cursor<'_, '_>) -> Decoded {
    let ty = s.ty()?;
    s.expect(4)?;
    if ty.bits < 16 || matches!((ty.meaning, ty.bits), (Meaning::Float, 16)) {
        return s.unknown();
    }
    let (d, a, b) = (s.dst(0, ty)?, s.src(1, ty)?, s.src(2, ty)?);
    let (p, negated) = s.predicate(3)?;
    let (a, b) = if negated { (b, a) } else { (a, b) };
    Ok(Op::Lanes(match (ty.meaning, ty.bits) {
        (Meaning::Bits | Meaning::Unsigned | Meaning::Signed | Meaning::Float, 16 | 32) => {
            ternary(d, a, b, p, |a: u32, b: u32, p: bool| if p { a } else { b })
        }
        (Meaning::Bits | Meaning::Unsigned | Meaning::Signed | Meaning::Float, 64) => {
            ternary(d, a, b, p, |a: u64, b: u64, p: bool| if p { a } else { b })
        }
        _ => return s.unknown(),
    }))
}

/// `slct`: the first where the last is at least zero.
fn select_by_sign(s: &mut Cursor<'_, '_>) -> Decoded {
    let ftz = s.flag("ftz");
    let types = s.types();
    let [ty, by] = types[..] else { return Err("has to have two types".into()) };
    s.expect(4)?;
    let (d, a, b, c) = (s.dst(0, ty)?, s.src(1, ty)?, s.src(2, ty)?, s.src(3, by)?);
    let is_whole = by == Type { meaning: Meaning::Signed, bits: 32 };
    if !(is_whole && !ftz || by == Type::F32) || ty.meaning == Meaning::Predicate {
        return s.unknown();
    }
    // NaN is not at least zero; -0 is
    let first = move |c: u32| {
        let value = f32::from_bits(c);
        if is_whole { c as i32 >= 0 } else { (if ftz { value.flushed() } else { value }) >= 0.0 }
    };
    Ok(Op::Lanes(match ty.bits {
        16 | 32 => ternary(d, a, b, c, move |a: u32, b: u32, c: u32| if first(c) { a } else { b }),
        64 => ternary(d, a, b, c, move |a: u64, b: u64, c: u32| if first(c) { a } else { b }),
        _ => return s.unknown(),
    }))
}
