//! Whole passes: their launches one by one, the time that each keeps a part of the device busy, and the sum.

use super::estimate::{Busy, Counted};
use super::goals::{COLUMNS, line};
use super::job::{CLIPS, POSITIONS, Result, SAMPLES};
use super::shapes::{Noting, checkpoint};
use auscult_kernels::ops::lstm::Lstm;
use auscult_kernels::{DType, Plan};
use auscult_model::encodec::Encodec;
use auscult_model::musicgen::{Decoder, DecoderOptions, Precision};
use auscult_runtime::{Edits, Step};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The sites that published autoencoders of musicgen-small read.
const HOOKS: [&str; 5] =
    ["hook_layers.1", "hook_layers.5", "hook_layers.11", "hook_layers.17", "hook_layers.21"];
/// Frames of short clips, and samples of a frame.
const FEW_FRAMES: [usize; 5] = [8, 16, 32, 64, 128];
const FRAME: usize = 640;
/// Rows of results that fill a tile: fewer would be counted as if they did.
const FULL: usize = 128;
/// Steps of the recurrence that are counted: the first multiplies nothing.
const FEW_STEPS: usize = 3;

/// Sums launches by form, prints the sums and returns them all.
fn summed(counted: &mut Counted, launches: impl Iterator<Item = (Plan, Plan)>) -> Result<Busy> {
    let mut forms: BTreeMap<&str, Busy> = BTreeMap::new();
    let mut all = Busy::default();
    for (real, short) in launches {
        let (form, busy) = counted.busy(&real, &short)?;
        *forms.entry(form.entry).or_default() += busy;
        all += busy;
    }
    println!("{COLUMNS}");
    for (form, busy) in &forms {
        line(&format!("{} launches", busy.launches), form, busy);
    }
    line(&format!("{} launches", all.launches), "all", &all);
    Ok(all)
}

/// The decoder over ten seconds of all clips, five hooks kept.
pub fn forward(counted: &mut Counted, below: &Path) -> Result<()> {
    println!(
        "\nteacher-forced forward to hook_layers.21, musicgen-small, f16, {CLIPS} clips of 10 s, five hooks kept in f16;\n\
         instructions are those of the same pass over one clip, scaled by the flops of each launch (without flops: bytes)\n"
    );
    let options = DecoderOptions { precision: Precision::F16, ..DecoderOptions::default() };
    let decoder = Decoder::open(&checkpoint(below)?, Arc::new(Noting::new()), &options)?;
    let launches = |clips| -> Result<Vec<Plan>> {
        let mut edits = Edits::new();
        for hook in HOOKS {
            edits.capture(hook, DType::F16);
        }
        let pass = decoder.teacher_forced(clips, POSITIONS - 1, edits)?;
        let plan = |step: &Step| match step {
            Step::Dispatch { plan, .. } => Some(plan.clone()),
            Step::Site { .. } => None,
        };
        Ok(pass.graph().steps().iter().filter_map(plan).collect())
    };
    let all = summed(counted, launches(CLIPS)?.into_iter().zip(launches(1)?))?;
    let positions = (CLIPS * POSITIONS) as f64;
    println!(
        "\n{:.3} ms of floors one after another: {:.0} positions/s; flops alone, {:.3} GFLOP a position: {:.3} ms, {:.0} positions/s",
        all.floor_s * 1e3,
        positions / all.floor_s,
        all.flops / positions / 1e9,
        all.math_s * 1e3,
        positions / all.math_s,
    );
    Ok(())
}

/// Whether two launches are of one layer.
fn alike(a: &Plan, b: &Plan) -> bool {
    let shape = |plan: &Plan| plan.slots.get(1).cloned().flatten().map(|desc| desc.shape);
    let bound = |plan: &Plan| plan.slots.iter().map(Option::is_some).collect::<Vec<_>>();
    a.kernel.name == b.kernel.name && bound(a) == bound(b) && shape(a) == shape(b)
}

/// Whether the rows of its result fill a tile.
fn full(plan: &Plan) -> bool {
    let result = plan.slots.last().and_then(Option::as_ref);
    result.is_some_and(|desc| desc.elements() >= FULL * desc.shape.last().copied().unwrap_or(1))
}

/// A recurrence over few steps of as many sequences, with the flops of those that multiply.
fn few_steps(real: &Plan) -> Result<Plan> {
    let short = |slot: usize| {
        let mut desc = real.slots[slot].clone();
        if let Some(desc) = &mut desc {
            desc.shape[1] = FEW_STEPS;
        }
        desc
    };
    let (gates, weight) = (short(0).ok_or("gates")?, real.slots[1].clone().ok_or("weights")?);
    let mut plan = Lstm.plan(&gates, &weight, short(2).as_ref())?;
    plan.cost.flops = plan.cost.flops / FEW_STEPS as u64 * (FEW_STEPS as u64 - 1);
    Ok(plan)
}

/// The codec's encoder over ten seconds of all clips.
pub fn encode(counted: &mut Counted, below: &Path) -> Result<()> {
    println!(
        "\nEnCodec encode of {CLIPS} clips of 10 s; instructions are those of {FULL} rows or more of one clip and of {FEW_STEPS} steps of the\n\
         recurrence, scaled by the flops of each launch\n"
    );
    let device = Arc::new(Noting::new());
    let codec = Encodec::open(&checkpoint(below)?, device.clone())?;
    let launches = |clips: usize, samples: usize| -> Result<Vec<Plan>> {
        device.take();
        let clip = vec![0.0; samples];
        codec.encode(&vec![clip.as_slice(); clips])?;
        Ok(device.take())
    };
    let short = FEW_FRAMES.map(|frames| launches(1, frames * FRAME));
    let short: Vec<Plan> = short.into_iter().collect::<Result<Vec<_>>>()?.concat();
    let pairs = launches(CLIPS, SAMPLES)?.into_iter().map(|real| {
        let like = match real.kernel.name {
            "lstm_f32" => few_steps(&real)?,
            name => short.iter().find(|short| alike(short, &real) && full(short)).ok_or(name)?.clone(),
        };
        Ok((real, like))
    });
    let pairs = pairs.collect::<Result<Vec<_>>>()?;
    let mut layers: Vec<(String, Busy)> = Vec::new();
    for (real, short) in &pairs {
        let (_, busy) = counted.busy(real, short)?;
        let weight = real.slots.get(1).cloned().flatten().map_or_else(Vec::new, |desc| desc.shape);
        let what = format!("{} {weight:?}", real.kernel.name);
        match layers.iter_mut().find(|layer| layer.0 == what) {
            Some(layer) => layer.1 += busy,
            None => layers.push((what, busy)),
        }
    }
    println!("{COLUMNS}");
    for (what, busy) in &layers {
        line("", what, busy);
    }
    println!();
    let all = summed(counted, pairs.into_iter())?;
    let seconds = (CLIPS * SAMPLES) as f64 / 32_000.0;
    println!(
        "\n{:.3} ms of floors one after another: {:.0} s of audio a second",
        all.floor_s * 1e3,
        seconds / all.floor_s
    );
    Ok(())
}
