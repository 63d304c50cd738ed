//! Random checkpoints: the published sizes, the bytes, the files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use auscult_kernels::DType;
use auscult_model::config::CheckpointConfig;
use auscult_model::init::{InitOptions, Preset, init, init_checkpoint};
use auscult_model::layout::{self, LayoutTensor};
use auscult_runtime::files::sha256_file;
use auscult_runtime::weights::Weights;

fn parameters(tensors: &[LayoutTensor]) -> usize {
    let buffer = |name: &str| {
        ["inited", "cluster_size", "embed", "embed_avg"]
            .iter()
            .any(|b| name.ends_with(&format!("codebook.{b}")))
    };
    tensors.iter().filter(|t| !buffer(&t.name)).map(|t| t.shape.iter().product::<usize>()).sum()
}

fn values(weights: &Weights) -> BTreeMap<String, Vec<u8>> {
    weights.iter().map(|view| (view.name.to_string(), view.bytes.to_vec())).collect()
}

#[test]
fn the_published_sizes_have_the_published_numbers_of_parameters() {
    // counted by torch over transformers 4.57.6's classes
    for (preset, expected) in
        [(Preset::Small, 419_584_000), (Preset::Medium, 1_837_556_736), (Preset::Large, 3_255_382_016usize)]
    {
        let config = preset.config();
        config.validate(Path::new("config.json")).unwrap();
        let mut tensors = layout::decoder("decoder.", &config.decoder);
        tensors.extend(layout::text_projection(&config));
        let projection = config.decoder.hidden_size * (config.text_encoder.d_model + 1);
        assert_eq!(parameters(&tensors) - projection, expected, "{preset}");
        assert_eq!(parameters(&layout::t5("", &config.text_encoder)), 109_628_544);
        assert_eq!(parameters(&layout::encodec("", &config.audio_encoder)), 56_884_674);
    }
    let all: usize =
        layout::musicgen(&Preset::Small.config()).iter().map(|t| t.shape.iter().product::<usize>()).sum();
    assert_eq!(all, 586_884_674 + 2_105_348, "parameters and codebook statistics");
}

#[test]
fn a_tiny_checkpoint_has_every_tensor_and_loads() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("tiny");
    let report = init(Preset::Tiny, 5, &out).unwrap();
    let config = Preset::Tiny.config();
    assert_eq!(CheckpointConfig::load(&out).unwrap(), CheckpointConfig::Musicgen(config.clone()));
    let expected = layout::musicgen(&config);
    let weights = Weights::open(&out).unwrap();
    assert_eq!(weights.iter().count(), expected.len());
    assert_eq!(report.tensors, expected.len());
    for tensor in &expected {
        let view = weights.get(&tensor.name).unwrap_or_else(|| panic!("`{}` is missing", tensor.name));
        assert_eq!((view.shape, view.dtype), (tensor.shape.as_slice(), DType::F32), "{}", tensor.name);
        let values = view.to_f32().unwrap();
        assert!(values.iter().all(|v| v.is_finite() && v.abs() < 8.0), "{}", tensor.name);
        let ones = tensor.name.ends_with("inited") || tensor.name.ends_with("cluster_size");
        assert_eq!(values.iter().all(|&v| v == 1.0), ones, "{}", tensor.name);
    }
    let names: Vec<_> = report.files.iter().map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "model.safetensors",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "config.json"
        ],
        "config.json comes last"
    );
    let generation: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("generation_config.json")).unwrap()).unwrap();
    assert_eq!(generation["decoder_start_token_id"], 64);
    assert_eq!(generation["max_length"], 1500);
}

#[test]
fn seed_zero_gives_the_values_of_an_independent_implementation() {
    // first and last element as f32 bits, computed with numpy float32 by the formula in `procedural`; one of each rule
    let expected: [(&str, usize, [u32; 2]); 12] = [
        ("audio_encoder.decoder.layers.3.conv.weight_g", 128, [0x3fd59891, 0x401070af]),
        ("audio_encoder.encoder.layers.13.lstm.bias_ih_l1", 512, [0xbc3a499f, 0x3da87f46]),
        ("audio_encoder.quantizer.layers.2.codebook.embed", 1024, [0x3e6d34ed, 0x3bd9919a]),
        ("text_encoder.shared.weight", 12432, [0x3f538b0f, 0xbfc7662f]),
        ("text_encoder.encoder.block.1.layer.0.SelfAttention.q.weight", 2304, [0xbbf6b540, 0xbbc86560]),
        ("text_encoder.encoder.block.0.layer.1.DenseReluDense.wo.weight", 4608, [0x3df3a8b7, 0xbe1b7bd7]),
        ("decoder.model.decoder.embed_tokens.3.weight", 8320, [0x3e83111d, 0x3e018dd9]),
        ("decoder.model.decoder.layers.2.fc2.weight", 65536, [0x3d9a995a, 0x3d4c80fc]),
        ("decoder.model.decoder.layers.1.encoder_attn_layer_norm.bias", 128, [0xba313c00, 0x3ba4bd4d]),
        ("enc_to_dec_proj.bias", 128, [0xbdaa8b75, 0x3bac484d]),
        ("decoder.lm_heads.0.weight", 8192, [0xbdc1d998, 0xbd993dac]),
        ("audio_encoder.encoder.layers.0.conv.bias", 8, [0xbd0d325d, 0xbd40cf7f]),
    ];
    let dir = tempfile::tempdir().unwrap();
    init(Preset::Tiny, 0, &dir.path().join("tiny")).unwrap();
    let weights = Weights::open(dir.path().join("tiny")).unwrap();
    for (name, count, ends) in expected {
        let values = weights.get(name).unwrap().to_f32().unwrap();
        let found = [values[0].to_bits(), values[count - 1].to_bits()];
        assert_eq!((values.len(), found), (count, ends), "{name}: {found:08x?}, expected {ends:08x?}");
    }
}

#[test]
fn the_seed_alone_decides_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let hash = |name: &str, seed: u64| {
        init(Preset::Tiny, seed, &dir.path().join(name)).unwrap();
        sha256_file(dir.path().join(name).join("model.safetensors")).unwrap()
    };
    let first = hash("a", 11);
    assert_eq!(first, hash("b", 11));
    assert_ne!(first, hash("c", 12));
}

#[test]
fn shards_hold_what_the_single_file_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let options = InitOptions { seed: 3, ..InitOptions::default() };
    let config = Preset::Tiny.config();
    init_checkpoint(&config, options, &whole, &mut |_, _| {}).unwrap();
    let mut told = Vec::new();
    let limit = 1_000_000;
    let sharded = InitOptions { shard_bytes: limit, ..options };
    let report =
        init_checkpoint(&config, sharded, &parts, &mut |done, total| told.push((done, total))).unwrap();
    assert!(!parts.join("model.safetensors").exists());
    let files: Vec<_> =
        report.files.iter().filter(|f| f.extension().is_some_and(|e| e == "safetensors")).collect();
    assert!(files.len() > 5, "{} shards", files.len());
    for file in &files {
        assert!(fs::metadata(file).unwrap().len() < limit + 65_536, "{}", file.display());
    }
    let (whole, parts) = (Weights::open(&whole).unwrap(), Weights::open(&parts).unwrap());
    assert_eq!(values(&whole), values(&parts));
    let total = u64::try_from(whole.total_bytes()).unwrap();
    assert_eq!(told.last(), Some(&(total, total)));
    assert!(told.windows(2).all(|pair| pair[0].0 < pair[1].0), "progress only grows");
}

#[test]
fn half_precision_is_the_f32_value_rounded() {
    let dir = tempfile::tempdir().unwrap();
    let config = Preset::Tiny.config();
    let open = |dtype: DType| {
        let out = dir.path().join(dtype.name());
        init_checkpoint(&config, InitOptions { dtype, ..InitOptions::default() }, &out, &mut |_, _| {})
            .unwrap();
        Weights::open(out).unwrap()
    };
    let exact = open(DType::F32);
    // half a unit in the last place: 2^-11 of 11 significant bits, 2^-8 of 8
    for (dtype, relative) in [(DType::F16, 1.0 / 2048.0), (DType::BF16, 1.0 / 256.0)] {
        let rounded = open(dtype);
        for view in exact.iter() {
            let half = rounded.get(view.name).unwrap();
            assert_eq!(half.dtype, dtype);
            for (a, b) in view.to_f32().unwrap().iter().zip(half.to_f32().unwrap()) {
                // f16 has subnormals below 2^-14, spaced 2^-24
                assert!(
                    (a - b).abs() <= relative * a.abs() + f32::EPSILON / 4.0,
                    "{}: {a} became {b}",
                    view.name
                );
            }
        }
    }
}

#[test]
fn a_directory_that_holds_a_checkpoint_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("model.safetensors"), "kept").unwrap();
    let error = init(Preset::Tiny, 0, dir.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("holds a model.safetensors already, expected a new or empty directory"),
        "{error}"
    );
    assert_eq!(fs::read(dir.path().join("model.safetensors")).unwrap(), b"kept");
    let file = dir.path().join("model.safetensors");
    let error = init(Preset::Tiny, 0, &file).unwrap_err().to_string();
    assert!(error.ends_with("is a file, expected a directory to write a checkpoint to"), "{error}");
    let integers = InitOptions { dtype: DType::I32, ..InitOptions::default() };
    let error = init_checkpoint(&Preset::Tiny.config(), integers, &dir.path().join("new"), &mut |_, _| {});
    assert!(error.unwrap_err().to_string().ends_with("weights of type I32, expected F32, F16 or BF16"));
    assert!(!dir.path().join("new").exists());
}
