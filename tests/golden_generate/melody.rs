//! MusicGen Melody: what transformers gives, and what a generator owes itself where text and melody stand in front of the
//! columns.

use super::common::compare::measure;
use super::common::generation::{ForwardFacts, Generation, Part, PrefixFacts, Run, TextPad};
use super::itself::{FRAMES, bits, ensure, model, prompt, rows, take};
use super::reference::{codes_of, texts};
use super::{Check, Executor, Named, captures, decoder, play};
use auscult_kernels::DType;
use auscult_model::musicgen::generate::{
    Action, Condition, Context, Generator, GeneratorOptions, Halves, Intervention, Melody, Take, Text,
};
use auscult_model::musicgen::{At, Decoder, Site};
use auscult_runtime::Edits;
use libtest_mimic::Failed;
use std::sync::Arc;

/// Every check of a generator, by name.
pub const CHECKS: &[Named] = &[
    ("melody: caches equal one pass", caches_equal_one_pass),
    ("melody: takes do not hear each other", takes_do_not_hear_each_other),
    ("melody: nothing is done in front of the columns", edits_keep_to_columns),
    ("melody: a melody moves on with its windows", melodies_move_on),
    ("melody: refusals", refusals),
];

/// Sequences that slow executors play.
pub const CHOSEN: [&str; 3] = ["greedy.none", "sample.guided", "continue.p19"];

/// Frames of chroma in the 30 s of the published models, 32,000 / 4,096 a second.
const RATE: f64 = 7.8125;

/// What stands in front of each row of a prefix run: its text, padded by zeros as transformers pads a batch, and its melody.
type Fronts = Vec<(Arc<Text>, Option<Arc<Melody>>)>;

pub fn fronts(generation: &Generation, run: &Run<'_, PrefixFacts>) -> Result<Fronts, Failed> {
    let facts = &run.facts;
    let all = texts(generation, &facts.text, TextPad::Mask)?;
    let classes = run.classes();
    let front = |(row, &text): (usize, &usize)| {
        let mut values = all[text].values().to_vec();
        values.resize(facts.tokens * all[text].width(), 0.0);
        let melody = classes.as_ref().map(|classes| {
            let frames = classes.shape[1];
            let row = &classes.i32()[row * frames..][..frames];
            let classes = row.iter().map(|&class| u8::try_from(class).expect("a pitch class"));
            Melody::new(classes.collect(), RATE).map(Arc::new)
        });
        Ok((Arc::new(Text::new(values, all[text].width())?), melody.transpose()?))
    };
    facts.text_rows.iter().enumerate().map(front).collect()
}

/// The teacher-forced passes of a case: every site, the positions in front of the columns included, and the null half.
pub fn forwards(executor: &Executor, case: &str) -> Check {
    let generation = Generation::committed(case);
    let decoder = decoder(executor, &generation)?;
    let runs = generation.forwards();
    ensure(!runs.is_empty(), || format!("`{case}` has no pass"))?;
    for run in runs {
        for part in [Part::Cond, Part::Null] {
            forward(executor, &generation, &decoder, &run, part)?;
        }
    }
    Ok(())
}

fn forward(
    executor: &Executor,
    generation: &Generation,
    decoder: &Decoder,
    run: &Run<'_, ForwardFacts>,
    part: Part,
) -> Check {
    let facts = &run.facts;
    let prefix = generation.prefix(facts.prefix_run.as_deref().ok_or("a prefix stands in front")?);
    let fronts = fronts(generation, &prefix)?;
    let sites = run.sites(part);
    let mut edits = Edits::new();
    for site in &sites {
        edits.capture(site, DType::F32);
    }
    let forward = decoder.teacher_forced_with_text(facts.rows, facts.frames, prefix.facts.tokens, edits)?;
    ensure(forward.prefix_positions() == facts.prefix, || {
        format!("{} positions in front, expected {}", forward.prefix_positions(), facts.prefix)
    })?;
    let codebooks = facts.delays.len();
    let codes = run.codes();
    let clips = codes.i32().chunks(codebooks * facts.frames).map(|clip| codes_of(clip, codebooks));
    let conditions: Vec<Condition<'_>> = match part {
        Part::Null => vec![Condition::default(); facts.rows],
        _ => fronts.iter().map(|(t, m)| Condition { text: Some(t), melody: m.as_deref() }).collect(),
    };
    forward.run_conditioned(&clips.collect::<Result<Vec<_>, _>>()?, &conditions)?;
    for site in &sites {
        let name = format!("{}.{part:?}.{site}", run.name);
        let columns = forward.output_f32(site)?;
        let front: Vec<f32> = bytemuck::pod_collect_to_vec(&forward.prefix_output(site)?);
        let per_clip = |rows: &[f32], clip: usize| {
            let one = rows.len() / facts.rows;
            rows[clip * one..][..one].to_vec()
        };
        // the reference drops the scores of what is in front
        let got: Vec<f32> = (0..facts.rows)
            .flat_map(|clip| match site.as_str() {
                "logits" => per_clip(&columns, clip),
                _ => [per_clip(&front, clip), per_clip(&columns, clip)].concat(),
            })
            .collect();
        measure(&name, &got, run.site(part, site).f32(), executor.tolerance())?;
    }
    Ok(())
}

/// A melody that no other check has.
fn melody(seed: &str, frames: usize) -> Result<Arc<Melody>, Failed> {
    let classes = auscult_kernels::noise(seed, frames).map(|v| ((v + 1.0) * 6.0) as u8 % 12).collect();
    Ok(Arc::new(Melody::new(classes, RATE)?))
}

fn sites(decoder: &Decoder) -> Vec<String> {
    let all = Site::all(decoder.config().num_hidden_layers);
    all.filter(|site| !matches!(site, Site::Layer(_, At::CrossAttnOut))).map(|s| s.to_string()).collect()
}

/// Text and melody, a melody alone behind a prompt, text alone behind a prompt of one frame, nothing.
fn takes(decoder: &Decoder, texts: &[Arc<Text>]) -> Result<Vec<Take>, Failed> {
    let mut takes = vec![take(Some(&texts[1]), 1), take(None, 2), take(Some(&texts[0]), 3), take(None, 4)];
    takes[0].melody = Some(melody("one", 5)?);
    takes[1].melody = Some(melody("another", 40)?);
    takes[1].prompt = Some(prompt(decoder, 18)?);
    takes[1].frames = 26;
    takes[2].prompt = Some(prompt(decoder, 1)?);
    Ok(takes)
}

fn caches_equal_one_pass(executor: &Executor) -> Check {
    for case in ["melody", "melody-stereo"] {
        let (decoder, texts) = model(executor, case)?;
        let sites = sites(&decoder);
        let takes = takes(&decoder, &texts)?;
        let options = GeneratorOptions { captures: captures(&sites)?, ..GeneratorOptions::default() };
        let played = play(&decoder, &takes, &options, Context::Full)?;
        for (number, (take, made)) in takes.iter().zip(played).enumerate() {
            let tokens = take.text.as_ref().map_or(1, |text| text.tokens());
            for half in [Halves::Conditional, Halves::Unconditional] {
                let mut edits = Edits::new();
                sites.iter().for_each(|site| {
                    edits.capture(site, DType::F32);
                });
                let forward = decoder.teacher_forced_with_text(1, take.frames, tokens, edits)?;
                let condition = match half {
                    Halves::Conditional => {
                        Condition { text: take.text.as_deref(), melody: take.melody.as_deref() }
                    }
                    _ => Condition::default(),
                };
                forward.run_conditioned(std::slice::from_ref(&made.codes), &[condition])?;
                for site in &sites {
                    let (got, want) = (rows(&made, site, half)?, forward.output_f32(site)?);
                    let name = format!("{case}, take {number}, {half:?}, {site}");
                    measure(&name, &got, &want, executor.tolerance())?;
                }
            }
        }
    }
    Ok(())
}

/// A take gives the same alone and among others whose texts, melodies and prompts are of other lengths, in slots that are used
/// again; and takes that begin alike share what stands in front of them.
fn takes_do_not_hear_each_other(executor: &Executor) -> Check {
    let (decoder, texts) = model(executor, "melody")?;
    let mut takes = takes(&decoder, &texts)?;
    takes.extend([Take { seed: 9, ..takes[0].clone() }, Take { seed: 10, ..takes[1].clone() }]);
    let alone = |take: &Take| {
        play(&decoder, std::slice::from_ref(take), &GeneratorOptions::default(), Context::Full)
            .map(|mut made| made.remove(0).codes)
    };
    let alone = takes.iter().map(alone).collect::<Result<Vec<_>, _>>()?;
    for slots in [6, 2] {
        let options = GeneratorOptions { slots, ..GeneratorOptions::default() };
        let together = play(&decoder, &takes, &options, Context::Full)?;
        for (i, (alone, together)) in alone.iter().zip(&together).enumerate() {
            ensure(*alone == together.codes, || format!("{slots} slots, take {i}: other codes than alone"))?;
        }
    }
    ensure(alone[0] != alone[4], || "other noise, the same codes".into())?;
    // the same take with another melody
    let other = Take { melody: Some(melody("a third", 5)?), ..takes[0].clone() };
    let other = play(&decoder, &[other], &GeneratorOptions::default(), Context::Full)?.remove(0);
    ensure(other.codes != alone[0], || "the melody is not heard".into())
}

fn edits_keep_to_columns(executor: &Executor) -> Check {
    let (decoder, texts) = model(executor, "melody")?;
    let width = decoder.config().hidden_size;
    let (before, behind, after) = ("layers.0.resid_post", "layers.1.resid_pre", "layers.1.resid_post");
    let options = GeneratorOptions {
        captures: captures(&[before.into(), behind.into(), after.into()])?,
        ..GeneratorOptions::default()
    };
    let direction: Arc<[f32]> = auscult_kernels::noise("direction", width).collect();
    let mut everywhere = take(Some(&texts[1]), 5);
    everywhere.melody = Some(melody("one", 5)?);
    everywhere.prompt = Some(prompt(&decoder, 6)?);
    everywhere.edits = vec![Intervention::along(before.parse()?, direction.clone(), Action::Steer(4.0))];
    let mut some = everywhere.clone();
    some.edits[0].columns = 4..11;
    let mut late = everywhere.clone();
    late.edits[0].columns = 3..usize::MAX;
    let mut plain = everywhere.clone();
    plain.edits.clear();
    let made = play(&decoder, &[everywhere, some, late, plain], &options, Context::Full)?;
    for half in [Halves::Conditional, Halves::Unconditional] {
        let touched = |take: usize| -> Result<Vec<usize>, Failed> {
            let [x, y] = [rows(&made[take], before, half)?, rows(&made[take], behind, half)?];
            let pairs = x.chunks(width).zip(y.chunks(width)).enumerate();
            Ok(pairs.filter(|(_, (x, y))| bits(x) != bits(y)).map(|(s, _)| s).collect())
        };
        ensure(touched(0)? == (0..=FRAMES).collect::<Vec<_>>(), || format!("{half:?}: not every column"))?;
        ensure(touched(1)? == (4..11).collect::<Vec<_>>(), || format!("{half:?}: other columns"))?;
        ensure(touched(2)? == (3..=FRAMES).collect::<Vec<_>>(), || format!("{half:?}: other columns"))?;
        ensure(touched(3)?.is_empty(), || format!("{half:?}: touched without an edit"))?;
        // the next layer attends to what stands in front: columns before the first edit are as they were
        let early = |take: usize| Ok::<_, Failed>(bits(&rows(&made[take], after, half)?[..3 * width]));
        ensure(early(2)? == early(3)?, || format!("{half:?}: the prefix was edited"))?;
    }
    Ok(())
}

/// In a second window the melody goes on where its time has come: the window is what a take of its own would be.
fn melodies_move_on(executor: &Executor) -> Check {
    let (decoder, texts) = model(executor, "melody")?;
    // one class of chroma for every 8 frames of codes
    let rate = decoder.frames_per_second() / 8.0;
    let classes: Vec<u8> = (0..12).collect();
    let mut long = take(Some(&texts[0]), 0);
    long.sampling.greedy = true;
    long.melody = Some(Arc::new(Melody::new(classes.clone(), rate)?));
    long.frames = 28;
    let window = GeneratorOptions { window: Some(20), ..GeneratorOptions::default() };
    let made = play(&decoder, &[long.clone()], &window, Context::Stride(8))?.remove(0);
    let codebooks = decoder.config().num_codebooks;
    let from = |first: usize, frames: usize| {
        let rows = made.codes.values().chunks(28).flat_map(|q| &q[first..first + frames]);
        auscult_model::Codes::new(codebooks, frames, rows.copied().collect())
    };
    let moved = [&classes[1..], &classes[..1]].concat();
    let unmoved = Take { prompt: Some(Arc::new(from(8, 12)?)), frames: 20, ..long };
    let second = Take { melody: Some(Arc::new(Melody::new(moved, rate)?)), ..unmoved.clone() };
    let own = play(&decoder, &[second, unmoved], &GeneratorOptions::default(), Context::Full)?;
    ensure(own[0].codes == from(8, 20)?, || "the second window hears another melody".into())?;
    ensure(own[1].codes != own[0].codes, || "it would not be heard if the melody stood still".into())
}

fn refusals(executor: &Executor) -> Check {
    let error = |decoder: &Decoder, take: Take, captured: &[String]| -> Result<String, Failed> {
        let options = GeneratorOptions { captures: captures(captured)?, ..GeneratorOptions::default() };
        match Generator::new(decoder, &[take], &options) {
            Err(error) => Ok(error.to_string()),
            Ok(_) => Err("not refused".into()),
        }
    };
    let (other, _) = model(executor, "tiny")?;
    let told = Take { melody: Some(melody("one", 5)?), ..take(None, 1) };
    let found = error(&other, told.clone(), &[])?;
    let want = "`melody` is given, expected none: this checkpoint is no MusicGen Melody";
    ensure(found == want, || found)?;
    let (decoder, _) = model(executor, "melody")?;
    let wrong = Take { melody: Some(Arc::new(Melody::new(vec![0, 12], RATE)?)), ..told.clone() };
    let found = error(&decoder, wrong, &[])?;
    let want = "`melody` is pitch class 12 at frame 1, expected less than 12 (`num_chroma`)";
    ensure(found == want, || found)?;
    let found = error(&decoder, told, &["layers.1.cross_attn_out".into()])?;
    let want = "site `layers.1.cross_attn_out` does not exist, expected a site of a decoder without cross-attention, whose \
                text is a prefix";
    ensure(found == want, || found)
}
