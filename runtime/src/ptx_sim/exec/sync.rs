//! Barriers of blocks and warps, and fences.

use super::machine::{Flow, Machine, Stop};
use crate::ptx_sim::fault::{FaultKind, Refusal};
use crate::ptx_sim::parse::{Operand, Type};
use crate::ptx_sim::program::{Cursor, Decoded, Op};

/// Decodes a barrier or a fence.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    let of_warp = s.flag("warp");
    match s.base {
        "membar" => {
            s.need(&["cta", "gl", "sys"])?;
            s.expect(0)?;
            Ok(nothing())
        }
        "fence" => fence(s),
        _ if of_warp => {
            if s.base != "bar" {
                return s.unknown();
            }
            s.need(&["sync"])?;
            s.expect(1)?;
            let members = s.src(0, Type::B32)?;
            Ok(Op::Act(Box::new(move |m| {
                for lane in m.lanes() {
                    m.members(m.registers.words[usize::from(members.row)][lane])?;
                }
                m.common.shared.warp_sync(m.warp, m.mask);
                Ok(Flow::Next)
            })))
        }
        _ => barrier(s),
    }
}

/// Memory is ordered as the program is anyway.
fn nothing() -> Op {
    Op::Act(Box::new(|_| Ok(Flow::Next)))
}

fn fence(s: &mut Cursor<'_, '_>) -> Decoded {
    s.expect(0)?;
    if s.flag("proxy") {
        s.since_sm_90()?;
        s.need(&["async"])?;
        s.one_of(&["shared::cta", "global"]);
        return Ok(Op::Act(Box::new(|m| {
            for lane in m.lanes() {
                let who = m.thread(lane);
                m.common.shared.fence_async(who);
                m.common.show_barriers(who);
            }
            Ok(Flow::Next)
        })));
    }
    if s.flag("mbarrier_init") {
        s.since_sm_90()?;
        s.need(&["release"])?;
        s.need(&["cluster"])?;
        return Ok(Op::Act(Box::new(|m| {
            for lane in m.lanes() {
                let who = m.thread(lane);
                m.common.show_barriers(who);
            }
            Ok(Flow::Next)
        })));
    }
    s.one_of(&["acq_rel", "sc"]);
    s.need(&["cta", "gpu", "sys"])?;
    Ok(nothing())
}

/// `bar` is `barrier` with `.aligned`; both are held to all lanes of a warp coming together.
fn barrier(s: &mut Cursor<'_, '_>) -> Decoded {
    if s.flag("cta") {
        s.since_version(7, 8)?;
    }
    let waits = s.need(&["sync", "arrive"])? == "sync";
    if s.base == "barrier" {
        s.flag("aligned");
    }
    s.expect_between(if waits { 1 } else { 2 }, 2)?;
    for at in 0..s.count() {
        if let Operand::Integer(value) = s.operand(at)? {
            if at == 0 && !(0..16).contains(value) {
                return Err(format!("barrier {value}, expected 0 to 15"));
            }
            if at == 1 && (*value <= 0 || value % 32 != 0) {
                return Err(format!("{value} threads, expected a multiple of 32"));
            }
        }
    }
    let id = s.src(0, Type::U32)?;
    let count = if s.count() == 2 { Some(s.src(1, Type::U32)?) } else { None };
    Ok(Op::Act(Box::new(move |m| {
        let uniform = |row: u16| {
            let values = &m.registers.words[usize::from(row)];
            let first = values[m.mask.trailing_zeros() as usize];
            match m.lanes().find(|lane| values[*lane] != first) {
                None => Ok(first),
                Some(lane) => {
                    let detail = format!("operand {}, but another lane has {first}", values[lane]);
                    Err(Stop::at(lane, Refusal::new(FaultKind::Invalid, detail)))
                }
            }
        };
        let id = uniform(id.row)?;
        let count = count.map(|count| uniform(count.row)).transpose()?;
        arrive(m, id, count, waits)
    })))
}

/// Arrives at a barrier.
fn arrive(m: &mut Machine<'_>, id: u32, count: Option<u32>, waits: bool) -> Result<Flow, Stop> {
    m.converged()?;
    if m.live != m.present {
        let gone = m.present & !m.live;
        return Err(Stop::new(
            FaultKind::Barrier,
            format!("lanes {gone:#010x} of warp {} have exited", m.warp),
        ));
    }
    let number = id as usize;
    let common = &mut *m.common;
    let Some(barrier) = common.barriers.get_mut(number) else {
        return Err(Stop::new(FaultKind::Invalid, format!("barrier {id}, expected 0 to 15")));
    };
    let expected = match count {
        None => common.warps,
        Some(count) if count > 0 && count % 32 == 0 && count / 32 <= common.warps => count / 32,
        Some(count) => {
            let detail = format!("barrier {id} for {count} threads of {}", common.warps * 32);
            return Err(Stop::new(FaultKind::Barrier, detail));
        }
    };
    if !barrier.arrived.is_empty() && barrier.expected != expected {
        let detail = format!(
            "barrier {id} for {} threads, but warp {} is there for {}",
            expected * 32,
            barrier.arrived[0],
            barrier.expected * 32
        );
        return Err(Stop::new(FaultKind::Barrier, detail));
    }
    if barrier.arrived.contains(&m.warp) {
        let detail = format!("warp {} arrives at barrier {id} twice", m.warp);
        return Err(Stop::new(FaultKind::Barrier, detail));
    }
    barrier.expected = expected;
    barrier.arrived.push(m.warp);
    if !waits {
        barrier.passing.push(m.warp);
        common.shared.barrier_arrive(id, m.warp);
    }
    common.events += 1;
    common.counts.barriers += 1;
    if barrier.arrived.len() < expected as usize {
        return Ok(if waits { Flow::Wait(number) } else { Flow::Next });
    }
    barrier.arrived.retain(|warp| !barrier.passing.contains(warp));
    common.shared.barrier_complete(id, &barrier.arrived);
    barrier.arrived.clear();
    barrier.passing.clear();
    barrier.phase += 1;
    Ok(Flow::Next)
}
