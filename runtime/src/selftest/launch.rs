//! One launch of a case: filled slots, poisoned outputs, guard words on both sides of everything.

use crate::weights::HostBytes;
use crate::{Backend, Buffer, Contents, Span};
use auscult_kernels::{Access, Case, HostSlot, Piece};

/// Number and bytes of each written slot.
pub type Outputs = Vec<(usize, Vec<u8>)>;

/// 64 words of u32 before and after each slot.
const GUARD: usize = 256;

/// Bytes a slot holds before the launch.
fn filling(case: &Case, slot: usize, poison: u8) -> Vec<u8> {
    match (&case.plan.slots[slot], case.plan.kernel.slots[slot].access) {
        (None, _) => Vec::new(),
        (Some(desc), Access::Write) => vec![poison; desc.bytes()],
        (Some(_), Access::Read | Access::ReadWrite) => case.input(slot),
    }
}

fn is_written(case: &Case, slot: usize) -> bool {
    case.plan.kernel.slots[slot].access != Access::Read && case.plan.slots[slot].is_some()
}

/// Guard bytes, no two words alike.
fn guard(seed: usize) -> impl Iterator<Item = u8> {
    let word =
        move |i: usize| (0x9e37_79b9_u32).wrapping_mul(u32::try_from(seed * 997 + i + 1).expect("few slots"));
    (0..GUARD / 4).flat_map(move |i| word(i).to_ne_bytes())
}

/// A slot in memory of its own: guard, bytes, at most three bytes of the last word, guard.
struct Guarded {
    before: Vec<u8>,
    length: usize,
    buffer: Buffer,
}

impl Guarded {
    fn new(backend: &dyn Backend, case: &Case, slot: usize, poison: u8) -> Result<Self, String> {
        let filling = filling(case, slot, poison);
        let length = filling.len();
        let mut before: Vec<u8> = guard(2 * slot).chain(filling).collect();
        // executors may write whole words
        before.resize(before.len().next_multiple_of(4), 0x77);
        before.extend(guard(2 * slot + 1));
        let buffer = if is_written(case, slot) {
            let buffer = backend.alloc(Contents::Undefined(before.len())).map_err(|e| e.to_string())?;
            backend.upload(&buffer.span(), &before).map_err(|e| e.to_string())?;
            buffer
        } else {
            let host = HostBytes::from_vec(before.clone());
            backend.alloc(Contents::Host(host)).map_err(|e| e.to_string())?
        };
        Ok(Self { before, length, buffer })
    }

    fn span(&self) -> Result<Span, String> {
        self.buffer.span().slice(GUARD, self.length).map_err(|e| e.to_string())
    }

    /// The bytes of the slot, if nothing around them changed.
    fn read(&self, backend: &dyn Backend) -> Result<Vec<u8>, String> {
        let after = backend.download(&self.buffer.span()).map_err(|e| e.to_string())?;
        if after.len() != self.before.len() {
            return Err(format!("{} bytes came back, expected {}", after.len(), self.before.len()));
        }
        let end = GUARD + self.length;
        let word_end = end.next_multiple_of(4);
        for at in (0..GUARD).chain(word_end..after.len()) {
            if after[at] != self.before[at] {
                let (side, distance) = if at < GUARD { ("before", GUARD - at) } else { ("after", at - end) };
                return Err(format!("a guard byte {side} the slot changed, {distance} bytes away"));
            }
        }
        Ok(after[GUARD..end].to_vec())
    }
}

/// Launches a case and returns what it wrote, once the guards and the slots that are only read are seen to be as they
/// were.
pub fn run(backend: &dyn Backend, case: &Case, poison: u8) -> Result<Outputs, String> {
    let kernel = case.plan.kernel;
    let mut guarded = Vec::new();
    for (slot, desc) in case.plan.slots.iter().enumerate() {
        guarded.push(match desc {
            Some(_) => Some(Guarded::new(backend, case, slot, poison)?),
            None => None,
        });
    }
    let spans: Vec<Option<Span>> =
        guarded.iter().map(|slot| slot.as_ref().map(Guarded::span).transpose()).collect::<Result<_, _>>()?;
    backend.dispatch(&case.plan, &spans).map_err(|e| e.to_string())?;
    let mut outputs = Vec::new();
    for (slot, guarded) in guarded.iter().enumerate() {
        let Some(guarded) = guarded else { continue };
        let name = kernel.slots[slot].name;
        let bytes = guarded.read(backend).map_err(|message| format!("`{name}`: {message}"))?;
        if is_written(case, slot) {
            outputs.push((slot, bytes));
        } else if bytes != guarded.before[GUARD..GUARD + guarded.length] {
            return Err(format!("`{name}` is only read, but it changed"));
        }
    }
    Ok(outputs)
}

/// Runs the reference on pieces of a launch, which together are the whole.
pub fn run_reference(case: &Case, pieces: &[Piece], poison: u8) -> Result<Outputs, String> {
    let plan = &case.plan;
    // words of 64 bits, so that every element type is aligned
    let mut memory: Vec<(Vec<u64>, usize)> = (0..plan.slots.len())
        .map(|slot| {
            let bytes = filling(case, slot, poison);
            let mut words = vec![0_u64; bytes.len().div_ceil(8)];
            bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(&bytes);
            (words, bytes.len())
        })
        .collect();
    if !plan.is_empty() {
        for piece in pieces {
            let mut slots: Vec<HostSlot<'_>> = memory
                .iter_mut()
                .zip(&piece.ranges)
                .enumerate()
                .map(|(slot, ((words, _), range))| {
                    let (at, bytes) = range.unwrap_or((0, 0));
                    let all: &mut [u8] = bytemuck::cast_slice_mut(words);
                    let part = &mut all[at..at + bytes];
                    if is_written(case, slot) { HostSlot::Write(part) } else { HostSlot::Read(part) }
                })
                .collect();
            (plan.kernel.reference)(&piece.params, &mut slots);
        }
    }
    let bytes_of = |(words, length): &(Vec<u64>, usize)| bytemuck::cast_slice(words)[..*length].to_vec();
    let outputs = memory.iter().enumerate().filter(|(slot, _)| is_written(case, *slot));
    let outputs: Outputs = outputs.map(|(slot, memory)| (slot, bytes_of(memory))).collect();
    if outputs.is_empty() {
        return Err("the plan writes nothing".into());
    }
    Ok(outputs)
}
