//! Conversions of matrix elements, branch-free so that loops over them vectorise.

use super::Kind;

/// The NaN that matrix instructions produce here, whatever the operands' payloads.
pub const NAN: u32 = 0x7fff_ffff;

/// binary16 as binary32, exact.
#[inline]
pub fn f16(bits: u16) -> f32 {
    /// 2^112 moves the exponent's bias from 15 to 127 and normalises subnormals on the way.
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * REBIAS).to_bits();
    let special = magnitude | 0x7f80_0000;
    f32::from_bits(sign | if magnitude >= 31 << 23 { special } else { finite })
}

/// bfloat16 as binary32, exact.
#[inline]
pub fn bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// What a matrix instruction sees of a register given as tf32: the low 13 bits count for nothing.
#[inline]
pub fn tf32(bits: u32) -> f32 {
    f32::from_bits(bits & 0xffff_e000)
}

/// The two elements of a register, low half first.
#[inline]
pub fn pair(kind: Kind, bits: u32) -> [f32; 2] {
    let [low, high] = halves(bits);
    match kind {
        Kind::F16 => [f16(low), f16(high)],
        Kind::Bf16 => [bf16(low), bf16(high)],
        Kind::Tf32 => unreachable!("a register holds one tf32"),
    }
}

/// The halves of a register, low half first.
#[inline]
pub fn halves(bits: u32) -> [u16; 2] {
    let [a, b, c, d] = bits.to_le_bytes();
    [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
}

/// The bits of `value` rounded to binary32, to nearest even; any NaN becomes [`NAN`].
#[inline]
pub fn round(value: f64) -> u32 {
    // `as` rounds to nearest even
    let bits = (value as f32).to_bits();
    if value.is_nan() { NAN } else { bits }
}

#[cfg(test)]
mod tests {
    use super::{bf16, f16, halves, round, tf32};

    #[test]
    fn every_half_is_what_the_half_crate_says() {
        for bits in 0..=u16::MAX {
            let want = half::f16::from_bits(bits).to_f32();
            let got = f16(bits);
            assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{bits:#x}");
            let want = half::bf16::from_bits(bits).to_f32();
            let got = bf16(bits);
            assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{bits:#x}");
        }
    }

    #[test]
    fn tf32_drops_thirteen_bits_towards_zero() {
        assert_eq!(tf32(0x3f80_1fff), 1.0);
        assert_eq!(tf32(0xbf80_3fff), -(1.0 + 2f32.powi(-10)));
    }

    #[test]
    fn rounding_is_to_nearest_even_and_nan_has_one_form() {
        let ulp = 2f64.powi(-23);
        assert_eq!(round(1.0 + ulp / 2.0), 1f32.to_bits());
        assert_eq!(round(1.0 + 1.5 * ulp), (1.0 + 2.0 * ulp as f32).to_bits());
        assert_eq!(round(f64::NAN), 0x7fff_ffff);
        assert_eq!(round(1e300), f32::INFINITY.to_bits());
    }

    #[test]
    fn the_low_half_comes_first() {
        assert_eq!(halves(0x1234_5678), [0x5678, 0x1234]);
    }
}
