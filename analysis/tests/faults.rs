//! A capture on a device that fails: too little memory, and a device lost in the middle of a run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use auscult_analysis::capture::{Batch, CaptureJob, Model, MusicgenCapture, Outcome, Summary, capture};
use auscult_analysis::input::from_paths;
use auscult_analysis::record::{DeviceRecord, ModelRecord};
use auscult_analysis::store::{StoreDtype, StoreReader, verify};
use auscult_analysis::{AnalysisError, Category};
use auscult_audio::wav::{Encoding, write};
use auscult_audio::{Windows, synth};
use auscult_kernels::Plan;
use auscult_model::Codes;
use auscult_model::init::{Preset, init};
use auscult_model::musicgen::DecoderOptions;
use auscult_runtime::{Backend, Buffer, Contents, CpuBackend, DeviceError, DeviceInfo, Span};

/// The processor, which gives up after so many launches and refuses buffers longer than it has room for.
struct Failing {
    inner: CpuBackend,
    launches_left: AtomicUsize,
    longest: usize,
    tells_free: bool,
}

impl Failing {
    fn lost(&self) -> DeviceError {
        let what = "CUDA_ERROR_ILLEGAL_ADDRESS; the latest launches were linear_f32, add_f32".into();
        DeviceError::Failed { device: "cuda:0".into(), what }
    }

    fn check(&self) -> Result<(), DeviceError> {
        match self.launches_left.load(Ordering::Relaxed) {
            0 => Err(self.lost()),
            _ => Ok(()),
        }
    }
}

impl Backend for Failing {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    fn alloc(&self, contents: Contents) -> Result<Buffer, DeviceError> {
        self.check()?;
        match contents {
            Contents::Undefined(asked) if asked > self.longest => Err(DeviceError::OutOfMemory {
                device: "cuda:0".into(),
                asked,
                free: self.tells_free.then_some(self.longest),
                detail: format!("; {} bytes are free", self.longest),
            }),
            contents => self.inner.alloc(contents),
        }
    }

    fn upload(&self, to: &Span, bytes: &[u8]) -> Result<(), DeviceError> {
        self.check()?;
        self.inner.upload(to, bytes)
    }

    fn download(&self, from: &Span) -> Result<Vec<u8>, DeviceError> {
        self.check()?;
        self.inner.download(from)
    }

    fn copy(&self, from: &Span, to: &Span) -> Result<(), DeviceError> {
        self.check()?;
        self.inner.copy(from, to)
    }

    fn dispatch(&self, plan: &Plan, slots: &[Option<Span>]) -> Result<(), DeviceError> {
        let one_less = |left: usize| left.checked_sub(1);
        self.launches_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .map_err(|_| self.lost())?;
        self.inner.dispatch(plan, slots)
    }

    fn wait(&self) -> Result<(), DeviceError> {
        self.check()?;
        self.inner.wait()
    }
}

struct Setup {
    dir: tempfile::TempDir,
    model: PathBuf,
    audio: PathBuf,
}

const FRAMES: usize = 10;

fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    init(Preset::Tiny, 5, &model).unwrap();
    let audio = dir.path().join("piece.wav");
    let piece = synth::render(1.2, 32_000, 4);
    write(File::create(&audio).unwrap(), 32_000, &piece.samples, Encoding::Float32).unwrap();
    Setup { dir, model, audio }
}

impl Setup {
    fn device(&self, launches: usize) -> Arc<Failing> {
        let inner = CpuBackend::new(None).unwrap();
        let launches_left = AtomicUsize::new(launches);
        Arc::new(Failing { inner, launches_left, longest: usize::MAX, tells_free: true })
    }

    /// Six clips of 0.2 s, in batches of two.
    fn capture(
        &self,
        backend: Arc<dyn Backend>,
        store: &Path,
        batch: Batch,
        resume: bool,
    ) -> Result<Summary, AnalysisError> {
        let device = DeviceRecord::from(backend.info());
        let options = DecoderOptions::default();
        let mut model = MusicgenCapture::open(&self.model, backend, &options, "embed", StoreDtype::F32)?;
        let record = ModelRecord::of("tiny", &self.model)?;
        let job = CaptureJob {
            windows: Windows { window: Some(0.2), ..Windows::default() },
            batch,
            resume,
            // a shard for each batch
            shard_rows: 2 * (FRAMES + 1),
            ..CaptureJob::new(store, from_paths(std::slice::from_ref(&self.audio))?, record, device)
        };
        capture(job, &mut model, &(), &AtomicBool::new(false))
    }
}

/// The rows of every clip, in order.
fn rows(store: &Path) -> Vec<Vec<f32>> {
    let reader = StoreReader::open(store).unwrap();
    reader.clips().iter().map(|clip| reader.rows("embed", &clip.clip_id).unwrap()).collect()
}

#[test]
fn a_device_lost_after_any_share_of_the_work_leaves_a_store_to_resume() {
    let setup = setup();
    let whole = setup.dir.path().join("whole");
    let device = setup.device(usize::MAX);
    setup.capture(device.clone(), &whole, Batch::Clips(2), false).unwrap();
    let launches = usize::MAX - device.launches_left.load(Ordering::Relaxed);
    let expected = rows(&whole);
    let mut resumed = 0;
    for share in 0..8 {
        let store = setup.dir.path().join(format!("lost after {share} of 8"));
        let error = setup
            .capture(setup.device(launches * share / 8), &store, Batch::Clips(2), false)
            .expect_err("the device is lost");
        assert_eq!(error.category(), Category::Failed, "{error}");
        let text = error.to_string();
        assert!(text.contains("cuda:0") && text.contains("linear_f32, add_f32"), "{text}");
        assert!(!store.join("SHA256SUMS").exists(), "the store is not finished");
        let again = setup.capture(setup.device(usize::MAX), &store, Batch::Clips(2), true).unwrap();
        assert_eq!((again.outcome, again.clips), (Outcome::Finished, 6));
        resumed += again.resumed_clips;
        assert!(verify(&store).unwrap().is_sound());
        assert!(rows(&store) == expected, "share {share}: other rows");
    }
    assert!(resumed >= 8, "{resumed} clips were kept over the losses");
}

#[test]
fn too_large_a_batch_names_one_that_fits() {
    let setup = setup();
    let open = |longest, tells_free| {
        let device = Failing { longest, tells_free, ..Arc::into_inner(setup.device(usize::MAX)).unwrap() };
        let options = DecoderOptions::default();
        MusicgenCapture::open(&setup.model, Arc::new(device), &options, "embed", StoreDtype::F32).unwrap()
    };
    let clip = |model: &MusicgenCapture| {
        let codebooks = model.spec().codebooks;
        Codes::new(codebooks, FRAMES, vec![3; codebooks * FRAMES]).unwrap()
    };
    // what three clips need at most: an activation of 128 values at each position
    let longest = 3 * (FRAMES + 1) * 4 * 128;
    for tells_free in [true, false] {
        let mut model = open(longest, tells_free);
        let clips = vec![clip(&model); 6];
        let error = model.forward(&clips).expect_err("it cannot fit");
        assert_eq!(error.category(), Category::Failed);
        let AnalysisError::Batch { clips: 6, frames: FRAMES, fits, .. } = error else { panic!("{error:?}") };
        assert!((1..=3).contains(&fits), "{error}");
        let told = format!(
            "a batch of 6 clips of 10 frames does not fit; a batch of {fits} would (`--batch {fits}`)"
        );
        assert_eq!(error.to_string(), told);
        let cause = std::error::Error::source(&error).expect("what the device said").to_string();
        assert!(cause.contains(&format!("{longest} bytes are free")), "{cause}");
        let shown = model.forward(&clips[..fits]).expect("it fits, as was told");
        assert_eq!(shown.rows[0].len(), fits * (FRAMES + 1) * 4 * 128);
    }
    let mut model = open(100, true);
    let clips = [clip(&model)];
    let text = model.forward(&clips).expect_err("nothing fits").to_string();
    assert!(text.contains("not even one clip does") && text.contains("--window"), "{text}");
}

/// The codec's recurrent part runs all clips of a batch at once, and its memory grows with them.
#[test]
fn too_large_a_batch_for_the_codec_names_one_that_fits() {
    let setup = setup();
    let open = |longest, tells_free| {
        let device = Failing { longest, tells_free, ..Arc::into_inner(setup.device(usize::MAX)).unwrap() };
        let options = DecoderOptions::default();
        MusicgenCapture::open(&setup.model, Arc::new(device), &options, "embed", StoreDtype::F32).unwrap()
    };
    let mut free = open(usize::MAX, true);
    let config = free.codec().config();
    let samples = FRAMES * config.hop_length();
    // the longest of one clip's activations, and the gates of an LSTM over a clip
    let (widest, gates) = (4 * config.num_filters * samples, 4 * 4 * config.bottleneck_width() * FRAMES);
    let fitting = widest.div_ceil(gates) + 2;
    let longest = fitting * gates;
    let audio: Vec<Vec<f32>> = (0..4 * fitting)
        .map(|n| (0..samples).map(|i| ((i * (n + 2)) as f32 * 0.01).sin() * 0.5).collect())
        .collect();
    let clips: Vec<&[f32]> = audio.iter().map(Vec::as_slice).collect();
    let want = free.encode(&clips).unwrap();
    for tells_free in [true, false] {
        let mut model = open(longest, tells_free);
        let error = model.encode(&clips).expect_err("it cannot fit");
        assert_eq!(error.category(), Category::Failed);
        let AnalysisError::Batch { clips: asked, frames: FRAMES, fits, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(asked, clips.len());
        assert!((1..=fitting).contains(&fits), "{error}");
        assert!(
            error.to_string().ends_with(&format!("a batch of {fits} would (`--batch {fits}`)")),
            "{error}"
        );
        let cause = std::error::Error::source(&error).expect("what the device said").to_string();
        assert!(cause.contains(&format!("{longest} bytes are free")), "{cause}");
        assert_eq!(model.encode(&clips[..fits]).expect("it fits, as was told"), want[..fits]);
        // the codec by itself says the same, and names no option
        let error = model.codec().encode(&clips).expect_err("it cannot fit").to_string();
        let told = format!(
            "the codec has no memory for a batch of {asked} clips of {FRAMES} frames; a batch of {fits} fits"
        );
        assert_eq!(error, told);
    }
    let error = open(100, true).codec().encode(&clips[..1]).expect_err("nothing fits").to_string();
    assert!(error.ends_with("a batch of 1 clips of 10 frames; not even one clip fits"), "{error}");
}

#[test]
fn every_launch_of_a_pass_is_explained() {
    let setup = setup();
    let backend = Arc::new(CpuBackend::new(None).unwrap());
    let options = DecoderOptions::default();
    let hooks = "hook_layers.1";
    let mut model = MusicgenCapture::open(&setup.model, backend, &options, hooks, StoreDtype::F32).unwrap();
    let text = model.explain(2, FRAMES).unwrap();
    let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!(count("attention_f32  q [2, 11, 128]"), 2, "one a layer\n{text}");
    assert_eq!(count(" | host form") + count(" | reference"), text.lines().count(), "{text}");
}
