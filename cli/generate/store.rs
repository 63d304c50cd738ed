//! What was captured while takes played, into a store of the format that `capture` writes.

use super::output::Told;
use super::plan::Plan;
use super::run::Model;
use anyhow::Result;
use auscult_analysis::AnalysisError;
use auscult_analysis::record::{FileRecord, GIT_COMMIT, InputRecord, RunRecord, VERSION};
use auscult_analysis::store::{
    ClipRow, EngineMeta, FORMAT, Hook, InputsMeta, NewClip, Opened, SHARD_ROWS, StoreDtype, StoreMeta,
    StoreWriter, WindowsMeta, clip_id,
};
use auscult_analysis::time;
use auscult_model::musicgen::Posemb;
use auscult_model::musicgen::generate::{Generated, Halves};
use auscult_runtime::files::sha256_bytes;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// What the names of a guided take's clips end in: with text, and without.
const COND: &str = "/cond";
const UNCOND: &str = "/uncond";

/// A store that takes are put into as they are made.
pub struct Capturing {
    writer: Box<StoreWriter>,
    /// Clips that a run before this one stored: of which take, and which of its rows.
    kept: HashSet<(usize, usize)>,
}

impl Capturing {
    /// Makes the store, or goes on with one; none where one is whole already.
    ///
    /// # Errors
    /// A directory that holds something else, or that cannot be written to.
    pub fn begin(
        dir: &Path,
        model: &Model,
        plan: &Plan,
        record: &RunRecord,
        resume: bool,
    ) -> Result<Option<Self>> {
        let Opened::Writer(writer, _) = StoreWriter::open(dir, meta(model, plan, record), resume)? else {
            return Ok(None);
        };
        let kept = writer.stored().map(|(take, ordinal, _)| (take, ordinal)).collect();
        Ok(Some(Self { writer, kept }))
    }

    /// Of takes that are whole, with their records, those whose rows are all stored and whose audio is what it was.
    ///
    /// # Errors
    /// Audio that cannot be read.
    pub fn only_kept(
        &mut self,
        whole: BTreeMap<usize, Value>,
        audio: impl Fn(usize) -> PathBuf,
    ) -> Result<BTreeMap<usize, Value>> {
        // of a guided take the rows without text come last
        let last = |row: &ClipRow| !row.track_id.ends_with(COND);
        let stored = self.writer.stored().filter(|(_, _, row)| last(row));
        let hashes: HashMap<usize, String> =
            stored.map(|(take, _, row)| (take, row.audio_sha256.clone())).collect();
        let mut kept = BTreeMap::new();
        for (take, record) in whole {
            let Some(sha256) = hashes.get(&take) else { continue };
            let file = FileRecord::of(audio(take))?;
            if file.sha256 == *sha256 {
                self.writer.input_done(take, InputRecord { file, audio: None });
                kept.insert(take, record);
            }
        }
        Ok(kept)
    }

    /// Adds a take: a clip, or with guidance one for each of its rows.
    ///
    /// # Errors
    /// The disk; a name that is taken.
    pub fn add(&mut self, number: usize, audio: &Path, made: Generated) -> Result<()> {
        let file = FileRecord::of(audio)?;
        let (rate, hop, frame_rate) = {
            let meta = self.writer.meta();
            (meta.sample_rate, meta.hop_length, meta.frame_rate)
        };
        let frames = made.codes.frames();
        let guided = made.captured.iter().any(|captured| captured.half == Halves::Unconditional);
        let halves = [(Halves::Conditional, COND), (Halves::Unconditional, UNCOND)];
        for (ordinal, (half, rows_of)) in halves.into_iter().take(if guided { 2 } else { 1 }).enumerate() {
            if self.kept.contains(&(number, ordinal)) {
                continue;
            }
            let hooks = self.writer.meta().sites.iter();
            let rows = hooks.map(|hook| {
                let own = made.captured.iter().find(|c| c.label == hook.hook && c.half == half);
                own.expect("every hook is captured for every half").rows.as_slice()
            });
            let rows: Vec<&[u8]> = rows.collect();
            let track = match guided {
                true => format!("take-{number:03}{rows_of}"),
                false => format!("take-{number:03}"),
            };
            let row = ClipRow {
                clip_id: clip_id(&track, 0, frames * hop),
                track_id: track,
                audio_path: file.path.clone(),
                audio_sha256: file.sha256.clone(),
                start_seconds: 0.0,
                end_seconds: frames as f64 / frame_rate,
                frames,
                positions: time::positions(frames),
                // the writer's to fill in
                shard: 0,
                row_start: 0,
                partial: false,
                source_sample_rate: rate,
            };
            self.writer.append(NewClip { input: number, ordinal, row }, &made.codes, &rows, &[])?;
        }
        self.writer.input_done(number, InputRecord { file, audio: None });
        Ok(())
    }

    /// Keeps what is stored, to be gone on with; a store without clips is removed.
    ///
    /// # Errors
    /// The disk.
    pub fn suspend(self) -> Result<(), AnalysisError> {
        match self.writer.clips() {
            0 => self.writer.abandon(),
            _ => self.writer.suspend(),
        }
    }

    /// Writes what makes a store whole, with what each clip is, of the takes that `told` knows.
    ///
    /// # Errors
    /// The disk.
    pub fn finish(self, record: &RunRecord, told: &[Told]) -> Result<(), AnalysisError> {
        let mut record = record.clone();
        let clip = |(take, _, row): (usize, usize, &ClipRow)| {
            let told = &told[take];
            let rows = row.track_id.split_once('/').map(|(_, rows)| rows);
            json!({
                "clip_id": row.clip_id, "take": take, "label": told.label, "text": told.text, "melody": told.melody,
                "rows": rows, "edits": told.edits,
            })
        };
        let clips: Vec<Value> = self.writer.stored().map(clip).collect();
        record.details.insert("clips".into(), clips.into());
        self.writer.finish(&mut record)
    }
}

fn meta(model: &Model, plan: &Plan, record: &RunRecord) -> StoreMeta {
    let (config, codec) = (model.decoder.config(), model.codec.config());
    let hook = |hook: &auscult_model::musicgen::NamedSite| Hook {
        hook: hook.label.clone(),
        site: hook.site.to_string(),
        width: hook.site.width(config),
    };
    // each prompt once, a line each
    let mut texts: Vec<&str> = plan.told.iter().filter_map(|told| told.text.as_deref()).collect();
    texts.dedup();
    let device = record.device.as_ref();
    let names: String = (0..plan.takes.len()).map(|number| format!("take-{number:03}\n")).collect();
    StoreMeta {
        format: FORMAT,
        model: model.files.name.clone(),
        model_sha256: model.files.weights_sha256.clone(),
        config_sha256: model.files.config_sha256.clone(),
        sites: plan.hooks.iter().map(hook).collect(),
        saes: Vec::new(),
        sae_only: false,
        dtype: StoreDtype::F32,
        d_model: config.hidden_size,
        frame_rate: model.decoder.frames_per_second(),
        sample_rate: codec.sampling_rate,
        hop_length: codec.hop_length(),
        codebooks: config.num_codebooks,
        codebook_size: config.vocab_size,
        posemb: Posemb::F32.to_string(),
        text: (!texts.is_empty()).then(|| texts.join("\n")),
        windows: WindowsMeta { window: None, stride: None, start: 0.0, duration: None, drop_last: false },
        limit: None,
        inputs: InputsMeta { count: plan.takes.len(), sha256: sha256_bytes(names.as_bytes()) },
        shard_rows: SHARD_ROWS,
        engine: EngineMeta {
            name: "auscult".to_string(),
            version: VERSION.to_string(),
            git_commit: GIT_COMMIT.to_string(),
            device: device.map(|device| device.id.clone()).unwrap_or_default(),
            device_name: device.map(|device| device.name.clone()).unwrap_or_default(),
            precision: record.precision.clone().unwrap_or_default(),
            batch: plan.takes.len().to_string(),
        },
    }
}
