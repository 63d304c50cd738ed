//! `mbarrier`: barrier objects in shared memory.

use super::machine::{Flow, Machine, Stop};
use super::memory::{Address, Place, shared_address};
use super::registers::Reg;
use crate::ptx_sim::fault::{FaultKind, Refusal};
use crate::ptx_sim::memory::Thread;
use crate::ptx_sim::parse::{Operand, Type};
use crate::ptx_sim::program::{Cursor, Decoded, Op};

/// Decodes an `mbarrier` instruction.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    let arrives = s.flag("arrive");
    let what = match (arrives, s.one_of(&["init", "inval", "expect_tx", "test_wait", "try_wait"])) {
        (true, None) => "arrive",
        (true, Some("expect_tx")) => "arrive.expect_tx",
        (false, Some(what)) => what,
        _ => return s.unknown(),
    };
    let order: &[&str] = match what {
        "arrive" | "arrive.expect_tx" => &["release"],
        "test_wait" | "try_wait" => &["acquire"],
        "expect_tx" => &["relaxed"],
        _ => &[],
    };
    let by_parity = what.ends_with("_wait") && s.flag("parity");
    match (s.one_of(order), s.one_of(&["cta", "cluster"])) {
        (None, None) => {}
        (Some(_), Some(_)) => s.since_version(8, 0)?,
        _ => return Err("an order goes with a scope".into()),
    }
    if what != "init" && what != "inval" && what != "arrive" && what != "test_wait" {
        s.since_sm_90()?;
    }
    s.need(&["shared", "shared::cta"])?;
    if s.ty()? != Type::B64 {
        return s.unknown();
    }
    match what {
        "init" => {
            s.expect(2)?;
            let (barrier, count) = (object(s, 0)?, s.src(1, Type::U32)?);
            Ok(each(barrier, move |m, who, at, lane| {
                let count = m.registers.words[usize::from(count.row)][lane];
                m.common.shared.mbarrier_init(who, at, count)?;
                m.common.hidden_barriers.push((at, who));
                Ok(())
            }))
        }
        "inval" => {
            s.expect(1)?;
            Ok(each(object(s, 0)?, |m, who, at, _| {
                m.common.hidden_barriers.retain(|(hidden, _)| *hidden != at);
                Ok(m.common.shared.mbarrier_inval(who, at)?)
            }))
        }
        "expect_tx" => {
            s.expect(2)?;
            let (barrier, bytes) = (object(s, 0)?, s.src(1, Type::U32)?);
            Ok(each(barrier, move |m, who, at, lane| {
                let bytes = m.registers.words[usize::from(bytes.row)][lane];
                Ok(m.common.shared.mbarrier_expect(who, at, bytes)?)
            }))
        }
        "arrive" | "arrive.expect_tx" => arrive(s, what == "arrive.expect_tx"),
        _ => wait(s, what == "try_wait", by_parity),
    }
}

/// Decodes what follows `cp.async.mbarrier`: an arrival when the copies of a thread are done.
pub fn decode_copies(s: &mut Cursor<'_, '_>) -> Decoded {
    s.need(&["arrive"])?;
    let noinc = s.flag("noinc");
    s.need(&["shared", "shared::cta"])?;
    if s.ty()? != Type::B64 {
        return s.unknown();
    }
    s.expect(1)?;
    let barrier = object(s, 0)?;
    Ok(each(barrier, move |m, who, at, _| Ok(m.common.shared.async_arrive(who, at, noinc)?)))
}

fn object(s: &mut Cursor<'_, '_>, at: usize) -> Decoded<Address> {
    let address = Address::decode(s, at)?;
    address.goes_with(Place::Shared)?;
    Ok(address)
}

/// Does something to the object of each lane.
fn each(
    barrier: Address,
    act: impl Fn(&mut Machine<'_>, Thread, u32, usize) -> Result<(), Stop> + Send + Sync + 'static,
) -> Op {
    Op::Act(Box::new(move |m| {
        m.common.shared.begin_instruction(m.warp);
        m.common.events += 1;
        for lane in m.lanes() {
            let at = shared_address(barrier.of(m, lane)).map_err(|refusal| Stop::at(lane, refusal))?;
            let who = m.thread(lane);
            act(m, who, at, lane).map_err(|stop| Stop::at(lane, stop.refusal))?;
        }
        Ok(Flow::Next)
    }))
}

fn arrive(s: &mut Cursor<'_, '_>, expects: bool) -> Decoded {
    s.expect_between(if expects { 3 } else { 2 }, 3)?;
    let state = match s.operand(0)? {
        Operand::Sink => None,
        _ => Some(s.dst(0, Type::B64)?),
    };
    let barrier = object(s, 1)?;
    let number: Option<Reg> = if s.count() == 3 { Some(s.src(2, Type::U32)?) } else { None };
    Ok(each(barrier, move |m, who, at, lane| {
        let number = number.map(|number| m.registers.words[usize::from(number.row)][lane]);
        let (count, bytes) = if expects { (1, number.unwrap_or(0)) } else { (number.unwrap_or(1), 0) };
        let phase = m.common.shared.mbarrier_arrive(who, at, count, bytes)?;
        if let Some(state) = state {
            m.registers.longs[usize::from(state.row)][lane] = phase;
        }
        Ok(())
    }))
}

fn wait(s: &mut Cursor<'_, '_>, suspends: bool, by_parity: bool) -> Decoded {
    s.expect_between(3, if suspends { 4 } else { 3 })?;
    let done = s.dst(0, Type::PRED)?;
    let barrier = object(s, 1)?;
    let phase = if by_parity { s.src(2, Type::U32)? } else { s.src(2, Type::B64)? };
    if s.count() == 4 {
        // how long it may suspend: any time is a time
        s.src(3, Type::U32)?;
    }
    Ok(Op::Act(Box::new(move |m| {
        m.common.shared.begin_instruction(m.warp);
        let mut completed = 0;
        for lane in m.lanes() {
            let fail = |refusal| Stop::at(lane, refusal);
            let at = shared_address(barrier.of(m, lane)).map_err(fail)?;
            let row = usize::from(phase.row);
            let who = m.thread(lane);
            if !m.common.may_answer(who, at) {
                continue;
            }
            let shared = &mut m.common.shared;
            let is_complete = if by_parity {
                match m.registers.words[row][lane] {
                    parity @ 0..=1 => shared.mbarrier_test(who, at, parity == 1),
                    other => Err(invalid(format!("parity {other}, expected 0 or 1"))),
                }
            } else {
                shared.mbarrier_test_state(who, at, m.registers.longs[row][lane])
            };
            if is_complete.map_err(fail)? {
                completed |= 1 << lane;
            } else {
                m.common.ask_again(who, at);
            }
        }
        let to = &mut m.registers.predicates[usize::from(done.row)];
        *to = *to & !m.mask | completed;
        // others must have a turn before it makes sense to ask again
        Ok(if completed == m.mask { Flow::Next } else { Flow::Poll })
    })))
}

fn invalid(detail: String) -> Refusal {
    Refusal::new(FaultKind::Invalid, detail)
}
