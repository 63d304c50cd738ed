//! Turns pickled checkpoints into directories in the Hugging Face layout, without running their code.
//!
//! Read: audiocraft packages (`state_dict.bin` with its `compression_state_dict.bin`), codecs of audiocraft by
//! themselves, sparse autoencoders of dictionary_learning and OpenAI, and any torch archive that holds names and tensors
//! (`pytorch_model.bin`, sharded or not). Written: `model.safetensors`, or shards with their index, and `config.json`; of an
//! autoencoder the files of SAELens. Tensors are streamed; memory holds the pickles'
//! names and shapes, and at most one storage where a tensor is not contiguous.
//!
//! What is not done: values keep their type and bits, except that types without a counterpart are widened or rounded
//! (F64 to F32, I16 and I8 to I32, bool to U8), which the report notes.

mod audiocraft;
mod autoencoder;
mod dtype;
mod pickle;
mod plan;
mod torch_zip;
mod xp_config;

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

pub use dtype::TorchDType;
pub use pickle::{Allowed, Id, Node, Pickle, PickleError, StorageRef, TensorView, Value};
pub(crate) use torch_zip::MAX_DEFLATE_RATIO;
pub use torch_zip::TorchFile;

use crate::config::{CONFIG_FILE, CheckpointConfig, config_file, from_section, model_type, read_json};
use crate::encodec::config::EncodecConfig;
use crate::error::{ModelError, Result};
use crate::layout;
use crate::musicgen::config::MusicgenConfig;
use crate::output::Progress;
use crate::t5::config::T5Config;
use audiocraft::{Lm, Renamed, State, rename_codec, rename_lm};
use plan::{Plan, Planned, account, list, torch_archives};
use xp_config::XpConfig;

/// Name of the language model in an audiocraft package.
const LM_FILE: &str = "state_dict.bin";
/// Name of the codec beside it.
const CODEC_FILE: &str = "compression_state_dict.bin";
/// Keys under which training programs wrap their state dict.
const WRAPPERS: [&str; 3] = ["best_state", "state_dict", "model"];

/// What to convert, and to where.
#[derive(Clone, Copy, Debug)]
pub struct ConvertRequest<'a> {
    /// A torch archive, or a directory with `state_dict.bin` or `pytorch_model.bin`.
    pub input: &'a Path,
    /// The codec of an audiocraft language model: `compression_state_dict.bin`, or a directory in the Hugging Face
    /// layout (an EnCodec or a MusicGen). Without it, the file `compression_state_dict.bin` beside the input.
    pub codec: Option<&'a Path>,
    /// The text encoder of an audiocraft language model: a directory in the Hugging Face layout (a T5 or a MusicGen).
    /// Without it, the result has no text encoder and serves unconditional work.
    pub text_encoder: Option<&'a Path>,
    /// The site that an autoencoder was trained at, where its file does not say; for others there is none.
    pub hook: Option<&'a str>,
    /// The directory to write; new, or without a checkpoint.
    pub out: &'a Path,
}

/// What the input was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvertKind {
    /// An audiocraft language model with its codec; written as a MusicGen.
    Musicgen,
    /// An audiocraft codec; written as an EnCodec.
    Encodec,
    /// A sparse autoencoder of dictionary_learning or OpenAI; written as SAELens does.
    Autoencoder,
    /// Names and tensors; written under the same names.
    StateDict,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertReport {
    /// What the input was.
    pub kind: ConvertKind,
    /// Number of tensors written.
    pub tensors: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Entries of the input that were left out.
    pub dropped: Vec<String>,
    /// One sentence for each decision that the input did not force.
    pub notes: Vec<String>,
    /// Every file, weights first.
    pub files: Vec<PathBuf>,
}

/// Converts a pickled checkpoint. `progress` is told bytes written and bytes in all.
///
/// # Errors
/// [`ModelError::Refused`] when a pickle asks for anything but tensor data; [`ModelError::File`],
/// [`ModelError::Config`] and [`ModelError::Unsupported`] for inputs that are damaged, disagree or are of another kind;
/// [`ModelError::Write`] when the destination fails. After an error nothing is left behind.
pub fn convert(request: &ConvertRequest<'_>, progress: Progress<'_>) -> Result<ConvertReport> {
    let input = request.input;
    if input.is_dir() {
        let package = input.join(LM_FILE);
        if package.is_file() {
            return convert(&ConvertRequest { input: &package, ..*request }, progress);
        }
        let pickled = input.join(autoencoder::AE_FILE);
        if pickled.is_file() {
            return convert(&ConvertRequest { input: &pickled, ..*request }, progress);
        }
        if torch_archives(input)?.is_empty() {
            let message = "holds neither state_dict.bin (audiocraft) nor pytorch_model.bin (Hugging Face) nor ae.pt \
                           (dictionary_learning)";
            return Err(ModelError::file(input, message));
        }
        let mut plan = Plan::default();
        plan.tensors = plan.add_directory(input)?;
        return hugging_face(plan, input, request.out, progress);
    }
    let file = TorchFile::open(input)?;
    if let Some(name) = file.root().get("pretrained").and_then(Value::as_str) {
        return Err(pretrained(input, name));
    }
    let (state, skipped) = state_dict(&file)?;
    if autoencoder::is_autoencoder(&state) {
        return autoencoder::write(file, &state, request.hook, request.out, progress);
    }
    if let Some(hook) = request.hook {
        let expected = format!("none, since {} holds no autoencoder", input.display());
        return Err(ModelError::Argument { argument: "hook", found: hook.into(), expected });
    }
    let xp = xp_config(&file);
    let mut plan = Plan::default();
    plan.dropped = skipped;
    if audiocraft::is_lm(&state) {
        musicgen(&mut plan, file, &state, &xp, request)?;
        return plan.write(ConvertKind::Musicgen, request.out, progress);
    }
    if audiocraft::is_codec(&state) {
        let config = codec_package(&mut plan, file, &state, &xp, "")?;
        plan.json.push((CONFIG_FILE.into(), config.to_json()));
        return plan.write(ConvertKind::Encodec, request.out, progress);
    }
    plan.tensors = plan.add_torch(file, &state)?;
    hugging_face(plan, input.parent().unwrap_or(Path::new("")), request.out, progress)
}

/// The tensors of an archive by name, and the names of its other entries.
pub(crate) fn state_dict(file: &TorchFile) -> Result<(State, Vec<String>)> {
    let mut value = file.root();
    let mut skipped = Vec::new();
    // a wrapper in a wrapper, as training programs write them
    for _ in 0..WRAPPERS.len() {
        let Some(inner) =
            WRAPPERS.iter().find_map(|key| value.get(key)).filter(|inner| inner.entries().is_some())
        else {
            break;
        };
        value = inner;
    }
    let Some(entries) = value.entries() else {
        let message = format!("holds {}, expected a dict of names and tensors", value.kind());
        return Err(ModelError::file(file.path(), message));
    };
    let mut state = State::new();
    for (key, value) in entries {
        match (key.as_str(), value.as_tensor()) {
            (Some(name), Some(view)) => drop(state.insert(name.to_string(), view.clone())),
            (name, _) => skipped.push(format!("{} ({})", name.unwrap_or(key.kind()), value.kind())),
        }
    }
    if state.is_empty() {
        return Err(ModelError::file(file.path(), "holds no tensors, expected a dict of names and tensors"));
    }
    Ok((state, skipped))
}

fn xp_config(file: &TorchFile) -> XpConfig {
    file.root().get("xp.cfg").and_then(Value::as_str).map(XpConfig::scan).unwrap_or_default()
}

fn pretrained(file: &Path, name: &str) -> ModelError {
    let message = format!(
        "holds no weights but refers to the codec `{name}`; expected the directory of that codec in the Hugging Face \
         layout, given as the codec"
    );
    ModelError::file(file, message)
}

/// A Hugging Face state dict: same names, and the small files that lie beside it.
fn hugging_face(mut plan: Plan, dir: &Path, out: &Path, progress: Progress<'_>) -> Result<ConvertReport> {
    if dir.join(CONFIG_FILE).is_file() {
        plan.json.push((CONFIG_FILE.into(), read_json(&dir.join(CONFIG_FILE))?));
        plan.carry(dir, |_| true)?;
    } else {
        plan.notes.push("no config.json beside the input: only weights are written".into());
    }
    plan.write(ConvertKind::StateDict, out, progress)
}

/// An audiocraft language model, its codec and, if given, its text encoder.
fn musicgen(
    plan: &mut Plan,
    file: TorchFile,
    state: &State,
    xp: &XpConfig,
    request: &ConvertRequest<'_>,
) -> Result<()> {
    let path = file.path().to_path_buf();
    let derived = audiocraft::derive_lm(&path, state, xp)?;
    let Lm { decoder, text_width, melody } = derived.config;
    plan.notes.extend(derived.notes);
    let sources = plan.add_torch(file, state)?;
    let lm = rename(&path, sources, rename_lm)?;
    let text = match request.text_encoder {
        Some(dir) => Some(text_encoder(plan, dir, text_width)?),
        None => None,
    };
    let text_config = match &text {
        Some((config, _)) => config.clone(),
        None => known_text_encoder(plan, &path, text_width)?,
    };
    let (audio_encoder, codec) = codec(plan, &path, request.codec)?;
    let config = MusicgenConfig { text_encoder: text_config, audio_encoder, decoder, melody };
    config.validate(&path)?;
    account(&path, &lm, &layout::language_model(&config))?;
    plan.tensors.extend(text.into_iter().flat_map(|(_, tensors)| tensors));
    plan.tensors.extend(codec);
    plan.tensors.extend(lm);
    plan.json.push(("generation_config.json".into(), config.generation_json()));
    let dtype = plan
        .tensors
        .iter()
        .find(|tensor| tensor.spec.name.starts_with("decoder."))
        .map_or(auscult_kernels::DType::F32, |tensor| tensor.spec.dtype);
    plan.json.push((CONFIG_FILE.into(), config.to_json(dtype)));
    Ok(())
}

/// Renames and splits tensors; unknown names in one error.
fn rename(file: &Path, tensors: Vec<Planned>, rule: impl Fn(&str) -> Renamed) -> Result<Vec<Planned>> {
    let mut renamed = Vec::new();
    let mut unknown = Vec::new();
    for tensor in tensors {
        let name = tensor.spec.name.clone();
        match rule(&name) {
            Renamed::As(new) => renamed.push(tensor.renamed(new)),
            Renamed::Split(names) => match tensor.split(names) {
                Some(parts) => renamed.extend(parts),
                None => {
                    let message = format!("`{name}` does not divide into queries, keys and values");
                    return Err(ModelError::file(file, message));
                }
            },
            Renamed::Left => {}
            Renamed::Unknown => unknown.push(format!("{name} {:?}", tensor.spec.shape)),
        }
    }
    if unknown.is_empty() {
        Ok(renamed)
    } else {
        Err(ModelError::file(file, list("has unexpected", &unknown)))
    }
}

/// The codec of a language model, its tensors named `audio_encoder.*`.
fn codec(plan: &mut Plan, lm: &Path, given: Option<&Path>) -> Result<(EncodecConfig, Vec<Planned>)> {
    let beside = lm.parent().unwrap_or(Path::new("")).join(CODEC_FILE);
    let path = match given {
        Some(path) => path,
        None if beside.is_file() => &beside,
        None => {
            let message = "has no compression_state_dict.bin beside it, expected a codec: that file, or a directory in \
                           the Hugging Face layout";
            return Err(ModelError::file(lm, message));
        }
    };
    if path.is_dir() {
        let config = CheckpointConfig::load(path)?;
        let prefix = if matches!(config, CheckpointConfig::Encodec(_)) { "" } else { "audio_encoder." };
        let config = config.audio_encoder().clone();
        let tensors: Vec<Planned> = plan
            .add_directory(path)?
            .into_iter()
            .filter_map(|tensor| {
                let name = format!("audio_encoder.{}", tensor.spec.name.strip_prefix(prefix)?);
                Some(tensor.renamed(name))
            })
            .collect();
        account(path, &tensors, &layout::encodec("audio_encoder.", &config))?;
        return Ok((config, tensors));
    }
    let file = TorchFile::open(path)?;
    if let Some(name) = file.root().get("pretrained").and_then(Value::as_str) {
        return Err(pretrained(path, name));
    }
    let (state, skipped) = state_dict(&file)?;
    plan.dropped.extend(skipped);
    let xp = xp_config(&file);
    let before = plan.tensors.len();
    let config = codec_package(plan, file, &state, &xp, "audio_encoder.")?;
    let tensors = plan.tensors.split_off(before);
    Ok((config, tensors))
}

/// Adds an audiocraft codec's tensors, renamed below `prefix`, to the plan.
fn codec_package(
    plan: &mut Plan,
    file: TorchFile,
    state: &State,
    xp: &XpConfig,
    prefix: &str,
) -> Result<EncodecConfig> {
    let path = file.path().to_path_buf();
    let derived = audiocraft::derive_codec(&path, state, xp)?;
    plan.notes.extend(derived.notes);
    let sources = plan.add_torch(file, state)?;
    let tensors = rename(&path, sources, |name| match rename_codec(name) {
        Renamed::As(name) => Renamed::As(format!("{prefix}{name}")),
        other => other,
    })?;
    account(&path, &tensors, &layout::encodec(prefix, &derived.config))?;
    plan.tensors.extend(tensors);
    Ok(derived.config)
}

/// The text encoder of a directory, its tensors named `text_encoder.*`, and its tokenizer's files.
fn text_encoder(plan: &mut Plan, dir: &Path, width: usize) -> Result<(T5Config, Vec<Planned>)> {
    let file = config_file(dir)?;
    let json: Json = read_json(&file)?;
    let (config, prefix) = match model_type(&file, &json, "")? {
        "t5" => {
            let config: T5Config = from_section(&file, json, "")?;
            config.validate(&file, "")?;
            (config, "")
        }
        _ => match CheckpointConfig::load(dir)? {
            CheckpointConfig::Musicgen(config) | CheckpointConfig::MusicgenMelody(config) => {
                (config.text_encoder, "text_encoder.")
            }
            CheckpointConfig::Encodec(_) => {
                return Err(ModelError::config(&file, "model_type", "\"encodec\"", "\"t5\" or \"musicgen\""));
            }
        },
    };
    if config.d_model != width {
        let expected = format!("{width}, the width that the language model projects from");
        return Err(ModelError::config(&file, format!("{prefix}d_model"), config.d_model, expected));
    }
    let (mut tensors, mut left_out, mut embedded) = (Vec::new(), 0usize, false);
    for tensor in plan.add_directory(dir)? {
        let Some(name) = tensor.spec.name.strip_prefix(prefix).map(str::to_string) else { continue };
        let embedding = matches!(name.as_str(), "shared.weight" | "encoder.embed_tokens.weight");
        if embedding {
            // one tensor, which torch archives hold under two names
            if !embedded {
                tensors.push(tensor.renamed("text_encoder.shared.weight"));
            }
            embedded = true;
        } else if name.starts_with("encoder.") {
            tensors.push(tensor.renamed(format!("text_encoder.{name}")));
        } else {
            left_out += 1;
        }
    }
    if left_out > 0 {
        plan.notes
            .push(format!("text encoder: {} of the text model's decoder left out", plan::tensors(left_out)));
    }
    account(dir, &tensors, &layout::t5("text_encoder.", &config))?;
    plan.carry(dir, |name| name != "generation_config.json" && name != "preprocessor_config.json")?;
    Ok((config, tensors))
}

/// The published T5 of this width, for a configuration without its weights.
fn known_text_encoder(plan: &mut Plan, file: &Path, width: usize) -> Result<T5Config> {
    let known = [
        ("t5-small", T5Config::default()),
        ("t5-base", T5Config::t5_base()),
        ("t5-large", T5Config::t5_large()),
    ];
    let Some((name, config)) = known.into_iter().find(|(_, config)| config.d_model == width) else {
        let message = format!(
            "projects text states of width {width}, expected a text encoder of that width to be given"
        );
        return Err(ModelError::file(file, message));
    };
    plan.notes.push(format!(
        "text encoder: none given, so config.json describes {name} and holds no weights of it"
    ));
    Ok(config)
}
