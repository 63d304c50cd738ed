//! Random weights that depend on nothing but a seed, a tensor's name and an element's index, so that any program can
//! rebuild any of them, in any order and on any number of threads, bit for bit.
//!
//! `w[i] = (2 u - 1) amp + mean` in f32, each operation rounded by itself, with
//! `u = (splitmix64(h + (i + 1) 0x9E3779B97F4A7C15) >> 40) 2^-24` and `h = fnv1a64(name) xor splitmix64(seed)`.
//! The finaliser of 0 is 0, so seed 0 hashes the name alone. `splitmix64` is the finaliser of Steele, Lea and Flood,
//! "Fast splittable pseudorandom number generators" (2014); `fnv1a64` is the 64-bit Fowler-Noll-Vo hash.

/// The 64-bit FNV-1a hash of a name.
pub fn fnv1a64(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// The finaliser of splitmix64: a bijection of 64-bit words that maps 0 to 0.
pub const fn splitmix64(word: u64) -> u64 {
    let z = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One tensor's stream of uniform numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(u64);

impl Stream {
    /// The stream of tensor `name` under `seed`.
    pub fn new(seed: u64, name: &str) -> Self {
        Self(fnv1a64(name) ^ splitmix64(seed))
    }

    /// The number of element `index`, in [0, 1), a multiple of 2^-24.
    pub fn uniform(self, index: u64) -> f32 {
        let counter = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bits = splitmix64(self.0.wrapping_add(counter)) >> 40;
        // 24 bits are exact in f32
        bits as f32 * (1.0 / 16_777_216.0)
    }

    /// Writes elements `start ..` of the tensor into `out`, uniform in `mean - amp .. mean + amp`.
    pub fn fill(self, start: u64, mean: f32, amp: f32, out: &mut [f32]) {
        for (value, index) in out.iter_mut().zip(start..) {
            *value = (self.uniform(index) * 2.0 - 1.0) * amp + mean;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_numbers_are_those_of_an_independent_implementation() {
        // computed by the same formulas in Python integers and numpy float32
        assert_eq!(fnv1a64("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a64("decoder.lm_heads.0.weight"), 0x71a5_c516_3b64_5430);
        let head = |name: &str, count: u64| -> Vec<f32> {
            (0..count).map(|i| Stream::new(0, name).uniform(i)).collect()
        };
        let expected = [
            0.371_730_923_652_648_9,
            0.998_122_274_875_640_9,
            0.992_106_497_287_750_2,
            0.685_940_861_701_965_3,
        ];
        assert_eq!(head("a", 4), expected.map(|u: f64| u as f32));
        let expected = [0.190_863_609_313_964_84, 0.819_297_909_736_633_3, 0.702_275_276_184_082];
        assert_eq!(head("decoder.lm_heads.0.weight", 3), expected.map(|u: f64| u as f32));
    }

    #[test]
    fn seeds_and_names_give_streams_of_their_own() {
        let head = |seed, name| -> Vec<u32> {
            (0..16).map(|i| Stream::new(seed, name).uniform(i).to_bits()).collect()
        };
        assert_eq!(head(7, "x"), head(7, "x"));
        assert_ne!(head(7, "x"), head(8, "x"));
        assert_ne!(head(7, "x"), head(7, "y"));
    }

    #[test]
    fn a_tensor_filled_in_pieces_is_the_tensor_filled_at_once() {
        let stream = Stream::new(3, "layer.weight");
        let mut whole = [0.0; 37];
        stream.fill(0, 1.0, 0.2, &mut whole);
        let mut pieces = [0.0; 37];
        let (head, tail) = pieces.split_at_mut(11);
        stream.fill(11, 1.0, 0.2, tail);
        stream.fill(0, 1.0, 0.2, head);
        assert_eq!(whole, pieces);
        assert!(whole.iter().all(|w| (0.8..=1.2).contains(w)));
    }
}
