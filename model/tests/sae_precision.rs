//! Encoders that multiply in bf16: their features are those of f32, and what they cannot do is said.

use auscult_kernels::noise;
use auscult_kernels::ops::{sae_rescore::errors, sae_screen::screened};
use auscult_model::sae::{Activation, Sae, SaeParts, SaePrecision, Settings, SparseRows};
use auscult_runtime::{Backend, CpuBackend, DeviceInfo};
use half::bf16;

fn values(name: &str, n: usize, scale: f32) -> Vec<f32> {
    noise(name, n).map(|v| v * scale).collect()
}

fn encode(sae: &Sae, precision: SaePrecision, rows: &[f32]) -> SparseRows {
    sae.host_encoder(precision).unwrap().encode(rows).unwrap()
}

/// How far values of rows `[rows, width]` may be off by products in bf16.
fn reach(sae: &Sae, rows: &[f32]) -> Vec<f32> {
    let (width, features, parts) = (sae.width(), sae.features(), sae.parts());
    let w_enc = &parts.w_enc;
    let weight: Vec<f32> = (0..w_enc.len()).map(|i| w_enc[i % width * features + i / width]).collect();
    let errors = errors(&weight, width);
    let of = |row: &[f32]| {
        let products = row.iter().zip(&parts.b_dec).zip(&errors).map(|((v, b), e)| (v - b) * e);
        products.map(|v| v * v).sum::<f32>().sqrt()
    };
    rows.chunks_exact(width).map(of).collect()
}

/// Both choose the same features, but for one whose value is as near the last of its row as f32 rounds; values are off, but not
/// further than twice `reach`.
fn same_features(f32: &SparseRows, bf16: &SparseRows, reach: &[f32]) {
    assert_eq!((f32.k, f32.rows()), (bf16.k, bf16.rows()));
    let mut kept = 0;
    for (row, reach) in reach.iter().enumerate() {
        let places = row * f32.k..(row + 1) * f32.k;
        let of = |rows: &SparseRows| -> Vec<(u32, f32)> {
            let places = places.clone();
            rows.indices[places.clone()].iter().copied().zip(rows.values[places].iter().copied()).collect()
        };
        let (f32, bf16) = (of(f32), of(bf16));
        let band = 1e-5 * f32[0].1;
        let last = f32[f32.len() - 1].1;
        for &(feature, value) in f32.iter().filter(|(_, value)| *value > last + band) {
            let other = bf16.iter().find(|(f, _)| *f == feature);
            let off = other.map_or(f32::NAN, |(_, other)| (other - value).abs());
            kept += usize::from(off > band);
            // reach is some three and a half standard deviations
            assert!(off <= band + 2.0 * reach, "row {row}, feature {feature}: {other:?}, expected {value}");
        }
        assert!(bf16.iter().all(|(_, value)| *value >= last - band), "row {row}: below {last}: {bf16:?}");
    }
    assert!(f32.k == 1 || kept > f32.rows(), "values by products in bf16 are off: {kept}");
}

#[test]
fn features_are_those_of_f32() {
    // (width, features, k, mean of rows)
    for (width, features, k, mean) in [(64, 3000, 50, 0.0), (35, 900, 1, 0.0), (200, 5000, 32, 2.0)] {
        let name = format!("{width}/{features}");
        let parts = SaeParts {
            w_enc: values(&format!("{name}/w_enc"), width * features, 1.0),
            b_enc: values(&format!("{name}/b_enc"), features, 0.5),
            w_dec: values(&format!("{name}/w_dec"), width * features, 1.0),
            b_dec: values(&format!("{name}/b_dec"), width, 1.0).iter().map(|b| b + mean).collect(),
        };
        let sae = Sae::new(parts, Some(k), None).unwrap();
        let rows: Vec<f32> = noise(&format!("{name}/rows"), 300 * width).map(|v| v + mean).collect();
        let [f32, bf16] = [SaePrecision::F32, SaePrecision::Bf16].map(|p| encode(&sae, p, &rows));
        same_features(&f32, &bf16, &reach(&sae, &rows));
    }
}

/// How many rows of `b` have another set of features than those of `a`.
fn rows_that_differ(a: &SparseRows, b: &SparseRows) -> usize {
    let sorted = |row: &[u32]| {
        let mut row = row.to_vec();
        row.sort_unstable();
        row
    };
    let rows = a.indices.chunks_exact(a.k).zip(b.indices.chunks_exact(b.k));
    rows.filter(|(a, b)| sorted(a) != sorted(b)).count()
}

#[test]
fn features_that_are_not_alike_are_nearly_always_those_of_f32() {
    let (width, features, k, rows) = (512, 8192, 100, 1000);
    // columns of very different sizes
    let size = |column: usize| 10.0_f32.powf(3.0 * (column * 97 % width) as f32 / width as f32 - 1.5);
    let rows: Vec<f32> =
        noise("not alike/rows", rows * width).enumerate().map(|(i, v)| v * size(i % width)).collect();
    let unit = |row: &mut [f32]| {
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= length);
    };
    // some four columns of every feature; all of them, and one feature in 150 thirty times as long
    let in_few_columns = |f: usize, row: &mut [f32]| {
        row.iter_mut().for_each(|v| *v = if v.abs() < 4.0 / width as f32 { *v } else { 0.0 });
        row[f * 31 % width] += 1e-3;
        unit(row);
    };
    let long = |f: usize, row: &mut [f32]| {
        unit(row);
        row.iter_mut().for_each(|v| *v *= if f.is_multiple_of(150) { 30.0 } else { 1.0 });
    };
    type Make<'a> = &'a dyn Fn(usize, &mut [f32]);
    let kinds: [(&str, Make<'_>); 2] = [("in few columns", &in_few_columns), ("long", &long)];
    for (name, make) in kinds {
        let mut weight: Vec<f32> = noise(&format!("not alike/{name}"), width * features).collect();
        weight.chunks_exact_mut(width).enumerate().for_each(|(f, row)| make(f, row));
        let parts = SaeParts {
            w_enc: (0..width * features).map(|i| weight[i % features * width + i / features]).collect(),
            b_enc: vec![0.0; features],
            w_dec: vec![1.0; width * features],
            b_dec: vec![0.0; width],
        };
        let sae = Sae::new(parts, Some(k), None).unwrap();
        let [f32, bf16] = [SaePrecision::F32, SaePrecision::Bf16].map(|p| encode(&sae, p, &rows));
        // 7 where near ties do not tell how far scores are off; 23 where features have no scale
        let differ = rows_that_differ(&f32, &bf16);
        assert!(differ <= 2, "{name}: {differ} of 1000 rows");
    }
}

/// An autoencoder of one column, of which `near` features in the middle are one number in bf16, different in f32, and the
/// largest, the later the larger; its weight.
fn near_ties(features: usize, near: usize, k: usize) -> (Sae, Vec<f32>) {
    let first = (features - near) / 2;
    let weight = |f: usize| {
        let at = f.wrapping_sub(first);
        if at < near { 1.0 + (at + 1) as f32 * 2.0_f32.powi(-16) } else { (f % 5) as f32 / 8.0 }
    };
    let w_enc: Vec<f32> = (0..features).map(weight).collect();
    let parts = SaeParts {
        w_enc: w_enc.clone(),
        b_enc: vec![0.0; features],
        w_dec: vec![1.0; features],
        b_dec: vec![0.0],
    };
    (Sae::new(parts, Some(k), None).unwrap(), w_enc)
}

#[test]
fn near_ties_are_told_apart_by_f32() {
    let (features, near, k) = (200, 12, 4);
    let (sae, weight) = near_ties(features, near, k);
    let one = weight.iter().filter(|&&w| bf16::from_f32(w) == bf16::ONE).count();
    assert_eq!(one, near, "bf16 does not tell them apart");
    let rows = [1.0, 3.0, 0.5, 2.0, 7.0];
    let got = encode(&sae, SaePrecision::Bf16, &rows);
    assert_eq!(got, encode(&sae, SaePrecision::F32, &rows));
    assert_eq!(got.indices[..k], [105, 104, 103, 102]);
    assert_eq!(got.values[0], weight[105]);
}

#[test]
fn rows_of_more_near_ties_than_are_found_are_gone_through_whole() {
    let (features, near, k) = (200, 60, 4);
    let (sae, weight) = near_ties(features, near, k);
    assert!(near > screened(k, features), "more than are found");
    let rows = [1.0, 0.25];
    let got = encode(&sae, SaePrecision::Bf16, &rows);
    assert_eq!(got, encode(&sae, SaePrecision::F32, &rows));
    // ties of the screen go to the smaller index, so that it found none of them
    let last = (features + near) / 2 - 1;
    assert_eq!(got.indices[..k], [0, 1, 2, 3].map(|place| (last - place) as u32));
    assert_eq!(got.values[0], weight[last]);
}

#[test]
fn features_without_weights_are_no_near_ties_of_0() {
    // most are pruned, of the others few are above 0: places are left
    let (width, features, k) = (64, 3000, 50);
    let pruned = |f: usize| !f.is_multiple_of(3);
    let w_enc = values("pruned/w_enc", width * features, 1.0).into_iter().enumerate();
    let bias = |f: usize| if pruned(f) { -((f % 2) as f32) } else { -8.0 };
    let parts = SaeParts {
        w_enc: w_enc.map(|(i, w)| if pruned(i % features) { 0.0 } else { w }).collect(),
        b_enc: (0..features).map(bias).collect(),
        w_dec: values("pruned/w_dec", width * features, 1.0),
        b_dec: vec![0.0; width],
    };
    let sae = Sae::new(parts, Some(k), None).unwrap();
    let mut rows = values("pruned/rows", 40 * width, 1.0);
    // one that bf16 does not hold goes through all features
    rows[7] = f32::MAX;
    let [f32, bf16] = [SaePrecision::F32, SaePrecision::Bf16].map(|p| encode(&sae, p, &rows));
    assert!((1..k).contains(&(f32.active() / 40)), "{}", f32.active());
    assert_eq!(f32.values[..k], bf16.values[..k]);
    same_features(&f32, &bf16, &reach(&sae, &rows));
}

#[test]
fn what_a_binding_does_not_hold_is_left_to_others() {
    let parts =
        SaeParts { w_enc: vec![1.0; 600], b_enc: vec![0.0; 100], w_dec: vec![1.0; 600], b_dec: vec![0.0; 6] };
    let sae = Sae::new(parts, Some(2), None).unwrap();
    let cpu = CpuBackend::new(None).unwrap();
    for (max_binding, fits) in [(2400, true), (2399, false)] {
        let device = DeviceInfo { max_binding, ..cpu.info().clone() };
        let of = |precision| sae.encodes_on(&device, precision);
        assert_eq!(
            [of(SaePrecision::F32), of(SaePrecision::Bf16), sae.decodes_on(&device)],
            [true, fits, fits]
        );
    }
}

#[test]
fn what_cannot_be_is_said() {
    let parts = |w: f32| SaeParts {
        w_enc: vec![w; 6],
        b_enc: vec![0.0; 3],
        w_dec: vec![1.0; 6],
        b_dec: vec![0.0; 2],
    };
    let refused = |sae: Sae| sae.host_encoder(SaePrecision::Bf16).map(|_| ()).unwrap_err().to_string();
    let jump = Settings::new(Activation::JumpRelu { threshold: vec![0.0; 3] });
    assert_eq!(
        refused(Sae::with_settings(parts(1.0), jump).unwrap()),
        "`precision` is bf16 with a jumprelu autoencoder, expected f32: only those of the k largest features, k at most 1024, \
         encode in bf16"
    );
    assert_eq!(
        refused(Sae::new(parts(f32::MAX), Some(2), None).unwrap()),
        "`precision` is bf16, expected f32: a weight is beyond the range of bf16"
    );
}
