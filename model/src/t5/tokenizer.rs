//! Text to tokens, as the text encoder was trained with: `tokenizer.json`, or `spiece.model` where that is all there is.

use super::spiece::{self, Kind};
use crate::config::read_json;
use crate::error::{ModelError, Result};
use std::path::{Path, PathBuf};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{Precompiled, Replace, Sequence, Strip, replace::ReplacePattern};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, NormalizerWrapper};

/// A tokenizer of the `tokenizers` library.
const JSON_FILE: &str = "tokenizer.json";
/// A SentencePiece model.
const SPIECE_FILE: &str = "spiece.model";
/// Settings of either.
const SETTINGS_FILE: &str = "tokenizer_config.json";

/// Tokens of a text at most, where no file says otherwise: the length that T5 was trained on.
const DEFAULT_LIMIT: usize = 512;

/// What HF writes for "no limit known" is 1e30; nothing from here on is a limit.
const NO_LIMIT: f64 = 1e9;

/// Sentinels of T5, where no file says otherwise.
const DEFAULT_EXTRA_IDS: usize = 100;

/// More than any vocabulary; it bounds what a malformed file can ask for.
const MAX_EXTRA_IDS: usize = 10_000;

/// No tokenizer is this large; more is not read.
const MAX_BYTES: u64 = 64 << 20;

const END: &str = "</s>";

/// The tokenizer of a text encoder.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    limit: usize,
    file: PathBuf,
}

impl Tokenizer {
    /// Opens the tokenizer of a checkpoint directory.
    ///
    /// # Errors
    /// Neither of the files that may hold one; a malformed file.
    pub fn open(dir: &Path) -> Result<Self> {
        let settings = Settings::load(&dir.join(SETTINGS_FILE))?;
        let (json, model) = (dir.join(JSON_FILE), dir.join(SPIECE_FILE));
        let (file, mut inner) = if json.is_file() {
            let bytes = read(&json)?;
            let inner = tokenizers::Tokenizer::from_bytes(bytes)
                .map_err(|e| ModelError::file(&json, format!("is not a tokenizer: {e}")))?;
            (json, inner)
        } else if model.is_file() {
            let bytes = read(&model)?;
            let inner = from_spiece(&bytes, settings.extra_ids).map_err(|e| ModelError::file(&model, e))?;
            (model, inner)
        } else {
            let message = format!("has no tokenizer: neither {JSON_FILE} nor {SPIECE_FILE} is there");
            return Err(ModelError::file(dir, message));
        };
        // texts are encoded one by one and whole
        let whole = inner.with_padding(None).with_truncation(None);
        whole.map_err(|e| ModelError::file(&file, format!("is not a tokenizer: {e}")))?;
        Ok(Self { inner, limit: settings.limit, file })
    }

    /// The file that it was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Tokens of a text at most, the end included.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The tokens of a text that a model is to be told: as [`Self::encode`], but it must say something.
    ///
    /// # Errors
    /// Those of [`Self::encode`]; no tokens but those of an empty text.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let tokens = self.encode(text)?;
        if tokens == self.encode("")? {
            let found = if text.is_empty() { "empty" } else { "blank" };
            return Err(ModelError::Text(format!("{found}, expected words")));
        }
        Ok(tokens)
    }

    /// The tokens of a text, the end included; an empty one has the end alone. Marks such as `</s>` in the text are read as the marks.
    ///
    /// # Errors
    /// More tokens than the limit; a text that the tokenizer cannot read.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true);
        let encoding =
            encoding.map_err(|e| ModelError::file(&self.file, format!("cannot encode a text: {e}")))?;
        let tokens = encoding.get_ids();
        if tokens.len() > self.limit {
            let message =
                format!("{} tokens, expected at most {} (`model_max_length`)", tokens.len(), self.limit);
            return Err(ModelError::Text(message));
        }
        Ok(tokens.to_vec())
    }
}

/// What `tokenizer_config.json` adds.
struct Settings {
    limit: usize,
    extra_ids: usize,
}

impl Settings {
    fn load(file: &Path) -> Result<Self> {
        let mut settings = Self { limit: DEFAULT_LIMIT, extra_ids: DEFAULT_EXTRA_IDS };
        if !file.is_file() {
            return Ok(settings);
        }
        let json = read_json(file)?;
        match json.get("model_max_length").map(|value| (value, value.as_f64())) {
            None | Some((serde_json::Value::Null, _)) => {}
            Some((_, Some(limit))) if limit >= NO_LIMIT => {}
            Some((value, limit)) => {
                let whole = limit.filter(|limit| *limit >= 1.0 && limit.fract() == 0.0);
                // whole, and below 1e9
                settings.limit = whole.map(|limit| limit as usize).ok_or_else(|| {
                    ModelError::config(file, "model_max_length", value, "a whole number of tokens, 1 or more")
                })?;
            }
        }
        match json.get("extra_ids") {
            None | Some(serde_json::Value::Null) => {}
            Some(value) => {
                let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
                settings.extra_ids = count.filter(|count| *count <= MAX_EXTRA_IDS).ok_or_else(|| {
                    ModelError::config(file, "extra_ids", value, format!("0 to {MAX_EXTRA_IDS}"))
                })?;
            }
        }
        Ok(settings)
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::metadata(file).map_err(ModelError::io("read", file))?.len();
    if bytes > MAX_BYTES {
        let message = format!("has {bytes} bytes, expected at most {MAX_BYTES} for a tokenizer");
        return Err(ModelError::file(file, message));
    }
    std::fs::read(file).map_err(ModelError::io("read", file))
}

/// What HF `convert_slow_tokenizer.py`, `T5Converter`, makes of a SentencePiece model.
fn from_spiece(bytes: &[u8], extra_ids: usize) -> Result<tokenizers::Tokenizer, String> {
    let model = spiece::read(bytes)?;
    let library = |what: &str, e: tokenizers::Error| format!("has {what} that cannot be used: {e}");
    let unknown = model.pieces.iter().position(|piece| piece.kind == Kind::Unknown);
    let unknown = unknown.ok_or("has no piece for the unknown, expected one of type 2")?;
    let end = model.pieces.iter().position(|piece| piece.text == END);
    let end = end.ok_or_else(|| format!("has no piece `{END}`, expected T5's end of a text"))?;
    let end = u32::try_from(end).map_err(|_| "has more pieces than ids".to_string())?;

    let extra = (0..extra_ids).rev().map(|i| format!("<extra_id_{i}>"));
    let extra: Vec<String> = extra.collect();
    let marks = model.pieces.iter().filter(|piece| piece.kind != Kind::Text).map(|piece| piece.text.clone());
    let marks: Vec<AddedToken> =
        marks.chain(extra.iter().cloned()).map(|mark| AddedToken::from(mark, true)).collect();
    let pieces = model.pieces.into_iter().map(|piece| (piece.text, f64::from(piece.score)));
    let pieces = pieces.chain(extra.into_iter().map(|mark| (mark, 0.0))).collect();
    let unigram = Unigram::from(pieces, Some(unknown), model.byte_fallback)
        .map_err(|e| library("a vocabulary", e.to_string().into()))?;

    let spaces = Replace::new(ReplacePattern::Regex(" {2,}".into()), "▁");
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    if !model.charsmap.is_empty() {
        let rules =
            Precompiled::from(&model.charsmap).map_err(|e| library("a normaliser", e.to_string().into()))?;
        normalizers.push(rules.into());
    }
    normalizers.push(Strip::new(false, true).into());
    normalizers.push(spaces.map_err(|e| library("a normaliser", e))?.into());
    let template = TemplateProcessing::builder()
        .try_single(format!("$A {END}"))
        .and_then(|builder| {
            builder.special_tokens(vec![(END, end)]);
            builder.build().map_err(|e| e.to_string())
        })
        .map_err(|e| library("an end", e.into()))?;

    let mut tokenizer = tokenizers::Tokenizer::new(unigram);
    tokenizer.with_pre_tokenizer(Some(Metaspace::new('▁', PrependScheme::Always, true)));
    tokenizer.with_post_processor(Some(template));
    let normalizer = Some(Sequence::new(normalizers));
    tokenizer.with_normalizer(normalizer).map_err(|e| library("a normaliser", e))?;
    tokenizer.add_special_tokens(marks).map_err(|e| library("marks", e))?;
    Ok(tokenizer)
}
