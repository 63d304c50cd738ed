//! The text encoder's errors, by their text, and the tokenizer of random checkpoints.

use auscult_kernels::DType;
use auscult_model::ModelError;
use auscult_model::init::{Preset, init};
use auscult_model::t5::{T5Encoder, TextEncoder, TextPad, TextProjection, TextSite, TextStates, Tokenizer};
use auscult_runtime::{Backend, CpuBackend, Edits};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn cpu() -> Arc<dyn Backend> {
    Arc::new(CpuBackend::new(None).expect("the host has a processor"))
}

/// A random checkpoint, with a changed configuration.
fn checkpoint(change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    init(Preset::Tiny, 1, dir.path()).expect("a checkpoint");
    let file = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).expect("written")).expect("JSON");
    change(&mut config);
    fs::write(file, config.to_string()).expect("a file of ours");
    dir
}

fn refused<T>(result: Result<T, ModelError>) -> String {
    result.err().expect("refused").to_string()
}

#[test]
fn every_tensor_is_accounted_for() {
    let deeper = checkpoint(|config| config["text_encoder"]["num_layers"] = json!(4));
    let text = refused(T5Encoder::open(deeper.path(), cpu()));
    assert!(
        text.contains(
            "lacks 8 tensors: text_encoder.encoder.block.3.layer.0.SelfAttention.k.weight [48, 48]"
        ),
        "{text}"
    );
    let shallower = checkpoint(|config| config["text_encoder"]["num_layers"] = json!(2));
    let text = refused(T5Encoder::open(shallower.path(), cpu()));
    assert!(
        text.contains(
            "has 8 tensors unexpected: text_encoder.encoder.block.2.layer.0.SelfAttention.k.weight"
        ),
        "{text}"
    );
    let gated = checkpoint(|config| config["text_encoder"]["feed_forward_proj"] = json!("gated-gelu"));
    let text = refused(T5Encoder::open(gated.path(), cpu()));
    assert!(text.contains("DenseReluDense.wi_1.weight [96, 48]"), "{text}");
    let other = checkpoint(|config| config["text_encoder"]["feed_forward_proj"] = json!("gelu"));
    let text = refused(T5Encoder::open(other.path(), cpu()));
    assert!(text.contains("`text_encoder.feed_forward_proj` is \"gelu\": only \"relu\""), "{text}");
    let narrow = checkpoint(|config| config["text_encoder"]["d_model"] = json!(24));
    let text = refused(TextProjection::open(narrow.path(), cpu()));
    assert!(text.contains("enc_to_dec_proj.weight [128, 48] (expected [128, 24])"), "{text}");
    // as wide as the decoder: there is no projection, so its tensors are too many
    let wide = checkpoint(|config| config["text_encoder"]["d_model"] = json!(128));
    let text = refused(TextProjection::open(wide.path(), cpu()));
    assert!(
        text.contains(
            "has 2 tensors unexpected: enc_to_dec_proj.bias [128], enc_to_dec_proj.weight [128, 48]"
        ),
        "{text}"
    );
}

#[test]
fn prompts_and_states_are_checked() {
    let dir = checkpoint(|_| {});
    let encoder = T5Encoder::open(dir.path(), cpu()).expect("a whole checkpoint");
    assert_eq!(encoder.encode(&[]).expect("nothing to do"), []);
    assert_eq!(refused(encoder.encode(&[&[5], &[]])), "text: prompt 1 has no tokens, expected at least one");
    assert_eq!(
        refused(encoder.encode(&[&[5, 259, 1]])),
        "text: prompt 0 has token 259, expected less than 259 (`vocab_size`)"
    );
    let mut edits = Edits::new();
    edits.capture(TextSite::Block(3), DType::F32);
    assert_eq!(
        refused(encoder.encode_with(&[&[5]], edits)),
        "site `blocks.3.resid_post` does not exist, expected blocks 0 to 2"
    );
    let projection = TextProjection::open(dir.path(), cpu()).expect("a whole checkpoint");
    assert_eq!((projection.text_width(), projection.width()), (48, 128));
    let states = TextStates::new(5, vec![0.0; 10]).expect("whole rows");
    assert_eq!(refused(projection.project(&[states])), "text: states of width 5, expected 48");
}

#[test]
fn a_list_of_prompts_longer_than_a_pass_is_encoded_in_order() {
    let dir = checkpoint(|_| {});
    let encoder = T5Encoder::open(dir.path(), cpu()).expect("a whole checkpoint");
    let prompt = |i: u32| vec![3 + i % 200, 7 + i % 11, 1];
    let prompts: Vec<Vec<u32>> = (0..700).map(prompt).collect();
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let states = encoder.encode(&prompts).expect("states");
    assert_eq!(states.len(), 700);
    for i in [0, 511, 512, 699] {
        assert!(encoder.encode(&prompts[i..=i]).expect("states")[0] == states[i], "prompt {i}");
    }
}

#[test]
fn random_checkpoints_read_any_text() {
    let dir = checkpoint(|_| {});
    let tokenizer = Tokenizer::open(dir.path()).expect("a tokenizer");
    assert_eq!(tokenizer.file(), dir.path().join("tokenizer.json"));
    let tokens = |text: &str| tokenizer.encode(text).expect("a text");
    assert_eq!(tokens(""), [1]);
    assert_eq!(tokens("  "), [1]);
    let printable: String = ('!'..='~').collect();
    for text in ["80s pop track with bassy drums and synth", "Loud: 3/4, 120 BPM!", &printable] {
        let tokens = tokens(text);
        assert_eq!(tokens.last(), Some(&1), "{text}");
        assert!(tokens.iter().all(|&token| token != 2 && token < 259), "{text}: {tokens:?}");
    }
    assert!(tokens("日本").contains(&2), "unknown characters have the token for it");
    // pieces, not characters: fewer tokens than letters
    assert!(tokens("rock song with heavy drums").len() <= 8, "{:?}", tokens("rock song with heavy drums"));
    assert_eq!(tokens("a\tb\nc"), tokens("a b c"));
    assert_eq!(tokens("a   b"), tokens("a b"));
}

fn tokenizer_with(files: &[(&str, &str)]) -> Result<Tokenizer, ModelError> {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("a file of ours");
    }
    Tokenizer::open(dir.path())
}

#[test]
fn files_that_hold_no_tokenizer_are_named() {
    let text = refused(tokenizer_with(&[]));
    assert!(text.ends_with("has no tokenizer: neither tokenizer.json nor spiece.model is there"), "{text}");
    let text = refused(tokenizer_with(&[("tokenizer.json", "{}")]));
    assert!(text.contains("tokenizer.json: is not a tokenizer: "), "{text}");
    let text = refused(tokenizer_with(&[("spiece.model", "nothing of the kind")]));
    assert!(text.contains("spiece.model: "), "{text}");
    let unigram = "\n\u{7}\n\u{5}<unk>";
    let text = refused(tokenizer_with(&[("spiece.model", unigram)]));
    assert!(text.ends_with("spiece.model: has no piece for the unknown, expected one of type 2"), "{text}");
    let text = refused(tokenizer_with(&[("tokenizer_config.json", "{\"extra_ids\": -1}")]));
    assert!(text.ends_with("tokenizer_config.json: `extra_ids` is -1, expected 0 to 10000"), "{text}");
}

#[test]
fn texts_beyond_the_limit_are_refused() {
    let dir = checkpoint(|_| {});
    let with = |limit: Value| {
        let settings = json!({ "model_max_length": limit });
        fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).expect("a file of ours");
        Tokenizer::open(dir.path())
    };
    let few = with(json!(4)).expect("a tokenizer");
    assert_eq!(few.encode("the the the").expect("four tokens").len(), 4);
    assert_eq!(
        refused(few.encode("the the the the")),
        "text: 5 tokens, expected at most 4 (`model_max_length`)"
    );
    // what HF writes where it knows of no limit
    for limit in [json!(1e30), Value::Null, json!(1_000_000_000_000_000_019_884_624_838_656_u128 as f64)] {
        assert_eq!(with(limit).expect("a tokenizer").limit(), 512);
    }
    for limit in [json!(0), json!(2.5), json!("many")] {
        let text = refused(with(limit.clone()));
        let want = format!("`model_max_length` is {limit}, expected a whole number of tokens, 1 or more");
        assert!(text.ends_with(&want), "{text}");
    }
    fs::remove_file(dir.path().join("tokenizer_config.json")).expect("written above");
    assert_eq!(Tokenizer::open(dir.path()).expect("a tokenizer").limit(), 512);
    let long = "the ".repeat(512);
    assert_eq!(
        refused(Tokenizer::open(dir.path()).expect("a tokenizer").encode(&long)),
        "text: 513 tokens, expected at most 512 (`model_max_length`)"
    );
}

#[test]
fn prompts_must_say_something() {
    let dir = checkpoint(|_| {});
    let encoder = TextEncoder::open(dir.path(), cpu()).expect("a whole checkpoint");
    assert_eq!((encoder.text_width(), encoder.width()), (48, 128));
    let tokenizer = encoder.tokenizer();
    assert_eq!(tokenizer.prompt("jazz").expect("a text"), tokenizer.encode("jazz").expect("a text"));
    let texts = |texts: &[&str]| refused(encoder.texts(texts, TextPad::Mask));
    assert_eq!(texts(&["jazz", ""]), "text: prompt 1: empty, expected words");
    assert_eq!(texts(&[" \t", "jazz"]), "text: prompt 0: blank, expected words");
    let long = "the ".repeat(600);
    assert_eq!(
        texts(&["jazz", "folk", &long]),
        "text: prompt 2: 601 tokens, expected at most 512 (`model_max_length`)"
    );
    assert_eq!(encoder.texts::<&str>(&[], TextPad::Attend).expect("nothing to do"), []);
}

#[test]
fn texts_are_padded_where_padding_is_attended_to() {
    let dir = checkpoint(|_| {});
    let encoder = TextEncoder::open(dir.path(), cpu()).expect("a whole checkpoint");
    let texts = ["jazz", "loud rock with heavy drums", "folk song"];
    let masked = encoder.texts(&texts, TextPad::Mask).expect("texts");
    let attended = encoder.texts(&texts, TextPad::Attend).expect("texts");
    let tokens = |text: &str| encoder.tokenizer().encode(text).expect("a text").len();
    let longest = tokens(texts[1]);
    for (i, text) in texts.iter().enumerate() {
        assert_eq!(masked[i], encoder.texts(&[text], TextPad::Mask).expect("a text")[0], "{text}: alone");
        assert_eq!((masked[i].tokens(), masked[i].width()), (tokens(text), 128), "{text}");
        assert_eq!((attended[i].tokens(), attended[i].width()), (longest, 128), "{text}");
        let (own, padding) = attended[i].values().split_at(masked[i].values().len());
        assert!(own == masked[i].values(), "{text}");
        assert!(padding.iter().all(|&v| v == 0.0), "{text}");
    }
    assert!(masked[0].tokens() < longest);
    // a list of one has nothing to be padded to
    assert_eq!(encoder.texts(&texts[..1], TextPad::Attend).expect("a text")[0], masked[0]);
}

#[test]
fn weights_that_are_not_finite_are_noticed() {
    let dir = checkpoint(|_| {});
    let file = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&file).expect("written");
    let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().expect("eight"))).expect("short");
    let tensors: Value = serde_json::from_slice(&bytes[8..8 + header]).expect("JSON");
    let span = &tensors["text_encoder.encoder.final_layer_norm.weight"]["data_offsets"];
    let start = 8 + header + usize::try_from(span[0].as_u64().expect("a number")).expect("short");
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, bytes).expect("a file of ours");
    let encoder = TextEncoder::open(dir.path(), cpu()).expect("a whole checkpoint");
    assert_eq!(
        refused(encoder.texts(&["jazz"], TextPad::Mask)),
        "text: prompt 0: states that are not finite, expected finite ones from finite weights"
    );
}

#[test]
fn a_codec_has_no_text_encoder() {
    let dir = checkpoint(|config| *config = config["audio_encoder"].take());
    for text in
        [refused(T5Encoder::open(dir.path(), cpu())), refused(TextProjection::open(dir.path(), cpu()))]
    {
        assert!(text.contains("`model_type` is \"encodec\", expected \"musicgen\""), "{text}");
    }
    assert!(refused(T5Encoder::open(Path::new("/nowhere/at/all"), cpu())).contains("does not exist"));
}
