//! Whole models against stored outputs of Hugging Face transformers, on every executor.
//!
//! Every site of every layer, logits, latents, codes and decoded audio, for small models whose dimensions are odd in many
//! ways. What is missing of them shows as ignored: see `common/executors.rs`.

mod columns;
#[path = "../common/mod.rs"]
mod common;
mod streams;

use auscult_kernels::DType;
use auscult_model::Codes;
use auscult_model::encodec::Encodec;
use auscult_model::musicgen::{Activations, Decoder, DecoderOptions, Posemb, Precision};
use auscult_runtime::{Backend, Edits, WgpuBackend};
use common::checkpoint::{DataStart, Extras, Layout, TextEmbedding, WeightNorm, write_checkpoint};
use common::compare::{measure, measure_codes};
use common::executors::{Executor, Executors};
use common::golden::{Case, CodecRun, DecoderRun, Kind};
use common::procedural::Stored;
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

type Check = Result<(), Failed>;

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let executors = Executors::open();
    let mut trials: Vec<Trial> = executors.missing().collect();
    for executor in &executors.there {
        let (cases, codecs) = (Case::all_of(Kind::Musicgen), Case::all_of(Kind::Encodec));
        for name in cases.iter().chain(&codecs).map(|case| case.name.clone()) {
            let (executor, label) = (executor.clone(), format!("{}::{name}", executor.name));
            trials.push(Trial::test(label, move || whole_case(&Case::committed(&name), &executor)));
        }
    }
    let cpu = executors.cpu().clone();
    for (label, layout) in layouts() {
        let cpu = cpu.clone();
        trials.push(Trial::test(format!("cpu::layout::{label}"), move || one_layout(&cpu, &layout)));
    }
    for executor in &executors.there {
        let (executor, label) = (executor.clone(), format!("{}::segments", executor.name));
        trials.push(Trial::test(label, move || segments(&executor)));
    }
    for executor in &executors.there {
        let (executor, label) = (executor.clone(), format!("{}::streams", executor.name));
        trials.push(Trial::test(label, move || streams::streams(&executor)));
    }
    for executor in &executors.there {
        let (executor, label) = (executor.clone(), format!("{}::batches", executor.name));
        trials.push(Trial::test(label, move || batches(&executor)));
    }
    for executor in &executors.there {
        let (executor, label) = (executor.clone(), format!("{}::columns as given", executor.name));
        trials.push(Trial::test(label, move || columns::as_given(&executor)));
    }
    for executor in &executors.there {
        let (executor, label) = (executor.clone(), format!("{}::narrow weights", executor.name));
        trials.push(Trial::test(label, move || narrow_weights(&executor)));
    }
    if let Ok(gpu) = WgpuBackend::new(None) {
        trials.push(Trial::test("wgpu::short bindings", move || short_bindings(&gpu)));
    }
    trials.push(Trial::test("tables::positions", positions));
    trials.push(real_size(executors.cpu()));
    libtest_mimic::run(&args, trials).exit_code()
}

/// musicgen-small's own dimensions: too large to commit, made by `make_fixtures.py --cases small --out DIR`.
fn real_size(executor: &Executor) -> Trial {
    const VARIABLE: &str = "AUSCULT_GOLDEN_SMALL";
    let (executor, dir) = (executor.clone(), std::env::var_os(VARIABLE));
    let ignored = dir.is_none();
    let label =
        if ignored { "cpu::small (needs AUSCULT_GOLDEN_SMALL, see make_fixtures.py)" } else { "cpu::small" };
    let run = move || whole_case(&Case::open(dir.ok_or("AUSCULT_GOLDEN_SMALL is not set")?), &executor);
    Trial::test(label, run).with_ignored_flag(ignored)
}

/// A checkpoint directory of the case, deleted with the handle.
fn checkpoint(case: &Case, layout: &Layout) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    write_checkpoint(case, dir.path(), layout);
    dir
}

fn stored_as(weights: Stored) -> Layout {
    Layout { stored: weights, rounded: weights, ..Layout::default() }
}

fn whole_case(case: &Case, executor: &Executor) -> Check {
    for run in case.decoder_runs() {
        let dir = checkpoint(case, &stored_as(run.facts.weights));
        decoder_run(&run, dir.path(), executor, Precision::F32)?;
        // a file that is exact in a two-byte type loses nothing when it is kept in it
        let stored = match run.facts.weights {
            Stored::F32 => continue,
            Stored::F16 => Precision::F16,
            Stored::Bf16 => Precision::BF16,
        };
        decoder_run(&run, dir.path(), executor, stored)?;
    }
    for run in case.codec_runs() {
        let dir = checkpoint(case, &stored_as(run.facts.weights));
        codec_run(&run, dir.path(), executor)?;
    }
    Ok(())
}

fn decoder_run(run: &DecoderRun<'_>, dir: &Path, executor: &Executor, precision: Precision) -> Check {
    // with f32 activations, a weight that is exact in its type loses nothing
    let options = DecoderOptions { precision, activations: Activations::F32, ..DecoderOptions::default() };
    let decoder = Decoder::open(dir, executor.backend.clone(), &options)?;
    let mut edits = Edits::new();
    let sites = run.sites();
    for site in &sites {
        edits.capture(site, DType::F32);
    }
    let forward = decoder.teacher_forced(run.facts.batch, run.facts.frames, edits)?;
    forward.run(&clips(run)?)?;
    for site in &sites {
        let got = forward.output_f32(site)?;
        let want = run.site(site);
        let width = got.len() / (run.facts.batch * run.facts.steps);
        let got = match &run.facts.positions {
            None => got,
            Some(kept) => kept.iter().flat_map(|&p| got[p * width..(p + 1) * width].to_vec()).collect(),
        };
        measure(&format!("{}.{site}", run.name), &got, want.f32(), executor.tolerance())?;
    }
    Ok(())
}

fn clips(run: &DecoderRun<'_>) -> Result<Vec<Codes>, Failed> {
    let codes = run.codes();
    let (codebooks, frames) = (run.facts.codebooks, run.facts.frames);
    let values: Vec<u32> = codes.i32().iter().map(|&code| code.cast_unsigned()).collect();
    values.chunks(codebooks * frames).map(|clip| Ok(Codes::new(codebooks, frames, clip.to_vec())?)).collect()
}

fn codec_run(run: &CodecRun<'_>, dir: &Path, executor: &Executor) -> Check {
    let (facts, tolerance) = (&run.facts, executor.tolerance());
    let all = Encodec::open_with(dir, executor.backend.clone(), Some(facts.all_codebooks))?;
    let encoding = all.encode_with_latents(&[run.wav().f32()])?.remove(0);
    let hidden = all.config().hidden_size;
    let latents = transposed(&encoding.latents, hidden);
    measure(&format!("{}.latents", run.name), &latents, run.latents().f32(), tolerance)?;
    let codes: Vec<i32> = encoding.codes.values().iter().map(|&code| code.cast_signed()).collect();
    let margins = run.margins();
    measure_codes(run.name, &codes, run.codes().i32(), margins.f32(), facts.frames)?;

    let few = Encodec::open_with(dir, executor.backend.clone(), Some(facts.codebooks))?;
    let want: Vec<u32> =
        run.codes().i32()[..facts.codebooks * facts.frames].iter().map(|c| c.cast_unsigned()).collect();
    let audio = few.decode(&Codes::new(facts.codebooks, facts.frames, want)?)?;
    measure(&format!("{}.audio", run.name), &audio, run.audio().f32(), tolerance)?;
    Ok(())
}

/// `[rows, cols]` to `[cols, rows]`.
fn transposed(values: &[f32], cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|c| values.iter().skip(c).step_by(cols).copied()).collect()
}

fn layouts() -> Vec<(&'static str, Layout)> {
    let default = Layout::default();
    vec![
        ("parametrised names", Layout { weight_norm: WeightNorm::Parametrized, ..default }),
        (
            "text embedding by its other name",
            Layout { text_embedding: TextEmbedding::EmbedTokens, ..default },
        ),
        (
            "positions and training statistics in the file",
            Layout { extras: Extras::CodebookBuffersAndPositions, ..default },
        ),
        ("three shards", Layout { shards: 3, ..default }),
        ("unaligned tensors", Layout { data_start: DataStart::Odd, ..default }),
    ]
}

/// Narrowing f32 weights costs what rounding them costs, and no more.
fn narrow_weights(executor: &Executor) -> Check {
    let case = Case::committed("tiny");
    let dir = checkpoint(&case, &Layout::default());
    use Activations::{AsWeights, F32};
    // The relative error of a rounded weight is 2^-12 or 2^-9 at most, evenly spread: times 3^-1/2, and some for depth.
    // Rounding the other factor too adds as much again, and attention rounds more often.
    let modes = [
        (Precision::F16, F32, 5e-4),
        (Precision::BF16, F32, 4e-3),
        (Precision::F16, AsWeights, 1e-3),
        (Precision::BF16, AsWeights, 8e-3),
    ];
    const STREAM: &str = "layers.1.resid_post";
    for (precision, activations, relative) in modes {
        let (kept, widen): (_, fn([u8; 2]) -> f32) = match precision {
            Precision::BF16 => (DType::BF16, |bytes| half::bf16::from_ne_bytes(bytes).to_f32()),
            _ => (DType::F16, |bytes| half::f16::from_ne_bytes(bytes).to_f32()),
        };
        let options = DecoderOptions { precision, activations, ..DecoderOptions::default() };
        let decoder = Decoder::open(dir.path(), executor.backend.clone(), &options)?;
        for run in case.decoder_runs().iter().filter(|run| run.facts.weights == Stored::F32) {
            let mut edits = Edits::new();
            // the stream as products of two-byte factors store it: rounded once more
            edits.capture("logits", DType::F32).capture(STREAM, kept);
            let forward = decoder.teacher_forced(run.facts.batch, run.facts.frames, edits)?;
            forward.run(&clips(run)?)?;
            for (site, got) in [
                ("logits", forward.output_f32("logits")?),
                (STREAM, forward.output(STREAM)?.chunks_exact(2).map(|b| widen([b[0], b[1]])).collect()),
            ] {
                let (name, want) = (
                    format!("{}.{site} in {precision}, activations {activations:?}", run.name),
                    run.site(site),
                );
                let squares = |v: f64| v * v;
                let off: f64 =
                    got.iter().zip(want.f32()).map(|(&g, &w)| squares(f64::from(g) - f64::from(w))).sum();
                let scale: f64 = want.f32().iter().map(|&w| squares(f64::from(w))).sum();
                let error = (off / scale).sqrt();
                // were nothing narrowed, the error would be that of f32
                if got.len() != want.f32().len() || !(1e-5..=relative).contains(&error) {
                    return Err(format!(
                        "{name}: relative L2 error {error:e}, expected 1e-5 to {relative:e}"
                    )
                    .into());
                }
            }
        }
    }
    Ok(())
}

/// On a device that binds 40 KiB, embeddings go one table after another and weights in parts, to the same bits.
fn short_bindings(gpu: &WgpuBackend) -> Check {
    let case = Case::committed("tiny");
    let dir = checkpoint(&case, &Layout::default());
    let runs = case.decoder_runs();
    let run = runs.iter().find(|run| run.facts.batch > 1).ok_or("a run of several clips")?;
    let logits = |backend: Arc<dyn Backend>| -> Result<Vec<f32>, Failed> {
        let decoder = Decoder::open(dir.path(), backend, &DecoderOptions::default())?;
        let mut edits = Edits::new();
        edits.capture("embed", DType::F32).capture("logits", DType::F32);
        let forward = decoder.teacher_forced(run.facts.batch, run.facts.frames, edits)?;
        forward.run(&clips(run)?)?;
        Ok([forward.output_f32("embed")?, forward.output_f32("logits")?].concat())
    };
    let whole = logits(Arc::new(gpu.with_max_binding(usize::MAX)))?;
    let parts = logits(Arc::new(gpu.with_max_binding(40 << 10)))?;
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    if bits(&whole) == bits(&parts) { Ok(()) } else { Err("the bits differ".into()) }
}

/// The values are the same in every layout, so every output is, bit for bit; and right.
fn one_layout(executor: &Executor, layout: &Layout) -> Check {
    let case = Case::committed("tiny");
    let dir = checkpoint(&case, layout);
    let in_f32 = |weights: Stored| weights == Stored::F32;
    for run in case.decoder_runs().iter().filter(|run| in_f32(run.facts.weights)) {
        decoder_run(run, dir.path(), executor, Precision::F32)?;
    }
    for run in case.codec_runs().iter().filter(|run| in_f32(run.facts.weights)) {
        codec_run(run, dir.path(), executor)?;
    }
    Ok(())
}

/// Long audio goes through the codec in segments; where it is cut changes nothing that matters.
fn segments(executor: &Executor) -> Check {
    for name in ["tiny", "codec-24khz", "codec-far-reflect", "codec-odd-ratios", "codec-replicate"] {
        let case = Case::committed(name);
        let dir = checkpoint(&case, &Layout::default());
        for run in
            case.codec_runs().iter().filter(|run| run.facts.samples > 600 && run.facts.weights == Stored::F32)
        {
            let mut codec =
                Encodec::open_with(dir.path(), executor.backend.clone(), Some(run.facts.all_codebooks))?;
            for frames in [1, 2, 3, 7] {
                codec.set_segment_frames(frames);
                let what = format!("{name} {} in segments of {frames}", run.name);
                let encoding = codec.encode_with_latents(&[run.wav().f32()])?.remove(0);
                let latents = transposed(&encoding.latents, codec.config().hidden_size);
                measure(&what, &latents, run.latents().f32(), executor.tolerance())?;
                let audio = codec.decode(&encoding.codes)?;
                codec.set_segment_frames(usize::MAX);
                let whole = codec.decode(&encoding.codes)?;
                measure(&what, &audio, &whole, executor.tolerance())?;
            }
        }
    }
    Ok(())
}

/// A clip's values do not depend on the batch it travels in: 1, 7 or 64 clips, with f32 and with two-byte activations of
/// both kinds, and through the codec.
fn batches(executor: &Executor) -> Check {
    let case = Case::committed("tiny");
    let dir = checkpoint(&case, &Layout::default());
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let frames = 5;
    for (precision, activations) in [
        (Precision::F32, Activations::F32),
        (Precision::F16, Activations::AsWeights),
        (Precision::BF16, Activations::AsWeights),
    ] {
        let options = DecoderOptions { precision, activations, ..DecoderOptions::default() };
        let decoder = Decoder::open(dir.path(), executor.backend.clone(), &options)?;
        let (codebooks, entries) = (decoder.config().num_codebooks, decoder.config().vocab_size);
        let clip = |n: usize| {
            let code =
                |i: usize| u32::try_from((i * 31 + n * 17 + i * i) % entries).expect("a small vocabulary");
            Codes::new(codebooks, frames, (0..codebooks * frames).map(code).collect())
        };
        let logits = |numbers: std::ops::Range<usize>| -> Result<Vec<u32>, Failed> {
            let mut edits = Edits::new();
            edits.capture("logits", DType::F32);
            let forward = decoder.teacher_forced(numbers.len(), frames, edits)?;
            forward.run(&numbers.map(clip).collect::<Result<Vec<_>, _>>()?)?;
            Ok(bits(&forward.output_f32("logits")?))
        };
        let all = logits(0..64)?;
        let one = all.len() / 64;
        for numbers in [0..1, 30..31, 20..27] {
            if logits(numbers.clone())? != all[numbers.start * one..numbers.end * one] {
                return Err(
                    format!("clips {numbers:?} in {precision} differ from themselves among 64").into()
                );
            }
        }
    }
    let mut codec = Encodec::open(dir.path(), executor.backend.clone())?;
    let hop = codec.config().hop_length();
    // an interpreter takes its time
    let most = if executor.is_slow() { 7 } else { 64 };
    let clips: Vec<Vec<f32>> = (0..most)
        .map(|n| (0..9 * hop + 1).map(|i| ((i * (n + 3)) as f32 * 0.37).sin() * 0.5).collect())
        .collect();
    let clips: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
    codec.set_batch_frames(0);
    let alone = clips.iter().map(|clip| codec.encode_with_latents(&[clip])).collect::<Result<Vec<_>, _>>()?;
    let alone = alone.concat();
    // all at once; three at a time; segments of four frames of seven of them
    for (count, together, segment) in
        [(most, usize::MAX, usize::MAX), (7, usize::MAX, usize::MAX), (7, 30, usize::MAX), (7, usize::MAX, 4)]
    {
        codec.set_batch_frames(together);
        codec.set_segment_frames(segment);
        let batch = codec.encode_with_latents(&clips[most - count..])?;
        for (i, (got, want)) in (most - count..).zip(batch.iter().zip(&alone[most - count..])) {
            let same = bits(&got.latents) == bits(&want.latents) && got.codes == want.codes;
            if !same && segment == usize::MAX {
                return Err(format!("clip {i}, encoded among {count}, differs from itself alone").into());
            }
            measure(&format!("clip {i} in segments"), &got.latents, &want.latents, executor.tolerance())?;
        }
    }
    Ok(())
}

/// The three ways to compute positions, against torch's.
fn positions() -> Check {
    let case = Case::committed("tables");
    let rows = case.tensor("positions.rows");
    let names: Vec<String> =
        case.names().into_iter().filter(|n| *n != "positions.rows").map(String::from).collect();
    let mut compared = 0;
    for name in names.iter().filter_map(|name| name.strip_prefix("positions.")) {
        let (posemb, width) = name.split_once('.').ok_or("a name without a width")?;
        let (posemb, width): (Posemb, usize) = (posemb.parse()?, width.parse()?);
        let want = case.tensor(&format!("positions.{name}"));
        let mut differing = 0;
        for (&row, want) in rows.i32().iter().zip(want.f32().chunks(width)) {
            let at = usize::try_from(row)?;
            for (i, (got, &want)) in posemb.rows(at..at + 1, width).into_iter().zip(want).enumerate() {
                compared += 1;
                // the frequency is rounded to f32 in both, and may be an ulp off; it is multiplied by the position
                let allowed = 3.0 * 2_f64.powi(-24) * f64::from(row) + 2_f64.powi(-22);
                let error = (f64::from(got) - f64::from(want)).abs();
                if error <= allowed {
                    continue;
                }
                differing += 1;
                // in f16 the same ulp can move a period to its neighbour, 2^-11 of the angle away
                let step = f64::from(row) * 2_f64.powi(-10) + 2_f64.powi(-10);
                if posemb != Posemb::AudiocraftF16 || error.is_nan() || error > step {
                    return Err(
                        format!("positions {name}: row {row}, column {i}: got {got}, want {want}").into()
                    );
                }
            }
        }
        if differing * 200 > want.count() {
            return Err(
                format!("positions {name}: {differing} of {} differ by an f16 step", want.count()).into()
            );
        }
    }
    if compared == 0 {
        return Err("the tables hold no positions".into());
    }
    Ok(())
}
