//! Weights that need no file: every value follows from its tensor's name, bit for bit as
//! `tests/golden/procedural.py` makes it.

use half::{bf16, f16};

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// 64-bit FNV-1a of the bytes of `text`.
pub fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finaliser of splitmix64.
fn splitmix64(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `count` values in [0, 1), multiples of 2^-24.
pub fn uniform(name: &str, count: usize) -> impl Iterator<Item = f32> {
    let seed = fnv1a64(name);
    (1..=count as u64).map(move |i| {
        let bits = splitmix64(seed.wrapping_add(i.wrapping_mul(GOLDEN_GAMMA))) >> 40;
        // 24 bits: exact in f32.
        bits as f32 * (1.0 / 16_777_216.0)
    })
}

/// How the values of a checkpoint are stored in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    F32,
    F16,
    Bf16,
}

impl Stored {
    /// The name that a safetensors header gives the type.
    pub fn header_name(self) -> &'static str {
        match self {
            Stored::F32 => "F32",
            Stored::F16 => "F16",
            Stored::Bf16 => "BF16",
        }
    }

    /// The name that config.json gives the type.
    pub fn config_name(self) -> &'static str {
        match self {
            Stored::F32 => "float32",
            Stored::F16 => "float16",
            Stored::Bf16 => "bfloat16",
        }
    }

    /// Bytes a value.
    pub fn size(self) -> usize {
        match self {
            Stored::F32 => 4,
            Stored::F16 | Stored::Bf16 => 2,
        }
    }

    /// The value that a reader of this type gets back, rounded to nearest even.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Stored::F32 => value,
            Stored::F16 => f16::from_f32(value).to_f32(),
            Stored::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// Appends the value's little-endian bytes.
    pub fn append(self, value: f32, bytes: &mut Vec<u8>) {
        match self {
            Stored::F32 => bytes.extend(value.to_le_bytes()),
            Stored::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
            Stored::Bf16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
        }
    }
}

/// One weight of a golden case, as its manifest lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightSpec {
    /// The name that files on the hub carry (`weight_g`, `weight_v`).
    pub name: String,
    /// Row-major dimensions.
    pub shape: Vec<usize>,
    /// Centre of the values.
    pub mean: f32,
    /// Half of their range.
    pub amp: f32,
    /// The name that seeds the values; differs from `name` for tied tensors.
    pub hash_name: String,
}

impl WeightSpec {
    /// Values in the tensor.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The values: `(u * 2 - 1) * amp + mean`, one f32 rounding an operation.
    pub fn values(&self) -> impl Iterator<Item = f32> + '_ {
        uniform(&self.hash_name, self.count()).map(|u| (u * 2.0 - 1.0) * self.amp + self.mean)
    }
}
