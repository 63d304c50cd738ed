//! Small autoencoders that are really trained: on rows of one place they do better than on those of any other.

use auscult_model::sae::{Sae, SaeParts};

/// Rows of a step.
const BATCH: usize = 64;
/// Steps of training.
const STEPS: usize = 400;
const RATE: f32 = 3e-3;

/// Trains a top-k autoencoder on rows `[rows, width]` by Adam, with directions of unit length; `hook` is what its file will say.
pub fn train(rows: &[f32], width: usize, features: usize, k: usize, seed: u32, hook: Option<&str>) -> Sae {
    let count = rows.len() / width;
    let mut b_dec = vec![0.0f32; width];
    rows.chunks_exact(width)
        .for_each(|row| b_dec.iter_mut().zip(row).for_each(|(b, v)| *b += v / count as f32));
    let spread: f32 = rows.iter().enumerate().map(|(i, v)| (v - b_dec[i % width]).powi(2)).sum();
    // trained on rows of unit length, roughly; an autoencoder of ReLUs scales
    let scale = (spread / count as f32).sqrt();
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let mut w_dec: Vec<f32> = (0..features * width).map(|_| draw() as f32 / 8_388_608.0 - 1.0).collect();
    unit(&mut w_dec, width);
    // transposed while it is trained
    let mut w_enc = w_dec.clone();
    let mut b_enc = vec![0.0f32; features];
    let mut adam = [Adam::of(w_dec.len()), Adam::of(w_enc.len()), Adam::of(features)];
    for _ in 0..STEPS {
        let mut grads = [vec![0.0f32; w_dec.len()], vec![0.0; w_enc.len()], vec![0.0; features]];
        for _ in 0..BATCH {
            let row = draw() as usize % count;
            let row = &rows[row * width..][..width];
            let x: Vec<f32> = row.iter().zip(&b_dec).map(|(v, b)| (v - b) / scale).collect();
            let mut pre: Vec<(usize, f32)> =
                (0..features).map(|f| (f, dot(&x, &w_enc[f * width..][..width]) + b_enc[f])).collect();
            pre.sort_by(|a, b| b.1.total_cmp(&a.1));
            let active: Vec<(usize, f32)> = pre.into_iter().take(k).filter(|(_, v)| *v > 0.0).collect();
            let mut error: Vec<f32> = x.iter().map(|v| -v).collect();
            for &(f, value) in &active {
                error.iter_mut().zip(&w_dec[f * width..][..width]).for_each(|(e, d)| *e += value * d);
            }
            for &(f, value) in &active {
                let back = dot(&error, &w_dec[f * width..][..width]) / BATCH as f32;
                let at = f * width..(f + 1) * width;
                grads[0][at.clone()].iter_mut().zip(&error).for_each(|(g, e)| *g += value * e / BATCH as f32);
                grads[1][at].iter_mut().zip(&x).for_each(|(g, v)| *g += back * v);
                grads[2][f] += back;
            }
        }
        for ((adam, values), grads) in adam.iter_mut().zip([&mut w_dec, &mut w_enc, &mut b_enc]).zip(&grads) {
            adam.step(values, grads);
        }
        unit(&mut w_dec, width);
    }
    b_enc.iter_mut().for_each(|b| *b *= scale);
    let turned = (0..width * features).map(|i| w_enc[i % features * width + i / features]).collect();
    let parts = SaeParts { w_enc: turned, b_enc, w_dec, b_dec };
    Sae::new(parts, Some(k), hook.map(String::from)).expect("the parts fit together")
}

/// The same weights under another name.
pub fn renamed(sae: &Sae, hook: Option<&str>) -> Sae {
    Sae::new(sae.parts(), sae.k(), hook.map(String::from)).expect("the parts fit together")
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn unit(directions: &mut [f32], width: usize) {
    for d in directions.chunks_exact_mut(width) {
        let norm = dot(d, d).sqrt();
        d.iter_mut().for_each(|v| *v /= norm);
    }
}

struct Adam {
    mean: Vec<f32>,
    square: Vec<f32>,
    steps: i32,
}

impl Adam {
    fn of(values: usize) -> Self {
        Self { mean: vec![0.0; values], square: vec![0.0; values], steps: 0 }
    }

    fn step(&mut self, values: &mut [f32], grads: &[f32]) {
        self.steps += 1;
        let [a, b] = [0.9f32, 0.999].map(|beta| 1.0 - beta.powi(self.steps));
        for (((v, g), m), s) in values.iter_mut().zip(grads).zip(&mut self.mean).zip(&mut self.square) {
            *m += 0.1 * (g - *m);
            *s += 0.001 * (g * g - *s);
            *v -= RATE * (*m / a) / ((*s / b).sqrt() + 1e-8);
        }
    }
}
