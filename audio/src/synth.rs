//! A small deterministic synthesiser: a piece of music whose motif returns at known times.
//!
//! It exists so that demonstrations and tests have music of their own, free of licences: four voices (melody, pad,
//! bass, drums) over a fixed form in which an eight-note motif comes back twice as it was and once a fourth higher.
//! It is not a sequencer: the score is in this file.

use std::f64::consts::TAU;

/// Seconds of one bar of 4/4 at 120 beats a minute.
const BAR: f64 = 2.0;
/// Seconds of an eighth note.
const EIGHTH: f64 = BAR / 8.0;
/// The motif: one bar of eighths, MIDI note numbers (A minor).
const MOTIF: [i32; 8] = [69, 72, 76, 74, 72, 76, 79, 76];
/// The form: `Some(transposition)` is a bar of the motif, `None` a bar of the contrasting middle. Repeated.
const FORM: [Option<i32>; 8] = [Some(0), None, None, Some(0), None, None, Some(5), None];
/// Chords of the contrasting bars, in turn: F, G, C, E minor (root position).
const MIDDLE: [[i32; 3]; 4] = [[53, 57, 60], [55, 59, 62], [48, 52, 55], [52, 55, 59]];
/// The chord under the motif: A minor.
const HOME: [i32; 3] = [57, 60, 64];

/// One appearance of the motif.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Occurrence {
    /// Seconds from the start of the piece to the first note.
    pub start_seconds: f64,
    /// Seconds to the end of the last note, cut at the end of the piece.
    pub end_seconds: f64,
    /// Semitones above the first appearance.
    pub transposed: i32,
}

/// A rendered piece.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Samples a second.
    pub sample_rate: u32,
    /// Mono samples within [-1, 1], `round(seconds * sample_rate)` of them.
    pub samples: Vec<f32>,
    /// Where the motif is heard, in order of time.
    pub motif: Vec<Occurrence>,
}

/// Renders `seconds` of music at `sample_rate` Hz. The same arguments give the same samples; `seed` changes the
/// contrasting melody and the drums' noise, never the motif.
pub fn render(seconds: f64, sample_rate: u32, seed: u64) -> Piece {
    let mut mixer = Mixer::new(seconds, sample_rate);
    let mut dice = Dice(seed);
    let mut motif = Vec::new();
    let mut middle_bars = 0;
    for (bar, place) in FORM.iter().cycle().enumerate() {
        let start = bar as f64 * BAR;
        if start >= seconds {
            break;
        }
        match *place {
            Some(transposed) => {
                for (i, note) in MOTIF.iter().enumerate() {
                    mixer.melody(start + i as f64 * EIGHTH, EIGHTH, note + transposed, 0.24);
                }
                accompany(&mut mixer, start, HOME.map(|n| n + transposed));
                motif.push(Occurrence {
                    start_seconds: start,
                    end_seconds: (start + BAR).min(seconds),
                    transposed,
                });
            }
            None => {
                let chord = MIDDLE[middle_bars % MIDDLE.len()];
                middle_bars += 1;
                // Longer notes of the chord, an octave and more above it: unlike the motif in rhythm.
                let rhythm: &[f64] =
                    [&[2.0, 2.0][..], &[1.0, 1.0, 2.0], &[3.0, 1.0], &[2.0, 1.0, 1.0]][dice.below(4)];
                let mut at = start;
                for beats in rhythm {
                    let held = beats * 2.0 * EIGHTH;
                    mixer.melody(at, held, chord[dice.below(3)] + 24, 0.16);
                    at += held;
                }
                accompany(&mut mixer, start, chord);
            }
        }
        drums(&mut mixer, &mut dice, start);
    }
    Piece { sample_rate, samples: mixer.finish(), motif }
}

/// Pad and bass of one bar.
fn accompany(mixer: &mut Mixer, start: f64, chord: [i32; 3]) {
    let pad = Voice { partials: 3, rolloff: 2.0, attack: 0.12, decay: 0.3, sustain: 0.7, release: 0.25 };
    let bass = Voice { partials: 4, rolloff: 1.6, attack: 0.01, decay: 0.25, sustain: 0.5, release: 0.08 };
    for note in chord {
        mixer.tone(pad, start, BAR, note, 0.045);
    }
    for beat in [0.0, 1.5, 2.0, 3.0] {
        mixer.tone(bass, start + beat * 2.0 * EIGHTH, 1.5 * EIGHTH, chord[0] - 24, 0.16);
    }
}

/// Kick on one and three, snare on two and four, a hat on every eighth.
fn drums(mixer: &mut Mixer, dice: &mut Dice, start: f64) {
    for beat in 0..4 {
        let at = start + f64::from(beat) * 2.0 * EIGHTH;
        if beat % 2 == 0 {
            mixer.kick(at, 0.22);
        } else {
            mixer.noise(at, 0.12, 0.05, dice);
        }
    }
    for eighth in 0..8 {
        mixer.noise(start + f64::from(eighth) * EIGHTH, 0.03, 0.02, dice);
    }
}

/// A pitched instrument: `partials` harmonics falling as `1 / k^rolloff`, under a linear attack, decay, sustain and
/// release in seconds (sustain is a level).
#[derive(Clone, Copy)]
struct Voice {
    partials: u32,
    rolloff: f64,
    attack: f64,
    decay: f64,
    sustain: f64,
    release: f64,
}

impl Voice {
    /// Level at `t` seconds into a note held for `held` seconds.
    fn envelope(&self, t: f64, held: f64) -> f64 {
        let body = |t: f64| {
            if t < self.attack {
                t / self.attack
            } else {
                1.0 - (1.0 - self.sustain) * ((t - self.attack) / self.decay).min(1.0)
            }
        };
        if t < held { body(t) } else { body(held) * (1.0 - (t - held) / self.release).max(0.0) }
    }
}

/// Where notes are added up, in f64.
struct Mixer {
    rate: f64,
    mix: Vec<f64>,
}

impl Mixer {
    fn new(seconds: f64, sample_rate: u32) -> Self {
        let rate = f64::from(sample_rate);
        let len = (seconds * rate).round().max(0.0) as usize;
        Mixer { rate, mix: vec![0.0; len] }
    }

    /// The samples that lie in `[start, start + length)` seconds, as (index, seconds since start).
    fn span(&self, start: f64, length: f64) -> impl Iterator<Item = (usize, f64)> + use<> {
        let first = (start * self.rate).ceil().max(0.0) as usize;
        let end = ((start + length) * self.rate).ceil().max(0.0) as usize;
        let rate = self.rate;
        (first.min(self.mix.len())..end.min(self.mix.len())).map(move |i| (i, i as f64 / rate - start))
    }

    fn melody(&mut self, start: f64, held: f64, note: i32, level: f64) {
        let lead =
            Voice { partials: 6, rolloff: 1.3, attack: 0.012, decay: 0.12, sustain: 0.55, release: 0.09 };
        self.tone(lead, start, held - 0.02, note, level);
    }

    fn tone(&mut self, voice: Voice, start: f64, held: f64, note: i32, level: f64) {
        let pitch = 440.0 * 2f64.powf(f64::from(note - 69) / 12.0);
        for k in 1..=voice.partials {
            let hz = pitch * f64::from(k);
            // Above this a partial would fold back at the sample rate.
            if hz > 0.45 * self.rate {
                break;
            }
            let gain = level / f64::from(k).powf(voice.rolloff);
            for (i, t) in self.span(start, held + voice.release) {
                self.mix[i] += gain * voice.envelope(t, held) * (TAU * hz * t).sin();
            }
        }
    }

    /// A sine that falls from 120 to 45 Hz within a fifth of a second.
    fn kick(&mut self, start: f64, level: f64) {
        for (i, t) in self.span(start, 0.2) {
            let phase = 45.0 * t + (120.0 - 45.0) * 0.04 * (1.0 - (-t / 0.04).exp());
            self.mix[i] += level * (1.0 - t / 0.2) * (TAU * phase).sin();
        }
    }

    /// A burst of white noise that dies within `length` seconds.
    fn noise(&mut self, start: f64, length: f64, level: f64, dice: &mut Dice) {
        for (i, t) in self.span(start, length) {
            self.mix[i] += level * (1.0 - t / length).powi(2) * dice.signed();
        }
    }

    fn finish(self) -> Vec<f32> {
        self.mix.into_iter().map(|x| x.clamp(-1.0, 1.0) as f32).collect()
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    fn signed(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Uniform in 0..n for the small n used here.
    fn below(&mut self, n: u64) -> usize {
        (self.next() % n) as usize
    }
}
