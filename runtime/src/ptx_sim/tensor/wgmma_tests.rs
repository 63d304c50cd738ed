use half::{bf16, f16};

use super::{Kind, Left, Major, Register, Sign, Wgmma};
use crate::ptx_sim::fault::{FaultKind, Refusal};

fn value(seed: u32, row: u32, column: u32) -> f32 {
    let mixed = (row * 31 + column * 17 + seed * 7 + row * column) % 19;
    f32::from(i16::try_from(mixed).unwrap()) - 9.0
}

fn encode(kind: Kind, value: f32) -> Vec<u8> {
    match kind {
        Kind::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        Kind::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        Kind::Tf32 => value.to_le_bytes().to_vec(),
    }
}

/// Shared memory, and how matrices are laid out in it by someone who has not read `operand.rs`.
struct Memory(Vec<u8>);

/// Where element (mn, k) lies: CuTe's atoms tiled along both axes, `patterns` of them along `mn`.
#[derive(Clone, Copy, Debug)]
struct Layout {
    start: u32,
    /// Chunks of a row; 1 is no swizzle.
    width: u32,
    major: Major,
    extent: u32,
}

impl Layout {
    /// 16-byte chunks (fast, slow) of an element, fast along the major direction, then the bytes in the chunk.
    fn address(&self, size: u32, mn: u32, k: u32) -> u32 {
        let (along, across) = if self.major == Major::K { (k, mn) } else { (mn, k) };
        let (chunk, byte) = (along * size / 16, along * size % 16);
        // atoms of 8 lines of `width` chunks; atoms follow one another along `mn`, then along k
        let atoms = if self.major == Major::K {
            across / 8 + chunk / self.width * (self.extent / 8)
        } else {
            chunk / self.width + across / 8 * (self.extent * size / 16 / self.width).max(1)
        };
        let line = across % 8;
        // a 64-byte row and its neighbour share a 128-byte line of banks, four 32-byte rows do
        let moved = (chunk % self.width) ^ (line * self.width / 8);
        self.start + atoms * 128 * self.width + line * 16 * self.width + 16 * moved + byte
    }

    fn descriptor(&self, size: u32, k: u32) -> u64 {
        let atom = 128 * u64::from(self.width);
        let mode = match self.width {
            1 => 0,
            2 => 3,
            4 => 2,
            _ => 1,
        };
        let along_mn = u64::from((self.extent * size / 16 / self.width).max(1));
        let (leading, stride) = match (self.major, self.width) {
            (Major::K, 1) => (atom * u64::from(self.extent / 8), atom),
            (Major::K, _) => (0, atom),
            (Major::Mn, 1) => (atom * along_mn, atom),
            (Major::Mn, _) => (atom, atom * along_mn),
        };
        // the first chunk of a later k is reached by its unswizzled distance from the first
        let start = match self.major {
            Major::K if self.width == 1 => self.start + k * size / 16 * 128 * (self.extent / 8),
            Major::K => self.start + k * size,
            Major::Mn => self.start + k / 8 * 128 * self.width * u32::try_from(along_mn).unwrap(),
        };
        u64::from(start >> 4) | leading >> 4 << 16 | stride >> 4 << 32 | mode << 62
    }
}

impl Memory {
    fn fill(&mut self, kind: Kind, layout: Layout, depth: u32, element: impl Fn(u32, u32) -> f32) {
        for mn in 0..layout.extent {
            for k in 0..depth {
                let at = layout.address(kind.size(), mn, k) as usize;
                let bytes = encode(kind, element(mn, k));
                self.0[at..][..bytes.len()].copy_from_slice(&bytes);
            }
        }
    }

    fn read(&self, address: u32, chunk: &mut [u8; 16]) -> Result<(), Refusal> {
        let bytes = self
            .0
            .get(address as usize..)
            .and_then(|rest| rest.get(..16))
            .ok_or_else(|| Refusal { kind: FaultKind::OutOfBounds, detail: format!("{address:#x}") })?;
        chunk.copy_from_slice(bytes);
        Ok(())
    }
}

/// Row and column of accumulator i of a lane of a warp, as the ISA gives them.
fn place(warp: u32, lane: u32, i: u32) -> (u32, u32) {
    (16 * warp + (lane >> 2) + 8 * (i / 2 % 2), 8 * (i / 4) + (lane % 4) * 2 + (i & 1))
}

/// Multiplies the last k of two matrices two instructions deep, and compares every accumulator of every warp.
fn check(kind: Kind, n: u32, a: (Major, u32), b: (Major, u32), signs: [Sign; 2], left_in_registers: bool) {
    let (k, size) = (32 / kind.size(), kind.size());
    // unswizzled or narrow layouts start off the larger patterns, which must not matter
    let start = |width: u32, at: u32| if width == 8 { at } else { at + 256 * width };
    let layout_a = Layout { start: start(a.1, 0x1000), width: a.1, major: a.0, extent: 64 };
    let layout_b = Layout { start: start(b.1, 0x8000), width: b.1, major: b.0, extent: n };
    let mut memory = Memory(vec![0xff; 0x18000]);
    memory.fill(kind, layout_a, 2 * k, |mn, k| value(1, mn, k));
    memory.fill(kind, layout_b, 2 * k, |mn, k| value(2, mn, k));
    // a second k inside a swizzled row exists only from 64 bytes on; elsewhere it is another pattern
    let first = if (a.0 == Major::K && a.1 == 2) || (b.0 == Major::K && b.1 == 2) { 0 } else { k };
    let form = Wgmma { kind, n, signs, majors: [a.0, b.0] };
    for warp in 0..4 {
        let fragment: [Register; 4] = std::array::from_fn(|i| {
            std::array::from_fn(|lane| {
                let (i, lane) = (u32::try_from(i).unwrap(), u32::try_from(lane).unwrap());
                let row = 16 * warp + lane / 4 + 8 * (i % 2);
                let column =
                    first + if size == 4 { lane % 4 + 4 * (i / 2) } else { 2 * (lane % 4) + 8 * (i / 2) };
                let mut bytes = encode(kind, value(1, row, column));
                bytes.extend(encode(kind, value(1, row, column + 1)));
                u32::from_le_bytes(bytes[..4].try_into().unwrap())
            })
        });
        let left = if left_in_registers {
            Left::Registers(&fragment)
        } else {
            Left::Shared(layout_a.descriptor(size, first))
        };
        let mut d: Vec<Register> = (0..form.registers())
            .map(|i| std::array::from_fn(|lane| f32::to_bits((lane as u32 * 3 + i) as f32)))
            .collect();
        form.run(warp, left, layout_b.descriptor(size, first), &mut d, |at, chunk| memory.read(at, chunk))
            .unwrap();
        for (i, register) in (0..).zip(&d) {
            for (lane, bits) in (0..).zip(register) {
                let (row, column) = place(warp, lane, i);
                let sum: f32 = (first..first + k).map(|k| value(1, row, k) * value(2, column, k)).sum();
                let sum = if signs[0] == signs[1] { sum } else { -sum };
                let want = sum + (lane * 3 + i) as f32;
                assert_eq!(f32::from_bits(*bits), want, "{form:?} {a:?} {b:?} row {row} column {column}");
            }
        }
    }
}

const PLUS: [Sign; 2] = [Sign::Plus, Sign::Plus];

#[test]
fn k_major_of_every_swizzle_and_width() {
    for kind in [Kind::F16, Kind::Bf16, Kind::Tf32] {
        for width in [1, 2, 4, 8] {
            for n in [8, 64, 72, 256] {
                check(kind, n, (Major::K, width), (Major::K, width), PLUS, false);
            }
        }
    }
}

#[test]
fn mn_major_of_every_swizzle() {
    for width in [1, 2, 4, 8] {
        for n in [64, 128, 192, 256] {
            check(Kind::F16, n, (Major::Mn, width), (Major::Mn, width), PLUS, false);
            check(Kind::Bf16, n, (Major::K, 8), (Major::Mn, width), PLUS, false);
            check(Kind::F16, n, (Major::Mn, width), (Major::K, 4), PLUS, false);
        }
    }
}

#[test]
fn the_left_operand_may_lie_in_registers() {
    for (kind, major) in [(Kind::F16, Major::Mn), (Kind::Bf16, Major::K), (Kind::Tf32, Major::K)] {
        check(kind, 64, (Major::K, 8), (major, 8), PLUS, true);
    }
}

#[test]
fn one_negated_operand_negates_the_product() {
    for signs in [[Sign::Minus, Sign::Plus], [Sign::Plus, Sign::Minus], [Sign::Minus, Sign::Minus]] {
        check(Kind::F16, 16, (Major::K, 8), (Major::K, 8), signs, false);
    }
}

#[test]
fn one_element_by_hand() {
    // A[37][3] = 2 alone: 128-byte swizzle at 0x400, chunk 0 of row 37 lies at chunk 37 % 8 = 5.
    // B[21][3] = 5 alone (column 21), at 0x4000: chunk 0 at chunk 5 too. D[37][21] = 10: warp 2, row 5 of 16,
    // so lane 4 * 5 + 2 = 22 (column 21 = 16 + 4 + 1), register 8 + 1.
    let mut memory = Memory(vec![0; 0x8000]);
    memory.0[0x400 + 37 * 128 + 5 * 16 + 6..][..2].copy_from_slice(&f16::from_f32(2.0).to_le_bytes());
    memory.0[0x4000 + 21 * 128 + 5 * 16 + 6..][..2].copy_from_slice(&f16::from_f32(5.0).to_le_bytes());
    let form = Wgmma { kind: Kind::F16, n: 24, signs: PLUS, majors: [Major::K; 2] };
    for warp in 0..4 {
        let mut d = vec![[0; 32]; 12];
        let (a, b) = (1 << 62 | 64 << 32 | 0x40, 1 << 62 | 64 << 32 | 0x400);
        form.run(warp, Left::Shared(a), b, &mut d, |at, chunk| memory.read(at, chunk)).unwrap();
        for (i, register) in d.iter().enumerate() {
            for (lane, bits) in register.iter().enumerate() {
                let want = if (warp, i, lane) == (2, 9, 22) { 10.0 } else { 0.0 };
                assert_eq!(f32::from_bits(*bits), want, "warp {warp} register {i} lane {lane}");
            }
        }
    }
}

#[test]
fn sizes_that_do_not_exist_are_refused() {
    for n in [0, 4, 12, 264] {
        let form = Wgmma { kind: Kind::F16, n, signs: PLUS, majors: [Major::K; 2] };
        assert_eq!(
            form.check().unwrap_err().to_string(),
            format!("invalid: `n` is {n}, expected a multiple of 8 between 8 and 256")
        );
    }
}
