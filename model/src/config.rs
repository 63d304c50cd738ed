//! Which model a directory in the Hugging Face layout holds, read from its `config.json` and validated.
//!
//! The values of the fields live with their models: [`crate::musicgen::config`], [`crate::encodec::config`],
//! [`crate::t5::config`]. This module reads the file, names the field of every mistake, and dispatches on `model_type`.
//! It does not look at weights.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::encodec::config::EncodecConfig;
use crate::error::{ModelError, Result};
use crate::musicgen::config::MusicgenConfig;

/// Name of the configuration file in a checkpoint directory.
pub const CONFIG_FILE: &str = "config.json";

/// No configuration is this large; more is not read.
const MAX_JSON_BYTES: u64 = 16 << 20;

/// No published dimension comes near this; it keeps every product of three dimensions inside 64 bits.
pub(crate) const MAX_DIM: usize = 1 << 20;

/// The configuration of a checkpoint directory, by `model_type`.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // one value a checkpoint
pub enum CheckpointConfig {
    /// `musicgen`: text encoder, codec and decoder with cross-attention.
    Musicgen(MusicgenConfig),
    /// `musicgen_melody`: the same parts, conditioned by a prefix in place of cross-attention.
    MusicgenMelody(MusicgenConfig),
    /// `encodec`: a codec by itself.
    Encodec(EncodecConfig),
}

impl CheckpointConfig {
    /// Reads `config.json` in `dir` and validates every field.
    ///
    /// # Errors
    /// When `dir` is not a directory with a `config.json`, when the file is not JSON, when `model_type` is unknown,
    /// or when a field has the wrong type or an impossible value (named with file, field, found, expected).
    pub fn load(dir: &Path) -> Result<Self> {
        let file = config_file(dir)?;
        let json = read_json(&file)?;
        match model_type(&file, &json, "")? {
            "musicgen" => Ok(Self::Musicgen(MusicgenConfig::from_json(&file, json)?)),
            "musicgen_melody" => Ok(Self::MusicgenMelody(MusicgenConfig::from_json(&file, json)?)),
            "encodec" => Ok(Self::Encodec(EncodecConfig::from_json(&file, json)?)),
            other => Err(ModelError::config(
                &file,
                "model_type",
                format!("{other:?}"),
                "\"musicgen\", \"musicgen_melody\" or \"encodec\"",
            )),
        }
    }

    /// The `model_type` of the file.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Musicgen(_) => "musicgen",
            Self::MusicgenMelody(_) => "musicgen_melody",
            Self::Encodec(_) => "encodec",
        }
    }

    /// The codec's configuration, which every kind has.
    pub fn audio_encoder(&self) -> &EncodecConfig {
        match self {
            Self::Musicgen(config) | Self::MusicgenMelody(config) => &config.audio_encoder,
            Self::Encodec(config) => config,
        }
    }
}

/// The path of `config.json` in `dir`, or why `dir` is no checkpoint directory.
pub(crate) fn config_file(dir: &Path) -> Result<PathBuf> {
    let layout = "expected a directory in the Hugging Face layout, with config.json and model.safetensors";
    let pickled = dir
        .extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| matches!(e, "bin" | "th" | "pt" | "pth" | "ckpt" | "pkl"));
    if dir.is_file() && pickled {
        return Err(ModelError::file(
            dir,
            format!(
                "is a pickle file, which is never loaded; {layout}, which `auscult model convert` makes of it"
            ),
        ));
    }
    if dir.is_file() {
        return Err(ModelError::file(dir, format!("is a file; {layout}")));
    }
    if !dir.is_dir() {
        return Err(ModelError::file(dir, format!("does not exist; {layout}")));
    }
    let file = dir.join(CONFIG_FILE);
    if !file.is_file() {
        return Err(ModelError::file(dir, format!("has no config.json; {layout}")));
    }
    Ok(file)
}

/// Reads a JSON file of bounded size.
pub(crate) fn read_json(file: &Path) -> Result<Value> {
    let bytes = std::fs::metadata(file).map_err(ModelError::io("read", file))?.len();
    if bytes > MAX_JSON_BYTES {
        return Err(ModelError::file(
            file,
            format!("has {bytes} bytes, expected at most {MAX_JSON_BYTES} for a JSON file of a checkpoint"),
        ));
    }
    let text = std::fs::read(file).map_err(ModelError::io("read", file))?;
    serde_json::from_slice(&text).map_err(|e| ModelError::file(file, format!("is not JSON: {e}")))
}

/// `model_type` of the section at `prefix` ("" for the top, else ending in a dot).
pub(crate) fn model_type<'a>(file: &Path, section: &'a Value, prefix: &str) -> Result<&'a str> {
    let field = format!("{prefix}model_type");
    match section.get("model_type") {
        Some(Value::String(name)) => Ok(name),
        Some(other) => Err(ModelError::config(file, field, other, "a string")),
        None => Err(ModelError::config(file, field, "absent", "the name of an architecture")),
    }
}

/// Deserialises one section, naming the field that does not fit.
pub(crate) fn from_section<T: DeserializeOwned>(file: &Path, section: Value, prefix: &str) -> Result<T> {
    serde_path_to_error::deserialize(section).map_err(|e| {
        let path = e.path().to_string();
        let field =
            if path == "." { prefix.trim_end_matches('.').to_string() } else { format!("{prefix}{path}") };
        let cause = e.into_inner();
        ModelError::file(file, format!("`{field}`: {cause}"))
    })
}

/// `values` as a section of a `config.json` with its `model_type`.
pub(crate) fn section<T: Serialize>(values: &T, model_type: &str) -> Map<String, Value> {
    let mut map = match serde_json::to_value(values) {
        Ok(Value::Object(map)) => map,
        other => unreachable!("a configuration is a struct of plain values: {other:?}"),
    };
    map.insert("model_type".into(), model_type.into());
    map
}

/// Collects the checks of one section: `check.dim("hidden_size", 0)?`.
pub(crate) struct Check<'a> {
    pub file: &'a Path,
    pub prefix: &'a str,
}

impl Check<'_> {
    /// Refuses 0 and absurd sizes.
    pub fn dim(&self, field: &str, value: usize) -> Result<()> {
        self.that((1..=MAX_DIM).contains(&value), field, value, || format!("1 to {MAX_DIM}"))
    }

    /// Refuses `value` unless `ok`.
    pub fn that(
        &self,
        ok: bool,
        field: &str,
        value: impl ToString,
        expected: impl FnOnce() -> String,
    ) -> Result<()> {
        if ok { Ok(()) } else { Err(ModelError::config(self.file, self.name(field), value, expected())) }
    }

    /// Refuses a valid `value` that is not supported, unless `ok`.
    pub fn supported(&self, ok: bool, field: &str, value: impl ToString, reason: &str) -> Result<()> {
        if ok { Ok(()) } else { Err(ModelError::unsupported(self.file, self.name(field), value, reason)) }
    }

    fn name(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }
}
