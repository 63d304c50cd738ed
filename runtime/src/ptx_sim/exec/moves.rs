//! `mov`: copies, addresses, special registers, packing and unpacking.

use super::machine::Flow;
use super::memory::PARAM_WINDOW;
use super::registers::{LANES, Lane, Reg, Registers};
use crate::ptx_sim::parse::{Fit, Meaning, Operand, Type};
use crate::ptx_sim::program::{Constant, Cursor, Decoded, Op};

/// Decodes `mov`.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    let ty = s.ty()?;
    s.expect(2)?;
    let known = match ty.meaning {
        Meaning::Predicate => true,
        Meaning::Bits | Meaning::Unsigned | Meaning::Signed => ty.bits >= 16,
        Meaning::Float => ty.bits >= 32,
        _ => false,
    };
    if !known {
        return s.unknown();
    }
    let (to, from) = (s.operand(0)?.clone(), s.operand(1)?.clone());
    match (to, from) {
        (Operand::Vector(parts), _) => unpack(s, ty, &parts),
        (_, Operand::Vector(parts)) => pack(s, ty, &parts),
        (_, Operand::Special(name)) => special(s, ty, name),
        (_, Operand::Shared(number, offset)) => {
            let address = s.shared_address(number, offset);
            address_of(s, ty, u64::from(address))
        }
        (_, Operand::Param(number, offset)) if ty.bits == 64 => {
            let offset = s.param_offset(number, offset)?;
            address_of(s, ty, PARAM_WINDOW + offset as u64)
        }
        (_, Operand::Not(_)) => {
            let d = s.dst(0, ty)?;
            let (a, _) = s.predicate(1)?;
            Ok(Op::Lanes(Box::new(move |registers, mask| {
                let bits = !<bool as Lane>::row(registers, a.row);
                <bool as Lane>::put(registers, d.row, mask, &bits);
            })))
        }
        _ => {
            let (d, a) = (s.dst(0, ty)?, s.src(1, ty)?);
            Ok(copy(ty, d, a))
        }
    }
}

fn copy(ty: Type, d: Reg, a: Reg) -> Op {
    fn of<T: Lane + 'static>(d: Reg, a: Reg) -> Op {
        Op::Lanes(Box::new(move |registers: &mut Registers, mask| {
            let row = T::row(registers, a.row);
            T::put(registers, d.row, mask, &row);
        }))
    }
    match ty.bits {
        1 => of::<bool>(d, a),
        64 => of::<u64>(d, a),
        _ => of::<u32>(d, a),
    }
}

fn address_of(s: &mut Cursor<'_, '_>, ty: Type, address: u64) -> Decoded {
    if !(ty.is_integer() || ty.meaning == Meaning::Bits) || ty.bits < 32 {
        return Err(format!("an address does not go with {ty}"));
    }
    let d = s.dst(0, ty)?;
    // shared addresses fit in 32 bits; the rest of no address is ever lost, because parameters ask for 64
    let constant = if ty.bits == 64 { Constant::Long(address) } else { Constant::Word(address as u32) };
    let a = s.constant(constant)?;
    Ok(copy(ty, d, a))
}

fn special(s: &mut Cursor<'_, '_>, ty: Type, name: &str) -> Decoded {
    let whole = ty.is_integer() || ty.meaning == Meaning::Bits;
    match (name, ty.bits) {
        ("%clock64" | "%globaltimer", 64) if whole => {
            let d = s.dst(0, ty)?;
            // time passes by an instruction at a time
            Ok(Op::Act(Box::new(move |m| {
                let row = [m.common.counts.instructions; LANES];
                <u64 as Lane>::put(m.registers, d.row, m.mask, &row);
                Ok(Flow::Poll)
            })))
        }
        ("%clock", 32) if whole => {
            let d = s.dst(0, ty)?;
            Ok(Op::Act(Box::new(move |m| {
                let row = [m.common.counts.instructions as u32; LANES];
                <u32 as Lane>::put(m.registers, d.row, m.mask, &row);
                Ok(Flow::Poll)
            })))
        }
        (_, 16 | 32) if whole => {
            let (d, a) = (s.dst(0, ty)?, s.special(name)?);
            let keep = if ty.bits == 16 { 0xffff } else { u32::MAX };
            Ok(Op::Lanes(Box::new(move |registers, mask| {
                let row = <u32 as Lane>::row(registers, a.row).map(|value| value & keep);
                <u32 as Lane>::put(registers, d.row, mask, &row);
            })))
        }
        _ => Err(format!("special register `{name}` does not go with {ty}")),
    }
}

/// The type of a part: two to four of them make the whole.
fn part(ty: Type, parts: usize) -> Decoded<Type> {
    let width = u32::try_from(parts).ok().filter(|n| matches!(n, 2 | 4)).map(|n| ty.bits / n);
    match (ty.meaning, width) {
        (Meaning::Bits, Some(16)) => Ok(Type::B16),
        (Meaning::Bits, Some(32)) => Ok(Type::B32),
        _ => Err(format!("{parts} parts of {ty}")),
    }
}

fn pack(s: &mut Cursor<'_, '_>, ty: Type, parts: &[Operand<'_>]) -> Decoded {
    let each = part(ty, parts.len())?;
    let d = s.dst(0, ty)?;
    let from = sources(s, parts, each)?;
    Ok(Op::Lanes(Box::new(move |registers, mask| {
        let mut row = [0_u64; LANES];
        for (i, reg) in from.iter().enumerate() {
            let bits = registers.words[usize::from(reg.row)];
            for lane in 0..LANES {
                row[lane] |= u64::from(bits[lane]) << (i as u32 * each.bits);
            }
        }
        if ty.bits == 64 {
            <u64 as Lane>::put(registers, d.row, mask, &row);
        } else {
            <u32 as Lane>::put(registers, d.row, mask, &row.map(|value| value as u32));
        }
    })))
}

/// The registers or constants of a vector operand.
pub fn sources(s: &mut Cursor<'_, '_>, parts: &[Operand<'_>], ty: Type) -> Decoded<Vec<Reg>> {
    (0..parts.len()).map(|i| s.src_part(parts, i, ty, Fit::Same)).collect()
}

fn unpack(s: &mut Cursor<'_, '_>, ty: Type, parts: &[Operand<'_>]) -> Decoded {
    let each = part(ty, parts.len())?;
    let a = s.src_register(1, ty)?;
    let mut to = Vec::new();
    for (i, operand) in parts.iter().enumerate() {
        if *operand != Operand::Sink {
            to.push((i as u32 * each.bits, s.dst_part(parts, i, each, Fit::Same)?));
        }
    }
    let keep = if each.bits == 16 { 0xffff } else { u32::MAX };
    Ok(Op::Lanes(Box::new(move |registers, mask| {
        let row: [u64; LANES] = if ty.bits == 64 {
            registers.longs[usize::from(a.row)]
        } else {
            registers.words[usize::from(a.row)].map(u64::from)
        };
        for (shift, reg) in &to {
            let values = row.map(|value| (value >> shift) as u32 & keep);
            <u32 as Lane>::put(registers, reg.row, mask, &values);
        }
    })))
}
