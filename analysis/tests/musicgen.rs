//! From a WAV file through a real, tiny, random MusicGen into a store: the rows are the decoder's, bit for bit.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use auscult_analysis::capture::{Batch, CaptureJob, MusicgenCapture, Outcome, capture};
use auscult_analysis::input::from_paths;
use auscult_analysis::record::{DeviceRecord, ModelRecord};
use auscult_analysis::store::{StoreDtype, StoreReader, verify};
use auscult_analysis::{Category, time};
use auscult_audio::wav::{Encoding, WavWriter};
use auscult_audio::{Windows, load, synth};
use auscult_kernels::DType;
use auscult_model::encodec::Encodec;
use auscult_model::init::{InitOptions, Preset, init_checkpoint};
use auscult_model::musicgen::config::{MelodyConfig, MusicgenConfig};
use auscult_model::musicgen::{Decoder, DecoderOptions};
use auscult_runtime::{Backend, CpuBackend, Edits};

const HOOKS: &str = "hook_layers.{0,2},paper:2,embed";

struct Setup {
    dir: tempfile::TempDir,
    model: PathBuf,
    audio: PathBuf,
    backend: Arc<dyn Backend>,
}

fn setup() -> Setup {
    setup_of(&Preset::Tiny.config())
}

fn setup_of(config: &MusicgenConfig) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    let options = InitOptions { seed: 7, ..InitOptions::default() };
    init_checkpoint(config, options, &model, &mut |_, _| {}).unwrap();
    let audio = dir.path().join("piece.wav");
    let piece = synth::render(1.1, 32_000, 3);
    let mut wav = WavWriter::new(File::create(&audio).unwrap(), 32_000, 1, Encoding::Float32).unwrap();
    wav.write(&piece.samples).unwrap();
    wav.finish().unwrap();
    Setup { dir, model, audio, backend: Arc::new(CpuBackend::new(None).unwrap()) }
}

impl Setup {
    fn open(&self, hooks: &str, dtype: StoreDtype) -> auscult_analysis::Result<MusicgenCapture> {
        MusicgenCapture::open(&self.model, self.backend.clone(), &DecoderOptions::default(), hooks, dtype)
    }

    fn job(&self, name: &str, dtype: StoreDtype, batch: Batch) -> CaptureJob {
        let model = ModelRecord::of("tiny", &self.model).unwrap();
        let device = DeviceRecord::from(self.backend.info());
        let inputs = from_paths(std::slice::from_ref(&self.audio)).unwrap();
        let windows = Windows { window: Some(0.5), ..Windows::default() };
        CaptureJob {
            windows,
            dtype,
            batch,
            ..CaptureJob::new(self.dir.path().join(name), inputs, model, device)
        }
    }

    fn store(&self, name: &str, dtype: StoreDtype, batch: Batch) -> StoreReader {
        let mut model = self.open(HOOKS, dtype).unwrap();
        let job = self.job(name, dtype, batch);
        let out = job.out.clone();
        let summary = capture(job, &mut model, &(), &AtomicBool::new(false)).unwrap();
        assert_eq!((summary.outcome, summary.clips), (Outcome::Finished, 3));
        assert!(verify(&out).unwrap().is_sound());
        StoreReader::open(out).unwrap()
    }
}

#[test]
fn rows_are_the_decoders() {
    check_rows(&setup());
}

/// What stands in front of the columns of a MusicGen Melody has no rows in a store.
#[test]
fn rows_of_a_melody_decoder_are_those_of_its_columns() {
    let melody = Some(MelodyConfig { chroma_length: 9, ..MelodyConfig::default() });
    let setup = setup_of(&MusicgenConfig { melody, ..Preset::Tiny.config() });
    check_rows(&setup);
    let error = setup.open("layers.0.cross_attn_out", StoreDtype::F32).err().expect("there is no such site");
    assert_eq!(error.category(), Category::Usage);
    let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
    let text: Vec<String> = chain.map(ToString::to_string).collect();
    assert!(text.iter().any(|line| line.contains("without cross-attention")), "{text:?}");
}

fn check_rows(setup: &Setup) {
    let store = setup.store("f32", StoreDtype::F32, Batch::Clips(1));
    let hooks: Vec<(&str, &str)> =
        store.meta().sites.iter().map(|site| (site.hook.as_str(), site.site.as_str())).collect();
    let expected = [
        ("hook_layers.0", "layers.0.resid_post"),
        ("hook_layers.2", "layers.2.resid_post"),
        ("hook_layers.1", "layers.1.resid_post"),
        ("embed", "embed"),
    ];
    assert_eq!(hooks, expected);

    let codec = Encodec::open(&setup.model, setup.backend.clone()).unwrap();
    let decoder = Decoder::open(&setup.model, setup.backend.clone(), &DecoderOptions::default()).unwrap();
    let audio = load(&setup.audio, 32_000).unwrap();
    for (clip, samples) in store.clips().iter().zip(audio.chunks(16_000)) {
        let codes = codec.encode(&[samples]).unwrap();
        assert_eq!(store.codes(&clip.clip_id).unwrap(), codes[0]);
        let frames = time::frames(samples.len(), codec.config().hop_length());
        assert_eq!((clip.frames, clip.positions), (frames, frames + 1));
        let mut edits = Edits::new();
        for (_, site) in hooks.iter() {
            edits.capture(site, DType::F32);
        }
        let pass = decoder.teacher_forced(1, frames, edits).unwrap();
        pass.run(&codes).unwrap();
        for (hook, site) in &hooks {
            assert_eq!(store.raw_rows(hook, &clip.clip_id).unwrap(), pass.output(site).unwrap(), "{hook}");
        }
    }
    assert!(store.clips()[2].partial && !store.clips()[1].partial);
}

#[test]
fn batches_change_nothing_but_the_order_of_sums() {
    let setup = setup();
    let one = setup.store("one", StoreDtype::F32, Batch::Clips(1));
    let two = setup.store("two", StoreDtype::F32, Batch::Clips(2));
    for clip in one.clips() {
        for site in &one.meta().sites {
            let (a, b) =
                (one.rows(&site.hook, &clip.clip_id).unwrap(), two.rows(&site.hook, &clip.clip_id).unwrap());
            assert!(a.iter().chain(&b).all(|value| value.is_finite()));
            let scale = a.iter().fold(0f32, |most, value| most.max(value.abs()));
            // three layers of sums of at most 512 terms in another order: far below 512 * 2^-24 of the largest value
            let most = a.iter().zip(&b).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(most <= 3e-5 * scale, "{} {}: {most} of {scale}", clip.clip_id, site.hook);
        }
    }
}

#[test]
fn half_precision_stores_are_the_rounded_rows() {
    let setup = setup();
    let full = setup.store("full", StoreDtype::F32, Batch::Clips(1));
    for (name, dtype) in [("half", StoreDtype::F16), ("brain", StoreDtype::BF16)] {
        let store = setup.store(name, dtype, Batch::Clips(1));
        for clip in full.clips() {
            let rounded: Vec<f32> = full
                .rows("hook_layers.2", &clip.clip_id)
                .unwrap()
                .into_iter()
                .map(|value| match dtype {
                    StoreDtype::F16 => half::f16::from_f32(value).to_f32(),
                    _ => half::bf16::from_f32(value).to_f32(),
                })
                .collect();
            assert_eq!(store.rows("hook_layers.2", &clip.clip_id).unwrap(), rounded, "{dtype}");
        }
    }
}

#[test]
fn what_the_model_lacks_is_refused_by_name() {
    let setup = setup();
    let error = setup.open("layers.3.resid_post", StoreDtype::F32).err().unwrap();
    assert_eq!(error.category(), Category::Usage);
    assert!(error.to_string().contains("layers.3.resid_post"), "{error}");
    let nowhere = Path::new("no-such-model");
    let error = MusicgenCapture::open(
        nowhere,
        setup.backend.clone(),
        &DecoderOptions::default(),
        HOOKS,
        StoreDtype::F32,
    )
    .err()
    .unwrap();
    assert_eq!(error.category(), Category::BadInput, "{error:?}");
    let error = ModelRecord::of("x", nowhere).unwrap_err();
    assert_eq!(error.category(), Category::BadInput);

    let mut model = setup.open(HOOKS, StoreDtype::F32).unwrap();
    let windows = Windows { window: Some(31.0), ..Windows::default() };
    let job = CaptureJob { windows, ..setup.job("long", StoreDtype::F32, Batch::Auto) };
    let error = capture(job, &mut model, &(), &AtomicBool::new(false)).unwrap_err();
    assert_eq!(error.category(), Category::Usage);
    assert!(!setup.dir.path().join("long").exists());
}
