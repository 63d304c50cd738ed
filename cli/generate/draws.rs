//! Random choices of controls: a function of the seed alone, on every machine.

use auscult_kernels::philox::philox4x32_10;

/// Last word of every counter, so that no choice shares a draw with the noise of a take.
const CONTROLS: u32 = u32::from_le_bytes(*b"ctrl");

/// A stream of random words.
pub struct Draws {
    key: [u32; 2],
    stream: [u32; 2],
    next: u32,
}

impl Draws {
    /// Stream `stream` of a seed.
    pub fn new(seed: u64, stream: [u32; 2]) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], stream, next: 0 }
    }

    fn words(&mut self) -> [u32; 4] {
        let counter = [self.next, self.stream[0], self.stream[1], CONTROLS];
        self.next += 1;
        philox4x32_10(counter, self.key)
    }

    /// So many of `pool`, each once, in random order; all of them where there are no more.
    pub fn choose(&mut self, mut pool: Vec<usize>, count: usize) -> Vec<usize> {
        let mut chosen = Vec::with_capacity(count);
        while chosen.len() < count && !pool.is_empty() {
            let [a, b, ..] = self.words();
            let wide = u64::from(a) << 32 | u64::from(b);
            // the remainder is biased by less than 2^-32
            let at = usize::try_from(wide % pool.len() as u64).expect("less than a length");
            chosen.push(pool.swap_remove(at));
        }
        chosen
    }

    /// A direction of `width` values whose length is `norm`, uniform over all directions.
    pub fn direction(&mut self, width: usize, norm: f64) -> Vec<f32> {
        let mut values = Vec::with_capacity(width + 3);
        while values.len() < width {
            let words = self.words();
            // Box and Muller
            for pair in words.chunks_exact(2) {
                let [u, v] = [pair[0], pair[1]].map(|word| (f64::from(word) + 0.5) / 2.0_f64.powi(32));
                let (radius, angle) = ((-2.0 * u.ln()).sqrt(), std::f64::consts::TAU * v);
                values.extend([radius * angle.cos(), radius * angle.sin()]);
            }
        }
        values.truncate(width);
        let scale = norm / length(&values);
        values.into_iter().map(|value| (value * scale) as f32).collect()
    }
}

/// The Euclidean length.
pub fn length(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_have_their_norm_and_no_preference() {
        let wide = Draws::new(7, [0, 1]).direction(1023, 3.0);
        let squares: f64 = wide.iter().map(|&x| f64::from(x).powi(2)).sum();
        assert!((squares.sqrt() - 3.0).abs() < 1e-5);
        // of 1023 values with a deviation of 3 / sqrt(1023): the mean within 4 of its deviations, and tails of a Gaussian
        let mean = wide.iter().map(|&x| f64::from(x)).sum::<f64>() / 1023.0;
        assert!(mean.abs() < 4.0 * 3.0 / 1023.0, "{mean}");
        let beyond = wide.iter().filter(|x| f64::from(x.abs()) > 3.0 / 1023.0_f64.sqrt()).count();
        assert!((270..380).contains(&beyond), "{beyond} of 1023 beyond one deviation, expected about 325");
        assert_ne!(wide, Draws::new(7, [0, 2]).direction(1023, 3.0));
        assert_eq!(wide, Draws::new(7, [0, 1]).direction(1023, 3.0));
    }

    #[test]
    fn choices_are_without_repetition() {
        let mut chosen = Draws::new(1, [0, 0]).choose((0..50).collect(), 50);
        assert_ne!(chosen, (0..50).collect::<Vec<_>>());
        chosen.sort_unstable();
        assert_eq!(chosen, (0..50).collect::<Vec<_>>());
        assert_eq!(Draws::new(1, [0, 0]).choose(vec![4, 5], 9).len(), 2);
    }
}
