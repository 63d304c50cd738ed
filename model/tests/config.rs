//! Configurations: HF's defaults, what follows from them, and the text of every refusal.

use std::fs;
use std::path::Path;

use auscult_kernels::DType;
use auscult_model::config::CheckpointConfig;
use auscult_model::encodec::config::{EncodecConfig, NormType, PadMode};
use auscult_model::init::Preset;
use auscult_model::musicgen::config::{Activation, MelodyConfig, MusicgenConfig, MusicgenDecoderConfig};
use auscult_model::t5::config::T5Config;
use serde_json::{Value, json};

/// Loads `json` as the `config.json` of a fresh directory.
fn load(json: &Value) -> Result<CheckpointConfig, String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
    CheckpointConfig::load(dir.path()).map_err(|e| {
        let file = dir.path().join("config.json").display().to_string();
        assert!(e.to_string().starts_with(&file), "`{e}` does not name the file");
        e.to_string().replace(&file, "config.json")
    })
}

/// A composite configuration with every field left to its default.
fn bare() -> Value {
    json!({
        "model_type": "musicgen",
        "text_encoder": { "model_type": "t5" },
        "audio_encoder": { "model_type": "encodec", "codebook_size": 2048, "target_bandwidths": [3.3] },
        "decoder": { "model_type": "musicgen_decoder" },
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut json = bare();
    let (section, field) = pointer.rsplit_once('.').unwrap_or(("", pointer));
    let target = if section.is_empty() { &mut json } else { &mut json[section] };
    target[field] = value;
    json
}

#[test]
fn absent_fields_take_the_defaults_of_hugging_face() {
    let CheckpointConfig::Musicgen(config) = load(&bare()).unwrap() else { panic!("a MusicGen") };
    assert_eq!(config.decoder, MusicgenDecoderConfig::default());
    assert_eq!(config.text_encoder, T5Config::default());
    let decoder = &config.decoder;
    assert_eq!((decoder.hidden_size, decoder.num_hidden_layers, decoder.ffn_dim), (1024, 24, 4096));
    assert_eq!((decoder.num_attention_heads, decoder.head_dim()), (16, 64));
    assert_eq!((decoder.special_token(), decoder.max_position_embeddings), (2048, 2048));
    assert_eq!(decoder.activation_function, Activation::Gelu);
    // t5-small
    assert_eq!((config.text_encoder.d_model, config.text_encoder.inner_dim()), (512, 512));
    let CheckpointConfig::Encodec(codec) = load(&json!({ "model_type": "encodec" })).unwrap() else {
        panic!("a codec")
    };
    assert_eq!(codec, EncodecConfig::default());
    assert_eq!((codec.pad_mode, codec.norm_type), (PadMode::Reflect, NormType::WeightNorm));
    assert!(codec.use_causal_conv && codec.use_conv_shortcut);
}

#[test]
fn what_hugging_face_writes_is_read_back() {
    for preset in Preset::ALL {
        let config = preset.config();
        let json = config.to_json(DType::F32);
        assert_eq!(json["audio_encoder"]["codebook_dim"], config.audio_encoder.hidden_size);
        assert_eq!(json["decoder"]["pad_token_id"], config.decoder.vocab_size);
        assert_eq!(load(&json).unwrap(), CheckpointConfig::Musicgen(config.clone()), "{preset}");
        let codec = config.audio_encoder.to_json();
        assert_eq!(load(&codec).unwrap(), CheckpointConfig::Encodec(config.audio_encoder), "{preset}");
    }
}

#[test]
fn codebooks_and_rates_are_those_of_hugging_face() {
    // ratios, rate in Hz, codebook size, bandwidths -> frame_rate, num_quantizers, quantizers at each bandwidth: printed
    // by transformers 4.57.6 (`EncodecConfig`, `get_num_quantizers_for_bandwidth`)
    type Case = (&'static [usize], u32, usize, &'static [f64], usize, usize, &'static [usize]);
    let cases: [Case; 6] = [
        (&[8, 5, 4, 4], 32_000, 2048, &[2.2], 50, 4, &[4]),
        (&[8, 5, 4, 2], 24_000, 1024, &[1.5, 3.0, 6.0, 12.0, 24.0], 75, 32, &[2, 4, 8, 16, 32]),
        (&[3, 2], 300, 16, &[0.8], 50, 4, &[4]),
        (&[7, 3], 22_050, 512, &[9.45, 28.35], 1050, 3, &[1, 3]),
        (&[5], 16_000, 64, &[57.6, 115.2], 3200, 6, &[3, 6]),
        (&[2, 2, 3], 11_025, 128, &[12.866], 919, 2, &[2]),
    ];
    for (ratios, rate, size, bandwidths, frame_rate, quantizers, each) in cases {
        let codec = EncodecConfig {
            upsampling_ratios: ratios.to_vec(),
            sampling_rate: rate,
            codebook_size: size,
            target_bandwidths: bandwidths.to_vec(),
            ..EncodecConfig::default()
        };
        codec.validate(Path::new("config.json"), "").unwrap();
        assert_eq!(codec.frame_rate(), frame_rate, "{ratios:?}");
        assert_eq!(codec.num_quantizers(), quantizers, "{ratios:?}");
        let found: Vec<usize> = bandwidths.iter().map(|&b| codec.quantizers_for_bandwidth(b)).collect();
        assert_eq!(found, each, "{ratios:?}");
        assert_eq!(codec.default_quantizers(), each[0], "{ratios:?}");
    }
    let uneven =
        EncodecConfig { sampling_rate: 11_025, upsampling_ratios: vec![12], ..EncodecConfig::default() };
    assert_eq!(uneven.frames_per_second(), 918.75, "time is not counted in rounded frames");
}

#[test]
fn frames_follow_the_chain_of_strides() {
    let codec = EncodecConfig::encodec_32khz();
    assert_eq!(codec.hop_length(), 640);
    for samples in [0usize, 1, 4, 5, 639, 640, 641, 6523, 320_000, 320_001, (1 << 24) + 1] {
        // every convolution of stride r turns n samples into ceil(n / r); the encoder walks the ratios backwards
        let chain = codec.upsampling_ratios.iter().rev().fold(samples, |n, &ratio| n.div_ceil(ratio));
        assert_eq!(codec.frames_for_samples(samples), chain, "{samples} samples");
    }
    assert_eq!(codec.frames_for_samples(6523), 11);
    assert_eq!(codec.samples_for_frames(11), 7040);
}

#[test]
fn delays_of_mono_and_stereo() {
    let mono = MusicgenDecoderConfig::default();
    assert_eq!(mono.delays(), [0, 1, 2, 3]);
    let stereo = MusicgenDecoderConfig { num_codebooks: 8, audio_channels: 2, ..mono };
    assert_eq!(stereo.delays(), [0, 0, 1, 1, 2, 2, 3, 3]);
}

#[test]
fn the_trained_length_is_thirty_seconds_or_the_table() {
    let mut config = Preset::Small.config();
    assert_eq!((config.trained_frames(), config.trained_positions()), (1500, 1501));
    config.decoder.max_position_embeddings = 64;
    assert_eq!((config.trained_frames(), config.trained_positions()), (63, 64));
}

#[test]
fn hugging_face_leaves_the_projection_out_when_widths_agree() {
    let mut config: MusicgenConfig = Preset::Tiny.config();
    assert!(config.has_text_projection());
    config.text_encoder.d_model = config.decoder.hidden_size;
    assert!(!config.has_text_projection());
}

#[test]
fn impossible_values_are_refused_by_file_field_value_and_expectation() {
    let cases = [
        (
            with("decoder.num_attention_heads", json!(3)),
            "config.json: `decoder.num_attention_heads` is 3, expected a divisor of `hidden_size` (1024)",
        ),
        (
            with("decoder.hidden_size", json!(0)),
            "config.json: `decoder.hidden_size` is 0, expected 1 to 1048576",
        ),
        (
            with("decoder.hidden_size", json!("wide")),
            "config.json: `decoder.hidden_size`: invalid type: string \"wide\", expected usize",
        ),
        (
            with("decoder.num_codebooks", json!(-1)),
            "config.json: `decoder.num_codebooks`: invalid value: integer `-1`, expected usize",
        ),
        (
            with("decoder.audio_channels", json!(3)),
            "config.json: `decoder.audio_channels` is 3, expected 1 (mono) or 2 (stereo)",
        ),
        (
            with("decoder.pad_token_id", json!(0)),
            "config.json: `decoder.pad_token_id` is 0, expected `vocab_size` (2048), the row that embeddings keep for the \
             special token",
        ),
        (
            with("decoder.vocab_size", json!(1024)),
            "config.json: `decoder.vocab_size` is 1024, expected at least `audio_encoder.codebook_size` (2048)",
        ),
        (
            with("decoder.num_codebooks", json!(5)),
            "config.json: `decoder.num_codebooks` is 5, expected at most 4 for each of 1 channels, the codebooks of \
             `audio_encoder`",
        ),
        (
            with("decoder.activation_function", json!("silu")),
            "config.json: `decoder.activation_function`: unknown variant `silu`, expected `gelu` or `relu`",
        ),
        (
            with("audio_encoder.codebook_size", json!(1000)),
            "config.json: `audio_encoder.codebook_size` is 1000, expected a power of two (HF modeling_encodec.py)",
        ),
        (
            with("audio_encoder.upsampling_ratios", json!([8, 0])),
            "config.json: `audio_encoder.upsampling_ratios` is [8, 0], expected positive ratios whose product is at most \
             1048576",
        ),
        (
            with("audio_encoder.upsampling_ratios", json!([])),
            "config.json: `audio_encoder.upsampling_ratios` is [], expected 1 to 16 ratios",
        ),
        (
            with("audio_encoder.codebook_dim", json!(64)),
            "config.json: `audio_encoder.codebook_dim` is 64, expected `hidden_size` (128): latents are quantised \
             unprojected",
        ),
        (
            with("audio_encoder.pad_mode", json!("circular")),
            "config.json: `audio_encoder.pad_mode`: unknown variant `circular`, expected one of `constant`, `reflect`, \
             `replicate`",
        ),
        (
            with("audio_encoder.sampling_rate", json!(0)),
            "config.json: `audio_encoder.sampling_rate` is 0, expected at least 1 Hz",
        ),
        (
            with("audio_encoder.target_bandwidths", json!([3.0, 1.5])),
            "config.json: `audio_encoder.target_bandwidths` is [3.0, 1.5], expected a rising list of kb/s",
        ),
        (
            with("text_encoder.d_kv", json!(null)),
            "config.json: `text_encoder.d_kv`: invalid type: null, expected usize",
        ),
        (
            with("text_encoder.relative_attention_num_buckets", json!(7)),
            "config.json: `text_encoder.relative_attention_num_buckets` is 7, expected an even number of at least 4, a \
             quarter of it below `relative_attention_max_distance` (128)",
        ),
        (
            with("text_encoder.model_type", json!("bert")),
            "config.json: `text_encoder.model_type` is \"bert\": only \"t5\" is supported",
        ),
        (with("decoder", json!(null)), "config.json: `decoder` is absent, expected an object"),
        (
            with("model_type", json!("llama")),
            "config.json: `model_type` is \"llama\", expected \"musicgen\", \"musicgen_melody\" or \"encodec\"",
        ),
        (json!({}), "config.json: `model_type` is absent, expected the name of an architecture"),
    ];
    for (json, expected) in cases {
        assert_eq!(load(&json).unwrap_err(), expected, "{json}");
    }
}

#[test]
fn valid_models_that_are_not_run_are_refused_by_name() {
    let file = Path::new("config.json");
    // the fields in which facebook/encodec_48khz differs
    let codec = |field: &str, value: Value| -> String {
        let mut json = json!({ "model_type": "encodec" });
        json[field] = value;
        let CheckpointConfig::Encodec(codec) = load(&json).unwrap() else { panic!("a codec") };
        codec.check_supported(file, "").unwrap_err().to_string()
    };
    let tail = "48 kHz EnCodec is not supported, the mono 24 kHz and 32 kHz configurations are";
    for (field, value, head) in [
        ("normalize", json!(true), "config.json: `normalize` is true: loudness is not normalised"),
        (
            "chunk_length_s",
            json!(1.0),
            "config.json: `chunk_length_s` is 1: audio is not encoded in overlapping chunks",
        ),
        (
            "norm_type",
            json!("time_group_norm"),
            "config.json: `norm_type` is \"time_group_norm\": codecs with GroupNorm are not run",
        ),
        (
            "audio_channels",
            json!(2),
            "config.json: `audio_channels` is 2: the codec takes one channel (stereo MusicGen runs it once a channel)",
        ),
    ] {
        assert_eq!(codec(field, value), format!("{head}; {tail}"));
    }
    let decoder = MusicgenDecoderConfig { scale_embedding: true, ..Default::default() };
    assert_eq!(
        decoder.check_supported(file, "decoder.").unwrap_err().to_string(),
        "config.json: `decoder.scale_embedding` is true: scaled embeddings are not supported; every published MusicGen \
         has false"
    );
    let text = T5Config { feed_forward_proj: "gated-silu".into(), ..T5Config::t5_base() };
    assert_eq!(
        text.check_supported(file, "text_encoder.").unwrap_err().to_string(),
        "config.json: `text_encoder.feed_forward_proj` is \"gated-silu\": only \"relu\" (T5 v1.0) and \"gated-gelu\" (v1.1) \
         are supported"
    );
    for preset in Preset::ALL {
        preset.config().check_supported(file).unwrap();
        preset.config().text_encoder.check_supported(file, "").unwrap();
    }
}

#[test]
fn melody_models_are_recognised() {
    let mut json = with("model_type", json!("musicgen_melody"));
    let config = load(&json).unwrap();
    assert_eq!(config.model_type(), "musicgen_melody");
    assert_eq!(config.audio_encoder().codebook_size, 2048);
    let CheckpointConfig::MusicgenMelody(config) = config else { panic!("a MusicGen Melody") };
    assert_eq!(config.melody, Some(MelodyConfig { chroma_length: 235, num_chroma: 12 }));
    assert!(config.has_chroma_projection());
    json["chroma_length"] = 11.into();
    let CheckpointConfig::MusicgenMelody(config) = load(&json).unwrap() else { panic!("a MusicGen Melody") };
    assert_eq!(config.melody, Some(MelodyConfig { chroma_length: 11, num_chroma: 12 }));
    let again = load(&config.to_json(DType::F32)).unwrap();
    assert_eq!(again, CheckpointConfig::MusicgenMelody(config));
    json["num_chroma"] = 0.into();
    assert_eq!(load(&json).unwrap_err(), "config.json: `num_chroma` is 0, expected 1 to 1048576");
    json["num_chroma"] = "twelve".into();
    assert!(load(&json).unwrap_err().starts_with("config.json: `num_chroma`: invalid type"));
}

#[test]
fn paths_that_are_no_checkpoint_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let message = |path: &Path| CheckpointConfig::load(path).unwrap_err().to_string();
    let missing = dir.path().join("nowhere");
    assert!(
        message(&missing).contains("nowhere: does not exist; expected a directory"),
        "{}",
        message(&missing)
    );
    assert!(message(dir.path()).contains("has no config.json"), "{}", message(dir.path()));
    let pickle = dir.path().join("state_dict.bin");
    fs::write(&pickle, [0x80]).unwrap();
    assert!(message(&pickle).contains("is a pickle file, which is never loaded"), "{}", message(&pickle));
    assert!(message(&pickle).contains("auscult model convert"), "{}", message(&pickle));
    let file = dir.path().join("config.json");
    fs::write(&file, "{").unwrap();
    assert!(message(&file).contains("is a file; expected a directory"), "{}", message(&file));
    assert!(message(dir.path()).contains("config.json: is not JSON: EOF"), "{}", message(dir.path()));
    fs::File::create(&file).unwrap().set_len(17 << 20).unwrap();
    assert!(
        message(dir.path()).contains("has 17825792 bytes, expected at most 16777216"),
        "{}",
        message(dir.path())
    );
}
