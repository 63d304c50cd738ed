//! What lanes of a warp tell one another.

use super::machine::{Flow, Machine, Stop};
use super::registers::{LANES, Reg};
use crate::ptx_sim::parse::{Fit, Operand, Type};
use crate::ptx_sim::program::{Cursor, Decoded, Op};

/// Decodes an exchange between lanes.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    match s.base {
        "shfl" => shuffle(s),
        "vote" => vote(s),
        "activemask" => {
            if s.ty()? != Type::B32 {
                return s.unknown();
            }
            s.expect(1)?;
            let d = s.dst(0, Type::B32)?;
            Ok(Op::Act(Box::new(move |m| {
                m.registers.words[usize::from(d.row)] = spread(m, d, m.mask);
                Ok(Flow::Next)
            })))
        }
        "redux" => reduce(s),
        _ => elect(s),
    }
}

fn need_sync(s: &mut Cursor<'_, '_>) -> Decoded<()> {
    s.need(&["sync"]).map(|_| ())
}

/// A row in which the lanes that execute have a value, and the others what they had.
fn spread(m: &Machine<'_>, d: Reg, value: u32) -> [u32; LANES] {
    let old = m.registers.words[usize::from(d.row)];
    std::array::from_fn(|lane| if m.mask >> lane & 1 != 0 { value } else { old[lane] })
}

/// Checks the member masks of all lanes, which have to be one.
fn members(m: &Machine<'_>, row: u16) -> Result<u32, Stop> {
    let masks = &m.registers.words[usize::from(row)];
    let mut common = None;
    for lane in m.lanes() {
        let mask = masks[lane];
        if *common.get_or_insert(mask) != mask {
            let detail =
                format!("member mask {mask:#010x}, but another lane has {:#010x}", common.unwrap_or(0));
            let refusal =
                crate::ptx_sim::fault::Refusal::new(crate::ptx_sim::fault::FaultKind::Invalid, detail);
            return Err(Stop::at(lane, refusal));
        }
        m.members(mask)?;
    }
    Ok(common.unwrap_or(0))
}

/// `d` or `d|p`.
fn with_predicate<'a>(operand: &Operand<'a>) -> (Operand<'a>, Option<Operand<'a>>) {
    match operand {
        Operand::Pair(d, p) if **p != Operand::Sink => ((**d).clone(), Some((**p).clone())),
        Operand::Pair(d, _) => ((**d).clone(), None),
        d => (d.clone(), None),
    }
}

fn shuffle(s: &mut Cursor<'_, '_>) -> Decoded {
    need_sync(s)?;
    let mode = s.need(&["up", "down", "bfly", "idx"])?;
    if s.ty()? != Type::B32 {
        return s.unknown();
    }
    s.expect(5)?;
    let (to, p) = with_predicate(s.operand(0)?);
    // lanes that read from a lane that does not execute get nothing
    let d = s.dst_unmarked(&to, Type::B32, Fit::Same)?;
    let p = p.map(|p| s.dst_operand(&p, Type::PRED, Fit::Same)).transpose()?;
    let (a, b) = (s.src(1, Type::B32)?, s.src(2, Type::U32)?);
    let (c, mask) = (s.src(3, Type::U32)?, s.src(4, Type::U32)?);
    Ok(Op::Act(Box::new(move |m| {
        members(m, mask.row)?;
        let word = |m: &Machine<'_>, reg: Reg| m.registers.words[usize::from(reg.row)];
        let (values, distances, clamps) = (word(m, a), word(m, b), word(m, c));
        let (mut inside, mut undefined) = (0_u32, 0_u32);
        for lane in m.lanes() {
            let (distance, clamp) = (distances[lane] & 31, clamps[lane] & 31);
            let segment = clamps[lane] >> 8 & 31;
            let me = lane as u32;
            let last = me & segment | clamp & !segment;
            let (from, is_inside) = match mode {
                "up" => (me.wrapping_sub(distance), me as i32 - distance as i32 >= last as i32),
                "down" => (me + distance, me + distance <= last),
                "bfly" => (me ^ distance, me ^ distance <= last),
                _ => {
                    let from = me & segment | distance & !segment;
                    (from, from <= last)
                }
            };
            let from = if is_inside { from as usize } else { lane };
            inside |= u32::from(is_inside) << lane;
            undefined |= (!m.mask >> from & 1) << lane;
            m.registers.words[usize::from(d.row)][lane] = values[from];
        }
        let defined = &mut m.registers.defined[usize::from(d.id)];
        *defined = (*defined | m.mask) & !undefined;
        if let Some(p) = p {
            let to = &mut m.registers.predicates[usize::from(p.row)];
            *to = *to & !m.mask | inside & m.mask;
        }
        Ok(Flow::Next)
    })))
}

fn vote(s: &mut Cursor<'_, '_>) -> Decoded {
    need_sync(s)?;
    let mode = s.need(&["all", "any", "uni", "ballot"])?;
    let ty = s.ty()?;
    s.expect(3)?;
    let ballot = mode == "ballot";
    if ty != (if ballot { Type::B32 } else { Type::PRED }) {
        return s.unknown();
    }
    let d = s.dst(0, ty)?;
    let (a, negated) = s.predicate(1)?;
    let mask = s.src(2, Type::U32)?;
    Ok(Op::Act(Box::new(move |m| {
        members(m, mask.row)?;
        let bits = m.registers.predicates[usize::from(a.row)] ^ if negated { u32::MAX } else { 0 };
        let yes = bits & m.mask;
        if ballot {
            m.registers.words[usize::from(d.row)] = spread(m, d, yes);
            return Ok(Flow::Next);
        }
        let answer = match mode {
            "all" => yes == m.mask,
            "any" => yes != 0,
            _ => yes == 0 || yes == m.mask,
        };
        let to = &mut m.registers.predicates[usize::from(d.row)];
        *to = *to & !m.mask | if answer { m.mask } else { 0 };
        Ok(Flow::Next)
    })))
}

fn reduce(s: &mut Cursor<'_, '_>) -> Decoded {
    need_sync(s)?;
    let name = s.need(&["add", "min", "max", "and", "or", "xor"])?;
    let ty = s.ty()?;
    s.expect(3)?;
    let bitwise = matches!(name, "and" | "or" | "xor");
    if ty.bits != 32 || bitwise == ty.is_integer() {
        return s.unknown();
    }
    let (d, a, mask) = (s.dst(0, ty)?, s.src(1, ty)?, s.src(2, Type::U32)?);
    let apply: fn(u32, u32) -> u32 = match (name, ty.is_signed()) {
        ("add", _) => u32::wrapping_add,
        ("and", _) => |a, b| a & b,
        ("or", _) => |a, b| a | b,
        ("xor", _) => |a, b| a ^ b,
        ("min", false) => u32::min,
        ("max", false) => u32::max,
        ("min", true) => |a, b| (a as i32).min(b as i32) as u32,
        _ => |a, b| (a as i32).max(b as i32) as u32,
    };
    Ok(Op::Act(Box::new(move |m| {
        members(m, mask.row)?;
        let values = m.registers.words[usize::from(a.row)];
        let result = m.lanes().map(|lane| values[lane]).reduce(apply).unwrap_or(0);
        m.registers.words[usize::from(d.row)] = spread(m, d, result);
        Ok(Flow::Next)
    })))
}

/// `elect`: one lane is told that it is the one.
fn elect(s: &mut Cursor<'_, '_>) -> Decoded {
    need_sync(s)?;
    s.since_sm_90()?;
    s.expect(2)?;
    let Operand::Pair(lane, p) = s.operand(0)?.clone() else { return Err("needs `lane|p`".into()) };
    let d = match *lane {
        Operand::Sink => None,
        lane => Some(s.dst_operand(&lane, Type::B32, Fit::Same)?),
    };
    let p = s.dst_operand(&p, Type::PRED, Fit::Same)?;
    let mask = s.src(1, Type::U32)?;
    Ok(Op::Act(Box::new(move |m| {
        members(m, mask.row)?;
        let leader = m.mask.trailing_zeros();
        if let Some(d) = d {
            m.registers.words[usize::from(d.row)] = spread(m, d, leader);
        }
        let to = &mut m.registers.predicates[usize::from(p.row)];
        *to = *to & !m.mask | 1 << leader;
        Ok(Flow::Next)
    })))
}
