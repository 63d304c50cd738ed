//! Philox 4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
//! 1, 2, 3" (2011): a number of a stream depends on its place in it alone, so rows, steps and codebooks draw without
//! regard to what else is drawn, on any device.

/// Multipliers of the first and third word.
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// What the key grows by from round to round: the golden ratio, and sqrt(3) - 1.
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// Four random words, a function of `counter` and `key` alone.
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let wide = |multiplier: u32, word: u32| {
        let product = u64::from(multiplier) * u64::from(word);
        ((product >> 32) as u32, product as u32)
    };
    let ([mut a, mut b, mut c, mut d], [mut k, mut l]) = (counter, key);
    for _ in 0..10 {
        let (high_a, low_a) = wide(MULTIPLIERS[0], a);
        let (high_c, low_c) = wide(MULTIPLIERS[1], c);
        [a, b, c, d] = [high_c ^ b ^ k, low_c, high_a ^ d ^ l, low_a];
        k = k.wrapping_add(WEYL[0]);
        l = l.wrapping_add(WEYL[1]);
    }
    [a, b, c, d]
}

/// A random word as a number in [0, 1): its upper 24 bits, which f32 holds exactly.
pub fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 * 2.0_f32.powi(-24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_answers() {
        // Random123, `kat_vectors`: nominal philox4x32 10
        let zero = [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8];
        assert_eq!(philox4x32_10([0; 4], [0; 2]), zero);
        let ones = [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd];
        assert_eq!(philox4x32_10([u32::MAX; 4], [u32::MAX; 2]), ones);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let answer = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(philox4x32_10(pi, [0xa409_3822, 0x299f_31d0]), answer);
    }

    #[test]
    fn uniform_numbers_are_below_one() {
        assert_eq!(uniform(0xff), 0.0);
        assert_eq!(uniform(0x8000_00ff), 0.5);
        assert_eq!(uniform(u32::MAX), 1.0_f32.next_down());
    }
}
