//! `auscult sae encode --store S --out STORE`: a store of features, of the activations that another store holds.

use super::audio::note_posemb;
use super::encode::{Checked, EncodeArgs, hook_of, of_file};
use super::{bar, files};
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::record::{DeviceRecord, FileRecord, InputRecord, RUN_JSON, RunRecord};
use auscult_analysis::store::{
    Fit, NewClip, Opened, Resumed, SHA256SUMS, SaeMeta, SaeRows, StoreMeta, StoreReader, StoreWriter,
    sae_names,
};
use auscult_model::sae::{Encoder, Sae, SaePrecision};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Encodes every clip of `store`, in the order of its index.
pub fn encode_store(
    context: &Context,
    args: &EncodeArgs,
    sae: &Sae,
    precision: SaePrecision,
    store: &Path,
) -> Result<()> {
    let mut record = RunRecord::start(std::env::args().collect());
    let reader = StoreReader::open(store)?;
    let name = hook_of(&reader, sae, args.hook.as_deref())?;
    let hook = reader.hook(&name)?.clone();
    sae.check_width(format!("{name} of {}", store.display()), hook.width)?;
    let mut checked = Checked { sae, allow: args.allow_misaligned, misaligned: None };
    checked.check(hook.site.parse()?)?;
    note_posemb(context, &args.sae, sae, &reader.meta().posemb);
    let misaligned = checked.misaligned.map_or(Value::Bool(false), Value::String);

    let files = files::files(&args.sae)?;
    let names = sae_names(&[args.sae.as_path()]);
    let of_sae = SaeMeta {
        name: names.into_iter().next().expect("a name for each path"),
        path: args.sae.display().to_string(),
        sha256: files::sha256(&files),
        hook: hook.hook.clone(),
        site: hook.site.clone(),
        width: hook.width,
        features: sae.features(),
        k: args.k.or(sae.k()),
        architecture: sae.settings().activation.architecture().into(),
        precision: precision.to_string(),
    };
    let meta =
        StoreMeta { sites: vec![hook], saes: vec![of_sae.clone()], sae_only: true, ..reader.meta().clone() };
    record.models = files.into_iter().map(|input| input.file).collect();
    let backend = context.backend()?;
    let mut encoder = Encoder::new(sae, precision, &backend)?;
    record.device = Some(DeviceRecord::from(backend.info()));
    record.precision = Some(precision.to_string());
    record.details.insert("misaligned".into(), misaligned.clone());
    record.details.insert("audio_directory".into(), made_in(store).into());

    let (mut writer, resumed) = match StoreWriter::open(&args.out, meta, args.resume)? {
        Opened::Writer(writer, resumed) => (writer, resumed),
        Opened::Finished => {
            let text = format!("{}: was finished already", args.out.display());
            context.result(&text, &json!({ "out": args.out, "outcome": "already_finished" }));
            return Ok(());
        }
    };
    let stopped = fill(context, &mut writer, &reader, &mut encoder, &of_sae, &resumed)?;
    let (clips, positions) = (writer.clips(), writer.positions());
    if stopped {
        writer.suspend()?;
        return Err(Failure::failed(format!(
            "stopped behind clip {clips} of {}; `--resume` continues",
            reader.clips().len()
        )));
    }
    if clips == 0 {
        writer.abandon()?;
        return Err(Failure::input(format!("{}: holds no clips, expected at least one", store.display())));
    }
    // its sums hold the hashes of everything else
    let file = FileRecord::of(store.join(SHA256SUMS))?;
    writer.input_done(0, InputRecord { file, audio: None });
    let fits = writer.summaries();
    writer.finish(&mut record)?;

    let mut text = format!(
        "{}: {clips} clips, {positions} positions, features of `{}` at {}\n",
        args.out.display(),
        of_sae.name,
        of_sae.hook
    );
    for fit in &fits {
        let explained = fit.explained_variance.map_or("unknown".into(), |v| format!("{v:.4}"));
        text += &format!(
            "explained variance {explained}, {:.2} active a row, {} of {} features in none\n",
            fit.l0, fit.dead, fit.features
        );
    }
    let json = json!({
        "out": args.out, "outcome": "finished", "clips": clips, "rows": positions, "sae": of_sae.name, "k": of_sae.k,
        "features": of_sae.features, "hook": name, "misaligned": misaligned, "saes": fits,
    });
    context.result(&text, &json);
    Ok(())
}

/// Encodes what is not stored yet; whether it was stopped on the way.
fn fill(
    context: &Context,
    writer: &mut StoreWriter,
    reader: &StoreReader,
    encoder: &mut Encoder<'_>,
    of_sae: &SaeMeta,
    resumed: &Resumed,
) -> Result<bool> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    // a second handler in one process is refused; the first one then serves, which stops that run
    let _ = ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed));
    if resumed.clips > 0 {
        context.note(&format!("resuming behind clip {}", resumed.clips));
    }
    let clips = reader.clips().iter().enumerate().skip(resumed.clips);
    let bar = bar(context, clips.clone().map(|(_, clip)| clip.positions).sum());
    for (ordinal, clip) in clips {
        if stop.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let rows = reader.rows(&of_sae.hook, &clip.clip_id)?;
        let mut features = encoder.encode(&rows).map_err(|e| of_file(e, reader.dir()))?;
        if let Some(k) = of_sae.k {
            features = features.resized(k);
        }
        let fit = Fit::of(&rows, &encoder.sae().reconstruct(&rows, &features)?, of_sae.width);
        let codes = reader.codes(&clip.clip_id)?;
        let new = NewClip { input: 0, ordinal, row: clip.clone() };
        writer.append(new, &codes, &[], &[SaeRows { features, fit }])?;
        bar.inc(clip.positions as u64);
    }
    bar.finish_and_clear();
    Ok(false)
}

/// The folder that a store's audio paths are relative to, as far as its record says.
fn made_in(store: &Path) -> Option<String> {
    let record: RunRecord = serde_json::from_slice(&std::fs::read(store.join(RUN_JSON)).ok()?).ok()?;
    Some(record.directory)
}
