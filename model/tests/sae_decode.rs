//! Decoding on the host: the sum that the definition names, and the way back from each normalisation.

use auscult_model::sae::{Activation, Normalize, Sae, SaeParts, Settings, SparseRows};
use std::path::Path;

const WIDTH: usize = 6;

/// Features that are the axes and their opposites around `b_dec`: what such an autoencoder encodes it decodes to the same.
fn mirror(normalize: Normalize) -> Sae {
    let axis = |i: usize, j: usize| if i % WIDTH != j { 0.0 } else { [1.0, -1.0][i / WIDTH] };
    let w_dec: Vec<f32> = (0..2 * WIDTH).flat_map(|i| (0..WIDTH).map(move |j| axis(i, j))).collect();
    let w_enc = (0..WIDTH).flat_map(|j| (0..2 * WIDTH).map(move |i| axis(i, j))).collect();
    let b_dec = (0..WIDTH).map(|j| 0.25 * j as f32 - 0.5).collect();
    let parts = SaeParts { w_enc, b_enc: vec![0.0; 2 * WIDTH], w_dec, b_dec };
    Sae::with_settings(parts, Settings { normalize, ..Settings::new(Activation::Relu) }).unwrap()
}

/// Rows of several scales and centres.
fn rows() -> Vec<f32> {
    let value =
        |i: usize| ((i * 37 % 23) as f32 / 7.0 - 1.3) * [1.0, 40.0, 0.02][i / WIDTH % 3] + (i / WIDTH) as f32;
    (0..7 * WIDTH).map(value).collect()
}

#[test]
fn what_is_encoded_comes_back_on_its_own_scale() {
    for normalize in [Normalize::None, Normalize::ConstantNorm, Normalize::LayerNorm] {
        let (sae, rows) = (mirror(normalize), rows());
        let back = sae.reconstruct(&rows, &sae.encode(&rows).unwrap()).unwrap();
        for (row, (got, want)) in back.chunks(WIDTH).zip(rows.chunks(WIDTH)).enumerate() {
            let largest = want.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            // 1e-5 is added to a spread of 0.02 on the way there, and not taken back: one part in 2000
            let tolerance = if normalize == Normalize::LayerNorm { 1e-3 } else { 1e-6 } * largest;
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() <= tolerance, "{normalize:?}, row {row}: {got}, expected {want}");
            }
        }
    }
}

#[test]
fn goldens_decode_to_the_sum_of_their_directions() {
    for case in ["published", "topk-6", "jumprelu-6", "gated-5"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/sae").join(case);
        let sae = Sae::open(&dir).unwrap();
        let (parts, width) = (sae.parts(), sae.width());
        let rows: Vec<f32> = (0..9 * width).map(|i| (i * 61 % 97) as f32 / 20.0 - 2.4).collect();
        let codes = sae.encode(&rows).unwrap();
        assert!(codes.active() > 0, "{case}: no feature is active");
        let got = sae.decode(&codes).unwrap();
        for (at, got) in got.iter().enumerate() {
            let (row, column) = (at / width, at % width);
            let places = row * codes.k..(row + 1) * codes.k;
            let terms = places.map(|p| {
                f64::from(codes.values[p])
                    * f64::from(parts.w_dec[codes.indices[p] as usize * width + column])
            });
            let want = (f64::from(parts.b_dec[column]) + terms.sum::<f64>()) as f32;
            assert!(
                (got - want).abs() <= 1e-6 * want.abs().max(1.0),
                "{case}, {row}, {column}: {got}, {want}"
            );
        }
    }
}

#[test]
fn what_cannot_be_decoded_is_named() {
    let sae = mirror(Normalize::None);
    let beyond = SparseRows { k: 2, indices: vec![0, 1, 12, 0], values: vec![1.0, 0.5, 1.0, 0.0] };
    let error = sae.decode(&beyond).unwrap_err().to_string();
    assert!(error.contains("12 in row 1") && error.contains("less than 12"), "{error}");
    let codes = SparseRows { k: 1, indices: vec![0], values: vec![1.0] };
    let error = sae.reconstruct(&[0.0; 7], &codes).unwrap_err().to_string();
    assert!(error.contains("7 values") && error.contains("1 of width 6"), "{error}");
}
