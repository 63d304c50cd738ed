//! `cp.async`: copies from global to shared memory that arrive later.

use super::bulk;
use super::machine::{Flow, Stop};
use super::mbarrier;
use super::memory::{Address, Place, Way, account, shared_address};
use super::registers::LANES;
use crate::ptx_sim::fault::{FaultKind, Refusal};
use crate::ptx_sim::parse::Type;
use crate::ptx_sim::program::{Cursor, Decoded, Op};

/// Decodes `cp.async` and its waits, and `cp.async.bulk`.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    s.need(&["async"])?;
    if s.flag("bulk") {
        return bulk::decode(s);
    }
    if s.flag("mbarrier") {
        return mbarrier::decode_copies(s);
    }
    if s.flag("commit_group") {
        s.expect(0)?;
        return Ok(Op::Act(Box::new(|m| {
            for lane in m.lanes() {
                let who = m.thread(lane);
                m.common.shared.async_commit(who);
            }
            Ok(Flow::Next)
        })));
    }
    let all = s.flag("wait_all");
    if all || s.flag("wait_group") {
        s.expect(usize::from(!all))?;
        let pending = if all { 0 } else { s.number(0)? };
        let pending = u32::try_from(pending).map_err(|_| format!("{pending} groups"))?;
        return Ok(Op::Act(Box::new(move |m| {
            for lane in m.lanes() {
                let who = m.thread(lane);
                if all {
                    m.common.shared.async_commit(who);
                }
                m.common.shared.async_wait(who, pending);
            }
            Ok(Flow::Next)
        })));
    }
    copy(s)
}

fn copy(s: &mut Cursor<'_, '_>) -> Decoded {
    let level = s.need(&["ca", "cg"])?;
    if s.one_of(&["shared", "shared::cta"]).is_none() || !s.flag("global") {
        return s.unknown();
    }
    if s.one_of(&["L2::64B", "L2::128B", "L2::256B"]).is_some() {
        s.since_version(7, 4)?;
    }
    s.expect_between(3, 4)?;
    let to = Address::decode(s, 0)?;
    to.goes_with(Place::Shared)?;
    let from = Address::decode(s, 1)?;
    from.goes_with(Place::Global)?;
    let size = s.number(2)?;
    let bytes = match (level, size) {
        (_, 16) => 16,
        ("ca", 8) => 8,
        ("ca", 4) => 4,
        _ => return Err(format!("{size} bytes at once do not go with .{level}")),
    };
    let kept = if s.count() == 4 { Some(s.src(3, Type::U32)?) } else { None };
    Ok(Op::Act(Box::new(move |m| {
        let (mut sources, mut targets) = ([0; LANES], [0; LANES]);
        m.common.shared.begin_instruction(m.warp);
        let mut read_by = 0;
        for lane in m.lanes() {
            let fail = |refusal| Stop::at(lane, refusal);
            let (at, source) = (to.of(m, lane), from.of(m, lane));
            (targets[lane], sources[lane]) = (at, source);
            let kept = kept.map_or(bytes, |kept| m.registers.words[usize::from(kept.row)][lane] as usize);
            if kept > bytes {
                let detail = format!("{kept} of {bytes} bytes are copied");
                return Err(fail(Refusal::new(FaultKind::Invalid, detail)));
            }
            // what is not copied is zero
            let mut buffer = [0; 16];
            if kept > 0 {
                if !source.is_multiple_of(bytes as u64) {
                    let detail = format!("cp.async of {bytes} bytes from {source:#x}");
                    return Err(fail(Refusal::new(FaultKind::Misaligned, detail)));
                }
                // bytes that are left out are not touched: they may lie behind the end of the memory
                let mut done = 0;
                while done < kept {
                    let piece = match kept - done {
                        n if n >= 16 => 16,
                        n if n >= 8 => 8,
                        n if n >= 4 => 4,
                        n if n >= 2 => 2,
                        _ => 1,
                    };
                    m.launch
                        .global
                        .read(source + done as u64, &mut buffer[done..done + piece])
                        .map_err(fail)?;
                    done += piece;
                }
                read_by |= 1 << lane;
            }
            let who = m.thread(lane);
            let at = shared_address(at).map_err(fail)?;
            m.common.shared.async_copy(who, at, &buffer[..bytes]).map_err(fail)?;
        }
        account(m, Place::Shared, &targets, bytes, Way::Store);
        let mask = std::mem::replace(&mut m.mask, read_by);
        account(m, Place::Global, &sources, bytes, Way::Load);
        m.mask = mask;
        Ok(Flow::Next)
    })))
}
