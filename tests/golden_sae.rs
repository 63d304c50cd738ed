//! Encoders of autoencoders against stored outputs of torch, on every executor, of rows that are hard on a selection; and an
//! autoencoder's graph against its form on the host.
//!
//! What is missing of the executors shows as ignored: see `common/executors.rs`.

mod common;

use auscult_kernels::ops::{
    capture::Capture,
    sae_encode::SaeEncode,
    sae_rescore::{SaeRescore, errors},
    sae_screen::{SaeScreen, screened},
};
use auscult_kernels::{DType, TensorDesc, noise};
use auscult_model::sae::{Activation, Encoder, NotFinite, Sae, SaeParts, SaePrecision, Settings, SparseRows};
use auscult_runtime::{Backend, Contents, Edits, GraphBuilder, Program, Tensor};
use common::executors::{Executor, Executors};
use common::golden::golden_dir;
use libtest_mimic::{Arguments, Failed, Trial};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

const CASES: [&str; 6] = ["narrow", "published-k", "best-alone", "many-places", "no-bias", "many-rows"];

/// Either keeps the features of f32; in bf16 values of what is no near tie are as far off as products in bf16 are.
const PRECISIONS: [SaePrecision; 2] = [SaePrecision::F32, SaePrecision::Bf16];

/// Values agree within this share of themselves, and within [`BAND`] of the row's largest.
const VALUES: f32 = 1e-5;
/// Of the largest pre-activation of a row: what is so near the k-th value may be on either side of it, since float32 adds up in
/// another order than float64.
const BAND: f32 = 2e-6;

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let executors = Executors::open();
    let mut trials = vec![Trial::test("goldens are what the script wrote", sums)];
    trials.extend(executors.missing());
    for Executor { name, backend } in &executors.there {
        for case in CASES {
            for precision in PRECISIONS {
                let backend = backend.clone();
                trials.push(Trial::test(format!("{name}::{precision}::{case}"), move || {
                    let case = Case::open(case);
                    case.judge(&case.on(&backend, precision)?, precision)
                }));
            }
        }
        for precision in PRECISIONS {
            let backend = backend.clone();
            let name = format!("{name}::{precision}::there and back");
            trials.push(Trial::test(name, move || there_and_back(&backend, precision)));
        }
        if backend.info().wgsl.is_none() {
            // Mesa's adapter ends loops before that
            let backend = backend.clone();
            trials
                .push(Trial::test(format!("{name}::the most features"), move || the_most_features(&backend)));
        }
        let backend = backend.clone();
        trials.push(Trial::test(format!("{name}::bf16::with b_dec or without"), {
            let backend = backend.clone();
            move || with_b_dec_or_without(&backend)
        }));
        trials.push(Trial::test(format!("{name}::every activation"), {
            let backend = backend.clone();
            move || every_activation(&backend)
        }));
        trials.push(Trial::test(format!("{name}::any number of features"), move || any_number(&backend)));
    }
    for (case, precision) in CASES.into_iter().flat_map(|case| PRECISIONS.map(|precision| (case, precision)))
    {
        trials.push(Trial::test(format!("host::{precision}::{case}"), move || {
            let case = Case::open(case);
            case.judge(&case.on_host(precision)?, precision)
        }));
    }
    libtest_mimic::run(&args, trials).exit_code()
}

fn golden(path: &str) -> PathBuf {
    golden_dir().join(path)
}

fn sums() -> Result<(), Failed> {
    let listed = fs::read_to_string(golden("sae-encode/SHA256SUMS"))?;
    assert_eq!(listed.lines().count(), CASES.len());
    for line in listed.lines() {
        let (want, name) = line.split_once("  ").ok_or("a sum and a name")?;
        let digest = Sha256::digest(fs::read(golden("sae-encode").join(name))?);
        let got: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(got, want, "{name}");
    }
    Ok(())
}

/// Features and values of some rows, `[rows, k]` each.
type Encoded = (Vec<u32>, Vec<f32>);

/// A stored case.
struct Case {
    width: usize,
    features: usize,
    k: usize,
    rows: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    pre: Vec<f32>,
    want: Encoded,
    exact: Vec<u32>,
}

impl Case {
    fn open(name: &str) -> Self {
        let bytes = fs::read(golden("sae-encode").join(format!("{name}.safetensors"))).expect("a golden");
        let file = SafeTensors::deserialize(&bytes).expect("a file of tensors");
        let words = |name: &str| -> Vec<u32> {
            let data = file.tensor(name).expect("a tensor of the case").data();
            data.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("four"))).collect()
        };
        let floats = |name: &str| -> Vec<f32> { words(name).into_iter().map(f32::from_bits).collect() };
        let shape = file.tensor("weight").expect("the weight").shape().to_vec();
        Self {
            width: shape[1],
            features: shape[0],
            k: words("k")[0] as usize,
            rows: floats("rows"),
            weight: floats("weight"),
            bias: floats("bias"),
            pre: floats("pre"),
            want: (words("indices"), floats("values")),
            exact: words("exact"),
        }
    }

    fn on(&self, backend: &Arc<dyn Backend>, precision: SaePrecision) -> Result<Encoded, Failed> {
        let mut graph = GraphBuilder::new(Edits::new());
        let rows = self.rows.len() / self.width;
        let x = graph.input("rows", TensorDesc::f32([rows, self.width]))?;
        let shape = TensorDesc::f32([self.features, self.width]);
        let weight = graph.constant(&uploaded(&**backend, shape.clone(), &self.weight)?);
        let bias = graph.constant(&uploaded(&**backend, TensorDesc::f32([self.features]), &self.bias)?);
        let written = match precision {
            SaePrecision::F32 => graph.op_all(&SaeEncode { k: self.k }, &[x, weight, bias].map(Some), &[])?,
            SaePrecision::Bf16 => {
                let narrow: Vec<u16> =
                    self.weight.iter().map(|&w| half::bf16::from_f32(w).to_bits()).collect();
                let shape = TensorDesc::new(DType::BF16, shape.shape);
                let narrow = graph.constant(&uploaded(&**backend, shape, &narrow)?);
                let rounded = graph.op(&Capture { dtype: DType::BF16 }, &[Some(x), None])?;
                let screen = SaeScreen { k: screened(self.k, self.features) };
                let found = graph.op_all(&screen, &[rounded, narrow, bias].map(Some), &[])?;
                let desc = TensorDesc::f32([self.width + self.features]);
                let off = graph.constant(&uploaded(&**backend, desc, &errors(&self.weight, self.width))?);
                let near = [x, weight, bias, off, found[0], found[1]];
                graph.op_all(&SaeRescore { k: self.k }, &near.map(Some), &[])?
            }
        };
        graph.output("indices", written[0])?;
        graph.output("values", written[1])?;
        let program = Program::new(backend.clone(), graph.finish()?)?;
        program.run(&[("rows", bytemuck::cast_slice(&self.rows))])?;
        Ok((program.output_u32("indices")?, program.output_f32("values")?))
    }

    /// As an autoencoder whose `b_dec` is 0.
    fn on_host(&self, precision: SaePrecision) -> Result<Encoded, Failed> {
        let at = |c: usize, f: usize| self.weight[f * self.width + c];
        let w_enc = (0..self.width * self.features).map(|i| at(i / self.features, i % self.features));
        let parts = SaeParts {
            w_enc: w_enc.collect(),
            b_enc: self.bias.clone(),
            w_dec: vec![1.0; self.weight.len()],
            b_dec: vec![0.0; self.width],
        };
        let sae = Sae::new(parts, Some(self.k), None)?;
        let encoder = sae.host_encoder(precision)?;
        let refused = encoder.encode(&self.rows).map_err(|error| error.to_string());
        let said = refused.expect_err("a row is not a number");
        assert!(said.starts_with("`rows` is NaN in row 5, column "), "{said}");
        let encoded = encoder.encode_with(&self.rows, NotFinite::Mark)?;
        Ok((encoded.indices, encoded.values))
    }

    /// Outside a band about the k-th value the sets of features are equal; values agree; what is bit for bit equal is in the order
    /// of the features, across the k-th value too; and where sums have no rounding, everything is equal.
    fn judge(&self, got: &Encoded, precision: SaePrecision) -> Result<(), Failed> {
        assert_eq!([got.0.len(), got.1.len()], [self.want.0.len(), self.want.1.len()]);
        let off = errors(&self.weight, self.width);
        for row in 0..self.rows.len() / self.width {
            let places = row * self.k..(row + 1) * self.k;
            let (indices, values) = (&got.0[places.clone()], &got.1[places.clone()]);
            let (want, wanted) = (&self.want.0[places.clone()], &self.want.1[places]);
            if wanted[0].is_nan() {
                let marked = indices.iter().all(|&f| f == 0) && values.iter().all(|v| v.is_nan());
                assert!(marked, "row {row} is not a number: {indices:?} {values:?}");
                continue;
            }
            let pre = &self.pre[row * self.features..][..self.features];
            let largest = pre.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
            let (band, kth) = (BAND * largest, wanted[self.k - 1]);
            let x = &self.rows[row * self.width..][..self.width];
            let reach = if precision == SaePrecision::Bf16 { reach(x, &off) } else { 0.0 };
            let active = values.iter().take_while(|&&v| v > 0.0).count();
            let rest = indices[active..].iter().zip(&values[active..]);
            assert!(rest.clone().all(|(&f, v)| f == 0 && v.to_bits() == 0), "row {row}: not filled with 0");
            let mut chosen = vec![false; self.features];
            for (place, (&feature, &value)) in indices.iter().zip(values).take(active).enumerate() {
                let exact = pre[feature as usize];
                assert!(!chosen[feature as usize], "row {row}: feature {feature} twice");
                chosen[feature as usize] = true;
                assert!(exact >= kth - band, "row {row}: {feature} of {exact}, the last is {kth}");
                let error = (value - exact).abs();
                assert!(
                    error <= VALUES * exact.abs() + band + reach,
                    "row {row}, feature {feature}: {value}, want {exact}"
                );
                if let Some((&next, &less)) = indices.iter().zip(values).take(active).nth(place + 1) {
                    let ordered = value > less || (value == less && feature < next);
                    assert!(ordered, "row {row}: {feature} of {value} before {next} of {less}");
                }
            }
            for (&feature, &value) in want.iter().zip(wanted).filter(|(_, v)| **v > kth.max(0.0) + band) {
                assert!(
                    chosen[feature as usize],
                    "row {row}: {feature} of {value} is missing, the last is {kth}"
                );
            }
            let alike = |a: usize, b: usize| {
                let of = |f: usize| (&self.weight[f * self.width..][..self.width], self.bias[f]);
                of(a) == of(b)
            };
            for b in (0..self.features).filter(|&b| chosen[b]) {
                let left_out = (0..b).find(|&a| !chosen[a] && alike(a, b));
                assert_eq!(left_out, None, "row {row}: {b} is chosen, its twin before it is not");
            }
            if self.exact[row] == 1 && precision == SaePrecision::F32 {
                assert_eq!((indices, values), (want, wanted), "row {row}, of exact sums");
            } else if self.exact[row] == 1 {
                // weights are not those of bf16
                let set = |features: &[u32]| -> BTreeSet<u32> { features.iter().copied().collect() };
                assert_eq!(set(indices), set(want), "row {row}, of exact sums");
            }
        }
        Ok(())
    }
}

/// How far a score of a row may be off, by what is said of its columns.
fn reach(row: &[f32], errors: &[f32]) -> f32 {
    row.iter().zip(errors).map(|(&v, &e)| (f64::from(v) * f64::from(e)).powi(2)).sum::<f64>().sqrt() as f32
}

fn uploaded<T: bytemuck::Pod>(
    backend: &dyn Backend,
    desc: TensorDesc,
    values: &[T],
) -> Result<Tensor, Failed> {
    let buffer = backend.alloc(Contents::Undefined(desc.bytes()))?;
    backend.upload(&buffer.span(), bytemuck::cast_slice(values))?;
    Ok(Tensor { desc, span: buffer.span() })
}

/// A stored autoencoder's graph chooses what the host chooses; what it decodes is `b_dec` and the directions, less the rows.
fn there_and_back(backend: &Arc<dyn Backend>, precision: SaePrecision) -> Result<(), Failed> {
    let sae = Sae::open(&golden("sae/published"))?;
    let bytes = fs::read(golden("sae/published/expected.safetensors"))?;
    let rows = SafeTensors::deserialize(&bytes)?.tensor("rows")?.data().to_vec();
    let rows: Vec<f32> = bytemuck::pod_collect_to_vec(&rows);
    let (width, count) = (sae.width(), rows.len() / sae.width());
    let on_device = sae.on_device(&**backend, precision)?;
    let mut graph = GraphBuilder::new(Edits::new());
    let x = graph.input("rows", TensorDesc::f32([count, width]))?;
    let (indices, values) = on_device.encode(&mut graph, x)?;
    let decoded = on_device.decode(&mut graph, (indices, values), None)?;
    let missed = on_device.decode(&mut graph, (indices, values), Some(x))?;
    for (name, value) in [("indices", indices), ("values", values), ("decoded", decoded), ("missed", missed)]
    {
        graph.output(name, value)?;
    }
    let program = Program::new(backend.clone(), graph.finish()?)?;
    program.run(&[("rows", bytemuck::cast_slice(&rows))])?;
    let host = sae.encode(&rows)?;
    let (k, b_dec) = (host.k, sae.parts().b_dec);
    assert_eq!((on_device.k(), on_device.precision()), (k, precision));
    let indices = program.output_u32("indices")?;
    let (values, decoded, missed) =
        (program.output_f32("values")?, program.output_f32("decoded")?, program.output_f32("missed")?);
    let features = sae.features();
    let w_enc = sae.parts().w_enc;
    let weight: Vec<f32> = (0..w_enc.len()).map(|i| w_enc[i % width * features + i / width]).collect();
    let off = errors(&weight, width);
    for row in 0..count {
        let centred: Vec<f32> = rows[row * width..][..width].iter().zip(&b_dec).map(|(v, b)| v - b).collect();
        let reach = if precision == SaePrecision::Bf16 { reach(&centred, &off) } else { 0.0 };
        let largest = host.values[row * k];
        // what is off may change the order of features, not which they are
        let by_feature = |indices: &[u32], values: &[f32]| -> BTreeMap<u32, f32> {
            let places = row * k..(row + 1) * k;
            let features = indices[places.clone()].iter().copied().zip(values[places].iter().copied());
            features.filter(|(_, value)| *value > 0.0).collect()
        };
        let (got, want) = (by_feature(&indices, &values), by_feature(&host.indices, &host.values));
        assert!(got.keys().eq(want.keys()), "row {row}: {got:?}, want {want:?}");
        for ((feature, got), want) in got.into_iter().zip(want.into_values()) {
            // b_dec is subtracted from rows here, folded into the bias there
            let near = (got - want).abs() <= 1e-5 * want + 5e-6 * largest.max(1.0) + reach;
            assert!(near, "row {row}, feature {feature}: {got}, want {want}");
        }
        let mut want: Vec<f64> = b_dec.iter().map(|&b| f64::from(b)).collect();
        for i in (row * k..(row + 1) * k).filter(|&i| values[i] > 0.0) {
            let direction = sae.direction(indices[i] as usize)?;
            want.iter_mut().zip(direction).for_each(|(w, d)| *w += f64::from(values[i]) * f64::from(d));
        }
        for (c, want) in want.iter().enumerate() {
            let (i, scale) = (row * width + c, f64::from(largest.max(1.0)));
            let near = |got: f32, want: f64| (f64::from(got) - want).abs() <= 1e-6 * scale * k as f64;
            assert!(near(decoded[i], *want), "row {row}, column {c}: {}, want {want}", decoded[i]);
            let less = want - f64::from(rows[i]);
            assert!(near(missed[i], less), "row {row}, column {c}: {}, want {less}", missed[i]);
        }
    }
    Ok(())
}

/// The features of rows by the graph of a device, with as many places as it gives at first.
fn by_graph(backend: &Arc<dyn Backend>, sae: &Sae, rows: &[f32]) -> Result<Option<SparseRows>, Failed> {
    let on_device = sae.on_device(&**backend, SaePrecision::F32)?;
    let mut graph = GraphBuilder::new(Edits::new());
    let x = graph.input("rows", TensorDesc::f32([rows.len() / sae.width(), sae.width()]))?;
    let (indices, values) = on_device.encode(&mut graph, x)?;
    graph.output("indices", indices)?;
    graph.output("values", values)?;
    let program = Program::new(backend.clone(), graph.finish()?)?;
    program.run(&[("rows", bytemuck::cast_slice(rows))])?;
    let (indices, values) = (program.output_u32("indices")?, program.output_f32("values")?);
    Ok((!on_device.overflows(&values)).then(|| on_device.sparse_rows(indices, values)))
}

/// The same features in the same order, whose values differ by what other sums leave.
fn same_features(got: &SparseRows, want: &SparseRows, why: &str) {
    assert_eq!((got.k, got.rows()), (want.k, want.rows()), "{why}");
    let largest = want.values.iter().fold(0.0_f32, |most, &v| most.max(v));
    for (place, (&got, &want)) in got.values.iter().zip(&want.values).enumerate() {
        assert!((got - want).abs() <= 4e-6 * largest, "{why}, place {place}: {got}, want {want}");
    }
    assert_eq!(got.indices, want.indices, "{why}");
}

/// An autoencoder of noise, whose thresholds are above and below 0 and whose gates open early and late.
fn of_noise(width: usize, features: usize, bias: f32, activation: &str) -> Sae {
    let of = |name: &str, n: usize, scale: f32, middle: f32| -> Vec<f32> {
        noise(&format!("{activation} {name}"), n).map(|v| middle + scale * v).collect()
    };
    let parts = SaeParts {
        w_enc: of("w_enc", width * features, 0.5, 0.0),
        b_enc: of("b_enc", features, 0.3, bias),
        w_dec: of("w_dec", width * features, 1.0, 0.0),
        b_dec: of("b_dec", width, 0.5, 0.0),
    };
    let activation = match activation {
        "relu" => Activation::Relu,
        "jumprelu" => Activation::JumpRelu { threshold: of("threshold", features, 0.8, 0.3) },
        "gated" => Activation::Gated {
            r_mag: of("r_mag", features, 0.7, 0.0),
            b_mag: of("b_mag", features, 0.5, 0.0),
        },
        other => panic!("{other} is none of the activations"),
    };
    Sae::with_settings(parts, Settings::new(activation)).expect("they fit together")
}

/// As many features as published ones have at most, by sums without rounding: the same everywhere.
fn the_most_features(backend: &Arc<dyn Backend>) -> Result<(), Failed> {
    let (width, features) = (4, 262_144);
    let eighths = |name: &str, n: usize| -> Vec<f32> {
        noise(&format!("the most features, {name}"), n).map(|v| (8.0 * v).trunc() / 8.0).collect()
    };
    let parts = SaeParts {
        w_enc: eighths("w_enc", width * features),
        // what grows and falls again, so that the largest are in the middle
        b_enc: (0..features).map(|f| f.min(400_000 - f.min(400_000)) as f32 / 64.0).collect(),
        w_dec: eighths("w_dec", width * features),
        b_dec: vec![0.0; width],
    };
    let (w_enc, b_enc) = (parts.w_enc.clone(), parts.b_enc.clone());
    let rows = eighths("rows", 2 * width);
    let sae = Sae::new(parts, Some(12), None)?;
    for precision in PRECISIONS {
        let got = Encoder::new(&sae, precision, backend)?.encode(&rows)?;
        for (row, x) in rows.chunks_exact(width).enumerate() {
            let pre = |f: usize| b_enc[f] + (0..width).map(|c| x[c] * w_enc[c * features + f]).sum::<f32>();
            let mut want: Vec<(u32, f32)> = (0..features).map(|f| (f as u32, pre(f))).collect();
            want.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let places = row * 12..(row + 1) * 12;
            let found = got.indices[places.clone()].iter().copied().zip(got.values[places].iter().copied());
            assert!(found.eq(want[..12].iter().copied()), "{precision}, row {row}: {got:?}");
        }
    }
    Ok(())
}

/// Rows that have much in common with `b_dec`, which is subtracted before they are rounded, or not at all: the host's features in
/// the host's order, for it rounds the same.
fn with_b_dec_or_without(backend: &Arc<dyn Backend>) -> Result<(), Failed> {
    let (width, features) = (24, 300);
    let noise = |name: &str, n: usize| -> Vec<f32> { noise(&format!("b_dec or not, {name}"), n).collect() };
    let b_dec: Vec<f32> = noise("b_dec", width).iter().map(|v| 100.0 * v).collect();
    let rows: Vec<f32> =
        noise("rows", 13 * width).iter().enumerate().map(|(i, v)| v + b_dec[i % width]).collect();
    let mut found = Vec::new();
    for applied in [true, false] {
        let parts = SaeParts {
            w_enc: noise("w_enc", width * features),
            b_enc: noise("b_enc", features),
            w_dec: noise("w_dec", width * features),
            b_dec: b_dec.clone(),
        };
        let settings = Settings { apply_b_dec_to_input: applied, ..Settings::new(Activation::TopK(9)) };
        let sae = Sae::with_settings(parts, settings)?;
        let want = sae.host_encoder(SaePrecision::Bf16)?.encode(&rows)?;
        let got = Encoder::new(&sae, SaePrecision::Bf16, backend)?.encode(&rows)?;
        same_features(&got, &want, &format!("b_dec is subtracted: {applied}"));
        found.push(want);
    }
    assert_ne!(found[0].indices, found[1].indices, "it makes a difference");
    Ok(())
}

fn every_activation(backend: &Arc<dyn Backend>) -> Result<(), Failed> {
    let rows: Vec<f32> = noise("rows of any activation", 19 * 24).collect();
    for activation in ["relu", "jumprelu", "gated"] {
        let sae = of_noise(24, 200, 0.0, activation);
        let want = sae.encode(&rows)?;
        assert!((2..200).contains(&want.k), "{activation}: {}", want.k);
        let got = by_graph(backend, &sae, &rows)?.expect("a place for every feature");
        same_features(&got, &want, activation);
        same_features(&Encoder::new(&sae, SaePrecision::F32, backend)?.encode(&rows)?, &want, activation);
    }
    Ok(())
}

/// Rows are given more places where they need them, and what a device cannot keep is the host's.
fn any_number(backend: &Arc<dyn Backend>) -> Result<(), Failed> {
    let device = backend.info().ptx.is_some() || backend.info().wgsl.is_some();
    for activation in ["relu", "jumprelu"] {
        let sae = of_noise(6, 2500, -1.0, activation);
        let mut encoder = Encoder::new(&sae, SaePrecision::F32, backend)?;
        assert_eq!(encoder.is_on_device(), device);
        let one = |scale: f32| -> Vec<f32> { noise("rows of many", 5 * 6).map(|v| scale * v).collect() };
        let mut most = Vec::new();
        // the last ones again with all the places that were made
        for scale in [1.2, 2.5, 40.0, 1.2] {
            let rows = one(scale);
            let want = sae.encode(&rows)?;
            most.push(want.k);
            same_features(&encoder.encode(&rows)?, &want, &format!("{activation}, {} a row", want.k));
            assert_eq!(encoder.is_on_device(), device && most.iter().all(|&k| k <= 1024), "{most:?}");
        }
        assert!(most[0] < 256 && (257..1024).contains(&most[1]) && most[2] > 1024, "{activation}: {most:?}");
    }
    let rows = [1.0, f32::NAN, 0.0, 0.0, 0.0, 0.0];
    let sae = of_noise(6, 300, 0.0, "relu");
    let said =
        Encoder::new(&sae, SaePrecision::F32, backend)?.encode(&rows).expect_err("refused").to_string();
    assert_eq!(said, sae.encode(&rows).expect_err("refused").to_string());
    Ok(())
}
