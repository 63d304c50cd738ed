//! The store's tests: round trips, an interruption at every step, every kind of damage.

mod damage;
mod features;
mod interrupt;
mod round_trip;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use auscult_model::Codes;
use auscult_model::sae::SparseRows;
use half::{bf16, f16};

use super::*;
use crate::capture::{Failure, Reason};
use crate::record::{FileRecord, InputRecord, RunRecord};

/// Frames of the clips that tests store: one, many, and repeats, so that shards of 10 rows end inside and behind tracks.
const FRAMES: [usize; 9] = [3, 5, 1, 8, 2, 4, 11, 2, 3];

/// splitmix64, seeded by what the numbers are for.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 40) as f32) / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn meta(dtype: StoreDtype) -> StoreMeta {
    let hook = |hook: &str, site: &str, width| Hook { hook: hook.into(), site: site.into(), width };
    StoreMeta {
        format: FORMAT,
        model: "tiny".into(),
        model_sha256: "1".repeat(64),
        config_sha256: "2".repeat(64),
        sites: vec![hook("hook_layers.1", "layers.1.resid_post", 3), hook("logits", "logits", 7)],
        saes: vec![sae("few", 0, Some(2), 5), sae("many", 1, None, 70_000)],
        sae_only: false,
        dtype,
        d_model: 3,
        frame_rate: 50.0,
        sample_rate: 8000,
        hop_length: 160,
        codebooks: 2,
        codebook_size: 17,
        posemb: "f32".into(),
        text: None,
        windows: WindowsMeta {
            window: Some(0.1),
            stride: None,
            start: 0.0,
            duration: None,
            drop_last: false,
        },
        limit: None,
        inputs: InputsMeta { count: 9, sha256: "3".repeat(64) },
        shard_rows: 10,
        engine: EngineMeta {
            name: "auscult".into(),
            version: "0".into(),
            git_commit: "unknown".into(),
            device: "cpu".into(),
            device_name: "test".into(),
            precision: "f32".into(),
            batch: "auto".into(),
        },
    }
}

/// An autoencoder of the first or second hook.
fn sae(name: &str, hook: usize, k: Option<usize>, features: usize) -> SaeMeta {
    let (hook, site, width) = [("hook_layers.1", "layers.1.resid_post", 3), ("logits", "logits", 7)][hook];
    SaeMeta {
        name: name.into(),
        path: format!("saes/{name}"),
        sha256: "5".repeat(64),
        hook: hook.into(),
        site: site.into(),
        width,
        features,
        k,
        architecture: if k.is_some() { "topk" } else { "standard" }.into(),
        precision: "f32".into(),
    }
}

/// What an autoencoder makes of a clip: where it sets no limit, up to four features a row; the fit is that of rows half of
/// which are found again.
fn sae_rows(clip: usize, at: usize, meta: &StoreMeta) -> SaeRows {
    let sae = &meta.saes[at];
    let hook = meta.sites.iter().position(|site| site.hook == sae.hook).unwrap();
    let k = sae.k.unwrap_or(4);
    let (mut indices, mut stored) = (Vec::new(), Vec::new());
    for row in 0..=FRAMES[clip] {
        let draws = noise(u64::try_from(5000 + 100 * clip + 10 * at + row).unwrap(), 2 * k);
        let active = ((draws[0] + 1.0) / 2.0 * (k + 1) as f32) as usize;
        let feature = |draw: f32| ((draw + 1.0) / 2.0 * sae.features as f32) as u32;
        let mut features: Vec<(f32, u32)> =
            (0..active.min(k)).map(|i| (draws[i].abs() + 0.01, feature(draws[k + i]))).collect();
        features.sort_by(|a, b| b.0.total_cmp(&a.0));
        features.resize(k, (0.0, 0));
        stored.extend(features.iter().map(|(value, _)| *value));
        indices.extend(features.iter().map(|(_, feature)| *feature));
    }
    let rows = values(clip, hook, meta);
    let decoded: Vec<f32> = rows.iter().map(|v| v / 2.0).collect();
    let features = SparseRows { k, indices, values: stored };
    SaeRows { features, fit: Fit::of(&rows, &decoded, sae.width) }
}

fn all_sae_rows(clip: usize, meta: &StoreMeta) -> Vec<SaeRows> {
    (0..meta.saes.len()).map(|at| sae_rows(clip, at, meta)).collect()
}

/// Values of a clip at a hook.
fn values(clip: usize, hook: usize, meta: &StoreMeta) -> Vec<f32> {
    let count = (FRAMES[clip] + 1) * meta.sites[hook].width;
    noise(u64::try_from(clip * 10 + hook).unwrap(), count)
}

fn stored(values: &[f32], dtype: StoreDtype) -> Vec<u8> {
    match dtype {
        StoreDtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        StoreDtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        StoreDtype::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
    }
}

fn codes(clip: usize, meta: &StoreMeta) -> Codes {
    let count = meta.codebooks * FRAMES[clip];
    let size = meta.codebook_size as f32;
    let code = |v: &f32| ((v + 1.0) / 2.0 * size) as u32;
    Codes::new(meta.codebooks, FRAMES[clip], noise(1000 + clip as u64, count).iter().map(code).collect())
        .unwrap()
}

/// Three clips come from each input.
fn new_clip(clip: usize) -> NewClip {
    let (input, ordinal) = (clip / 3, clip % 3);
    let track_id = format!("dir/track {input}");
    let start_sample = 800 * ordinal as u64;
    let samples = FRAMES[clip] * 160;
    let row = ClipRow {
        clip_id: clip_id(&track_id, start_sample, samples),
        audio_path: format!("{track_id}.wav"),
        track_id,
        audio_sha256: "4".repeat(64),
        start_seconds: start_sample as f64 / 8000.0,
        end_seconds: (start_sample as f64 + samples as f64) / 8000.0,
        frames: FRAMES[clip],
        positions: FRAMES[clip] + 1,
        shard: 99,
        row_start: 99,
        partial: FRAMES[clip] < 5,
        source_sample_rate: 44_100,
    };
    NewClip { input, ordinal, row }
}

/// What a run reports behind an input's last clip: that it was read, or of input 1 that it failed there.
fn report(writer: &mut StoreWriter, input: usize) {
    let file = FileRecord { path: format!("{input}.wav"), bytes: 7, sha256: "4".repeat(64) };
    match input {
        1 => writer.input_failed(Failure {
            input,
            track_id: "t".into(),
            audio_path: "1.wav".into(),
            reason: Reason::BadInput,
            message: "truncated".into(),
            clips: 3,
        }),
        _ => writer.input_done(input, InputRecord { file, audio: None }),
    }
}

/// Appends a clip, and behind its input's last one the report.
fn append(writer: &mut StoreWriter, clip: usize) -> bool {
    let meta = writer.meta().clone();
    let rows: Vec<Vec<u8>> = (0..2).map(|hook| stored(&values(clip, hook, &meta), meta.dtype)).collect();
    let mut rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
    if meta.sae_only {
        rows.clear();
    }
    let features = all_sae_rows(clip, &meta);
    let closed = writer.append(new_clip(clip), &codes(clip, &meta), &rows, &features).unwrap();
    if clip % 3 == 2 {
        report(writer, clip / 3);
    }
    closed
}

fn append_range(writer: &mut StoreWriter, clips: std::ops::Range<usize>) {
    for clip in clips {
        append(writer, clip);
    }
}

fn open(dir: &Path, resume: bool) -> (StoreWriter, Resumed) {
    match StoreWriter::open(dir, meta(StoreDtype::F32), resume).unwrap() {
        Opened::Writer(mut writer, resumed) => {
            read_again(&mut writer, &resumed);
            (*writer, resumed)
        }
        Opened::Finished => panic!("the store is finished"),
    }
}

/// A run that goes on reads the last clip's input again; where all its clips are stored, only the report comes.
fn read_again(writer: &mut StoreWriter, resumed: &Resumed) {
    if let Some((input, 3)) = resumed.at {
        report(writer, input);
    }
}

fn record() -> RunRecord {
    RunRecord { started: "then".into(), ..RunRecord::start(vec!["auscult".into()]) }
}

/// Stores the clips from `from` on, and finishes.
fn write_rest(mut writer: StoreWriter, from: usize) {
    for clip in from..FRAMES.len() {
        append(&mut writer, clip);
    }
    writer.finish(&mut record()).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Every file and its content, but for the times in `run.json` and its hash.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut tree: BTreeMap<String, Vec<u8>> = super::verify::files_of(dir)
        .unwrap()
        .into_iter()
        .map(|name| (name.clone(), fs::read(dir.join(name)).unwrap()))
        .collect();
    if let Some(run) = tree.get_mut("run.json") {
        let mut record: RunRecord = serde_json::from_slice(run).unwrap();
        record.finished = None;
        *run = serde_json::to_vec(&record).unwrap();
    }
    if let Some(sums) = tree.get_mut(SHA256SUMS) {
        let text = String::from_utf8(sums.clone()).unwrap();
        *sums = text
            .lines()
            .filter(|line| !line.ends_with("  run.json"))
            .collect::<Vec<_>>()
            .join("\n")
            .into_bytes();
    }
    tree
}
