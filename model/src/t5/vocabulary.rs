//! A tokenizer for random checkpoints: small, the same everywhere, and in the format of the real one.
//!
//! It reads any text. ASCII is spelt without unknown tokens where the vocabulary has room for it, and common pieces of
//! English and of descriptions of music have tokens of their own.

use crate::error::{ModelError, Result};
use serde_json::{Value, json};
use std::path::Path;

/// Padding, the end, the unknown: what every T5 vocabulary begins with.
const MARKS: [&str; 3] = ["<pad>", "</s>", "<unk>"];

/// Single characters, what a short text needs most first.
const CHARACTERS: &str =
    "▁etaoinshrdlucmfwypvbgkjqxz.,'-0123456789ETAOINSHRDLUCMFWYPVBGKJQXZ!?:;()[]{}<>\"#$%&*+/=@\\^_`|~";

/// Pieces, most frequent first; `▁` begins a word.
const PIECES: &str = "▁the ▁a ▁and ▁of ▁with ▁in ing er ed es s ly ▁to ▁for ▁is ▁on ▁that an in on th he re at en or ar al \
    ▁music ▁song ▁track ▁rock ▁pop ▁jazz ▁hip ▁hop ▁techno ▁house ▁ambient ▁classical ▁electronic ▁folk ▁blues ▁metal \
    ▁drum ▁drums ▁bass ▁guitar ▁guitars ▁piano ▁synth ▁strings ▁violin ▁flute ▁brass ▁organ ▁vocal ▁voice ▁choir ▁beat \
    ▁beats ▁melody ▁chord ▁chords ▁rhythm ▁tempo ▁bpm ▁loop ▁solo ▁slow ▁fast ▁loud ▁soft ▁heavy ▁light ▁dark ▁bright \
    ▁happy ▁sad ▁calm ▁dynamic ▁driving ▁upbeat ▁energetic ▁acoustic ▁electric ▁orchestral ▁lofi ▁chill ▁dance ▁80 ▁90 \
    ▁old ▁new ▁style ▁sound ▁sounds ▁pads ▁samples ▁from ▁by ▁as ▁it ▁at ▁an ▁be ▁or ▁his ▁her ▁you ▁we ▁i ▁no ▁not \
    ▁all ▁one ▁two ▁three ▁four ▁minor ▁major ▁key ▁sharp ▁flat tion ment ness able ful less ous ive ic al ity ist ism \
    st nd rd ch sh ck ll ss tt ee oo ou ea ai ow ay oy un re de con com pro dis pre ▁over ▁under ▁into ▁out ▁up ▁down \
    ▁high ▁low ▁deep ▁warm ▁cold ▁wide ▁night ▁day ▁city ▁sea ▁rain ▁love ▁blend ▁elements ▁energy ▁vibrant ▁epic";

/// Tokens of a text at most.
const LIMIT: usize = 512;

/// The files of a tokenizer whose tokens are all below `vocab_size`, by name.
///
/// # Errors
/// A vocabulary without room for the marks; `config` is the file that says so.
pub(crate) fn files(vocab_size: usize, config: &Path) -> Result<[(&'static str, Value); 2]> {
    if vocab_size < MARKS.len() {
        let expected = format!("at least {}: padding, the end and the unknown", MARKS.len());
        return Err(ModelError::config(config, "text_encoder.vocab_size", vocab_size, expected));
    }
    let marks = MARKS.iter().enumerate();
    let added: Vec<Value> = marks
        .map(|(id, mark)| {
            json!({
                "id": id, "content": mark, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true,
            })
        })
        .collect();
    let spaces = |pattern: &str, content: &str| json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": content });
    let end = json!({ "SpecialToken": { "id": "</s>", "type_id": 0 } });
    let metaspace =
        json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFKC" },
            spaces("\\s", " "),
            { "type": "Strip", "strip_left": false, "strip_right": true },
            spaces(" {2,}", "▁"),
        ] },
        "pre_tokenizer": metaspace,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "Sequence": { "id": "A", "type_id": 0 } }, end],
            "pair": [
                { "Sequence": { "id": "A", "type_id": 0 } }, end,
                { "Sequence": { "id": "B", "type_id": 0 } }, end,
            ],
            "special_tokens": { "</s>": { "id": "</s>", "ids": [1], "tokens": ["</s>"] } },
        },
        "decoder": metaspace,
        "model": { "type": "Unigram", "unk_id": 2, "vocab": vocabulary(vocab_size), "byte_fallback": false },
    });
    let settings = json!({
        "tokenizer_class": "T5Tokenizer", "model_max_length": LIMIT, "extra_ids": 0, "eos_token": "</s>",
        "pad_token": "<pad>", "unk_token": "<unk>",
    });
    Ok([("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)])
}

/// Pieces with the logarithms of their weights. A piece costs less than its characters by themselves.
fn vocabulary(vocab_size: usize) -> Vec<(String, f64)> {
    let rank = |i: usize| i as f64 / 64.0;
    let marks = MARKS.iter().map(|mark| ((*mark).to_string(), 0.0));
    let characters = CHARACTERS.chars().enumerate().map(|(i, c)| (c.to_string(), -8.0 - rank(i)));
    let mut pieces: Vec<&str> = Vec::new();
    for piece in PIECES.split_whitespace().filter(|piece| piece.chars().count() > 1) {
        if !pieces.contains(&piece) {
            pieces.push(piece);
        }
    }
    let pieces = pieces.into_iter().enumerate().map(|(i, piece)| (piece.to_string(), -4.0 - rank(i)));
    marks.chain(characters).chain(pieces).take(vocab_size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_vocabulary_has_every_printable_character_once() {
        let pieces = vocabulary(usize::MAX);
        let distinct: BTreeSet<&str> = pieces.iter().map(|(piece, _)| piece.as_str()).collect();
        assert_eq!(distinct.len(), pieces.len());
        for c in '!'..='~' {
            assert!(distinct.contains(c.to_string().as_str()), "{c}");
        }
        assert!(pieces.len() > 259, "{} pieces, the tiny preset has room for 259", pieces.len());
        assert_eq!(vocabulary(100), pieces[..100]);
    }

    #[test]
    fn too_small_a_vocabulary_is_refused() {
        assert_eq!(
            files(2, Path::new("config.json")).expect_err("refused").to_string(),
            "config.json: `text_encoder.vocab_size` is 2, expected at least 3: padding, the end and the unknown"
        );
    }
}
