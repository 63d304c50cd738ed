//! The converter against files that torch wrote (`data/make_torch_files.py`), honest and malicious.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use auscult_kernels::DType;
use auscult_model::ModelError;
use auscult_model::config::CheckpointConfig;
use auscult_model::convert::{ConvertKind, ConvertReport, ConvertRequest, convert};
use auscult_model::encodec::config::PadMode;
use auscult_model::layout;
use auscult_runtime::weights::Weights;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch").join(name)
}

fn run(input: &Path, out: &Path) -> Result<ConvertReport, ModelError> {
    convert(&ConvertRequest { input, codec: None, text_encoder: None, hook: None, out }, &mut |_, _| {})
}

/// Element `index` of the tensor that the script calls `name`.
fn value(name: &str, index: usize) -> i64 {
    i64::try_from((7 * index + 3 * name.len()) % 31).unwrap() - 15
}

/// Checks a tensor of `weights` element by element against elements `start ..` of the script's tensor `source`.
fn check(weights: &Weights, name: &str, shape: &[usize], dtype: DType, source: &str, start: usize) {
    let view = weights.get(name).unwrap_or_else(|| panic!("`{name}` is missing"));
    assert_eq!((view.shape, view.dtype), (shape, dtype), "{name}");
    let count: usize = shape.iter().product();
    let expected: Vec<f32> = (start..start + count).map(|i| value(source, i) as f32).collect();
    assert_eq!(view.to_f32().unwrap(), expected, "{name}");
}

fn integers<const N: usize>(
    weights: &Weights,
    name: &str,
    dtype: DType,
    decode: fn([u8; N]) -> i64,
) -> Vec<i64> {
    let view = weights.get(name).unwrap_or_else(|| panic!("`{name}` is missing"));
    assert_eq!(view.dtype, dtype, "{name}");
    view.bytes.chunks_exact(N).map(|b| decode(b.try_into().unwrap())).collect()
}

#[test]
fn every_view_and_type_of_a_plain_state_dict_is_read() {
    for file in ["ordered.pt", "protocol4.pt", "protocol5.pt"] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let report = run(&data(file), &out).unwrap();
        assert_eq!((report.kind, report.tensors), (ConvertKind::StateDict, 19), "{file}");
        assert!(report.dropped.is_empty(), "{:?}", report.dropped);
        let weights = Weights::open(&out).unwrap();
        for (name, shape, dtype) in [
            ("float", &[3usize, 4][..], DType::F32),
            ("transposed", &[5, 3], DType::F32),
            ("permuted", &[2, 3, 4], DType::F32),
            ("sliced", &[3, 4], DType::F32),
            ("shared", &[6, 5], DType::F32),
            ("parameter", &[4, 2], DType::F32),
            ("scalar", &[], DType::F32),
            ("half", &[5], DType::F16),
            ("bfloat16", &[3, 3], DType::BF16),
        ] {
            check(&weights, name, shape, dtype, name, 0);
        }
        check(&weights, "shared.tail", &[2, 5], DType::F32, "shared", 20);
        check(&weights, "shared.alias", &[6, 5], DType::F32, "shared", 0);
        let empty = weights.get("empty").unwrap();
        assert_eq!((empty.shape, empty.bytes.len()), (&[0usize, 3][..], 0));
        let double = weights.get("double").unwrap().to_f32().unwrap();
        let thirds: Vec<f32> = (0..4).map(|i| (value("double", i) as f64 / 3.0) as f32).collect();
        assert_eq!(double, thirds, "f64 is rounded to f32");

        let named =
            |name: &str, map: fn(i64) -> i64| -> Vec<i64> { (0..6).map(|i| map(value(name, i))).collect() };
        let wide = |b: [u8; 4]| i32::from_le_bytes(b).into();
        let long = integers(&weights, "long", DType::I64, i64::from_le_bytes);
        assert_eq!(long, named("long", |v| v * 1_000_000_000_000));
        assert_eq!(integers(&weights, "int", DType::I32, wide), named("int", |v| v));
        assert_eq!(integers(&weights, "short", DType::I32, wide), named("short", |v| v));
        assert_eq!(integers(&weights, "char", DType::I32, wide), named("char", |v| v));
        let small = |b: [u8; 1]| b[0].into();
        assert_eq!(integers(&weights, "byte", DType::U8, small), named("byte", i64::abs));
        assert_eq!(integers(&weights, "bool", DType::U8, small), named("bool", |v| (v > 0).into()));
        assert_eq!(
            report.notes,
            [
                "types: 1 tensor of torch.CharStorage written as I32",
                "types: 1 tensor of torch.DoubleStorage written as F32",
                "types: 1 tensor of torch.ShortStorage written as I32",
                "no config.json beside the input: only weights are written"
            ]
        );
    }
}

#[test]
fn wrapped_state_dicts_with_attributes_are_read_and_the_rest_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    run(&data("module.pt"), &out).unwrap();
    let weights = Weights::open(&out).unwrap();
    check(&weights, "weight", &[2, 3], DType::F32, "weight", 0);
    check(&weights, "bias", &[2], DType::F32, "bias", 0);
    assert_eq!(weights.iter().count(), 2);
}

#[test]
fn an_audiocraft_melody_model_keeps_its_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let (input, codec, t5) = (data("melody.bin"), data("audiocraft/compression_state_dict.bin"), data("t5"));
    let request =
        ConvertRequest { input: &input, codec: Some(&codec), text_encoder: Some(&t5), hook: None, out: &out };
    let report = convert(&request, &mut |_, _| {}).unwrap();
    let note = "melody: 235 positions of chroma, as in every published MusicGen Melody";
    assert!(report.notes.iter().any(|found| found == note), "{:?}", report.notes);
    let CheckpointConfig::MusicgenMelody(config) = CheckpointConfig::load(&out).unwrap() else {
        panic!("a MusicGen Melody")
    };
    let weights = Weights::open(&out).unwrap();
    let names: BTreeSet<&str> = weights.iter().map(|view| view.name).collect();
    let expected = layout::musicgen(&config);
    assert_eq!(names, expected.iter().map(|t| t.name.as_str()).collect());
    assert!(!names.iter().any(|name| name.contains("encoder_attn") || name.contains("window")));
    for (kind, shape) in [("weight", &[24_usize, 12][..]), ("bias", &[24])] {
        let source = format!("condition_provider.conditioners.self_wav.output_proj.{kind}");
        check(&weights, &format!("audio_enc_to_dec_proj.{kind}"), shape, DType::F16, &source, 0);
    }
}

/// The codec's configuration in `make_torch_files.py`.
fn check_codec_config(config: &auscult_model::encodec::config::EncodecConfig) {
    assert_eq!(config.upsampling_ratios, [3, 2]);
    assert_eq!((config.num_filters, config.hidden_size, config.codebook_size), (2, 3, 16));
    assert_eq!((config.kernel_size, config.last_kernel_size, config.residual_kernel_size), (5, 3, 3));
    assert_eq!((config.compress, config.num_residual_layers, config.num_lstm_layers), (2, 1, 2));
    assert_eq!((config.sampling_rate, config.frame_rate(), config.num_quantizers()), (300, 50, 4));
    assert_eq!(config.default_quantizers(), 4);
    assert_eq!(
        (config.pad_mode, config.use_causal_conv, config.use_conv_shortcut),
        (PadMode::Reflect, false, false)
    );
    config.check_supported(Path::new("config.json"), "").unwrap();
}

#[test]
fn an_audiocraft_package_becomes_a_musicgen_directory() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let (input, t5) = (data("audiocraft/state_dict.bin"), data("t5"));
    let request =
        ConvertRequest { input: &input, codec: None, text_encoder: Some(&t5), hook: None, out: &out };
    let mut last = (0, 0);
    let report = convert(&request, &mut |done, total| last = (done, total)).unwrap();
    assert_eq!(report.kind, ConvertKind::Musicgen);
    assert_eq!(last, (report.bytes, report.bytes));
    assert_eq!(report.notes, ["text encoder: 1 tensor of the text model's decoder left out"]);

    let CheckpointConfig::Musicgen(config) = CheckpointConfig::load(&out).unwrap() else {
        panic!("a MusicGen")
    };
    let decoder = &config.decoder;
    assert_eq!((decoder.hidden_size, decoder.num_hidden_layers, decoder.ffn_dim), (24, 2, 40));
    assert_eq!((decoder.num_attention_heads, decoder.num_codebooks, decoder.vocab_size), (4, 4, 16));
    assert_eq!((decoder.audio_channels, decoder.special_token()), (1, 16));
    assert_eq!((config.text_encoder.d_model, config.text_encoder.num_heads), (20, 2));
    check_codec_config(&config.audio_encoder);

    let weights = Weights::open(&out).unwrap();
    let names: BTreeSet<&str> = weights.iter().map(|view| view.name).collect();
    let expected = layout::musicgen(&config);
    assert_eq!(names, expected.iter().map(|t| t.name.as_str()).collect());
    for tensor in &expected {
        assert_eq!(weights.get(&tensor.name).unwrap().shape, tensor.shape, "{}", tensor.name);
    }

    // the table of names, written out by hand
    let (root, ac) = ("decoder.model.decoder", "transformer.layers.1");
    for (name, shape, source, start) in [
        (format!("{root}.embed_tokens.3.weight"), &[17usize, 24][..], "emb.3.weight".to_string(), 0),
        ("decoder.lm_heads.2.weight".into(), &[16, 24], "linears.2.weight".into(), 0),
        (format!("{root}.layer_norm.bias"), &[24], "out_norm.bias".into(), 0),
        (
            format!("{root}.layers.1.self_attn.q_proj.weight"),
            &[24, 24],
            format!("{ac}.self_attn.in_proj_weight"),
            0,
        ),
        (
            format!("{root}.layers.1.self_attn.k_proj.weight"),
            &[24, 24],
            format!("{ac}.self_attn.in_proj_weight"),
            576,
        ),
        (
            format!("{root}.layers.1.self_attn.v_proj.weight"),
            &[24, 24],
            format!("{ac}.self_attn.in_proj_weight"),
            1152,
        ),
        (
            format!("{root}.layers.1.self_attn.out_proj.weight"),
            &[24, 24],
            format!("{ac}.self_attn.out_proj.weight"),
            0,
        ),
        (
            format!("{root}.layers.1.encoder_attn.v_proj.weight"),
            &[24, 24],
            format!("{ac}.cross_attention.in_proj_weight"),
            1152,
        ),
        (
            format!("{root}.layers.1.encoder_attn.out_proj.weight"),
            &[24, 24],
            format!("{ac}.cross_attention.out_proj.weight"),
            0,
        ),
        (format!("{root}.layers.1.self_attn_layer_norm.weight"), &[24], format!("{ac}.norm1.weight"), 0),
        (format!("{root}.layers.1.encoder_attn_layer_norm.bias"), &[24], format!("{ac}.norm_cross.bias"), 0),
        (format!("{root}.layers.1.final_layer_norm.weight"), &[24], format!("{ac}.norm2.weight"), 0),
        (format!("{root}.layers.1.fc1.weight"), &[40, 24], format!("{ac}.linear1.weight"), 0),
        (format!("{root}.layers.1.fc2.weight"), &[24, 40], format!("{ac}.linear2.weight"), 0),
        (
            "enc_to_dec_proj.weight".into(),
            &[24, 20],
            "condition_provider.conditioners.description.output_proj.weight".into(),
            0,
        ),
    ] {
        check(&weights, &name, shape, DType::F16, &source, start);
    }
    for (name, shape, source) in [
        ("encoder.layers.0.conv.weight_v", &[2usize, 1, 5][..], "encoder.model.0.conv.conv.weight_v"),
        ("encoder.layers.4.block.3.conv.weight_g", &[4, 1, 1], "encoder.model.4.block.3.conv.conv.weight_g"),
        ("encoder.layers.7.lstm.weight_hh_l1", &[32, 8], "encoder.model.7.lstm.weight_hh_l1"),
        ("decoder.layers.3.conv.weight_g", &[8, 1, 1], "decoder.model.3.convtr.convtr.weight_g"),
        ("decoder.layers.3.conv.bias", &[4], "decoder.model.3.convtr.convtr.bias"),
        ("decoder.layers.9.conv.weight_v", &[1, 2, 3], "decoder.model.9.conv.conv.weight_v"),
        ("quantizer.layers.3.codebook.embed", &[16, 3], "quantizer.vq.layers.3._codebook.embed"),
    ] {
        check(&weights, &format!("audio_encoder.{name}"), shape, DType::F32, source, 0);
    }
    check(&weights, "text_encoder.shared.weight", &[11, 20], DType::F32, "shared.weight", 0);
    let query = "encoder.block.0.layer.0.SelfAttention.q.weight";
    check(&weights, &format!("text_encoder.{query}"), &[12, 20], DType::F32, query, 0);
    assert_eq!(fs::read(out.join("tokenizer.json")).unwrap(), fs::read(data("t5/tokenizer.json")).unwrap());
}

#[test]
fn a_package_without_a_text_encoder_says_what_it_assumes() {
    let dir = tempfile::tempdir().unwrap();
    let message = run(&data("audiocraft"), &dir.path().join("out")).unwrap_err().to_string();
    assert!(
        message
            .ends_with("projects text states of width 20, expected a text encoder of that width to be given"),
        "{message}"
    );
    assert!(!dir.path().join("out").exists());
}

#[test]
fn a_codec_package_becomes_an_encodec_directory_which_serves_as_a_codec() {
    let dir = tempfile::tempdir().unwrap();
    let codec = dir.path().join("codec");
    let report = run(&data("audiocraft/compression_state_dict.bin"), &codec).unwrap();
    assert_eq!(report.kind, ConvertKind::Encodec);
    let CheckpointConfig::Encodec(config) = CheckpointConfig::load(&codec).unwrap() else {
        panic!("a codec")
    };
    check_codec_config(&config);
    let weights = Weights::open(&codec).unwrap();
    check(
        &weights,
        "decoder.layers.6.conv.weight_v",
        &[4, 2, 4],
        DType::F32,
        "decoder.model.6.convtr.convtr.weight_v",
        0,
    );

    // the same package twice, with the codec once from its archive and once from that directory
    let (input, t5) = (data("audiocraft"), data("t5"));
    let bytes = [None, Some(codec.as_path())].map(|codec| {
        let out = dir.path().join(if codec.is_some() { "from directory" } else { "from archive" });
        let request = ConvertRequest { input: &input, codec, text_encoder: Some(&t5), hook: None, out: &out };
        convert(&request, &mut |_, _| {}).unwrap();
        fs::read(out.join("model.safetensors")).unwrap()
    });
    assert_eq!(bytes[0], bytes[1]);
}

#[test]
fn a_hugging_face_directory_keeps_its_names_and_small_files() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let report = run(&data("t5"), &out).unwrap();
    assert_eq!((report.kind, report.tensors), (ConvertKind::StateDict, 13));
    let weights = Weights::open(&out).unwrap();
    // tied: one storage under two names, kept as the file has them
    for name in ["shared.weight", "encoder.embed_tokens.weight"] {
        check(&weights, name, &[11, 20], DType::F32, "shared.weight", 0);
    }
    assert!(out.join("tokenizer.json").is_file());
    let read = |dir: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap()
    };
    assert_eq!(read(&out), read(&data("t5")));
}

#[test]
fn packages_of_another_kind_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let expected = "holds no weights but refers to the codec `facebook/encodec_32khz`; expected the directory of that codec \
                    in the Hugging Face layout, given as the codec";
    let message = run(&data("pretrained_codec.bin"), &out).unwrap_err().to_string();
    assert!(message.ends_with(expected), "{message}");
    let (input, codec) = (data("audiocraft"), data("pretrained_codec.bin"));
    let t5 = data("t5");
    let request =
        ConvertRequest { input: &input, codec: Some(&codec), text_encoder: Some(&t5), hook: None, out: &out };
    let message = convert(&request, &mut |_, _| {}).unwrap_err().to_string();
    assert!(message.contains("pretrained_codec.bin: holds no weights but refers to the codec"), "{message}");

    // a language model without its codec
    let alone = dir.path().join("state_dict.bin");
    fs::copy(data("audiocraft/state_dict.bin"), &alone).unwrap();
    let request =
        ConvertRequest { input: &alone, codec: None, text_encoder: Some(&t5), hook: None, out: &out };
    let message = convert(&request, &mut |_, _| {}).unwrap_err().to_string();
    assert!(message.contains("has no compression_state_dict.bin beside it, expected a codec"), "{message}");
    let message = run(dir.path().join("nowhere.bin").as_path(), &out).unwrap_err().to_string();
    assert!(message.contains("nowhere.bin"), "{message}");
    assert!(!out.exists(), "nothing is left behind");
}

#[test]
fn a_codec_that_does_not_fit_is_refused_with_the_tensors_named() {
    let dir = tempfile::tempdir().unwrap();
    let codec = dir.path().join("codec");
    run(&data("audiocraft/compression_state_dict.bin"), &codec).unwrap();
    let file = codec.join("config.json");
    let text = fs::read_to_string(&file).unwrap();
    let wider = text.replace("\"last_kernel_size\": 3", "\"last_kernel_size\": 9");
    assert_ne!(wider, text, "the field was there to be changed");
    fs::write(&file, wider).unwrap();
    let (input, t5, out) = (data("audiocraft"), data("t5"), dir.path().join("out"));
    let request =
        ConvertRequest { input: &input, codec: Some(&codec), text_encoder: Some(&t5), hook: None, out: &out };
    let message = convert(&request, &mut |_, _| {}).unwrap_err().to_string();
    assert!(
        message.ends_with(
            "codec: has misshapen 2 tensors: audio_encoder.decoder.layers.9.conv.weight_v [1, 2, 3] (expected [1, 2, 9]), \
             audio_encoder.encoder.layers.9.conv.weight_v [3, 8, 3] (expected [3, 8, 9])"
        ),
        "{message}"
    );
}

#[test]
fn an_existing_checkpoint_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    run(&data("module.pt"), dir.path()).unwrap();
    let before = fs::read(dir.path().join("model.safetensors")).unwrap();
    let message = run(&data("ordered.pt"), dir.path()).unwrap_err().to_string();
    assert!(
        message.ends_with("holds a model.safetensors already, expected a new or empty directory"),
        "{message}"
    );
    assert_eq!(fs::read(dir.path().join("model.safetensors")).unwrap(), before);
}

#[test]
fn pickles_that_ask_for_anything_but_data_are_refused_by_name() {
    // POSIX `os.system` pickles as `posix.system`; `eval` and `exec` live in `builtins`, `__builtin__` before protocol 3
    for (file, global) in [
        ("os_system.pt", "posix.system"),
        ("os_system_protocol4.pt", "posix.system"),
        ("eval.pt", "__builtin__.eval"),
        ("nested.pt", "__builtin__.exec"),
        ("load_from_bytes.pt", "torch.storage._load_from_bytes"),
        ("instance.pt", "os.system"),
        ("object.pt", "__main__.Point"),
        ("build_on_dict.pt", "attributes of an object (BUILD)"),
        ("storage_call.pt", "torch.FloatStorage()"),
        ("call_of_tensor.pt", "a call of something that is no function"),
        ("extension.pt", "EXT"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let path = data("refused").join(file);
        let error = run(&path, &out).unwrap_err();
        assert!(matches!(error, ModelError::Refused { .. }), "{file}: {error}");
        let expected =
            format!("{}: refused: pickle asks for `{global}`; only tensor data is read", path.display());
        assert_eq!(error.to_string(), expected);
        assert!(!out.exists(), "{file}: nothing is left behind");
    }
}

#[test]
fn damaged_and_lying_archives_are_refused_with_what_was_found() {
    let cases = [
        ("memo_huge.pt", "memo slot 2147483647, expected less than 4194304"),
        ("memo_unwritten.pt", "memo slot 7 is read but was never written"),
        ("nesting.pt", "nesting deeper than 1000 levels"),
        ("dict_bomb.pt", "dicts with more entries than the pickle has bytes"),
        ("truncated_pickle.pt", "data.pkl: found a line without end"),
        ("length_lie.pt", "expected 2147483647 more bytes"),
        ("long_lie.pt", "expected 2147483647 more bytes"),
        ("frame_lie.pt", "a frame of 9223372036854775807 bytes"),
        ("protocol_9.pt", "pickle protocol 9, expected at most 5"),
        ("opcode.pt", "opcode 0xff at byte 2"),
        ("empty_pickle.pt", "the pickle ends at byte 0"),
        ("stack_left.pt", "2 values left on the stack at the end, expected one"),
        ("storage_missing.pt", "storage `data/7` is missing"),
        ("storage_path.pt", "storage `../0` of 6 elements, expected a plain name"),
        ("storage_short.pt", "storage `data/0` has 24 bytes, expected 7 elements of 4 bytes"),
        ("storage_huge.pt", "expected 4611686018427387904 elements of 4 bytes"),
        ("beyond_storage.pt", "offset 1 that reaches beyond its storage of 6 elements"),
        ("stride_overflow.pt", "that reaches beyond its storage of 6 elements"),
        ("negative_stride.pt", "a size or stride that is no tuple of counts"),
        ("expanded.pt", "a tensor of shape [1048576, 1048576] on a storage of 6 elements"),
        ("rank.pt", "9 extents and 9 strides, expected as many of both, at most 8"),
        ("strides_short.pt", "2 extents and 1 strides"),
        ("big_endian.pt", "holds big-endian numbers, expected little-endian ones"),
        ("no_tensors.pt", "holds no tensors, expected a dict of names and tensors"),
        ("a_list.pt", "holds a list, expected a dict of names and tensors"),
        ("legacy.pt", "is in torch's format before version 1.6"),
        ("bare.pt", "is a bare pickle without tensors"),
        ("empty.pt", "is empty; expected a zip archive written by torch.save"),
        ("torchscript.pt", "is a TorchScript archive, which holds code"),
        ("truncated_zip.pt", "is a damaged zip archive"),
        ("bit_flip.pt", "storage `data/0` is damaged"),
    ];
    for (file, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let path = data("refused").join(file);
        let message = run(&path, &out).unwrap_err().to_string();
        assert!(
            message.starts_with(&path.display().to_string()),
            "{file}: `{message}` does not name the file"
        );
        assert!(message.contains(expected), "{file}: `{message}` does not say `{expected}`");
        assert!(!out.exists(), "{file}: nothing is left behind");
    }
    let tested: BTreeSet<String> = cases.iter().map(|(file, _)| file.to_string()).collect();
    let refused = 11;
    let files = fs::read_dir(data("refused")).unwrap().count();
    assert_eq!(files, tested.len() + refused, "every file of the folder is tried");
}

#[test]
fn no_cut_or_flip_of_a_byte_makes_the_reader_panic() {
    let whole = fs::read(data("module.pt")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.pt");
    let mut refused = 0;
    let mut attempt = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let out = dir.path().join("out");
        match run(&path, &out) {
            Ok(_) => fs::remove_dir_all(&out).unwrap(),
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
                assert!(!out.exists(), "nothing is left behind after: {error}");
            }
        }
    };
    for length in (0..whole.len()).step_by(17) {
        attempt(&whole[..length]);
    }
    for at in (0..whole.len()).step_by(5) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x55;
        attempt(&flipped);
    }
    assert!(refused > 150, "only {refused} damaged files were refused");
}
