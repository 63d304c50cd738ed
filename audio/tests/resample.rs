//! The resampler against an analytic sweep: pass band, edge, rejection, delay, length, and independence of blocks.

use auscult_audio::resample::resample;
use auscult_audio::{AudioError, Resampler};
use std::f64::consts::TAU;

/// Seconds of the sweep.
const LONG: f64 = 20.0;

/// A linear sweep from `low` to `high` Hz over `LONG` seconds, at time `t`: the phase is the integral of frequency.
fn sweep(t: f64, low: f64, high: f64) -> f64 {
    0.5 * (TAU * (low * t + (high - low) * t * t / (2.0 * LONG))).sin()
}

/// What a sweep shows of one pair of rates. Frequencies are fractions of the lower Nyquist frequency; errors are
/// relative to the sweep's amplitude.
struct Measured {
    /// Largest difference from the analytic sweep up to 0.97, in dB: ripple, phase, delay, images, aliases.
    pass: f64,
    /// Lowest fraction at which the amplitude is 6 dB down; infinite if the sweep does not get there.
    edge: f64,
    /// Largest output at or above 1.001 (in what is left of it after folding), in dB.
    stop: f64,
}

/// Resamples a sweep over `low..high`, in fractions of the lower Nyquist frequency.
fn measure(from: u32, to: u32, low: f64, high: f64) -> Measured {
    let nyquist = f64::from(from.min(to)) / 2.0;
    let ideal = |t: f64| sweep(t, low * nyquist, high * nyquist);
    let input: Vec<f32> =
        (0..(LONG * f64::from(from)) as usize).map(|i| ideal(i as f64 / f64::from(from)) as f32).collect();
    let output = resample(&input, from, to).unwrap();
    assert_eq!(output.len(), (LONG * f64::from(to)) as usize);
    let (mut pass, mut stop, mut edge) = (0f64, 0f64, f64::INFINITY);
    for (i, &y) in output.iter().enumerate() {
        let t = i as f64 / f64::from(to);
        // Within a filter's length of its ends the sweep is no band-limited signal.
        if !(0.2..=LONG - 0.2).contains(&t) {
            continue;
        }
        let fraction = low + (high - low) * t / LONG;
        if fraction <= 0.97 {
            pass = pass.max((f64::from(y) - ideal(t)).abs());
        }
        if fraction >= 1.001 {
            stop = stop.max(f64::from(y).abs());
        }
        if fraction > 0.9 {
            let power: f64 = output[i..i + 400].iter().map(|&y| f64::from(y).powi(2)).sum::<f64>() / 400.0;
            // 0.5 / sqrt 2 is the sweep's RMS; half of it is 6 dB down.
            if power.sqrt() < 0.25 / 2f64.sqrt() {
                edge = edge.min(fraction);
            }
        }
    }
    let db = |x: f64| 20.0 * (x / 0.5).log10();
    Measured { pass: db(pass), edge, stop: db(stop) }
}

#[test]
fn the_pass_band_is_flat_the_edge_is_at_nyquist_and_nothing_folds_back() {
    for (from, to, why) in [
        (44_100, 32_000, "CDs into MusicGen"),
        (48_000, 32_000, "video sound into MusicGen"),
        (22_050, 32_000, "half-rate files, upwards: images"),
        (8_000, 32_000, "telephone rate, upwards by a whole factor"),
        (768_000, 32_000, "the highest rate read"),
        (96_000, 32_000, "studio rate, by a whole factor"),
        (44_100, 24_000, "CDs into the 24 kHz codec"),
    ] {
        let top = f64::from(from) / f64::from(from.min(to));
        // Around the edge slowly: a sweep that crosses it within the filter's length measures itself.
        let near = measure(from, to, 0.0, top.min(1.5));
        println!("{from} -> {to}: pass {:.1} dB, edge {:.4}, stop {:.1} dB", near.pass, near.edge, near.stop);
        assert!(near.pass < -130.0, "{from} -> {to} ({why}): pass band error {:.1} dB", near.pass);
        assert!(near.edge > 0.985, "{from} -> {to} ({why}): -6 dB at {:.4}", near.edge);
        if top > 1.0 {
            assert!(near.edge < 1.0, "{from} -> {to} ({why}): -6 dB at {:.4}", near.edge);
            assert!(near.stop < -130.0, "{from} -> {to} ({why}): {:.1} dB folded back", near.stop);
        }
        if top > 1.5 {
            let far = measure(from, to, 1.4, top);
            println!("{from} -> {to}: beyond 1.4 {:.1} dB", far.stop);
            assert!(far.stop < -130.0, "{from} -> {to} ({why}): {:.1} dB folded back", far.stop);
        }
    }
}

#[test]
fn an_impulse_stays_where_it_is() {
    // Input sample 441 k lies exactly on output sample 320 k: its response peaks there and is symmetric.
    let mut input = vec![0f32; 44_100];
    input[441 * 30] = 1.0;
    let output = resample(&input, 44_100, 32_000).unwrap();
    let peak = 320 * 30;
    let largest = output.iter().copied().fold(0f32, f32::max);
    assert_eq!(output[peak], largest);
    for k in 1..640 {
        // f64 arithmetic rounded to f32 once on each side.
        let error = (output[peak + k] - output[peak - k]).abs();
        assert!(error <= 2f32.powi(-24), "{k}: {error}");
    }
}

/// Noise that has no pattern a block size could hide behind.
fn noise(len: usize) -> Vec<f32> {
    let mut state = 0x2545_f491u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn the_length_is_exact() {
    for (from, to) in
        [(44_100, 32_000), (8_000, 32_000), (48_000, 24_000), (11_025, 32_000), (1_000, 768_000)]
    {
        for n in [0, 1, 2, 3, 146, 147, 441, 1023, 1764, 1765, 5003] {
            let want = (n as u64 * u64::from(to)).div_ceil(u64::from(from));
            let got = resample(&noise(n), from, to).unwrap().len() as u64;
            assert_eq!(got, want, "{n} samples from {from} to {to}");
            assert_eq!(Resampler::new(from, to).unwrap().output_len(n as u64), want);
        }
    }
}

#[test]
fn blocks_of_any_size_give_the_same_bits() {
    let input = noise(20_011);
    for (from, to) in [(44_100, 32_000), (22_050, 32_000), (32_000, 32_000)] {
        let whole = resample(&input, from, to).unwrap();
        for sizes in [&[1usize][..], &[1152], &[0, 7, 4096, 1, 613], &[20_000]] {
            let mut resampler = Resampler::new(from, to).unwrap();
            let (mut out, mut rest) = (Vec::new(), &input[..]);
            for &size in sizes.iter().cycle() {
                let (now, later) = rest.split_at(size.min(rest.len()));
                resampler.push(now, &mut out).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            resampler.finish(&mut out).unwrap();
            assert_eq!(bits(&out), bits(&whole), "{from} -> {to} in blocks of {sizes:?}");
        }
    }
}

fn bits(samples: &[f32]) -> Vec<u32> {
    samples.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn equal_rates_pass_every_bit() {
    let input = [0.1, -0.0, f32::MIN_POSITIVE / 2.0, 1.5, -3.0];
    let output = resample(&input, 44_100, 44_100).unwrap();
    assert_eq!(bits(&output), bits(&input));
    assert_eq!(Resampler::new(44_100, 44_100).unwrap().describe(), "none (44100 Hz already)");
}

#[test]
fn the_description_holds_what_matters() {
    let text = Resampler::new(44_100, 32_000).unwrap().describe();
    for part in ["rubato 5.0", "44100 Hz to 32000 Hz", "BlackmanHarris2", "block 1764 to 1280", "cutoff 0.98"]
    {
        assert!(text.contains(part), "`{part}` is not in `{text}`");
    }
}

#[test]
fn rates_outside_the_range_are_refused_by_name() {
    for (from, to, want) in [
        (999, 32_000, "`from rate` is 999 Hz, expected 1000..=768000 Hz"),
        (32_000, 768_001, "`to rate` is 768001 Hz, expected 1000..=768000 Hz"),
    ] {
        let error: AudioError = Resampler::new(from, to).err().unwrap();
        assert_eq!(error.to_string(), want);
    }
}

#[test]
fn awkward_ratios_work() {
    // No common divisor: one block is two seconds at either rate.
    let n = 3 * 47_999;
    let input: Vec<f32> = (0..n).map(|i| (TAU * 440.0 * i as f64 / 47_999.0).sin() as f32).collect();
    let output = resample(&input, 47_999, 32_000).unwrap();
    assert_eq!(output.len(), 96_000);
    for (i, &y) in output.iter().enumerate().skip(20_000).take(50_000) {
        let want = (TAU * 440.0 * i as f64 / 32_000.0).sin();
        assert!((f64::from(y) - want).abs() < 1e-6, "{i}: {y} {want}");
    }
}
