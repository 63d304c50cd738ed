//! The run's tests, over WAV files and a model that is arithmetic.

mod inputs;
mod interrupt;
mod results;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use auscult_audio::wav::{Encoding, WavWriter};
use auscult_audio::{LastClip, Windows};
use auscult_model::Codes;
use auscult_runtime::DeviceError;

use super::*;
use crate::Category;
use crate::input::{from_manifest, from_paths};
use crate::record::FileRecord;
use crate::store::{Hook, JOURNAL, SHA256SUMS, StoreReader, verify};
use crate::time;

const RATE: u32 = 8000;
const HOP: usize = 160;

/// Codes are the clip's samples at each frame, made small; rows are sums of codes and positions.
struct Fake {
    spec: ModelSpec,
    hooks: Vec<Hook>,
    /// Samples of the clips of each batch.
    batches: Mutex<Vec<Vec<usize>>>,
    /// The call to `encode` or `start`, counted together, that fails.
    fail_at: Option<usize>,
    calls: usize,
    /// Whether batches are put off until they are finished, as by a device.
    puts_off: bool,
    /// Batches that there is memory for, and those that there must be no more of when one is finished.
    room: usize,
    room_to_finish: usize,
    /// A handle for each batch that is under way.
    running: Arc<()>,
}

impl Fake {
    fn new() -> Self {
        let hook = |hook: &str, site: &str, width| Hook { hook: hook.into(), site: site.into(), width };
        Self {
            spec: ModelSpec {
                sample_rate: RATE,
                hop_length: HOP,
                frame_rate: 50.0,
                d_model: 3,
                codebooks: 2,
                codebook_size: 97,
                longest_frames: 30,
            },
            hooks: vec![hook("hook_layers.1", "layers.1.resid_post", 3), hook("logits", "logits", 5)],
            batches: Mutex::new(Vec::new()),
            fail_at: None,
            calls: 0,
            puts_off: true,
            room: usize::MAX,
            room_to_finish: usize::MAX,
            running: Arc::default(),
        }
    }

    fn failing_at(call: usize) -> Self {
        Self { fail_at: Some(call), ..Self::new() }
    }

    fn call(&mut self) -> Result<()> {
        self.calls += 1;
        match self.fail_at == Some(self.calls) {
            true => Err(AnalysisError::Answer {
                what: "device".into(),
                found: "gone".into(),
                expected: "there".into(),
            }),
            false => Ok(()),
        }
    }

    fn has_room(&self, room: usize) -> Result<()> {
        match Arc::strong_count(&self.running) - 1 <= room {
            true => Ok(()),
            false => Err(AnalysisError::Batch {
                clips: 1,
                frames: 10,
                fits: 0,
                source: DeviceError::Failed { device: "fake".into(), what: "full".into() },
            }),
        }
    }

    fn codes(&self, samples: &[f32]) -> Codes {
        let frames = time::frames(samples.len(), HOP);
        let code = |q: usize, t: usize| {
            let sample = samples[(t * HOP + 7 * q).min(samples.len() - 1)];
            ((sample + 1.0) * 48.0) as u32 % 97
        };
        let values = (0..2).flat_map(|q| (0..frames).map(move |t| (q, t))).map(|(q, t)| code(q, t)).collect();
        Codes::new(2, frames, values).unwrap()
    }

    fn rows(&self, codes: &Codes, hook: usize) -> Vec<f32> {
        let frames = codes.frames();
        let value = |s: usize, i: usize| {
            let held: u32 = if s == 0 { 0 } else { (0..2).map(|q| codes.values()[q * frames + s - 1]).sum() };
            held as f32 + s as f32 / 64.0 + i as f32 * 1000.0 + hook as f32 * 10_000.0
        };
        (0..=frames).flat_map(|s| (0..self.hooks[hook].width).map(move |i| value(s, i))).collect()
    }
}

impl Model for Fake {
    type Running = (Shown, Arc<()>);

    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    fn encode(&mut self, clips: &[&[f32]]) -> Result<Vec<Codes>> {
        self.call()?;
        self.batches.lock().unwrap().push(clips.iter().map(|clip| clip.len()).collect());
        Ok(clips.iter().map(|clip| self.codes(clip)).collect())
    }

    fn start(&mut self, codes: &[Codes]) -> Result<Self::Running> {
        let handle = Arc::clone(&self.running);
        self.has_room(self.room)?;
        self.call()?;
        let bytes = |hook: usize| {
            codes.iter().flat_map(|c| self.rows(c, hook)).flat_map(|v| v.to_le_bytes()).collect()
        };
        let rows = (0..self.hooks.len()).map(bytes).collect();
        Ok((Shown { rows, features: Vec::new() }, handle))
    }

    fn is_running(&self, _: &Self::Running) -> bool {
        self.puts_off
    }

    fn finish(&mut self, _: &[Codes], (shown, _running): Self::Running) -> Result<Shown> {
        self.has_room(self.room_to_finish)?;
        Ok(shown)
    }

    fn auto_batch(&self, samples: usize) -> usize {
        (4 * 1600 / samples).clamp(1, 3)
    }
}

/// Uniform noise in (-0.9, 0.9), seeded by the file's name.
fn samples(name: &str, count: usize) -> Vec<f32> {
    let mut state =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((state >> 40) as f32) / (1u64 << 23) as f32 - 1.0) * 0.9
    };
    (0..count).map(|_| next()).collect()
}

fn wav(dir: &Path, name: &str, rate: u32, count: usize) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut out = WavWriter::new(File::create(&path).unwrap(), rate, 1, Encoding::Float32).unwrap();
    out.write(&samples(name, count)).unwrap();
    out.finish().unwrap();
    path
}

/// Files of several lengths: of a window of 0.2 s (1600 samples) they give 3, 1, 2, 1 and 4 clips.
fn music(dir: &Path) -> Vec<PathBuf> {
    [("a.wav", 4000), ("b.wav", 1600), ("c.wav", 3200), ("d.wav", 1), ("e.wav", 6399)]
        .map(|(name, count)| wav(dir, name, RATE, count))
        .to_vec()
}

fn job(out: &Path, inputs: Vec<Input>) -> CaptureJob {
    let file = FileRecord { path: "model.safetensors".into(), bytes: 1, sha256: "5".repeat(64) };
    let model = ModelRecord {
        name: "fake".into(),
        weights_sha256: file.sha256.clone(),
        config_sha256: "6".repeat(64),
        files: vec![file],
    };
    let device =
        DeviceRecord { id: "cpu".into(), name: "test".into(), driver: "none".into(), accelerator: false };
    CaptureJob {
        windows: Windows { window: Some(0.2), ..Windows::default() },
        shard_rows: 25,
        ..CaptureJob::new(out, inputs, model, device)
    }
}

fn run(job: CaptureJob) -> Result<Summary> {
    capture(job, &mut Fake::new(), &(), &AtomicBool::new(false))
}

/// Every file's content, but for `run.json`, which holds times.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut tree = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => {
                let inner = self::tree(&entry.path());
                tree.extend(inner.into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
            }
            false => drop(tree.insert(name, fs::read(entry.path()).unwrap())),
        }
    }
    tree.remove("run.json");
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

fn run_json(store: &Path) -> RunRecord {
    RunRecord::read(store.join("run.json")).unwrap()
}
