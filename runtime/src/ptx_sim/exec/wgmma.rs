//! `wgmma` and `setmaxnreg`: instructions of a warpgroup, executed warp by warp.

use super::in_flight::Role;
use super::machine::{Flow, Machine, Stop};
use super::matrix::whole_warp;
use super::registers::{LANES, Reg};
use crate::ptx_sim::fault::{FaultKind, Refusal};
use crate::ptx_sim::parse::{Fit, Meaning, Operand, Type};
use crate::ptx_sim::program::{Cursor, Decoded, Op};
use crate::ptx_sim::tensor::operand::Major;
use crate::ptx_sim::tensor::wgmma::{Left, Sign, Wgmma};
use crate::ptx_sim::tensor::{Kind, Register};

/// What a warp of a warpgroup did, told apart by numbers that all four must share.
mod step {
    pub const FENCE: u64 = 1;
    pub const COMMIT: u64 = 2;
    pub const WAIT: u64 = 3;
    pub const MULTIPLY: u64 = 4;
    pub const RESIZE: u64 = 5;
}

/// Decodes `wgmma` or `setmaxnreg`.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    s.only_sm_90a()?;
    s.since_version(8, 0)?;
    let what = if s.base == "wgmma" {
        s.need(&["fence", "commit_group", "wait_group", "mma_async"])?
    } else {
        "setmaxnreg"
    };
    let way = if s.base == "wgmma" { "" } else { s.need(&["inc", "dec"])? };
    s.need(&["sync"])?;
    s.need(&["aligned"])?;
    match what {
        "fence" => {
            s.expect(0)?;
            Ok(Op::Act(Box::new(|m| {
                together(m, [step::FENCE, 0, 0])?;
                m.registers.in_flight.fence();
                Ok(Flow::Next)
            })))
        }
        "commit_group" => {
            s.expect(0)?;
            Ok(Op::Act(Box::new(|m| {
                together(m, [step::COMMIT, 0, 0])?;
                m.registers.in_flight.commit();
                m.common.shared.wgmma_commit(m.warp);
                Ok(Flow::Next)
            })))
        }
        "wait_group" => {
            s.expect(1)?;
            let pending = u32::try_from(s.number(0)?).unwrap_or(u32::MAX);
            if pending > 7 {
                return Err(format!("{pending} groups, expected at most 7"));
            }
            Ok(Op::Act(Box::new(move |m| {
                together(m, [step::WAIT, u64::from(pending), 0])?;
                m.registers.in_flight.wait(pending);
                m.common.shared.wgmma_wait(m.warp, pending);
                Ok(Flow::Next)
            })))
        }
        "mma_async" => multiply(s),
        _ => resize(s, way == "inc"),
    }
}

/// The element type of both operands, if there is such a product.
fn kind(a: Type, b: Type) -> Option<Kind> {
    let kind = match (a.meaning, a.bits) {
        (Meaning::Float, 16) => Kind::F16,
        (Meaning::Brain, 16) => Kind::Bf16,
        (Meaning::Tensor, _) => Kind::Tf32,
        _ => return None,
    };
    (a == b).then_some(kind)
}

/// The registers of a list in braces.
fn list<'a>(s: &Cursor<'_, 'a>, at: usize, count: usize) -> Decoded<Vec<Operand<'a>>> {
    match s.operand(at)?.clone() {
        Operand::Vector(parts) if parts.len() == count => Ok(parts),
        Operand::Vector(parts) => {
            Err(format!("operand {} has {} registers, expected {count}", at + 1, parts.len()))
        }
        _ => Err(format!("operand {} is no list of {count} registers", at + 1)),
    }
}

/// All lanes of the warp are here, and the other warps of the warpgroup do the same, each in its time.
fn together(m: &mut Machine<'_>, step: [u64; 3]) -> Result<(), Stop> {
    whole_warp(m)?;
    Ok(m.common.warpgroups.meet(m.warp, step)?)
}

/// The one value that all lanes have.
fn uniform<T: Copy + PartialEq>(what: &str, values: &[T; LANES]) -> Result<T, Stop> {
    match values.iter().position(|value| *value != values[0]) {
        None => Ok(values[0]),
        Some(lane) => Err(Stop::at(
            lane,
            Refusal::new(FaultKind::Invalid, format!("the {what} differs from that of lane 0")),
        )),
    }
}

/// Where A comes from.
enum Source {
    Registers(Vec<Reg>),
    Shared(Reg),
}

fn multiply(s: &mut Cursor<'_, '_>) -> Decoded {
    let [d_type, a_type, b_type] = s.types()[..] else { return s.unknown() };
    let (Type::F32, Some(kind)) = (d_type, kind(a_type, b_type)) else { return s.unknown() };
    let k = 32 / kind.size();
    let Some(n) = (8..=256).step_by(8).find(|n| s.flag(&format!("m64n{n}k{k}"))) else { return s.unknown() };
    let in_registers = matches!(s.operand(1)?, Operand::Vector(_));
    let transposable = match (kind, in_registers) {
        (Kind::Tf32, _) => 0,
        (_, true) => 1,
        (_, false) => 2,
    };
    s.expect(6 + transposable)?;
    let accumulators = list(s, 0, n as usize / 2)?;
    let d: Vec<Reg> =
        accumulators.iter().map(|part| s.tensor_register(part, Type::F32)).collect::<Decoded<_>>()?;
    let a = if in_registers {
        let parts = list(s, 1, 4)?;
        for part in &parts {
            s.tensor_register(part, Type::B32)?;
        }
        let read = parts.iter().map(|part| s.src_operand(part, Type::B32, Fit::Same));
        Source::Registers(read.collect::<Decoded<_>>()?)
    } else {
        Source::Shared(s.src(1, Type::B64)?)
    };
    let b = s.src(2, Type::B64)?;
    let (scale, negated) = s.predicate(3)?;
    let sign = |at: usize| match s.operand(at)? {
        Operand::Integer(1) => Ok(Sign::Plus),
        Operand::Integer(-1) => Ok(Sign::Minus),
        _ => Err(format!("operand {} is neither 1 nor -1", at + 1)),
    };
    let signs = [sign(4)?, sign(5)?];
    let major = |at: usize| match s.operand(at)? {
        Operand::Integer(0) => Ok(Major::K),
        Operand::Integer(1) => Ok(Major::Mn),
        _ => Err(format!("operand {} is neither 0 nor 1", at + 1)),
    };
    let majors = match transposable {
        0 => [Major::K; 2],
        1 => [Major::K, major(6)?],
        _ => [major(6)?, major(7)?],
    };
    let form = Wgmma { kind, n, signs, majors };
    Ok(Op::Act(Box::new(move |m| {
        let b = uniform("descriptor of B", &m.registers.longs[usize::from(b.row)])?;
        let left = match &a {
            Source::Shared(a) => uniform("descriptor of A", &m.registers.longs[usize::from(a.row)])?,
            Source::Registers(_) => 0,
        };
        let bits = m.registers.predicates[usize::from(scale.row)];
        let keep = match bits {
            0 => negated,
            u32::MAX => !negated,
            _ => return Err(Stop::new(FaultKind::Invalid, "`scale-d` differs between lanes")),
        };
        together(m, [step::MULTIPLY | u64::from(keep) << 8 | u64::from(n) << 16, left, b])?;
        execute(m, &form, &d, &a, left, b, keep)?;
        m.common.counts.tensor_flops += 2 * 16 * u64::from(n * k);
        Ok(Flow::Next)
    })))
}

fn execute(
    m: &mut Machine<'_>,
    form: &Wgmma,
    d: &[Reg],
    a: &Source,
    left: u64,
    b: u64,
    keep: bool,
) -> Result<(), Stop> {
    let fragment: [Register; 4];
    let left = match a {
        Source::Registers(a) => {
            for (place, reg) in a.iter().enumerate() {
                m.registers.in_flight.take(*reg, Role::Left { place })?;
            }
            fragment = std::array::from_fn(|i| m.registers.words[usize::from(a[i].row)]);
            Left::Registers(&fragment)
        }
        Source::Shared(_) => Left::Shared(left),
    };
    let mut sums = [[0; LANES]; 128];
    let sums = &mut sums[..d.len()];
    for (place, (reg, sum)) in d.iter().zip(&mut *sums).enumerate() {
        m.registers.in_flight.take(*reg, Role::Accumulator { n: form.n, size: form.kind.size(), place })?;
        if keep {
            let missing = !m.registers.defined[usize::from(reg.id)];
            if missing != 0 {
                let detail = format!("accumulator {place} was never written, but `scale-d` is true");
                let refusal = Refusal::new(FaultKind::UndefinedRegister, detail);
                return Err(Stop::at(missing.trailing_zeros() as usize, refusal));
            }
            *sum = m.registers.words[usize::from(reg.row)];
        }
    }
    let (warp, shared) = (m.warp, &mut m.common.shared);
    form.run(warp % 4, left, b, sums, |address, chunk| shared.wgmma_read(warp, address, chunk))?;
    for (reg, sum) in d.iter().zip(sums) {
        m.registers.words[usize::from(reg.row)] = *sum;
        m.registers.defined[usize::from(reg.id)] = u32::MAX;
    }
    Ok(())
}

fn resize(s: &mut Cursor<'_, '_>, grows: bool) -> Decoded {
    if s.ty()? != Type::U32 {
        return s.unknown();
    }
    s.expect(1)?;
    let count = s.number(0)?;
    if !count.is_multiple_of(8) || !(24..=256).contains(&count) {
        return Err(format!("{count} registers, expected a multiple of 8 between 24 and 256"));
    }
    let count = u32::try_from(count).map_err(|e| e.to_string())?;
    Ok(Op::Act(Box::new(move |m| {
        whole_warp(m)?;
        if !m.common.warpgroups.resize(m.warp, count, grows)? {
            return Ok(Flow::Again);
        }
        together(m, [step::RESIZE, u64::from(count), 0])?;
        m.common.events += 1;
        Ok(Flow::Next)
    })))
}
