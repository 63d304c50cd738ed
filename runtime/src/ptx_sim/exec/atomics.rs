//! Read-modify-write of memory.

use super::machine::{Flow, Stop};
use super::memory::{Address, Place, Way, account, ordering, place, resolve, shared_address};
use super::registers::LANES;
use super::round::{canonical, flush};
use crate::ptx_sim::fault::{FaultKind, Refusal};
use crate::ptx_sim::parse::{Fit, Meaning, Operand, Type};
use crate::ptx_sim::program::{Cursor, Decoded, Op};

/// What becomes of the old value, with one operand or two.
type Update = fn(old: u64, b: u64, c: u64) -> u64;

fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn update(name: &str, ty: Type, place: Place) -> Option<Update> {
    let (signed, bits) = (ty.is_signed(), ty.bits);
    let untyped = ty.meaning == Meaning::Bits;
    let found: Update = match (name, bits) {
        ("add", 32) if ty == Type::F32 && place == Place::Global => {
            // PTX ISA, `atom`: on global memory subnormal numbers are flushed
            |old, b, _| u64::from(canonical(flush(flush(f32_of(old)) + flush(f32_of(b)))).to_bits())
        }
        ("add", 32) if ty == Type::F32 => |old, b, _| u64::from(canonical(f32_of(old) + f32_of(b)).to_bits()),
        ("add", 64) if ty.meaning == Meaning::Float => {
            |old, b, _| (f64::from_bits(old) + f64::from_bits(b)).to_bits()
        }
        ("exch", _) if untyped => |_, b, _| b,
        ("cas", _) if untyped => |old, b, c| if old == b { c } else { old },
        ("and", _) if untyped => |old, b, _| old & b,
        ("or", _) if untyped => |old, b, _| old | b,
        ("xor", _) if untyped => |old, b, _| old ^ b,
        _ if !ty.is_integer() => return None,
        ("add", 32) => |old, b, _| u64::from((old as u32).wrapping_add(b as u32)),
        ("add", _) if !signed => |old, b, _| old.wrapping_add(b),
        ("inc", 32) if !signed => |old, b, _| if old >= b { 0 } else { old + 1 },
        ("dec", 32) if !signed => |old, b, _| if old == 0 || old > b { b } else { old - 1 },
        ("min", _) if !signed => |old, b, _| old.min(b),
        ("max", _) if !signed => |old, b, _| old.max(b),
        ("min", 32) => |old, b, _| u64::from((old as i32).min(b as i32) as u32),
        ("max", 32) => |old, b, _| u64::from((old as i32).max(b as i32) as u32),
        ("min", _) => |old, b, _| (old as i64).min(b as i64) as u64,
        ("max", _) => |old, b, _| (old as i64).max(b as i64) as u64,
        _ => return None,
    };
    Some(found)
}

/// Decodes `atom` and `red`.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    let returns = s.base == "atom";
    if ordering(s, &["relaxed", "acquire", "release", "acq_rel"])? {
        // ordered as everything is: one warp goes on at a time
    } else {
        s.one_of(&["cta", "cluster", "gpu", "sys"]);
    }
    let place = place(s);
    let name = s.need(&["add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"])?;
    let ty = s.ty()?;
    let apply = update(name, ty, place).filter(|_| ty.bits >= 32 && place != Place::Param);
    let apply = apply.ok_or_else(|| format!(".{name} does not go with {ty}"))?;
    if !returns && matches!(name, "exch" | "cas") {
        return s.unknown();
    }
    let first = usize::from(returns);
    let operands = if name == "cas" { 2 } else { 1 };
    s.expect(first + 1 + operands)?;
    let to = match s.operand(0)?.clone() {
        Operand::Sink if returns => None,
        operand if returns => Some(s.dst_operand(&operand, ty, Fit::Same)?),
        _ => None,
    };
    let address = Address::decode(s, first)?;
    address.goes_with(place)?;
    let b = s.src(first + 1, ty)?;
    let c = if name == "cas" { s.src(first + 2, ty)? } else { b };
    let bytes = ty.bytes();
    Ok(Op::Act(Box::new(move |m| {
        let mut addresses = [0; LANES];
        let mut changed = false;
        m.common.shared.begin_instruction(m.warp);
        for lane in m.lanes() {
            let value = |row: u16| match bytes {
                8 => m.registers.longs[usize::from(row)][lane],
                _ => u64::from(m.registers.words[usize::from(row)][lane]),
            };
            let (b, c) = (value(b.row), value(c.row));
            let at = address.of(m, lane);
            addresses[lane] = at;
            let (space, at) = resolve(place, at);
            let who = m.thread(lane);
            let op = |old| apply(old, b, c);
            let old = match space {
                Place::Shared => {
                    shared_address(at).and_then(|at| m.common.shared.atomic(who, at, bytes, &op))
                }
                Place::Param => Err(Refusal::new(FaultKind::Invalid, "a parameter is written")),
                Place::Global | Place::Generic => m.launch.global.atomic(at, bytes, &op),
            }
            .map_err(|refusal| Stop::at(lane, refusal))?;
            changed |= op(old) != old;
            match to {
                Some(to) if bytes == 8 => m.registers.longs[usize::from(to.row)][lane] = old,
                Some(to) => m.registers.words[usize::from(to.row)][lane] = old as u32,
                None => {}
            }
        }
        account(m, place, &addresses, bytes, Way::Store);
        if changed {
            m.common.events += 1;
            Ok(Flow::Next)
        } else {
            // asking without changing anything is waiting
            Ok(Flow::Poll)
        }
    })))
}
