//! What transformers gives.

use super::common::compare::measure;
use super::common::generation::{ForwardFacts, Generation, Part, Run, SequenceFacts, TextPad, real_rows};
use super::melody;
use super::{Check, Executor, captures, decoder, play, values};
use auscult_kernels::DType;
use auscult_model::Codes;
use auscult_model::musicgen::generate::{Context, GeneratorOptions, Halves, Sampling, Take, Text};
use auscult_runtime::Edits;
use libtest_mimic::Failed;
use std::sync::Arc;

/// Every prompt of a text run; with `attend`, padded by rows of zeros.
pub fn texts(generation: &Generation, name: &str, pad: TextPad) -> Result<Vec<Arc<Text>>, Failed> {
    let run = generation.text(name);
    let projected = run.projected();
    let (longest, width) = (projected.shape[1], projected.shape[2]);
    let text = |(row, &length): (usize, &usize)| {
        let rows = match pad {
            TextPad::Mask => length,
            TextPad::Attend => longest,
        };
        Ok(Arc::new(Text::new(real_rows(&projected, row, rows).to_vec(), width)?))
    };
    run.facts.lengths.iter().enumerate().map(text).collect()
}

pub fn codes_of(values: &[i32], codebooks: usize) -> Result<Codes, Failed> {
    let values: Vec<u32> = values.iter().map(|&code| code.cast_unsigned()).collect();
    Ok(Codes::new(codebooks, values.len() / codebooks, values)?)
}

/// The teacher-forced passes of a case, with text at every site, without, and with padding that is attended to.
pub fn forwards(executor: &Executor, case: &str) -> Check {
    let generation = Generation::committed(case);
    let decoder = decoder(executor, &generation)?;
    for run in generation.forwards() {
        for part in [Part::Cond, Part::Null, Part::Attend] {
            forward(executor, &generation, &decoder, &run, part)?;
        }
    }
    Ok(())
}

fn forward(
    executor: &Executor,
    generation: &Generation,
    decoder: &auscult_model::musicgen::Decoder,
    run: &Run<'_, ForwardFacts>,
    part: Part,
) -> Check {
    let facts = &run.facts;
    let pad = if part == Part::Attend { TextPad::Attend } else { TextPad::Mask };
    let all = texts(generation, facts.text.as_deref().ok_or("a decoder's run has texts")?, pad)?;
    let rows = facts.text_rows.as_ref().ok_or("each row has a text")?;
    let chosen: Vec<Option<&Text>> = rows.iter().map(|&t| (part != Part::Null).then(|| &*all[t])).collect();
    let sites = run.sites(part);
    let mut edits = Edits::new();
    for site in &sites {
        edits.capture(site, DType::F32);
    }
    let tokens = all.iter().map(|text| text.tokens()).max().ok_or("there are texts")?;
    // null text has no column in the pass: both ways must do
    let forward = match part {
        Part::Null => decoder.teacher_forced(facts.rows, facts.frames, edits)?,
        _ => decoder.teacher_forced_with_text(facts.rows, facts.frames, tokens, edits)?,
    };
    let codebooks = facts.delays.len();
    let codes = run.codes();
    let clips = codes.i32().chunks(codebooks * facts.frames).map(|clip| codes_of(clip, codebooks));
    forward.run_with_texts(&clips.collect::<Result<Vec<_>, _>>()?, &chosen)?;
    for site in &sites {
        let name = format!("{}.{part:?}.{site}", run.name);
        measure(&name, &forward.output_f32(site)?, run.site(part, site).f32(), executor.tolerance())?;
    }
    Ok(())
}

/// Frames that slow executors are asked for of a sequence.
const FEW: usize = 16;

/// Sequences that slow executors play: between them, every op of a step and of a prompt.
pub const CHOSEN: [&str; 3] = ["greedy.guided", "sample.both", "continue.p5"];

/// The sequence that slow executors too play to its end, 200 frames: its case, its name.
const WHOLE: (&str, &str) = ("hd8", "greedy.guided");

/// A sequence: the codes, and the scores of the columns that are stored.
pub fn sequence(executor: &Executor, case: &str, name: &str) -> Check {
    let generation = Generation::committed(case);
    let run = generation.sequence(name);
    let texts = match &run.facts.text {
        Some(name) => texts(&generation, name, run.facts.text_pad.unwrap_or(TextPad::Mask))?,
        None => vec![],
    };
    sequence_told(executor, &generation, &run, &texts)
}

/// As [`sequence`], from given forms of its texts.
pub fn sequence_told(
    executor: &Executor,
    generation: &Generation,
    run: &Run<'_, SequenceFacts>,
    texts: &[Arc<Text>],
) -> Check {
    let long = run.facts.frames > FEW && (&*generation.case.name, run.name) != WHOLE;
    if executor.is_slow() && long && run.facts.window.is_none() {
        return shortened(executor, generation, run, texts);
    }
    let name = run.name;
    let decoder = decoder(executor, generation)?;
    let takes = takes(generation, run, texts)?;
    let (window, context) = match &run.facts.window {
        Some(window) => (Some(window.longest), Context::Stride(window.stride)),
        None => (None, Context::Full),
    };
    let kept = if run.facts.columns.is_empty() { vec![] } else { captures(&["logits".into()])? };
    let options = GeneratorOptions { window, captures: kept, ..GeneratorOptions::default() };
    let made = play(&decoder, &takes, &options, context)?;
    let codes = run.codes();
    let row = codes.count() / run.facts.rows;
    for (r, generated) in made.iter().enumerate() {
        let want: Vec<u32> = codes.i32()[r * row..][..row].iter().map(|code| code.cast_unsigned()).collect();
        same_codes(run, r, generated.codes.values(), &want)?;
        scores(executor, run, r, generated)?;
        if let Some(window) = &run.facts.window {
            let spans: Vec<[usize; 3]> = generated
                .windows
                .iter()
                .map(|w| [w.sees_from, w.frames.start - w.sees_from, w.frames.end - w.sees_from])
                .collect();
            if spans != window.spans {
                return Err(format!("{name}: windows {spans:?}, expected {:?}", window.spans).into());
            }
        }
    }
    Ok(())
}

/// The first columns of a long sequence: what comes later does not change them.
fn shortened(
    executor: &Executor,
    generation: &Generation,
    run: &Run<'_, SequenceFacts>,
    texts: &[Arc<Text>],
) -> Check {
    let decoder = decoder(executor, generation)?;
    let mut takes = takes(generation, run, texts)?;
    takes.iter_mut().for_each(|take| take.frames = run.facts.frames.min(run.facts.prompt + FEW));
    let made = play(&decoder, &takes, &GeneratorOptions::default(), Context::Full)?;
    let (codes, delays) = (run.codes(), &run.facts.delays);
    for (r, generated) in made.iter().enumerate() {
        let kept = generated.codes.frames();
        let want = codes.i32().chunks(run.facts.frames).skip(r * delays.len());
        for ((q, got), want) in generated.codes.values().chunks(kept).enumerate().zip(want) {
            // behind the last frame the pattern has special tokens where the longer sequence has codes
            for t in (0..kept).filter(|t| t + delays[q] <= kept) {
                if got[t] != want[t].cast_unsigned() {
                    let place = format!("{} row {r}: codebook {q}, frame {t}", run.name);
                    return Err(format!("{place}: code {}, expected {}", got[t], want[t]).into());
                }
            }
        }
    }
    Ok(())
}

fn takes(
    generation: &Generation,
    run: &Run<'_, SequenceFacts>,
    texts: &[Arc<Text>],
) -> Result<Vec<Take>, Failed> {
    let facts = &run.facts;
    let fronts = match &facts.prefix {
        Some(name) => melody::fronts(generation, &generation.prefix(name))?,
        None => vec![],
    };
    let codebooks = facts.delays.len();
    let prompts = run.prompt();
    let take = |row: usize| {
        let sampling = match &facts.sampling {
            None => Sampling { greedy: true, ..Sampling::default() },
            Some(drawn) => Sampling {
                temperature: drawn.temperature as f32,
                top_k: u32::try_from(drawn.top_k)?,
                top_p: drawn.top_p as f32,
                ..Sampling::default()
            },
        };
        let prompt = match facts.prompt {
            0 => None,
            n => {
                let one = &prompts.i32()[row * codebooks * n..][..codebooks * n];
                Some(Arc::new(codes_of(one, codebooks)?))
            }
        };
        Ok(Take {
            text: match fronts.get(row) {
                Some((text, _)) => Some(text.clone()),
                None => facts.text_rows.as_ref().map(|rows| texts[rows[row]].clone()),
            },
            melody: fronts.get(row).and_then(|(_, melody)| melody.clone()),
            prompt,
            frames: facts.frames,
            seed: facts.sampling.as_ref().map_or(0, |drawn| drawn.seeds[row]),
            row: facts.sampling.as_ref().map_or(0, |drawn| drawn.row_keys[row]),
            sampling: Sampling { guidance: facts.guidance.unwrap_or(1.0) as f32, ..sampling },
            edits: vec![],
        })
    };
    (0..facts.rows).map(take).collect()
}

fn same_codes(run: &Run<'_, SequenceFacts>, row: usize, got: &[u32], want: &[u32]) -> Check {
    if got.len() != want.len() {
        return Err(format!("{} row {row}: {} codes, expected {}", run.name, got.len(), want.len()).into());
    }
    let frames = want.len() / run.facts.delays.len();
    match (0..want.len()).filter(|&i| got[i] != want[i]).min_by_key(|i| i % frames) {
        None => Ok(()),
        Some(at) => Err(format!(
            "{} row {row}: codebook {}, frame {}: code {}, expected {} (margin {:e})",
            run.name,
            at / frames,
            at % frames,
            got[at],
            want[at],
            run.facts.margin
        )
        .into()),
    }
}

/// The scores that decided, where they are stored and a frame's position is kept.
fn scores(
    executor: &Executor,
    run: &Run<'_, SequenceFacts>,
    row: usize,
    generated: &auscult_model::musicgen::generate::Generated,
) -> Check {
    let columns = &run.facts.columns;
    for captured in &generated.captured {
        let want = match captured.half {
            Halves::Conditional => Some(run.cond()),
            _ => run.null(),
        };
        let Some(want) = want else { continue };
        let got = values(captured);
        let width = got.len() / (run.facts.frames + 1);
        for (i, &column) in columns.iter().enumerate().filter(|(_, column)| **column <= run.facts.frames) {
            let name = format!("{} row {row}: {:?} scores of column {column}", run.name, captured.half);
            let want = &want.f32()[(row * columns.len() + i) * width..][..width];
            measure(&name, &got[column * width..][..width], want, executor.tolerance())?;
        }
    }
    Ok(())
}
