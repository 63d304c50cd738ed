//! `cp.async.bulk`: copies by the copy engine, whole or by tile, and `prefetch.tensormap`.
//!
//! A copy into shared memory is done at once, as far as bytes go; who may look at them is what the barrier object says.

use super::machine::{Flow, Machine, Map, Stop};
use super::memory::{Address, PARAM_WINDOW, Place, shared_address};
use super::registers::Reg;
use crate::ptx_sim::fault::{FaultKind, Refusal};
use crate::ptx_sim::parse::Type;
use crate::ptx_sim::program::{Cursor, Decoded, Op};
use crate::ptx_sim::tensor::tile::{Chunk, Tile};

/// Decodes what follows `cp.async.bulk`.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    s.since_sm_90()?;
    s.since_version(8, 0)?;
    if s.flag("commit_group") {
        s.expect(0)?;
        return Ok(each(|m, lane| {
            let who = m.thread(lane);
            m.common.shared.bulk_commit(who);
            Ok(())
        }));
    }
    if s.flag("wait_group") {
        // `.read` waits for less: until the source may be overwritten
        s.flag("read");
        s.expect(1)?;
        let pending = u32::try_from(s.number(0)?).unwrap_or(u32::MAX);
        return Ok(each(move |m, lane| {
            let who = m.thread(lane);
            m.common.shared.bulk_wait_read(who, pending);
            Ok(())
        }));
    }
    let rank = if s.flag("tensor") { Some(rank(s)?) } else { None };
    s.flag("tile");
    let is_load = s.flag("shared::cluster");
    if !is_load {
        s.need(&["shared::cta"])?;
    }
    s.need(&["global"])?;
    s.need(&[if is_load { "mbarrier::complete_tx::bytes" } else { "bulk_group" }])?;
    let hint = s.flag("L2::cache_hint");
    match (rank, is_load) {
        (None, _) => linear(s, is_load, hint),
        (Some(rank), _) => tiled(s, is_load, rank, hint),
    }
}

/// Decodes `prefetch.tensormap`.
pub fn decode_prefetch(s: &mut Cursor<'_, '_>) -> Decoded {
    s.since_sm_90()?;
    s.since_version(8, 0)?;
    s.flag("param");
    s.expect(1)?;
    let address = Address::decode(s, 0)?;
    Ok(each(move |m, lane| map(m, address.of(m, lane)).map(drop)))
}

fn rank(s: &mut Cursor<'_, '_>) -> Decoded<usize> {
    let names = ["1d", "2d", "3d", "4d", "5d"];
    let name = s.need(&names)?;
    Ok(1 + names.iter().position(|n| *n == name).expect("it is one of them"))
}

/// Does something for every lane that executes.
fn each(act: impl Fn(&mut Machine<'_>, usize) -> Result<(), Refusal> + Send + Sync + 'static) -> Op {
    Op::Act(Box::new(move |m| {
        m.common.shared.begin_instruction(m.warp);
        m.common.events += 1;
        for lane in m.lanes() {
            act(m, lane).map_err(|refusal| Stop::at(lane, refusal))?;
        }
        Ok(Flow::Next)
    }))
}

/// The tensor map at a generic address.
fn map<'l>(m: &Machine<'l>, address: u64) -> Result<&'l Map, Refusal> {
    let launch = m.launch;
    let found =
        launch.maps.iter().find(|map| u64::try_from(map.param).ok() == address.checked_sub(PARAM_WINDOW));
    found.ok_or_else(|| {
        let detail =
            format!("no tensor map at {address:#x}, expected the address of a parameter that is one");
        Refusal::new(FaultKind::Invalid, detail)
    })
}

fn shared_operand(s: &mut Cursor<'_, '_>, at: usize) -> Decoded<Address> {
    let address = Address::decode(s, at)?;
    address.goes_with(Place::Shared)?;
    Ok(address)
}

/// Takes the cache hint, which is last.
fn take_hint(s: &mut Cursor<'_, '_>, hint: bool, count: usize) -> Decoded<()> {
    s.expect(count + usize::from(hint))?;
    if hint {
        s.src(count, Type::B64)?;
    }
    Ok(())
}

/// `cp.async.bulk`: bytes in a row.
fn linear(s: &mut Cursor<'_, '_>, is_load: bool, hint: bool) -> Decoded {
    take_hint(s, hint, if is_load { 4 } else { 3 })?;
    let (near, far) = if is_load { (0, 1) } else { (1, 0) };
    let shared = shared_operand(s, near)?;
    let global = Address::decode(s, far)?;
    global.goes_with(Place::Global)?;
    let size = s.src(2, Type::U32)?;
    let barrier = if is_load { Some(shared_operand(s, 3)?) } else { None };
    Ok(each(move |m, lane| {
        let bytes = m.registers.words[usize::from(size.row)][lane];
        let (at, from) = (shared_address(shared.of(m, lane))?, global.of(m, lane));
        if !bytes.is_multiple_of(16) {
            let detail = format!("bulk copy of {bytes} bytes, expected a multiple of 16");
            return Err(Refusal::new(FaultKind::Invalid, detail));
        }
        if !at.is_multiple_of(16) || !from.is_multiple_of(16) {
            let detail = format!("bulk copy between {from:#x} and shared {at:#x}, expected multiples of 16");
            return Err(Refusal::new(FaultKind::Misaligned, detail));
        }
        let chunks = (0..bytes).step_by(16);
        let whole = chunks.map(|offset| Chunk {
            shared: at.wrapping_add(offset),
            global: from.wrapping_add(u64::from(offset)),
            before: 0,
            inside: 16,
        });
        match barrier {
            Some(barrier) => load(m, lane, barrier, whole),
            None => store(m, lane, whole),
        }
    }))
}

/// `cp.async.bulk.tensor`: a tile.
fn tiled(s: &mut Cursor<'_, '_>, is_load: bool, rank: usize, hint: bool) -> Decoded {
    take_hint(s, hint, if is_load { 3 } else { 2 })?;
    let (near, far) = if is_load { (0, 1) } else { (1, 0) };
    let shared = shared_operand(s, near)?;
    let (tensor, coordinates) = Address::with_coordinates(s, far)?;
    if coordinates.len() != rank {
        return Err(format!("{} coordinates, expected {rank}", coordinates.len()));
    }
    let barrier = if is_load { Some(shared_operand(s, 2)?) } else { None };
    Ok(each(move |m, lane| {
        let map = map(m, tensor.of(m, lane))?;
        let tile = Tile::new(&map.tensor, m.launch.global.address(map.window))?;
        let value = |reg: &Reg| m.registers.words[usize::from(reg.row)][lane].cast_signed();
        let coordinates: Vec<i32> = coordinates.iter().map(value).collect();
        let chunks = tile.chunks(&coordinates, shared_address(shared.of(m, lane))?)?;
        match barrier {
            Some(barrier) => load(m, lane, barrier, chunks),
            None => store(m, lane, chunks),
        }
    }))
}

/// Copies chunks into shared memory on behalf of a lane.
fn load(
    m: &mut Machine<'_>,
    lane: usize,
    barrier: Address,
    chunks: impl Iterator<Item = Chunk>,
) -> Result<(), Refusal> {
    let barrier = shared_address(barrier.of(m, lane))?;
    let who = m.thread(lane);
    if let Some((_, maker)) = m.common.hidden_barriers.iter().find(|(hidden, _)| *hidden == barrier) {
        let detail = format!(
            "mbarrier at {barrier:#x}: {maker} made it, and no `fence.mbarrier_init` or `fence.proxy.async` of its own \
             came before the copy engine uses it"
        );
        return Err(Refusal::new(FaultKind::Race, detail));
    }
    for chunk in chunks {
        let mut bytes = [0; 16];
        for (at, piece) in pieces(&chunk) {
            m.launch.global.read(at, &mut bytes[piece])?;
        }
        m.common.shared.bulk_write(who, barrier, chunk.shared, &bytes)?;
        m.common.counts.global_loaded += u64::from(chunk.inside);
        m.common.counts.global_sectors += u64::from(chunk.inside > 0);
        m.common.counts.shared_stored += 16;
    }
    Ok(())
}

/// Copies chunks out of shared memory on behalf of a lane.
fn store(m: &mut Machine<'_>, lane: usize, chunks: impl Iterator<Item = Chunk>) -> Result<(), Refusal> {
    let who = m.thread(lane);
    for chunk in chunks {
        let mut bytes = [0; 16];
        m.common.shared.bulk_read(who, chunk.shared, &mut bytes)?;
        for (at, piece) in pieces(&chunk) {
            m.launch.global.write(at, &bytes[piece])?;
        }
        m.common.counts.shared_loaded += 16;
        m.common.counts.global_stored += u64::from(chunk.inside);
        m.common.counts.global_sectors += u64::from(chunk.inside > 0);
    }
    Ok(())
}

/// The part of a chunk inside the tensor, in accesses that are aligned.
fn pieces(chunk: &Chunk) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let end = chunk.before + chunk.inside;
    let (mut at, mut global) = (chunk.before, chunk.global);
    std::iter::from_fn(move || {
        if at == end {
            return None;
        }
        let aligned = 1_u32 << global.trailing_zeros().min(4);
        let length = 1 << (end - at).min(aligned).ilog2();
        let piece = (global, at as usize..(at + length) as usize);
        at += length;
        global += u64::from(length);
        Some(piece)
    })
}
