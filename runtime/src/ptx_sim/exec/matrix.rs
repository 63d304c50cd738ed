//! Matrix instructions of a warp: `mma.sync`, `ldmatrix`, `stmatrix`.

use super::machine::{Flow, Machine, Stop};
use super::memory::{Address, Place, Way, account, place, resolve, shared_address};
use super::registers::{LANES, Reg};
use crate::ptx_sim::fault::FaultKind;
use crate::ptx_sim::parse::{Fit, Meaning, Operand, Type};
use crate::ptx_sim::program::{Cursor, Decoded, Op};
use crate::ptx_sim::tensor::matrix::{self, Order};
use crate::ptx_sim::tensor::{Kind, Register, mma};

/// Decodes a matrix instruction.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    s.need(&["sync"])?;
    s.need(&["aligned"])?;
    match s.base {
        "mma" => multiply(s),
        _ => transfer(s),
    }
}

/// Refuses to go on unless all 32 lanes execute.
pub fn whole_warp(m: &Machine<'_>) -> Result<(), Stop> {
    if m.mask == u32::MAX {
        return Ok(());
    }
    let detail = format!("lanes {:#010x} of warp {} are elsewhere", !m.mask, m.warp);
    Err(Stop::new(FaultKind::Barrier, detail))
}

/// The registers of a vector operand that is read.
pub fn read_all(s: &mut Cursor<'_, '_>, at: usize, count: usize, ty: Type) -> Decoded<Vec<Reg>> {
    let Operand::Vector(parts) = s.operand(at)?.clone() else {
        return Err(format!("operand {} is no vector", at + 1));
    };
    if parts.len() != count {
        return Err(format!("operand {} has {} registers, expected {count}", at + 1, parts.len()));
    }
    (0..count).map(|i| s.src_part(&parts, i, ty, Fit::Same)).collect()
}

/// The registers of a vector operand that is written.
pub fn write_all(s: &mut Cursor<'_, '_>, at: usize, count: usize, ty: Type) -> Decoded<Vec<Reg>> {
    let Operand::Vector(parts) = s.operand(at)?.clone() else {
        return Err(format!("operand {} is no vector", at + 1));
    };
    if parts.len() != count {
        return Err(format!("operand {} has {} registers, expected {count}", at + 1, parts.len()));
    }
    (0..count).map(|i| s.dst_part(&parts, i, ty, Fit::Same)).collect()
}

/// Rows of registers.
fn rows<const N: usize>(m: &Machine<'_>, registers: &[Reg; N]) -> [Register; N] {
    registers.map(|reg| m.registers.words[usize::from(reg.row)])
}

fn fixed<const N: usize>(registers: Vec<Reg>) -> Decoded<[Reg; N]> {
    registers.try_into().map_err(|_| "has another number of registers".to_string())
}

fn multiply(s: &mut Cursor<'_, '_>) -> Decoded {
    let shape = s.need(&["m16n8k4", "m16n8k8", "m16n8k16"])?;
    s.need(&["row"])?;
    s.need(&["col"])?;
    let types = s.types();
    let [d_ty, a_ty, b_ty, c_ty] = types[..] else { return Err("has to have four types".into()) };
    let (kind, steps) = match (a_ty.meaning, a_ty.bits, shape) {
        (Meaning::Float, 16, "m16n8k8") => (Kind::F16, 8),
        (Meaning::Float, 16, "m16n8k16") => (Kind::F16, 16),
        (Meaning::Brain, _, "m16n8k8") => (Kind::Bf16, 8),
        (Meaning::Brain, _, "m16n8k16") => (Kind::Bf16, 16),
        (Meaning::Tensor, _, "m16n8k4") => (Kind::Tf32, 4),
        (Meaning::Tensor, _, "m16n8k8") => (Kind::Tf32, 8),
        _ => return s.unknown(),
    };
    let half = Type { meaning: Meaning::Float, bits: 16 };
    let halves = (d_ty, c_ty) == (half, half) && kind == Kind::F16;
    if a_ty != b_ty || !(halves || (d_ty, c_ty) == (Type::F32, Type::F32)) {
        return s.unknown();
    }
    s.expect(4)?;
    let a_count = steps * 16 * kind.size() as usize / 128;
    let (a, b) = (read_all(s, 1, a_count, Type::B32)?, read_all(s, 2, a_count / 2, Type::B32)?);
    let flops = 2 * 16 * 8 * steps as u64;
    if halves {
        let c: [Reg; 2] = fixed(read_all(s, 3, 2, Type::B32)?)?;
        let d: [Reg; 2] = fixed(write_all(s, 0, 2, Type::B32)?)?;
        return Ok(product(a, b, c, d, flops, mma::mma_f16));
    }
    let c: [Reg; 4] = fixed(read_all(s, 3, 4, Type::F32)?)?;
    let d: [Reg; 4] = fixed(write_all(s, 0, 4, Type::F32)?)?;
    Ok(product(a, b, c, d, flops, move |a, b, c| mma::mma_f32(kind, a, b, c)))
}

fn product<const N: usize>(
    a: Vec<Reg>,
    b: Vec<Reg>,
    c: [Reg; N],
    d: [Reg; N],
    flops: u64,
    apply: impl Fn(&[Register], &[Register], &[Register; N]) -> [Register; N] + Send + Sync + 'static,
) -> Op {
    Op::Act(Box::new(move |m| {
        whole_warp(m)?;
        let mut fragments = [[0; LANES]; 6];
        for (to, from) in fragments.iter_mut().zip(a.iter().chain(&b)) {
            *to = m.registers.words[usize::from(from.row)];
        }
        let sums = apply(&fragments[..a.len()], &fragments[a.len()..a.len() + b.len()], &rows(m, &c));
        for (reg, row) in d.iter().zip(sums) {
            m.registers.words[usize::from(reg.row)] = row;
        }
        m.common.counts.tensor_flops += flops;
        Ok(Flow::Next)
    }))
}

/// `ldmatrix` and `stmatrix`.
fn transfer(s: &mut Cursor<'_, '_>) -> Decoded {
    let loads = s.base == "ldmatrix";
    if !loads {
        s.since_sm_90()?;
        s.since_version(7, 8)?;
    }
    s.need(&["m8n8"])?;
    let count = match s.need(&["x1", "x2", "x4"])? {
        "x1" => 1,
        "x2" => 2,
        _ => 4,
    };
    let order = if s.flag("trans") { Order::Columns } else { Order::Rows };
    let space = place(s);
    if s.ty()? != Type::B16 || !matches!(space, Place::Shared | Place::Generic) {
        return s.unknown();
    }
    s.expect(2)?;
    let address = Address::decode(s, usize::from(loads))?;
    address.goes_with(space)?;
    let registers =
        if loads { write_all(s, 0, count, Type::B32)? } else { read_all(s, 1, count, Type::B32)? };
    Ok(Op::Act(Box::new(move |m| {
        whole_warp(m)?;
        m.common.shared.begin_instruction(m.warp);
        let (mut pointers, mut addresses) = ([0_u32; LANES], [0_u64; LANES]);
        // lanes beyond eight for each matrix point at nothing
        for lane in 0..8 * count {
            let (at_space, at) = resolve(space, address.of(m, lane));
            if at_space != Place::Shared {
                return Err(Stop::new(
                    FaultKind::Invalid,
                    format!("address {at:#x} is not of shared memory"),
                ));
            }
            addresses[lane] = at;
            pointers[lane] = shared_address(at).map_err(|refusal| Stop::at(lane, refusal))?;
        }
        let mut values = [[0; LANES]; 4];
        let warp = m.warp;
        let shared = &mut m.common.shared;
        let mut last = 0;
        let who = |lane: u32| crate::ptx_sim::memory::Thread { warp, lane };
        let done = if loads {
            matrix::load(order, &pointers, &mut values[..count], |lane, at, row| {
                last = lane as usize;
                shared.read(who(lane), at, row)
            })
        } else {
            for (to, from) in values.iter_mut().zip(&registers) {
                *to = m.registers.words[usize::from(from.row)];
            }
            matrix::store(order, &pointers, &values[..count], |lane, at, row| {
                last = lane as usize;
                shared.write(who(lane), at, row)
            })
        };
        done.map_err(|refusal| Stop::at(last, refusal))?;
        if loads {
            for (reg, row) in registers.iter().zip(values) {
                m.registers.words[usize::from(reg.row)] = row;
            }
        } else {
            m.common.events += 1;
        }
        m.mask = u32::MAX >> (32 - 8 * count);
        account(m, Place::Shared, &addresses, 16, if loads { Way::Load } else { Way::Store });
        Ok(Flow::Next)
    })))
}
