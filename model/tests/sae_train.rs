//! Training: against a transcription of SAELens 5.3.2 in torch, on planted dictionaries, and taken up where it was left.

use auscult_kernels::noise;
use auscult_model::sae::train::{Checkpoint, Mixing, Mode, Record, TrainConfig, Trainer, geometric_median};
use auscult_model::sae::{Activation, Metadata, Sae, SaeParts};
use auscult_runtime::weights::Weights;
use auscult_runtime::{Backend, CpuBackend};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn cpu() -> Arc<dyn Backend> {
    Arc::new(CpuBackend::new(None).unwrap())
}

fn fixture() -> Weights {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    Weights::open(root.join("tests/golden/sae_train/saelens-5.3.2.safetensors")).unwrap()
}

fn values(weights: &Weights, name: &str) -> Vec<f32> {
    weights.get(name).unwrap_or_else(|| panic!("the fixture has {name}")).to_f32().unwrap()
}

/// Largest difference, in parts of the largest value.
fn apart(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0.0_f64, |m, v| m.max(f64::from(*v).abs()));
    got.iter().zip(want).map(|(g, w)| f64::from(g - w).abs()).fold(0.0, f64::max) / largest
}

fn saelens_fixture_config() -> TrainConfig {
    TrainConfig {
        k: 8,
        batch: 32,
        lr: 3e-3,
        lr_decay: 60,
        l1: 5e-2,
        l1_warmup: 20,
        ..TrainConfig::new(Mode::Saelens532, 24, 96, 200)
    }
}

fn saelens_fixture_start(fixture: &Weights) -> SaeParts {
    SaeParts {
        w_enc: values(fixture, "start_W_enc"),
        b_enc: values(fixture, "start_b_enc"),
        w_dec: values(fixture, "start_W_dec"),
        b_dec: values(fixture, "start_b_dec"),
    }
}

#[test]
fn two_hundred_steps_are_those_of_saelens() {
    let fixture = fixture();
    let rows = values(&fixture, "rows");
    let mut trainer =
        Trainer::with_weights(cpu(), saelens_fixture_config(), saelens_fixture_start(&fixture)).unwrap();
    let wanted = ["loss", "l1", "l0", "grad_norm", "lr"].map(|name| values(&fixture, name));
    for (step, batch) in rows.chunks_exact(32 * 24).enumerate() {
        let record = trainer.step_recorded(batch).unwrap();
        let got = [record.loss, record.l1, record.l0, record.grad_norm, record.lr];
        for (got, want) in got.into_iter().zip(&wanted) {
            let want = f64::from(want[step]);
            assert!((got - want).abs() <= 1e-4 * want.abs() + 1e-9, "step {step}: {got}, torch has {want}");
        }
    }
    assert!(trainer.is_done());
    let parts = trainer.sae(Metadata::default()).unwrap().parts();
    let got =
        [("W_enc", parts.w_enc), ("b_enc", parts.b_enc), ("W_dec", parts.w_dec), ("b_dec", parts.b_dec)];
    for (name, got) in got {
        let far = apart(&got, &values(&fixture, &format!("end_{name}")));
        assert!(far < 2e-3, "{name} is {far} of its largest value from torch's");
    }
    let far = apart(&trainer.sparsity().unwrap(), &values(&fixture, "sparsity"));
    assert!(far < 1e-3, "sparsity is {far} from torch's");
}

#[test]
fn the_first_bias_is_the_median_of_saelens() {
    let fixture = fixture();
    let rows = values(&fixture, "rows");
    let median = geometric_median(&rows[..16 * 32 * 24], 24);
    let far = apart(&median, &values(&fixture, "start_b_dec"));
    assert!(far < 1e-5, "{far}");
}

/// A dictionary of unit directions, and rows that are sums of few of them.
struct Planted {
    width: usize,
    directions: Vec<f32>,
    key: String,
    drawn: usize,
}

impl Planted {
    fn new(features: usize, width: usize, seed: u64) -> Self {
        let mut directions: Vec<f32> = noise(&format!("directions {seed}"), features * width).collect();
        for row in directions.chunks_exact_mut(width) {
            let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            row.iter_mut().for_each(|v| *v /= length);
        }
        Self { width, directions, key: format!("rows {seed}"), drawn: 0 }
    }

    /// Rows of three directions each, times 1 to 2.
    fn rows(&mut self, count: usize) -> Vec<f32> {
        let features = self.directions.len() / self.width;
        let mut out = vec![0.0; count * self.width];
        for row in out.chunks_exact_mut(self.width) {
            let draws: Vec<f32> = noise(&format!("{} {}", self.key, self.drawn), 6).collect();
            for pair in draws.chunks(2) {
                let feature = ((0.5 * pair[0] + 0.5) * features as f32) as usize;
                let scale = 1.5 + 0.5 * pair[1];
                let direction = &self.directions[feature * self.width..][..self.width];
                row.iter_mut().zip(direction).for_each(|(v, d)| *v += scale * d);
            }
            self.drawn += 1;
        }
        out
    }

    /// Share of the directions to which a row of the decoder has a cosine above 0.9.
    fn found(&self, sae: &Sae) -> f64 {
        let w_dec = sae.parts().w_dec;
        let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let is_found =
            |direction: &&[f32]| w_dec.chunks_exact(self.width).any(|d| cosine(d, direction) > 0.9);
        let found = self.directions.chunks_exact(self.width).filter(is_found).count();
        found as f64 / (self.directions.len() / self.width) as f64
    }
}

/// Trains on planted rows; the first and the last record, and what came out.
fn train(config: TrainConfig, planted: &mut Planted) -> (Record, Record, Sae) {
    let (batch, steps) = (config.batch, config.steps);
    let mut trainer = Trainer::new(cpu(), config, &planted.rows(1024)).unwrap();
    let first = trainer.step_recorded(&planted.rows(batch)).unwrap();
    for _ in 2..steps {
        trainer.step(&planted.rows(batch)).unwrap();
    }
    let last = trainer.step_recorded(&planted.rows(batch)).unwrap();
    (first, last, trainer.sae(Metadata::default()).unwrap())
}

#[test]
fn top_k_finds_planted_directions() {
    for seed in [1, 2, 3] {
        let mut planted = Planted::new(256, 64, seed);
        let config = TrainConfig {
            k: 3,
            batch: 256,
            lr: 2e-3,
            dead_after: 200,
            seed,
            ..TrainConfig::new(Mode::TopK, 64, 512, 2500)
        };
        let (_, last, sae) = train(config, &mut planted);
        let found = planted.found(&sae);
        println!("seed {seed}: {:.1} % found, FVU {:.4}, {} dead", 100.0 * found, last.fvu, last.dead);
        assert!(found >= 0.9, "seed {seed}: {found} found, expected 0.9");
    }
}

#[test]
fn every_mode_lowers_its_loss() {
    for mode in Mode::ALL {
        let mut planted = Planted::new(48, 16, 9);
        let base = TrainConfig::new(mode, 16, 96, 400);
        // penalties of the size of these rows' squares, which are about 7
        let l1 = match mode {
            Mode::JumpRelu => 0.05,
            Mode::Relu => 0.2,
            _ => base.l1,
        };
        let (first, last, sae) =
            train(TrainConfig { k: 4, batch: 128, lr: 5e-3, l1, dead_after: 50, ..base }, &mut planted);
        println!(
            "{mode}: loss {:.3} to {:.3}, FVU {:.3} to {:.3}, L0 {:.1}",
            first.loss, last.loss, first.fvu, last.fvu, last.l0
        );
        assert!(last.loss < 0.6 * first.loss, "{mode}: loss {} to {}", first.loss, last.loss);
        assert!(last.fvu < 0.6 * first.fvu, "{mode}: FVU {} to {}", first.fvu, last.fvu);
        // where nothing sets k, the penalty makes fewer features active than there were
        let most = if matches!(mode, Mode::JumpRelu | Mode::Relu) { first.l0 } else { 4.1 };
        assert!(last.l0 > 0.5 && last.l0 < most, "{mode}: {} active, {} at first", last.l0, first.l0);
        let expected = match mode {
            Mode::Saelens532 | Mode::TopK => matches!(sae.settings().activation, Activation::TopK(4)),
            Mode::BatchTopK | Mode::JumpRelu => {
                matches!(&sae.settings().activation, Activation::JumpRelu { threshold } if threshold.iter().all(|&t| t > 0.0))
            }
            Mode::Relu => sae.settings().activation == Activation::Relu,
        };
        assert!(expected, "{mode}: {:?}", sae.settings().activation.architecture());
        // what the encoder on the host finds is what training went by
        let rows = planted.rows(512);
        let active = sae.encode(&rows).unwrap().active() as f64 / 512.0;
        assert!(
            (active - last.l0).abs() < 0.25 * last.l0 + 0.5,
            "{mode}: {active} active, {} in training",
            last.l0
        );
    }
}

#[test]
fn silent_features_come_back() {
    // three quarters of the features see so little of a row that they are never among the largest
    let dead = |aux_k: usize| {
        let mut planted = Planted::new(64, 32, 4);
        let config = TrainConfig {
            k: 2,
            batch: 64,
            lr: 3e-3,
            dead_after: 25,
            aux_k,
            ..TrainConfig::new(Mode::TopK, 32, 128, 300)
        };
        let mut parts = Trainer::new(cpu(), config.clone(), &planted.rows(64))
            .unwrap()
            .sae(Metadata::default())
            .unwrap()
            .parts();
        parts.w_enc.chunks_exact_mut(128).for_each(|row| row[32..].iter_mut().for_each(|w| *w *= 0.05));
        let mut trainer = Trainer::with_weights(cpu(), config, parts).unwrap();
        for _ in 0..30 {
            trainer.step(&planted.rows(64)).unwrap();
        }
        let before = trainer.dead().unwrap();
        while !trainer.is_done() {
            trainer.step(&planted.rows(64)).unwrap();
        }
        (before, trainer.dead().unwrap())
    };
    let (before, without) = dead(0);
    assert!(before == 96 && without > 90, "{before} silent, {without} at the end");
    let (_, with) = dead(16);
    println!("silent: {before} of 128, {without} at the end, {with} with the auxiliary loss");
    // there are 64 directions for 128 features to find: half of these have nothing to do
    assert!(with < 77, "{with} silent at the end, {without} without the auxiliary loss");
}

fn checkpoint(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("checkpoint.safetensors")
}

#[test]
fn a_run_taken_up_goes_on_bit_for_bit() {
    for mode in Mode::ALL {
        let dir = tempfile::tempdir().unwrap();
        let file = checkpoint(&dir);
        let config = TrainConfig {
            k: 3,
            batch: 32,
            lr: 2e-3,
            dead_after: 5,
            window: 7,
            beta1: 0.5,
            ..TrainConfig::new(mode, 16, 64, 60)
        };
        let draw = |planted: &mut Planted, rows: usize, into: &mut Vec<f32>| -> Result<(), Infallible> {
            into.extend(planted.rows(rows));
            Ok(())
        };
        let mut planted = Planted::new(32, 16, 5);
        let mut mixing = Mixing::new(16, 200, config.seed);
        let Ok(()) = mixing.fill(32, |rows, into| draw(&mut planted, rows, into));
        let mut trainer = Trainer::new(cpu(), config, mixing.pool()).unwrap();
        let mut tail = Vec::new();
        let source = serde_json::Map::from_iter([("rows".to_string(), "planted".into())]);
        while !trainer.is_done() {
            if trainer.steps_made() == 31 {
                trainer.save(&file, &mixing, &source).unwrap();
            }
            let Ok(rows) = mixing.batch(32, |rows, into| draw(&mut planted, rows, into));
            let record = trainer.step_recorded(&rows).unwrap();
            if record.step >= 31 {
                tail.push(record);
            }
        }
        let opened = Checkpoint::open(&file).unwrap();
        assert_eq!((opened.steps_made(), opened.source()), (31, &source));
        let (mut again, mut mixing) = opened.resume(cpu()).unwrap();
        assert_eq!(again.steps_made(), 31);
        let mut planted = Planted::new(32, 16, 5);
        planted.drawn = usize::try_from(mixing.drawn()).unwrap();
        for want in tail {
            let Ok(rows) = mixing.batch(32, |rows, into| draw(&mut planted, rows, into));
            assert_eq!(again.step_recorded(&rows).unwrap(), want, "{mode}");
        }
        assert_eq!(again.sparsity().unwrap(), trainer.sparsity().unwrap(), "{mode}");
        let parts = [&again, &trainer].map(|t| t.sae(Metadata::default()).unwrap().parts());
        assert!(parts[0] == parts[1], "{mode}: the weights differ");
    }
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = checkpoint(&dir);
    let parts =
        SaeParts { w_enc: vec![0.5; 6], b_enc: vec![0.0; 3], w_dec: vec![0.5; 6], b_dec: vec![0.0; 2] };
    Sae::new(parts, Some(1), None).unwrap().save(dir.path()).unwrap();
    std::fs::rename(dir.path().join("sae_weights.safetensors"), &file).unwrap();
    let said = Trainer::resume(cpu(), &file).err().expect("refused").to_string();
    assert!(said.contains("has no metadata `training`, expected a checkpoint of `sae train`"), "{said}");
    let older = [("training".to_string(), r#"{"format": 2}"#.to_string())];
    auscult_runtime::safetensors_io::write_safetensors(&file, &older, &[], |_, _| Ok(())).unwrap();
    let said = Trainer::resume(cpu(), &file).err().expect("refused").to_string();
    assert!(said.contains("is of format 2, expected 3"), "{said}");
}

#[test]
fn rows_that_cannot_be_trained_on_are_named() {
    let config = TrainConfig { k: 2, batch: 2, ..TrainConfig::new(Mode::TopK, 3, 8, 4) };
    let said = |rows: &[f32]| {
        let mut trainer = Trainer::new(cpu(), config.clone(), &[0.5; 6]).unwrap();
        trainer.step(rows).expect_err("refused").to_string()
    };
    assert_eq!(said(&[1.0; 3]), "`rows` is 3 values, expected 6, a batch");
    assert_eq!(
        said(&[1.0, 1.0, 1.0, 1.0, f32::NAN, 1.0]),
        "`rows` is NaN in row 1, column 1, expected finite values"
    );
}
