//! What a generator owes itself: the same from its caches as from one pass, from any batch as alone, and interventions
//! that do what they say and nothing else.

use super::common::checkpoint::{DataStart, Layout, write_checkpoint};
use super::common::compare::measure;
use super::common::generation::Generation;
use super::common::procedural::Stored;
use super::{Check, Executor, Named, captures, decoder_from, play, values};
use auscult_kernels::DType;
use auscult_model::Codes;
use auscult_model::encodec::Encodec;
use auscult_model::musicgen::generate::{
    Action, Context, Generated, Generator, GeneratorOptions, Halves, Intervention, Sampling, Take, Text,
};
use auscult_model::musicgen::{Activations, Decoder, DecoderOptions, Precision};
use auscult_model::sae::{Activation as Features, Sae, SaeParts, Settings};
use auscult_runtime::Edits;
use libtest_mimic::Failed;
use std::sync::Arc;

/// Every check, by name.
pub const CHECKS: &[Named] = &[
    ("caches equal one pass", caches_equal_one_pass),
    ("takes do not hear each other", takes_do_not_hear_each_other),
    ("interventions of strength zero leave the bits", strength_zero),
    ("features are switched as defined", features_are_switched),
    ("directions are written as defined", directions_are_written),
    ("interventions keep to their columns and rows", kept_to_columns_and_rows),
    ("prompts are shared", prompts_are_shared),
    ("stereo takes sound in two channels", stereo_takes_sound),
];

pub const FRAMES: usize = 20;

/// The model that the checks run on: `(decoder, texts)`.
pub fn model(executor: &Executor, case: &str) -> Result<(Decoder, Vec<Arc<Text>>), Failed> {
    model_from(executor, case, &Layout::default(), Precision::F32)
}

/// Its weights from a checkpoint of this layout, in this precision; what they are multiplied with is f32.
fn model_from(
    executor: &Executor,
    case: &str,
    layout: &Layout,
    precision: Precision,
) -> Result<(Decoder, Vec<Arc<Text>>), Failed> {
    let generation = Generation::committed(case);
    let width = generation.text("text").projected().shape[2];
    let text = |length: usize| {
        let states = auscult_kernels::noise(&format!("text of {length}"), length * width).collect();
        Ok(Arc::new(Text::new(states, width)?))
    };
    let options = DecoderOptions { precision, activations: Activations::F32, ..DecoderOptions::default() };
    Ok((
        decoder_from(executor, &generation, layout, &options)?,
        [1, 7].map(text).into_iter().collect::<Result<_, Failed>>()?,
    ))
}

pub fn take(text: Option<&Arc<Text>>, seed: u64) -> Take {
    Take {
        text: text.cloned(),
        melody: None,
        prompt: None,
        frames: FRAMES,
        seed,
        row: 3,
        sampling: Sampling { top_k: 20, ..Sampling::default() },
        edits: vec![],
    }
}

pub fn prompt(decoder: &Decoder, frames: usize) -> Result<Arc<Codes>, Failed> {
    let config = decoder.config();
    let noise = auscult_kernels::noise("prompt", config.num_codebooks * frames);
    let codes = noise.map(|v| ((v + 1.0) * 0.5 * config.vocab_size as f32) as u32).collect();
    Ok(Arc::new(Codes::new(config.num_codebooks, frames, codes)?))
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

pub fn ensure(is: bool, what: impl FnOnce() -> String) -> Check {
    if is { Ok(()) } else { Err(what().into()) }
}

/// The rows of a site and half, `[frames + 1, width]`.
pub fn rows(generated: &Generated, site: &str, half: Halves) -> Result<Vec<f32>, Failed> {
    let one = generated.captured.iter().find(|c| c.label == site && c.half == half);
    Ok(values(one.ok_or_else(|| format!("`{site}` was not captured"))?))
}

fn caches_equal_one_pass(executor: &Executor) -> Check {
    let plain = Layout::default();
    let [f16, bf16] = [Stored::F16, Stored::Bf16].map(|rounded| Layout { rounded, ..plain });
    // the columns read weights in two bytes where that changes none of them, the one pass in four
    let layouts = [
        ("tiny", plain, Precision::F32, "f32"),
        ("stereo", plain, Precision::F32, "f32"),
        ("hd8", plain, Precision::F32, "f32"),
        ("tiny", f16, Precision::F32, "f16"),
        ("tiny", plain, Precision::BF16, "bf16"),
        // what is behind is the host's part
        ("tiny", bf16, Precision::F32, "bf16"),
        ("tiny", Layout { stored: Stored::F16, ..f16 }, Precision::F32, "f16"),
        ("tiny", Layout { data_start: DataStart::Odd, ..f16 }, Precision::F32, "f16"),
        ("stereo", plain, Precision::F16, "f16"),
    ];
    let count = if executor.is_slow() { 5 } else { layouts.len() };
    for (case, layout, precision, read_as) in layouts.into_iter().take(count) {
        let (decoder, texts) = model_from(executor, case, &layout, precision)?;
        let types =
            Generator::new(&decoder, &[take(None, 1)], &GeneratorOptions::default())?.weight_types()?;
        ensure(types.iter().eq([read_as]), || {
            format!("{case}, {precision}, {layout:?}: weights are read as {types:?}")
        })?;
        let sites: Vec<String> = auscult_model::musicgen::Site::all(decoder.config().num_hidden_layers)
            .map(|s| s.to_string())
            .collect();
        let mut takes = vec![take(Some(&texts[1]), 1), take(Some(&texts[0]), 2)];
        takes[1].prompt = Some(prompt(&decoder, 18)?);
        takes[1].frames = 26;
        let options = GeneratorOptions { captures: captures(&sites)?, ..GeneratorOptions::default() };
        for (number, (take, made)) in
            takes.iter().zip(play(&decoder, &takes, &options, Context::Full)?).enumerate()
        {
            for half in [Halves::Conditional, Halves::Unconditional] {
                let mut edits = Edits::new();
                sites.iter().for_each(|site| {
                    edits.capture(site, DType::F32);
                });
                let forward = decoder.teacher_forced_with_text(1, take.frames, 7, edits)?;
                let text = take.text.as_deref().filter(|_| half == Halves::Conditional);
                forward.run_with_texts(std::slice::from_ref(&made.codes), &[text])?;
                for site in &sites {
                    let (got, want) = (rows(&made, site, half)?, forward.output_f32(site)?);
                    measure(
                        &format!("{case}, {precision}, read as {read_as}, take {number}, {half:?}, {site}"),
                        &got,
                        &want,
                        executor.tolerance(),
                    )?;
                }
            }
        }
    }
    Ok(())
}

/// A take gives the same alone, among six others with other lengths and interventions, and in slots that are used again.
fn takes_do_not_hear_each_other(executor: &Executor) -> Check {
    let (decoder, texts) = model(executor, "tiny")?;
    let site = "layers.1.resid_post".to_string();
    let options = |slots| {
        Ok::<_, Failed>(GeneratorOptions {
            slots,
            captures: captures(std::slice::from_ref(&site))?,
            window: None,
        })
    };
    let one = take(Some(&texts[1]), 77);
    let alone = play(&decoder, std::slice::from_ref(&one), &options(0)?, Context::Full)?.remove(0);
    let width = decoder.config().hidden_size;
    let loud: Arc<[f32]> = auscult_kernels::noise("loud", width).map(|v| 9.0 * v).collect();
    let count = if executor.is_slow() { 7 } else { 64 };
    let mut takes: Vec<Take> = (0..count).map(|i| take(Some(&texts[i % 2]), i as u64)).collect();
    for (i, other) in takes.iter_mut().enumerate() {
        other.frames = 5 + 3 * (i % 7);
        if i % 2 == 1 {
            other.edits = vec![Intervention::along(site.parse()?, loud.clone(), Action::Steer(2.0))];
        }
    }
    takes[4] = one;
    for slots in [count, 7, 2] {
        let made = play(&decoder, &takes, &options(slots)?, Context::Full)?;
        ensure(made[4].codes == alone.codes, || format!("{slots} slots: other codes than alone"))?;
        for half in [Halves::Conditional, Halves::Unconditional] {
            let (got, want) = (rows(&made[4], &site, half)?, rows(&alone, &site, half)?);
            ensure(bits(&got) == bits(&want), || format!("{slots} slots, {half:?}: other bits than alone"))?;
        }
    }
    Ok(())
}

/// 40 features over a stream of `width`, 5 active at most; feature 39 never is.
fn autoencoder(width: usize) -> Result<Arc<Sae>, Failed> {
    autoencoder_of(width, Features::TopK(5))
}

/// The same weights with other rules of what is active.
fn autoencoder_of(width: usize, activation: Features) -> Result<Arc<Sae>, Failed> {
    let features = 40;
    let noise = |name: &str, n: usize| auscult_kernels::noise(name, n).collect::<Vec<f32>>();
    let mut b_enc = noise("b_enc", features);
    b_enc[39] = -1e9;
    let parts = SaeParts {
        w_enc: noise("w_enc", width * features),
        b_enc,
        w_dec: noise("w_dec", features * width),
        b_dec: noise("b_dec", width),
    };
    Ok(Arc::new(Sae::with_settings(parts, Settings::new(activation))?))
}

fn strength_zero(executor: &Executor) -> Check {
    let (decoder, texts) = model(executor, "tiny")?;
    let width = decoder.config().hidden_size;
    let site = "layers.0.resid_post".parse()?;
    let options = GeneratorOptions { captures: captures(&["logits".into()])?, ..GeneratorOptions::default() };
    let sae = autoencoder(width)?;
    let direction: Arc<[f32]> = auscult_kernels::noise("direction", width).collect();
    let plain = play(&decoder, &[take(Some(&texts[1]), 5)], &options, Context::Full)?.remove(0);
    let nothing = [
        Intervention::on_feature(site, &sae, 3, Action::Scale(1.0))?,
        Intervention::on_feature(site, &sae, 39, Action::Ablate)?,
        Intervention::along(site, direction, Action::Steer(0.0)),
    ];
    for edit in nothing {
        let what = format!("{:?}", edit.action);
        let take = Take { edits: vec![edit], ..take(Some(&texts[1]), 5) };
        let made = play(&decoder, &[take], &options, Context::Full)?.remove(0);
        ensure(made.codes == plain.codes, || format!("{what}: other codes"))?;
        for half in [Halves::Conditional, Halves::Unconditional] {
            let (got, want) = (rows(&made, "logits", half)?, rows(&plain, "logits", half)?);
            ensure(bits(&got) == bits(&want), || format!("{what}, {half:?}: other bits"))?;
        }
    }
    Ok(())
}

/// The stream before a site, and behind it: what the next layer receives.
const BEFORE: &str = "layers.0.resid_post";
const BEHIND: &str = "layers.1.resid_pre";

/// Plays one take with interventions at [`BEFORE`]; the stream before and behind.
fn around(
    decoder: &Decoder,
    text: &Arc<Text>,
    edits: Vec<Intervention>,
    half: Halves,
) -> Result<[Vec<f32>; 2], Failed> {
    let sites = [BEFORE, BEHIND].map(String::from);
    let options = GeneratorOptions { captures: captures(&sites)?, ..GeneratorOptions::default() };
    let take = Take { edits, ..take(Some(text), 9) };
    let made = play(decoder, &[take], &options, Context::Full)?.remove(0);
    Ok([rows(&made, BEFORE, half)?, rows(&made, BEHIND, half)?])
}

/// What an autoencoder of thresholds has of its own, and one of gates: some thresholds below 0, some gates that open where the
/// magnitude is below 0.
fn rules() -> [Features; 3] {
    let noise = |name: &str, by: f32| auscult_kernels::noise(name, 40).map(|v| v * by).collect::<Vec<f32>>();
    let gated = Features::Gated { r_mag: noise("r_mag", 0.5), b_mag: noise("b_mag", 2.0) };
    [Features::TopK(5), Features::JumpRelu { threshold: noise("threshold", 3.0) }, gated]
}

/// The activation of a feature at a row, by the definition in f64.
fn activation(rule: &Features, width: usize, feature: usize, x: &[f32]) -> f64 {
    let features = 40;
    let noise = |name: &str, n: usize| auscult_kernels::noise(name, n).map(f64::from).collect::<Vec<f64>>();
    let (w, mut b) = (noise("w_enc", width * features), noise("b_enc", features));
    let centre = noise("b_dec", width);
    b[39] = -1e9;
    let pre: Vec<f64> = (0..features)
        .map(|f| b[f] + (0..width).map(|c| (f64::from(x[c]) - centre[c]) * w[c * features + f]).sum::<f64>())
        .collect();
    let own = pre[feature];
    match rule {
        Features::Relu => own.max(0.0),
        Features::TopK(k) if pre.iter().filter(|&&v| v > own).count() < *k => own.max(0.0),
        Features::JumpRelu { threshold } if own > f64::from(threshold[feature]) => own.max(0.0),
        Features::Gated { r_mag, b_mag } if own > 0.0 => {
            let u = own - b[feature];
            (u * f64::from(r_mag[feature]).exp() + f64::from(b_mag[feature])).max(0.0)
        }
        _ => 0.0,
    }
}

fn features_are_switched(executor: &Executor) -> Check {
    let (decoder, texts) = model(executor, "tiny")?;
    rules().iter().try_for_each(|rule| features_of_are_switched(executor, rule, &decoder, &texts))
}

fn features_of_are_switched(
    executor: &Executor,
    rule: &Features,
    decoder: &Decoder,
    texts: &[Arc<Text>],
) -> Check {
    let width = decoder.config().hidden_size;
    let sae = autoencoder_of(width, rule.clone())?;
    let activation = |feature: usize, x: &[f32]| activation(rule, width, feature, x);
    let site = BEFORE.parse()?;
    type Coefficient = fn(f64) -> f64;
    let coefficient: [(Action, Coefficient); 3] =
        [(Action::Ablate, |f| -f), (Action::Scale(3.0), |f| 2.0 * f), (Action::Set(4.0), |f| 4.0 - f)];
    let [plain, _] = around(decoder, &texts[1], vec![], Halves::Conditional)?;
    let count = |feature: usize| plain.chunks(width).filter(|x| activation(feature, x) > 0.0).count();
    let mut features: Vec<usize> = (0..40).filter(|&feature| count(feature) > 0).collect();
    // one that fires nearly always, and one that does now and then
    features.sort_by_key(|&feature| count(feature));
    let mut fired = 0;
    // what is done with an activation does not depend on the rule that it follows
    let actions = if executor.is_slow() && *rule != Features::TopK(5) { 1 } else { coefficient.len() };
    for (action, c) in coefficient.into_iter().take(actions) {
        for feature in [features[0], features[features.len() - 1]] {
            let edit = Intervention::on_feature(site, &sae, feature, action)?;
            let d = sae.direction(feature)?;
            let [before, behind] = around(decoder, &texts[1], vec![edit], Halves::Conditional)?;
            for (s, x) in before.chunks(width).enumerate() {
                let f = activation(feature, x);
                fired += usize::from(f > 0.0);
                let want: Vec<f32> =
                    x.iter().zip(&d).map(|(&x, &d)| (f64::from(x) + c(f) * f64::from(d)) as f32).collect();
                let name = format!("{}, {action:?} of feature {feature}, position {s}", rule.architecture());
                measure(&name, &behind[s * width..][..width], &want, executor.tolerance())?;
            }
        }
    }
    let rule = rule.architecture();
    ensure(fired > 5, || format!("{rule}: the features fired {fired} times: too rarely to tell"))
}

fn directions_are_written(executor: &Executor) -> Check {
    let (decoder, texts) = model(executor, "tiny")?;
    let width = decoder.config().hidden_size;
    let direction: Arc<[f32]> = auscult_kernels::noise("direction", width).collect();
    let other: Arc<[f32]> = auscult_kernels::noise("another run", 6 * width).collect();
    let along =
        |d: &Arc<[f32]>, action| Intervention::along(BEFORE.parse().expect("a site"), d.clone(), action);
    let none: Arc<[f32]> = Arc::new([]);
    // several at one site, in their order
    let steered = vec![along(&direction, Action::Steer(2.0)), along(&direction, Action::Steer(-0.5))];
    let replaced = vec![along(&other, Action::Patch), along(&direction, Action::Steer(1.0))];
    /// The row that comes of x, the direction, and the row of another run.
    type Wanted = fn(&[f32], &[f32], &[f32]) -> Vec<f32>;
    let edits: [(&str, Vec<Intervention>, Wanted); 4] = [
        ("steer", steered, |x, d, _| x.iter().zip(d).map(|(x, d)| (x + 2.0 * d) - 0.5 * d).collect()),
        ("zero", vec![along(&none, Action::Zero)], |x, _, _| vec![0.0; x.len()]),
        ("replace", vec![along(&direction, Action::Replace)], |_, d, _| d.to_vec()),
        ("patch, then steer", replaced, |x, d, other| {
            (if other.is_empty() { x } else { other }).iter().zip(d).map(|(x, d)| x + d).collect()
        }),
    ];
    for (name, edits, want) in edits {
        let [before, behind] = around(&decoder, &texts[0], edits, Halves::Unconditional)?;
        for (s, x) in before.chunks(width).enumerate() {
            let row = other.get(s * width..(s + 1) * width).unwrap_or(&[]);
            let name = format!("{name}, position {s}");
            let want = want(x, &direction, row);
            measure(&name, &behind[s * width..][..width], &want, executor.tolerance())?;
        }
    }
    Ok(())
}

fn kept_to_columns_and_rows(executor: &Executor) -> Check {
    let (decoder, texts) = model(executor, "tiny")?;
    let width = decoder.config().hidden_size;
    let direction: Arc<[f32]> = auscult_kernels::noise("direction", width).collect();
    let mut edit = Intervention::along(BEFORE.parse()?, direction, Action::Steer(5.0));
    edit.columns = 4..11;
    edit.halves = Halves::Unconditional;
    for half in [Halves::Conditional, Halves::Unconditional] {
        let [before, behind] = around(&decoder, &texts[0], vec![edit.clone()], half)?;
        for s in 0..=FRAMES {
            let [x, y] = [&before, &behind].map(|rows| bits(&rows[s * width..][..width]));
            let touched = half == Halves::Unconditional && (4..11).contains(&s);
            ensure((x != y) == touched, || format!("{half:?}, position {s}: touched is not {touched}"))?;
        }
    }
    Ok(())
}

/// Takes that continue one prompt give what each of them gives alone.
fn prompts_are_shared(executor: &Executor) -> Check {
    let (decoder, texts) = model(executor, "tiny")?;
    // around what a page of the caches holds, 16
    let lengths: &[usize] = if executor.is_slow() { &[16, 19] } else { &[1, 2, 16, 19, 33] };
    for &frames in lengths {
        let prompt = prompt(&decoder, frames)?;
        let continued =
            |seed| Take { prompt: Some(prompt.clone()), frames: frames + 9, ..take(Some(&texts[1]), seed) };
        let takes: Vec<Take> = (0..4).map(continued).collect();
        let options = |slots| {
            let captures = captures(&[BEFORE.into()])?;
            Ok::<_, Failed>(GeneratorOptions { slots, captures, ..GeneratorOptions::default() })
        };
        let together = play(&decoder, &takes, &options(3)?, Context::Full)?;
        for (i, take) in takes.iter().enumerate().skip(if executor.is_slow() { 3 } else { 0 }) {
            let alone = play(&decoder, std::slice::from_ref(take), &options(0)?, Context::Full)?;
            ensure(alone[0].codes == together[i].codes, || format!("prompt of {frames}: take {i} differs"))?;
            for half in [Halves::Conditional, Halves::Unconditional] {
                let [got, want] = [&together[i], &alone[0]].map(|made| rows(made, BEFORE, half));
                ensure(bits(&got?) == bits(&want?), || {
                    format!("prompt of {frames}, {half:?}: rows of take {i}")
                })?;
            }
        }
        let distinct = together.windows(2).any(|pair| pair[0].codes != pair[1].codes);
        ensure(distinct, || "all takes are alike: the noise is not heard".into())?;
    }
    Ok(())
}

/// A take of a stereo decoder to audio and back to a prompt: codebooks 0, 2, .. are the left channel, 1, 3, .. the right one.
fn stereo_takes_sound(executor: &Executor) -> Check {
    for case in ["stereo", "melody-stereo"] {
        let dir = tempfile::tempdir()?;
        write_checkpoint(&Generation::committed(case).model(), dir.path(), &Layout::default());
        let decoder = Decoder::open(dir.path(), executor.backend.clone(), &DecoderOptions::default())?;
        let codec = Encodec::open(dir.path(), executor.backend.clone())?;
        ensure((decoder.config().num_codebooks, codec.codebooks()) == (8, 4), || {
            "not 8 codebooks of 4".into()
        })?;
        let made = play(&decoder, &[take(None, 3)], &GeneratorOptions::default(), Context::Full)?.remove(0);
        let rows: Vec<&[u32]> = made.codes.values().chunks(FRAMES).collect();
        let channels = codec.decode_channels(&made.codes)?;
        ensure(channels.len() == 2, || format!("{} channels", channels.len()))?;
        ensure(channels[0] != channels[1], || "both channels are alike".into())?;
        for (channel, of) in channels.iter().zip([[0, 2, 4, 6], [1, 3, 5, 7]]) {
            let codes = Codes::new(4, FRAMES, of.map(|q| rows[q]).concat())?;
            ensure(channel.len() == FRAMES * codec.config().hop_length(), || "another length".into())?;
            ensure(bits(channel) == bits(&codec.decode(&codes)?), || format!("not of codebooks {of:?}"))?;
        }
        let [left, right] = [0, 1].map(|c| codec.encode(&[&channels[c]]));
        let codes = codec.encode_channels(&[&channels[0], &channels[1]])?;
        for (q, row) in codes.values().chunks(FRAMES).enumerate() {
            let of = if q % 2 == 0 { &left } else { &right }.as_ref().map_err(|e| e.to_string())?;
            ensure(row == &of[0].values()[q / 2 * FRAMES..][..FRAMES], || format!("codebook {q} differs"))?;
        }
    }
    Ok(())
}
