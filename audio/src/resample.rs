//! Band-limited resampling of a mono stream between two fixed rates.
//!
//! The work is rubato's synchronous FFT resampler in f64: each block is transformed, multiplied by the spectrum of a
//! sinc under a squared Blackman-Harris window, cut or extended to the new rate and transformed back, block after
//! block by overlap-add. For a fixed ratio it is exact in time (no interpolation between filter phases) and faster
//! than a sinc table. f64 keeps its own noise below f32's last bit, so results do not depend on which SIMD path the
//! FFT takes.
//!
//! Measured by `tests/resample.rs` with 20 s linear sweeps, with N the lower of the two Nyquist frequencies, for 44.1,
//! 48, 22.05, 8, 96 and 768 kHz to 32 kHz and 44.1 to 24 kHz (asserted there at -130 dB):
//!
//! - pass band to 0.97 N: the output differs from the analytic sweep by at most -142 dB of its amplitude, which bounds
//!   ripple (below 0.000001 dB), phase, delay, images and aliases together; what is left is f32's last bit;
//! - -6 dB between 0.986 N and 0.992 N;
//! - from 1.001 N up: at most -137 dB of the sweep is left after folding.
//!
//! It is not a converter for drifting clocks, and it does not dither.

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

use crate::AudioError;

/// Fewest samples of a block at the lower of the two rates. It sets the filter's length, thus the transition band:
/// 1024 gives a pass band of 0.97 of Nyquist.
const LEAST_BLOCK: u64 = 1024;

/// A streaming resampler. Output sample 0 is time 0 of the input (its delay is taken off exactly), and `n` input
/// samples give exactly `ceil(n * to / from)` output samples. Equal rates pass every bit through. The output does not
/// depend on how the input is cut into blocks.
pub struct Resampler {
    from: u32,
    to: u32,
    engine: Option<Engine>,
    taken: u64,
    given: u64,
}

/// The FFT resampler with its block buffers; absent when the rates are equal.
struct Engine {
    fft: Fft<f64>,
    /// Input collected for the next block, `block_in` long when full.
    pending: Vec<f64>,
    block_in: usize,
    out: Vec<f64>,
    /// Output samples of the filter's delay still to be dropped.
    delay_left: usize,
}

impl Resampler {
    /// A resampler from `from` Hz to `to` Hz.
    ///
    /// # Errors
    /// [`AudioError::Window`] for a rate outside [`crate::SAMPLE_RATES`]; [`AudioError::Resample`] if rubato refuses.
    pub fn new(from: u32, to: u32) -> Result<Self, AudioError> {
        for (field, rate) in [("from rate", from), ("to rate", to)] {
            if !crate::SAMPLE_RATES.contains(&rate) {
                return Err(crate::window::usage(field, format!("{rate} Hz"), crate::RATE_RANGE));
            }
        }
        let engine = if from == to { None } else { Some(Engine::new(from, to)?) };
        Ok(Resampler { from, to, engine, taken: 0, given: 0 })
    }

    /// What was done, for records: the method and its parameters.
    pub fn describe(&self) -> String {
        match &self.engine {
            None => format!("none ({} Hz already)", self.to),
            Some(e) => format!(
                "rubato {} FFT, {} Hz to {} Hz, f64, window BlackmanHarris2, block {} to {}, cutoff {:.6} of the \
                 lower Nyquist, delay compensated, length ceil(n * {} / {})",
                RUBATO,
                self.from,
                self.to,
                e.block_in,
                e.out.len(),
                e.cutoff(),
                self.to,
                self.from
            ),
        }
    }

    /// Rate of the input, in Hz.
    pub fn from(&self) -> u32 {
        self.from
    }

    /// Rate of the output, in Hz.
    pub fn to(&self) -> u32 {
        self.to
    }

    /// Output length for `n` input samples: `ceil(n * to / from)`.
    pub fn output_len(&self, n: u64) -> u64 {
        let exact = (u128::from(n) * u128::from(self.to)).div_ceil(u128::from(self.from));
        u64::try_from(exact).expect("a stream shorter than 2^54 samples")
    }

    /// Takes input samples and appends what is ready to `out`.
    ///
    /// # Errors
    /// [`AudioError::Resample`] from rubato.
    pub fn push(&mut self, mut input: &[f32], out: &mut Vec<f32>) -> Result<(), AudioError> {
        self.taken += input.len() as u64;
        if self.engine.is_none() {
            out.extend_from_slice(input);
            self.given = self.taken;
            return Ok(());
        }
        while !input.is_empty() {
            let engine = self.engine.as_mut().expect("rates differ");
            let room = engine.block_in - engine.pending.len();
            let (now, later) = input.split_at(room.min(input.len()));
            engine.pending.extend(now.iter().map(|&x| f64::from(x)));
            input = later;
            if engine.pending.len() == engine.block_in {
                self.run(u64::MAX, out)?;
            }
        }
        Ok(())
    }

    /// Ends the stream: appends the rest to `out`, so that all of it is `ceil(n * to / from)` long. A resampler is
    /// finished once; what is pushed later starts no new stream.
    ///
    /// # Errors
    /// [`AudioError::Resample`] from rubato.
    pub fn finish(&mut self, out: &mut Vec<f32>) -> Result<(), AudioError> {
        let total = self.output_len(self.taken);
        while self.given < total {
            let engine = self.engine.as_mut().expect("equal rates give as they take");
            engine.pending.resize(engine.block_in, 0.0);
            self.run(total - self.given, out)?;
        }
        Ok(())
    }

    /// Runs the full block in `pending`, appending at most `most` samples.
    fn run(&mut self, most: u64, out: &mut Vec<f32>) -> Result<(), AudioError> {
        let engine = self.engine.as_mut().expect("rates differ");
        let block =
            engine.run().map_err(|reason| AudioError::Resample { from: self.from, to: self.to, reason })?;
        let block = &block[..block.len().min(usize::try_from(most).unwrap_or(usize::MAX))];
        out.extend(block.iter().map(|&x| x as f32));
        self.given += block.len() as u64;
        Ok(())
    }
}

/// The resampler's version, as recorded.
const RUBATO: &str = "5.0";

impl Engine {
    fn new(from: u32, to: u32) -> Result<Self, AudioError> {
        let refuse = |reason: String| AudioError::Resample { from, to, reason };
        let divisor = gcd(from, to);
        let (unit_in, unit_out) = (u64::from(from / divisor), u64::from(to / divisor));
        // An even number of units makes both blocks even: the filter's centre, half a block, is then a whole number
        // of samples at both rates, and the delay can be taken off exactly.
        let units = LEAST_BLOCK.div_ceil(unit_in.min(unit_out)).next_multiple_of(2);
        let size = |n: u64| usize::try_from(n).map_err(|e| refuse(e.to_string()));
        let (rate_in, rate_out) = (size(from.into())?, size(to.into())?);
        let fft = Fft::<f64>::new_custom(
            rate_in,
            rate_out,
            size(units * unit_in)?,
            1,
            1,
            WindowFunction::BlackmanHarris2,
            FixedSync::Both,
        )
        .map_err(|e| refuse(e.to_string()))?;
        let block_in = fft.input_frames_next();
        let out = vec![0.0; fft.output_frames_next()];
        let delay_left = fft.output_delay();
        Ok(Engine { fft, pending: Vec::with_capacity(block_in), block_in, out, delay_left })
    }

    /// Cutoff as a fraction of the lower Nyquist frequency.
    fn cutoff(&self) -> f64 {
        let ratio = self.block_in as f64 / self.out.len() as f64;
        f64::from(self.fft.cutoff()) * ratio.max(1.0)
    }

    /// Resamples the block in `pending`, empties it, and returns the output after the filter's delay.
    fn run(&mut self) -> Result<&[f64], String> {
        let frames = self.out.len();
        let input = SequentialSlice::new(&self.pending[..], 1, self.block_in).map_err(|e| e.to_string())?;
        let mut output = SequentialSlice::new_mut(&mut self.out[..], 1, frames).map_err(|e| e.to_string())?;
        self.fft.process_into_buffer(&input, &mut output, None).map_err(|e| e.to_string())?;
        self.pending.clear();
        let skip = self.delay_left.min(frames);
        self.delay_left -= skip;
        Ok(&self.out[skip..])
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Resamples a whole signal at once.
///
/// # Errors
/// As [`Resampler::new`] and [`Resampler::push`].
pub fn resample(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>, AudioError> {
    let mut resampler = Resampler::new(from, to)?;
    let mut out = Vec::new();
    resampler.push(samples, &mut out)?;
    resampler.finish(&mut out)?;
    Ok(out)
}
