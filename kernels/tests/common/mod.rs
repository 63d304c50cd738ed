//! Memory for host forms, and the one comparator.

// every test binary compiles this file and uses a part of it
#![allow(dead_code)]

use auscult_kernels::{Access, Case, DType, HostFn, HostSlot, Piece, Plan, Tolerance};
use half::{bf16, f16};

/// Bytes of a slot, aligned for every element type.
#[derive(Clone)]
pub struct Memory {
    words: Vec<u64>,
    len: usize,
}

impl Memory {
    /// A copy of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut memory = Self { words: vec![0; bytes.len().div_ceil(8)], len: bytes.len() };
        memory.bytes_mut().copy_from_slice(bytes);
        memory
    }

    /// `len` bytes of one value: 0xff is NaN in every float type, and past every index.
    fn poisoned(len: usize, poison: u8) -> Self {
        Self { words: vec![u64::from_ne_bytes([poison; 8]); len.div_ceil(8)], len }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}

/// The slots of a case: noise where they are read, poison where they are only written.
pub fn slots(case: &Case) -> Vec<Memory> {
    slots_over(case, 0xff)
}

fn slots_over(case: &Case, poison: u8) -> Vec<Memory> {
    let all = case.plan.kernel.slots.iter().zip(&case.plan.slots).enumerate();
    all.map(|(i, (slot, desc))| match (slot.access, desc) {
        (_, None) => Memory::of(&[]),
        (Access::Write, Some(desc)) => Memory::poisoned(desc.bytes(), poison),
        (Access::Read | Access::ReadWrite, Some(_)) => Memory::of(&case.input(i)),
    })
    .collect()
}

/// Runs `form` on one piece of a plan.
pub fn run(form: HostFn, plan: &Plan, piece: &Piece, memory: &mut [Memory]) {
    let each = plan.kernel.slots.iter().zip(memory).zip(&piece.ranges);
    let mut slots: Vec<HostSlot<'_>> = each
        .map(|((slot, memory), range)| {
            let (at, len) = range.unwrap_or((0, 0));
            match slot.access {
                Access::Read => HostSlot::Read(&memory.bytes()[at..at + len]),
                Access::Write | Access::ReadWrite => HostSlot::Write(&mut memory.bytes_mut()[at..at + len]),
            }
        })
        .collect();
    form(&piece.params, &mut slots);
}

/// Runs `form` on a whole case and returns its slots.
pub fn run_whole(form: HostFn, case: &Case) -> Vec<Memory> {
    run_over(form, case, 0xff)
}

/// The same over another filling of what is only written.
pub fn run_over(form: HostFn, case: &Case, poison: u8) -> Vec<Memory> {
    let mut memory = slots_over(case, poison);
    let pieces = case.plan.pieces(usize::MAX, 1).expect("no limit");
    assert_eq!(pieces.len(), 1, "no limit, no cut");
    run(form, &case.plan, &pieces[0], &mut memory);
    memory
}

fn values(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::F32 => bytemuck::cast_slice::<u8, f32>(bytes).iter().map(|&v| f64::from(v)).collect(),
        DType::F16 => bytemuck::cast_slice::<u8, f16>(bytes).iter().map(|v| v.to_f64()).collect(),
        DType::BF16 => bytemuck::cast_slice::<u8, bf16>(bytes).iter().map(|v| v.to_f64()).collect(),
        DType::U32 => bytemuck::cast_slice::<u8, u32>(bytes).iter().map(|&v| f64::from(v)).collect(),
        other => panic!("no kernel writes {other}"),
    }
}

/// Panics at the first element of a written slot where `got` is further from `want` than `tolerance` allows.
pub fn compare(what: &str, case: &Case, tolerance: Tolerance, got: &[Memory], want: &[Memory]) {
    assert!(tolerance.rel <= 1e-2, "a relative tolerance of {} accepts anything", tolerance.rel);
    for (slot, desc) in case.plan.outputs() {
        let (got, want) = (got[slot].bytes(), want[slot].bytes());
        let bits_differ = |i: usize| {
            let at = i * desc.dtype.size()..(i + 1) * desc.dtype.size();
            got[at.clone()] != want[at]
        };
        let pairs = values(desc.dtype, got).into_iter().zip(values(desc.dtype, want));
        for (i, (g, w)) in pairs.enumerate() {
            let fine = if !g.is_finite() || !w.is_finite() {
                (g.is_nan() && w.is_nan()) || g == w
            } else if tolerance.abs == 0.0 && tolerance.rel == 0.0 {
                !bits_differ(i)
            } else {
                (g - w).abs() <= tolerance.abs + tolerance.rel * w.abs()
            };
            let name = case.plan.kernel.slots[slot].name;
            assert!(
                fine,
                "{what}: {} ({}): `{name}`[{i}] is {g:e}, want {w:e}; {}",
                case.plan, case.why, tolerance.why
            );
        }
    }
}
