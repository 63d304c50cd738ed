//! `auscult features top`.

use super::{From, bar, check_features, once};
use crate::audio_file::write_wav;
use crate::context::Context;
use crate::failure::Failure;
use anyhow::Result;
use auscult_analysis::features::{Codes, Peak, Span, span, top};
use auscult_analysis::record::{RUN_JSON, RunRecord};
use auscult_analysis::store::{ClipRow, StoreReader};
use auscult_audio::Windows;
use auscult_audio::wav::Encoding;
use auscult_runtime::files::{FileError, atomic_write_bytes, sha256_file};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// The list, a row for each feature and clip.
const LIST: &str = "top.jsonl";

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    from: From,
    /// A feature, counted from 0; repeatable
    #[arg(long, value_name = "F", required = true, num_args = 1..)]
    feature: Vec<usize>,
    /// Clips of each feature
    #[arg(long, value_name = "N", default_value = "10")]
    n: NonZeroUsize,
    /// Sound round each maximum, within its clip
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// What the store's audio paths are relative to; by default the folder that the store was made in
    #[arg(long, value_name = "DIR")]
    audio_root: Option<PathBuf>,
    /// A directory that is empty or absent
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn run(context: &Context, args: &Args) -> Result<()> {
    if !(args.seconds.is_finite() && args.seconds > 0.0) {
        return Err(Failure::usage(format!("`--seconds` is {}, expected a number above 0", args.seconds)));
    }
    let mut record = RunRecord::start(std::env::args().collect());
    let store = args.from.open()?;
    let sae = args.from.sae(&store)?;
    check_features(&args.feature, sae)?;
    check_out(&args.out)?;
    args.from.record(&mut record)?;
    let features = once(&args.feature);
    let codes = Codes::of_store(&store, &sae.name)?;
    let bar = bar(context, &store);
    let found = top(&codes, &features, args.n.get(), args.from.first_position(), |p| bar.inc(p as u64))?;
    bar.finish_and_clear();

    let audio = Audio { root: root(&store, args.audio_root.as_deref()), rate: store.meta().sample_rate };
    // every file is held against its hash before anything is written
    let clips: BTreeSet<usize> = found.iter().flatten().map(|peak| peak.clip).collect();
    let missing = audio.check(clips.iter().map(|&clip| &codes.clips()[clip]))?;
    std::fs::create_dir_all(&args.out).map_err(|e| FileError::io(&args.out, "create", e))?;
    let mut list = Vec::new();
    let mut written = 0;
    let bar = context.bar(found.iter().flatten().count() as u64, "{bar:30} clip {pos} of {len} {eta}");
    for (&feature, peaks) in features.iter().zip(&found) {
        for (rank, peak) in peaks.iter().enumerate() {
            let clip = &codes.clips()[peak.clip];
            let span = span(clip, peak.position, codes.frame_rate(), args.seconds);
            let mut row = told(feature, rank, peak, clip, span, codes.seconds(clip, peak.position));
            if !missing.contains(clip.audio_path.as_str()) {
                let name = format!("feature-{feature}-{rank:02}.wav");
                audio.cut(clip, span, &args.out.join(&name))?;
                row["wav"] = name.into();
                written += 1;
            }
            serde_json::to_writer(&mut list, &row).expect("rows have string keys and finite numbers");
            list.push(b'\n');
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    atomic_write_bytes(args.out.join(LIST), &list)?;
    record.details.insert("sae".into(), json!(sae));
    record.details.insert("features".into(), json!(features));
    record.details.insert("missing_audio".into(), json!(missing));
    record.finish();
    record.write(&args.out)?;

    let rows: usize = found.iter().map(Vec::len).sum();
    let mut text = format!(
        "{}: {rows} clips of {} features, {written} with sound\n",
        args.out.display(),
        features.len()
    );
    for (feature, peaks) in features.iter().zip(&found) {
        text += &match peaks.first() {
            Some(peak) => {
                let clip = &codes.clips()[peak.clip];
                let at = codes.seconds(clip, peak.position);
                format!("{feature:>8}  {:.4} in `{}` at {at:.2} s\n", peak.value, clip.track_id)
            }
            None => format!("{feature:>8}  active nowhere\n"),
        };
    }
    if let Some(path) = missing.first() {
        context.note(&format!(
            "{} audio files are not below {}, such as {path}: `--audio-root` says where they are",
            missing.len(),
            audio.root.display()
        ));
    }
    let json = json!({
        "out": args.out, "sae": sae.name, "features": features, "rows": rows, "wavs": written, "missing": missing.len(),
    });
    context.result(&text, &json);
    Ok(())
}

fn told(feature: usize, rank: usize, peak: &Peak, clip: &ClipRow, span: Span, seconds: f64) -> Value {
    json!({
        "feature": feature, "rank": rank, "value": peak.value, "clip_id": clip.clip_id, "track_id": clip.track_id,
        "audio_path": clip.audio_path, "audio_sha256": clip.audio_sha256, "position": peak.position, "seconds": seconds,
        "start_seconds": span.start, "end_seconds": span.end, "wav": Value::Null,
    })
}

fn check_out(out: &Path) -> Result<()> {
    let listed = match std::fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(FileError::io(out, "list", error).into()),
    };
    match listed {
        true => Err(Failure::usage(format!(
            "`--out` is {}, which is not empty, expected a new or empty directory",
            out.display()
        ))),
        false => Ok(()),
    }
}

/// What audio paths are relative to: what is given, or the folder in which the store was made.
fn root(store: &StoreReader, given: Option<&Path>) -> PathBuf {
    if let Some(root) = given {
        return root.to_path_buf();
    }
    let record = std::fs::read(store.dir().join(RUN_JSON)).ok();
    let record = record.and_then(|text| serde_json::from_slice::<RunRecord>(&text).ok());
    let directory =
        record.map(|record| match record.details.get("audio_directory").and_then(Value::as_str) {
            // a store of features was made of one that lies elsewhere
            Some(directory) => directory.to_string(),
            None => record.directory,
        });
    directory.map_or_else(PathBuf::new, PathBuf::from)
}

/// Recordings that clips were cut from.
struct Audio {
    root: PathBuf,
    /// Samples a second of what is written.
    rate: u32,
}

impl Audio {
    /// The paths of files that are not there.
    ///
    /// # Errors
    /// A file that is not the one that was captured.
    fn check<'a>(&self, clips: impl Iterator<Item = &'a ClipRow>) -> Result<BTreeSet<String>> {
        let mut missing = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for clip in clips {
            if !seen.insert(clip.audio_path.as_str()) {
                continue;
            }
            let path = self.root.join(&clip.audio_path);
            if !path.is_file() {
                missing.insert(clip.audio_path.clone());
                continue;
            }
            let found = sha256_file(&path)?;
            if found != clip.audio_sha256 {
                let message = format!(
                    "{}: SHA-256 is {found}, expected {}, that of the file whose activations the store holds",
                    path.display(),
                    clip.audio_sha256
                );
                return Err(Failure::refused(message));
            }
        }
        Ok(missing)
    }

    /// Writes a part of a recording.
    fn cut(&self, clip: &ClipRow, span: Span, out: &Path) -> Result<()> {
        let windows =
            Windows { start: span.start, duration: Some(span.end - span.start), ..Windows::default() };
        let path = self.root.join(&clip.audio_path);
        let mut samples = Vec::new();
        for part in auscult_audio::open(&path, self.rate, &windows)? {
            samples.extend(part?.samples);
        }
        write_wav(out, &samples, self.rate, Encoding::Int16)?;
        Ok(())
    }
}
