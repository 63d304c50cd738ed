//! Values of tensors: in place, converted, finite, exact in half precision; and bytes that outlive their checkpoint.

use crate::common::{assert_says, dir, le, noise, packed, put, raw};
use auscult_runtime::files::atomic_write_bytes;
use auscult_runtime::weights::{HostBytes, WeightView, Weights, WeightsError};
use half::{bf16, f16};

/// One tensor `w` in a file of its own, its data at any alignment: `shift` spaces pad the header.
fn with_tensor<T>(dtype: &str, bytes: &[u8], shift: usize, see: impl FnOnce(WeightView) -> T) -> T {
    let size = if dtype == "F32" { 4 } else { 2 };
    let header = format!(
        r#"{{"w":{{"dtype":"{dtype}","shape":[{}],"data_offsets":[0,{}]}}}}"#,
        bytes.len() / size,
        bytes.len()
    );
    let length = (header.len() + 8).next_multiple_of(64) - 8 + shift;
    let dir = dir();
    let path = put(dir.path(), "w.safetensors", &raw(&format!("{header:<length$}"), bytes));
    let weights = Weights::open(path).unwrap();
    see(weights.get("w").unwrap())
}

#[test]
fn f32_in_place_when_aligned_and_copied_when_not() {
    let values = noise(3, 5000);
    for shift in 0..8 {
        with_tensor("F32", &le(&values), shift, |w| {
            assert_eq!((w.name, w.shape, w.elements()), ("w", &[5000][..], 5000));
            assert_eq!(w.host().is_aligned_to(4), shift % 4 == 0);
            assert_eq!(w.as_f32().is_some(), shift % 4 == 0, "shift {shift}");
            assert!(w.as_f32().is_none_or(|seen| seen == values));
            assert_eq!(w.to_f32().unwrap(), values, "shift {shift}");
            let host = w.host_f32().unwrap();
            assert_eq!(host.is_mapped(), shift % 4 == 0, "a copy is made only where it must be");
            assert_eq!(bytemuck::cast_slice::<u8, f32>(&host), values);
            assert_eq!(w.first_non_finite(), None);
        });
    }
}

/// All 65,536 patterns of both half types, aligned and not, equal the scalar conversion bit for bit (NaN as NaN).
#[test]
fn halves_widen_exactly() {
    let patterns: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for (dtype, scalar) in [
        ("F16", (|bits| f16::from_bits(bits).to_f32()) as fn(u16) -> f32),
        ("BF16", |bits| bf16::from_bits(bits).to_f32()),
    ] {
        for shift in [0, 1] {
            let seen = with_tensor(dtype, &patterns, shift, |w| {
                assert!(w.as_f32().is_none());
                assert!(!w.host_f32().unwrap().is_mapped());
                w.to_f32().unwrap()
            });
            for (bits, seen) in (0..=u16::MAX).zip(seen) {
                let want = scalar(bits);
                let equal = if want.is_nan() { seen.is_nan() } else { seen.to_bits() == want.to_bits() };
                assert!(equal, "{dtype} {bits:#06x} shift {shift}: got {seen}, want {want}");
            }
        }
    }
}

#[test]
fn integers_have_no_f32() {
    let dir = dir();
    let path = put(dir.path(), "codes.safetensors", &packed(&[("codes", "I64", &[1], &[1; 8])]));
    let weights = Weights::open(path).unwrap();
    let codes = weights.get("codes").unwrap();
    for error in [codes.to_f32().unwrap_err(), codes.host_f32().unwrap_err()] {
        assert_says(
            &error.to_string(),
            &["codes.safetensors: tensor `codes`: found I64, expected F32, F16 or BF16"],
        );
    }
    assert!(codes.as_f32().is_none() && codes.first_non_finite().is_none() && !codes.f16_exact());
    weights.check_finite().unwrap();
}

#[test]
fn non_finite_values_are_found_where_they_are() {
    // first, last, and on both sides of the boundary of the chunks in which values are examined
    for at in [0, 1, 2047, 2048, 2049, 4095, 4096, 5000, 5122] {
        for shift in [0, 1] {
            for (value, why) in
                [(f32::NAN, "NaN"), (f32::INFINITY, "infinity"), (f32::NEG_INFINITY, "its negative")]
            {
                let mut values = noise(4, 5123);
                values[at] = value;
                values[5122] = value;
                let f16s: Vec<u8> = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
                let bf16s: Vec<u8> = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
                for (dtype, bytes) in [("F32", &le(&values)), ("F16", &f16s), ("BF16", &bf16s)] {
                    let (index, seen) = with_tensor(dtype, bytes, shift, |w| w.first_non_finite()).unwrap();
                    assert_eq!(index, at, "{dtype} {why} shift {shift}");
                    assert_eq!((seen.is_nan(), seen > 0.0), (value.is_nan(), value > 0.0), "{dtype} {why}");
                }
            }
        }
    }
}

/// A signalling NaN and NaNs of either sign count; the largest and the smallest finite values do not.
#[test]
fn only_full_exponents_are_not_finite() {
    for bits in [0x7f80_0001u32, 0xff80_0001, 0x7fff_ffff, 0xffff_ffff] {
        let found = with_tensor("F32", &bits.to_le_bytes(), 0, |w| w.first_non_finite());
        assert!(found.is_some_and(|(index, value)| index == 0 && value.is_nan()), "{bits:#x}");
    }
    let edge = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, f32::from_bits(1), -0.0, 0.0];
    assert_eq!(with_tensor("F32", &le(&edge), 0, |w| w.first_non_finite()), None);
    let f16s: Vec<u8> = [0x7bffu16, 0xfbff, 1, 0x8000].iter().flat_map(|b| b.to_le_bytes()).collect();
    assert_eq!(with_tensor("F16", &f16s, 0, |w| w.first_non_finite()), None);
    let bf16s: Vec<u8> = [0x7f7fu16, 0xff7f, 1, 0x8000].iter().flat_map(|b| b.to_le_bytes()).collect();
    assert_eq!(with_tensor("BF16", &bf16s, 0, |w| w.first_non_finite()), None);
    assert_eq!(with_tensor("F32", &[], 0, |w| w.first_non_finite()), None);
}

#[test]
fn check_finite_names_the_first_tensor_in_the_file() {
    let dir = dir();
    let good = le(&noise(5, 3));
    let bad = le(&[1.0, f32::NEG_INFINITY, f32::NAN]);
    let tensors: [(&str, &str, &[usize], &[u8]); 4] = [
        ("z", "F32", &[3], &good),
        ("y", "F32", &[1, 3], &bad),
        ("a", "F32", &[3], &bad),
        ("n", "U8", &[4], &[255; 4]),
    ];
    let path = put(dir.path(), "model.safetensors", &packed(&tensors));
    let error = Weights::open(&path).unwrap().check_finite().unwrap_err();
    assert!(matches!(error, WeightsError::NotFinite { index: 1, .. }));
    let want =
        format!("weights: {}: tensor `y`: found -inf at element 1, expected finite values", path.display());
    assert_eq!(error.to_string(), want);
}

#[test]
fn exactness_in_f16() {
    let half: Vec<f32> = noise(6, 5001).into_iter().map(|v| f16::from_f32(v * 40.0).to_f32()).collect();
    let exact = |values: &[f32]| with_tensor("F32", &le(values), 1, |w| w.f16_exact());
    assert!(exact(&half) && exact(&[]) && exact(&[0.0, -0.0, 65504.0, f32::INFINITY, 5.960_464_5e-8]));
    for (value, why) in [
        (1.0 + 2.0f32.powi(-11), "one bit more than the mantissa"),
        (65520.0, "rounds to infinity"),
        (2.0f32.powi(-25), "rounds to zero"),
        (f32::NAN, "equals nothing"),
    ] {
        for at in [0, 2047, 2048, 5000] {
            let mut values = half.clone();
            values[at] = value;
            assert!(!exact(&values), "{why} at {at}");
        }
    }
    let bf16_exact = |v: f32| with_tensor("BF16", &bf16::from_f32(v).to_le_bytes(), 0, |w| w.f16_exact());
    assert!(bf16_exact(1.5) && !bf16_exact(2.0f32.powi(-30)) && !bf16_exact(1.0e6));
    assert!(with_tensor("F16", &f16::from_f32(0.1).to_le_bytes(), 0, |w| w.f16_exact()));
}

#[test]
fn host_bytes_share_one_memory_and_outlive_the_checkpoint() {
    fn shareable<T: Send + Sync + Clone + 'static>() {}
    shareable::<HostBytes>();
    let dir = dir();
    let values = noise(7, 100);
    let path = put(
        dir.path(),
        "w.safetensors",
        &packed(&[("v", "U8", &[1], &[8]), ("w", "F32", &[100], &le(&values))]),
    );
    let weights = Weights::open(&path).unwrap();
    let host = weights.get("w").unwrap().host();
    let address = host.as_ptr();
    assert_eq!(address, weights.get("w").unwrap().bytes.as_ptr(), "no copy");
    drop(weights);
    // a file replaced as this program replaces files stays whole for those who mapped the old one
    atomic_write_bytes(&path, b"another content").unwrap();
    assert_eq!(&*host, le(&values));
    assert_eq!(host.clone().as_ptr(), address);

    let part = host.slice(4..12).unwrap();
    assert_eq!(&*part, &le(&values)[4..12]);
    assert_eq!(&*part.slice(3..8).unwrap(), &le(&values)[7..12], "a part of a part counts from the part");
    assert_eq!(part.slice(8..8).unwrap().len(), 0);
    let backwards = std::ops::Range { start: 5, end: 4 };
    for range in [0..9, 9..9, backwards, 0..usize::MAX] {
        assert!(part.slice(range.clone()).is_none(), "{range:?} leaves the part");
    }
}

#[test]
fn host_bytes_of_memory() {
    let vec = vec![1u8, 2, 3];
    let address = vec.as_ptr();
    let host = HostBytes::from_vec(vec);
    assert_eq!((&*host, host.as_ptr(), host.is_mapped()), (&[1u8, 2, 3][..], address, false));
    let floats = HostBytes::from_f32s(noise(8, 9));
    assert_eq!(&*floats, le(&noise(8, 9)));
    assert!(floats.is_aligned_to(4) && !floats.slice(1..9).unwrap().is_aligned_to(2));
}
