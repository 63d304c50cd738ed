//! Music out, against stored outputs of Hugging Face transformers and against itself, on every executor.
//!
//! Forward passes with text, sequences chosen step by step, what is captured on the way, batches, interventions. What is
//! missing of the executors shows as ignored: see `common/executors.rs`.

#[path = "../common/mod.rs"]
mod common;
mod itself;
mod melody;
mod reference;
mod text;

use auscult_model::musicgen::generate::{
    Captured, Context, Event, Generated, Generator, GeneratorOptions, Take,
};
use auscult_model::musicgen::{Decoder, DecoderOptions};
use auscult_model::{ModelError, musicgen::generate::Capture};
use common::checkpoint::{Layout, write_checkpoint};
use common::executors::{Executor, Executors};
use common::generation::Generation;
use common::golden::Kind;
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

type Check = Result<(), Failed>;

/// A check by its name.
type Named = (&'static str, fn(&Executor) -> Check);

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let executors = Executors::open();
    let mut trials: Vec<Trial> = executors.missing().collect();
    for executor in &executors.there {
        let name = executor.name;
        let mut add = |label: String, check: Box<dyn FnOnce(&Executor) -> Check + Send>| {
            let executor = executor.clone();
            trials.push(Trial::test(format!("{name}::{label}"), move || check(&executor)));
        };
        for case in Generation::all_of(Kind::Musicgen).into_iter().map(|g| g.case.name) {
            let one = case.clone();
            add(format!("{case}::forward"), Box::new(move |e| reference::forwards(e, &one)));
            for run in Generation::committed(&case).sequences().iter().map(|run| run.name.to_string()) {
                if executor.is_slow() && !reference::CHOSEN.contains(&&*run) {
                    continue;
                }
                let case = case.clone();
                add(format!("{case}::{run}"), Box::new(move |e| reference::sequence(e, &case, &run)));
            }
        }
        for case in Generation::all_of(Kind::Musicgen).into_iter().map(|g| g.case.name) {
            let label = format!("{case}::from strings");
            add(label, Box::new(move |e| text::from_strings(e, &case)));
        }
        for case in Generation::all_of(Kind::Melody).into_iter().map(|g| g.case.name) {
            let one = case.clone();
            add(format!("{case}::forward"), Box::new(move |e| melody::forwards(e, &one)));
            for run in Generation::committed(&case).sequences().iter().map(|run| run.name.to_string()) {
                if executor.is_slow() && !melody::CHOSEN.contains(&&*run) {
                    continue;
                }
                let case = case.clone();
                add(format!("{case}::{run}"), Box::new(move |e| reference::sequence(e, &case, &run)));
            }
        }
        for (label, check) in itself::CHECKS.iter().chain(melody::CHECKS) {
            add((*label).to_string(), Box::new(check));
        }
    }
    libtest_mimic::run(&args, trials).exit_code()
}

/// A decoder of a case's weights.
fn decoder(executor: &Executor, generation: &Generation) -> Result<Decoder, Failed> {
    decoder_from(executor, generation, &Layout::default(), &DecoderOptions::default())
}

/// A decoder of a case's weights in a checkpoint of this layout.
fn decoder_from(
    executor: &Executor,
    generation: &Generation,
    layout: &Layout,
    options: &DecoderOptions,
) -> Result<Decoder, Failed> {
    let dir = tempfile::tempdir()?;
    write_checkpoint(&generation.model(), dir.path(), layout);
    Ok(Decoder::open(dir.path(), executor.backend.clone(), options)?)
}

/// Plays takes, and returns them in their order.
fn play(
    decoder: &Decoder,
    takes: &[Take],
    options: &GeneratorOptions,
    context: Context,
) -> Result<Vec<Generated>, ModelError> {
    let mut made: Vec<Option<Generated>> = vec![None; takes.len()];
    Generator::new(decoder, takes, options)?.play(takes, context, 50, &mut |event| {
        if let Event::Finished { take, generated } = event {
            made[take] = Some(generated);
        }
        Ok::<_, ModelError>(())
    })?;
    Ok(made.into_iter().map(|one| one.expect("every take is finished")).collect())
}

/// Captures of sites under their own names.
fn captures(sites: &[String]) -> Result<Vec<Capture>, ModelError> {
    let capture = |site: &String| Ok(Capture { label: site.clone(), site: site.parse()? });
    sites.iter().map(capture).collect()
}

fn values(captured: &Captured) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(&captured.rows)
}
