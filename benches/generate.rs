//! Music out at real sizes: steps a second of takes played side by side, with and without guidance, with a feature
//! switched off, beside the bytes of a step.
//!
//! `cargo bench --bench generate -- [--model DIR] [--device cpu|wgpu:N|cuda:N] [--threads N] [--repeat N]
//! [--seconds S] [--takes N,N,...] [--precision f32|bf16|f16]`
//!
//! A step is one column of the delay pattern for every take. Without `--model` it writes a random checkpoint of
//! musicgen-small's dimensions (2.4 GB) below the target directory once. Lines are JSON, as those of
//! `benches/peers/torch_generate.py`, which plays the same takes in torch.

mod common;

use auscult_model::ModelError;
use auscult_model::musicgen::generate::{
    Action, Context, Event, Generator, GeneratorOptions, Intervention, Sampling, Take, Text,
};
use auscult_model::musicgen::{Decoder, Site};
use auscult_model::sae::{Sae, SaeParts};
use auscult_runtime::Step;
use common::{Options, Result, round, time};
use serde_json::json;
use std::sync::Arc;

/// Tokens of the text.
const TOKENS: usize = 12;

/// What the difference that text makes is multiplied by.
const GUIDANCE: f32 = 3.0;

/// Features of the autoencoder and how many are active, as of those published for musicgen-small.
const FEATURES: usize = 32_768;
const ACTIVE: usize = 100;

fn main() -> Result<()> {
    let options = Options::read(&[1, 8])?;
    println!("{}", options.about());
    let decoder = options.open()?;
    let width = decoder.config().hidden_size;
    let states = auscult_kernels::noise("text", TOKENS * width).collect();
    let text = Arc::new(Text::new(states, width)?);
    for &batch in &options.batches {
        let take = |guidance, edit| takes(&options, batch, &text, guidance, edit);
        play(&options, &decoder, "text without guidance", &take(1.0, None))?;
        play(&options, &decoder, "guided by text", &take(GUIDANCE, None))?;
        let edited = take(GUIDANCE, Some(&ablation(width)?));
        play(&options, &decoder, "guided by text, one feature ablated", &edited)?;
    }
    Ok(())
}

fn takes(
    options: &Options,
    batch: usize,
    text: &Arc<Text>,
    guidance: f32,
    edit: Option<&Intervention>,
) -> Vec<Take> {
    let take = |row| Take {
        text: Some(text.clone()),
        melody: None,
        prompt: None,
        frames: options.seconds * 50,
        seed: 1,
        row,
        sampling: Sampling { guidance, ..Sampling::default() },
        edits: edit.cloned().into_iter().collect(),
    };
    (0..).map(take).take(batch).collect()
}

/// A feature of a random autoencoder, in the middle of musicgen-small.
fn ablation(width: usize) -> Result<Intervention> {
    let noise = |name: &str, n: usize| auscult_kernels::noise(name, n).collect::<Vec<f32>>();
    let parts = SaeParts {
        w_enc: noise("w_enc", width * FEATURES),
        b_enc: noise("b_enc", FEATURES),
        w_dec: noise("w_dec", width * FEATURES),
        b_dec: vec![0.0; width],
    };
    let sae = Arc::new(Sae::new(parts, Some(ACTIVE), None)?);
    let site: Site = "layers.11.resid_post".parse()?;
    Ok(Intervention::on_feature(site, &sae, 7, Action::Ablate)?)
}

fn play(options: &Options, decoder: &Decoder, job: &str, takes: &[Take]) -> Result<()> {
    let mut generator = Generator::new(decoder, takes, &GeneratorOptions::default())?;
    // as they are when caches are full, whose bytes are the whole of what a launch may read
    let (mut bytes, mut launches) = (0, 0);
    for step in generator.graph().steps() {
        if let Step::Dispatch { plan, .. } = step {
            bytes += plan.cost.bytes;
            launches += 1;
        }
    }
    let frames = takes[0].frames;
    let (best, median) = time(options.repeat, || {
        let mut codes = 0;
        generator.play(takes, Context::Full, frames, &mut |event| {
            if let Event::Finished { generated, .. } = event {
                codes += generated.codes.frames();
            }
            Ok::<_, ModelError>(())
        })?;
        if codes == frames * takes.len() { Ok(()) } else { Err(format!("{codes} frames were made").into()) }
    })?;
    let delays = decoder.config().delays();
    let steps = frames + delays.iter().max().expect("a decoder has codebooks");
    let floor = bytes as f64 / options.ceiling.bytes;
    println!(
        "{}",
        json!({
            "job": job,
            "precision": options.precision.name(),
            "takes": takes.len(),
            "steps": steps,
            "best_s": round(best),
            "median_s": round(median),
            "ms_a_step": round(1e3 * best / steps as f64),
            "steps_per_s": round(steps as f64 / best),
            "times_real_time": round(takes.len() as f64 * options.seconds as f64 / best),
            "bytes_a_step": bytes,
            "launches_a_step": launches,
            "floor_ms_a_step": round(1e3 * floor),
            "gb_per_s": round(bytes as f64 * steps as f64 / best / 1e9),
        })
    );
    Ok(())
}
