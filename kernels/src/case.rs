//! Shapes a kernel is tested at, and the noise its inputs are filled with.

use crate::{DType, Plan};
use half::{bf16, f16};

/// How a read slot of a case is filled. The default is noise in [-1, 1).
#[derive(Clone, Debug, PartialEq)]
pub enum Fill {
    /// Uniform in [-amp, amp).
    Noise(f32),
    /// Uniform from the first number up to the second, in f32.
    Between(f32, f32),
    /// Whole multiples of the first number, from minus the second up to it: where both are small, sums of products are
    /// exact in f32, in any order.
    Multiples(f32, u32),
    /// Whole numbers below a bound, for slots that hold indices.
    Below(u32),
    /// Distinct whole numbers 0, stride, 2 stride ... modulo the bound: a gather that visits rows out of order.
    Stepping {
        /// Distance of consecutive values; coprime to the bound.
        stride: u32,
        /// Values stay below it.
        below: u32,
    },
    /// These words, one for each element: whole numbers, or the bits of f32, which slots of bf16 round.
    Words(Vec<u32>),
    /// These words, over and over, for slots of four-byte elements.
    Cycle(&'static [u32]),
}

/// How far two executors may differ, element by element: `abs + rel * |want|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Absolute part.
    pub abs: f64,
    /// Relative part; at most 1e-2.
    pub rel: f64,
    /// Where the figure comes from.
    pub why: &'static str,
}

impl Tolerance {
    /// Bit for bit.
    pub const EXACT: Self = Self { abs: 0.0, rel: 0.0, why: "copies or whole numbers" };
}

/// One launch to test and time.
#[derive(Debug)]
pub struct Case {
    /// Why this shape.
    pub why: &'static str,
    /// The launch.
    pub plan: Plan,
    /// How each read slot is filled, in binding order of all slots; missing entries mean noise in [-1, 1).
    pub fill: Vec<(&'static str, Fill)>,
    /// Allowed difference from the reference.
    pub tolerance: Tolerance,
}

impl Case {
    /// Bytes for slot number `slot` of this case, from the generator keyed by kernel, case and slot.
    pub fn input(&self, slot: usize) -> Vec<u8> {
        let Some(desc) = &self.plan.slots[slot] else { return Vec::new() };
        let name = self.plan.kernel.slots[slot].name;
        let fill = self.fill.iter().find(|(n, _)| *n == name).map_or(&Fill::Noise(1.0), |(_, fill)| fill);
        let key = format!("{}/{}/{name}", self.plan.kernel.name, self.why);
        let n = desc.elements();
        match (desc.dtype, fill) {
            (DType::F32, &Fill::Noise(amp)) => bytes_of(noise(&key, n).map(|v| v * amp)),
            (DType::F16, &Fill::Noise(amp)) => bytes_of(noise(&key, n).map(|v| f16::from_f32(v * amp))),
            (DType::BF16, &Fill::Noise(amp)) => bytes_of(noise(&key, n).map(|v| bf16::from_f32(v * amp))),
            (DType::U32, &Fill::Below(bound)) => {
                // 24 random bits are plenty for the bounds of the cases; the modulo's bias is of no concern
                bytes_of(noise(&key, n).map(move |v| ((v + 1.0) * 8_388_608.0) as u32 % bound))
            }
            (DType::U32, &Fill::Stepping { stride, below }) => {
                bytes_of((0..n as u64).map(move |i| (i * u64::from(stride) % u64::from(below)) as u32))
            }
            (DType::F32, &Fill::Between(low, high)) => {
                bytes_of(noise(&key, n).map(move |v| low + (high - low) * (0.5 * v + 0.5)))
            }
            (DType::F32, &Fill::Multiples(of, most)) => {
                let most = most as f32;
                bytes_of(noise(&key, n).map(move |v| of * (v * (most + 1.0)).trunc().max(-most)))
            }
            (DType::BF16, &Fill::Multiples(of, most)) => {
                let most = most as f32;
                let whole = move |v: f32| (v * (most + 1.0)).trunc().max(-most);
                bytes_of(noise(&key, n).map(move |v| bf16::from_f32(of * whole(v))))
            }
            (DType::BF16, Fill::Words(words)) => {
                assert_eq!(words.len(), n, "case `{key}`: a word for each element");
                bytes_of(words.iter().map(|&word| bf16::from_f32(f32::from_bits(word))))
            }
            (DType::U32 | DType::F32, Fill::Cycle(words)) => bytes_of(words.iter().copied().cycle().take(n)),
            (DType::U32 | DType::F32, Fill::Words(words)) => {
                assert_eq!(words.len(), n, "case `{key}`: a word for each element");
                bytemuck::cast_slice(words).to_vec()
            }
            (dtype, fill) => panic!("case `{key}` asks for {fill:?} in a slot of {dtype}"),
        }
    }
}

fn bytes_of<T: bytemuck::Pod>(values: impl Iterator<Item = T>) -> Vec<u8> {
    bytemuck::cast_slice(&values.collect::<Vec<T>>()).to_vec()
}

/// `n` values uniform in [-1, 1), a function of `key` alone: splitmix64 over a hash of the key, so no two slots of any
/// two cases look alike.
pub fn noise(key: &str, n: usize) -> impl Iterator<Item = f32> + use<> {
    // FNV-1a, 64 bits
    let seed =
        key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (1..=n as u64).map(move |i| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f32 * 2.0_f32.powi(-23) - 1.0
    })
}
