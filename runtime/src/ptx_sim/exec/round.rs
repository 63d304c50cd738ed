//! Rounding that the host does not do by itself: to fewer bits, in any direction, and once.

use super::registers::Lane;
use half::{bf16, f16};

/// Direction of rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `.rn`: to nearest, ties to even.
    Nearest,
    /// `.rna`: to nearest, ties away from zero.
    NearestAway,
    /// `.rz`: towards zero.
    Zero,
    /// `.rm`: down.
    Down,
    /// `.rp`: up.
    Up,
}

impl Mode {
    /// The modifiers of floating point.
    pub const NAMES: [&'static str; 4] = ["rn", "rz", "rm", "rp"];

    /// The mode of a modifier, with or without the `i` of rounding to whole numbers.
    pub fn named(name: &str) -> Self {
        match name {
            "rz" | "rzi" => Self::Zero,
            "rm" | "rmi" => Self::Down,
            "rp" | "rpi" => Self::Up,
            "rna" => Self::NearestAway,
            _ => Self::Nearest,
        }
    }

    /// Rounds to a whole number.
    pub fn whole(self, value: f64) -> f64 {
        match self {
            Self::Nearest => value.round_ties_even(),
            Self::NearestAway => value.round(),
            Self::Zero => value.trunc(),
            Self::Down => value.floor(),
            Self::Up => value.ceil(),
        }
    }
}

/// A binary format narrower than binary64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Format {
    /// Bits behind the leading one.
    pub fraction: i32,
    /// Exponent of the smallest normal number.
    pub least: i32,
    /// The largest number.
    pub max: f64,
}

impl Format {
    /// binary16.
    pub const F16: Self = Self { fraction: 10, least: -14, max: 65504.0 };
    /// The upper half of a binary32.
    pub const BF16: Self = Self { fraction: 7, least: -126, max: 3.389_531_389_251_535_5e38 };
    /// binary32.
    pub const F32: Self = Self { fraction: 23, least: -126, max: f32::MAX as f64 };
    /// A binary32 of which ten bits behind the leading one count.
    pub const TF32: Self = Self { fraction: 10, least: -126, max: 3.401_162_134_214_653_5e38 };

    /// Rounds once.
    pub fn round(self, value: f64, mode: Mode) -> f64 {
        if value == 0.0 || !value.is_finite() {
            return value;
        }
        let exponent = (value.to_bits() >> 52 & 0x7ff) as i32 - 1023;
        let unit = exponent.max(self.least) - self.fraction;
        let rounded = mode.whole(value * power_of_two(-unit)) * power_of_two(unit);
        if rounded.abs() <= self.max {
            return rounded.copysign(value);
        }
        let keeps = match mode {
            Mode::Nearest | Mode::NearestAway => false,
            Mode::Zero => true,
            Mode::Down => value > 0.0,
            Mode::Up => value < 0.0,
        };
        if keeps { self.max.copysign(value) } else { f64::INFINITY.copysign(value) }
    }
}

/// 2 to a power that binary64 has as a normal number.
fn power_of_two(power: i32) -> f64 {
    f64::from_bits(((power + 1023) as u64) << 52)
}

/// binary32 from binary64.
pub fn to_f32(value: f64, mode: Mode) -> f32 {
    // what is left to convert is exact
    canonical(if mode == Mode::Nearest { value as f32 } else { Format::F32.round(value, mode) as f32 })
}

/// binary16 from binary64.
pub fn to_f16(value: f64, mode: Mode) -> f16 {
    if value.is_nan() { f16::from_bits(0x7fff) } else { f16::from_f64(Format::F16.round(value, mode)) }
}

/// The upper half of a binary32 from binary64.
pub fn to_bf16(value: f64, mode: Mode) -> bf16 {
    if value.is_nan() {
        return bf16::from_bits(0x7fff);
    }
    bf16::from_bits(((Format::BF16.round(value, mode) as f32).to_bits() >> 16) as u16)
}

/// The NaN that arithmetic gives.
#[inline(always)]
pub fn canonical(value: f32) -> f32 {
    if value.is_nan() { f32::from_bits(0x7fff_ffff) } else { value }
}

/// Subnormal numbers become zero, with their sign.
#[inline(always)]
pub fn flush(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(value) } else { value }
}

/// `.sat`: to [0, 1], NaN to 0.
#[inline(always)]
pub fn saturate(value: f32) -> f32 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

/// The sum rounded to odd, so that rounding it again to fewer bits is rounding once. Boldo and Melquiond, "Emulation of
/// FMA and Correctly Rounded Sums".
pub fn add_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let part = sum - a;
    let error = (a - (sum - part)) + (b - part);
    odd(sum, error)
}

/// The quotient rounded to odd.
pub fn div_odd(a: f64, b: f64) -> f64 {
    let quotient = a / b;
    let rest = (-quotient).mul_add(b, a);
    odd(quotient, if b < 0.0 { -rest } else { rest })
}

/// The square root rounded to odd.
pub fn sqrt_odd(a: f64) -> f64 {
    let root = a.sqrt();
    odd(root, (-root).mul_add(root, a))
}

/// `rounded` is nearest to what is exact, which lies on the side of `error`.
fn odd(rounded: f64, error: f64) -> f64 {
    if !rounded.is_finite() || error == 0.0 || error.is_nan() || rounded.to_bits() & 1 == 1 {
        rounded
    } else if error > 0.0 {
        rounded.next_up()
    } else {
        rounded.next_down()
    }
}

/// A floating-point type of registers, by way of binary64, which holds all of its values.
pub trait Float: Lane + Send + Sync + 'static {
    /// Exactly.
    fn wide(self) -> f64;
    /// Rounded once.
    fn narrow(value: f64, mode: Mode) -> Self;
    /// Subnormal numbers become zero.
    fn flushed(self) -> Self;
}

impl Float for f32 {
    fn wide(self) -> f64 {
        f64::from(self)
    }
    fn narrow(value: f64, mode: Mode) -> Self {
        to_f32(value, mode)
    }
    fn flushed(self) -> Self {
        flush(self)
    }
}

impl Float for f64 {
    fn wide(self) -> f64 {
        self
    }
    fn narrow(value: f64, _: Mode) -> Self {
        value
    }
    fn flushed(self) -> Self {
        self
    }
}

impl Float for f16 {
    fn wide(self) -> f64 {
        self.to_f64()
    }
    fn narrow(value: f64, mode: Mode) -> Self {
        to_f16(value, mode)
    }
    fn flushed(self) -> Self {
        if self.to_bits() & 0x7c00 == 0 { Self::from_bits(self.to_bits() & 0x8000) } else { self }
    }
}

impl Float for bf16 {
    fn wide(self) -> f64 {
        self.to_f64()
    }
    fn narrow(value: f64, mode: Mode) -> Self {
        to_bf16(value, mode)
    }
    fn flushed(self) -> Self {
        if self.to_bits() & 0x7f80 == 0 { Self::from_bits(self.to_bits() & 0x8000) } else { self }
    }
}
