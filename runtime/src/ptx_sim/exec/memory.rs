//! Loads, stores, and addresses of state spaces.

use super::lanes::unary;
use super::machine::{Flow, Machine, Stop};
use super::registers::{LANES, Reg};
use crate::ptx_sim::fault::{FaultKind, Refusal};
use crate::ptx_sim::parse::{Fit, Meaning, Operand, Type};
use crate::ptx_sim::program::{Base, Constant, Cursor, Decoded, Op};

/// Generic addresses of shared memory begin here.
pub const SHARED_WINDOW: u64 = 0x7f00_0000_0000_0000;

/// Generic addresses of parameters begin here.
pub const PARAM_WINDOW: u64 = 0x7e00_0000_0000_0000;

/// State space of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `.global`.
    Global,
    /// `.shared`.
    Shared,
    /// `.param`.
    Param,
    /// None is named: the address tells.
    Generic,
}

/// An address of every lane.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    base: Base,
    offset: i64,
}

impl Address {
    /// Decodes an address operand.
    pub fn decode(s: &mut Cursor<'_, '_>, at: usize) -> Decoded<Self> {
        let (base, offset) = s.address(at)?;
        Ok(Self { base, offset })
    }

    /// Decodes an address operand with the coordinates of a tile.
    pub fn with_coordinates(s: &mut Cursor<'_, '_>, at: usize) -> Decoded<(Self, Vec<Reg>)> {
        let Operand::Memory { base, offset, coordinates } = s.operand(at)?.clone() else {
            return Err(format!("operand {} is no address", at + 1));
        };
        let base = s.base(&base)?;
        let coordinates = coordinates.iter().map(|c| s.src_operand(c, Type::S32, Fit::Same));
        Ok((Self { base, offset }, coordinates.collect::<Decoded<_>>()?))
    }

    /// Refuses a base that a space cannot have.
    pub fn goes_with(self, place: Place) -> Decoded<()> {
        let goes = match self.base {
            Base::Long(_) => true,
            Base::Word(_) => place == Place::Shared,
            Base::Shared(_) => matches!(place, Place::Shared | Place::Generic),
            Base::Param(_) => place == Place::Param,
        };
        if goes { Ok(()) } else { Err("an address of another state space".into()) }
    }

    /// The addresses of all lanes; those of lanes that do not execute mean nothing.
    #[inline]
    fn row(self, m: &Machine<'_>) -> [u64; LANES] {
        match self.base {
            Base::Long(reg) => {
                m.registers.longs[usize::from(reg.row)].map(|base| base.wrapping_add_signed(self.offset))
            }
            Base::Word(reg) => m.registers.words[usize::from(reg.row)]
                .map(|base| u64::from(base.wrapping_add(self.offset as u32))),
            Base::Shared(_) | Base::Param(_) => [self.of(m, 0); LANES],
        }
    }

    /// The address in a lane.
    #[inline]
    pub fn of(self, m: &Machine<'_>, lane: usize) -> u64 {
        match self.base {
            Base::Long(reg) => m.registers.longs[usize::from(reg.row)][lane].wrapping_add_signed(self.offset),
            // shared addresses wrap at 32 bits
            Base::Word(reg) => {
                let base = m.registers.words[usize::from(reg.row)][lane];
                u64::from(base.wrapping_add(self.offset as u32))
            }
            Base::Shared(address) => u64::from(address.wrapping_add(self.offset as u32)),
            Base::Param(offset) => PARAM_WINDOW.wrapping_add_signed(self.offset) + offset as u64,
        }
    }
}

/// Takes the state space.
pub fn place(s: &mut Cursor<'_, '_>) -> Place {
    match s.one_of(&["global", "shared", "shared::cta", "param", "param::entry"]) {
        Some("global") => Place::Global,
        Some("shared" | "shared::cta") => Place::Shared,
        Some(_) => Place::Param,
        None => Place::Generic,
    }
}

/// Takes modifiers that say how memory is ordered; whether the access is one that another thread may answer.
pub fn ordering(s: &mut Cursor<'_, '_>, names: &[&str]) -> Decoded<bool> {
    let Some(order) = s.one_of(names) else { return Ok(false) };
    let scope = s.one_of(&["cta", "cluster", "gpu", "sys"]);
    let scoped = matches!(order, "relaxed" | "acquire" | "release" | "acq_rel");
    if scoped != scope.is_some() {
        return Err(format!(".{order} {} a scope", if scoped { "needs" } else { "takes no" }));
    }
    Ok(order != "weak")
}

/// Takes hints that change nothing but speed.
fn hints(s: &mut Cursor<'_, '_>, is_load: bool) -> Decoded<()> {
    let levels: &[&str] = if is_load { &["ca", "cg", "cs", "lu", "cv"] } else { &["wb", "cg", "cs", "wt"] };
    s.one_of(levels);
    let newer =
        ["L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last", "L1::no_allocate"];
    if s.one_of(&newer).is_some() {
        s.since_version(7, 4)?;
    }
    if is_load && s.one_of(&["L2::64B", "L2::128B", "L2::256B"]).is_some() {
        s.since_version(7, 4)?;
    }
    Ok(())
}

/// Decodes a load, a store or a prefetch.
pub fn decode(s: &mut Cursor<'_, '_>) -> Decoded {
    if s.base == "prefetch" {
        s.expect(1)?;
        let place = place(s);
        s.need(&["L1", "L2"])?;
        Address::decode(s, 0)?.goes_with(place)?;
        // nothing is read, and an address beyond everything is allowed
        return Ok(Op::Act(Box::new(|_| Ok(Flow::Next))));
    }
    let is_load = s.base == "ld";
    let order: &[&str] = if is_load {
        &["weak", "volatile", "relaxed", "acquire"]
    } else {
        &["weak", "volatile", "relaxed", "release"]
    };
    let polls = ordering(s, order)? && is_load;
    let place = place(s);
    hints(s, is_load)?;
    if is_load && s.flag("nc") && place != Place::Global {
        return Err(".nc goes with .global".into());
    }
    let width = match s.one_of(&["v2", "v4"]) {
        None => 1,
        Some("v2") => 2,
        Some(_) => 4,
    };
    let ty = s.ty()?;
    let known =
        ty.is_integer() || ty.meaning == Meaning::Bits || (ty.meaning == Meaning::Float && ty.bits >= 32);
    if !known || (place == Place::Param && !is_load) {
        return s.unknown();
    }
    if width * ty.bytes() > 16 {
        return Err(format!("{} bytes at once, expected at most 16", width * ty.bytes()));
    }
    s.expect(2)?;
    let address = Address::decode(s, if is_load { 1 } else { 0 })?;
    address.goes_with(place)?;
    let values = s.operand(if is_load { 0 } else { 1 })?.clone();
    let parts = match values {
        Operand::Vector(parts) if parts.len() == width && width > 1 => parts,
        Operand::Vector(parts) => return Err(format!("{} values, expected {width}", parts.len())),
        single if width == 1 => vec![single],
        _ => return Err(format!("one value, expected {width}")),
    };
    if is_load { load(s, place, ty, address, &parts, polls) } else { store(s, place, ty, address, &parts) }
}

/// Where a loaded element goes.
#[derive(Clone, Copy)]
struct Target {
    reg: Reg,
    long: bool,
}

fn load(
    s: &mut Cursor<'_, '_>,
    place: Place,
    ty: Type,
    address: Address,
    parts: &[Operand<'_>],
    polls: bool,
) -> Decoded {
    let mut targets = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        if *part == Operand::Sink {
            targets.push(None);
            continue;
        }
        let reg = s.dst_part(parts, i, ty, Fit::Wider)?;
        let long = s.register_type(part).is_some_and(|register| register.bits == 64);
        targets.push(Some(Target { reg, long }));
    }
    if let (Place::Param, Base::Param(offset)) = (place, address.base) {
        let at = i64::try_from(offset).map_err(|e| e.to_string())? + address.offset;
        s.param_range(at, ty.bytes() * parts.len())?;
    }
    let bytes = ty.bytes();
    let total = bytes * parts.len();
    let words: Option<Vec<Reg>> =
        targets.iter().map(|t| t.filter(|t| bytes == 4 && !t.long).map(|t| t.reg)).collect();
    match (place, words.as_deref()) {
        (Place::Shared | Place::Global, Some(&[a])) => return Ok(load_words(place, address, [a], polls)),
        (Place::Shared | Place::Global, Some(&[a, b])) => {
            return Ok(load_words(place, address, [a, b], polls));
        }
        (Place::Shared | Place::Global, Some(&[a, b, c, d])) => {
            return Ok(load_words(place, address, [a, b, c, d], polls));
        }
        _ => {}
    }
    Ok(Op::Act(Box::new(move |m| {
        let mut addresses = [0; LANES];
        if place == Place::Shared {
            m.common.shared.begin_instruction(m.warp);
        }
        for lane in m.lanes() {
            let at = address.of(m, lane);
            addresses[lane] = at;
            let mut buffer = [0_u8; 16];
            read(m, place, lane, at, &mut buffer[..total])?;
            for (i, target) in targets.iter().enumerate() {
                let Some(Target { reg, long }) = target else { continue };
                let row = usize::from(reg.row);
                let value = element(&buffer[i * bytes..(i + 1) * bytes], ty);
                if *long {
                    m.registers.longs[row][lane] = value;
                } else {
                    m.registers.words[row][lane] = value as u32;
                }
            }
        }
        account(m, place, &addresses, total, Way::Load);
        Ok(if polls { Flow::Poll } else { Flow::Next })
    })))
}

/// Loads of 32-bit registers, which are nearly all there are, with the number of bytes known to the compiler.
fn load_words<const N: usize>(place: Place, address: Address, to: [Reg; N], polls: bool) -> Op {
    let shared = place == Place::Shared;
    Op::Act(Box::new(move |m| {
        let addresses = address.row(m);
        if shared {
            m.common.shared.begin_instruction(m.warp);
        }
        for lane in m.lanes() {
            let mut buffer = [[0_u8; 4]; N];
            let into = buffer.as_flattened_mut();
            if shared {
                let who = m.thread(lane);
                shared_address(addresses[lane]).and_then(|at| m.common.shared.read(who, at, into))
            } else {
                m.launch.global.read(addresses[lane], into)
            }
            .map_err(|refusal| Stop::at(lane, refusal))?;
            for (reg, word) in to.iter().zip(buffer) {
                m.registers.words[usize::from(reg.row)][lane] = u32::from_le_bytes(word);
            }
        }
        account(m, place, &addresses, 4 * N, Way::Load);
        Ok(if polls { Flow::Poll } else { Flow::Next })
    }))
}

/// Stores of 32-bit registers.
fn store_words<const N: usize>(place: Place, address: Address, from: [Reg; N]) -> Op {
    let shared = place == Place::Shared;
    Op::Act(Box::new(move |m| {
        let addresses = address.row(m);
        if shared {
            m.common.shared.begin_instruction(m.warp);
        }
        m.common.events += 1;
        for lane in m.lanes() {
            let buffer = from.map(|reg| m.registers.words[usize::from(reg.row)][lane].to_le_bytes());
            let bytes = buffer.as_flattened();
            if shared {
                let who = m.thread(lane);
                shared_address(addresses[lane]).and_then(|at| m.common.shared.write(who, at, bytes))
            } else {
                m.launch.global.write(addresses[lane], bytes)
            }
            .map_err(|refusal| Stop::at(lane, refusal))?;
        }
        account(m, place, &addresses, 4 * N, Way::Store);
        Ok(Flow::Next)
    }))
}

/// An element of memory as 64 bits: extended by its sign or by zeros, cut to the register later.
fn element(bytes: &[u8], ty: Type) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    let value = u64::from_le_bytes(word);
    let spare = 64 - 8 * bytes.len() as u32;
    if ty.is_signed() { ((value << spare) as i64 >> spare) as u64 } else { value }
}

fn store(s: &mut Cursor<'_, '_>, place: Place, ty: Type, address: Address, parts: &[Operand<'_>]) -> Decoded {
    let mut sources = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let reg = s.src_part(parts, i, ty, Fit::Wider)?;
        let long = s.register_type(part).map_or(ty.bits, |register| register.bits) == 64;
        sources.push(Target { reg, long });
    }
    let bytes = ty.bytes();
    let total = bytes * parts.len();
    let words: Vec<Reg> = sources.iter().filter(|s| bytes == 4 && !s.long).map(|s| s.reg).collect();
    match (place, words.as_slice()) {
        (Place::Shared | Place::Global, &[a]) if parts.len() == 1 => {
            return Ok(store_words(place, address, [a]));
        }
        (Place::Shared | Place::Global, &[a, b]) if parts.len() == 2 => {
            return Ok(store_words(place, address, [a, b]));
        }
        (Place::Shared | Place::Global, &[a, b, c, d]) => {
            return Ok(store_words(place, address, [a, b, c, d]));
        }
        _ => {}
    }
    Ok(Op::Act(Box::new(move |m| {
        let mut addresses = [0; LANES];
        if place == Place::Shared {
            m.common.shared.begin_instruction(m.warp);
        }
        m.common.events += 1;
        for lane in m.lanes() {
            let mut buffer = [0_u8; 16];
            for (i, Target { reg, long }) in sources.iter().enumerate() {
                let row = usize::from(reg.row);
                let value = if *long {
                    m.registers.longs[row][lane]
                } else {
                    u64::from(m.registers.words[row][lane])
                };
                buffer[i * bytes..(i + 1) * bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            }
            let at = address.of(m, lane);
            addresses[lane] = at;
            write(m, place, lane, at, &buffer[..total])?;
        }
        account(m, place, &addresses, total, Way::Store);
        Ok(Flow::Next)
    })))
}

/// The space an address lies in, and the address there.
pub fn resolve(place: Place, address: u64) -> (Place, u64) {
    match place {
        Place::Generic if address >= SHARED_WINDOW => (Place::Shared, address - SHARED_WINDOW),
        Place::Generic if address >= PARAM_WINDOW => (Place::Param, address),
        Place::Generic => (Place::Global, address),
        _ => (place, address),
    }
}

/// A shared address of 64 bits as the 32 that count.
pub fn shared_address(address: u64) -> Result<u32, Refusal> {
    u32::try_from(address).map_err(|_| {
        let hint = if address >= SHARED_WINDOW { ", a generic address" } else { "" };
        Refusal::new(FaultKind::OutOfBounds, format!("shared address {address:#x}{hint}"))
    })
}

/// Reads for one lane.
#[inline]
pub fn read(m: &mut Machine<'_>, place: Place, lane: usize, at: u64, into: &mut [u8]) -> Result<(), Stop> {
    let (place, at) = resolve(place, at);
    let who = m.thread(lane);
    match place {
        Place::Global | Place::Generic => m.launch.global.read(at, into),
        Place::Shared => shared_address(at).and_then(|at| m.common.shared.read(who, at, into)),
        Place::Param => param(m, at, into),
    }
    .map_err(|refusal| Stop::at(lane, refusal))
}

/// Writes for one lane.
#[inline]
pub fn write(m: &mut Machine<'_>, place: Place, lane: usize, at: u64, bytes: &[u8]) -> Result<(), Stop> {
    let (place, at) = resolve(place, at);
    let who = m.thread(lane);
    match place {
        Place::Global | Place::Generic => m.launch.global.write(at, bytes),
        Place::Shared => shared_address(at).and_then(|at| m.common.shared.write(who, at, bytes)),
        Place::Param => Err(Refusal::new(FaultKind::Invalid, "a parameter is written")),
    }
    .map_err(|refusal| Stop::at(lane, refusal))
}

fn param(m: &Machine<'_>, at: u64, into: &mut [u8]) -> Result<(), Refusal> {
    let offset = usize::try_from(at.wrapping_sub(PARAM_WINDOW)).unwrap_or(usize::MAX);
    let end = offset.saturating_add(into.len());
    let Some(bytes) = m.launch.params.get(offset..end) else {
        return Err(Refusal::new(
            FaultKind::OutOfBounds,
            format!("param: {} bytes at {offset:#x}", into.len()),
        ));
    };
    if !offset.is_multiple_of(into.len()) {
        return Err(Refusal::new(
            FaultKind::Misaligned,
            format!("param: {} bytes at {offset:#x}", into.len()),
        ));
    }
    if m.launch.maps.iter().any(|map| map.param < end && offset < map.param + 128) {
        return Err(Refusal::new(FaultKind::Invalid, "param: the bytes of a tensor map have no meaning"));
    }
    into.copy_from_slice(bytes);
    Ok(())
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To registers.
    Load,
    /// To memory.
    Store,
}

/// Counts what an access of a warp moved.
pub fn account(m: &mut Machine<'_>, place: Place, addresses: &[u64; LANES], bytes: usize, way: Way) {
    let first = addresses[m.mask.trailing_zeros() as usize % LANES];
    let total = u64::from(m.mask.count_ones()) * bytes as u64;
    // mostly neighbours in order
    let in_row = m.mask == u32::MAX
        && bytes >= 4
        && (0..LANES).fold(true, |so_far, lane| so_far & (addresses[lane] == first + (lane * bytes) as u64));
    match (resolve(place, first).0, way) {
        (Place::Shared, _) => {
            if !in_row {
                m.common.counts.bank_conflicts += bank_conflicts(m.mask, addresses, bytes);
            }
            match way {
                Way::Load => m.common.counts.shared_loaded += total,
                Way::Store => m.common.counts.shared_stored += total,
            }
        }
        (Place::Param, _) => {}
        (_, way) => {
            let row = (first + total).div_ceil(32) - first / 32;
            m.common.counts.global_sectors += if in_row { row } else { sectors(m.mask, addresses) };
            match way {
                Way::Load => m.common.counts.global_loaded += total,
                Way::Store => m.common.counts.global_stored += total,
            }
        }
    }
}

/// Sectors of 32 bytes that a warp touches; an access lies within one.
fn sectors(mask: u32, addresses: &[u64; LANES]) -> u64 {
    let mut seen = [0; LANES];
    let mut count = 0;
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
        let sector = addresses[lane] / 32;
        // neighbours mostly share one, so the latest are looked at first
        if !seen[..count].iter().rev().any(|s| *s == sector) {
            seen[count] = sector;
            count += 1;
        }
    }
    count as u64
}

/// Turns beyond the first that 32 banks of 4 bytes take: 128 bytes of lanes go at once.
fn bank_conflicts(mask: u32, addresses: &[u64; LANES], bytes: usize) -> u64 {
    let together = (128 / bytes.max(4)).min(LANES);
    let mut extra = 0;
    for group in (0..LANES).step_by(together) {
        let (mut last, mut turns) = ([u64::MAX; 32], [0_u8; 32]);
        for lane in (group..group + together).filter(|lane| mask >> lane & 1 != 0) {
            for word in addresses[lane] / 4..(addresses[lane] + bytes as u64).div_ceil(4) {
                let bank = (word % 32) as usize;
                if last[bank] != word {
                    last[bank] = word;
                    turns[bank] += 1;
                }
            }
        }
        extra += u64::from(turns.into_iter().max().unwrap_or(0).saturating_sub(1));
    }
    extra
}

/// Decodes `cvta`.
pub fn decode_cvta(s: &mut Cursor<'_, '_>) -> Decoded {
    let to = s.flag("to");
    let space = s.need(&["global", "shared", "shared::cta", "param"])?;
    if s.ty()? != Type::U64 {
        return s.unknown();
    }
    s.expect(2)?;
    let d = s.dst(0, Type::U64)?;
    let a = match s.operand(1)?.clone() {
        Operand::Shared(number, offset) if !to => {
            let address = s.shared_address(number, offset);
            s.constant(Constant::Long(u64::from(address)))?
        }
        _ => s.src_register(1, Type::U64)?,
    };
    Ok(match (space, to) {
        ("shared" | "shared::cta", false) => Op::Lanes(unary(d, a, |a: u64| a.wrapping_add(SHARED_WINDOW))),
        ("shared" | "shared::cta", true) => Op::Lanes(unary(d, a, |a: u64| a.wrapping_sub(SHARED_WINDOW))),
        // global memory and parameters lie where generic addresses say
        _ => Op::Lanes(unary(d, a, |a: u64| a)),
    })
}
