//! Chroma of signals, against Hugging Face's feature extractor in f64.

mod common;

use auscult_audio::chroma::{CLASSES, Chroma, HOP, N_FFT, RATE};
use common::compare::{Tolerance, compare};
use common::generation::Generation;

/// f64 on both sides; the signal's sines are those of two libraries.
const CLOSE: Tolerance = Tolerance { rel_l2: 1e-6, elem_over_rms: 1e-5 };

#[test]
fn energies_and_classes_are_the_reference_s() {
    let generation = Generation::committed("chroma");
    let filters = generation.filters();
    assert_eq!([filters.facts.rate, filters.facts.n_fft, filters.facts.hop], [RATE as usize, N_FFT, HOP]);
    let chroma = Chroma::new();
    let runs = generation.chroma();
    assert_eq!(runs.len(), 4);
    for run in runs {
        let signal = run.signal();
        let energies = chroma.energies(&signal).expect("finite samples");
        assert_eq!(energies.len(), run.facts.frames, "{}", run.name);
        let got: Vec<f32> = energies.iter().flatten().map(|&e| e as f32).collect();
        compare(run.name, &got, run.energy().f32(), CLOSE);
        let classes = chroma.classes(&signal).expect("finite samples");
        let classes: Vec<i32> = classes.into_iter().map(i32::from).collect();
        assert_eq!(classes, run.classes().i32(), "{}", run.name);
    }
}

/// Each semitone of the octave around A4 is its own class.
#[test]
fn a_note_is_its_class() {
    let chroma = Chroma::new();
    for class in 0..CLASSES {
        let frequency = 440.0 * 2.0_f64.powf((class as f64 - 9.0) / 12.0);
        let sine = |i: usize| (std::f64::consts::TAU * frequency * i as f64 / f64::from(RATE)).sin() as f32;
        let note: Vec<f32> = (0..N_FFT).map(sine).collect();
        let classes = chroma.classes(&note).expect("finite samples");
        assert!(classes.iter().all(|&c| usize::from(c) == class), "class {class}: {classes:?}");
    }
}
