//! Registers of a warp, a row of 32 lanes each.

use super::in_flight::InFlight;
use crate::ptx_sim::program::{Constant, Program};
use half::{bf16, f16};

/// Lanes of a warp.
pub const LANES: usize = 32;

/// A register of a program: which row of which file, and its number among all that may be undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg {
    /// Row in the file of its width.
    pub row: u16,
    /// Index of its mask of defined lanes; 0 for constants.
    pub id: u16,
}

/// Registers of one warp. 16-bit ones live in the lower half of a word.
pub struct Registers {
    /// The vector unit that loops over lanes are compiled for.
    pub arch: pulp::Arch,
    /// Up to 32 bits.
    pub words: Vec<[u32; LANES]>,
    /// 64 bits.
    pub longs: Vec<[u64; LANES]>,
    /// A bit for each lane.
    pub predicates: Vec<u32>,
    /// Lanes of each register that were written.
    pub defined: Vec<u32>,
    /// Which of them `wgmma` is at work on.
    pub in_flight: InFlight,
}

/// What constants and special registers are worth in a warp.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Index of the block.
    pub block: [u32; 3],
    /// Blocks of the launch.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: [u32; 3],
    /// Number of the warp in its block.
    pub warp: u32,
    /// Multiprocessor of the block, and how many there are.
    pub multiprocessor: (u32, u32),
    /// Bytes of dynamic and of all shared memory.
    pub shared: (u32, u32),
}

impl Registers {
    /// Rows for a program.
    pub fn new(program: &Program) -> Self {
        Self {
            arch: pulp::Arch::new(),
            words: vec![[0; LANES]; program.files.words],
            longs: vec![[0; LANES]; program.files.longs],
            predicates: vec![0; program.files.predicates],
            defined: vec![0; program.files.registers],
            in_flight: InFlight::new(if program.has_wgmma { program.files.registers } else { 0 }),
        }
    }

    /// As at the start of a warp: nothing defined but constants.
    pub fn reset(&mut self, program: &Program, place: &Place) {
        self.in_flight.reset();
        self.defined.fill(0);
        self.defined[0] = u32::MAX;
        for (row, constant) in &program.constants {
            let row = usize::from(*row);
            match constant {
                Constant::Word(value) => self.words[row] = [*value; LANES],
                Constant::Long(value) => self.longs[row] = [*value; LANES],
                Constant::Predicate(value) => self.predicates[row] = if *value { u32::MAX } else { 0 },
                Constant::Special(special) => self.words[row] = special.row(place),
            }
        }
    }
}

/// A value of one lane, and the row it is kept in.
pub trait Lane: Copy {
    /// All lanes.
    type Row: Copy;
    /// A row to fill.
    const EMPTY: Self::Row;
    /// Reads a register.
    fn row(registers: &Registers, row: u16) -> Self::Row;
    /// One lane of a row.
    fn get(row: &Self::Row, lane: usize) -> Self;
    /// Sets one lane of a row that was empty.
    fn set(row: &mut Self::Row, lane: usize, value: Self);
    /// Writes the lanes of `mask`.
    fn put(registers: &mut Registers, row: u16, mask: u32, values: &Self::Row);
}

macro_rules! word {
    ($($ty:ty: $bits:ident => $from:expr, $value:ident => $to:expr;)*) => {$(
        impl Lane for $ty {
            type Row = [u32; LANES];
            const EMPTY: Self::Row = [0; LANES];
            #[inline(always)]
            fn row(registers: &Registers, row: u16) -> Self::Row {
                registers.words[usize::from(row)]
            }
            #[inline(always)]
            fn get(row: &Self::Row, lane: usize) -> Self {
                let $bits = row[lane];
                $from
            }
            #[inline(always)]
            fn set(row: &mut Self::Row, lane: usize, $value: Self) {
                row[lane] = $to;
            }
            #[inline(always)]
            fn put(registers: &mut Registers, row: u16, mask: u32, values: &Self::Row) {
                let to = &mut registers.words[usize::from(row)];
                if mask == u32::MAX {
                    *to = *values;
                } else {
                    for lane in 0..LANES {
                        to[lane] = if mask >> lane & 1 != 0 { values[lane] } else { to[lane] };
                    }
                }
            }
        }
    )*};
}

macro_rules! long {
    ($($ty:ty: $bits:ident => $from:expr, $value:ident => $to:expr;)*) => {$(
        impl Lane for $ty {
            type Row = [u64; LANES];
            const EMPTY: Self::Row = [0; LANES];
            #[inline(always)]
            fn row(registers: &Registers, row: u16) -> Self::Row {
                registers.longs[usize::from(row)]
            }
            #[inline(always)]
            fn get(row: &Self::Row, lane: usize) -> Self {
                let $bits = row[lane];
                $from
            }
            #[inline(always)]
            fn set(row: &mut Self::Row, lane: usize, $value: Self) {
                row[lane] = $to;
            }
            #[inline(always)]
            fn put(registers: &mut Registers, row: u16, mask: u32, values: &Self::Row) {
                let to = &mut registers.longs[usize::from(row)];
                if mask == u32::MAX {
                    *to = *values;
                } else {
                    for lane in 0..LANES {
                        to[lane] = if mask >> lane & 1 != 0 { values[lane] } else { to[lane] };
                    }
                }
            }
        }
    )*};
}

word! {
    u32: bits => bits, value => value;
    i32: bits => bits as i32, value => value as u32;
    f32: bits => f32::from_bits(bits), value => value.to_bits();
    u16: bits => bits as u16, value => u32::from(value);
    i16: bits => bits as i16, value => u32::from(value as u16);
    f16: bits => f16::from_bits(bits as u16), value => u32::from(value.to_bits());
    bf16: bits => bf16::from_bits(bits as u16), value => u32::from(value.to_bits());
}

long! {
    u64: bits => bits, value => value;
    i64: bits => bits as i64, value => value as u64;
    f64: bits => f64::from_bits(bits), value => value.to_bits();
}

impl Lane for bool {
    type Row = u32;
    const EMPTY: u32 = 0;
    #[inline(always)]
    fn row(registers: &Registers, row: u16) -> u32 {
        registers.predicates[usize::from(row)]
    }
    #[inline(always)]
    fn get(row: &u32, lane: usize) -> bool {
        row >> lane & 1 != 0
    }
    #[inline(always)]
    fn set(row: &mut u32, lane: usize, value: bool) {
        *row |= u32::from(value) << lane;
    }
    #[inline(always)]
    fn put(registers: &mut Registers, row: u16, mask: u32, values: &u32) {
        let to = &mut registers.predicates[usize::from(row)];
        *to = *to & !mask | values & mask;
    }
}
