//! From strings: the checkpoint's own text encoder in place of stored states.

use super::common::checkpoint::{Layout, write_checkpoint};
use super::common::compare::measure;
use super::common::generation::{Generation, TextPad as Pad};
use super::reference::{sequence_told, texts};
use super::{Check, Executor};
use auscult_model::musicgen::generate::Text;
use auscult_model::t5::{TextEncoder, TextPad};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// A tokenizer that reads `7 30` as these two tokens and the end, 1.
fn write_tokenizer(dir: &Path, vocabulary: u64) -> Check {
    let words: Map<String, Value> = (0..vocabulary).map(|id| (id.to_string(), json!(id))).collect();
    let whole =
        json!([{ "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": "1", "type_id": 0 } }]);
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "decoder": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": {
            "type": "TemplateProcessing", "single": whole, "pair": whole,
            "special_tokens": { "1": { "id": "1", "ids": [1], "tokens": ["1"] } },
        },
        "model": { "type": "WordLevel", "vocab": words, "unk_token": "2" },
    });
    Ok(fs::write(dir.join("tokenizer.json"), tokenizer.to_string())?)
}

/// Both ways to pad: the states that a decoder attends to, and the sequences that come of them.
pub fn from_strings(executor: &Executor, case: &str) -> Check {
    let generation = Generation::committed(case);
    let dir = tempfile::tempdir()?;
    write_checkpoint(&generation.model(), dir.path(), &Layout::default());
    let config: Value = serde_json::from_slice(&fs::read(dir.path().join("config.json"))?)?;
    let vocabulary = config["text_encoder"]["vocab_size"].as_u64().ok_or("a vocabulary has a size")?;
    write_tokenizer(dir.path(), vocabulary)?;
    let encoder = TextEncoder::open(dir.path(), executor.backend.clone())?;
    for (pad, stored_pad, sequence) in
        [(TextPad::Mask, Pad::Mask, "greedy.guided"), (TextPad::Attend, Pad::Attend, "greedy.attend")]
    {
        let made = made(&encoder, &generation, pad)?;
        let stored = texts(&generation, "text", stored_pad)?;
        assert_eq!(made.len(), stored.len());
        for (i, (made, stored)) in made.iter().zip(&stored).enumerate() {
            let name = format!("{case}: text {i}, {pad}");
            assert_eq!((made.tokens(), made.width()), (stored.tokens(), stored.width()), "{name}");
            measure(&name, made.values(), stored.values(), executor.tolerance())?;
        }
        // interpreters and software drivers play one of them
        if !executor.is_slow() || pad == TextPad::Mask {
            sequence_told(executor, &generation, &generation.sequence(sequence), &made)?;
        }
    }
    Ok(())
}

/// The case's prompts, encoded. Those of more than the end are strings too, which must come to the same.
fn made(
    encoder: &TextEncoder,
    generation: &Generation,
    pad: TextPad,
) -> Result<Vec<Arc<Text>>, libtest_mimic::Failed> {
    let ids = generation.text("text").ids();
    let slices: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let made = encoder.texts_of(&slices, pad)?;
    let (said, want): (Vec<_>, Vec<_>) = ids.iter().zip(&made).filter(|(ids, _)| ids.len() > 1).unzip();
    let string = |ids: &Vec<u32>| {
        let words: Vec<String> = ids[..ids.len() - 1].iter().map(u32::to_string).collect();
        words.join(" ")
    };
    let strings: Vec<String> = said.into_iter().map(string).collect();
    assert!(strings.len() > 1, "{strings:?}");
    assert!(encoder.texts(&strings, pad)?.iter().eq(want), "{}: strings, {pad}", generation.case.name);
    Ok(made.into_iter().map(Arc::new).collect())
}
